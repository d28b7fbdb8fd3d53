"""Stray pixels: hot, dead and struck ones, which say nothing of the sample.

A lens or a beam blurs what it shows, so that a small object brightens the pixels beside
it. A stray pixel does not, and differs from all around by far more than noise does. Two
kinds are told apart: those within the range of grey values, which are left out where
power, noise and range of a whole field are measured, and those far outside of it, of
which a network would make rings.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from napari_semsr.core.tiling import Box, plan_tiles, read_box
from napari_semsr.core.types import BoolArray, Float32Array, IntPair

# Chosen on simulated noise (Gaussian, Poisson, exponential) and on real images.
_APART = 1, 3  # px to the pixels that one is compared with; clusters are up to 3 px
_USUAL, _TIMES = 90, 4.0  # percentile of the peaks' heights, and times it
_HEIGHT = 7.0  # deviations of single pixels around
_WINGS = 0.05  # of a height: a spot blurred by 0.5 px brightens its neighbours more
_ERRORS = 2.0  # times what such differences are around
# mean of the 8 pixels beside one, less that of the 16 beside these
_BEND = np.full((5, 5), -1 / 16, np.float32)
_BEND[1:4, 1:4] = 1 / 8
_BEND[2, 2] = 0
_DECILES = 2.563  # deviations of a normal distribution between its first and last
_AROUND = 5  # px around a stray pixel that it is compared with
_NEARLY_ALL = 2, 50, 98  # percentiles
_FAR = 4.0  # times the range of nearly all pixels, from their middle
_MOST = 0.01  # share of pixels; where more seem stray, that is how an image is
_MOST_PLATEAUS, _LARGEST_PLATEAU = 0.02, 48  # share; px that a survey fills
_DENSE, _DENSE_REACH = 0.03, 16  # share of pixels nearby that text has
_LINE, _LINE_SCATTER = 12.0, 2.0  # times the median of lines, and of their pixels
_LOOKED_AT, _MOST_LINES = 512, 0.03  # pixels of a line; share of lines
_LEAST_SIDE = 32  # px of an image in which stray pixels can be told from others
_WIDEST = 3  # px of a stray pixel, cluster or line that is filled
_FILLED_FROM = 7  # px, side of the square
_BLOCK, _MARGIN = 2048, 24  # px; as for percentiles, and what a decision looks at


@dataclass(frozen=True, slots=True)
class Strays:
    """Stray pixels of a field."""

    places: NDArray[np.intp]  # (N, 2), row and column, in order
    # (N,) Of those far outside the range: the mean of the pixels around where they are
    # single, or in small clusters or thin lines, else the range's end; NaN of others
    values: Float32Array

    def masked(self, data: Any) -> Any:
        """Give a field (Y, X) of floats in which stray pixels are NaN."""
        working = np.result_type(data.dtype, np.float32)
        gone = np.full(len(self.values), np.nan, np.float32)
        return _patched(data, self.places, gone, working)

    def filled(self, data: Any) -> Any:
        """Give a field (Y, X) in which those far outside the range are filled."""
        known = np.isfinite(self.values)
        if not known.any():
            return data
        values = self.values[known]
        if np.dtype(data.dtype).kind in "ui":
            values = np.rint(values)
        return _patched(data, self.places[known], values, np.dtype(data.dtype))


def _patched(
    data: Any, places: NDArray[np.intp], values: Float32Array, dtype: np.dtype[Any]
) -> Any:
    """Put values in where a field (Y, X) is read; lazy where that is."""
    if not len(places):
        return data
    if hasattr(data, "dask"):
        return data.map_blocks(_patch_chunk, places=places, values=values, dtype=dtype)
    return PatchedField(data, places, values, dtype)


def _patch_chunk(
    block: NDArray[Any],
    places: NDArray[np.intp],
    values: Float32Array,
    block_info: dict[Any, Any] | None = None,
) -> NDArray[Any]:
    """Patch one chunk of a lazy field; dask says where it lies and its new type."""
    if not block_info:  # dask asks for the type of the result alone
        return block
    (top, _), (left, _) = block_info[0]["array-location"]
    return _patch(block, (top, left), places, values, block_info[None]["dtype"])


def _patch(
    block: NDArray[Any],
    corner: IntPair,
    places: NDArray[np.intp],
    values: Float32Array,
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    """Copy a part (Y, X) of a field that begins at a corner, with values put in."""
    first, last = np.searchsorted(places[:, 0], (corner[0], corner[0] + len(block)))
    within = places[first:last] - np.array(corner)
    inside = (within[:, 1] >= 0) & (within[:, 1] < block.shape[1])
    made = np.array(block, dtype=dtype)
    made[tuple(within[inside].T)] = values[first:last][inside]
    return made


@dataclass(frozen=True, slots=True)
class PatchedField:
    """A field with other values at some places: looks like an array."""

    source: Any  # (Y, X)
    places: NDArray[np.intp]  # (N, 2), in order
    values: Float32Array  # (N,)
    dtype: np.dtype[Any]

    @property
    def shape(self) -> IntPair:
        """Rows and columns."""
        return int(self.source.shape[0]), int(self.source.shape[1])

    def __getitem__(self, index: tuple[slice, slice] | slice) -> NDArray[Any]:
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        top, left = rows.indices(self.shape[0])[0], columns.indices(self.shape[1])[0]
        block = self.source[rows, columns]
        return _patch(block, (top, left), self.places, self.values, self.dtype)


def find_strays(data: Any) -> Strays | None:
    """Find the stray pixels of a field (Y, X), in windows of 2048 px; None without."""
    shape = int(data.shape[0]), int(data.shape[1])
    if np.dtype(data.dtype).kind not in "uif" or min(shape) < _LEAST_SIDE:
        return None
    places: list[NDArray[np.intp]] = []
    values: list[Float32Array] = []
    for tile in plan_tiles(shape, core=_BLOCK, halo=_MARGIN, constant=False):
        box = tile.core.grow(_MARGIN).intersection(Box.of(shape))
        window = read_box(data, box)
        stray, far = stray_masks(window)
        own = tile.core.within(box).slices
        found = np.argwhere(stray[own])
        if not len(found):
            continue
        places.append(found + np.array([tile.core.y0, tile.core.x0]))
        values.append(_fill_values(window, stray, far)[own][tuple(found.T)])
    if not places:
        return None
    joined, filled = np.concatenate(places), np.concatenate(values)
    order = np.lexsort((joined[:, 1], joined[:, 0]))
    return Strays(joined[order], filled[order])


def stray_masks(field: NDArray[Any]) -> tuple[BoolArray, BoolArray]:
    """Mark the stray pixels of an image in memory (Y, X), and those of them far away.

    The latter lie outside the range of the grey values by more than its width.
    """
    with np.errstate(over="ignore"):
        values = np.asarray(field, np.float32)
    none, known = np.zeros(values.shape, bool), np.isfinite(values)
    if min(values.shape) < _LEAST_SIDE or not known.any():
        return none, none
    step = max(1, min(values.shape) // _LOOKED_AT)
    sample = values[::step, ::step]
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return none, none
    lowest, middle, highest = np.percentile(sample, _NEARLY_ALL)
    if not known.all():
        values = np.where(known, values, middle)
    far = none
    if highest > lowest:
        far = np.abs(values - middle) > _FAR * (highest - lowest)
    if far.mean() > _MOST_PLATEAUS:
        far = none
    lines = _lines(values)
    spots = _peaks(values) | far | _plateaus(values)
    spots &= known & ~lines
    if spots.any():
        spots = _without_wings(values, spots, known & ~lines, far)
    lines &= known
    return spots | lines, (spots | lines) & far


def _peaks(values: Float32Array) -> BoolArray:
    """Find pixels that differ from those beside them by far more than is usual."""
    found = np.zeros(values.shape, bool)
    for sign, apart in itertools.product((1, -1), _APART):
        height = np.minimum(
            _excess(sign * values, 0, apart), _excess(sign * values, 1, apart)
        )
        peaks = height[:: max(1, len(height) // _LOOKED_AT)]
        peaks = peaks[peaks > 0]
        if peaks.size:
            found |= height > _TIMES * np.percentile(peaks, _USUAL)
    return found if found.mean() <= _MOST else np.zeros_like(found)


def _plateaus(values: Float32Array) -> BoolArray:
    """Find small areas of the least or the greatest value of all."""
    found = np.zeros(values.shape, bool)
    for end in (values.min(), values.max()):
        at_end = values == end
        solid = at_end
        for axis in (0, 1):
            windows = sliding_window_view(solid, _WIDEST + 1, axis=axis)
            solid = windows.all(-1)
        if not solid.any() or at_end.mean() > _MOST_PLATEAUS:
            continue
        from scipy import ndimage  # 15 MB, and most images have no such area

        labels, _ = ndimage.label(at_end)
        whole = np.unique(labels[: len(solid), : solid.shape[1]][solid])
        parts = ndimage.find_objects(labels)
        small = [
            number
            for number in whole
            if max(p.stop - p.start for p in parts[number - 1]) <= _LARGEST_PLATEAU
        ]
        found |= np.isin(labels, small)
    return found


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


def _lines(values: Float32Array) -> BoolArray:
    """Find whole rows and columns that differ from both sides, which are alike."""
    found = np.zeros(values.shape, bool)
    for axis, apart in itertools.product((0, 1), _APART):
        seen = np.moveaxis(values, axis, 0)
        seen = seen[:, :: max(1, seen.shape[1] // _LOOKED_AT)]
        before, own, after = seen[: -2 * apart], seen[apart:-apart], seen[2 * apart :]
        away = own - (before + after) / 2
        height = np.median(away, axis=1)
        scatter = np.median(np.abs(away - height[:, None]), axis=1)
        height = np.abs(height)
        least = np.maximum(_LINE * np.median(height), _LINE_SCATTER * scatter)
        sides = np.abs(np.median(before - after, axis=1))
        # lines beside a stray one differ from it half as far, the other way
        tallest = np.pad(height, apart).reshape(-1)
        tallest = sliding_window_view(tallest, 2 * apart + 1).max(1)
        stray = (height > least) & (height > tallest * 0.9) & (sides < height / 4)
        if stray.mean() <= _MOST_LINES:
            np.moveaxis(found, axis, 0)[apart:-apart] |= stray[:, None]
    return found


def _without_wings(
    values: Float32Array, spots: BoolArray, usable: BoolArray, far: BoolArray
) -> BoolArray:
    """Keep of `spots` those that end at once, in lively surroundings, and alone.

    Those beside a spot are compared with those beside these, by how much such
    differences vary around it.
    """
    from scipy import ndimage  # 15 MB, and most images have no such pixel

    labels, _ = ndimage.label(spots, np.ones((3, 3)))
    kept = np.zeros(spots.shape, bool)
    others = usable & ~spots
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        place = _grown((rows, columns), _AROUND)
        own, known, part = labels[place] == number, others[place], values[place]
        beside = ndimage.binary_dilation(own, np.ones((3, 3)))
        next_to_it = ndimage.binary_dilation(beside, np.ones((3, 3))) & ~beside & known
        beside &= known
        if not beside.any() or not next_to_it.any():
            continue
        level = float(part[next_to_it].mean())
        rough = [np.diff(part, axis=n)[np.diff(~known, axis=n) == 0] for n in (0, 1)]
        low, high = np.percentile(np.concatenate(rough), (10, 90))
        sigma = float(high - low) / _DECILES / np.sqrt(2)  # of a pixel, not of two
        heights = part[own] - level
        height = float(np.abs(heights).min())
        wings = (float(part[beside].mean()) - level) * np.sign(heights.sum())
        is_far = bool(far[place][own].all())
        most = _WINGS * height
        if not is_far:  # by as much as an image bends there, too
            smooth = np.where(known, part, level)
            bends = ndimage.correlate(smooth, _BEND, mode="nearest")[known & ~beside]
            most = max(most, _ERRORS * float(np.sqrt(np.mean(np.square(bends)))))
        nearby = _grown((rows, columns), _DENSE_REACH)
        crowd = (spots[nearby] & (labels[nearby] != number)).mean()
        alone = is_far or (sigma > 0 and crowd < _DENSE)
        kept[place] |= own & (wings <= most and height > _HEIGHT * sigma and alone)
    return kept


def _grown(place: tuple[slice, slice], margin: int) -> tuple[slice, slice]:
    rows, columns = (
        slice(max(0, part.start - margin), part.stop + margin) for part in place
    )
    return rows, columns


def _fill_values(field: NDArray[Any], stray: BoolArray, far: BoolArray) -> Float32Array:
    """Give values to stray pixels far outside the range; NaN to all others.

    The mean of the pixels around, or in wide areas the range's end.
    """
    filled = np.full(field.shape, np.nan, np.float32)
    if not far.any():
        return filled
    from scipy import ndimage

    thick = ndimage.binary_opening(far, np.ones((_WIDEST + 1, _WIDEST + 1)))
    usable = ~stray & np.isfinite(field)
    total, share = (
        ndimage.uniform_filter(part, _FILLED_FROM, mode="constant")
        for part in (np.where(usable, field, 0.0).astype(float), usable.astype(float))
    )
    wanted = far & ~thick & (share > 0.5 / _FILLED_FROM**2)
    filled[wanted] = total[wanted] / share[wanted]
    rest = far & ~wanted  # of what is wide too much would be made up
    if rest.any():
        filled[rest] = np.clip(field[rest], field[usable].min(), field[usable].max())
    return filled
