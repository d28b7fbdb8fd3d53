"""Statistics estimated from a sample of the image, with their error.

A tenth of the field is sampled in small tiles: they are sorted by local mean and,
within bands of equal mean, by local standard deviation, and one is drawn from each
interval of that order. The sampled tiles are one batch of the network, over which the
statistics of each norm are pooled; memory limits their number. The same is done with
four parts of the sample. The differences of their results on tiles outside the sample
estimate the error of the whole sample: the mean of four parts has a quarter of a part's
variance, which is a third of the variance between each part and the mean of all. The
error is reduced by the share of the field that is sampled.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from napari_semsr.core import (
    Box,
    FloatArray,
    IntPair,
    Progress,
    RealArray,
    Tile,
    TilePlan,
    plan_tiles,
    round_up,
)
from napari_semsr.inference.ensemble import (
    FixedMoments,
    Moments,
    Statistics,
    compute_sums,
    convert_read_errors,
    move_to_device,
    pool_sums,
)
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.tiles import TiledRun
from napari_semsr.models import InstanceNormCall, NormInterceptor

# Representative parts of a field, drawn evenly over mean and standard deviation.

_SIDE = 256  # side of a window from which statistics are sampled; chosen


def stratify_tiles(mean: FloatArray, spread: FloatArray, draws: int) -> list[int]:
    """Order tiles in bands of similar mean, each sorted by standard deviation.

    Every second band is reversed, so that neighbours in this order are similar.
    """
    bands = np.array_split(np.argsort(mean, kind="stable"), round(math.sqrt(draws)))
    order: list[int] = []
    for number, band in enumerate(bands):
        by_spread = band[np.argsort(spread[band], kind="stable")]
        order += (by_spread[::-1] if number % 2 else by_spread).tolist()
    return order


def draw_stratified_sample(
    order: Sequence[int], count: int, rng: np.random.Generator
) -> list[int]:
    """Draw one tile at random from each of `count` equal intervals of a ranking."""
    if count >= len(order):
        return list(order)
    stretches = np.array_split(np.array(order), count)
    return [int(rng.choice(stretch)) for stretch in stretches]


_SHARE = 0.1  # share of the tiles that is sampled; chosen
_FEWEST = 8  # minimum number of sampled tiles; chosen
_HELD_OUT_TILES = 8  # tiles held out to evaluate the sample; chosen
_PARTS = 4  # parts of the sample from which its error is estimated; chosen
_OF_MEMORY = 0.5  # share of memory for a batch; the rest is for other data of the run


@dataclass(frozen=True, slots=True)
class SampledStatistics:
    """Statistics of a sample of tiles, with their estimated error."""

    statistics: Statistics  # For each live norm
    # Estimated root mean square error of the result, over its standard deviation
    error: float
    sample_tiles: int  # Small tiles in the sample
    tiles: int  # Small tiles in the field

    def describe(self) -> str:
        """Describe the sample and its error."""
        return (
            f"Approximate: the statistics were measured on {self.sample_tiles} of "
            f"{self.tiles} small tiles of the field. As estimated on held-out tiles, "
            f"the RMS difference from the exact result is about {self.error:.2g} of "
            "the result's standard deviation."
        )

    def to_json(self) -> dict[str, object]:
        """Convert to JSON types."""
        return {
            "statistics": self.statistics.to_json(),
            "error": self.error,
            "sampled": self.sample_tiles,
            "tiles": self.tiles,
        }

    @classmethod
    def from_json(cls, value: Any) -> "SampledStatistics":
        """Create an object from the output of `to_json`."""
        with convert_read_errors():
            return cls(
                Statistics.from_json(value["statistics"]),
                float(value["error"]),
                int(value["sampled"]),
                int(value["tiles"]),
            )


def measure_sample(
    run: TiledRun, predictor: Predictor, *, seed: int = 0
) -> Generator[Progress, None, SampledStatistics]:
    """Measure statistics on a sample, and estimate their error."""
    field, halo = run.plan.tiles, predictor.probe.halo or 0
    cut = plan_tiles(
        field.padded_shape,
        core=round_up(min(_SIDE, field.core), field.stride),
        halo=round_up(halo // 2, field.stride),
        stride=field.stride,
        constant=False,
    )
    tiles, sampler = cut.tiles, _Sampler(run, predictor, cut)
    budget = _OF_MEMORY * predictor.memory_budget(run.plan.options.memory_gb)
    fitting = int(budget // max(1, predictor.peak_bytes(sampler.window_shape)))
    count = max(_FEWEST, min(round(_SHARE * len(tiles)), fitting))
    yield Progress(0, 0, "Sorting parts of the field by mean and standard deviation")
    mean, spread = np.zeros(len(tiles)), np.zeros(len(tiles))
    for number, tile in enumerate(tiles):  # read each tile once
        core = run.plan.read_clean_window(tile.core)[0]
        mean[number], spread[number] = core.mean(), core.std()
    order = stratify_tiles(mean, spread, count)
    rng = np.random.default_rng(seed)
    sample_indices = draw_stratified_sample(order, count, rng)
    sample_set = set(sample_indices)
    rest = [number for number in order if number not in sample_set] or order
    held_out = [tiles[i] for i in draw_stratified_sample(rest, _HELD_OUT_TILES, rng)]
    sample = [tiles[i] for i in sample_indices]
    yield Progress(0, 0, "Statistics of a sample")
    whole = sampler.measure_moments(sample)
    if len(sample_indices) == len(tiles):
        return SampledStatistics(Statistics(tuple(whole)), 0.0, len(tiles), len(tiles))
    expected_results = sampler.compute_results(whole, held_out)
    squares = []
    for part in range(_PARTS):
        yield Progress(part, _PARTS, "Estimating the error of the statistics")
        some = sampler.measure_moments(sample[part::_PARTS])
        squares.append(
            float(
                np.mean(
                    (sampler.compute_results(some, held_out) - expected_results) ** 2
                )
            )
        )
    left = 1 - len(sample_indices) / len(tiles)
    rms = math.sqrt(left * float(np.mean(squares)) / (_PARTS - 1))
    overall = float(expected_results.std())
    error = rms / overall if overall > 0 else 0.0
    return SampledStatistics(
        Statistics(tuple(whole)), error, len(sample_indices), len(tiles)
    )


class _BatchMoments(NormInterceptor):
    """Interceptor that normalises a batch by the pooled moments of all its cores.

    `cores` are in pixels of the windows, which all have the shape `side`.
    """

    def __init__(self, cores: Sequence[Box], side: IntPair) -> None:
        super().__init__()
        self.moments: list[Moments] = []
        self._cores, self._side = cores, side

    def _normalise(self, norm: InstanceNormCall) -> torch.Tensor:
        images = norm.input
        finer = [
            Fraction(side, size)
            for side, size in zip(images.shape[2:], self._side, strict=True)
        ]
        sums = []
        for number, core in enumerate(self._cores):
            rows, columns = (
                slice(int(part.start * ratio), int(part.stop * ratio))
                for part, ratio in zip(core.slices, finer, strict=True)
            )
            sums.append(compute_sums(images[number : number + 1, :, rows, columns]))
        side = pool_sums(sums, images.device)
        self.moments.append(side)
        return side.normalise(images, norm)


@dataclass(frozen=True, slots=True)
class _Sampler:
    """Runner that treats a sample of tiles as the whole image."""

    run: TiledRun
    predictor: Predictor
    cut: TilePlan

    @property
    def window_shape(self) -> IntPair:
        """Window shape (rows, columns), the same for all tiles of a batch."""
        across = self.cut.core + 2 * self.cut.halo
        rows, columns = self.cut.padded_shape
        return min(across, rows), min(across, columns)

    def find_window(self, tile: Tile) -> Box:
        """Return the window around a tile, shifted to stay inside the image."""
        outer = tile.core.grow(self.cut.halo)
        corner = [
            min(max(start, 0), size - side)
            for start, size, side in zip(
                (outer.y0, outer.x0),
                self.cut.padded_shape,
                self.window_shape,
                strict=True,
            )
        ]
        return Box.from_shape(self.window_shape, (corner[0], corner[1]))

    def network_input(self, box: Box) -> torch.Tensor:
        plan = self.run.plan
        return self.predictor.network_input(
            plan.read_clean_window(box)[0], plan.scaling
        )

    def measure_moments(self, sample: Sequence[Tile]) -> list[Moments]:
        boxes = [self.find_window(tile) for tile in sample]
        cores = [t.core.relative_to(box) for t, box in zip(sample, boxes, strict=True)]
        batch = torch.cat([self.network_input(box) for box in boxes])
        pooling = _BatchMoments(cores, self.window_shape)
        with self.predictor.compute_context("a sample of tiles"), pooling:
            self.predictor.network(batch)
        return pooling.moments

    def compute_results(
        self, moments: Sequence[Moments], tiles: Sequence[Tile]
    ) -> RealArray:
        fixed_moments = move_to_device(moments, self.predictor.device)
        scale = self.run.plan.model.card.scale
        parts = []
        for tile in tiles:
            window = self.network_input(tile.window)
            with (
                self.predictor.compute_context("a held-out tile"),
                FixedMoments(fixed_moments),
            ):
                output = self.predictor.network(window)[0, 0]
            inner = tile.local_core.scale(scale).slices
            parts.append(output[inner].to("cpu", torch.float64).numpy().ravel())
        return np.concatenate(parts)
