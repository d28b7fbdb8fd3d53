"""Degradations of Gao et al. (2024): blur, fog or hybrid; as published or random.

The image is scaled to 0-255 by the range of its data type (floats, and images with
values below 0, by their own range), degraded, and returned in its own type. Fog is ``I
= f t + A (1 - t)`` with ``t = exp(-beta d)``, ``d = 1`` and ``beta`` a smooth random
field in [1.5, 2.5].

The paper's ``A = 3`` yields 16 dB on the 0-1 scale and 21 dB on the 0-255 scale, but
its Table 1 states 26 dB. Closest to the table is the mean of the image as airlight,
followed by a stretch to the mean and standard deviation before the fog. This is the
default. `airlight` sets another level; without `stretch` the contrast stays as low as
fog makes it, as the paper describes.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import scipy  # the rest is loaded when it is used
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from napari_semsr import core
from napari_semsr.core import Float32Array, FloatArray, FloatPair, IntPair

Kind = Literal["blur", "fog", "hybrid"]
KINDS: tuple[Kind, ...] = ("blur", "fog", "hybrid")

BETA_RANGE = (1.5, 2.5)  # Gao et al., Methods
BLUR_SIGMA_PX = 1.0  # in a 7 x 7 kernel, Gao et al., Methods
BLUR_SIZE_PX = 7  # side of the blur's kernel; Gao et al. (Simulated scans)
MOTION_LENGTH_PX = 10.0  # at 0 degrees, Gao et al., Methods
DEFOCUS_RADIUS_PX = 5.0  # Gao et al., Methods
FOG_SCALE = 1 / 8  # correlation length over the shorter side; chosen


@dataclass(frozen=True, slots=True)
class DegradedImage:
    """A degraded image and the parameters of its degradation."""

    image: NDArray[Any]  # (Y, X) Degraded grey values in the input's type
    parameters: dict[str, object]  # Parameters of the degradation


def create_gaussian_kernel(
    sigma_px: float = BLUR_SIGMA_PX, size_px: int = BLUR_SIZE_PX
) -> FloatArray:
    """Return a Gaussian blur kernel (N, N) with odd N and a sum of one.

    Defaults are the values of Gao et al.
    """
    x = np.arange(size_px) - size_px // 2
    line = np.exp(-0.5 * (x / sigma_px) ** 2)
    kernel = np.outer(line, line)
    return np.asarray(kernel / kernel.sum())


def create_disk_kernel(radius_px: float) -> FloatArray:
    """Return an out-of-focus blur kernel: a disc with antialiased rim, (N, N)."""
    half = int(np.ceil(radius_px + 0.5))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    kernel = np.clip(0.5 - (np.hypot(y, x) - max(radius_px, 0.5)), 0, 1)
    return np.asarray(kernel / kernel.sum())


def create_motion_kernel(length_px: float, angle_deg: float) -> FloatArray:
    """Return a motion blur kernel: a line one pixel wide, (N, N)."""
    half = int(np.ceil(length_px / 2 + 1))
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    angle = np.deg2rad(angle_deg)
    along = x * np.cos(angle) - y * np.sin(angle)
    across = x * np.sin(angle) + y * np.cos(angle)
    end = np.clip(length_px / 2 + 0.5 - np.abs(along), 0, 1)
    kernel = end * np.clip(1 - np.abs(across), 0, 1)
    return np.asarray(kernel / kernel.sum())


def create_smooth_field(
    shape: IntPair,
    correlation_px: float,
    rng: Generator,
    *,
    window: tuple[slice, slice] | None = None,
) -> FloatArray:
    """Create a smooth random field that spans 0 to 1 over the whole `shape`.

    `correlation_px` is the standard deviation of the Gaussian that smooths the noise;
    `window` selects the part of the field to return.
    """
    step = max(1, int(correlation_px // 4))
    coarse = [int(np.ceil((n - 1) / step)) + 1 for n in shape]
    noise, sigma = rng.standard_normal(coarse), correlation_px / step
    field = ndimage.gaussian_filter(noise, sigma, mode="reflect")
    low, high = field.min(), field.max()
    if high <= low:
        field = np.full(shape, 0.5)
        return np.asarray(field if window is None else field[window])
    field = (field - low) / (high - low)
    box = window or (slice(0, shape[0]), slice(0, shape[1]))
    if step == 1:
        return np.asarray(field[box])
    for axis, part in enumerate(box):  # bilinear interpolation
        where = np.arange(part.start, part.stop) / step
        below = np.minimum(where.astype(int), max(field.shape[axis] - 2, 0))
        above = np.minimum(below + 1, field.shape[axis] - 1)
        share = (where - below).reshape((-1, 1) if axis == 0 else (1, -1))
        first, second = (np.take(field, index, axis) for index in (below, above))
        field = first * (1 - share) + second * share
    return np.asarray(field)


def create_field_window(
    shape: IntPair,
    field_shape: IntPair,
    correlation_px: float,
    rng: Generator,
) -> FloatArray:
    """Create a random window of `shape` (Y, X) from a larger smooth field."""
    sides = zip(field_shape, shape, strict=True)
    y, x = (int(rng.integers(0, whole - side + 1)) for whole, side in sides)
    window = slice(y, y + shape[0]), slice(x, x + shape[1])
    return create_smooth_field(field_shape, correlation_px, rng, window=window)


def apply_fog(
    image: FloatArray, beta: FloatArray | float, airlight: float
) -> FloatArray:
    """Add fog: ``f exp(-beta) + A (1 - exp(-beta))`` (Gao et al., Methods)."""
    transmission = np.exp(-np.asarray(beta))
    return np.asarray(image * transmission + airlight * (1 - transmission))


def get_grey_range(image: core.RealArray) -> FloatPair:
    """Return the grey levels of black and white: 0 and the data type's maximum.

    For floats, or with values below 0: 0, or the minimum if lower, and the maximum.
    """
    if not np.all(np.isfinite(image)):
        msg = "The image contains NaN or Inf pixels; fill them before degrading it."
        raise core.OptionError(msg, code="pixels-missing")
    if image.dtype.kind == "b":
        return 0.0, 1.0
    if image.dtype.kind in "iu" and np.min(image) >= 0:
        return 0.0, float(np.iinfo(image.dtype.name).max)
    low, high = min(0.0, float(np.min(image))), float(np.max(image))
    return (low, high) if high > low else (low, low + 1.0)


def create_blur_kernels(kind: Kind) -> list[FloatArray]:
    """Return the blur kernels (K, L) of a degradation, in the order of application."""
    kernels = [create_gaussian_kernel()]
    if kind == "hybrid":
        kernels.append(create_motion_kernel(MOTION_LENGTH_PX, 0.0))
        kernels.append(create_disk_kernel(DEFOCUS_RADIUS_PX))
    return kernels


def degrade_plane(
    image: core.RealArray,
    kind: Kind,
    *,
    seed: int = 0,
    uniform_fog: bool = False,
    airlight: float | None = None,
    stretch: bool = True,
    levels: FloatPair | None = None,
) -> DegradedImage:
    """Degrade an image like the data sets A, B and C of Gao et al. [1]_.

    Set A, ``blur``, has Gaussian blur; B, ``fog``, adds fog; C, ``hybrid``, also adds
    motion blur and defocus. The image (Y, X) has any real type and finite values; the
    result is rounded and clipped to that type. The seed determines the fog field.
    Uniform fog has one ``beta``, the centre of the range: an affine change of grey
    levels, which the stretch undoes. The airlight is on the 0-255 scale, by default the
    mean of the image; the stretch restores mean and standard deviation from before the
    fog. `levels` are black and white, for images whose data type does not define them.

    References
    ----------
    .. [1] X. Gao et al., Sci. Rep. 14 (2024), Methods, simulated data sets.
    """
    if kind not in KINDS:
        msg = f"Degradation must be one of {', '.join(KINDS)}, got {kind!r}."
        raise core.OptionError(msg, code="unknown-value")
    low, high = levels or get_grey_range(image)
    clear = (image.astype(float) - low) * (255 / (high - low))
    result = clear
    for kernel in create_blur_kernels(kind):
        result = ndimage.convolve(result, kernel, mode="reflect")
    parameters: dict[str, object] = {"gaussian_sigma_px": BLUR_SIGMA_PX}
    parameters["gaussian_size_px"] = BLUR_SIZE_PX
    if kind == "hybrid":
        parameters |= {"motion_length_px": MOTION_LENGTH_PX, "motion_angle_deg": 0.0}
        parameters["defocus_radius_px"] = DEFOCUS_RADIUS_PX
    if kind != "blur":
        level = float(result.mean()) if airlight is None else float(airlight)
        correlation = FOG_SCALE * min(result.shape)
        least, most = BETA_RANGE
        beta: FloatArray | float = (least + most) / 2
        if not uniform_fog:
            rng = np.random.default_rng(seed)
            field = create_smooth_field(result.shape, correlation, rng)
            beta = least + (most - least) * field
        blurred, result = result, apply_fog(result, beta, level)
        norm = "mean and standard deviation of the blurred image" if stretch else "none"
        parameters |= {
            "beta": [beta, beta] if uniform_fog else [least, most],
            "beta_field": "uniform" if uniform_fog else "smooth random",
            "correlation_px": None if uniform_fog else correlation,
            "airlight": level,
            "depth": 1.0,
            "normalisation": norm,
            "seed": seed,
        }
        if stretch:  # to the previous mean and standard deviation
            spread = result.std()
            gain = blurred.std() / spread if spread > 0 else 1.0
            result = (result - result.mean()) * gain + blurred.mean()
    grey = result * ((high - low) / 255) + low
    kind_of = image.dtype.kind
    if kind_of == "b":
        return DegradedImage(grey >= 0.5, parameters)
    if kind_of in "iu":
        info = np.iinfo(image.dtype.name)
        grey = np.clip(np.rint(grey), info.min, info.max)
    return DegradedImage(grey.astype(image.dtype), parameters)


# Random degradations for training: the same kinds, over wider ranges than the paper's.
#
# Some draws are close to the paper's values. The others cover further faults of a
# microscope: other blur, other haze, noise, other use of the grey range.

# The shares and ranges below are chosen: wide enough to include the paper's.
_WHITE = 255.0  # of 8 bits


class DegradationRanges(core.Options):
    """Ranges of random degradations, and the fraction of each kind."""

    blur: float = Field(default=0.3, ge=0)  # relative shares of the three kinds
    fog: float = Field(default=0.3, ge=0)
    hybrid: float = Field(default=0.4, ge=0)
    # share with a blur close to the paper's values
    near_paper: float = Field(default=0.5, ge=0, le=1)
    # share degraded exactly as in the paper, without noise
    as_paper: float = Field(default=0.0, ge=0, le=1)
    # share of the Gaussian-only draws with hardly any blur, so that a network learns to
    # leave sharp images unchanged
    sharp: float = Field(default=0.0, ge=0, le=1)
    sigma_px: FloatPair = (0.3, 2.2)  # of the Gaussian
    motion_px: FloatPair = (0.0, 14.0)  # length
    defocus_px: FloatPair = (0.0, 6.0)  # radius
    beta: FloatPair = (0.2, 3.0)  # extinction of the haze
    # correlation length of the haze, drawn log-uniformly
    fog_scale_px: FloatPair = (20.0, 160.0)
    noisy: float = Field(default=0.4, ge=0, le=1)  # share with noise
    # largest noise standard deviation, over the image's range
    noise: float = Field(default=0.05, ge=0, le=1)
    eight_bit: float = Field(default=0.8, ge=0, le=1)  # rounded to 8 bits


@dataclass(frozen=True, slots=True)
class DegradedScene:
    """A degraded image and its ground truth, (Y, X), on the same grey scale."""

    low: Float32Array  # Degraded image
    noiseless: Float32Array  # The same without noise and haze
    high: Float32Array  # Clear image, dimmed by the mean haze
    log_gain: Float32Array  # Log of the gain about `airlight` that removes the haze
    airlight: float  # Grey level of the haze; the mean of the image without haze
    faults: Float32Array  # (9,) In the order of `FAULTS`; NaN where not known


def _create_random_blur_kernel(
    kind: str, ranges: DegradationRanges, rng: Generator
) -> FloatArray:
    if kind != "hybrid" and ranges.sharp > 0 and rng.random() < ranges.sharp:
        # chosen: no Gaussian of such a width is visible
        return create_gaussian_kernel(rng.uniform(0.1, 0.65), BLUR_SIZE_PX)
    near = rng.random() < ranges.near_paper
    sigma = rng.uniform(0.75, 1.25) if near else rng.uniform(*ranges.sigma_px)
    size = 7 if near or rng.random() < 0.5 else 2 * int(np.ceil(3 * sigma)) + 1
    kernel = create_gaussian_kernel(sigma, size)
    if kind != "hybrid":
        return kernel
    if near:
        length, radius = rng.uniform(8.5, 11.5), rng.uniform(4, 6)
        angle = 0.0 if rng.random() < 0.7 else rng.uniform(0, 180)
    else:
        length, radius = rng.uniform(*ranges.motion_px), rng.uniform(*ranges.defocus_px)
        angle = rng.uniform(0, 180)
    if near or rng.random() < 0.7:
        kernel = scipy.signal.convolve(kernel, create_motion_kernel(length, angle))
    if near or rng.random() < 0.7:
        kernel = scipy.signal.convolve(kernel, create_disk_kernel(radius))
    return kernel


def convolve(image: FloatArray, kernel: FloatArray) -> FloatArray:
    """Convolve an `image` (Y, X), padded by reflection, with a `kernel` (K, L)."""
    pad = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded_image = np.pad(image, [(pad[0], pad[0]), (pad[1], pad[1])], mode="reflect")
    return np.asarray(scipy.signal.fftconvolve(padded_image, kernel, mode="valid"))


def _simulate_transmission(
    shape: IntPair, ranges: DegradationRanges, rng: Generator
) -> FloatArray:
    """Simulate the transmission of haze in a window of a larger field."""
    low, high = BETA_RANGE
    if rng.random() > ranges.near_paper:
        low, high = np.sort(rng.uniform(*ranges.beta, size=2))
        high = min(high, low + 1.2)
    if rng.random() < ranges.near_paper:
        correlation, field_shape = FOG_SCALE * min(shape), shape
    else:
        correlation = float(np.exp(rng.uniform(*np.log(ranges.fog_scale_px))))
        y, x = (max(n, int(correlation * rng.uniform(4, 10))) for n in shape)
        field_shape = y, x
    field = create_field_window(shape, field_shape, correlation, rng)
    return np.exp(-(low + (high - low) * field))


def _apply_mean_haze(
    clear: FloatArray, transmission: FloatArray, airlight: float
) -> FloatArray:
    """Dim a clear image by the mean haze, since only haze variation is corrected."""
    return airlight + (clear - airlight) * float(transmission.mean())


def apply_random_degradation(
    clear: NDArray[np.floating], ranges: DegradationRanges, rng: Generator
) -> DegradedScene:
    """Degrade a clear image (Y, X) in [0, 1] with random settings."""
    if ranges.as_paper > 0 and rng.random() < ranges.as_paper:
        return _apply_published_degradation(clear, ranges, rng)
    kind = _choose_degradation_kind(ranges, rng)
    truth = clear.astype(float)
    low = convolve(truth, _create_random_blur_kernel(kind, ranges, rng))
    log_gain, airlight = np.zeros(low.shape), float(low.mean())
    if kind == "fog" or (kind == "hybrid" and rng.random() < 0.8):
        transmission = _simulate_transmission((low.shape[0], low.shape[1]), ranges, rng)
        near_mean = rng.random() < ranges.near_paper
        level = low.mean() + rng.normal(0, 0.02) if near_mean else rng.uniform(0, 1)
        airlight = float(level)
        log_gain = np.log(transmission.mean() / transmission)
        low = apply_fog(low, -np.log(transmission), airlight)
        truth = _apply_mean_haze(truth, transmission, airlight)
    contrast = np.ptp(low)
    if rng.random() < ranges.noisy and contrast != 0:  # Poisson-Gaussian noise
        noise = ranges.noise * rng.random() ** 2 * contrast
        shot = rng.random()
        relative = (low - low.min()) / contrast
        deviation = noise * np.sqrt(1 - shot + 2 * shot * relative)
        low = np.asarray(low + deviation * rng.standard_normal(low.shape))
    bottom, span = get_scaling_range(low)
    if rng.random() < ranges.eight_bit:
        step = span / rng.uniform(80, 255)
        low = np.rint(low / step) * step
    bottom += span * rng.normal(0, 0.04)
    span *= rng.uniform(0.85, 1.1)
    return _create_scene(low, truth, log_gain, airlight, (bottom, span))


def _apply_published_degradation(
    clear: NDArray[np.floating], ranges: DegradationRanges, rng: Generator
) -> DegradedScene:
    """Degrade like `degrade_plane`, and also return the ground truth."""
    kind = _choose_degradation_kind(ranges, rng)
    low = truth = clear.astype(float)
    for kernel in create_blur_kernels(kind):
        low = convolve(low, kernel)
    log_gain, airlight = np.zeros(low.shape), float(low.mean())
    if kind != "blur":
        first, last = BETA_RANGE
        correlation = FOG_SCALE * min(low.shape)
        field = create_smooth_field((low.shape[0], low.shape[1]), correlation, rng)
        transmission = np.exp(-(first + (last - first) * field))
        log_gain = np.log(transmission.mean() / transmission)
        hazy = apply_fog(low, -np.log(transmission), airlight)
        truth = _apply_mean_haze(truth, transmission, airlight)
        gain = low.std() / max(float(hazy.std()), 1e-9)
        offset = low.mean() - gain * hazy.mean()
        low, truth, airlight = (gain * n + offset for n in (hazy, truth, airlight))
    low = np.clip(np.rint(low * _WHITE), 0, _WHITE) / _WHITE
    return _create_scene(low, truth, log_gain, airlight, get_scaling_range(low))


def _choose_degradation_kind(ranges: DegradationRanges, rng: Generator) -> Kind:
    shares = np.array([ranges.blur, ranges.fog, ranges.hybrid], dtype=float)
    return KINDS[int(rng.choice(len(shares), p=shares / shares.sum()))]


def get_scaling_range(low: FloatArray) -> FloatPair:
    """Return the grey level that maps to 0, and the span that maps to 1."""
    bottom, top = np.percentile(low, (0.1, 99.9))
    return float(bottom), max(float(top - bottom), 1e-6)


def _create_scene(
    low: FloatArray,
    truth: FloatArray,
    log_gain: FloatArray,
    airlight: float,
    scale: FloatPair,
) -> DegradedScene:
    """Scale both images to the grey range of the degraded image."""
    bottom, span = scale
    degraded, clear = (((n - bottom) / span).astype(np.float32) for n in (low, truth))
    haze = log_gain.astype(np.float32), float((airlight - bottom) / span)
    unknown = np.full(len(core.FAULTS), np.nan, np.float32)
    return DegradedScene(degraded, clear, clear, *haze, unknown)


# Random faults of a scanning electron microscope.
#
# In the order of the instrument: the optics blur a clear image (defocus, astigmatism,
# drift, vibration, or a plain Gaussian); haze is added (Gao et al. 2024, with any
# airlight and scale); shot and read noise up to a quarter of the range and line streaks
# are added; a slow detector smears signal and noise along the line; the image is
# clipped, rounded and possibly stored as JPEG. Noise therefore does not reveal the
# blur: a defocused image is as noisy as a sharp one. The clear image is smeared by the
# detector too: it shows sharp optics without noise. Each fault occurs at random, so
# that all combinations occur, single faults and none included.
#
# The faults are returned as the numbers of `core.FAULTS`, which a network can learn to
# estimate. All shares and ranges here are chosen: wider than those of any benchmark.


class FaultRanges(core.Options):
    """Ranges for random microscope faults."""

    blurred: float = Field(default=0.55, ge=0, le=1)  # shares of scenes with each fault
    veiled: float = Field(default=0.3, ge=0, le=1)
    noisy: float = Field(default=0.7, ge=0, le=1)
    # share of blurs that are a round Gaussian; the others are astigmatism, defocus,
    # drift, or several of them
    round: float = Field(default=0.2, ge=0, le=1)
    sigma_px: FloatPair = (0.2, 2.6)  # of a Gaussian blur
    motion_px: float = Field(default=13.0, ge=0)  # largest length of a drift
    defocus_px: float = Field(default=6.0, ge=0)  # largest radius
    noise: FloatPair = (0.004, 0.27)  # over the range, drawn log-uniformly
    beta: FloatPair = (0.1, 3.0)  # extinction of the haze
    # its correlation length, drawn log-uniformly
    veil_px: FloatPair = (12.0, 500.0)


# Numbers for the network: `blur_rows` to `flatness` of the blur, or `shot` to `streaks`
# of the noise
_FaultNumbers = tuple[float, float, float, float]
_Detector = Callable[[FloatArray], FloatArray]


def _create_elongated_kernel(sigma: float, ratio: float, angle: float) -> FloatArray:
    """Create a Gaussian kernel, elongated along one direction by a ratio."""
    long, short = sigma * math.sqrt(ratio), sigma / math.sqrt(ratio)
    half = math.ceil(3.5 * long)
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    u = x * math.cos(angle) + y * math.sin(angle)
    v = y * math.cos(angle) - x * math.sin(angle)
    return np.asarray(np.exp(-0.5 * ((u / long) ** 2 + (v / short) ** 2)))


def _create_random_optics_kernel(
    ranges: FaultRanges, rng: Generator
) -> tuple[FloatArray, _FaultNumbers]:
    """Draw a random blur kernel: Gaussian, defocus, drift, or a combination of them."""
    sigma, angle = rng.uniform(*ranges.sigma_px), rng.uniform(0, math.pi)
    kind = rng.choice(["astigmatic", "defocus", "drift", "several"])
    if rng.random() < ranges.round:
        kernel = _create_elongated_kernel(sigma, 1.0, 0.0)
    elif kind == "astigmatic":
        ratio = math.exp(abs(rng.normal(0, 0.4)))
        kernel = _create_elongated_kernel(sigma, ratio, angle)
    elif kind == "defocus":
        kernel = create_disk_kernel(rng.uniform(0.6, ranges.defocus_px))
    else:
        degrees = 0.0 if rng.random() < 0.4 else rng.uniform(0, 180)
        kernel = create_motion_kernel(rng.uniform(0.5, ranges.motion_px), degrees)
        if kind == "several":
            soft = _create_elongated_kernel(rng.uniform(0.3, 1.6), 1.0, 0.0)
            kernel = scipy.signal.convolve(kernel, soft)
            if rng.random() < 0.7:
                disk = create_disk_kernel(rng.uniform(0.5, ranges.defocus_px))
                kernel = scipy.signal.convolve(kernel, disk)
    kernel = np.maximum(kernel, 0)
    kernel = kernel / kernel.sum()
    # its standard deviations, slant and flatness
    y, x = np.indices(kernel.shape, dtype=float)
    y, x = y - (kernel * y).sum(), x - (kernel * x).sum()
    yy, xx, xy = ((kernel * part).sum() for part in (y * y, x * x, x * y))
    slant = xy / math.sqrt(max(yy * xx, 1e-6))
    square = x * x + y * y
    # a Gaussian's fourth moment over its squared second one is 2, a disc's 4 / 3
    flat = 2 - (kernel * square**2).sum() / max((yy + xx) ** 2, 1e-6)
    wide = [math.log(math.sqrt(max(part, 0)) + core.NO_BLUR) for part in (yy, xx)]
    is_blurred = yy + xx > 0.02  # narrower kernels have the shape of a pixel
    shape = (slant, float(np.clip(flat, -1, 1))) if is_blurred else (0.0, 0.0)
    return kernel, (wide[0], wide[1], *shape)


def _create_random_noise(
    image: FloatArray, ranges: FaultRanges, smear: _Detector, rng: Generator
) -> tuple[FloatArray, _FaultNumbers]:
    """Draw random shot and read noise, with smear, for an image in [0, 1]."""
    deviation = math.exp(rng.uniform(*np.log(ranges.noise)))
    shot = rng.random() if rng.random() < 0.6 else 0.0
    noise = rng.standard_normal(image.shape)
    smooth_noise = smear(noise)
    noise = noise / max(float(smooth_noise.std()), 1e-9)
    streaks = rng.uniform(0.02, 0.6) ** 2 if rng.random() < 0.2 else 0.0
    if streaks:
        lines = rng.standard_normal((image.shape[0], 1))
        if rng.random() < 0.5:  # charging that decays along the lines
            lines = ndimage.gaussian_filter1d(lines, rng.uniform(0.5, 3), axis=0)
            lines = lines / max(float(lines.std()), 1e-6)
        noise = math.sqrt(1 - streaks) * noise + math.sqrt(streaks) * lines
        smooth_noise = smear(noise)
    along = _compute_neighbour_correlation(smooth_noise, 1)
    across = _compute_neighbour_correlation(smooth_noise, 0)
    level = np.clip(image, 0, 1)
    growing = np.sqrt(np.maximum(1 - shot + 2 * shot * level, 0.02))
    return smear(deviation * growing * noise), (shot, along, across, streaks)


def _random_detector(rng: Generator) -> _Detector:
    """Choose a random detector response, which may smear signal and noise."""
    kind = rng.random()
    if kind < 0.12:  # pixels averaged, or an image that was resampled
        return partial(ndimage.gaussian_filter, sigma=rng.uniform(0.3, 1.0))
    if kind < 0.25:  # as in a line of a slow scan
        return partial(ndimage.gaussian_filter1d, sigma=rng.uniform(0.3, 1.6), axis=1)
    if kind < 0.4:  # a detector with exponential decay
        kept, lfilter = math.exp(-1 / rng.uniform(0.2, 1.5)), scipy.signal.lfilter

        def smear_line(image: FloatArray) -> FloatArray:
            # as if the line had started with its first pixel's value
            state = kept * image[:, :1]
            return np.asarray(lfilter([1 - kept], [1, -kept], image, zi=state)[0])

        return smear_line
    return np.asarray


def _compute_neighbour_correlation(noise: FloatArray, axis: int) -> float:
    """Compute the correlation of neighbouring noise pixels; 0 for white noise."""
    apart = float(np.diff(noise, axis=axis).std()) / math.sqrt(2)
    return 1 - apart / max(float(noise.std()), 1e-9)


def _random_haze(
    shape: IntPair, mean: float, ranges: FaultRanges, rng: Generator
) -> tuple[FloatArray, float]:
    """Draw a random transmission and airlight of haze."""
    low, high = np.sort(rng.uniform(*ranges.beta, size=2))
    high = min(high, low + 1.3)
    correlation = float(np.exp(rng.uniform(*np.log(ranges.veil_px))))
    rows, columns = (max(n, int(correlation * rng.uniform(2, 9))) for n in shape)
    field = create_field_window(shape, (rows, columns), correlation, rng)
    kind = rng.random()
    if kind < 0.35:
        airlight = mean + rng.normal(0, 0.03)
    elif kind < 0.6:
        airlight = float(rng.integers(2)) + rng.normal(0, 0.02)
    else:
        airlight = rng.uniform(-0.05, 1.05)
    return np.exp(-(low + (high - low) * field)), float(airlight)


def _simulate_recording(low: FloatArray, rng: Generator) -> tuple[FloatArray, float]:
    """Simulate recording (clipping, rounding, JPEG); also return the JPEG error."""
    bottom, span = get_scaling_range(low)
    # the operator sets the contrast: it fills the range, a part of it, or exceeds it
    range_used = rng.uniform(0.3, 1.08) if rng.random() < 0.5 else 1.0
    gain, offset = range_used / span, rng.uniform(0, max(1 - range_used, 0.0))
    image = (low - bottom) * gain + offset
    if rng.random() < 0.85:
        image = np.clip(image, 0, 1)
    lost_sd = 0.0
    if rng.random() < 0.08:
        from PIL import Image  # 10 MB, and few images are stored as JPEG

        before, buffer = np.clip(image, 0, 1), io.BytesIO()
        eight = Image.fromarray(np.rint(before * 255).astype(np.uint8))
        eight.save(buffer, "JPEG", quality=int(rng.integers(60, 98)))
        image = np.asarray(Image.open(buffer), dtype=float) / 255
        lost_sd = float((image - before).std())
    elif rng.random() < 0.8:
        image = np.rint(image * 255) / 255
    return np.asarray((image - offset) / gain + bottom), lost_sd / gain


def apply_random_faults(
    clear: NDArray[np.floating], ranges: FaultRanges, rng: Generator
) -> DegradedScene:
    """Apply random microscope faults to a clear image (Y, X) in [0, 1].

    The degraded and the clear image are on one grey scale.
    """
    truth = clear.astype(float)
    sharp = math.log(core.NO_BLUR)
    low, blur = truth, (sharp, sharp, 0.0, 0.0)
    if rng.random() < ranges.blurred:
        kernel, blur = _create_random_optics_kernel(ranges, rng)
        low = convolve(truth, kernel)
    noiseless = low
    log_gain, airlight = np.zeros(truth.shape), float(low.mean())
    if rng.random() < ranges.veiled:
        shape = (truth.shape[0], truth.shape[1])
        transmission, airlight = _random_haze(shape, airlight, ranges, rng)
        share = float(transmission.mean())
        log_gain = np.log(share / transmission)
        low = apply_fog(low, -np.log(transmission), airlight)
        planes = noiseless, truth
        noiseless, truth = (airlight + (one - airlight) * share for one in planes)
    deviation, noise = 0.0, (math.nan,) * 4  # unknown without noise
    if rng.random() < ranges.noisy:
        bottom, span = get_scaling_range(low)
        smear = _random_detector(rng)
        field, noise = _create_random_noise((low - bottom) / span, ranges, smear, rng)
        low, noiseless, truth = (smear(part) for part in (low, noiseless, truth))
        low = low + span * field
        deviation = span * float(field.std())
    low, lost_sd = _simulate_recording(low, rng)
    deviation = math.hypot(deviation, lost_sd)
    bottom, span = get_scaling_range(low)
    span *= rng.uniform(0.88, 1.1)
    bottom += span * rng.normal(0, 0.03)

    def rescale(image: FloatArray) -> Float32Array:
        return np.asarray((image - bottom) / span, dtype=np.float32)

    images = rescale(low), rescale(noiseless), rescale(truth)
    haze = log_gain.astype(np.float32), float((airlight - bottom) / span)
    faults = [math.log(deviation / span + core.NO_NOISE), *noise, *blur]
    return DegradedScene(*images, *haze, np.array(faults, dtype=np.float32))
