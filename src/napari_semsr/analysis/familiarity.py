"""Compare the blocks of an image with those of the place that a model was trained on.

A block is described by its power in bands of spatial frequency, its grey levels and
their contrast, on the scale on which a model works. Another pitch, another kind of
structure, another relief and another focus change the bands. The distance to the place
is the mean distance to the five most similar of its blocks, each number over its
deviation there; a block is *unlike the training place* if it is farther than all but
one in fifty blocks of the place are from those of other parts of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy import fft

from napari_semsr.core import Box, FloatArray

BLOCK_PX = 96  # side of a block; chosen: several periods of what light carries
_STEP_PX = 48
_BANDS, _COARSEST_PX = 10, 48.0  # of power; chosen
_PERCENTILES = (5, 25, 50, 75, 95)
_NO_POWER = 1e-7  # below rounding in 8 bits
_NEAREST = 5  # blocks that the distance is measured to; chosen
_LIKE = 98  # percentile of the place's own distances; chosen
_FLOOR = (
    0.05  # of a deviation: numbers that hardly vary in a place decide nothing alone
)


@dataclass(frozen=True, slots=True)
class Familiarity:
    """Blocks of a place, (M, F), and the distance from which a block is unlike them."""

    looks: FloatArray
    spread: FloatArray  # (F,)
    limit: float

    @classmethod
    def of(cls, parts: Iterable[FloatArray]) -> Self | None:
        """Describe a place by its parts (Y, X); None if they are too small."""
        looks, places = [], []
        for number, plane in enumerate(parts):
            for box in blocks(plane.shape):
                looks.append(_look(plane[box.slices]))
                places.append((number * 1e6, box.y0, box.x0))
        if len(looks) <= _NEAREST:
            return None
        table, at = np.array(looks), np.array(places)
        spread = np.maximum(table.std(axis=0), _FLOOR)
        apart = np.abs(at[:, None] - at[None]).max(-1) >= BLOCK_PX
        own = _distances(table, table, spread, apart)
        own = own[np.isfinite(own)]
        if own.size <= len(looks) / 2:  # hardly any is apart from five others
            return None
        return cls(table, spread, float(np.percentile(own, _LIKE)))

    def distances(self, plane: FloatArray) -> tuple[list[Box], FloatArray]:
        """Measure how far the blocks of a plane (Y, X) are, over the limit: (N,)."""
        boxes = [b for b in blocks(plane.shape) if np.isfinite(plane[b.slices]).all()]
        if not boxes:
            return [], np.empty(0)
        looks = np.array([_look(plane[box.slices]) for box in boxes])
        return boxes, _distances(looks, self.looks, self.spread) / self.limit

    def to_json(self) -> dict[str, Any]:
        """Write it for a model's card."""
        return {
            "looks": np.round(self.looks, 4).tolist(),
            "spread": np.round(self.spread, 5).tolist(),
            "limit": round(self.limit, 5),
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """Read it from a model's card."""
        looks, spread = (np.array(record[name], float) for name in ("looks", "spread"))
        return cls(looks, spread, float(record["limit"]))


def blocks(shape: tuple[int, ...]) -> list[Box]:
    """Lay overlapping blocks over an image, as far as whole ones fit."""
    rows, columns = (
        range(0, size - BLOCK_PX + 1, _STEP_PX) for size in (shape[0], shape[1])
    )
    return [Box.of((BLOCK_PX, BLOCK_PX), (y, x)) for y in rows for x in columns]


def _distances(
    looks: FloatArray,
    fields: FloatArray,
    spread: FloatArray,
    counts: "np.ndarray[Any, np.dtype[np.bool_]] | None" = None,
) -> FloatArray:
    """Mean distance to the five nearest blocks, of those that count."""
    away = np.sqrt((((looks[:, None] - fields[None]) / spread) ** 2).mean(-1))
    if counts is not None:
        away = np.where(counts, away, np.inf)
    nearest = np.sort(away, axis=1)[:, :_NEAREST]
    means: FloatArray = np.where(np.isfinite(nearest), nearest, np.nan).mean(1)
    return means


def _look(block: FloatArray) -> FloatArray:
    """Describe a block by logarithms of power, percentiles and deviation."""
    plane = np.asarray(block, dtype=np.float64)
    window = np.outer(*(np.hanning(n) for n in plane.shape))
    power = np.abs(fft.rfft2((plane - plane.mean()) * window)) ** 2
    power /= (window**2).sum()
    y, x = (
        np.fft.fftfreq(plane.shape[0])[:, None],
        np.fft.rfftfreq(plane.shape[1])[None],
    )
    edges = np.geomspace(1 / _COARSEST_PX, 0.5, _BANDS + 1)
    band = np.digitize(np.hypot(y, x), edges)
    means = [power[band == number].mean() for number in range(1, _BANDS + 1)]
    return np.concatenate(
        [
            np.log10(np.array(means) + _NO_POWER),
            np.percentile(plane, _PERCENTILES),
            [np.log10(plane.std() + 1e-4)],
        ]
    )
