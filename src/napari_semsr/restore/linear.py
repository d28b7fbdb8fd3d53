"""Linear restoration as one finite filter: Wiener, and constrained least squares.

A Wiener filter computed on a whole field depends on all of it, wrap-around included.
Here its impulse response is cut off where the rest weighs less than `TOLERANCE`: a
finite filter gives the same pixels however a field is tiled.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal
from skimage import restoration

from napari_semsr.restore.grain import Grain, Rings

__all__ = [
    "TOLERANCE",
    "Taps",
    "apply_taps",
    "cls_balance",
    "smoothing_taps",
    "unsupervised_balance",
    "wiener_taps",
]

Array = NDArray[np.float64]
TOLERANCE = 1e-3
"""Weight of the taps that are left out, over the weight of all: an error bound."""

MISMATCH = 0.1
"""Share of the blurred sample's power that is put down to a wrong kernel; chosen."""

_UNSURE = 1e-5  # share of an image's variance that a wrong kernel explains; chosen
_NEIGHBOURS = 3.0  # rings
_SIDE = 256
_BURNIN = 15
_LAPLACIAN = np.array([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]])
_BALANCES = (-12.0, 6.0)  # decimal exponents between which a balance is sought


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

    weights: Array
    left_out: float

    @property
    def radius(self) -> int:
        """Reach in pixels."""
        return int(self.weights.shape[0]) // 2


def _side_for(kernel: Array) -> int:
    """Side of the plane on which a filter is computed."""
    return max(_SIDE, 4 * int(max(kernel.shape)))


def _cut(response: Array) -> Taps:
    """Cut an impulse response off where little is left."""
    half = response.shape[0] // 2
    y, x = np.indices(response.shape) - half
    reach = np.maximum(np.abs(y), np.abs(x)).ravel()
    inside = np.cumsum(np.bincount(reach, np.abs(response).ravel()))
    beyond = 1 - inside / inside[-1]
    radius = int(np.argmax(beyond <= TOLERANCE))
    radius = min(max(radius, 1), half - 1)
    part = slice(half - radius, half + radius + 1)
    kept = response[part, part]
    return Taps(kept / kept.sum(), float(beyond[radius]))


def _response(kernel: Array, balance: float, regulariser: Array | None) -> Array:
    """Impulse response of scikit-image's Wiener filter."""
    side = _side_for(kernel)
    point = np.zeros((side, side))
    point[side // 2, side // 2] = 1
    reg = None if regulariser is None else regulariser.astype(complex)
    return np.asarray(restoration.wiener(point, kernel, balance, reg=reg, clip=False))


def wiener_taps(kernel: Array, grain: Grain, rings: Rings) -> Taps:
    """Make the Wiener filter for a power-law sample under white noise.

    A blur is never known exactly. What is wrong with it counts as noise too: a
    tenth of the blurred sample's power, averaged over neighbouring frequencies.
    That matters where a kernel lets nothing pass, and nowhere else.

    Parameters
    ----------
    kernel : (N, M) numpy.ndarray
        Blur.
    grain : Grain
        Spectrum of sample and noise.
    rings : Rings
        Frequencies on which the transfer function is averaged.

    Returns
    -------
    Taps
        The finite filter.
    """
    side = _side_for(kernel)
    y, x = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :]
    frequency = np.hypot(y, x)
    passed = ndimage.gaussian_filter1d(rings.transfer(kernel), _NEIGHBOURS)
    wrong = MISMATCH * np.interp(frequency, rings.frequency, passed)
    ratio = grain.noise_to_signal(frequency) + wrong
    return _cut(_response(kernel, 1.0, np.sqrt(ratio)))


def smoothing_taps(kernel: Array, balance: float) -> Taps:
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


def cls_balance(kernel: Array, rings: Rings, noise: float) -> float:
    """Choose the weight of smoothness so that the misfit equals the noise.

    The constraint of constrained least squares [1]_: the mean square of
    ``image - blur * result`` is the noise's variance, and a little more for a blur that
    is not known exactly: a hundred-thousandth of the image's variance.

    Parameters
    ----------
    kernel : (N, M) numpy.ndarray
        Blur.
    rings : Rings
        Spectrum of the image.
    noise : float
        Variance of the noise.

    Returns
    -------
    float
        Weight of the squared Laplacian.

    References
    ----------
    .. [1] B. R. Hunt, IEEE Trans. Comput. C-22, 805 (1973),
       doi:10.1109/TC.1973.5009169.
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


def unsupervised_balance(kernel: Array, block: Array, noise: float, seed: int) -> float:
    """Draw the weight of smoothness together with the image, by Gibbs sampling [1]_.

    Parameters
    ----------
    kernel : (N, M) numpy.ndarray
        Blur.
    block : (N, N) numpy.ndarray
        A part of the field.
    noise : float
        Variance of the noise that the chain starts near, in squared grey levels.
    seed : int
        Makes it repeatable.

    Returns
    -------
    float
        Ratio of the two precisions, averaged after the burn-in.

    References
    ----------
    .. [1] F. Orieux et al., J. Opt. Soc. Am. A 27, 1593 (2010),
       doi:10.1364/JOSAA.27.001593.
    """
    line = signal.windows.tukey(block.shape[0], 0.5)
    scale = max(float(np.sqrt(noise)), 1e-12)
    tapered = (block - block.mean()) * np.outer(line, line) / scale
    _, chains = restoration.unsupervised_wiener(
        tapered, kernel, clip=False, rng=np.random.default_rng(seed)
    )
    prior, quiet = (np.mean(chains[k][_BURNIN:]) for k in ("prior", "noise"))
    return float(prior / quiet)


def apply_taps(window: Array, taps: Taps) -> Array:
    """Filter a window; what the filter's reach touches from outside is left out.

    Parameters
    ----------
    window : (Y, X) numpy.ndarray
        Grey values, with a halo of the filter's radius.
    taps : Taps
        The filter.

    Returns
    -------
    (Y - 2 R, X - 2 R) numpy.ndarray
        The window without its halo, restored.
    """
    return np.asarray(signal.oaconvolve(window, taps.weights, mode="valid"))
