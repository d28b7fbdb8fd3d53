"""Where scenes come from besides clear images: simulated instruments."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from napari_semsr.core import Float32Array, OptionError
from napari_semsr.simulation import (
    COARSE_NM,
    GoldOptions,
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
    _pairs: Sequence[Pair] = ()

    def pair(self, place: int) -> Pair:
        """Make a pair to learn from.

        Each image is on the scale where its own percentiles are 0 and 1.
        """
        sample, look = divmod(place, self._LOOKS)
        if sample != self._sample:
            rng = np.random.default_rng([self.seed, sample, _LEARNT])
            side, ranges = self.data.scene_px, self.data.superlens
            made = random_ssum_pairs(side, rng, ranges, self._LOOKS, scale=self.scale)
            self._pairs = [(p.low, p.high) for p in made]
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
