"""Which patches are worth learning from: not empty, finite, and one on the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.core.tiling import Box
from napari_semsr.pairs.options import PairOptions

__all__ = ["REASONS", "Place", "judge", "judge_one", "lay_out"]

REASONS = {
    "not-finite": "pixels are NaN or infinite",
    "empty": "hardly any contrast in LOW or HIGH",
    "uncorrelated": "LOW and HIGH do not show the same",
    "shifted": "LOW and HIGH fit better when moved",
}
"""Why a patch is left out."""

_SMOOTH_PX = 1.0
_BETTER = 0.02  # by how much a moved pair must correlate better


@dataclass(frozen=True, slots=True)
class Place:
    """A patch before it is cut.

    Attributes
    ----------
    source : int
        Which image, or pair of images.
    block : tuple of int
        Row and column of the block that it lies in; a block goes to one set.
    box : Box
        In pixels of LOW.
    """

    source: int
    block: tuple[int, int]
    box: Box


def lay_out(
    source: int, shape: tuple[int, int], options: PairOptions
) -> Iterator[Place]:
    """Lay patches over an image, in blocks that share no pixel.

    Without overlap a block is one patch; with overlap it holds as many patches as fit
    into two sides.

    Parameters
    ----------
    source : int
        Number of the image.
    shape : tuple of int
        Its rows and columns.
    options : PairOptions
        Patch and step.

    Yields
    ------
    Place
        Block by block, row by row.
    """
    side, step = options.patch, options.step or options.patch
    within = 1 if step >= side else 1 + side // step
    block = side + (within - 1) * step
    if min(shape) < block:  # small images: blocks of one patch
        within, block = 1, side
    pitch = max(block, step) if within == 1 else block
    counts = [max(0, (n - block) // pitch + 1) for n in shape]
    spare = [
        (n - (c - 1) * pitch - block) // 2 for n, c in zip(shape, counts, strict=True)
    ]
    for row, column in np.ndindex(counts[0], counts[1]):
        for i, j in np.ndindex(within, within):
            y = spare[0] + row * pitch + i * step
            x = spare[1] + column * pitch + j * step
            yield Place(source, (row, column), Box(y, y + side, x, x + side))


def judge_one(
    patch: NDArray[Any], value_range: tuple[float, float], options: PairOptions
) -> str | None:
    """Tell why one patch is of no use.

    Parameters
    ----------
    patch : (Y, X) numpy.ndarray
        Grey values.
    value_range : tuple of float
        Low and high percentile of its field.
    options : PairOptions
        The least contrast.

    Returns
    -------
    str or None
        A key of `REASONS`; None for a good one.
    """
    values = patch.astype(float)
    if not np.isfinite(values).all():
        return "not-finite"
    span = value_range[1] - value_range[0]
    spread = float(values.std())
    return "empty" if spread == 0 or spread < options.min_contrast * span else None


def judge(
    low: NDArray[Any],
    high: NDArray[Any],
    ranges: tuple[tuple[float, float], tuple[float, float]],
    options: PairOptions,
) -> str | None:
    """Tell why a pair of patches is of no use.

    Parameters
    ----------
    low : (Y, X) numpy.ndarray
        Patch of LOW.
    high : (Y * scale, X * scale) numpy.ndarray
        Patch of HIGH.
    ranges : tuple
        Percentiles of both fields.
    options : PairOptions
        What is demanded.

    Returns
    -------
    str or None
        A key of `REASONS`; None for a good pair.
    """
    for patch, value_range in zip((low, high), ranges, strict=True):
        wrong = judge_one(patch, value_range, options)
        if wrong is not None:
            return wrong
    a, b = _plain(low), _plain(_binned(high, high.shape[0] // low.shape[0]))
    here = abs(float((a * b).mean()))
    if here < options.min_correlation:
        return "uncorrelated"
    moved, best = _best_shift(a, b)
    further = float(np.hypot(*moved)) > options.max_shift_px
    return "shifted" if further and best > here + _BETTER else None


def _binned(patch: NDArray[Any], scale: int) -> NDArray[Any]:
    """Average blocks of pixels."""
    if scale == 1:
        return patch
    rows, columns = (n // scale for n in patch.shape)
    blocks = patch.reshape(rows, scale, columns, scale).astype(float)
    return np.asarray(blocks.mean(axis=(1, 3)))


def _plain(patch: NDArray[Any]) -> NDArray[np.float64]:
    """Smooth a patch, and bring it to mean 0 and deviation 1."""
    values = ndimage.gaussian_filter(patch.astype(float), _SMOOTH_PX)
    values -= values.mean()
    return np.asarray(values / max(float(values.std()), 1e-300))


def _best_shift(
    a: NDArray[np.float64], b: NDArray[np.float64]
) -> tuple[tuple[int, int], float]:
    """Find the shift, up to an eighth of the side, of the strongest correlation.

    Only what both share at a shift is compared, so that the border costs nothing.
    """
    reach = max(1, a.shape[0] // 8)
    inner = b[reach:-reach, reach:-reach]
    inner = inner - inner.mean()
    size = [m + n - 1 for m, n in zip(a.shape, inner.shape, strict=True)]
    product = np.fft.rfft2(a, size) * np.fft.rfft2(inner[::-1, ::-1], size)
    full = np.fft.irfft2(product, size)
    top, left = (n - 1 for n in inner.shape)
    sums = full[top : top + 2 * reach + 1, left : left + 2 * reach + 1]
    window = np.ones(inner.shape)
    spread = _window_deviation(a, window.shape)
    found = np.abs(sums) / (inner.size * np.maximum(spread * inner.std(), 1e-12))
    y, x = np.unravel_index(int(np.argmax(found)), found.shape)
    return (int(y) - reach, int(x) - reach), float(found[y, x])


def _window_deviation(
    values: NDArray[np.float64], shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Compute the standard deviation of every window that lies inside."""
    sums = []
    for part in (values, values**2):
        table = np.pad(part.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        rows, columns = shape
        sums.append(
            table[rows:, columns:]
            - table[:-rows, columns:]
            - table[rows:, :-columns]
            + table[:-rows, :-columns]
        )
    count = shape[0] * shape[1]
    variance = sums[1] / count - (sums[0] / count) ** 2
    return np.asarray(np.sqrt(np.maximum(variance, 0)))
