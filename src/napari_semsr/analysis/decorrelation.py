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
is as fine as the rings are.

.. [1] A. Descloux, K. S. Grußmayer, A. Radenovic, Nat. Methods 16, 918 (2019),
   doi:10.1038/s41592-019-0515-7.
"""

import itertools
import math
from dataclasses import dataclass, replace
from typing import Annotated

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
_WHOLE_PX = 4096**2  # largest area analysed as a whole; specified
_BLOCK = 2048  # side of the blocks; specified
_TUKEY = 0.25  # tapered share of the window; chosen: little leakage, narrow rings
_FILTERS = 20  # filters in each of two rounds; chosen: cheap here (Descloux: 10)
_FINEST_PX = 0.15  # width of the weakest filter, as in Descloux
_DROP = 5e-4  # smallest drop after a peak, as in Descloux
# Standard deviations by which coarse power exceeds fine power if there is a signal;
# chosen: white noise reaches it once in a million images
_SIGNAL = 5.0
_FLAT = 1e-13  # share of the mean: smaller differences are rounding of doubles
# Periods across the image: fewer than the first give no result, fewer than the second a
# warning. Simulated images of 128 and 256 px with a signal-to-noise ratio of 20 are
# measured 10 to 50 % too fine below the first, and a few per cent above it
_MIN_PERIODS, _PERIODS = 10, 40
_TINY = 1e-300  # added to denominators, so that 0 / 0 is 0
_BYTES_PER_PX = 44.0  # measured: growth of peak memory, 4096 x 4096 px

# Reasons, in order of precedence among the blocks
_REASONS: tuple[Reason, ...] = ("beyond-nyquist", "too-small", "periodic", "no-signal")

_METHOD = "decorrelation analysis (assumes white noise and a band-limited signal)"

NO_CUT_OFF: dict[str, str] = {
    "no-signal": "no contrast, or nothing but noise",
    "periodic": "a grating or lattice, whose few spectral lines show no cut-off",
    "beyond-nyquist": "finer than two pixels, or hidden by noise",
    "too-small": "less than ten periods wide: use a larger part of the image",
}
"""Explanation of each reason for a missing cut-off."""


class DecorrelationOptions(core.Options):
    """Options for decorrelation analysis."""

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
    within="", reason="why", verdict="verdict", large=True)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Decorrelation:
    """Cut-off period of an image, or its median over several blocks.

    `interval` extends from the previous to the next ring, in nm including the error of
    the pixel size; `p10` and `p90` are percentiles of the blocks. `reason` is
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
    step_px: Annotated[float | None, core.declare_quantity("Step of the rings", "px")]
    interval_px: Annotated[
        core.FloatPair | None,
        core.declare_quantity("From the previous to the next ring"),
    ]
    interval_nm: Annotated[
        core.FloatPair | None,
        core.declare_quantity("From the previous to the next ring"),
    ]
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

    measured_in = core.create_property(core.describe_measured_box, "Measured in")

    @property
    def verdict(self) -> str:
        """Assessment of the cut-off."""
        words = describe_nyquist_ratio(self.resolution_px)
        if self.resolution_px is not None:
            periods = 1 / (self.resolution_px * float(self.frequency_per_px[0]))
            if periods < _PERIODS:
                words += (
                    f"; the image spans only {periods:.0f} periods, but {_PERIODS} "
                    "are needed"
                )
        return words

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
        """Number and size of the blocks and number of failed blocks, as text."""
        if self.block is None:
            return None
        lack = (
            f"{self.failed} without a cut-off, {self.gaps} more skipped because of gaps"
        )
        return f"{self.blocks} blocks of {self.block} px, {lack}"


@dataclass(frozen=True, slots=True)
class _Curve:
    """Decorrelation curve of one block."""

    frequency: core.FloatArray
    plain: core.FloatArray
    of_filtered: core.FloatArray
    at: int  # index of the ring of the cut-off; -1 without one
    sigma: float | None
    reason: Reason | None

    @property
    def period(self) -> float:
        """Cut-off period in pixels; NaN if there is none."""
        return math.nan if self.at < 0 else float(1 / self.frequency[self.at])


def measure_decorrelation(
    image: core.Micrograph, options: DecorrelationOptions | None = None
) -> core.Job[Decorrelation]:
    """Measure the cut-off of an image by decorrelation analysis.

    The image needs 64 px or more on each side. An image analysed as a whole must not
    have missing pixels; blocks with a gap are ignored. Without a cut-off `reason` is
    set.
    """
    side = (options or DecorrelationOptions()).block
    if side is None and image.shape[0] * image.shape[1] > _WHOLE_PX:
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
        core.require_memory(image.name, image.shape, _BYTES_PER_PX)
        return _summarise_curves(
            image, [_find_peak(read_finite_array(image), pitch)], (1, 1), None, 0
        )
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
        values = core.read_box(
            image.data, core.Box.from_shape((side, side), (y, x))
        ).astype(np.float64)
        is_finite = bool(np.isfinite(values).all())
        curves.append(_find_peak(values, pitch) if is_finite else None)
    usable = [curve for curve in curves if curve is not None]
    if not usable:
        msg = (
            f"All {len(curves)} blocks of {side} px in {image.name} contain gaps; use "
            "smaller blocks (`block`) or crop to a gap-free area."
        )
        raise core.ShapeError(msg, code="gaps-everywhere")
    return _summarise_curves(image, curves, grid, side, len(curves) - len(usable))


def _summarise_curves(
    image: core.Micrograph,
    curves: "list[_Curve | None] | list[_Curve]",
    grid: core.IntPair,
    side: int | None,
    gaps: int,
) -> Decorrelation:
    values = np.array([math.nan if c is None else c.period for c in curves])
    usable = [curve for curve in curves if curve is not None]
    peaks = sorted((c for c in usable if c.at >= 0), key=lambda curve: curve.period)
    reasons = {curve.reason for curve in usable}
    median_curve = peaks[len(peaks) // 2] if peaks else usable[0]
    nm = image.mean_pixel_size_nm
    middle = p10 = p90 = step = interval = interval_nm = None
    if peaks:
        middle, p10, p90 = np.nanpercentile(values, (50, 10, 90)).tolist()
        ring = float(median_curve.frequency[median_curve.at])
        width = float(median_curve.frequency[0])
        step = 1 / ring - 1 / (ring + width)  # error: the step to the next ring
        low, high = interval = middle - step, middle + 1 / (ring - width) - 1 / ring
        if nm is not None:
            error = core.compute_length_error(image)
            interval_nm = core.widen_interval(middle * nm, (low * nm, high * nm), error)
    if side is None:
        p10 = p90 = None
    in_nm = [None if v is None or nm is None else v * nm for v in (middle, p10, p90)]
    where = "whole image" if side is None else f"median over blocks of {side} px"
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
        reason=None if peaks else next(r for r in _REASONS if r in reasons),
        method=f"{_METHOD}, {where}, Tukey window {_TUKEY:g}",
        blocks=len(usable),
        failed=len(usable) - len(peaks),
        gaps=gaps,
        block=side,
        values_px=values.reshape(grid),
        peak=float(median_curve.of_filtered[median_curve.at]) if peaks else None,
        frequency_per_px=median_curve.frequency,
        correlation=median_curve.plain,
        filtered=median_curve.of_filtered,
        sigma_px=median_curve.sigma,
    )


def _find_peak(values: core.FloatArray, pitch: core.FloatPair) -> _Curve:
    """Find the outermost peak in the decorrelation curves of a gap-free block."""
    rings = core.create_rings((values.shape[0], values.shape[1]), pitch)
    window = core.tukey_window_2d((values.shape[0], values.shape[1]), _TUKEY)
    mean = float(values.mean())
    most = float(np.abs(values - mean).max())
    half = fft.rfft2((values - mean) * window, workers=core.count_available_cores())
    plane: core.FloatArray = np.square(half.real)
    plane += np.square(half.imag)
    complete = slice(1, rings.complete)
    amplitude = rings.sum_rings(np.sqrt(plane))[complete]
    power = rings.sum_rings(plane)[complete]
    samples, frequency = rings.samples[complete], rings.frequency[complete]
    inside = np.sqrt(np.cumsum(samples))

    def compute_curves(sigmas: core.FloatArray) -> core.FloatArray:
        gain = -np.expm1(-2 * (np.pi * sigmas[:, None] * frequency) ** 2)
        whole = np.sqrt((power * gain**2).sum(axis=1, keepdims=True))
        within = np.cumsum(amplitude * gain, axis=1)
        correlations: core.FloatArray = within / (np.maximum(whole, _TINY) * inside)
        return correlations

    plain = compute_curves(np.array([np.inf]))[0]
    if most <= _FLAT * abs(mean):
        return _Curve(frequency, 0 * plain, 0 * plain, -1, None, "no-signal")
    standard = ((values - mean) / most).astype(np.float32)
    if is_periodic(standard[None])[0]:  # its few lines among rings of noise
        return _Curve(frequency, plain, plain, -1, None, "periodic")
    coarsest = max(values.shape) / 4
    sigmas = np.geomspace(coarsest, _FINEST_PX, _FILTERS)
    sigmas = np.concatenate([[np.inf], sigmas])
    peaks = [_find_outermost_peak(row) for row in compute_curves(sigmas)]
    # second round between the neighbours of the best filter, where the last peak
    # vanishes
    best = len(peaks) - 1 - int(np.argmax(peaks[::-1]))
    beside = sigmas[max(1, best - 1)], sigmas[min(best + 1, _FILTERS)]
    finer = np.geomspace(*beside, _FILTERS)
    sigmas = np.concatenate([sigmas, finer])
    peaks += [_find_outermost_peak(row) for row in compute_curves(finer)]
    at = max(peaks)
    if at < 0:
        has_signal = _has_signal(power, samples, frequency, window)
        reason: Reason = "beyond-nyquist" if has_signal else "no-signal"
        return _Curve(frequency, plain, plain, -1, None, reason)
    if at + 1 < _MIN_PERIODS:
        return _Curve(frequency, plain, plain, -1, None, "too-small")
    sigma = float(sigmas[peaks.index(at)])
    best_curve = compute_curves(np.array([sigma]))[0]
    width = sigma if math.isfinite(sigma) else None
    return _Curve(frequency, plain, best_curve, at, width, None)


def _find_outermost_peak(curve: core.FloatArray) -> int:
    """Return the index of the last running maximum before a drop; -1 if none."""
    records = np.flatnonzero(curve >= np.maximum.accumulate(curve))
    drops = curve[records] - np.minimum.reduceat(curve, records)
    peaks = records[drops > _DROP]
    return int(peaks[-1]) if peaks.size else -1


def _has_signal(
    power: core.FloatArray,
    samples: core.FloatArray,
    frequency: core.FloatArray,
    window: core.FloatArray,
) -> bool:
    """Check whether coarse detail has significantly more power than fine detail."""
    coarse = frequency < frequency[-1] / 2
    counts = samples[coarse].sum(), samples[~coarse].sum()
    means = power[coarse].sum() / counts[0], power[~coarse].sum() / counts[1]
    independent = float((window**2).mean() ** 2 / (window**4).mean()) / 2
    error = math.sqrt(sum(1 / (independent * count) for count in counts))
    return bool(means[0] / max(means[1], _TINY) - 1 > _SIGNAL * error)
