"""Stray pixels: hot and dead pixels and cosmic-ray hits, unrelated to the sample.

Optics blur the image, so that a small object brightens the pixels around it. A stray
pixel does not, and differs from its surroundings by far more than noise does. All are
ignored when power, noise and range of a whole field are measured. Those beyond the
range of all others, around which a network would create rings, are filled.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from napari_semsr.core.grids import Box, Tile, TilePlan, plan_tiles, read_box
from napari_semsr.core.intensity import count_grey_values, find_block_borders
from napari_semsr.core.progress import Job, Progress, map_parallel, release_free_memory
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
_TRIED = 16  # px that are tried first; measured
_ROUNDING = 1 - 1e-6  # share of a height that remains despite rounding
_SMALL = 256  # px; chosen: a line of 32 px is a small part of a larger field
_DENSE, _DENSE_REACH = 0.03, 16  # fraction of spots nearby that indicates text
_MIN_SIDE = 32  # px of an image in which stray pixels can be distinguished
_WIDEST = 5  # px of a stray cluster or line that is filled
_FILLED_FROM, _MIN_KNOWN = 9, 0.4  # px, side of the square; known fraction of it
_BLOCK, _MARGIN = 2048, 24  # px; as for percentiles, and context around a block
_WINDOWS = 8  # at a time
_BAND, _HELD_BYTES = 512, 40 << 20  # rows read at once, and bytes kept; chosen
_SURVEYING = "Measuring the grey values"


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


@dataclass(frozen=True, slots=True)
class PixelSurvey:
    """What reading an image once has found."""

    strays: StrayPixels | None = None  # None if there are none
    # (65536,) pixels of each grey value, without stray ones; None unless 8 or 16 bits
    counts: NDArray[np.int64] | None = None


def survey_pixels(
    data: ReadableArray, see_rows: Callable[[RealArray], object] | None = None
) -> Job[PixelSurvey]:
    """Find stray pixels of an image (Y, X) in windows of 2048 px, and count the others.

    Pixels are read once, in bands of whole rows that `see_rows` receives in order; of a
    wide image it receives the rows before, and the search reads some columns at a time.
    """
    shape, dtype = (int(data.shape[0]), int(data.shape[1])), np.dtype(data.dtype)
    is_short = dtype.str[1:] in ("u1", "u2")
    plan = plan_tiles(shape, core=_BLOCK, halo=_MARGIN, constant=False)
    rows, columns = plan.grid
    width = max(1, _HELD_BYTES // ((_BLOCK + 2 * _MARGIN) * _BLOCK * dtype.itemsize))
    is_searched = dtype.kind in "uif" and min(shape) >= _MIN_SIDE
    if see_rows is not None and (width < columns or not is_searched):
        for band in _read_bands(data, (0, shape[1])):
            see_rows(band)
            yield Progress(0, 0, _SURVEYING)
        see_rows = None
    if not is_searched:
        return PixelSurvey()

    def search_tile(
        held: tuple[Tile, RealArray],
    ) -> tuple[NDArray[np.intp], Float32Array, NDArray[np.int64] | int]:
        tile, window = held
        stray, to_fill = compute_stray_pixel_masks(window)
        own = tile.local_core.slices
        places = _find_places(stray[own])
        filled = _compute_fill_values(window, stray, to_fill) if len(places) else window
        values = filled[own][tuple(places.T)].astype(np.float32)
        count = count_grey_values(window[own]) if is_short else 0
        if is_short and len(places):
            count -= count_grey_values(window[own][stray[own]])
        return places + np.array([tile.core.y0, tile.core.x0]), values, count

    windows = itertools.chain.from_iterable(
        _read_windows(data, plan, range(columns)[first : first + width], see_rows)
        for first in range(0, columns, width)
    )
    all_places, all_values, counts = [], [], np.zeros(1 << 16, np.int64)
    for found, values, count in map_parallel(search_tile, windows, most=_WINDOWS):
        all_places.append(found)
        all_values.append(values)
        counts += count
        yield Progress(len(all_places), rows * columns, _SURVEYING)
    places, strays = np.concatenate(all_places), None
    if len(places):
        order = np.lexsort((places[:, 1], places[:, 0]))
        strays = StrayPixels(places[order], np.concatenate(all_values)[order])
    return PixelSurvey(strays, counts if is_short else None)


def _read_bands(data: ReadableArray, span: IntPair) -> Iterator[RealArray]:
    """Read the columns `span` in bands of rows, along its chunks if it is chunked."""
    down = (getattr(data, "chunks", None) or (_BAND,))[0]
    borders = find_block_borders(down, int(data.shape[0]), _BAND)
    for start, stop in itertools.pairwise(borders):
        yield read_box(data, Box(start, stop, *span))


def _read_windows(
    data: ReadableArray,
    plan: TilePlan,
    columns: range,
    see_rows: Callable[[RealArray], object] | None,
) -> Iterator[tuple[Tile, RealArray]]:
    """Yield the tiles of some columns, row by row, and their windows."""
    left, right = (plan.tile(0, columns[at]).window for at in (0, -1))
    bands = _read_bands(data, (left.x0, right.x1))
    held: deque[tuple[int, RealArray]] = deque()  # with their first rows
    end = 0  # of the rows in these bands
    for row in range(plan.grid[0]):
        window = plan.tile(row, 0).window
        while held and held[0][0] + len(held[0][1]) <= window.y0:
            held.popleft()
        if held:  # a copy, since a view would keep the whole band
            held[0] = window.y0, held[0][1][window.y0 - held[0][0] :].copy()
        release_free_memory()  # of read blocks and small arrays: more each row
        while end < window.y1:
            held.append((end, next(bands)))
            end += len(held[-1][1])
            if see_rows is not None:
                see_rows(held[-1][1])
        for tile in (plan.tile(row, column) for column in columns):
            across = slice(tile.window.x0 - left.x0, tile.window.x1 - left.x0)
            # no name keeps a band, or it would last while the next row's are read
            yield tile, np.concatenate([b[: window.y1 - y, across] for y, b in held])


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
    ends = values.min(), values.max()
    reach = _FAR * (highest - lowest)
    most, least = middle + reach, middle - reach
    if is_short:
        most, least = math.floor(most), math.ceil(least)
    far = none
    if reach and (ends[0] < least or ends[1] > most):
        far = (values > most) | (values < least)
        if np.count_nonzero(far) / far.size > _MAX_PLATEAUS:
            far = none
    is_stray = (
        _find_peaks_and_lines(values) | _find_plateaus(values, ends) | far
    ) & finite
    if not is_stray.any():
        return none, none
    stray, narrow, dead = _select_isolated_spots(values, is_stray, finite, far)
    if not stray.any():
        return none, none
    own, others = values[stray].astype(np.float32), values[finite & ~stray]
    beyond = np.maximum(own - others.max(), others.min() - own)
    beyond /= max(others.max() - others.min(), np.finfo(np.float32).tiny)
    is_far = (beyond > _BEYOND_WIDE) | (narrow[stray] & (beyond > _BEYOND))
    to_fill = stray.copy()
    to_fill[stray] = dead[stray] | is_far
    return stray, to_fill


def _find_peaks_and_lines(values: RealArray) -> BoolArray:
    """Find pixels and lines that differ strongly from their surroundings.

    Noise stands out from both sides along a third of a segment, a stray line along all.
    """
    wide = np.pad(values, max(_APART), mode="reflect")
    peaks, lines = _find_peaks(wide), _find_lines(wide)
    if (rows := _find_lines(wide.T)).any():
        lines |= rows.T
    for candidates, most in ((peaks, _MOST), (lines, _MAX_LINES)):
        if np.count_nonzero(candidates) / candidates.size > most:
            candidates[:] = False
    if lines.any():  # extend them beyond whole segments
        for axis in (0, 1):
            line, value = np.moveaxis(lines, axis, 0), np.moveaxis(values, axis, 0)
            same = value[1:] == value[:-1]
            for _ in range(_SEGMENT):
                line[1:] |= line[:-1] & same
                line[:-1] |= line[1:] & same
    return peaks | lines


def _find_peaks(wide: RealArray) -> BoolArray:
    """Find pixels that differ from all four at a distance by more than a limit.

    In an image padded by the largest distance, whose rows are joined here: what this
    gives in the margins is dropped.
    """
    margin, width, flat = max(_APART), wide.shape[1], wide.ravel()
    peaks, reach = np.zeros(flat.shape, bool), margin * width
    starts = [reach + n * width for n in _find_segments(len(wide) - 2 * margin)]
    borders = itertools.pairwise((*starts[:-1:2], starts[-1]))
    strips = [slice(*border) for border in borders]  # one fits a cache
    limits: dict[int, list[float]] = {}
    for apart in _APART:
        some = strips[:: 1 + len(strips) // 4]
        sampled = (_compute_heights(flat, strip, apart, width) for strip in some)
        limits[apart] = [
            _find_height_limit([h.reshape(-1, width)[:, margin:-margin] for h in side])
            for side in zip(*sampled, strict=True)
        ]
    lowest = _ROUNDING * min(itertools.chain(*limits.values()))
    is_float, name = wide.dtype.kind == "f", wide.dtype.str
    largest = float(np.finfo(name).max if is_float else np.iinfo(name).max)
    if lowest < largest:
        height, most = np.array([lowest, largest - lowest]).astype(wide.dtype)
        for strip in strips:
            # most pixels are too close to one of those above and below
            part = flat[strip.start - reach : strip.stop + reach]
            raised, own = (
                np.minimum(part, most) + height,
                _shift(strip, reach - strip.start),
            )
            found = np.zeros(strip.stop - strip.start, bool)
            for step in (apart * width for apart in _APART):
                beside = _shift(own, -step), _shift(own, step)
                found |= np.minimum(*(part[n] for n in beside)) >= raised[own]
                found |= part[own] >= np.maximum(*(raised[n] for n in beside))
            places = strip.start + np.flatnonzero(found)
            for apart, both in limits.items():
                heights = _compute_heights(flat, places, apart, width)
                for each, limit in zip(heights, both, strict=True):
                    peaks[places] |= each > limit
    return peaks.reshape(wide.shape)[margin:-margin, margin:-margin]


def _shift(places: slice | NDArray[np.intp], step: int) -> Any:
    """Move places, or a range of them, in an image whose rows are joined."""
    if isinstance(places, slice):
        return slice(places.start + step, places.stop + step)
    return places + step


def _compute_heights(
    flat: RealArray, places: slice | NDArray[np.intp], apart: int, width: int
) -> tuple[RealArray, RealArray]:
    """Return how much higher, and lower, pixels are than all four at a distance."""
    steps = (-apart * width, apart * width, -apart, apart)
    own, around = flat[places], [flat[_shift(places, step)] for step in steps]
    top, bottom = reduce(np.maximum, around), reduce(np.minimum, around)
    with np.errstate(over="ignore"):
        return np.maximum(own, top) - top, bottom - np.minimum(own, bottom)


def _find_height_limit(heights: Sequence[RealArray]) -> float:
    """Return the limit above which pixels of some strips are peaks."""
    joined = np.concatenate([part.ravel() for part in heights])
    higher = np.compress(joined > 0, joined)  # a fifth of the time of an index
    if not higher.size:
        return np.inf
    if higher.dtype.itemsize <= 2:  # by counting, which leaves nothing to select
        higher.sort(kind="stable")
    limit = float(_TIMES * np.percentile(higher.astype(np.float32), _USUAL))
    return limit if heights[0].dtype.kind == "f" else int(limit)


def _find_segments(length: int) -> list[int]:
    """Return the borders of segments, as long as `_SEGMENT` at least if possible."""
    count = max(1, length // _SEGMENT)
    return [*np.linspace(0, length, count, endpoint=False).astype(int), length]


def _find_lines(wide: RealArray) -> BoolArray:
    """Mark pixels of columns that nearly all stand out from both sides in a segment.

    A segment is only counted where enough of its first pixels stand out. In a small
    image constant segments may be anywhere; others are as often real detail.
    """
    margin = max(_APART)
    shape = wide.shape[0] - 2 * margin, wide.shape[1] - 2 * margin
    lines, across = np.zeros(shape, bool), np.arange(shape[1])
    inner = wide[margin:-margin]

    ends = (np.greater, np.maximum), (np.less, np.minimum)
    ways = [(apart, *end) for apart in _APART for end in ends]
    for start, stop in itertools.pairwise(_find_segments(shape[0])):
        rows = inner[start:stop]
        first = np.ascontiguousarray(rows[:_TRIED])  # a view may be transposed
        least = len(first) - len(rows) + math.floor(_STANDING * len(rows)) + 1
        for way in ways:
            marks = _stand_out(first, slice(margin, margin + shape[1]), *way)
            count = marks.view(np.uint8).sum(axis=0, dtype=np.uint8)
            columns = across[count >= least]
            if columns.size:
                marks = _stand_out(rows, columns + margin, *way)
                marks &= marks.mean(axis=0) > _STANDING
                lines[start:stop, columns] |= marks
    if max(shape) > _SMALL:
        return lines
    size = min(_SEGMENT, shape[0])
    part = sliding_window_view(inner[:, margin:-margin], size, 0)
    constant = part.max(axis=-1) == part.min(axis=-1)
    for way in ways if constant.any() else ():
        marks = _stand_out(inner, slice(margin, margin + shape[1]), *way)
        whole = constant & (sliding_window_view(marks, size, 0).mean(-1) > _STANDING)
        for start in range(size):
            stop = start + len(whole)
            lines[start:stop] |= whole & marks[start:stop]
    return lines


def _stand_out(
    rows: RealArray,
    columns: slice | NDArray[np.intp],
    apart: int,
    is_beyond: Callable[[RealArray, RealArray], BoolArray],
    find_end: Callable[[RealArray, RealArray], RealArray],
) -> BoolArray:
    """Return whether pixels of some columns stand out from both at a distance."""
    own, left, right = (rows[:, _shift(columns, n)] for n in (0, -apart, apart))
    return is_beyond(own, find_end(left, right))


def _find_plateaus(values: RealArray, ends: tuple[float, float]) -> BoolArray:
    """Find small areas with the minimum or maximum value of the image."""
    is_plateau = np.zeros(values.shape, bool)
    for end in ends:
        at_end = solid = values == end
        count = np.count_nonzero(at_end)
        if count < _SOLID**2 or count / at_end.size > _MAX_PLATEAUS:
            continue
        for _ in range(2):  # rows, then columns; the second transposes back
            size = len(solid) - _SOLID + 1
            solid = reduce(np.bitwise_and, (solid[n:][:size] for n in range(_SOLID))).T
        if not solid.any():
            continue
        from scipy import ndimage  # 15 MB, and most images have no such area

        labels, _ = ndimage.label(at_end)
        parts = ndimage.find_objects(labels)
        for number in np.unique(labels[: len(solid), : solid.shape[1]][solid]):
            place = parts[number - 1]
            if max(p.stop - p.start for p in place) <= _LARGEST_PLATEAU:
                is_plateau[place] |= labels[place] == number
        del labels  # four bytes per pixel, before those of the other end
    return is_plateau


def _select_isolated_spots(
    values: RealArray, spots: BoolArray, finite: BoolArray, far: BoolArray
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
    for number, spot in enumerate(ndimage.find_objects(labels), 1):
        place = _grow_slices(spot, _AROUND)
        own, usable = labels[place] == number, finite[place] & ~spots[place]
        part = values[place].astype(np.float32, copy=False)
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


def _find_places(mask: BoolArray) -> NDArray[np.intp]:
    """Return what `numpy.argwhere` does, ten times as fast where few are marked."""
    return np.stack(np.unravel_index(np.flatnonzero(mask), mask.shape), axis=1)


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
    places = _find_places(to_fill)
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
