"""Decorrelation analysis: threshold-free cut-off of a single image.

The image's transform F is correlated with its phases alone, F / |F|, within a circle of
radius r [1]_. As the product of both is |F|, the correlation is

    d(r) = Σ_{|k|<r} |F| / √(Σ|F|² · n(r)),

where n(r) counts the samples within r. It rises as long as rings hold more than half of
the mean amplitude within them, so that it has a peak where the signal ends and only
white noise continues. Before that the image is high-pass filtered with a series of
filters: the peak moves outwards, as weak fine detail is no longer outweighed by strong
coarse detail, until no peak is left; the outermost peak is the cut-off.

Only sums of |F| and |F|² over rings are needed: one transform serves all filters, and r
is as fine as the rings are. The scatter of the result follows from sums in which random
groups of samples have random weights (Bayesian bootstrap).

The authors' program [2]_ tries 50 radii and 10 filters in each of two rounds: it can be
followed step by step, to compare with its numbers.

.. [1] A. Descloux, K. S. Grußmayer, A. Radenovic, Nat. Methods 16, 918 (2019),
   doi:10.1038/s41592-019-0515-7.
.. [2] https://github.com/Ades91/ImDecorr, `getDcorr.m` and `main_imageDecorr.m`, 2021.
"""

import itertools
import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from scipy import fft

from napari_semsr import core
from napari_semsr.analysis.frc import (
    Reason,
    describe_nyquist_ratio,
    is_periodic,
    read_finite_array,
)

_MIN_PX = 64  # smallest side of an image; chosen: at ring 10 of 32 a step is a tenth
_BLOCK = 2048  # side of the blocks of an image of more than four of them; specified
_TUKEY = 0.25  # tapered share of the window; chosen: little leakage, narrow rings
_EDGE_PX = 20  # edges that the authors' program tapers
_FILTERS = 20  # filters in each of two rounds; chosen: cheap here (Descloux: 10)
_FINEST_PX = 0.15  # width of the weakest filter, as in Descloux
# Standard deviations by which coarse power exceeds fine power if there is a signal;
# chosen: white noise reaches it once in a million images
_SIGNAL = 5.0
# Fewest periods across the image. Simulated images: the interval contains the known end
# in 95 % from 16 periods on, and in 50 to 60 % at 11, where it is 10 % too fine
_MIN_PERIODS = 15
_DRAWS = 64  # of the samples, in as many groups; chosen: knows the scatter to 9 %
_TINY = float(np.finfo(float).tiny)  # least denominator, so that 0 / 0 is 0

_METHODS = {
    None: "decorrelation analysis (assumes white noise and a band-limited signal), "
    f"Tukey window {_TUKEY:g}",
    "published": "decorrelation analysis as published (Descloux et al. 2019), edges "
    f"of {_EDGE_PX} px tapered",
}

NO_CUT_OFF: dict[Reason, str] = {
    "undetermined": "its 95 % interval is wider than the value",
    "beyond-nyquist": "finer than two pixels, or hidden by noise",
    "too-small": "less than 15 periods wide: use a larger part of the image",
    "periodic": "a grating or lattice, whose few spectral lines show no cut-off",
    "no-signal": "no contrast, or nothing but noise",
}
"""Explanation of each reason for a missing cut-off, by precedence among blocks."""


class DecorrelationOptions(core.Options):
    """Options for decorrelation analysis."""

    method: Literal["published"] | None = core.option(
        None,
        "",
        "published: the radii, filters and steps of the authors' program, to compare "
        "with its numbers; by default all radii are tried, which is more accurate",
    )
    block: int | None = Field(
        default=None,
        ge=_MIN_PX,
        description=(
            "Block side length in px; the result is the median over all blocks. By "
            "default, images up to 4096 x 4096 px are analysed as a whole, and larger "
            "ones in blocks of 2048 px."
        ),
    )


_SHORTEST = core.Quantity("Cut-off", "nm", also="resolution_px", interval="interval_nm",
    reason="why", verdict="verdict", large=True)  # fmt: skip
_ENDS = core.declare_quantity("Scatter of the estimate, at least to the next value")


@dataclass(frozen=True, slots=True)
class Decorrelation:
    """Cut-off period of an image, or its median over several blocks.

    `interval` covers the scatter of the estimate when the samples of the spectrum are
    drawn again, and the step between possible values, in nm also the error of the pixel
    size; not the difference between methods. If it is wider than the value, there is
    none. `p10` and `p90` are percentiles of the blocks. `reason` is ``undetermined``,
    ``no-signal``, ``periodic``, ``too-small``, or ``beyond-nyquist``, also if noise
    hides the cut-off. `failed` of the `blocks` without gaps have no cut-off; `gaps`
    further blocks have gaps. The curves, `peak` and `sigma_px`, the width of the
    Gaussian subtracted by the filter, belong to the whole image, or to the median
    block: d(r) without and with the filter over radii in cycles per mean pixel.
    """

    resolution_px: Annotated[
        float | None, replace(_SHORTEST, unit="px", also="", interval="interval_px")
    ]
    resolution_nm: Annotated[float | None, _SHORTEST]
    step_px: Annotated[float | None, core.declare_quantity("Step", "px")]
    interval_px: Annotated[core.FloatPair | None, _ENDS]
    interval_nm: Annotated[core.FloatPair | None, _ENDS]
    p10_px: Annotated[float | None, core.Quantity("10 % below", "px", shown=False)]
    p90_px: Annotated[float | None, core.Quantity("90 % below", "px", shown=False)]
    p10_nm: Annotated[float | None, core.Quantity("10 % below", "nm", shown=False)]
    p90_nm: Annotated[float | None, core.Quantity("90 % below", "nm", shown=False)]
    reason: Annotated[Reason | None, core.Quantity("Reason", shown=False)]
    method: Annotated[str, core.Quantity("Method", tabled=False)]
    blocks: Annotated[int, core.Quantity("Blocks", shown=False)]
    failed: Annotated[
        int,
        core.Quantity(
            "Without a cut-off", column="blocks_without_cut_off", shown=False
        ),
    ]
    gaps: Annotated[int, core.declare_quantity("With gaps")]
    block: Annotated[int | None, core.declare_quantity("Side of a block", "px")]
    values_px: core.FloatArray
    peak: Annotated[float | None, core.declare_quantity("Peak")]
    frequency_per_px: core.FloatArray
    correlation: core.FloatArray
    filtered: core.FloatArray
    sigma_px: Annotated[
        float | None, core.declare_quantity("Width of the filter", "px")
    ]
    # Measured pixels ``(y0, x0, y1, x1)`` of an image with gaps
    box: Annotated[core.BoxEnds | None, core.declare_quantity("Box", "px")] = None

    measured_in = property(core.describe_measured_box)

    @property
    def verdict(self) -> str:
        """Assessment of the cut-off."""
        return describe_nyquist_ratio(self.resolution_px)

    @property
    def why(self) -> Annotated[str | None, core.declare_quantity("Why")]:
        """Reason for the missing cut-off, as text."""
        return self.reason and f"{self.reason}: {NO_CUT_OFF[self.reason]}"

    @property
    def spread(
        self,
    ) -> Annotated[str | None, core.Quantity("10 to 90 %", tabled=False)]:
        """10th and 90th percentiles of the cut-off over the blocks, as text."""
        for unit in ("nm", "px"):
            ends = getattr(self, f"p10_{unit}"), getattr(self, f"p90_{unit}")
            if None not in ends:
                return f"{ends[0]:.4g} to {ends[1]:.4g} {unit}"
        return None

    @property
    def blocks_text(
        self,
    ) -> Annotated[str | None, core.Quantity("Blocks", tabled=False)]:
        """Describe the number and size of the blocks, and the failed ones."""
        if self.block is None:
            return None
        return (
            f"{self.blocks} blocks of {self.block} px, {self.failed} without a "
            f"cut-off, {self.gaps} more skipped because of gaps"
        )


@dataclass(frozen=True, slots=True)
class _Peak:
    """Outermost peak of all filtered curves."""

    frequency: float
    step: float  # distance to the next frequency that was tried
    sigma: float  # width of the filter in px; infinite without one

    def compute_reach(self, sd: float) -> float:
        """Compute the factor to the ends of the interval from the logarithm's sd."""
        step = math.log1p(self.step / self.frequency)
        return math.exp(math.hypot(core.Z95 * sd, step))


@dataclass(frozen=True, slots=True)
class _Curve:
    """Decorrelation curve of one block."""

    frequency: core.FloatArray
    plain: core.FloatArray
    of_filtered: core.FloatArray
    reason: Reason | None
    peak: _Peak | None = None
    sd: float = math.nan  # of the logarithm of the cut-off

    @property
    def period(self) -> float:
        """Cut-off period in pixels; NaN if there is none."""
        return 1 / self.peak.frequency if self.peak else math.nan


@dataclass(frozen=True, slots=True)
class _Spectrum:
    """Sums over rings, or single samples, in the order of their frequency (K,)."""

    rings: core.Rings
    frequency: core.FloatArray
    amplitude: core.FloatArray
    power: core.FloatArray
    samples: core.FloatArray

    def correlate(
        self, sigmas: core.FloatArray, radii: core.FloatArray | None = None
    ) -> core.FloatArray:
        """Compute d(r) (F, R) for filter widths (F,), below radii (R,) or per ring."""
        with np.errstate(invalid="ignore"):  # infinite times 0: nothing is filtered
            gain = -np.expm1(-2 * (np.pi * sigmas[:, None] * self.frequency) ** 2)
        gain[np.isinf(sigmas)] = 1
        whole = np.sqrt((self.power * gain**2).sum(axis=1, keepdims=True))
        within = np.cumsum(self.amplitude * gain, axis=1)
        inside = np.sqrt(np.cumsum(self.samples))
        if radii is not None:
            ends = np.searchsorted(self.frequency, radii)
            within = np.where(ends, within[:, ends - 1], 0)
            inside = np.maximum(inside[ends - 1], 1)
        return np.asarray(within / (np.maximum(whole, _TINY) * inside))


def measure_decorrelation(
    image: core.Micrograph, options: DecorrelationOptions | None = None
) -> core.Job[Decorrelation]:
    """Measure the cut-off of an image by decorrelation analysis.

    The image needs 64 px or more on each side. An image analysed as a whole must not
    have missing pixels; blocks with a gap are ignored. Without a cut-off `reason` is
    set.
    """
    options = options or DecorrelationOptions()
    side, published = options.block, options.method == "published"
    if side is None and image.shape[0] * image.shape[1] > (2 * _BLOCK) ** 2:
        side = min(_BLOCK, *image.shape)
    if min(image.shape) < _MIN_PX:
        msg = (
            f"Decorrelation analysis needs at least {_MIN_PX}x{_MIN_PX} px, got "
            f"{image.shape[0]}x{image.shape[1]} px in {image.name}; use a larger area."
        )
        raise core.ShapeError(msg, code="image-too-small")
    pitch = core.compute_relative_pitch(image.scale)
    if side is None:
        yield core.Progress(0, 1, "transforming")
        # measured: growth of peak memory, 1536 x 1536 px
        core.require_memory(image.name, image.shape, 64.0)
        curve = _analyse_block(read_finite_array(image), pitch, published)
        return _summarise_curves(image, [curve], (1, 1), None, options)
    # raises an error if an image has no values
    core.plan_blocks(image.shape, block=side, step=side)
    # blocks cover the whole image, evenly spaced with a small overlap
    corners = [
        [round(at) for at in np.linspace(0, n - side, -(-n // side)).tolist()]
        for n in image.shape
    ]
    curves: list[_Curve | None] = []
    grid = len(corners[0]), len(corners[1])
    for number, (y, x) in enumerate(itertools.product(*corners)):
        yield core.Progress(number, math.prod(grid), "transforming blocks")
        box = core.Box.from_shape((side, side), (y, x))
        values = core.read_box(image.data, box).astype(np.float64)
        is_finite = bool(np.isfinite(values).all())
        curves.append(_analyse_block(values, pitch, published) if is_finite else None)
    if not any(curves):
        msg = (
            f"All {len(curves)} blocks of {side} px in {image.name} contain gaps; use "
            "smaller blocks (`block`) or crop to a gap-free area."
        )
        raise core.ShapeError(msg, code="gaps-everywhere")
    return _summarise_curves(image, curves, grid, side, options)


def _summarise_curves(
    image: core.Micrograph,
    curves: "list[_Curve | None] | list[_Curve]",
    grid: core.IntPair,
    side: int | None,
    options: DecorrelationOptions,
) -> Decorrelation:
    values = np.array([math.nan if c is None else c.period for c in curves])
    usable = [curve for curve in curves if curve is not None]
    peaks = sorted((c for c in usable if c.peak), key=lambda curve: curve.period)
    reasons = {curve.reason for curve in usable}
    median_curve = peaks[len(peaks) // 2] if peaks else usable[0]
    peak = median_curve.peak
    nm = image.mean_pixel_size_nm
    middle = p10 = p90 = step = interval = interval_nm = height = None
    if peak is not None:
        middle, p10, p90 = np.nanpercentile(values, (50, 10, 90)).tolist()
        step = 1 / peak.frequency - 1 / (peak.frequency + peak.step)
        at, curve = median_curve.frequency, median_curve.of_filtered
        height = float(np.interp(peak.frequency, at, curve))
        # of a median: sqrt(pi / 2) times that of a mean
        sd = float(np.median([curve.sd for curve in peaks]))
        reach = peak.compute_reach(sd * min(1, math.sqrt(math.pi / 2 / len(peaks))))
        low, high = interval = middle / reach, middle * reach
        if nm is not None:
            error = core.compute_length_error(image)
            interval_nm = core.widen_interval(middle * nm, (low * nm, high * nm), error)
    if side is None:
        p10 = p90 = None
    in_nm = [None if v is None or nm is None else v * nm for v in (middle, p10, p90)]
    where = "whole image" if side is None else f"median over blocks of {side} px"
    scatter = "the interval covers scatter, not the difference between methods"
    return Decorrelation(
        resolution_px=middle,
        resolution_nm=in_nm[0],
        step_px=step,
        interval_px=interval,
        interval_nm=interval_nm,
        p10_px=p10,
        p90_px=p90,
        p10_nm=in_nm[1],
        p90_nm=in_nm[2],
        reason=None if peaks else next(r for r in NO_CUT_OFF if r in reasons),
        method=f"{_METHODS[options.method]}, {where}; {scatter}",
        blocks=len(usable),
        failed=len(usable) - len(peaks),
        gaps=len(curves) - len(usable),
        block=side,
        values_px=values.reshape(grid),
        peak=height,
        frequency_per_px=median_curve.frequency,
        correlation=median_curve.plain,
        filtered=median_curve.of_filtered,
        sigma_px=peak.sigma if peak and math.isfinite(peak.sigma) else None,
    )


def _analyse_block(
    values: core.FloatArray, pitch: core.FloatPair, published: bool
) -> _Curve:
    """Find the cut-off of a gap-free block, and its scatter."""
    shape = values.shape[0], values.shape[1]
    mean = float(values.mean())
    most = float(np.abs(values - mean).max())
    window = core.tukey_window_2d(shape, _TUKEY)
    if published:
        window = np.outer(*map(_taper_edges, shape))
    tapered = (values - mean) * window
    if published:  # the mean is kept, and both sides are odd
        tapered = (tapered + mean)[: (shape[0] - 1) | 1, : (shape[1] - 1) | 1]
        shape = tapered.shape[0], tapered.shape[1]
    half = fft.rfft2(tapered, workers=core.count_available_cores())
    amplitude: core.FloatArray = np.abs(half)
    del half, tapered
    rings = core.create_rings(shape, pitch)
    frequency = rings.frequency[1 : rings.complete]
    weights = rings.multiplicity
    parts = amplitude * weights, amplitude**2 * weights, weights
    grouped = _sum_groups(rings, parts)

    def draw(shares: core.FloatArray) -> _Spectrum:
        return _Spectrum(rings, frequency, *(shares @ part for part in grouped))

    spectrum = draw(np.ones(_DRAWS))
    plain = spectrum.correlate(np.array([np.inf]))[0]
    # share of the mean: smaller differences are rounding of doubles
    if most <= 1e-13 * abs(mean):
        return _Curve(frequency, 0 * plain, 0 * plain, "no-signal")
    standard = ((values - mean) / most).astype(np.float32)
    if is_periodic(standard[None])[0]:  # its few lines among rings of noise
        return _Curve(frequency, plain, plain, "periodic")
    search = _search_as_published if published else _search
    peak = search(_sort_samples(rings, parts) if published else spectrum)
    if peak is None:
        has_signal = _has_signal(spectrum, window)
        reason: Reason = "beyond-nyquist" if has_signal else "no-signal"
        return _Curve(frequency, plain, plain, reason)
    if round(peak.frequency / rings.bin_width) < _MIN_PERIODS:
        return _Curve(frequency, plain, plain, "too-small")
    shares = np.random.default_rng(1).standard_exponential((_DRAWS, _DRAWS))
    drawn = [found.frequency for share in shares if (found := search(draw(share)))]
    sd = float(np.log(drawn).std()) if len(drawn) > _DRAWS / 2 else math.inf
    filtered = spectrum.correlate(np.array([peak.sigma]))[0]
    reach = peak.compute_reach(sd)
    if not core.is_determined((1 / reach, reach), 1.0):
        return _Curve(frequency, plain, filtered, "undetermined")
    return _Curve(frequency, plain, filtered, None, peak, sd)


def _sum_groups(
    rings: core.Rings, parts: tuple[core.FloatArray, ...]
) -> list[core.FloatArray]:
    """Sum half-planes over the rings of random groups of samples (G, K)."""
    count = rings.frequency.size
    group = np.random.default_rng(0).integers(_DRAWS, size=rings.index.size)
    place = rings.index.ravel() + count * group
    sums = (np.bincount(place, part.ravel(), count * _DRAWS) for part in parts)
    shape = _DRAWS, count
    return [part.astype(float).reshape(shape)[:, 1 : rings.complete] for part in sums]


def _sort_samples(rings: core.Rings, parts: tuple[core.FloatArray, ...]) -> _Spectrum:
    """Sort half-planes by frequency, which the authors' program ends at the rim."""
    sides = zip(rings.shape, rings.pitch, strict=True)
    rows, columns = (np.fft.fftfreq(n, pitch * (1 - 1 / n)) for n, pitch in sides)
    radius = np.hypot(rows[:, None], columns[: rings.index.shape[1]]).ravel()
    order = np.argsort(radius)
    order = order[: np.searchsorted(radius[order], rings.nyquist)]
    return _Spectrum(rings, radius[order], *(part.ravel()[order] for part in parts))


def _search(spectrum: _Spectrum) -> _Peak | None:
    """Find the outermost peak of all filters; None if none has a peak."""
    coarsest = max(spectrum.rings.shape) / 4
    sigmas = np.geomspace(coarsest, _FINEST_PX, _FILTERS)
    sigmas = np.concatenate([[np.inf], sigmas])
    peaks = [_find_outermost_peak(row) for row in spectrum.correlate(sigmas)]
    # second round between the neighbours of the best filter, where the last peak
    # vanishes
    best = len(peaks) - 1 - int(np.argmax(peaks[::-1]))
    limits = sigmas[max(1, best - 1)], sigmas[min(best + 1, _FILTERS)]
    finer = np.geomspace(*limits, _FILTERS)
    sigmas = np.concatenate([sigmas, finer])
    peaks += [_find_outermost_peak(row) for row in spectrum.correlate(finer)]
    at = max(peaks)
    if at < 0:
        return None
    frequency, sigma = spectrum.frequency, float(sigmas[peaks.index(at)])
    return _Peak(float(frequency[at]), float(frequency[0]), sigma)


def _search_as_published(spectrum: _Spectrum) -> _Peak | None:
    """Find the outermost peak as the authors' program does, with its constants."""
    low: list[_Peak] = []

    def find_peaks(filters: core.FloatArray, radii: core.FloatArray) -> list[_Peak]:
        radii, peaks = radii * spectrum.rings.nyquist, []
        for sigma in filters:
            curve = spectrum.correlate(np.array([sigma]), radii)[0]
            curve = np.floor(1000 * curve) / 1000
            at = max(_find_outermost_peak(curve), 0)
            peaks.append(_Peak(float(radii[at]), float(radii[1] - radii[0]), sigma))
            low.extend(peaks[-1:] if curve[at] < 0.05 else ())
        return peaks

    radii, rows = np.linspace(0, 1, 50), spectrum.rings.shape[0]
    peaks = find_peaks(np.array([np.inf]), radii)
    first = peaks[0].frequency / spectrum.rings.nyquist
    coarsest = 2 / first if first else max(spectrum.rings.shape) / 2
    sigmas = np.geomspace(coarsest, _FINEST_PX, 10)
    sigmas = 2 / math.pi * np.concatenate([[rows, rows / 4], sigmas])
    peaks += find_peaks(sigmas[1:], radii)
    best, place = max((peak.frequency, place) for place, peak in enumerate(peaks))
    radius = best / spectrum.rings.nyquist
    place -= place >= sigmas.size - 2
    finer = np.geomspace(sigmas[place], sigmas[place + 1], 10)
    ends = max(radius - radii[1], 0), min(radius + 0.4, 1)
    # the second round is stored over the last curve of the first
    peaks = [*peaks[:-1], *find_peaks(finer, np.linspace(*ends, radii.size))]
    high = [peak for peak in peaks if peak.frequency and peak not in low]
    return max(high, key=lambda peak: peak.frequency, default=None)


def _taper_edges(side: int) -> core.FloatArray:
    """Return the weights (side,) with which the authors' program tapers edges."""
    inward = side / 2 - np.abs(np.linspace(-side / 2, side / 2, side))
    share = inward / inward[inward < _EDGE_PX].max()
    return np.asarray((1 - np.cos(np.pi * np.minimum(share, 1))) / 2)


def _find_outermost_peak(curve: core.FloatArray) -> int:
    """Return the index of the last running maximum before a drop; -1 if none."""
    records = np.flatnonzero(np.diff(np.maximum.accumulate(curve), prepend=-1.0))
    drops = curve[records] - np.minimum.reduceat(curve, records)
    # smallest drop after a peak, as in Descloux
    peaks = records[drops > 5e-4]
    return int(peaks[-1]) if peaks.size else -1


def _has_signal(spectrum: _Spectrum, window: core.FloatArray) -> bool:
    """Check whether coarse detail has significantly more power than fine detail."""
    power, samples = spectrum.power, spectrum.samples
    coarse = spectrum.frequency < spectrum.frequency[-1] / 2
    counts = samples[coarse].sum(), samples[~coarse].sum()
    means = power[coarse].sum() / counts[0], power[~coarse].sum() / counts[1]
    independent = float((window**2).mean() ** 2 / (window**4).mean()) / 2
    error = math.sqrt(sum(1 / (independent * count) for count in counts))
    return bool(means[0] / max(means[1], _TINY) - 1 > _SIGNAL * error)
