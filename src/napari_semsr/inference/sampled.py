"""Statistics from a sample of the field, and what that costs in accuracy.

A tenth of the field is sampled in small tiles: they are sorted by local mean and,
within bands of equal mean, by local spread, and one is drawn from each stretch of that
order. The sampled tiles step through the network together and pool their statistics.
The same is done with four parts of the sample on their own; how far the results of
these differ, on tiles that were in no sample, tells how far the result of the whole
sample is from that of the whole field: the mean of four parts has a quarter of a part's
variance, a third of the variance between each part and the mean of all. Sampling
without replacement takes away the share that was sampled.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_semsr.core import (
    FloatArray,
    Progress,
    Tile,
    TilePlan,
    plan_tiles,
    round_up,
)
from napari_semsr.inference.buffers import Room
from napari_semsr.inference.lockstep import LayerSynchronous, StepResult
from napari_semsr.inference.lockstep_plan import OpTrace
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.statistics import (
    FixedMoments,
    Statistics,
    on_device,
    reading,
)
from napari_semsr.inference.tiles import TiledRun

# Parts of a field that stand for all of it, drawn evenly over mean and spread.

_SIDE = 256


def stratified(mean: FloatArray, spread: FloatArray, draws: int) -> list[int]:
    """Order tiles by bands of equal mean, and within a band by spread.

    Every second band runs backwards: neighbours in this order are alike.
    """
    bands = np.array_split(np.argsort(mean, kind="stable"), round(math.sqrt(draws)))
    order: list[int] = []
    for number, band in enumerate(bands):
        ranked = band[np.argsort(spread[band], kind="stable")]
        order += (ranked[::-1] if number % 2 else ranked).tolist()
    return order


def draw_evenly(
    order: Sequence[int], count: int, rng: np.random.Generator
) -> list[int]:
    """Draw one tile from each of equal stretches of an order."""
    if count >= len(order):
        return list(order)
    stretches = np.array_split(np.array(order), count)
    return [int(rng.choice(stretch)) for stretch in stretches]


def _sample_plan(plan: TilePlan, halo: int) -> TilePlan:
    """Cut the padded field into small tiles, of which a sample is taken."""
    side = min(_SIDE, plan.core)
    return plan_tiles(
        plan.padded_shape,
        core=round_up(side, plan.stride),
        halo=round_up(halo // 2, plan.stride),
        stride=plan.stride,
        constant=False,
    )


_SHARE = 0.1
_FEWEST = 8
_HELD = 8
_PARTS = 4


@dataclass(frozen=True, slots=True)
class SampledStatistics:
    """Statistics of a sample."""

    statistics: Statistics  # For each live call
    # Estimated root mean square error of the result, over its standard deviation
    error: float
    sampled: int  # Small tiles in the sample
    tiles: int  # Small tiles in the field

    def sentence(self) -> str:
        """Say how good it is."""
        return (
            f"Approximate: the statistics are those of {self.sampled} of {self.tiles} "
            f"sampled parts of the field; by held-out parts the result is about "
            f"{self.error:.2g} of its standard deviation (RMS) from the exact one."
        )

    def to_json(self) -> dict[str, Any]:
        """Write as JSON types."""
        return {
            "statistics": self.statistics.to_json(),
            "error": self.error,
            "sampled": self.sampled,
            "tiles": self.tiles,
        }

    @classmethod
    def from_json(cls, value: Any) -> "SampledStatistics":
        """Read what `to_json` wrote."""
        with reading():
            return cls(
                Statistics.from_json(value["statistics"]),
                float(value["error"]),
                int(value["sampled"]),
                int(value["tiles"]),
            )


def sampled_work(plan: TilePlan, halo: int) -> float:
    """Estimate the pixels that sampling computes, for each of the padded field."""
    cut = _sample_plan(plan, halo)
    window = (cut.core + 2 * cut.halo) ** 2
    count = min(len(cut), max(_FEWEST, round(_SHARE * len(cut))))
    rows, columns = plan.padded_shape
    return (2 * count + (_PARTS + 1) * _HELD) * window / (rows * columns)


def measure_sample(
    run: TiledRun,
    predictor: Predictor,
    trace: OpTrace,
    room: tuple[int, Path],
    *,
    seed: int = 0,
) -> Generator[Progress, None, SampledStatistics]:
    """Take statistics from a sample, and estimate their error."""
    cut = _sample_plan(run.plan.tiles, predictor.probe.halo or 0)
    tiles = cut.tiles
    count = max(_FEWEST, round(_SHARE * len(tiles)))
    yield Progress(0, 0, "Sorting parts of the field by mean and spread")
    mean, spread = np.zeros(len(tiles)), np.zeros(len(tiles))
    for number, tile in enumerate(tiles):  # each is looked at once
        core = run.plan.read(tile.core)[0]
        mean[number], spread[number] = core.mean(), core.std()
    order = stratified(mean, spread, count)
    rng = np.random.default_rng(seed)
    drawn = draw_evenly(order, count, rng)
    taken = set(drawn)
    rest = [number for number in order if number not in taken] or order
    held = [tiles[i] for i in draw_evenly(rest, _HELD, rng)]
    sampler = _Sampler(run, predictor, trace, cut, room)
    sample = [tiles[i] for i in drawn]
    whole = yield from sampler.statistics(sample, "Statistics of a sample")
    expected = sampler.results(whole, held)
    squares = []
    for part in range(_PARTS):
        yield Progress(part, _PARTS, "Estimating the error of the statistics")
        some = yield from sampler.statistics(
            sample[part::_PARTS], "Estimating the error"
        )
        squares.append(float(np.mean((sampler.results(some, held) - expected) ** 2)))
    left = 1 - len(drawn) / len(tiles)
    rms = math.sqrt(left * float(np.mean(squares)) / (_PARTS - 1))
    overall = float(expected.std())
    error = rms / overall if overall > 0 else 0.0
    return SampledStatistics(
        Statistics(tuple(whole), False), error, len(drawn), len(tiles)
    )


@dataclass(frozen=True, slots=True)
class _Sampler:
    """Runs some tiles of a field as if they were all of it."""

    run: TiledRun
    predictor: Predictor
    trace: OpTrace
    cut: TilePlan
    room: tuple[int, Path]

    def given(self, tile: Tile) -> torch.Tensor:
        plan = self.run.plan
        return self.predictor.given(plan.read(tile.window)[0], plan.scaling)

    def statistics(
        self, sample: Sequence[Tile], message: str
    ) -> Generator[Progress, None, list[Any]]:
        lockstep = LayerSynchronous(
            self.predictor.network,
            self.trace,
            self.cut,
            self.given,
            Room(*self.room),
            self.predictor.device,
            computing=lambda: self.predictor.computing("a sample of tiles"),
            refresh=False,
        )
        for event in lockstep.run(sample, until_end=False):
            if isinstance(event, StepResult) and event.tile == event.tiles:
                yield Progress(event.point, event.points, message)
        return lockstep.measured

    def results(self, moments: Sequence[Any], tiles: Sequence[Tile]) -> NDArray[Any]:
        fixed = on_device(moments, self.predictor.device)
        scale = self.run.plan.loaded.card.scale
        parts = []
        for tile in tiles:
            window = self.given(tile)
            with self.predictor.computing("a held-out tile"), FixedMoments(fixed):
                output = self.predictor.network(window)[0, 0]
            inner = tile.inner.scaled(scale).slices
            parts.append(output[inner].to("cpu", torch.float64).numpy().ravel())
        return np.concatenate(parts)
