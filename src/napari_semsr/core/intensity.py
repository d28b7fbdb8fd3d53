"""Grey values: field-wide percentiles and means, and type conversion.

Percentiles are those of the finite pixels, interpolated linearly between order
statistics (numpy's default), and exact for any type up to float32. They are found by
counting: pixels are mapped to unsigned keys of the same order; 8- and 16-bit images
need one pass, others two (upper half of the key, then the lower half of the few
buckets that hold the requested ranks). Memory is one chunk and a few small tables.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_semsr.core.errors import OptionError
from napari_semsr.core.grids import Box, read_box
from napari_semsr.core.progress import warn
from napari_semsr.core.types import BoolArray, FloatPair, ReadableArray, RealArray

_BINS = 1 << 16  # half of a 32-bit key, for two passes
_PART = 1 << 18  # keys counted at a time; chosen: 2 MB
_BLOCK = 2048  # chosen: 32 MB of double precision at a time, few reads of small chunks
_SIGN = np.uint32(1 << 31)


def read_chunks(data: ReadableArray) -> Iterator[RealArray]:
    """Read an image (Y, X) block by block, aligned with its chunks if it is chunked.

    Each block is read once; small chunks are read several at a time.
    """
    down, across = getattr(data, "chunks", None) or (_BLOCK, _BLOCK)
    rows = find_block_borders(down, int(data.shape[0]))
    columns = find_block_borders(across, int(data.shape[1]))
    for y0, y1 in itertools.pairwise(rows):
        for x0, x1 in itertools.pairwise(columns):
            yield read_box(data, Box(y0, y1, x0, x1))


def find_block_borders(
    chunk: int | tuple[int, ...], size: int, block: int = _BLOCK
) -> list[int]:
    """Return block borders along one axis, combining small chunks."""
    if isinstance(chunk, tuple):
        borders = [0, *(int(v) for v in np.cumsum(chunk))]
    else:
        borders = [*range(0, size, chunk), size]
    edges = [0]
    for border, following in zip(borders[1:], [*borders[2:], math.inf], strict=True):
        if following - edges[-1] > block:
            edges.append(border)
    return edges


def _has_direct_bins(dtype: np.dtype[np.generic]) -> bool:
    """Return whether each value is its own bin: booleans, uint8 and uint16."""
    return dtype.kind == "b" or (dtype.kind == "u" and dtype.itemsize <= 2)


def count_grey_values(block: RealArray) -> NDArray[np.int64]:
    """Count the pixels of each grey value of 8 or 16 bits, (65536,)."""
    counts = np.zeros(_BINS, dtype=np.int64)
    if block.dtype == np.uint8:  # four times as fast as bincount
        from PIL import Image  # 10 MB, and few modules of this room need it

        counts[:256] = Image.fromarray(np.atleast_2d(block)).histogram()
        return counts
    keys = block.ravel()
    # few at a time: each becomes eight bytes
    for part in np.array_split(keys, 1 + keys.size // _PART):
        counts += np.bincount(part, minlength=_BINS)
    return counts


def _compute_sort_keys(block: RealArray) -> NDArray[Any]:
    """Map finite pixels to unsigned integers of the same order."""
    values = block.ravel()
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(values[np.isfinite(values)], dtype=np.float32)
    single = np.clip(single, np.finfo(np.float32).min, np.finfo(np.float32).max) + 0.0
    bits = np.ascontiguousarray(single, dtype=np.float32).view(np.uint32)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _invert_sort_key(key: int) -> float:
    """Convert one key back to a grey value; inverse of `_compute_sort_keys`."""
    bits = np.uint32(key)
    bits = bits & ~_SIGN if bits & _SIGN else ~bits
    return float(np.array([bits], dtype=np.uint32).view(np.float32)[0])


def _compute_order_statistics(
    data: ReadableArray,
    ranks_of: Callable[[int], list[int]],
    counts: NDArray[np.int64] | None,
) -> dict[int, float]:
    """Return the values at the ranks that `ranks_of(count)` returns."""
    shift = np.uint32(16)
    short = counts is not None or _has_direct_bins(np.dtype(data.dtype))
    if counts is None:
        counts = np.zeros(_BINS, dtype=np.int64)
        for block in read_chunks(data):
            bins = block if short else _compute_sort_keys(block) >> shift
            counts += count_grey_values(bins)
    total = np.cumsum(counts)
    ranks: list[int] = ranks_of(int(total[-1]))
    buckets = {rank: int(np.searchsorted(total, rank, side="right")) for rank in ranks}
    if short:  # each grey value has its own bucket
        return {rank: float(value) for rank, value in buckets.items()}
    fine = {bucket: np.zeros(_BINS, dtype=np.int64) for bucket in buckets.values()}
    for block in read_chunks(data) if fine else ():
        keys = _compute_sort_keys(block)
        upper = keys >> shift
        for bucket, table in fine.items():
            lower = keys[upper == bucket] & np.uint32(_BINS - 1)
            table += np.bincount(lower, minlength=_BINS)
    statistics = {}
    for rank, bucket in buckets.items():
        below = int(total[bucket] - counts[bucket])
        low = int(np.searchsorted(np.cumsum(fine[bucket]), rank - below, side="right"))
        statistics[rank] = _invert_sort_key((bucket << 16) | low)
    return statistics


def measure_percentiles(
    data: ReadableArray,
    low: float = 0.1,
    high: float = 99.9,
    counts: NDArray[np.int64] | None = None,
) -> FloatPair:
    """Measure two percentiles of a whole image (Y, X), chunk by chunk.

    NaN and infinite pixels are ignored; ``(0.0, 0.0)`` if no pixel is finite. Nothing
    is read if the pixels of each grey value have been counted: `counts`, (65536,).
    """
    places: list[float] = []

    def compute_ranks(count: int) -> list[int]:
        if not count:
            return []
        places.extend(share / 100 * (count - 1) for share in (low, high))
        return sorted({r for p in places for r in (math.floor(p), math.ceil(p))})

    values = _compute_order_statistics(data, compute_ranks, counts)
    if not values:
        return 0.0, 0.0
    first, second = (
        values[math.floor(p)] + (p % 1) * (values[math.ceil(p)] - values[math.floor(p)])
        for p in places
    )
    return first, second


# Chosen: beyond the counts of any detector, and sums of squares fit into single
# precision, whose extreme values, 3.4e38, programs use for missing pixels.
_LARGEST_GREY = 1e15
_FILL_VALUES = -99999.0, -32768.0, -9999.0  # usual in maps


def mask_fill_values(block: RealArray, name: str) -> RealArray:
    """Replace fill values and extreme grey values with NaN, and warn about them.

    Infinities stay, since they count as missing everywhere. A usual fill value counts
    as missing if no other pixel is even half as low.
    """
    if block.dtype.kind != "f" or block.dtype.itemsize < 4:
        return block
    least = np.fmin.reduce(block, axis=None, initial=np.inf)
    most = np.fmax.reduce(block, axis=None, initial=-np.inf)
    if least > max(_FILL_VALUES) and most <= _LARGEST_GREY:
        return block
    size = np.abs(block)
    marks = (size > _LARGEST_GREY) & (size < np.inf)
    if marks.any():
        text = f"Pixels of {name} with values beyond {_LARGEST_GREY:.0e} are treated as"
        warn(f"{text} missing.", "pixels-marked-missing")
    for mark in _FILL_VALUES:
        here = block == mark
        if not here.any():
            continue
        others = (block < mark / 2) & ~here & ~marks & (size < np.inf)
        if not others.any():
            marks |= here
            text = f"Pixels of {name} with value {mark:.0f}, far below all others, are"
            warn(f"{text} treated as missing.", "pixels-marked-missing")
    return np.where(marks, block.dtype.type(np.nan), block) if marks.any() else block


def is_empty(data: ReadableArray) -> bool:
    """Check chunk by chunk whether an image has no finite pixels."""
    return not any(np.isfinite(block).any() for block in read_chunks(data))


def compute_finite_mean(data: ReadableArray) -> float:
    """Compute the mean of the finite pixels, chunk by chunk; 0 if there are none."""
    total, count = 0.0, 0
    for block in read_chunks(data):
        valid = block[np.isfinite(block)] if block.dtype.kind == "f" else block
        total += float(valid.sum(dtype=np.float64))
        count += valid.size
    return total / count if count else 0.0


def convert_dtype(array: RealArray, dtype: DTypeLike) -> tuple[RealArray, int]:
    """Convert grey values to another data type, with rounding and clipping.

    Integers are rounded to the nearest, halves to even, and NaN becomes 0. Also
    returns the number of pixels outside the range of the new type. Raises `OptionError`
    if that is neither integer nor floating.
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
        result = np.where(over, np.sign(array) * limit, array) if over.any() else array
        return result.astype(target), int(np.count_nonzero(over))
    info = np.iinfo(target)
    if array.dtype.kind in "uib":
        own = np.iinfo("u1" if array.dtype.kind == "b" else array.dtype.str)
        least, most = max(info.min, own.min), min(info.max, own.max)
        result = np.clip(array, least, most).astype(target)
        return result, _count_out_of_range(array, least, most)
    wide = np.rint(array.astype(np.float64))
    high = float(info.max)
    if high > info.max:
        high = float(np.nextafter(high, 0.0))
    missing = np.isnan(wide)
    count = int(np.count_nonzero(missing)) + _count_out_of_range(wide, info.min, high)
    np.clip(wide, info.min, high, out=wide)
    wide[missing] = 0
    return wide.astype(target), count


def _count_out_of_range(array: RealArray, low: float, high: float) -> int:
    """Count values outside a closed range, ignoring NaN."""
    return int(np.count_nonzero((array < low) | (array > high)))


_SAMPLE = 1024  # chosen: more pixels change percentiles by less than a grey level


def contrast_limits(data: Any, low: float = 0.1, high: float = 99.9) -> FloatPair:
    """Choose the contrast limits for displaying an image (..., Y, X).

    The full range for 8 bits or booleans, otherwise percentiles of finite pixels in a
    sample: every n-th in memory, or the central ones. Of a list of levels the last one
    is used.
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
_SECOND = 6.0  # standard deviation of the second differences, for unit noise


def estimate_noise_level(values: RealArray) -> float:
    """Estimate the standard deviation of white noise in an image, in grey levels.

    From the median of second differences along both axes of the image (Y, X), which
    vanish on planes and edges (Immerkaer 1996); pixel-sized detail counts as noise.
    Pixels near one that is not finite are left out; NaN if none is finite.
    """
    rough = _compute_second_differences(np.asarray(values)[None])
    differences = np.abs(rough[np.isfinite(rough)])
    if not differences.size:
        return math.nan
    return float(np.median(differences)) / _MEDIAN / _SECOND


def estimate_block_noise(blocks: RealArray) -> NDArray[np.float64]:
    """Estimate the noise (B,) of blocks (B, Y, X), like `estimate_noise_level`.

    Parameters
    ----------
    blocks : (B, Y, X) array
        Finite grey values.

    Returns
    -------
    (B,) array of float64
        Standard deviation of white noise in each block.
    """
    rough = np.abs(_compute_second_differences(blocks))
    return np.asarray(np.median(rough, axis=(1, 2)) / _MEDIAN / _SECOND)


def _compute_second_differences(blocks: RealArray) -> NDArray[np.float64]:
    """Compute the second differences along both axes of blocks (B, Y, X)."""
    values, margins = np.asarray(blocks, np.float64), [(0, 0), (1, 1), (1, 1)]
    rough = np.pad(values, margins, mode="reflect")
    for _ in range(2):
        rough = rough[:, :-2] - 2 * rough[:, 1:-1] + rough[:, 2:]
        rough = rough.swapaxes(1, 2)
    return rough


# Clipped grey values.

OVEREXPOSED_SHARE = 0.1
"""Fraction of clipped pixels of a frame or a line above which positions and widths are
biased: a Gaussian line whose highest tenth is clipped measures 0.5 % too wide."""
# chosen: fraction of pixels, and ratio to the count of the next grey value
_CLIPPED_SHARE, _OVER_NEXT = 0.01, 2.0
ROUNDING = 8 * float(np.finfo(np.float32).eps)
"""Relative error of a grey value due to rounding in single precision."""
_EQUAL_SHARE = 1e-3  # of the range of values; chosen: below the noise of detectors
_DEPTHS = 10, 12, 14  # bits of detectors, stored in two bytes


def mark_equal_values(values: RealArray, level: float) -> BoolArray:
    """Mark values equal to a level, within single precision for floats.

    If values vary more than that, the precision is also limited to a share of their
    range, since single precision of a large offset may exceed the noise.
    """
    if values.dtype.kind != "f":
        return np.asarray(values == level)
    # averages and interpolation of one value differ in the last bits
    apart, rounding = np.abs(values - level), ROUNDING * abs(level)
    span = float(apart.max(initial=0.0, where=np.isfinite(apart)))
    if span > rounding:
        rounding = min(rounding, _EQUAL_SHARE * span)
    return np.asarray(apart <= rounding)


def find_clipped_level(
    values: RealArray, *, white: bool = True, share: float = _CLIPPED_SHARE
) -> float | None:
    """Find the grey value at which an image is clipped; None if it is not.

    It is the greatest, or the least if `white` is false, and has more than a `share` of
    all finite values and more than twice as many as the next grey value.
    """
    finite = np.asarray(values)
    if finite.dtype.kind == "f":
        finite = finite[np.isfinite(finite)]
    if not finite.size:
        return None
    last = finite.max() if white else finite.min()
    ends = mark_equal_values(finite, last)
    count = np.count_nonzero(ends)
    if count <= share * finite.size:
        return None
    within = finite[~ends]
    if not within.size:
        return None
    following = within.max() if white else within.min()
    next_count = np.count_nonzero(mark_equal_values(within, following))
    return float(last) if count > _OVER_NEXT * next_count else None


def mark_clipped_pixels(values: RealArray, share: float = _CLIPPED_SHARE) -> BoolArray:
    """Mark pixels clipped to white or black, as defined by `find_clipped_level`."""
    is_clipped = np.zeros(values.shape, bool)
    for white in (False, True):
        level = find_clipped_level(values, white=white, share=share)
        if level is not None:
            is_clipped |= mark_equal_values(values, level)
    return is_clipped


def is_white(level: float, dtype: DTypeLike, bits: int | None = None) -> bool:
    """Return whether a grey value is the maximum of its type or bit depth.

    That of the integer type, or of the stated depth in `bits`; if none is stated, two
    bytes may hold 10, 12 or 14 bits. Floats have no greatest value.
    """
    kind = np.dtype(dtype)
    if kind.kind not in "ui":
        return False
    short = kind.kind == "u" and kind.itemsize == 2
    depths = (bits,) if bits is not None else _DEPTHS if short else ()
    return level in (float(np.iinfo(kind).max), *(2.0**depth - 1 for depth in depths))
