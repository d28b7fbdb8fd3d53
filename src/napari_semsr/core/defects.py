"""Defective pixels: hot, dead, and struck ones, single, in clusters and in lines.

Such a pixel differs from everything around it by far more than noise does, and at once:
a lens or a beam blurs what it shows, so that a small bright object brightens the pixels
beside it, and a defect does not. Text and scale bars are sharp, too, but dense, or on
an even ground: they stay.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.tiling import Box, plan_tiles, read_box
from napari_semsr.core.types import BoolArray, Float32Array

# Chosen on 215 real images, of which few without a data bar have any such pixel.
_APART = 1, 3  # px to the pixels that one is compared with
_BESIDE = 3  # px; lines and clusters are up to 3 px wide
# percentile of the excess, and times it: 8 deviations of noise
_USUAL, _TIMES = 97, 4.0
_DEVIATIONS = 4.0  # of the surroundings
_WINGS = 0.05  # of its height: a spot blurred by 0.5 px brightens its neighbours more
_ERRORS = 2.0  # standard errors of the neighbours' mean
_MOST = 0.01  # share of single ones: where there are more, that is how the image is
_MOST_LINES = 0.03  # share of pixels in lines
_LEAST_LINE = 32  # px, of a stretch that ends at a border
_FAR = 4.0  # times the range of nearly all pixels, from their middle
_DENSE, _DENSE_SIDE = 0.03, 33  # share of pixels nearby that text has
_AROUND, _FILLED_FROM = 9, (65, 17, 5)  # px, sides of squares
_LEAST_SIDE = 32  # px of an image in which lines can be told from structure
_BLOCK = 2048  # px; as for percentiles
_MARGIN = 24  # px, half of the widest square and more


@dataclass(frozen=True, slots=True)
class Defects:
    """Defective pixels of a field, and what takes their place."""

    places: NDArray[np.intp]  # (N, 2), row and column
    values: Float32Array  # (N,) Mean of the pixels around

    def note(self, name: str) -> str | None:
        """Say how many pixels of an image are defective; None if there is none."""
        if not (count := len(self.places)):
            return None
        pixels = "1 pixel" if count == 1 else f"{count} pixels"
        return (
            f"{pixels} of {name} differ sharply from all around (hot, dead or struck): "
            "the mean of the pixels around is used in place of each."
        )

    def mend(self, data: Any) -> Any:
        """Put the values in; gives a copy of `data` (Y, X), lazy where that is."""
        if hasattr(data, "dask"):
            return data.map_blocks(self._mend_block, dtype=data.dtype)
        return self._patched(data, (0, 0))

    def _mend_block(
        self, block: NDArray[Any], block_info: dict[Any, Any] | None = None
    ) -> NDArray[Any]:
        """Mend one block of a lazy field; dask says where it lies."""
        if not block_info:  # dask asks for the type of the result alone
            return block
        (top, _), (left, _) = block_info[0]["array-location"]
        return self._patched(block, (top, left))

    def _patched(self, block: NDArray[Any], corner: tuple[int, int]) -> NDArray[Any]:
        places = self.places - np.array(corner)
        inside = np.all((places >= 0) & (places < block.shape), axis=1)
        patched = np.array(block)
        values = self.values[inside]
        if block.dtype.kind in "ui":
            values = np.rint(values)
        patched[tuple(places[inside].T)] = values.astype(block.dtype)
        return patched


def find_defects(data: Any) -> Defects:
    """Find the defective pixels of a field (Y, X), in windows of 2048 px."""
    shape = int(data.shape[0]), int(data.shape[1])
    places: list[NDArray[np.intp]] = []
    values: list[Float32Array] = []
    if np.dtype(data.dtype).kind in "uif" and min(shape) >= _LEAST_SIDE:
        for tile in plan_tiles(shape, core=_BLOCK, halo=_MARGIN, constant=False):
            box = tile.core.grow(_MARGIN).intersection(Box.of(shape))
            window = read_box(data, box)
            found = np.argwhere(mask := defect_mask(window))
            if not len(found):
                continue
            filled = _filled(window, mask)
            inner = tile.core.within(box)
            own = np.all(
                (found >= (inner.y0, inner.x0)) & (found < (inner.y1, inner.x1)), axis=1
            )
            found = found[own]
            places.append(found + np.array([box.y0, box.x0]))
            values.append(filled[tuple(found.T)])
    if not places:
        return Defects(np.empty((0, 2), np.intp), np.empty(0, np.float32))
    return Defects(np.concatenate(places), np.concatenate(values))


def defect_mask(field: NDArray[Any]) -> BoolArray:
    """Mark the defective pixels of an image in memory (Y, X)."""
    with np.errstate(over="ignore"):
        values = np.asarray(field, np.float32)
    known = np.isfinite(values)
    nothing = np.zeros(field.shape, bool)
    if min(field.shape) < _LEAST_SIDE or not known.any():
        return nothing
    values = np.where(known, values, np.median(values[known]))
    lowest, middle, highest = np.percentile(values[known], (1, 50, 99))
    far = (highest > lowest) & (np.abs(values - middle) > _FAR * (highest - lowest))
    spots, lines = far.copy(), nothing.copy()
    for sign, apart in itertools.product((1, -1), _APART):
        excess = [_excess(sign * values, axis, apart) for axis in (0, 1)]
        least = [_least(part) for part in excess]
        spots |= (excess[0] > max(least)) & (excess[1] > max(least))
        if apart == _BESIDE:
            for axis in (0, 1):
                lines |= _lines(values, excess[axis] > least[axis], axis)
    if lines.mean() > _MOST_LINES:
        lines = nothing
    spots &= known & ~lines
    if spots.mean() > _MOST:
        spots = nothing
    return known & (lines | _sharp(values, spots, known & ~lines, far))


def _excess(values: Float32Array, axis: int, n: int) -> Float32Array:
    """By how much each pixel exceeds both that lie `n` px from it along an axis.

    Those near the border exceed two that lie inwards.
    """
    excess = np.empty_like(values)
    seen, made = np.moveaxis(values, axis, 0), np.moveaxis(excess, axis, 0)
    made[n:-n] = seen[n:-n] - np.maximum(seen[: -2 * n], seen[2 * n :])
    made[:n] = seen[:n] - np.maximum(seen[n : 2 * n], seen[2 * n : 3 * n])
    made[-n:] = seen[-n:] - np.maximum(seen[-2 * n : -n], seen[-3 * n : -2 * n])
    return excess


def _least(excess: Float32Array) -> float:
    """By how much a pixel stands out; where an image is even, none does."""
    varied = excess[excess != 0]
    usual = float(np.percentile(varied, _USUAL)) if varied.size else 0.0
    return _TIMES * usual if usual > 0 else np.inf


def _lines(values: Float32Array, out: BoolArray, axis: int) -> BoolArray:
    """Find stretches of lines, from a border on, that stand `out` or have one value.

    What lies on both sides must be alike: at the border of a data bar it is not.
    """
    seen, out = np.moveaxis(values, axis, 1), np.moveaxis(out, axis, 1)
    found = np.zeros(seen.shape, bool)
    if len(seen) <= _LEAST_LINE:
        return np.moveaxis(found, 1, axis)
    for end in (slice(None), slice(None, None, -1)):  # from the first, from the last
        part, marked = seen[end], found[end]
        same = part[1 : _LEAST_LINE + 1] == part[:_LEAST_LINE]
        runs = (same | out[end][:_LEAST_LINE]).all(0)
        for line in np.flatnonzero(runs[_BESIDE:-_BESIDE]) + _BESIDE:
            if runs[line - _BESIDE] or runs[line + _BESIDE]:
                continue
            own = part[:, line]
            goes_on = out[end][:, line] | (own == own[0])
            length = len(own) if goes_on.all() else int(goes_on.argmin())
            before, after = (part[:length, n] for n in (line - _BESIDE, line + _BESIDE))
            apart = np.abs(before - after).mean()
            height = np.abs(own[:length] - (before + after) / 2).mean()
            marked[:length, line] = apart < height / 2
    return np.moveaxis(found, 1, axis)


def _sharp(
    values: Float32Array, spots: BoolArray, usable: BoolArray, far: BoolArray
) -> BoolArray:
    """Keep of `spots` those that end at once, in lively surroundings, and alone."""
    if not spots.any():
        return spots
    from scipy import ndimage  # 15 MB, and most images have no such pixel

    labels, count = ndimage.label(spots, np.ones((3, 3)))
    ring = ndimage.maximum_filter(labels, 3) * (usable & ~spots)
    level, spread = _surroundings(values, usable & ~spots & (ring == 0))
    numbers = np.arange(1, count + 1)

    def mean(of: NDArray[Any], groups: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(np.nan_to_num(ndimage.mean(of, groups, numbers)))

    with np.errstate(invalid="ignore", divide="ignore"):  # one without neighbours
        height = mean(values - level, labels)
        wings = mean(values - level, ring) * np.sign(height)
        varies = np.nan_to_num(ndimage.standard_deviation(values, ring, numbers)) > 0
        sigma = mean(spread, labels)
        density = ndimage.uniform_filter(
            spots.astype(np.float32), _DENSE_SIDE, mode="constant"
        )
        alone = mean(density, labels) < _DENSE
        alone |= mean(far, labels) == 1  # neither text nor an image is
    many = np.maximum(ndimage.sum_labels(ring > 0, ring, numbers), 1)
    most = np.maximum(_WINGS * np.abs(height), _ERRORS * sigma / np.sqrt(many))
    kept = (np.abs(height) > _DEVIATIONS * sigma) & (wings <= most) & varies & alone
    thick = ndimage.binary_opening(spots, np.ones((_BESIDE + 1, _BESIDE + 1)))
    kept &= ~(mean(thick, labels) > 0) | (mean(_stuck(values), labels) == 1)
    return np.isin(labels, numbers[kept])


def _stuck(values: Float32Array) -> BoolArray:
    """Mark pixels at the end of the range, if no other is half as far from the middle.

    The edge of an object has pixels in between.
    """
    stuck = np.zeros(values.shape, bool)
    away = values - np.median(values)
    for sign in (1, -1):
        last = (sign * away).max()
        at_end = sign * away == last
        if not (sign * away[~at_end] > last / 2).any():
            stuck |= at_end
    return stuck


def _surroundings(
    values: Float32Array, usable: BoolArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of the usable pixels among 9 x 9."""
    from scipy import ndimage

    double = values.astype(np.float64)
    count, first, second = (
        ndimage.uniform_filter(np.where(usable, part, 0.0), _AROUND, mode="constant")
        for part in (np.ones_like(double), double, double**2)
    )
    count = np.maximum(count, 0.5 / _AROUND**2)
    level = first / count
    return level, np.sqrt(np.maximum(second / count - level**2, 0))


def _filled(values: NDArray[Any], mask: BoolArray) -> Float32Array:
    """Give each pixel the mean of those around that are known and not marked."""
    from scipy import ndimage

    usable = ~mask & np.isfinite(values)
    middle = np.median(values[usable]) if usable.any() else 0.0
    filled = np.full(values.shape, middle, float)
    for side in _FILLED_FROM:
        total, share = (
            ndimage.uniform_filter(np.where(usable, part, 0.0), side, mode="constant")
            for part in (values.astype(float), 1.0)
        )
        known = share > 0.5 / side**2
        filled[known] = total[known] / share[known]
    return filled.astype(np.float32)
