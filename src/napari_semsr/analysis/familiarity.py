"""Compare the blocks of an image with those of the place that a model was trained on.

A block is described by its power in bands of spatial frequency, its grey levels and
their contrast, on the scale on which a model works. Another pitch, another kind of
structure, another relief and another focus change the bands. The distance to the place
is the mean distance to the five most similar of its blocks, each number over its
deviation there; a block is *unlike the training place* if it is farther than all but
one in fifty blocks of the place are from those of other parts of it.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy import fft

from napari_semsr.core import (
    Box,
    CheckpointError,
    FloatArray,
    FloatPair,
    Job,
    Progress,
    read_box,
)

FAMILIARITY = "familiarity"
"""Key of a card's `training`: what the training place looks like."""
UNLIKE_PERCENT = 30.0
"""Chosen: share of an image's area from which on another model is proposed."""

BLOCK_PX = 96  # side of a block; chosen: several periods of what light carries
_STEP_PX = 48
_BANDS, _COARSEST_PX = 10, 48.0  # of power; chosen
_PERCENTILES = (5, 25, 50, 75, 95)
_NUMBERS = _BANDS + len(_PERCENTILES) + 1  # that describe a block
_NO_POWER = 1e-7  # below rounding in 8 bits
_NEAREST = 5  # blocks that the distance is measured to; chosen
_LIKE = 98  # percentile of the place's own distances; chosen
_BLOCKS = 400  # of an image that are compared where no map is made; chosen: seconds
# Least deviation: numbers that hardly vary in a place decide nothing alone; chosen.
_FLOOR = 0.05


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

    def distances(
        self, plane: FloatArray, *, finest: bool = True
    ) -> tuple[list[Box], FloatArray]:
        """Measure how far the blocks of a plane (Y, X) are, over the limit: (N,)."""
        boxes = [b for b in blocks(plane.shape) if np.isfinite(plane[b.slices]).all()]
        if not boxes:
            return [], np.empty(0)
        looks = np.array([_look(plane[box.slices]) for box in boxes])
        bands = np.arange(_NUMBERS) != _BANDS - 1 if not finest else slice(None)
        parts = looks[:, bands], self.looks[:, bands], self.spread[bands]
        return boxes, _distances(*parts) / self.limit

    def to_json(self) -> dict[str, Any]:
        """Write it for a model's card."""
        return {
            "looks": np.round(self.looks, 4).tolist(),
            "spread": np.round(self.spread, 5).tolist(),
            "limit": round(self.limit, 5),
        }

    @classmethod
    def of_card(cls, training: Mapping[str, Any]) -> Self | None:
        """Read it from the `training` of a model's card; None if it has none.

        A `CheckpointError` if it is damaged.
        """
        record = training.get(FAMILIARITY)
        if record is None:
            return None
        try:
            looks, spread = (
                np.array(record[name], float) for name in ("looks", "spread")
            )
            familiarity = cls(looks, spread, float(record["limit"]))
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise damaged_card("its training place") from error
        has_shapes = looks.ndim == 2 and looks.shape[1:] == spread.shape == (_NUMBERS,)
        positive = bool((spread > 0).all()) and familiarity.limit > 0
        finite = all(np.isfinite(v).all() for v in (looks, spread, familiarity.limit))
        if not (has_shapes and len(looks) >= _NEAREST and positive and finite):
            raise damaged_card("its training place")
        return familiarity

    def compare(
        self,
        data: Any,
        levels: FloatPair,
        *,
        as_map: bool = False,
        is_resampled: bool = False,
    ) -> Job[FloatArray]:
        """Measure how far the blocks of an image (Y, X) are, over the limit: (M, N).

        Blocks lie side by side from the first pixel on; NaN where one has gaps. Of an
        image of many blocks some are left out, evenly, unless they are `as_map`.
        `levels`: grey levels that are 0 and 1 to the model; `is_resampled`: whether the
        image was brought onto these pixels, so that its finest band, in which the
        kernel falls off, shows the kernel and is left out.
        """
        low, high = levels
        rows, columns = (n // BLOCK_PX for n in data.shape)
        step = 1 if as_map else math.ceil(math.sqrt(rows * columns / _BLOCKS)) or 1
        places = [range(min(step // 2, n - 1), n, step) for n in (rows, columns) if n]
        if len(places) < 2:  # it is smaller than a block
            return np.empty((0, 0))
        distances_over_limit = np.full([len(part) for part in places], np.nan)
        for i, row in enumerate(places[0]):
            yield Progress(i, len(places[0]), "comparing with the training place")
            for j, column in enumerate(places[1]):
                corner = (row * BLOCK_PX, column * BLOCK_PX)
                block = read_box(data, Box.of((BLOCK_PX, BLOCK_PX), corner))
                plane = (np.asarray(block, float) - low) / ((high - low) or 1.0)
                far = self.distances(plane, finest=not is_resampled)[1]
                distances_over_limit[i, j] = far[0] if far.size else np.nan
        return distances_over_limit


def unfamiliar_percent(distances: FloatArray) -> float | None:
    """Give the share of blocks that are unlike a place, of those that are known.

    In per cent, of what `Familiarity.compare` gives; None if none is known.
    """
    finite = distances[np.isfinite(distances)]
    return 100 * float((finite > 1).mean()) if finite.size else None


def damaged_card(what: str) -> CheckpointError:
    """Say that a model's card cannot be read where it states something."""
    return CheckpointError(
        f"What the card of the model states about {what} is damaged: take another copy "
        "of the file.",
        code="model-damaged",
    )


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
