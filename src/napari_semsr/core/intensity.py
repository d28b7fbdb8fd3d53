"""Grey values: field-wide percentiles and means, conversion of type.

Percentiles are those of the finite pixels, interpolated linearly between order
statistics (numpy's default), and exact for any type up to float32. They are found by
counting: pixels are mapped to unsigned keys of the same order; 8- and 16-bit images
need one pass, others two (upper half of the key, then the lower half of those few
buckets that hold the wanted ranks). Memory is one chunk and a few small tables.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_semsr.core.errors import OptionError, ShapeError
from napari_semsr.core.progress import warn
from napari_semsr.core.tiling import Box, read_box
from napari_semsr.core.types import BoolArray, FloatArray, FloatPair

_BINS = 1 << 16  # half of a 32-bit key: two passes; follows from the method above
_BLOCK = 2048  # chosen: 32 MB of double precision at a time, few reads of small chunks
_SIGN = np.uint32(1 << 31)


def read_chunks(data: Any) -> Iterator[NDArray[Any]]:
    """Read a field (Y, X) piece by piece, along its own chunks where it has some.

    Each part comes once; small chunks are read several at a time.
    """
    down, across = getattr(data, "chunks", None) or (_BLOCK, _BLOCK)
    rows, columns = _edges(down, data, 0), _edges(across, data, 1)
    for y0, y1 in itertools.pairwise(rows):
        for x0, x1 in itertools.pairwise(columns):
            yield read_box(data, Box(y0, y1, x0, x1))


def _edges(chunk: int | tuple[int, ...], data: Any, axis: int) -> list[int]:
    """Borders of the chunks of one axis; small chunks are read several at a time."""
    size = int(data.shape[axis])
    if isinstance(chunk, tuple):
        borders = [0, *(int(v) for v in np.cumsum(chunk))]
    else:
        borders = [*range(0, size, chunk), size]
    edges = [0]
    for border, following in zip(borders[1:], [*borders[2:], math.inf], strict=True):
        if following - edges[-1] > _BLOCK:
            edges.append(border)
    return edges


def _counts_from_zero(dtype: np.dtype[Any]) -> bool:
    """Whether a value is its own bin: truth values, and 8- and 16-bit unsigned."""
    return dtype.kind == "b" or (dtype.kind == "u" and dtype.itemsize <= 2)


def _keys(block: NDArray[Any]) -> NDArray[np.uint32]:
    """Map finite pixels to unsigned integers of the same order."""
    if _counts_from_zero(block.dtype):
        return block.ravel().astype(np.uint32)
    if block.dtype.kind == "i" and block.dtype.itemsize <= 2:
        return (block.ravel().astype(np.int32) + _BINS // 2).astype(np.uint32)
    values = block.ravel()
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(values[np.isfinite(values)], dtype=np.float32)
    single = np.clip(single, np.finfo(np.float32).min, np.finfo(np.float32).max) + 0.0
    bits = np.ascontiguousarray(single, dtype=np.float32).view(np.uint32)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _value(key: int, dtype: np.dtype[Any]) -> float:
    """Invert `_keys` for one key."""
    if _counts_from_zero(dtype):
        return float(key)
    if dtype.kind == "i" and dtype.itemsize <= 2:
        return float(key - _BINS // 2)
    bits = np.uint32(key)
    bits = bits & ~_SIGN if bits & _SIGN else ~bits
    return float(np.array([bits], dtype=np.uint32).view(np.float32)[0])


def _order_statistics(data: Any, ranks_of: Any) -> dict[int, float]:
    """Values at the ranks that `ranks_of(count)` asks for."""
    from PIL import Image  # 10 MB, and few modules of this room need it

    dtype = np.dtype(data.dtype)
    short = dtype.kind == "b" or (dtype.kind in "ui" and dtype.itemsize <= 2)
    shift = np.uint32(0 if short else 16)
    counts = np.zeros(_BINS, dtype=np.int64)
    for block in read_chunks(data):
        if block.dtype == np.uint8:  # four times as fast as bincount
            counts[:256] += Image.fromarray(block).histogram()
        else:
            counts += np.bincount(_keys(block) >> shift, minlength=_BINS)
    total = np.cumsum(counts)
    ranks: list[int] = ranks_of(int(total[-1]))
    buckets = {rank: int(np.searchsorted(total, rank, side="right")) for rank in ranks}
    if short:
        return {rank: _value(bucket, dtype) for rank, bucket in buckets.items()}
    fine = {bucket: np.zeros(_BINS, dtype=np.int64) for bucket in buckets.values()}
    for block in read_chunks(data) if fine else ():
        keys = _keys(block)
        upper = keys >> shift
        for bucket, table in fine.items():
            lower = keys[upper == bucket] & np.uint32(_BINS - 1)
            table += np.bincount(lower, minlength=_BINS)
    statistics = {}
    for rank, bucket in buckets.items():
        below = int(total[bucket] - counts[bucket])
        low = int(np.searchsorted(np.cumsum(fine[bucket]), rank - below, side="right"))
        statistics[rank] = _value((bucket << 16) | low, dtype)
    return statistics


def field_range(data: Any, low: float = 0.1, high: float = 99.9) -> FloatPair:
    """Measure two percentiles over a whole field (Y, X), chunk by chunk.

    NaN and infinite pixels are ignored; ``(0.0, 0.0)`` when no pixel is finite. An
    `OptionError` for percentiles out of [0, 100] or out of order, a `ShapeError` for
    pixels that are no real numbers.
    """
    if not 0 <= low <= high <= 100:
        msg = f"Percentiles must be 0 <= low <= high <= 100, got {low} and {high}."
        raise OptionError(msg, code="out-of-range")
    if np.dtype(data.dtype).kind not in "buif":
        msg = f"Percentiles need real pixels, got type {data.dtype}."
        raise ShapeError(msg, code="complex-values")
    places: list[float] = []

    def ranks_of(count: int) -> list[int]:
        if not count:
            return []
        places.extend(share / 100 * (count - 1) for share in (low, high))
        return sorted({r for p in places for r in (math.floor(p), math.ceil(p))})

    values = _order_statistics(data, ranks_of)
    if not values:
        return 0.0, 0.0
    first, second = (
        values[math.floor(p)] + (p % 1) * (values[math.ceil(p)] - values[math.floor(p)])
        for p in places
    )
    return first, second


# Chosen: no detector counts so far, and sums of squares stay within single precision,
# by whose ends, 3.4e38, programs mark missing pixels.
_LARGEST_GREY = 1e15
_MARKS = -99999.0, -32768.0, -9999.0  # by which maps mark them, too


def without_marks(block: NDArray[Any], name: str) -> NDArray[Any]:
    """Take fill values, and grey values beyond computing, as missing, and warn of them.

    They are NaN then; infinities stay, which count as missing everywhere. A usual fill
    value is one where no other pixel is even half as low.
    """
    if block.dtype.kind != "f" or block.dtype.itemsize < 4:
        return block
    size = np.abs(block)
    marks = (size > _LARGEST_GREY) & (size < np.inf)
    if marks.any():
        warn(
            f"{name} has grey values beyond {_LARGEST_GREY:.0e}, by which programs "
            "mark missing pixels: they count as missing.",
            "pixels-marked-missing",
        )
    for mark in _MARKS:
        here = block == mark
        if (
            here.any()
            and not ((block < mark / 2) & ~here & ~marks & (size < np.inf)).any()
        ):
            marks |= here
            warn(
                f"{name} has pixels of {mark:.0f}, far below all others, by which "
                "programs mark missing pixels: they count as missing.",
                "pixels-marked-missing",
            )
    return np.where(marks, block.dtype.type(np.nan), block) if marks.any() else block


def is_empty(data: Any) -> bool:
    """Tell whether no pixel of a field is finite, chunk by chunk."""
    return not any(np.isfinite(block).any() for block in read_chunks(data))


def finite_mean(data: Any) -> float:
    """Mean of the finite pixels of a field, chunk by chunk; 0 when none is finite."""
    total, count = 0.0, 0
    for block in read_chunks(data):
        valid = block[np.isfinite(block)] if block.dtype.kind == "f" else block
        total += float(valid.sum(dtype=np.float64))
        count += valid.size
    return total / count if count else 0.0


def to_dtype(array: NDArray[Any], dtype: DTypeLike) -> tuple[NDArray[Any], int]:
    """Convert grey values to another type by rounding and clipping.

    Integers are rounded to the nearest, halves to even, and what is not a number
    becomes 0 in them. Beside the array: how many pixels had no place in the new type.
    An `OptionError` if that is neither integer nor floating.
    """
    target = np.dtype(dtype)
    if target.kind not in "uif":
        msg = f"Images can be stored as integers or floats, got type {target}."
        raise OptionError(msg, code="wrong-type")
    if array.dtype == target:
        return array, 0
    if target.kind == "f":
        limit = float(np.finfo(target).max)
        over = np.isfinite(array) & (np.abs(array) > limit)
        clipped = np.where(over, np.sign(array) * limit, array) if over.any() else array
        return clipped.astype(target), int(np.count_nonzero(over))
    return _to_integer(array, target)


def _to_integer(array: NDArray[Any], target: np.dtype[Any]) -> tuple[NDArray[Any], int]:
    info = np.iinfo(target)
    if array.dtype.kind in "uib":
        own = np.iinfo("u1" if array.dtype.kind == "b" else array.dtype)
        least, most = max(info.min, own.min), min(info.max, own.max)
        clipped = np.clip(array, least, most).astype(target)
        return clipped, _outside(array, least, most)
    wide = np.rint(array.astype(np.float64))
    high = float(info.max)
    if high > info.max:
        high = float(np.nextafter(high, 0.0))
    missing = np.isnan(wide)
    count = int(np.count_nonzero(missing)) + _outside(wide, info.min, high)
    np.clip(wide, info.min, high, out=wide)
    wide[missing] = 0
    return wide.astype(target), count


def _outside(array: NDArray[Any], low: float, high: float) -> int:
    """Count values outside a closed range; NaN is not counted."""
    return int(np.count_nonzero((array < low) | (array > high)))


_SAMPLE = 1024  # chosen: a glance; more pixels move percentiles by less than a grey


def contrast_limits(data: Any, low: float = 0.1, high: float = 99.9) -> FloatPair:
    """Choose grey values between which an image (..., Y, X) is shown.

    All that 8 bits or booleans can hold, else percentiles of the finite pixels of a
    sample: every n-th in memory, else those in the middle. Of a list of levels the last
    is looked at.
    """
    level = data[-1] if isinstance(data, list | tuple) else data
    if level.dtype == np.uint8:
        return 0.0, 255.0
    if level.dtype.kind == "b":
        return 0.0, 1.0
    sides = level.shape[-2:]
    if hasattr(level, "dask"):
        window = [slice(max(0, (n - _SAMPLE) // 2), (n + _SAMPLE) // 2) for n in sides]
    else:
        window = [slice(None, None, -(-n // _SAMPLE)) for n in sides]
    values = np.asarray(level[..., *window], dtype=float)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 1.0
    lo, hi = (float(v) for v in np.percentile(values, (low, high)))
    if hi <= lo:
        lo, hi = float(values.min()), float(values.max())
    return (lo, hi) if hi > lo else (lo, lo + 1.0)


# The noise of an image.

_MEDIAN = 0.6745  # median of a normal deviate's absolute value
_SECOND = 6.0  # deviation of the second differences (1, -2, 1) along both, of 1


def noise_level(values: NDArray[Any]) -> float:
    """Measure the deviation of white noise of an image (Y, X), in grey levels.

    The median of second differences along both axes, which a plane and its edges do not
    have (Immerkaer 1996); detail as fine as a pixel counts as noise. Pixels near one
    that is not finite are left out; NaN where none is finite.
    """
    rough = np.pad(np.asarray(values, dtype=np.float64), 1, mode="reflect")
    for _ in range(2):
        rough = (rough[:-2] - 2 * rough[1:-1] + rough[2:]).T
    differences = np.abs(rough[np.isfinite(rough)])
    if not differences.size:
        return math.nan
    return float(np.median(differences)) / _MEDIAN / _SECOND


# Clipped grey values.

OVEREXPOSED = 0.1
"""Share of the pixels of a frame, or of a line, that are clipped, from which on places
and widths are off: a Gaussian line whose highest tenth is cut reads 0.5 % too wide."""
_CLIPPED, _OVER_NEXT = 0.01, 2.0  # chosen: a share of pixels; times those of the next
ROUNDING = 8 * float(np.finfo(np.float32).eps)
"""Of a grey value: rounding in single precision, a few times."""
_DEPTHS = 10, 12, 14  # bits of detectors, stored in two bytes


def are_level(values: NDArray[Any], level: float) -> BoolArray:
    """Mark the values that are a level, floats but for rounding in single precision."""
    if values.dtype.kind != "f":
        return np.asarray(values == level)
    # averages and interpolation of one value differ in the last bits
    return np.asarray(np.abs(values - level) <= ROUNDING * abs(level))


def clipped_level(
    values: NDArray[Any], *, white: bool = True, share: float = _CLIPPED
) -> float | None:
    """Find the grey value at which values are clipped; None where none is.

    It is the greatest, or the least where `white` is false, has more than a `share` of
    all finite values and twice those of the next grey value.
    """
    finite = np.asarray(values)
    if finite.dtype.kind == "f":
        finite = finite[np.isfinite(finite)]
    if not finite.size:
        return None
    last = finite.max() if white else finite.min()
    ends = are_level(finite, last)
    count = np.count_nonzero(ends)
    if count <= share * finite.size:
        return None
    within = finite[~ends]
    if not within.size:
        return None
    next_count = np.count_nonzero(
        are_level(within, within.max() if white else within.min())
    )
    return float(last) if count > _OVER_NEXT * next_count else None


def clipped_pixels(values: NDArray[Any], share: float = _CLIPPED) -> BoolArray:
    """Mark where values end at white or at black, as `clipped_level` finds it."""
    is_clipped = np.zeros(values.shape, bool)
    for white in (False, True):
        level = clipped_level(values, white=white, share=share)
        if level is not None:
            is_clipped |= are_level(values, level)
    return is_clipped


def is_white(level: float, dtype: DTypeLike, bits: int | None = None) -> bool:
    """Whether a grey value is the greatest that pixels can have.

    That of the integer type, or of the stated depth of so many `bits`; if none is
    stated, two bytes may hold 10, 12 or 14 bits. Floats have no greatest value.
    """
    kind = np.dtype(dtype)
    if kind.kind not in "ui":
        return False
    short = kind.kind == "u" and kind.itemsize == 2
    depths = (bits,) if bits is not None else _DEPTHS if short else ()
    return level in (float(np.iinfo(kind).max), *(2.0**depth - 1 for depth in depths))


def without_clipped(values: NDArray[Any]) -> FloatArray:
    """Give values with NaN for those not finite, and where they end at black or white.

    There noise does not show; `clipped_level` defines these ends.
    """
    result = np.array(values, dtype=np.float64)
    result[~np.isfinite(result)] = np.nan
    result[clipped_pixels(result)] = np.nan
    return result
