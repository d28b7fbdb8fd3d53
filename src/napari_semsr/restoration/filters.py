"""The methods of restoration, iterative and linear, on arrays.

Iterative ones (Richardson-Lucy with total variation, blind) need grey values of at
least 0. One iteration reaches twice the kernel's radius, and one pixel more for each
difference of total variation, so that a halo of that many pixels times the iterations
makes a tile equal to the whole.

Linear ones (Wiener, constrained least squares) are one finite filter. Computed on a
whole field it would depend on all of it, wrap-around included. Here its impulse
response is cut off where the rest weighs less than `_TOLERANCE`, so that pixels are the
same however a field is tiled.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, signal
from skimage import restoration

from napari_semsr.core import FloatArray
from napari_semsr.restoration.estimate import Grain, RadialPower

_TINY = 1e-12  # chosen, far below any grey value: nothing is divided by 0
_STEEPEST = 4.0  # largest factor by which total variation changes a pixel; chosen
_EDGE = 1e-4  # gradient below which total variation sees none, over the range; chosen
TV_REACH = 2  # px: follows from two differences, one after the other


def richardson_lucy(
    image: FloatArray, kernel: FloatArray, *, iterations: int, tv: float = 0.0
) -> FloatArray:
    """Restore by Richardson-Lucy, scikit-image's where total variation has no part.

    .. [1] N. Dey et al., Microsc. Res. Tech. 69, 260 (2006), eq. 13,
       doi:10.1002/jemt.20294.

    `image` (Y, X); `kernel` (N, M); gives (Y, X).
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


def _curvature(image: FloatArray) -> FloatArray:
    """Divergence of the normalised gradient."""
    down = np.diff(image, axis=0, append=image[-1:])
    right = np.diff(image, axis=1, append=image[:, -1:])
    length = np.sqrt(down**2 + right**2 + _EDGE**2)
    down, right = down / length, right / length
    return np.asarray(
        np.diff(down, axis=0, prepend=0) + np.diff(right, axis=1, prepend=0)
    )


def estimate_kernel(
    block: FloatArray, start: FloatArray, *, iterations: int
) -> FloatArray:
    """Estimate the blur together with the sample, in turns [1]_.

    .. [1] D. A. Fish et al., J. Opt. Soc. Am. A 12, 58 (1995),
       doi:10.1364/JOSAA.12.000058.

    `block` (N, N); `start` (2 R + 1, 2 R + 1); gives (2 R + 1, 2 R + 1).
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


# Weight of the taps that are left out, over the weight of all: an error bound; chosen,
# a thousandth of the range against halos that grow with the accuracy.
_TOLERANCE = 1e-3

_MISMATCH = 0.1  # of the blurred sample's power is put down to a wrong kernel; chosen
_UNSURE = 1e-5  # share of an image's variance that a wrong kernel explains; chosen
_NEIGHBOURS = 3.0  # rings over which that power is averaged; chosen
_SIDE = 256  # px; chosen: impulse responses are shorter, but for wide kernels
_BURNIN = 15  # draws before the chain has forgotten its start; scikit-image's, chosen
_LAPLACIAN = np.array([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])
_BALANCES = (-12.0, 6.0)  # decimal exponents of the balance; chosen: from none to all


@dataclass(frozen=True, slots=True)
class Taps:
    """A finite filter.

    Attributes
    ----------
    weights : (2 R + 1, 2 R + 1) numpy.ndarray
        Weights that sum to one: a constant field stays as it is.
    left_out : float
        Weight of what was cut off, over the weight of all.
    """

    weights: FloatArray
    left_out: float

    @property
    def radius(self) -> int:
        """Reach in pixels."""
        return int(self.weights.shape[0]) // 2

    def apply(self, window: FloatArray) -> FloatArray:
        """Filter a window; what the reach touches from outside is left out.

        Parameters
        ----------
        window : (Y, X) numpy.ndarray
            Grey values.

        Returns
        -------
        (Y - 2 R, X - 2 R) numpy.ndarray
            Filtered, without a border of the radius.
        """
        return np.asarray(signal.oaconvolve(window, self.weights, mode="valid"))


def _side_for(kernel: FloatArray) -> int:
    """Side of the plane on which a filter is computed."""
    return max(_SIDE, 4 * int(max(kernel.shape)))


def _cut(response: FloatArray) -> Taps:
    """Cut an impulse response off where little is left."""
    half = response.shape[0] // 2
    y, x = np.indices(response.shape) - half
    reach = np.maximum(np.abs(y), np.abs(x)).ravel()
    inside = np.cumsum(np.bincount(reach, np.abs(response).ravel()))
    beyond = 1 - inside / inside[-1]
    radius = int(np.argmax(beyond <= _TOLERANCE))
    radius = min(max(radius, 1), half - 1)
    part = slice(half - radius, half + radius + 1)
    kept = response[part, part]
    return Taps(kept / kept.sum(), float(beyond[radius]))


def _response(
    kernel: FloatArray, balance: float, regulariser: FloatArray | None
) -> FloatArray:
    """Impulse response of scikit-image's Wiener filter."""
    side = _side_for(kernel)
    point = np.zeros((side, side))
    point[side // 2, side // 2] = 1
    reg = None if regulariser is None else regulariser.astype(complex)
    return np.asarray(restoration.wiener(point, kernel, balance, reg=reg, clip=False))


def wiener_taps(kernel: FloatArray, grain: Grain, rings: RadialPower) -> Taps:
    """Make the Wiener filter for a power-law sample under white noise.

    A blur is never known exactly. What is wrong with it counts as noise too: a
    tenth of the blurred sample's power, averaged over neighbouring frequencies.
    That matters where a kernel lets nothing pass, and nowhere else.

    `kernel` (N, M).
    """
    side = _side_for(kernel)
    y, x = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    frequency = np.hypot(y, x)
    passed = ndimage.gaussian_filter1d(rings.transfer(kernel), _NEIGHBOURS)
    wrong = _MISMATCH * np.interp(frequency, rings.frequency, passed)
    ratio = grain.noise_to_signal(frequency) + wrong
    return _cut(_response(kernel, 1.0, np.sqrt(ratio)))


def smoothing_taps(kernel: FloatArray, balance: float) -> Taps:
    """Make the filter that weighs a Laplacian against the misfit.

    Parameters
    ----------
    kernel : (N, M) numpy.ndarray
        Blur.
    balance : float
        Weight of the squared Laplacian.

    Returns
    -------
    Taps
        The finite filter.
    """
    return _cut(_response(kernel, balance, None))


def cls_balance(kernel: FloatArray, rings: RadialPower, noise: float) -> float:
    """Choose the weight of smoothness so that the misfit equals the noise.

    The constraint of constrained least squares [1]_: the mean square of
    ``image - blur * result`` is the noise's variance, and a little more for a blur that
    is not known exactly: a hundred-thousandth of the image's variance.

    .. [1] B. R. Hunt, IEEE Trans. Comput. C-22, 805 (1973),
       doi:10.1109/TC.1973.5009169.

    `kernel` (N, M).
    """
    blur = rings.transfer(kernel)
    rough = rings.transfer(_LAPLACIAN)
    total = rings.weight.sum()
    allowed = noise + _UNSURE * float((rings.power * rings.weight).sum() / total)

    def excess(exponent: float) -> float:
        damped = 10**exponent * rough
        missing = (damped / np.maximum(blur + damped, 1e-300)) ** 2
        return float((missing * rings.power * rings.weight).sum() / total) - allowed

    low, high = _BALANCES
    if excess(low) >= 0 or excess(high) <= 0:
        return float(10 ** (low if excess(low) >= 0 else high))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if excess(middle) > 0 else (middle, high)
    return float(10 ** ((low + high) / 2))


def unsupervised_balance(
    kernel: FloatArray, block: FloatArray, noise: float, seed: int
) -> float:
    """Draw the weight of smoothness together with the image, by Gibbs sampling [1]_.

    .. [1] F. Orieux et al., J. Opt. Soc. Am. A 27, 1593 (2010),
       doi:10.1364/JOSAA.27.001593.

    `kernel` (N, M); `block` (N, N); `noise`: variance of the noise that the chain
    starts near, in squared grey levels.
    """
    line = signal.windows.tukey(block.shape[0], 0.5)
    scale = max(float(np.sqrt(noise)), 1e-12)
    tapered = (block - block.mean()) * np.outer(line, line) / scale
    _, chains = restoration.unsupervised_wiener(
        tapered, kernel, clip=False, rng=np.random.default_rng(seed)
    )
    prior, quiet = (np.mean(chains[k][_BURNIN:]) for k in ("prior", "noise"))
    return float(prior / quiet)
