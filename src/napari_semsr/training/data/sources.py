"""Where scenes come from besides clear images: simulated instruments."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from napari_semsr.core import FAULTS, NO_BLUR, NO_NOISE, Float32Array, OptionError
from napari_semsr.simulation import (
    COARSE_NM,
    FaultyScene,
    GoldOptions,
    SsumPair,
    SsumPairOptions,
    gold_rng,
    random_gold_options,
    random_gold_pair,
    random_ssum_pairs,
    ssum_validation,
)
from napari_semsr.training.recipe import Recipe

Pair = tuple[Float32Array, Float32Array]
_LEARNT = 5  # stream of chance of what is learnt from
_SLOW_PX = 8.0  # deviation of what is too smooth for noise; chosen


class Simulated(ABC):
    """Pairs of a simulated instrument, as a recipe wants it.

    `scale` is clear pixels per degraded pixel along each axis; the recipe's seed
    decides a pair with its number.
    """

    name: str
    pixel_nm: float

    def __init__(self, recipe: Recipe, scale: int) -> None:
        self.data, self.seed, self.scale = recipe.data, recipe.seed, scale

    @abstractmethod
    def pair(self, place: int) -> Pair:
        """Make a pair to learn from.

        Degraded and clear image, on the scale where the percentiles of the degraded one
        or of each are 0 and 1.
        """

    @abstractmethod
    def validation(self, count: int) -> list[Pair]:
        """Make fixed pairs that are never learnt from."""


class Superlens(Simulated):
    """Superlens mosaic and electron image of drawn samples.

    Consecutive pairs share a sample, of which drawing takes longer than looking; they
    differ in focus, resolution and noise.
    """

    name = "superlens"
    pixel_nm = SsumPairOptions().pixel_nm
    _LOOKS = 4

    _sample = -1
    _pairs: Sequence[SsumPair] = ()

    def pair(self, place: int) -> Pair:
        """Make a pair to learn from.

        Each image is on the scale where its own percentiles are 0 and 1.
        """
        made = self._taken(place)
        return made.low, made.high

    def scene(self, place: int) -> FaultyScene:
        """Make the same pair, with what its microscope did to it."""
        made = self._taken(place)
        noise = made.low - made.noiseless
        noise = noise - ndimage.gaussian_filter(noise, _SLOW_PX)  # shading is none
        faults = np.full(len(FAULTS), np.nan, np.float32)
        told = {
            "noise": math.log(float(noise.std()) + NO_NOISE),
            "blur_rows": math.log(made.blur_px + NO_BLUR),
            "blur_columns": math.log(made.blur_px + NO_BLUR),
            "slant": 0.0,
        }
        for name, value in told.items():
            faults[FAULTS.index(name)] = value
        still = np.zeros_like(made.low)
        grey = float(made.low.mean())
        return FaultyScene(
            made.low, made.noiseless, made.high, still, grey, faults, made.spread
        )

    def _taken(self, place: int) -> SsumPair:
        """Take a picture of the sample that a run of places shares."""
        sample, look = divmod(place, self._LOOKS)
        if sample != self._sample:
            rng = np.random.default_rng([self.seed, sample, _LEARNT])
            side, ranges = self.data.scene_px, self.data.superlens
            self._pairs = list(
                random_ssum_pairs(side, rng, ranges, self._LOOKS, scale=self.scale)
            )
            self._sample = sample
        return self._pairs[look]

    def validation(self, count: int) -> list[Pair]:
        """Make fixed pairs of samples that training never draws."""
        side, ranges = self.data.scene_px, self.data.superlens
        fields = ssum_validation(count, side, scale=self.scale, options=ranges)
        return [(p.low, p.high) for p in fields]


class Gold(Simulated):
    """Gold on carbon at two magnifications.

    Half of what is learnt from has sizes, gaps, probes and doses of its own; what
    chooses the checkpoint is as the samples are tuned.
    """

    name = "gold"
    pixel_nm = COARSE_NM
    _SCALE = 2

    def pair(self, place: int) -> Pair:
        """Make a pair to learn from.

        Both images are on the scale where the percentiles of the degraded are 0 and 1.
        """
        rng = np.random.default_rng([self.seed, place, _LEARNT])
        return self._drawn(rng, random_gold_options(rng))

    def validation(self, count: int) -> list[Pair]:
        """Make fixed pairs that training never draws."""
        return [self._drawn(gold_rng("validation", i)) for i in range(count)]

    def _drawn(
        self, rng: np.random.Generator, options: GoldOptions | None = None
    ) -> Pair:
        if self.scale != self._SCALE:
            msg = f"The source gold needs a network of scale 2, got scale {self.scale}."
            raise OptionError(msg)
        pair = random_gold_pair(self.data.scene_px, rng, options)
        return pair.low, pair.high


INSTRUMENTS: dict[str, type[Simulated]] = {k.name: k for k in (Superlens, Gold)}
