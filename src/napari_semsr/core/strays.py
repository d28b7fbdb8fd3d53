"""Stray pixels: hot and dead pixels and cosmic-ray hits, unrelated to the sample.

Optics blur the image, so that a small object brightens the pixels around it. A stray
pixel does not, and differs from its surroundings by far more than noise does. All are
ignored when power, noise and range of a whole field are measured. Those beyond the
range of all others, around which a network would create rings, are filled.
"""

import itertools
import math
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from napari_semsr.core.grids import Box, Tile, plan_tiles, read_box
from napari_semsr.core.progress import map_parallel
from napari_semsr.core.types import (
    BoolArray,
    Float32Array,
    IntPair,
    ReadableArray,
    RealArray,
)

# Chosen on simulated noise (Gaussian, Poisson, exponential) and on real images.
_APART = 1, 3  # px to the pixels used for comparison; clusters are up to 3 px
_USUAL, _TIMES = 90, 4.0  # percentile of peak heights; a stray exceeds it so often
# fraction of a spot's pixels below a height in standard deviations of the surroundings
_HEIGHT, _LINE_HEIGHT = (0.09, 7.0), (0.5, 2.0)
_WINGS = 0.05  # of a height: a spot blurred by 0.5 px brightens its neighbours more
_ERRORS = 2.0  # times the usual size of such differences nearby
# mean of the 8 neighbours of a pixel minus that of the 16 around these
_BEND = np.full((5, 5), -1 / 16, np.float32)
_BEND[1:4, 1:4] = 1 / 8
_BEND[2, 2] = 0
_DECILES = 2.563  # standard deviations between the first and last decile of a normal
_AROUND = 5  # px around a stray pixel used for comparison
_SAMPLE = 256  # px along each axis for percentiles
_NEARLY_ALL = 2, 50, 98  # percentiles
_FAR = 4.0  # times the range of nearly all pixels, from their centre
_BEYOND, _BEYOND_WIDE = 0.1, 1.0  # times the range of others; for wide areas
_MOST, _MAX_PLATEAUS = 0.01, 0.06  # fraction of pixels; if more, part of the image
_SOLID, _LARGEST_PLATEAU = 4, 48  # px, least and greatest side
# px of a line, and the fraction that must stand out; in noise a third does
_SEGMENT, _STANDING, _MAX_LINES = 32, 0.9, 0.03
_SMALL = 256  # px; chosen: a line of 32 px is a small part of a larger field
_DENSE, _DENSE_REACH = 0.03, 16  # fraction of spots nearby that indicates text
_MIN_SIDE = 32  # px of an image in which stray pixels can be distinguished
_WIDEST = 5  # px of a stray cluster or line that is filled
_FILLED_FROM, _MIN_KNOWN = 9, 0.4  # px, side of the square; known fraction of it
_BLOCK, _MARGIN = 2048, 24  # px; as for percentiles, and context around a block
_WINDOWS = 8  # at a time, of 0.2 GB each


@dataclass(frozen=True, slots=True)
class StrayPixels:
    """Stray pixels of an image."""

    places: NDArray[np.intp]  # (N, 2), row and column, in order
    # (N,) values for those to be filled: the mean of the pixels around, or in a wide
    # area the end of the range of all others; NaN for the rest
    values: Float32Array

    def mask(self, data: ReadableArray) -> "PatchedField":
        """Return a float image (Y, X) with NaN at stray pixels."""
        missing = np.full(len(self.places), np.nan)
        dtype = np.result_type(data.dtype, np.float32)
        return PatchedField(data, self.places, missing, dtype)

    def fill(self, data: ReadableArray) -> ReadableArray:
        """Return an image (Y, X) with stray pixels replaced with fill values."""
        finite = np.isfinite(self.values)
        if not finite.any():
            return data
        values, dtype = self.values[finite], np.dtype(data.dtype)
        if dtype.kind in "ui":
            values = np.rint(values)
        return PatchedField(data, self.places[finite], values, dtype)


@dataclass(frozen=True, slots=True)
class PatchedField:
    """Array-like image with some pixels replaced."""

    source: ReadableArray  # (Y, X)
    places: NDArray[np.intp]  # (N, 2), in order
    values: RealArray  # (N,)
    dtype: np.dtype[np.generic]

    @property
    def shape(self) -> IntPair:
        """Shape of the image, (rows, columns)."""
        return int(self.source.shape[0]), int(self.source.shape[1])

    @property
    def chunks(self) -> object:
        """Chunk shape of the source, or None."""
        return getattr(self.source, "chunks", None)

    def __getitem__(self, index: tuple[slice, slice] | slice) -> RealArray:
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        y0, y1, _ = rows.indices(self.shape[0])
        x0, x1, _ = columns.indices(self.shape[1])
        block = read_box(self.source, Box(y0, y1, x0, x1)).astype(self.dtype)
        first, last = np.searchsorted(self.places[:, 0], (y0, y1))
        y, x = (self.places[first:last] - (y0, x0)).T
        inside = (x >= 0) & (x < x1 - x0)
        block[y[inside], x[inside]] = self.values[first:last][inside]
        return block


def find_stray_pixels(data: ReadableArray) -> StrayPixels | None:
    """Find stray pixels of an image (Y, X) in windows of 2048 px; None if none."""
    shape = int(data.shape[0]), int(data.shape[1])
    if np.dtype(data.dtype).kind not in "uif" or min(shape) < _MIN_SIDE:
        return None

    def search_tile(tile: Tile) -> tuple[NDArray[np.intp], Float32Array]:
        box = tile.core.grow(_MARGIN).intersection(Box.from_shape(shape))
        window = read_box(data, box)
        stray, to_fill = compute_stray_pixel_masks(window)
        own = tile.core.relative_to(box).slices
        places = np.argwhere(stray[own])
        filled = _compute_fill_values(window, stray, to_fill) if len(places) else window
        values = filled[own][tuple(places.T)].astype(np.float32)
        return places + np.array([tile.core.y0, tile.core.x0]), values

    tiles = plan_tiles(shape, core=_BLOCK, halo=_MARGIN, constant=False)
    places, values = zip(*map_parallel(search_tile, tiles, most=_WINDOWS), strict=True)
    all_places = np.concatenate(places)
    if not len(all_places):
        return None
    order = np.lexsort((all_places[:, 1], all_places[:, 0]))
    return StrayPixels(all_places[order], np.concatenate(values)[order])


def compute_stray_pixel_masks(field: RealArray) -> tuple[BoolArray, BoolArray]:
    """Return masks of all stray pixels of an image (Y, X) and of those to fill."""
    is_short = field.dtype.str[1:] in ("u1", "u2")  # take less time as they are
    with np.errstate(over="ignore"):
        values = field.astype(field.dtype.name if is_short else "f4", copy=False)
    none, finite = np.zeros(values.shape, bool), np.isfinite(values)
    steps = [max(1, n // _SAMPLE) for n in values.shape]
    sample = values[:: steps[0], :: steps[1]]
    sample = sample[np.isfinite(sample)].astype(np.float32)
    if min(values.shape) < _MIN_SIDE or not sample.size:
        return none, none
    lowest, middle, highest = np.percentile(sample, _NEARLY_ALL)
    if not finite.all():
        values = np.where(finite, values, middle)
    reach = _FAR * (highest - lowest)
    most, least = middle + reach, middle - reach
    if is_short:
        most, least = math.floor(most), math.ceil(least)
    far = (values > most) | (values < least)
    if not reach or np.count_nonzero(far) / far.size > _MAX_PLATEAUS:
        far = none
    is_stray = (_find_peaks(values) | _find_plateaus(values) | far) & finite
    if not is_stray.any():
        return none, none
    values = values.astype(np.float32, copy=False)
    stray, narrow, dead = _select_isolated_spots(values, is_stray, finite, far)
    others = values[finite & ~stray]
    beyond = np.maximum(values - others.max(), others.min() - values)
    beyond /= max(others.max() - others.min(), np.finfo(np.float32).tiny)
    is_far = (beyond > _BEYOND_WIDE) | (narrow & (beyond > _BEYOND))
    return stray, stray & (dead | is_far)


def _find_peaks(values: RealArray) -> BoolArray:
    """Find pixels and lines that differ strongly from their surroundings.

    Noise stands out from both sides along a third of a segment, a stray line along all.
    """
    wide = np.pad(values, max(_APART), mode="reflect")
    # segments are not shorter than `_SEGMENT` unless the line is
    counts = [(n, max(1, n // _SEGMENT)) for n in values.shape]
    starts = [np.linspace(0, *n, endpoint=False).astype(int) for n in counts]
    strips = [*itertools.pairwise((*starts[0][::2], len(values)))]  # one fits a cache
    peaks, lines = np.zeros(values.shape, bool), np.zeros(values.shape, bool)
    for apart in _APART:
        some = strips[:: 1 + len(strips) // 4]
        sampled = zip(
            *(_compute_excess(wide, strip, apart) for strip in some), strict=True
        )
        limits = list(itertools.starmap(_find_height_limit, sampled))
        for strip in strips:
            rows = slice(*strip)
            inside = starts[0][(starts[0] >= strip[0]) & (starts[0] < strip[1])]
            cuts = inside - strip[0], starts[1]
            both = _compute_excess(wide, strip, apart)
            for excesses, limit in zip(both, limits, strict=True):
                peaks[rows] |= np.minimum(*excesses) > limit
                for axis, excess in enumerate(excesses):
                    is_excess, along = excess > 0, 1 - axis
                    lines[rows] |= _find_full_segments(is_excess, cuts[along], along)
        lines |= _find_short_lines(wide, values, apart)
    for candidates, most in ((peaks, _MOST), (lines, _MAX_LINES)):
        candidates &= np.count_nonzero(candidates) / candidates.size <= most
    if lines.any():  # extend them beyond whole segments
        for axis in (0, 1):
            line, value = np.moveaxis(lines, axis, 0), np.moveaxis(values, axis, 0)
            same = value[1:] == value[:-1]
            for _ in range(_SEGMENT):
                line[1:] |= line[:-1] & same
                line[:-1] |= line[1:] & same
    return peaks | lines


def _find_height_limit(*excesses: list[RealArray]) -> float:
    """Return the limit above which pixels of some strips are peaks."""
    heights = np.concatenate([np.minimum(*one) for one in excesses], dtype=np.float32)
    higher = heights[heights > 0]
    if not higher.size:
        return np.inf
    limit = float(_TIMES * np.percentile(higher, _USUAL))
    return limit if excesses[0][0].dtype.kind == "f" else int(limit)


def _may_have_line(marks: BoolArray) -> bool:
    """Check fast whether a segment along any row can have nearly all its marks.

    If at most 3 of 32 to 40 are missing, 4 of 7 successive groups of 4 are complete.
    """
    columns = marks.shape[1] // 4 * 4
    if columns < 8 * _SEGMENT:  # segments may be longer
        return True
    whole = np.ascontiguousarray(marks[:, :columns])  # a view may be transposed
    groups = whole.view(np.uint32) == 0x01010101
    ones, last = groups.view(np.uint8), columns // 4 - 6
    return bool((sum(ones[:, n : last + n] for n in range(7)) >= 4).any())


def _find_full_segments(
    marks: BoolArray, starts: NDArray[np.intp], axis: int
) -> BoolArray:
    """Return the marks in segments, shorter than 256 px, that have nearly all of them.

    `starts` are those of the segments along an axis.
    """
    ones, none = marks.view(np.uint8), np.zeros((), bool)
    if not axis:  # here `reduceat` takes three times as long
        parts = np.split(ones, starts[1:])
        count = np.stack([part.sum(axis=0, dtype=np.uint8) for part in parts])
    elif _may_have_line(marks):
        count = np.add.reduceat(ones, starts, axis, np.uint8)
    else:
        return none
    if count.max() <= _STANDING * _SEGMENT:  # a segment is not shorter
        return none
    sizes = np.diff([*starts, marks.shape[axis]])
    share = np.moveaxis(count, axis, -1) / sizes
    whole = np.moveaxis(share > _STANDING, -1, axis)
    return marks & np.repeat(whole, sizes, axis) if whole.any() else none


def _find_short_lines(wide: RealArray, values: RealArray, apart: int) -> BoolArray:
    """Mark constant line segments that stand out anywhere in a small image.

    Segments that are not constant are as often real detail.
    """
    is_line = np.zeros(values.shape, bool)
    if max(values.shape) > _SMALL:
        return is_line
    both = _compute_excess(wide, (0, len(values)), apart)
    for axis, excesses in enumerate(zip(*both, strict=True)):
        along = 1 - axis
        size = min(_SEGMENT, values.shape[along])
        part = sliding_window_view(values, size, along)
        constant = part.max(axis=-1) == part.min(axis=-1)
        for is_excess in (one > 0 for one in excesses if constant.any()):
            share = sliding_window_view(is_excess, size, along).mean(axis=-1)
            whole = np.moveaxis(constant & (share > _STANDING), along, 0)
            in_line = np.zeros_like(is_excess)
            lines = np.moveaxis(in_line, along, 0)
            for start in range(size):
                lines[start : start + len(whole)] |= whole
            is_line |= in_line & is_excess
    return is_line


def _compute_excess(
    wide: RealArray, strip: IntPair, apart: int
) -> tuple[list[RealArray], list[RealArray]]:
    """Return by how much strip pixels exceed both neighbours at distance `apart`.

    Pairs (Y, X) of how much higher and how much lower a pixel is than those above and
    below, and than those left and right, in an image padded by the largest distance.
    """
    margin, higher, lower = max(_APART), [], []
    part = wide[strip[0] : strip[1] + 2 * margin]
    own = part[margin:-margin, margin:-margin]
    for axis in (0, 1):
        sides = []
        for away in (-apart, apart):
            place = [slice(margin, -margin)] * 2
            place[axis] = slice(margin + away, part.shape[axis] - margin + away)
            sides.append(part[tuple(place)])
        top, bottom = np.maximum(*sides), np.minimum(*sides)
        higher.append(np.subtract(np.maximum(own, top), top, out=top))
        lower.append(np.subtract(bottom, np.minimum(own, bottom), out=bottom))
    return higher, lower


def _find_plateaus(values: RealArray) -> BoolArray:
    """Find small areas with the minimum or maximum value of the image."""
    is_plateau = np.zeros(values.shape, bool)
    for end in (values.min(), values.max()):
        at_end = solid = values == end
        count = np.count_nonzero(at_end)
        if count < _SOLID**2 or count / at_end.size > _MAX_PLATEAUS:
            continue
        for _ in range(2):  # rows, then columns; the second transposes back
            parts = [solid[n : len(solid) - _SOLID + 1 + n] for n in range(_SOLID)]
            solid = reduce(np.bitwise_and, parts).T
        if not solid.any():
            continue
        from scipy import ndimage  # 15 MB, and most images have no such area

        labels, _ = ndimage.label(at_end)
        parts = ndimage.find_objects(labels)
        for number in np.unique(labels[: len(solid), : solid.shape[1]][solid]):
            place = parts[number - 1]
            if max(p.stop - p.start for p in place) <= _LARGEST_PLATEAU:
                is_plateau[place] |= labels[place] == number
    return is_plateau


def _select_isolated_spots(
    values: Float32Array, spots: BoolArray, finite: BoolArray, far: BoolArray
) -> tuple[BoolArray, BoolArray, BoolArray]:
    """Select sharp, isolated `spots` with noisy surroundings.

    The pixels around a spot are compared with the next ring of pixels, relative to the
    usual size of such differences there. Also marks the narrow ones, and constant
    lines, which a wire never shows.
    """
    from scipy import ndimage  # 15 MB, and most images have no such pixel

    ones = np.ones((3, 3), bool)
    labels, _ = ndimage.label(spots, ones)
    kept_spots, narrow, dead = (np.zeros(spots.shape, bool) for _ in range(3))
    others = finite & ~spots
    for number, spot in enumerate(ndimage.find_objects(labels), 1):
        place = _grow_slices(spot, _AROUND)
        own, usable, part = labels[place] == number, others[place], values[place]
        around = ndimage.binary_dilation(own, ones)
        further = ndimage.binary_dilation(around, ones) & ~around & usable
        around &= usable
        if not around.any() or not further.any():
            continue
        level = float(part[further].mean())
        shortest, longest = sorted(part.stop - part.start for part in spot)
        is_line = shortest <= _WIDEST and longest >= _SEGMENT
        heights = part[own] - level
        share, least = _LINE_HEIGHT if is_line else _HEIGHT
        height = np.sort(np.abs(heights))[int(share * len(heights))]
        wings = (float(part[around].mean()) - level) * np.sign(heights.sum())
        most = _WINGS * height
        if not far[place][own].all():  # beyond any noise and detail
            near = _grow_slices(spot, _DENSE_REACH)
            crowd = (spots[near] & (labels[near] != number)).mean()
            steps = [(np.diff(part, axis=n), np.diff(~usable, axis=n)) for n in (0, 1)]
            rough = np.concatenate([step[edge == 0] for step, edge in steps])
            low, high = np.percentile(rough, (10, 90))
            sigma = (high - low) / _DECILES / np.sqrt(2)  # of a pixel, not of two
            if not 0 < least * sigma < height or crowd >= _DENSE:
                continue
            smooth = np.where(usable, part, level)
            bends = ndimage.correlate(smooth, _BEND, mode="nearest")[usable & ~around]
            most = max(most, _ERRORS * float(np.sqrt(np.mean(np.square(bends)))))
        if wings <= most:
            kept_spots[place] |= own
            constant = is_line and np.ptp(part[own]) == 0  # unlike any wire
            narrow[place] |= own & (longest <= _WIDEST or constant)
            # borders of frames and lines in data bars are lines, too
            sides = zip(spot, spot[::-1], spots.shape, spots.shape[::-1], strict=True)
            across = any(
                line == slice(0, n) and 0 < side.start < side.stop < m
                for line, side, n, m in sides
            )
            dead[place] |= own & (constant and across)
    return kept_spots, narrow, dead


def _grow_slices(place: tuple[slice, slice], margin: int) -> tuple[slice, slice]:
    rows, columns = (slice(max(0, n.start - margin), n.stop + margin) for n in place)
    return rows, columns


def _compute_fill_values(
    field: RealArray, stray: BoolArray, to_fill: BoolArray
) -> Float32Array:
    """Return fill values (Y, X) for stray pixels; NaN for all others.

    The mean of the pixels around, or in wide areas the end of the range of all others.
    """
    filled = np.full(field.shape, np.nan, np.float32)
    if not to_fill.any():
        return filled
    usable = ~stray & np.isfinite(field)
    places = np.argwhere(to_fill)
    margin, size = _FILLED_FROM // 2, (_FILLED_FROM, _FILLED_FROM)
    finite, inside, values = (
        sliding_window_view(np.pad(part, margin), size)[tuple(places.T)]
        for part in (usable, np.ones_like(usable), np.where(usable, field, 0))
    )
    count = finite.sum((1, 2))
    means = values.sum((1, 2), dtype=float) / np.maximum(count, 1)
    ends = np.clip(field[to_fill], field[usable].min(), field[usable].max())
    # the mean of few pixels would invent the content of a wide area
    narrow = count >= _MIN_KNOWN * inside.sum((1, 2))
    filled[to_fill] = np.where(narrow, means, ends)
    return filled
