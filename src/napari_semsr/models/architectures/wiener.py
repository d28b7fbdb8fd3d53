"""Wiener filters for the noise and blur of a field.

The blur is modelled as a Gaussian of the estimated widths, the noise as white, and the
clear image's power as ``c f**-p``, fitted to the spectrum of the field's blocks. Three
filters follow: one that undoes the blur, one that allows for an error of a quarter in
its width, and one against noise only.

If the blur is known (`compute_sharpening_taps`), only the field's own spectrum is used:
its floor is the noise, white or correlated along lines; the power above it, corrected
for the blur, is that of the clear image, extrapolated below the noise by a power law.
Power that would rise with frequency is limited, as the actual blur was then narrower.
This blur is a Gaussian sampled at the pixels, which transmits more near the highest
frequency than a continuous one; the smearing of such steep spectra by the window is
taken into account.

A filter of 21 x 21 taps on single pixels is slow; on 4 x 4 pixels as channels, at a
quarter of the resolution, it is 7 x 7 taps of 16 by 16 channels, ten times as fast.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from napari_semsr.core import WIDEST_BLUR
from napari_semsr.models.architectures.blocks import disable_autocast

FILTERS = 3
STEP = 4  # pixels along each axis that become channels
RADIUS = 10
_REACH = 3  # pixels at quarter resolution that contain RADIUS + STEP - 1
_SIDE = 64  # side of the grid of frequencies
_LOWEST = 1 / 64  # cycles per pixel, below which the image's power is constant
_MAX_POWER = 1e4  # largest power of an image of range 1, at the lowest frequency
_JITTER = 1e-9  # of the variance, far below rounding
_SLOPES = (1.0, 4.0)  # range of p; images with edges have 2 to 3, smooth ones more
_ROUNDING = 1e-5  # variance of rounding if a third of 8 bits is used
_USUAL_SLOPE, _DOUBT = 2.5, 0.02
_DEBLUR, _WIDTH_DOUBT = (1.0, 1.0, 0.0), (0.0, 0.25, 0.0)  # for the three filters
# nodes and weights for averaging over a normal distribution
_NODES = tuple(part.tolist() for part in np.polynomial.hermite_e.hermegauss(7))
_MIN_LEFT = 0.02  # of a ring's power: least share of the image for any noise

# For fields whose blur is known. Chosen on development images.
_NYQUIST = 0.5
_CORNER = 0.6  # cycles per pixel; above, hardly any signal is left
_ACROSS = 0.25  # cycles per pixel across lines, from which noise is estimated
_LINES = 3  # lowest frequencies along a line, in which the window spreads streaks
_MIN_SHARE = 0.3  # of the least measured power; the rest may be the image
_MIN_FLOOR = 1.28e-6  # variance of rounding to 8 bits, over the range squared
_MIN_SIGNAL = 0.3  # times the noise, above which the image's power is measured
_MIN_PASSED = 3e-4  # of power; below, errors of the noise floor dominate
_WINDOW_RINGS = 3  # rings smeared by the window
_SHARPEST = 0.1  # px; a narrower Gaussian does not reach neighbouring pixels
# times its ring's median, above which a frequency is due to periodic structure:
# minimum, and multiple of the scatter of noise, exceeded by one frequency in a million
# in one block
_LINE, _LINE_SCATTER = 4.0, 13.0
_RISES = 6  # first ring limited by lower ones, as these have few frequencies
_MAX_RISE = 0.2  # log of power; more than for true widths
_STEP_PX = 0.1  # step between widths that are tried


def compute_wiener_taps(
    noise: Tensor, blur: tuple[Tensor, Tensor, Tensor], rings: tuple[Tensor, Tensor]
) -> Tensor:
    """Compute the Wiener filters of fields from noise, blur and power.

    `noise` (B,), standard deviations over the range; `blur` (B,) each, standard
    deviations along rows and columns in pixels, and their correlation; `rings` (R,) and
    (B, R), frequencies in cycles per pixel and the power there; returns (B, 3, 21, 21).
    """
    rows, columns, slant = blur
    power = noise.square() + _ROUNDING
    variance = (rows.square() + columns.square()) / 2
    height, slope = _fit_power_law(rings, power, variance)
    y, x = _compute_frequencies(noise.device)
    log_f = (y**2 + x**2).clamp_min(_LOWEST**2).log() / 2
    prior = torch.exp(height[:, None, None] - slope[:, None, None] * log_f)
    prior = prior.clamp_max(_MAX_POWER)
    # the log transmission of Gaussian blurs
    yy, xx = rows.square()[:, None, None] * y**2, columns.square()[:, None, None] * x**2
    xy = (slant * rows * columns)[:, None, None] * (x * y)
    exponent = -2 * math.pi**2 * (yy + xx + 2 * xy)
    likeness, targets = [], []
    for share, doubt in zip(_DEBLUR, _WIDTH_DOUBT, strict=True):
        first, second = _average_transmission(share**2 * exponent, doubt)
        likeness.append(second * prior + power[:, None, None])
        targets.append(first * prior)
    taps = _solve_taps(torch.stack(likeness, dim=1), torch.stack(targets, dim=1))
    return (taps / taps.sum((-1, -2), keepdim=True)).float()


def compute_power_spectrum(field: Tensor, without_gaps: Tensor | None = None) -> Tensor:
    """Average the power of Hann-windowed blocks of 64 px with 50 % overlap.

    Returns (B, 64, 33) for (B, 1, H, W); for white noise, its variance at each
    frequency. Leakage of this window from other frequencies is far below the rounding
    of 8 bits; that of a survey's blocks is larger. Blocks with filled pixels, marked in
    `without_gaps` (H, W), are ignored if others have none: they have less noise.
    """
    line = torch.hann_window(_SIDE + 2, periodic=False, device=field.device)[1:-1]
    window = line[:, None] * line
    lacking = [max(0, _SIDE - n) for n in field.shape[:-3:-1]]
    field = functional.pad(field, (0, lacking[0], 0, lacking[1]), mode="replicate")
    blocks = field[:, 0].unfold(1, _SIDE, _SIDE // 2).unfold(2, _SIDE, _SIDE // 2)
    mean = (blocks * window).sum((-1, -2), keepdim=True) / window.sum()
    power = torch.fft.rfft2((blocks - mean) * window).abs().square()
    if without_gaps is not None and min(without_gaps.shape) >= _SIDE:
        gaps = without_gaps.unfold(0, _SIDE, _SIDE // 2).unfold(1, _SIDE, _SIDE // 2)
        whole = ~gaps.any(-1).any(-1)
        power = power[:, whole][:, None] if whole.any() else power
    power = power.mean((1, 2))
    spectrum: Tensor = power / window.square().sum()
    return spectrum


def compute_sharpening_taps(
    spectrum: Tensor, blur: tuple[Tensor, Tensor, Tensor], noise: Tensor | None = None
) -> Tensor:
    """Compute the sharpening filters of fields with known blur.

    One for noise that may be correlated along lines, one for white noise, and one
    against noise only. `spectrum` (B, 64, 33), from `compute_power_spectrum`; `blur` as
    in `compute_wiener_taps`; `noise` (B,), standard deviations if these are also known;
    returns (B, 3, 21, 21).
    """
    transmission = _compute_blur_transmission(blur)
    power_transmission = transmission.square()
    lets, away = _compute_transmission(power_transmission)
    if noise is None:
        flat = estimate_white_noise_floor(spectrum)[:, None, None]
        both = spectrum, power_transmission
        along = _estimate_line_noise_floor(*both)
        across = _estimate_line_noise_floor(*map(_swap_axes, both))
        # what both directions share is not noise of lines, but the image
        along = torch.minimum(along, flat + (along - across).clamp_min(0))
    else:
        along = flat = noise.square().clamp_min(_MIN_FLOOR)[:, None, None]
    likeness, targets = [], []
    for floor, deblurs in ((along, True), (flat, True), (along, False)):
        noise_power = floor.expand_as(spectrum)
        power = _measure_clear_image_power(spectrum, noise_power, lets, away)
        seen = power_transmission * power.from_image
        likeness.append(seen + floor)
        targets.append(transmission * power.likely if deblurs else seen)
    best = torch.stack(likeness, dim=1), torch.stack(targets, dim=1)
    return _solve_taps(*best, level=True).float()


def estimate_widest_blur(
    spectrum: Tensor, most: float, noise: float | None = None
) -> float:
    """Estimate the widest plausible blur of a field, up to `most`, in pixels.

    With a wider one, the finest detail of the clear image would be the strongest, as
    hardly any of it passes a Gaussian. If that is so even without blur, as for some
    gratings, it is ignored. `spectrum` (64, 33), from `compute_power_spectrum`;
    `noise`, its standard deviation if known.
    """
    most = min(most, WIDEST_BLUR)
    tried = torch.arange(_STEP_PX, WIDEST_BLUR, _STEP_PX)
    widths = torch.cat([tried[tried < most], torch.tensor([most])]).to(spectrum.device)
    spectra = spectrum.expand(len(widths), -1, -1)
    blur = widths, widths, torch.zeros_like(widths)
    lets, away = _compute_transmission(_compute_blur_transmission(blur).square())
    if noise is None:
        floor = estimate_white_noise_floor(spectra)
    else:
        floor = torch.full_like(widths, noise).square().clamp_min(_MIN_FLOOR)
    floor = floor[:, None, None].expand_as(spectra)
    rise = _measure_clear_image_power(spectra, floor, lets, away).increase
    is_measured, bears = rise.isfinite(), rise <= _MAX_RISE + rise[0]
    # too little is measured for wide ones: use the result for the widest measured
    widest = bears[is_measured][-1] if is_measured.any() else True
    bears = torch.where(is_measured, bears, widest)
    return most if bears[-1] else float(widths[bears].max())


def _compute_transmission(power_transmission: Tensor) -> tuple[Tensor, Tensor]:
    """Return the power transmission of blur and window (B, 64, 33), and frequencies."""
    y, x = _compute_frequencies(power_transmission.device)
    away = torch.hypot(y, x)
    usual = away.clamp_min(_LOWEST) ** -_USUAL_SLOPE
    seen = _apply_spectral_leakage(power_transmission * usual)
    lets = (seen / _apply_spectral_leakage(usual)).float().clamp_min(0)
    return lets, away


def _compute_frequencies(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the frequencies of a half spectrum along columns and rows."""
    y = torch.fft.fftfreq(_SIDE, device=device)[:, None]
    return y, torch.fft.rfftfreq(_SIDE, device=device)[None]


def estimate_white_noise_floor(spectrum: Tensor) -> Tensor:
    """Estimate the noise variance (B,) at frequencies with almost no signal."""
    corner = _compute_corner_weights(spectrum)
    floor = (spectrum * corner).sum((1, 2)) / corner.sum()
    return floor.clamp_min(_MIN_FLOOR)


def _compute_corner_weights(spectrum: Tensor) -> Tensor:
    """Return the weights, (64, 33), of frequencies with almost no signal."""
    y, x = _compute_frequencies(spectrum.device)
    return (torch.hypot(y, x) > _CORNER) * _compute_column_multiplicity(x)


def _compute_blur_transmission(blur: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Compute the transmission of Gaussian blurs sampled at pixels, (B, 64, 33)."""
    rows, columns, slant = (part.double()[:, None, None] for part in blur)
    away = _SIDE * torch.fft.fftfreq(_SIDE, device=rows.device)
    y = away[:, None] / rows.clamp_min(_SHARPEST)
    x = away / columns.clamp_min(_SHARPEST)
    kernel = torch.exp((2 * slant * y * x - y**2 - x**2) / (1 - slant**2) / 2)
    spectrum: Tensor = torch.fft.rfft2(kernel / kernel.sum((1, 2), keepdim=True))
    return spectrum.real.float()


def _apply_spectral_leakage(power: Tensor) -> Tensor:
    """Smear power (..., 64, 33) by the window of `compute_power_spectrum`."""
    lag = 2 * math.pi * torch.arange(_SIDE, device=power.device) / _SIDE
    window_power = (2 + lag.cos()) / 3
    alike = torch.fft.irfft2(power.double(), s=(_SIDE, _SIDE))
    seen: Tensor = torch.fft.rfft2(alike * window_power * window_power[:, None])
    return seen.real


def _swap_axes(power: Tensor) -> Tensor:
    """Swap rows and columns of a half spectrum (..., 64, 33)."""
    alike = torch.fft.irfft2(power.double(), s=(_SIDE, _SIDE))
    swapped: Tensor = torch.fft.rfft2(alike.mT)
    return swapped.real.float()


def _compute_column_multiplicity(x: Tensor) -> Tensor:
    """Return the multiplicity of half-spectrum columns in a full spectrum, (1, 33)."""
    return torch.where((x == 0) | (x == _NYQUIST), 1.0, 2.0)


def _estimate_line_noise_floor(spectrum: Tensor, power_transmission: Tensor) -> Tensor:
    """Estimate the noise power as a function of frequency along a line, (B, 1, 33).

    Noise is independent from row to row, so its power is constant across lines, while
    that of the image falls with the transmission of the blur: a linear fit separates
    them.
    """
    half = _SIDE // 2
    rows = slice(round(_ACROSS * _SIDE), half + 1)
    both = (spectrum[:, rows] + spectrum.flip(1).roll(1, 1)[:, rows]) / 2
    around = functional.pad(both[:, None], (2, 2, 0, 0), mode="replicate")
    local_mean = functional.avg_pool2d(around, (1, 5), 1)[:, 0]
    left, weight = power_transmission[:, rows], 1 / local_mean.square().clamp_min(1e-30)
    weight = weight / weight.sum(1, keepdim=True)
    mean, level = (weight * left).sum(1), (weight * local_mean).sum(1)
    apart = left - mean[:, None]
    spread = (weight * apart.square()).sum(1).clamp_min(1e-30)
    slope = ((weight * apart * local_mean).sum(1) / spread).clamp_min(0)
    floor = torch.maximum(level - slope * mean, _MIN_SHARE * local_mean.amin(1))
    # the lowest frequencies contain streaks
    first = floor[:, _LINES : _LINES + 1].expand(-1, _LINES)
    floor = torch.cat([first, floor[:, _LINES:]], dim=1)
    return floor.clamp_min(_MIN_FLOOR)[:, None]


class _ClearImagePower(NamedTuple):
    """Power of the clear image (B, 64, 33), isotropic except for spectral lines."""

    from_image: Tensor  # measured power, corrected for the stated blur
    likely: Tensor  # the same, limited to what is plausible for an image
    increase: Tensor  # (B,) Log of the former over the latter, NaN if not measured


def _measure_clear_image_power(
    spectrum: Tensor, floor: Tensor, lets: Tensor, away: Tensor
) -> _ClearImagePower:
    """Measure the clear image's power, extrapolating below the noise by a power law.

    All (B, 64, 33) except `away` (64, 33), frequencies. `lets`: power transmission of
    blur and window together.
    """
    place = away * _SIDE
    ring, count = place.round().long(), math.ceil(_SIDE * math.hypot(0.5, 0.5)) + 1
    own = _measure_lines(spectrum, floor, lets, ring)
    # the rest is averaged over rings
    share = _compute_column_multiplicity(away[:1]) * (own == 0)

    def sum_over_rings(power: Tensor) -> Tensor:
        sums = torch.zeros(len(power), count, device=power.device)
        return sums.index_add(1, ring.flatten(), (power * share).flatten(1))

    many = sum_over_rings(torch.ones_like(spectrum)).clamp_min(1)
    measured_rings, noise, transmission = (
        sum_over_rings(p) / many for p in (spectrum, floor, lets)
    )
    above = measured_rings - noise
    log_power = above.clamp_min(1e-12).log() - transmission.clamp_min(1e-30).log()
    number = torch.arange(count, device=away.device)[None]
    is_usable = (above > _MIN_SIGNAL * noise) & (transmission > _MIN_PASSED)
    is_usable = (is_usable | (number < _WINDOW_RINGS)).float()
    last = is_usable.cumprod(1).sum(1, keepdim=True).long() - 1
    log_f = (number.clamp_min(1) / _SIDE).log().expand_as(log_power)
    around = functional.pad(log_power[:, None], (1, 1), mode="replicate")
    smooth = functional.avg_pool1d(around, 3, 1)[:, 0]
    inside = (number >= _WINDOW_RINGS) & (number < last)
    log_power = torch.where(inside, smooth, log_power)
    weight = ((number >= (last // 2).clamp_min(2)) & (number <= last)).float()
    weight = weight / weight.sum(1, keepdim=True)
    middle, level = ((weight * n).sum(1, keepdim=True) for n in (log_f, log_power))
    rise = (weight * (log_f - middle) * (log_power - level)).sum(1, keepdim=True)
    spread = (weight * (log_f - middle).square()).sum(1, keepdim=True)
    slope = (-rise + _USUAL_SLOPE * _DOUBT) / (spread + _DOUBT)
    fall = slope.clamp(*_SLOPES) * (log_f - log_f.gather(1, last))
    below_noise = log_power.gather(1, last) - fall
    log_power = torch.where(number > last, below_noise, log_power)
    # allow any slow variation, also for images with little of it, such as gratings
    strongest = log_power.amax(1, keepdim=True).expand(-1, _WINDOW_RINGS)
    log_power = torch.cat([strongest, log_power[:, _WINDOW_RINGS:]], dim=1)
    below = place.clamp_max(count - 1.001).floor().long()
    part = place.clamp_max(count - 1.001) - below
    falling = _limit_rise(log_power, measured_rings)
    rise_log = torch.where(number <= last, log_power - falling, 0.0).amax(1)
    rise_log = torch.where(last[:, 0] < _RISES, torch.nan, rise_log)
    from_image, likely = (
        torch.lerp(log[:, below], log[:, below + 1], part).exp().maximum(own)
        for log in (log_power, falling)
    )
    return _ClearImagePower(from_image, likely, rise_log)


def _measure_lines(
    spectrum: Tensor, floor: Tensor, lets: Tensor, ring: Tensor
) -> Tensor:
    """Measure spectral lines far above the power of their ring; 0 elsewhere."""
    usual = compute_ring_medians(spectrum)
    corner = _compute_corner_weights(spectrum)
    white = estimate_white_noise_floor(spectrum)[:, None, None]
    scatter = ((spectrum / white - 1).square() * corner).sum((1, 2)) / corner.sum()
    threshold = (1 + _LINE_SCATTER * scatter.sqrt()).clamp_min(_LINE)[:, None, None]
    least = threshold * torch.maximum(usual[:, ring], floor)
    line = (spectrum > least) & (lets > _MIN_PASSED)
    return torch.where(line, (spectrum - floor) / lets.clamp_min(_MIN_PASSED), 0.0)


def compute_ring_medians(spectrum: Tensor) -> Tensor:
    """Compute the lower median of each ring of a spectrum (B, 64, 33): (B, 46)."""
    places, middle = _compute_ring_indices(spectrum.device)
    beyond = spectrum.new_full((len(spectrum), 1), math.inf)
    rings = torch.cat([spectrum.flatten(1), beyond], dim=1)[:, places].sort(2).values
    return rings.gather(2, middle.expand(len(rings), -1, 1))[..., 0]


@cache
def _compute_ring_indices(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return each ring's indices in a spectrum, (46, M), and median indices, (46, 1).

    The indices of a ring are padded by the index after the last one. They are cached
    for each device, since selecting rings by a mask would wait for the GPU.
    """
    y, x = np.fft.fftfreq(_SIDE)[:, None], np.fft.rfftfreq(_SIDE)[None]
    ring = np.rint(np.hypot(y, x) * _SIDE).astype(int).ravel()
    many = np.bincount(ring)
    places = np.full((len(many), many.max()), len(ring))
    for n, count in enumerate(many):
        places[n, :count] = np.flatnonzero(ring == n)
    middle = (many[:, None] - 1) // 2
    return _copy_indices(places, device), _copy_indices(middle, device)


def _limit_rise(log_power: Tensor, power: Tensor) -> Tensor:
    """Limit the rise of power with frequency in the clear image, (B, R).

    If the actual blur was narrower than stated, the finest detail seems to be the
    strongest. A ring may be as strong as the strongest from half an octave to an octave
    below, and stronger if it is so in the measured `power` too, as for gratings.
    """
    rings = list(log_power.unbind(1))
    for ring in range(_RISES, len(rings)):
        lower = slice(ring // 2, int(ring / math.sqrt(2)) + 1)
        most = torch.stack(rings[lower]).amax(0)
        peak = power[:, ring] >= power[:, lower].amax(1)
        rings[ring] = torch.where(peak, rings[ring], torch.minimum(rings[ring], most))
    return torch.stack(rings, dim=1)


def _average_transmission(exponent: Tensor, doubt: float) -> tuple[Tensor, Tensor]:
    """Average a Gaussian's transmission and its square over the possible widths.

    `exponent`, log transmission of the likeliest width; `doubt`, standard deviation of
    the log width.
    """
    if doubt == 0:
        transmission = exponent.exp()
        return transmission, transmission.square()
    deviations, weights = _NODES
    parts = [torch.exp(math.exp(2 * doubt * away) * exponent) for away in deviations]
    shares = [weight / sum(weights) for weight in weights]
    first = [share * part for share, part in zip(shares, parts, strict=True)]
    second = [share * part.square() for share, part in zip(shares, parts, strict=True)]
    return torch.stack(first).sum(0), torch.stack(second).sum(0)


def _solve_taps(power: Tensor, target_power: Tensor, *, level: bool = False) -> Tensor:
    """Compute the 21 x 21 filters that minimise the expected error.

    Truncating the ideal filter would cause ringing, since for blur it is wide. `power`,
    `target_power` (B, F, 64, 33), power of the image, and cross power with the clear
    one; `level`: keep the mean grey level. NaN if there is no solution.
    """
    side = 2 * RADIUS + 1
    alike, cross = (
        torch.fft.irfft2(part.double(), s=(_SIDE, _SIDE))
        for part in (power, target_power)
    )
    step = torch.arange(side, device=power.device)
    apart = (step[:, None] - step[None]) % _SIDE
    # covariance of any two pixels under the taps: row, row, column, column
    joint = alike[..., apart[:, None, :, None], apart[None, :, None, :]]
    joint = joint.flatten(-4, -3).flatten(-2, -1)
    there = (step - RADIUS) % _SIDE
    right = cross[..., there[:, None], there[None]].flatten(-2)
    joint.diagonal(dim1=-2, dim2=-1).mul_(1 + _JITTER)
    # this version does not wait for the GPU to check for errors
    factor, fault = torch.linalg.cholesky_ex(joint)
    solution = torch.cholesky_solve(right[..., None], factor)[..., 0]
    solution = torch.where((fault == 0)[..., None], solution, torch.nan)
    if level:  # by a Lagrange multiplier: the taps sum to 1
        even = torch.cholesky_solve(torch.ones_like(right)[..., None], factor)[..., 0]
        lacking = (1 - solution.sum(-1, keepdim=True)) / even.sum(-1, keepdim=True)
        solution = solution + lacking * even
    taps: Tensor = solution.reshape(*solution.shape[:2], side, side)
    return taps


def _fit_power_law(
    rings: tuple[Tensor, Tensor], noise: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor]:
    """Fit a power law to the clear image's power; return log height and slope.

    `noise`, `variance` (B,), power of the noise and variance of the blur.
    """
    frequency, power_seen = rings
    log_f = frequency.log()[None]
    # log of the power lost by blur
    lost_log = 4 * math.pi**2 * variance[:, None] * frequency**2
    left = torch.maximum(power_seen - noise[:, None], _MIN_LEFT * power_seen)
    power = left.clamp_min(1e-12).log() + lost_log
    share = ((power_seen - noise[:, None]) / power_seen.clamp_min(1e-12)).clamp_min(0.0)
    # where little passes the blur, most is leakage from lower frequencies
    weight = share.square() * torch.exp(-lost_log) + 1e-6
    weight = weight / weight.sum(1, keepdim=True)
    middle, level = (weight * log_f).sum(1), (weight * power).sum(1)
    away = log_f - middle[:, None]
    rise = (weight * away * power).sum(1)
    spread = (weight * away.square()).sum(1)
    # a few rings hardly determine the slope: tend to the usual one
    slope = (-rise + _USUAL_SLOPE * _DOUBT) / (spread + _DOUBT)
    slope = slope.clamp(*_SLOPES)
    return level + slope * middle, slope


@cache
def _compute_packing_indices(device: torch.device) -> Tensor:
    """Return the indices of the taps in a packed filter, (16, 16, 7, 7)."""
    side, many = 2 * RADIUS + 1, 2 * _REACH + 1
    step = np.arange(STEP)
    # output pixel p of a block depends on pixel r of the block at distance m
    there = STEP * (np.arange(many) - _REACH)[None, None] + step[None, :, None]
    away = there - step[:, None, None] + RADIUS  # (p, r, m)
    rows = away[:, None, :, None, :, None]
    columns = away[None, :, None, :, None, :]
    outside = (rows < 0) | (rows >= side) | (columns < 0) | (columns >= side)
    place = np.where(outside, side * side, rows * side + columns)
    return _copy_indices(place.reshape(STEP**2, STEP**2, many, many), device)


def _copy_indices(places: NDArray[np.intp], device: torch.device) -> Tensor:
    """Copy indices to a device, for use in both inference and training."""
    with torch.inference_mode(mode=False):
        return torch.from_numpy(places).to(device)


def pack_taps(taps: Tensor) -> Tensor:
    """Pack filters (B, F, 21, 21) for `filter_images`: (B F 16, 16, 7, 7)."""
    flat = functional.pad(taps.flatten(2), (0, 1))
    return flat[:, :, _compute_packing_indices(taps.device)].flatten(0, 2)


def filter_images(x: Tensor, weights: Tensor) -> Tensor:
    """Filter images, each with its own filters or all with the same filters.

    `x` (B, 1, H, W), sides multiples of 4; `weights` from `pack_taps`, for B conditions
    or one; returns (B, 3, H, W). Border pixels are repeated beyond the border.
    """
    with disable_autocast(x):
        many = len(weights) // (FILTERS * STEP**2)
        margin = _REACH * STEP
        around = functional.pad(x.float(), (margin,) * 4, mode="replicate")
        parts = functional.pixel_unshuffle(around, STEP)
        size = parts.shape[-2:]
        # images with their own filters are processed as groups of channels
        planes = parts.reshape(-1, many * STEP**2, *size)
        output = functional.conv2d(planes, weights, groups=many)
        output = output.reshape(len(x), -1, *output.shape[-2:])
        return functional.pixel_shuffle(output, STEP)
