"""Find rows below an image that look like the data bar of a microscope.

A guess for images whose header does not tell; it is shown, never applied unasked.
A bar is a band of one flat ground with letters in it, that begins along one straight
row over most of the width. No specimen does all of that.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["suggest_databar"]

_SHARE = 0.25  # a bar takes at most this part of the height
_SMALLEST = 8  # rows of a bar
_LEVELS = 6 / 255  # JPEG blurs a flat ground by so much of the range
_GROUND = 0.5  # least part of the bar's pixels that are ground
_STEP = 0.4  # rise of that part from one side of the first row to the other
_LETTERS = 0.004  # least part of pixels that stand out from the ground
_CONTRAST = 0.4  # of the range, by which letters stand out
_NEAR = 4  # rows on each side of the edge that are compared
_LINE = 3  # rows of a ruled line, which have no ground
_RULED = 0.8  # least part of such a row that has one value


def _grounds(bottom: NDArray[np.float64]) -> list[float]:
    """Most frequent grey values, at most three."""
    counts, edges = np.histogram(bottom, bins=64, range=(0.0, 1.0))
    best = np.argsort(counts)[::-1][:3]
    found = []
    for i in best:
        upper = bottom <= edges[i + 1] if i == 63 else bottom < edges[i + 1]
        inside = bottom[(bottom >= edges[i]) & upper]
        if inside.size:
            found.append(float(np.median(inside)))
    return found


def _first_row(part: NDArray[np.float64]) -> int | None:
    """Find the row where the share of ground jumps up and then stays."""
    best: tuple[float, int] | None = None
    for row in range(_NEAR, part.size - _SMALLEST + 1):
        rise = float(part[row : row + _NEAR].min() - part[row - _NEAR : row].max())
        if rise >= _STEP and (best is None or rise > best[0]):
            best = (rise, row)
    return None if best is None else best[1]


def _above_frame(bottom: NDArray[np.float64], row: int) -> int:
    """Step over ruled lines above the ground: rows that are all of one value."""
    for _ in range(_LINE):
        line = bottom[row - 1]
        if np.mean(np.abs(line - np.median(line)) <= _LEVELS) < _RULED:
            break
        row -= 1
    return row


def _is_bar(
    rows: NDArray[np.float64], ground: float, part: NDArray[np.float64]
) -> bool:
    """Whether rows are flat ground with letters in it."""
    if rows.shape[0] < _SMALLEST or float(np.median(part)) < _GROUND:
        return False
    letters = float(np.mean(np.abs(rows - ground) > _CONTRAST))
    return letters >= _LETTERS


def suggest_databar(image: NDArray[Any]) -> int:
    """Count the rows at the bottom that look like a data bar.

    Parameters
    ----------
    image : (Y, X) numpy.ndarray
        Grey values with, perhaps, a bar below them.

    Returns
    -------
    int
        Rows from the bar's first one to the bottom; 0 when none is found.
    """
    height = image.shape[0]
    depth = int(height * _SHARE)
    if depth < _SMALLEST + _NEAR or image.shape[1] < 64:
        return 0
    bottom = np.asarray(image[height - depth :], dtype=np.float64)
    finite = bottom[np.isfinite(bottom)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    if high <= low:
        return 0
    bottom = (bottom - low) / (high - low)
    bottom = np.nan_to_num(bottom, nan=0.0, posinf=1.0, neginf=0.0)
    found = 0
    for ground in _grounds(bottom):
        part = np.mean(np.abs(bottom - ground) <= _LEVELS, axis=1)
        first = _first_row(part)
        if first is not None and _is_bar(bottom[first:], ground, part[first:]):
            found = max(found, depth - _above_frame(bottom, first))
    return found
