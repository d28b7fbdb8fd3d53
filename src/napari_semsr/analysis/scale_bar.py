"""Detection of the scale bar printed in an image, and of its length in px.

A bar is a thin straight line on an even background, continuous or broken once by its
label, with short ticks at its ends or none. Rules and letters of a data bar are
excluded: a rule meets others or crosses the field, a letter is short. The label is not
read.
"""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import BoolArray, Box, ReadableArray, read_box

# Chosen on 38 real images: eight of nine printed bars are found, and no other line
# (tests/analysis/test_scale_bar.py).
_SHARE = 0.2  # part of the height, at the bottom and at the top, that is searched
_GROUNDS = 2  # number of frequent grey values tried as background
_BINS = 64
_MARK = 0.35  # of the range: smallest contrast of a line to its background
_EVEN = 0.12  # of the range: largest variation of the background
_TALL = 0.7  # of the height of its data bar: rules extend over all of it
_ROW = 0.25  # smallest share of background in a row of a data bar
_SHORTEST = 0.025  # of the width; chosen: letters of a data bar are shorter
_LONGEST = 0.6  # of the width; chosen: rules are longer
_MIN_PX = 16  # chosen: an end misplaced by a pixel is 6 % of it
_THICK = 0.2  # of its length: largest thickness of a bar
_TICK = 0.4  # of its length: largest height of ticks
_SOLID = 0.95  # smallest share of a bar between its ends that is one line
_CLEAR = 0.9  # smallest share of background in the rows next to it
_HALVES = 1.6  # largest ratio of the halves' lengths
_GAP = 0.75  # largest share of a bar covered by its label


@dataclass(frozen=True, slots=True)
class ScaleBar:
    """A printed scale bar."""

    length_px: float  # between the centres of its end ticks, in pixels
    # standard deviation of the length, from the rounding of ends to whole pixels
    sd_px: float
    # bounding box ``(y0, x0, y1, x1)``, end row and column excluded
    box: tuple[int, int, int, int]
    light: bool  # whether it is brighter than its background


@dataclass(frozen=True, slots=True)
class _BarLine:
    """Straight line including its ticks."""

    y0: int  # rows of the line itself
    y1: int
    x0: int
    x1: int
    top: int  # rows with its ticks
    bottom: int
    ends: tuple[int, int]  # width in px of the left and right tick

    @property
    def width(self) -> int:
        return self.x1 - self.x0


def find_scale_bar(image: ReadableArray) -> ScaleBar | None:
    """Find the scale bar in an image (Y, X) that includes its data bar.

    Reads only the searched part of a lazy image. None if there is no bar, or more than
    one candidate.
    """
    height, width = image.shape
    depth = max(1, round(height * _SHARE))
    bars: set[ScaleBar] = set()
    for top in sorted({0, max(0, height - depth)}, reverse=True):
        box = Box(top, min(top + depth, height), 0, width)
        part = np.asarray(read_box(image, box), dtype=np.float64)
        bars |= _find_bars(part, top)
        if bars:
            break
    return bars.pop() if len(bars) == 1 else None


def _find_bars(part: NDArray[np.float64], top: int) -> set[ScaleBar]:
    """Find all bars in a range of rows, for each possible background."""
    finite = part[np.isfinite(part)]
    if not finite.size or finite.min() == finite.max():
        return set()
    low, high = float(finite.min()), float(finite.max())
    unit_range = np.nan_to_num((part - low) / (high - low), nan=0.5, posinf=1, neginf=0)
    counts, edges = np.histogram(unit_range, bins=_BINS, range=(0.0, 1.0))
    bars_by_place: dict[tuple[int, int], ScaleBar] = {}
    for which in np.argsort(counts)[::-1][:_GROUNDS]:
        ground = float(edges[which] + edges[which + 1]) / 2
        even = np.abs(unit_range - ground) <= _EVEN
        quiet = even.mean(axis=1) >= _ROW
        for light in (True, False):
            height_above = unit_range - ground if light else ground - unit_range
            # without image content that ticks may touch, and without rules across the
            # field
            marks = (height_above > _MARK) & quiet[:, None]
            for bar in _find_bars_on_background(marks, even):
                above, below = (  # rows of the background band
                    part.size if part.all() else int(np.argmin(part))
                    for part in (quiet[: bar.y0][::-1], quiet[bar.y0 :])
                )
                if bar.bottom - bar.top > _TALL * (above + below):
                    continue
                box = (bar.top + top, bar.x0, bar.bottom + top, bar.x1)
                length = bar.width - sum(bar.ends) / 2
                # each end is known to half a pixel, or to half of a tick
                sd = math.hypot(*(max(1, end) / 2 for end in bar.ends))
                bar_found = ScaleBar(length, sd, box, light)
                bars_by_place.setdefault((bar.y0 // 4, bar.x0 // 4), bar_found)
    return set(bars_by_place.values())


def _find_bars_on_background(mark: BoolArray, even: BoolArray) -> list[_BarLine]:
    """Find the bars among the marks on a given background level."""
    from scipy import ndimage

    width = mark.shape[1]
    labels, _ = ndimage.label(mark, np.ones((3, 3)))
    shortest = max(_MIN_PX, _SHORTEST * width)
    lines = []
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        rows, columns = place
        wide, tall = columns.stop - columns.start, rows.stop - rows.start
        at_rim = columns.start == 0 or columns.stop == width
        if at_rim or wide < shortest or tall > 2 * wide:
            continue
        line = _parse_line(labels[place] == number, rows.start, columns.start)
        if line is None:
            continue
        # clear background above and below the line, between its ticks
        inner = np.s_[line.x0 + line.ends[0] + 1 : line.x1 - line.ends[1] - 1]
        if all(
            0 <= row < even.shape[0]
            and even[row, inner].size
            and float(even[row, inner].mean()) >= _CLEAR
            for row in (line.y0 - 3, line.y1 + 2)
        ):
            lines.append(line)
    pairs = combinations(sorted(lines, key=lambda one: one.x0), 2)
    joined_lines = [line for pair in pairs if (line := _join_halves(*pair))]
    ends = {(line.y0, x) for line in joined_lines for x in (line.x0, line.x1)}
    whole = [
        line
        for line in lines
        if ends.isdisjoint({(line.y0, line.x0), (line.y0, line.x1)})
    ]
    longest = _LONGEST * width
    bars = []
    for line in (*joined_lines, *whole):
        thick, tall = line.y1 - line.y0, line.bottom - line.top
        has_short_ticks = tall <= max(6, _TICK * line.width)
        is_thin = thick <= max(2, _THICK * line.width)
        if is_thin and has_short_ticks and shortest <= line.width <= longest:
            bars.append(line)
    return bars


def _parse_line(shape: BoolArray, y: int, x: int) -> _BarLine | None:
    """Interpret a connected region as a line with ticks; None if it is not a line."""
    wide = shape.shape[1]
    full = np.flatnonzero(shape.mean(axis=1) >= _SOLID)
    if not full.size or full[-1] - full[0] + 1 != full.size:
        return None
    y0, y1 = int(full[0]), int(full[-1]) + 1
    rest = np.delete(shape, np.s_[y0:y1], axis=0)
    ticks = np.flatnonzero(rest.any(axis=0))
    left, right = ticks[ticks < wide / 2], ticks[ticks >= wide / 2]
    ends = (
        int(left.max()) + 1 if left.size else 0,
        wide - int(right.min()) if right.size else 0,
    )
    if max(ends) > max(3, wide // 8):  # a letter or a logo
        return None
    return _BarLine(y + y0, y + y1, x, x + wide, y, y + shape.shape[0], ends)


def _join_halves(left: _BarLine, right: _BarLine) -> _BarLine | None:
    """Join two halves of a bar separated by its label."""
    if abs(left.y0 - right.y0) > 1 or abs(left.y1 - right.y1) > 1:
        return None
    gap, total = right.x0 - left.x1, right.x1 - left.x0
    longer = max(left.width, right.width)
    if gap < 4 or gap > _GAP * total or longer > _HALVES * min(left.width, right.width):
        return None
    return _BarLine(
        min(left.y0, right.y0),
        max(left.y1, right.y1),
        left.x0,
        right.x1,
        min(left.top, right.top),
        max(left.bottom, right.bottom),
        (left.ends[0], right.ends[1]),
    )
