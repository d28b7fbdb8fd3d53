"""Random faults of a scanning electron microscope.

In the order of the instrument: the optics blur a clear image (defocus, astigmatism,
drift, vibration, or a plain Gaussian); haze is added (Gao et al. 2024, with any
airlight and scale); shot and read noise up to a quarter of the range and line streaks
are added; a slow detector smears signal and noise along the line; the image is clipped,
rounded and possibly stored as JPEG. Noise therefore does not reveal the blur: a
defocused image is as noisy as a sharp one. The clear image is smeared by the detector
too: it shows sharp optics without noise. Each fault occurs at random, so that all
combinations occur, single faults and none included.

The faults are returned as the numbers of `core.FAULTS`, which a network can learn to
estimate. All shares and ranges here are chosen: wider than those of any benchmark.
"""

import io
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import scipy  # the rest is loaded when it is used
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from napari_semsr.core import (
    NO_BLUR,
    NO_NOISE,
    Float32Array,
    FloatArray,
    FloatPair,
    IntPair,
    Options,
)
from napari_semsr.simulation.degrade import (
    DegradedScene,
    apply_fog,
    convolve,
    create_disk_kernel,
    create_field_window,
    create_motion_kernel,
    get_scaling_range,
)


class FaultRanges(Options):
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
_SHARP = (math.log(NO_BLUR), math.log(NO_BLUR), 0.0, 0.0)
_UNKNOWN = (math.nan,) * 4  # if there is no noise


def _create_gaussian_kernel(sigma: float, ratio: float, angle: float) -> FloatArray:
    """Create a Gaussian kernel, elongated along one direction by a ratio."""
    long, short = sigma * math.sqrt(ratio), sigma / math.sqrt(ratio)
    half = math.ceil(3.5 * long)
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    u = x * math.cos(angle) + y * math.sin(angle)
    v = y * math.cos(angle) - x * math.sin(angle)
    return np.asarray(np.exp(-0.5 * ((u / long) ** 2 + (v / short) ** 2)))


def _create_random_blur_kernel(
    ranges: FaultRanges, rng: Generator
) -> tuple[FloatArray, _FaultNumbers]:
    """Draw a random blur kernel: Gaussian, defocus, drift, or a combination of them."""
    sigma, angle = rng.uniform(*ranges.sigma_px), rng.uniform(0, math.pi)
    kind = rng.choice(["astigmatic", "defocus", "drift", "several"])
    if rng.random() < ranges.round:
        kernel = _create_gaussian_kernel(sigma, 1.0, 0.0)
    elif kind == "astigmatic":
        ratio = math.exp(abs(rng.normal(0, 0.4)))
        kernel = _create_gaussian_kernel(sigma, ratio, angle)
    elif kind == "defocus":
        kernel = create_disk_kernel(rng.uniform(0.6, ranges.defocus_px))
    else:
        degrees = 0.0 if rng.random() < 0.4 else rng.uniform(0, 180)
        kernel = create_motion_kernel(rng.uniform(0.5, ranges.motion_px), degrees)
        if kind == "several":
            soft = _create_gaussian_kernel(rng.uniform(0.3, 1.6), 1.0, 0.0)
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
    wide = [math.log(math.sqrt(max(part, 0)) + NO_BLUR) for part in (yy, xx)]
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
    low, blur = truth, _SHARP
    if rng.random() < ranges.blurred:
        kernel, blur = _create_random_blur_kernel(ranges, rng)
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
    deviation, noise = 0.0, _UNKNOWN
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
    faults = [math.log(deviation / span + NO_NOISE), *noise, *blur]
    return DegradedScene(*images, *haze, np.array(faults, dtype=np.float32))
