"""From grey values to what a network sees, and back; the same for every tile."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import (
    Box,
    ReadError,
    field_range,
    finite_mean,
    read_box,
    reflect_indices,
)

_REACH = 4
_EXACT_IN_FLOAT32 = 2
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Scaling:
    """One linear map for the whole field."""

    low: float  # Grey values that become 0 and 1; equal only in a constant field
    high: float  # Grey values that become 0 and 1; equal only in a constant field
    # Mean of the finite pixels: what missing pixels become when nothing near them is
    # known. Zero when no pixel is missing
    mean: float = 0.0
    back: bool = True  # Whether results return to the grey values of the input

    def normalise(self, window: NDArray[Any]) -> NDArray[np.float32]:
        """Map grey values to the scale of the network.

        `window` (Y, X); gives (Y, X).
        """
        span = self.high - self.low or 1.0
        small = window.dtype.kind != "f" and window.dtype.itemsize <= _EXACT_IN_FLOAT32
        narrow = small or window.dtype == np.float32
        working = np.float32 if narrow else np.float64
        values = np.subtract(window, working(self.low), dtype=working)
        values /= working(span)
        return np.ascontiguousarray(values, dtype=np.float32)

    def restore(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map a result back, in place; `values` (Y, X); gives (Y, X)."""
        if self.back:
            values *= np.float32(self.high - self.low)
            values += np.float32(self.low)
        return values


def measure_scaling(
    data: Any, percentiles: tuple[float, float], *, back: bool = True
) -> Scaling:
    """Measure the scaling of a field, once, chunk by chunk; `data` (Y, X)."""
    low, high = field_range(data, *percentiles)
    if low == high:
        low, high = field_range(data, 0, 100)
    if max(abs(low), abs(high)) >= _LARGEST:
        msg = (
            f"Grey values must be below {_LARGEST:.1e} to be enhanced in single "
            "precision; divide them first."
        )
        raise ReadError(msg)
    mean = finite_mean(data) if np.dtype(data.dtype).kind == "f" else 0.0
    return Scaling(low, high, mean, back)


def source_box(box: Box, shape: tuple[int, int]) -> Box:
    """Give the part of a field that `read_window` may look at."""
    grown = box.grow(_REACH)
    rows = reflect_indices(grown.y0, grown.y1, shape[0])
    columns = reflect_indices(grown.x0, grown.x1, shape[1])
    return Box(
        int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1
    )


def read_window(
    data: Any, box: Box, mean: float
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Read a window and fill the pixels that are not finite.

    A missing pixel gets the mean of the finite ones among its 9 x 9 neighbours, or
    the field's mean where there is none. Neighbours beyond the window are read too, so
    that the filling does not depend on how the field was cut.

    `data` (Y, X); gives (Y, X), (Y, X), where pixels were missing; None when none was.
    """
    window = read_box(data, box)
    if window.dtype.kind != "f":
        return window, None
    missing = ~np.isfinite(window)
    if not missing.any():
        return window, None
    from scipy import ndimage  # 15 MB, and most images are complete

    wide = read_box(data, box.grow(_REACH))
    known = np.isfinite(wide)
    ones = np.ones(2 * _REACH + 1)
    sums = [np.where(known, wide, 0).astype(np.float64), known.astype(np.float64)]
    for axis in (0, 1):
        sums = [ndimage.correlate1d(s, ones, axis=axis, mode="constant") for s in sums]
    total, count = (s[_REACH:-_REACH, _REACH:-_REACH][missing] for s in sums)
    filled = window.copy()
    filled[missing] = np.where(count > 0.5, total / np.maximum(count, 1.0), mean)
    return filled, missing


def set_missing(
    result: NDArray[np.float32], missing: NDArray[np.bool_] | None, scale: int
) -> None:
    """Make pixels that were missing in the input missing in the output, in place.

    `result` (Y * scale, X * scale); `missing` (Y, X); `scale`: output pixels per input
    pixel.
    """
    if missing is not None:
        rows, columns = missing.shape
        blocks = result.reshape(rows, scale, columns, scale)
        blocks.transpose(0, 2, 1, 3)[missing] = np.nan
