"""Random degradations for training: Gao et al.'s kinds, over ranges wider than theirs.

A share of the draws lies close to the paper's own numbers, the rest covers what a
microscope may do besides: other blurs, other veils, noise, another use of greys.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import signal

from napari_semsr.core import FloatArray, Options
from napari_semsr.simulation.degrade import (
    BETA_RANGE,
    BLUR_SIZE_PX,
    FOG_SCALE,
    KINDS,
    Kind,
    disk_kernel,
    fog as haze_of,
    gaussian_kernel,
    kernels_of,
    motion_kernel,
    smooth_field,
)

_WHITE = 255.0
_SHARP_PX = (0.1, 0.65)  # Gaussian sigma of what counts as sharp


class DegradationRanges(Options):
    """Ranges that random degradations are drawn from.

    Attributes
    ----------
    blur, fog, hybrid : float
        Relative shares of the three kinds.
    near_paper : float
        Share of draws whose blur lies close to the paper's numbers.
    sharp : float
        Share of draws that would be blurred by a Gaussian alone and hardly are, so that
        a network learns to leave sharp images as they are.
    as_paper : float
        Share of draws that are the paper's sets to the last number, without noise.
    sigma_px, motion_px, defocus_px : tuple of float
        Gaussian sigma, motion length, defocus radius.
    beta : tuple of float
        Extinction of the veil.
    fog_scale_px : tuple of float
        Correlation length of the veil, drawn log-uniformly.
    noisy : float
        Share of draws with noise besides rounding.
    noise : float
        Largest noise deviation as a share of the image's range.
    eight_bit : float
        Share of draws rounded to 8 bits.
    """

    blur: float = Field(default=0.3, ge=0)
    fog: float = Field(default=0.3, ge=0)
    hybrid: float = Field(default=0.4, ge=0)
    near_paper: float = Field(default=0.5, ge=0, le=1)
    as_paper: float = Field(default=0.0, ge=0, le=1)
    sharp: float = Field(default=0.0, ge=0, le=1)
    sigma_px: tuple[float, float] = (0.3, 2.2)
    motion_px: tuple[float, float] = (0.0, 14.0)
    defocus_px: tuple[float, float] = (0.0, 6.0)
    beta: tuple[float, float] = (0.2, 3.0)
    fog_scale_px: tuple[float, float] = (20.0, 160.0)
    noisy: float = Field(default=0.4, ge=0, le=1)
    noise: float = Field(default=0.05, ge=0, le=1)
    eight_bit: float = Field(default=0.8, ge=0, le=1)


@dataclass(frozen=True, slots=True)
class DegradedScene:
    """A degraded image and the truth on the same grey scale."""

    # (Y, X) Degraded image and clear image; the percentiles of `low` are about 0 and 1
    low: NDArray[np.float32]
    # (Y, X) Degraded image and clear image; the percentiles of `low` are about 0 and 1
    high: NDArray[np.float32]
    # (Y, X) Log of the gain about `airlight` that would lift the haze; 0 without haze
    log_gain: NDArray[np.float32]
    airlight: float  # Grey level that the haze drew to; the image's mean without haze


@dataclass(frozen=True, slots=True)
class _Veil:
    """Haze as it was drawn, on the scale of the clear image."""

    transmission: FloatArray
    airlight: float


def _blur_kernel(
    kind: str, ranges: DegradationRanges, rng: np.random.Generator
) -> FloatArray:
    if kind != "hybrid" and ranges.sharp > 0 and rng.random() < ranges.sharp:
        return gaussian_kernel(rng.uniform(*_SHARP_PX), BLUR_SIZE_PX)
    near = rng.random() < ranges.near_paper
    sigma = rng.uniform(0.75, 1.25) if near else rng.uniform(*ranges.sigma_px)
    size = 7 if near or rng.random() < 0.5 else 2 * int(np.ceil(3 * sigma)) + 1
    kernel = gaussian_kernel(sigma, size)
    if kind != "hybrid":
        return kernel
    if near:
        length, radius = rng.uniform(8.5, 11.5), rng.uniform(4, 6)
        angle = 0.0 if rng.random() < 0.7 else rng.uniform(0, 180)
    else:
        length, radius = rng.uniform(*ranges.motion_px), rng.uniform(*ranges.defocus_px)
        angle = rng.uniform(0, 180)
    if near or rng.random() < 0.7:
        kernel = signal.convolve(kernel, motion_kernel(length, angle))
    if near or rng.random() < 0.7:
        kernel = signal.convolve(kernel, disk_kernel(radius))
    return kernel


def _blurred(image: FloatArray, kernel: FloatArray) -> FloatArray:
    pad = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(image, [(pad[0], pad[0]), (pad[1], pad[1])], mode="reflect")
    return np.asarray(signal.fftconvolve(padded, kernel, mode="valid"))


def _transmission(
    shape: tuple[int, int], ranges: DegradationRanges, rng: np.random.Generator
) -> FloatArray:
    """Transmission of a veil seen through a window of a larger field."""
    low, high = BETA_RANGE
    if rng.random() > ranges.near_paper:
        low, high = np.sort(rng.uniform(*ranges.beta, size=2))
        high = min(high, low + 1.2)
    if rng.random() < ranges.near_paper:
        correlation, grown = FOG_SCALE * min(shape), shape
    else:
        correlation = float(np.exp(rng.uniform(*np.log(ranges.fog_scale_px))))
        y, x = (max(n, int(correlation * rng.uniform(4, 10))) for n in shape)
        grown = y, x
    corner = [
        int(rng.integers(0, g - n + 1)) for g, n in zip(grown, shape, strict=True)
    ]
    window = (
        slice(corner[0], corner[0] + shape[0]),
        slice(corner[1], corner[1] + shape[1]),
    )
    field = smooth_field(grown, correlation, rng, window=window)
    return np.exp(-(low + (high - low) * field))


def _veil(
    clear: FloatArray, ranges: DegradationRanges, rng: np.random.Generator
) -> _Veil:
    """Draw haze: its airlight is near the mean of the image, or anywhere."""
    transmission = _transmission((clear.shape[0], clear.shape[1]), ranges, rng)
    near_mean = rng.random() < ranges.near_paper
    airlight = clear.mean() + rng.normal(0, 0.02) if near_mean else rng.uniform(0, 1)
    return _Veil(transmission, float(airlight))


def _dimmed(clear: FloatArray, veil: _Veil) -> FloatArray:
    """Dim the clear image by the mean haze: what lifting its variation leaves.

    A line fitted to the veiled image would follow the chance likeness of veil and
    object, which nothing can foretell.
    """
    share = float(veil.transmission.mean())
    return veil.airlight + (clear - veil.airlight) * share


def _noise(
    low: FloatArray, ranges: DegradationRanges, rng: np.random.Generator
) -> FloatArray:
    """Poisson-Gaussian noise, as a share of the image's own range."""
    span = np.ptp(low)
    if rng.random() >= ranges.noisy or span == 0:
        return low
    level = ranges.noise * rng.random() ** 2 * span
    shot = rng.random()
    relative = (low - low.min()) / span
    deviation = level * np.sqrt(1 - shot + 2 * shot * relative)
    return np.asarray(low + deviation * rng.standard_normal(low.shape))


def random_scene(
    clear: NDArray[np.floating], ranges: DegradationRanges, rng: np.random.Generator
) -> DegradedScene:
    """Degrade a clear image at random.

    Parameters
    ----------
    clear : (Y, X) numpy.ndarray of float
        Clear image in [0, 1].
    ranges : DegradationRanges
        What to draw from.
    rng : numpy.random.Generator
        Source of every random choice.

    Returns
    -------
    DegradedScene
        Degraded and clear image on one grey scale.
    """
    if ranges.as_paper > 0 and rng.random() < ranges.as_paper:
        return _as_paper(clear, ranges, rng)
    kind = _kind_of(ranges, rng)
    truth = clear.astype(float)
    low = _blurred(truth, _blur_kernel(kind, ranges, rng))
    log_gain, airlight = np.zeros(low.shape), float(low.mean())
    if kind == "fog" or (kind == "hybrid" and rng.random() < 0.8):
        veil = _veil(low, ranges, rng)
        airlight = veil.airlight
        log_gain = np.log(veil.transmission.mean() / veil.transmission)
        low, truth = (
            haze_of(low, -np.log(veil.transmission), airlight),
            _dimmed(truth, veil),
        )
    low = _noise(low, ranges, rng)
    bottom, span = _range_of(low)
    if rng.random() < ranges.eight_bit:
        step = span / rng.uniform(80, 255)
        low = np.rint(low / step) * step
    bottom += span * rng.normal(0, 0.04)
    span *= rng.uniform(0.85, 1.1)
    return _scene(low, truth, log_gain, airlight, (bottom, span))


def _as_paper(
    clear: NDArray[np.floating], ranges: DegradationRanges, rng: np.random.Generator
) -> DegradedScene:
    """Degrade as `degrade_plane` does, the truth alongside."""
    kind = _kind_of(ranges, rng)
    low = truth = clear.astype(float)
    for kernel in kernels_of(kind):
        low = _blurred(low, kernel)
    log_gain, airlight = np.zeros(low.shape), float(low.mean())
    if kind != "blur":
        first, last = BETA_RANGE
        correlation = FOG_SCALE * min(low.shape)
        field = smooth_field((low.shape[0], low.shape[1]), correlation, rng)
        veil = _Veil(np.exp(-(first + (last - first) * field)), airlight)
        log_gain = np.log(veil.transmission.mean() / veil.transmission)
        veiled = haze_of(low, -np.log(veil.transmission), airlight)
        truth = _dimmed(truth, veil)
        gain = low.std() / max(float(veiled.std()), 1e-9)
        offset = low.mean() - gain * veiled.mean()
        low, truth, airlight = (
            gain * part + offset for part in (veiled, truth, airlight)
        )
    low = np.clip(np.rint(low * _WHITE), 0, _WHITE) / _WHITE
    return _scene(low, truth, log_gain, airlight, _range_of(low))


def _kind_of(ranges: DegradationRanges, rng: np.random.Generator) -> Kind:
    """Draw one of the three kinds."""
    shares = np.array([ranges.blur, ranges.fog, ranges.hybrid], dtype=float)
    return KINDS[int(rng.choice(len(shares), p=shares / shares.sum()))]


def _range_of(low: FloatArray) -> tuple[float, float]:
    """Give the grey level that becomes 0, and the span that becomes 1."""
    bottom, top = np.percentile(low, (0.1, 99.9))
    return float(bottom), max(float(top - bottom), 1e-6)


def _scene(
    low: FloatArray,
    truth: FloatArray,
    log_gain: FloatArray,
    airlight: float,
    scale: tuple[float, float],
) -> DegradedScene:
    """Bring both images onto the scale of the degraded one."""
    bottom, span = scale
    return DegradedScene(
        ((low - bottom) / span).astype(np.float32),
        ((truth - bottom) / span).astype(np.float32),
        log_gain.astype(np.float32),
        float((airlight - bottom) / span),
    )
