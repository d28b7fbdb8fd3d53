"""Linear filters fitted by least squares from one image to another."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from napari_semsr.core import Float32Array, FloatArray, ReadError, RealArray

_FOLDS = 5
_RIDGES = tuple(10.0**n for n in range(-6, 1))
_BLOCK_PX = 64  # side of the blocks of a fold; chosen: contains a few objects
_PLACES = 1 << 17  # pixels used; chosen: 300 for each of 21 x 21 taps, in seconds


@dataclass(frozen=True, slots=True)
class LinearFit:
    """Best linear filter that maps one image of a field to another.

    Attributes
    ----------
    kernel : (taps, taps) numpy.ndarray of float32
        Kernel with which the image is correlated.
    offset : float
        Added to the result.
    ridge : float
        Ridge chosen by cross-validation, over the mean power of the image.
    explained_share : float
        Share of the variance of the second image that the filter explains on held-out
        pixels, at most 1.
    """

    kernel: Float32Array
    offset: float
    ridge: float
    explained_share: float

    def apply(self, image: RealArray) -> Float32Array:
        """Filter an image (Y, X) with mirrored borders; gaps grow by the kernel."""
        from scipy import signal  # speeds up the start of the demonstration

        half = self.kernel.shape[0] // 2
        wide = np.pad(np.asarray(image, np.float64), half, mode="reflect")
        level = float(np.nanmean(image))  # reduces rounding errors of the transform
        missing = ~np.isfinite(wide)
        flipped_kernel = self.kernel[::-1, ::-1].astype(np.float64)
        known = np.where(missing, 0, wide - level)
        output = signal.oaconvolve(known, flipped_kernel, "valid")
        output += level * float(flipped_kernel.sum()) + self.offset
        if missing.any():
            ones = np.ones_like(flipped_kernel)
            missing_share = signal.oaconvolve(missing.astype(float), ones)
            inner = slice(2 * half, -2 * half)
            output[missing_share[inner, inner] > 0.5] = np.nan
        return np.asarray(output, dtype=np.float32)


def fit_linear_filter(
    images: Iterable[tuple[RealArray, RealArray]], taps: int = 21
) -> LinearFit:
    """Fit the filter between two images of a field by cross-validated ridge.

    Blocks of up to 64 px are divided among five folds; the ridge with the smallest
    error on the held-out folds is chosen. About 130 000 random pixels are used, the
    same ones in every run.

    Parameters
    ----------
    images : iterable of tuple of numpy.ndarray
        Pairs of images (Y, X) on one grid: input and target of the filter. Pixels that
        are not finite in the target, or under the filter in the input, are ignored.
    taps : int, default=21
        Side of the filter in px, odd.

    Returns
    -------
    LinearFit
        Kernel, offset and ridge.

    Raises
    ------
    ReadError
        If the images have no contrast, or no usable common pixels.
    """
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in images]
    places = sum(int(np.isfinite(target).sum()) for _, target in pairs)
    # minimum number of blocks in all folds, for small images
    side = min(_BLOCK_PX, int((places / 50) ** 0.5) + 1)
    # sums over pixels of all products of the taps' pixels, of 1 and of the target
    sums = np.zeros((_FOLDS, taps**2 + 2, taps**2 + 2))
    blocks = _iterate_blocks(pairs, taps, side, _PLACES / max(places, 1))
    for number, (rows, aims) in enumerate(blocks):
        values = np.column_stack([rows, np.ones(len(aims)), aims])
        sums[number % _FOLDS] += values.T @ values
    whole = sums.sum(axis=0)
    if sums[:, -2, -2].min() == 0 or not np.trace(_get_normal_equations(whole)[0]) > 0:
        msg = (
            "Fitting a linear filter needs images with contrast and a common area of "
            f"more than {_FOLDS} times the filter's {taps} x {taps} px, which these "
            "images lack."
        )
        raise ReadError(msg, code="no-structure")
    errors = np.zeros(len(_RIDGES))
    for left_out in sums:
        solutions = np.array([*_solve(whole - left_out, _RIDGES)])
        errors += np.einsum("ri,ij,rj->r", solutions, left_out, solutions)
    best = int(np.argmin(errors))
    ((*kernel, offset, _),) = _solve(whole, [_RIDGES[best]])
    variance = whole[-1, -1] - whole[-1, -2] ** 2 / whole[-2, -2]
    return LinearFit(
        np.array(kernel, dtype=np.float32).reshape(taps, taps),
        float(offset),
        _RIDGES[best],
        1 - float(errors[best]) / max(float(variance), 1e-300),
    )


def _get_normal_equations(sums: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the normal equations of a filter, without its offset."""
    means = sums[-2, :-2] / sums[-2, -2]
    normal = sums[:-2, :-2] - np.outer(sums[-2, :-2], means)
    return normal, sums[:-2, -1] - means * sums[-2, -1]


def _solve(sums: FloatArray, ridges: Sequence[float]) -> Iterator[FloatArray]:
    """Yield the kernel, the offset and -1 (T + 2,) for each ridge strength.

    Their product with the taps' pixels, 1 and the target is the error of a pixel.
    """
    normal, right = _get_normal_equations(sums)
    values, vectors = np.linalg.eigh(normal)
    for ridge in ridges:
        power = values + ridge * np.trace(normal) / len(right)
        kernel = vectors @ (vectors.T @ right / np.maximum(power, 1e-300))
        offset = (sums[-1, -2] - kernel @ sums[-2, :-2]) / sums[-2, -2]
        yield np.array([*kernel, offset, -1.0])


def _iterate_blocks(
    pairs: Sequence[tuple[RealArray, RealArray]], taps: int, side: int, share: float
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield the filter inputs at a share of each block's pixels, with their targets.

    Rows (N, taps²) and targets (N,), where all values are finite. The pixels are
    random: those of a lattice would leave taps unknown on a sample with its period.
    """
    half, rng = taps // 2, np.random.default_rng(0)
    for image, target in pairs:
        if min(image.shape) < taps:
            continue
        windows = sliding_window_view(image, (taps, taps))
        inner = target[half : half + windows.shape[0], half : half + windows.shape[1]]
        chosen = np.isfinite(inner) & (rng.random(inner.shape) < share)
        for y in range(0, windows.shape[0], side):
            for x in range(0, windows.shape[1], side):
                part = np.s_[y : y + side, x : x + side]
                rows = windows[part][chosen[part]].reshape(-1, taps**2)
                aims, whole = inner[part][chosen[part]], np.isfinite(rows).all(axis=1)
                if whole.any():
                    yield rows[whole].astype(np.float64), aims[whole].astype(np.float64)
