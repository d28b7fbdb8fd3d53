"""Iterative restoration: Richardson-Lucy with total variation, and blind.

Grey values are at least 0. One iteration reaches twice the kernel's radius, and one
pixel more for each difference of total variation, so that a halo of that many pixels
times the iterations makes a tile equal to the whole.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import signal
from skimage import restoration

__all__ = ["estimate_kernel", "reach_of", "richardson_lucy"]

Array = NDArray[np.float64]
_TINY = 1e-12
_STEEPEST = 4.0  # total variation may change a pixel by this factor at most
_EDGE = 1e-4  # gradient below which total variation sees none, over the range
_TV_REACH = 2


def reach_of(radius: int, iterations: int, *, tv: bool) -> int:
    """Say how far a result looks.

    Parameters
    ----------
    radius : int
        Radius of the kernel.
    iterations : int
        Number of iterations.
    tv : bool
        Whether total variation takes part.

    Returns
    -------
    int
        Pixels on each side.
    """
    return iterations * (2 * radius + (_TV_REACH if tv else 0))


def richardson_lucy(
    image: Array, kernel: Array, *, iterations: int, tv: float = 0.0
) -> Array:
    """Restore by Richardson-Lucy, scikit-image's where total variation has no part.

    Parameters
    ----------
    image : (Y, X) numpy.ndarray
        Grey values in [0, 1].
    kernel : (N, M) numpy.ndarray
        Blur.
    iterations : int
        Number of iterations.
    tv : float, default=0.0
        Weight of total variation [1]_.

    Returns
    -------
    (Y, X) numpy.ndarray
        Restored; the border of the kernel's reach sees darkness beyond.

    References
    ----------
    .. [1] N. Dey et al., Microsc. Res. Tech. 69, 260 (2006), eq. 13,
       doi:10.1002/jemt.20294.
    """
    if not tv:
        made = restoration.richardson_lucy(image, kernel, iterations, clip=False)
        return np.asarray(made)
    mirrored = kernel[::-1, ::-1]
    found = np.full(image.shape, 0.5)
    for _ in range(iterations):
        blurred = signal.convolve(found, kernel, mode="same") + _TINY
        factor = signal.convolve(image / blurred, mirrored, mode="same")
        damping = np.clip(1 - tv * _curvature(found), 1 / _STEEPEST, _STEEPEST)
        found = np.maximum(found * factor / damping, 0)
    return found


def _curvature(image: Array) -> Array:
    """Divergence of the normalised gradient."""
    down = np.diff(image, axis=0, append=image[-1:])
    right = np.diff(image, axis=1, append=image[:, -1:])
    length = np.sqrt(down**2 + right**2 + _EDGE**2)
    down, right = down / length, right / length
    return np.asarray(
        np.diff(down, axis=0, prepend=0) + np.diff(right, axis=1, prepend=0)
    )


def estimate_kernel(block: Array, start: Array, *, iterations: int) -> Array:
    """Estimate the blur together with the sample, in turns [1]_.

    Parameters
    ----------
    block : (N, N) numpy.ndarray
        A part of the field, in [0, 1].
    start : (2 R + 1, 2 R + 1) numpy.ndarray
        Where the kernel starts; it keeps this size.
    iterations : int
        Turns; each updates the kernel, then the sample.

    Returns
    -------
    (2 R + 1, 2 R + 1) numpy.ndarray
        Weights that sum to one.

    References
    ----------
    .. [1] D. A. Fish et al., J. Opt. Soc. Am. A 12, 58 (1995),
       doi:10.1364/JOSAA.12.000058.
    """
    pad = [(n // 2, n // 2) for n in start.shape]
    kernel, sample = start.copy(), np.maximum(block, _TINY)
    for _ in range(iterations):
        wide = np.pad(sample, pad, mode="reflect")
        ratio = block / np.maximum(signal.fftconvolve(wide, kernel, "valid"), _TINY)
        kernel = (
            kernel * signal.fftconvolve(wide, ratio[::-1, ::-1], "valid")[::-1, ::-1]
        )
        kernel = np.maximum(kernel, 0)
        kernel /= kernel.sum()
        ratio = block / np.maximum(signal.fftconvolve(wide, kernel, "valid"), _TINY)
        wide = np.pad(ratio, pad, mode="reflect")
        factor = signal.fftconvolve(wide, kernel[::-1, ::-1], "valid")
        sample = np.maximum(sample * factor, _TINY)
    return np.asarray(kernel)
