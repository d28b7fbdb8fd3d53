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
    height = part.size
    best: tuple[float, int] | None = None
    for row in range(_NEAR, height - _SMALLEST + 1):
        # a frame line above the ground is neither image nor ground: skip over it
        for line in range(_LINE + 1):
            after = part[row + line : row + line + _NEAR]
            if after.size < _NEAR:
                break
            rise = float(after.mean() - part[row - _NEAR : row].max())
            if rise >= _STEP and (best is None or rise > best[0] + 0.02):
                best = (rise, row)
    return None if best is None else best[1]


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
    low, high = float(np.nanmin(image)), float(np.nanmax(image))
    if not np.isfinite([low, high]).all() or high <= low:
        return 0
    bottom = (np.nan_to_num(bottom, nan=low) - low) / (high - low)
    found = 0
    for ground in _grounds(bottom):
        part = np.mean(np.abs(bottom - ground) <= _LEVELS, axis=1)
        first = _first_row(part)
        if first is not None and _is_bar(bottom[first:], ground, part[first:]):
            found = max(found, depth - first)
    return found
