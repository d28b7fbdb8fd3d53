"""FRC crossings of block-pair batches, with their spread or failure reason.

Whole images and maps both use this code. `correlate_blocks`

1. standardises the blocks, which leaves out constant and incomplete ones;
2. sums their spectra over rings (`napari_semsr.analysis.frc.rings`), and measures the
   noise of halves relative to the whole image;
3. classifies the curves (`napari_semsr.analysis.frc.validity`);
4. estimates the crossings of the valid ones (`napari_semsr.analysis.frc.crossing`);
5. converts curves and crossings of halves to those of the whole image.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from napari_semsr import core
from napari_semsr.analysis.frc import validity
from napari_semsr.analysis.frc.crossing import (
    FIXED_THRESHOLD,
    Criterion,
    Crossings,
    Estimator,
    FrcCriterion,
)
from napari_semsr.analysis.frc.rings import Geometry, RingSums, plan_geometry

# The period of a crossing inside this ring exceeds half of the block, so that less than
# two periods fit into it; chosen, and documented in docs/frc.md.
_SMALLEST_RING = 2.0


_CODES = {reason: validity.get_reason_code(reason) for reason in validity.REASONS}
_SHARED, _UNDETERMINED = _CODES["correlated-noise"], _CODES["undetermined"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Correlations of a batch of block pairs on a common grid."""

    # (B,) Cycles per mean pixel of the images; NaN without one
    crossing: core.FloatArray
    # (B,) Standard deviation of the crossing's logarithm, and its part not due to noise
    spread: core.FloatArray
    misfit: core.FloatArray
    code: NDArray[np.uint8]  # (B,) Codes of reasons; 0 if there is a crossing
    # (K,) Rings up to Nyquist, without ring 0
    frequency: core.FloatArray
    threshold: core.FloatArray
    samples: core.FloatArray
    # (B, K) Correlations of the rings; for a split image those of two such exposures,
    # for halves those of two images like the whole
    correlation: core.FloatArray
    sums: RingSums  # Sums over all rings, from which the correlations are computed
    incomplete: core.BoolArray  # (B,) Whether a block has a non-finite pixel
    under_lens: core.BoolArray  # (B,) Whether fitted with the known optical cut-off


def correlate_blocks(
    first: NDArray[np.floating],
    second: NDArray[np.floating] | None,
    *,
    whole: NDArray[np.floating] | None = None,
    is_thinned: bool = False,
    shift: core.FloatPair | None = None,
    pitch: core.FloatPair = (1.0, 1.0),
    tukey: float = 0.5,
    criterion: Criterion = "1/7",
    estimator: Estimator = "exact",
    reference: bool = False,
    end: float | None = None,
) -> Measurement:
    """Correlate pairs of blocks, or the two halves of each block.

    `first` (B, Y, X); `second` (B, Y, X); `whole` (B, Y, X): the average of both, in
    the same units; its resolution is measured instead of theirs; `is_thinned`: the pair
    are halves of the counts of one image, whose resolution is measured; `shift`: ``(y,
    x)`` in pixels, at most half a pixel, by which `second` is moved; `pitch`: ``(y,
    x)`` relative pixel pitch; `reference`: `second` is nearly free of noise; `end`:
    optical cut-off in cycles per mean pixel of the images.
    """
    too_small = min(first.shape[1:]) < (2 if second is not None else 4)
    if too_small:  # for a ring
        first, whole = np.zeros((len(first), 4, 4)), None
        second = None if second is None else first
    if second is None:  # a split needs even sides
        rows, columns = (size - size % 2 for size in first.shape[1:])
        first = first[:, :rows, :columns]
    a, sd = _standardise_blocks(first)
    b, other_sd = (None, sd) if second is None else _standardise_blocks(second)
    shape, noise = (first.shape[1], first.shape[2]), None
    block_shape = shape if b is not None else (shape[0] // 2, shape[1] // 2)
    geometry = plan_geometry(block_shape, pitch, tukey)
    sums = _sum_spectra(a, b, geometry, shift)
    if whole is not None:
        noise = _compute_noise_ratios(sums, (sd, other_sd), whole, geometry)
    elif is_thinned:
        noise = np.full((len(first), 2), _NOISE_OF_THINNED)
    valid = (sd > 0) & (other_sd > 0)
    code = validity.classify_curves(
        sums, geometry, a, b, valid=valid, reference=reference
    )
    if is_thinned:
        is_tested = np.isin(code, (0, _CODES["inverted"]))
        code[is_tested & validity.has_anticorrelation(sums, geometry)] = _SHARED
    if too_small:
        code[:] = _CODES["too-small"]
    question = FrcCriterion(criterion, estimator, reference, b is None, end)
    crossings, code = _estimate_crossings(sums, geometry, code, question, noise)
    if b is None:
        _mark_invalid_splits(
            a, code, crossings.crossing, plan_geometry(shape, pitch, tukey)
        )
    # an interval wider than its value, as in `core.is_determined`: 2 sinh(Z95 sd) > 1
    code[(code == 0) & (crossings.spread > np.arcsinh(0.5) / core.Z95)] = _UNDETERMINED
    rings = slice(1, 1 if too_small else geometry.rings.complete)
    curve = sums.correlation[:, rings]
    if b is None:
        curve = _GAIN * curve / (1 + (_GAIN - 1) * np.abs(curve))
    elif noise is not None:
        curve = _compute_whole_correlation(curve, noise)
    # frequencies up to Nyquist, in cycles per pixel of the whole image
    scale, is_good = 0.5 if b is None else 1.0, code == 0
    crossing, spread, misfit = (
        np.where(is_good, one, np.nan)
        for one in (crossings.crossing * scale, crossings.spread, crossings.misfit)
    )
    return Measurement(
        crossing=crossing,
        spread=spread,
        misfit=misfit,
        code=code,
        frequency=geometry.rings.frequency[rings] * scale,
        threshold=question.compute_threshold(geometry.rings.samples[rings]),
        samples=geometry.rings.samples[rings],
        correlation=curve,
        sums=sums,
        incomplete=np.isnan(sd) | np.isnan(other_sd),
        under_lens=is_good & crossings.under_lens,
    )


def _standardise_blocks(
    stack: NDArray[np.floating],
) -> tuple[core.Float32Array, core.FloatArray]:
    """Subtract each block's mean and divide by its standard deviation.

    `stack` (B, Y, X). Returns blocks (B, Y, X) with mean 0 and standard deviation 1 (0
    if constant or not finite), and the standard deviations (B,): 0 if constant, NaN if
    a pixel is not finite.
    """
    flat = stack.reshape(stack.shape[0], -1)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = flat.mean(axis=1)
        flat_centred = flat - mean[:, None]
        # a constant's rounding errors, over those of its type; chosen
        rounding = 8.0 * np.finfo(flat_centred.dtype).eps
        peak = np.ones(len(flat))
        if stack.dtype != np.float32:
            peak = np.abs(flat_centred).max(axis=1)
            flat_centred /= np.where((peak > 0) & np.isfinite(peak), peak, 1)[:, None]
        flat_centred = flat_centred.astype(np.float32, copy=False)
        power = np.vecdot(flat_centred, flat_centred).astype(np.float64)
        sd = np.sqrt(power / flat.shape[1])
    level = np.where(np.isfinite(mean), np.abs(mean), 0)
    good = np.isfinite(sd) & (sd * peak > level * rounding)
    if not good.all():
        flat_centred[~good] = 0
    flat_centred *= (1 / np.where(good, sd, 1)).astype(np.float32)[:, None]
    deviation = np.where(np.isfinite(sd), np.where(good, sd, 0) * peak, np.nan)
    return flat_centred.reshape(stack.shape), deviation


# Single-image correlation: diagonal halves of one image, aligned on one grid.
#
# One image is split into its four interleaved sub-images. Those on a diagonal form a
# pair: (even, even) with (odd, odd), and (even, odd) with (odd, even). The halves of a
# pair are half a sub-image pixel apart on both axes; a phase ramp removes this shift.
#
# A half samples the signal four times more sparsely at the same noise per pixel, so
# below its own Nyquist frequency its spectral signal-to-noise is a quarter of that of
# the image. Both are related exactly, not by an empirical curve: from a correlation c
# of the halves follows that of two exposures like this one, 4c / (1 + 3c). This holds
# only for noise that is white from pixel to pixel.

# Spectral signal-to-noise of the image over that of one of its halves, which has one
# pixel for four of the image; 4c / (1 + 3c) above follows from it.
_GAIN = 4.0

# Crossings above this share of the halves' Nyquist frequency are refused: beyond it,
# diagonal splitting of simulated images gave results 22 to 33 % too fine (3.04 and 2.14
# px instead of 3.88 and 3.18 from two exposures).
NYQUIST_SHARE = 0.7

# Noise counts as white up to this difference of its power; chosen. Three standard
# errors are allowed too, as the power of white noise also varies by chance.
_WHITE_TOLERANCE = 0.15

# Bands of the noise floor below Nyquist and in the corners beyond it, cycles per pixel;
# chosen at high frequencies, where signals are weakest, and at least 0.02 from 0.5.
_INNER_BAND = 0.38, 0.48
_CORNER_BAND = 0.52, 0.68


def _sum_spectra(
    first: core.Float32Array,
    second: core.Float32Array | None,
    geometry: Geometry,
    shift: core.FloatPair | None,
) -> RingSums:
    """Compute the ring sums of pairs (B, Y, X), or of both diagonal pairs of one."""
    if second is not None:
        ramp = None if shift is None else geometry.phase_ramp(shift)
        return geometry.sum_rings(first, second, ramp)
    ee, eo = first[:, ::2, ::2], first[:, ::2, 1::2]
    oe, oo = first[:, 1::2, ::2], first[:, 1::2, 1::2]
    main, anti = geometry.phase_ramp((0.5, 0.5)), geometry.phase_ramp((0.5, -0.5))
    return geometry.sum_rings(ee, oo, main) + geometry.sum_rings(eo, oe, anti)


# Correlation of two mosaics, estimated from two halves of one.
#
# Halves A and B show one signal of power S with noise of powers V_A and V_B,
# independent of each other: they correlate by r = S / sqrt((S + V_A) (S + V_B)). Two
# mosaics would correlate by R = S / (S + V), with V the noise of the mosaic of all
# frames. If that is the plain mean of halves with equal noise, V_A = V_B = 2 V and R =
# 2 r / (1 + r). But frames are weighted, and at the centre of a vignetted frame one
# half has most of the weight: there V_B may be 9 V and V_A hardly more than V. So both
# ratios are measured, block by block: the noise of each of the three images is its
# power minus the cross-power of the halves. This holds for any weights.

# Highest frequency used, in cycles per pixel with the smaller Nyquist frequency at 0.5:
# above it, subpixel shifts reduce the noise of each frame by a different share (Lanczos
# kernel of three lobes: 2 % of the amplitude at 0.3, 14 % at 0.35).
_SMOOTH_BAND = 0.3
# Noise of a half over that of the whole: no half has less than the whole, and with more
# than the upper limit it yields nothing; chosen.
_MIN_NOISE, _MAX_NOISE = 1.0, 100.0
# Half of the counts have a quarter of the signal power and half of the noise power:
# relative to the signal, twice the noise of the image.
_NOISE_OF_THINNED = 2.0


def _compute_noise_ratios(
    sums: RingSums,
    deviations: tuple[core.FloatArray, core.FloatArray],
    whole: NDArray[np.floating],
    geometry: Geometry,
) -> core.FloatArray:
    """Compute the noise power of both halves relative to the whole image, (B, 2).

    `sums` of the standardised halves; `deviations` (B,): the standard deviations by
    which they were divided; `whole` (B, Y, X).
    """
    stack, deviation = _standardise_blocks(whole)
    power = geometry.project(np.square(np.abs(geometry.transform(stack))))
    a, b, c = (np.nan_to_num(item)[:, None] for item in (*deviations, deviation))
    band = slice(1, int(np.searchsorted(geometry.relative_frequency, _SMOOTH_BAND)))
    cross = (sums.cross * a * b)[:, band]
    # where the signal dominates, its scatter hides the noise
    weight = (1 - np.clip(sums.correlation[:, band], 0, 1)) ** 2
    noise_a, noise_b, noise_c = (
        np.maximum((weight * (part[:, band] * scale**2 - cross)).sum(axis=1), 0)
        for part, scale in ((sums.power_a, a), (sums.power_b, b), (power, c))
    )
    ratio = np.stack([noise_a, noise_b], axis=1) / np.maximum(noise_c, 1e-30)[:, None]
    return np.asarray(np.clip(ratio, _MIN_NOISE, _MAX_NOISE))


def _estimate_crossings(
    sums: RingSums,
    geometry: Geometry,
    code: NDArray[np.uint8],
    question: FrcCriterion,
    noise: core.FloatArray | None,
) -> tuple[Crossings, NDArray[np.uint8]]:
    """Estimate the crossing, spread and misfit of each valid curve; `code` (B,).

    `noise` (B, 2): noise power of two halves over that of the whole; the crossing is
    then that of the whole. Returns NaN for invalid curves, and codes of the reasons.
    """
    rings = geometry.rings.complete
    curve = sums.correlation[:, :rings]
    threshold = question.compute_threshold(geometry.rings.samples[:rings])
    floor = np.full(rings, FIXED_THRESHOLD)
    if question.single:
        halves = threshold / (_GAIN - (_GAIN - 1) * np.minimum(threshold, 1))
        threshold = np.where(threshold < 1, halves, threshold)  # 1 is never reached
        floor = floor / (_GAIN - (_GAIN - 1) * floor)
    elif noise is not None:
        threshold = _compute_half_threshold(threshold, noise)
        floor = _compute_half_threshold(floor, noise)
    final = code.copy()
    lacking = [np.full(code.shape, np.nan) for _ in range(3)]
    every = Crossings(*lacking, *(np.zeros(code.shape, bool) for _ in range(2)))
    ready = np.flatnonzero(code == 0)
    if ready.size:
        own, least = (
            level if level.ndim == 1 else level[ready] for level in (threshold, floor)
        )
        crossings = question.find_crossings(curve[ready], geometry, own, least)
        for item in fields(Crossings):
            getattr(every, item.name)[ready] = getattr(crossings, item.name)
        missing = np.where(
            crossings.above, _CODES["beyond-nyquist"], _CODES["no-signal"]
        )
        small = crossings.crossing < _SMALLEST_RING * geometry.rings.bin_width
        final[ready[small]] = _CODES["too-small"]
        without_crossing = ~np.isfinite(crossings.crossing)
        final[ready[without_crossing]] = missing[without_crossing]
    return every, final


def _compute_half_threshold(
    threshold: core.FloatArray, noise: core.FloatArray
) -> core.FloatArray:
    """Convert whole-image thresholds (K,) to thresholds for the halves, (B, K)."""
    level = np.clip(threshold, 0, 1 - 1e-6)
    signal = level / (1 - level)
    halves = signal / np.sqrt((signal + noise[:, :1]) * (signal + noise[:, 1:]))
    return np.where(threshold < 1, halves, threshold)  # 1 and more is never reached


def _mark_invalid_splits(
    stack: core.Float32Array,
    code: NDArray[np.uint8],
    crossing: core.FloatArray,
    full: Geometry,
) -> None:
    """Set the reason codes of images (B, Y, X) with an invalid split."""
    spectrum = full.transform(stack)
    power = full.project(np.square(np.abs(spectrum))) / full.rings.samples
    x, weight = full.relative_frequency, full.effective
    inner, corner = ((x >= a) & (x < b) for a, b in (_INNER_BAND, _CORNER_BAND))
    if inner.any() and corner.any():
        # resampling, filtering or lossy compression colours the noise: the power up to
        # Nyquist differs from that in the corners beyond
        low, beyond = (
            power[:, band] @ weight[band] / weight[band].sum()
            for band in (inner, corner)
        )
        error = np.sqrt(1 / weight[inner].sum() + 1 / weight[corner].sum())
        ratio = np.log(np.maximum(low, 1e-30) / np.maximum(beyond, 1e-30))
        is_coloured = np.abs(ratio) > max(_WHITE_TOLERANCE, 3 * error)
        code[(code == 0) & is_coloured] = _SHARED
    high = crossing > NYQUIST_SHARE * full.rings.nyquist
    code[(code == 0) & high] = _CODES["beyond-nyquist"]


def _compute_whole_correlation(
    curve: core.FloatArray, noise: core.FloatArray
) -> core.FloatArray:
    """Convert half-image correlations to whole-image correlations, (B, K)."""
    square = np.minimum(curve**2, 1 - 1e-9)
    noise_sum, product = noise.sum(axis=1)[:, None], noise.prod(axis=1)[:, None]
    root = np.sqrt((square * noise_sum) ** 2 + 4 * (1 - square) * square * product)
    signal = (square * noise_sum + root) / (2 * (1 - square))
    return np.asarray(np.sign(curve) * signal / (1 + signal))


def has_shared_noise(
    first: core.ReadableArray, second: core.ReadableArray, shift: core.FloatPair
) -> bool:
    """Check whether two images share noise that did not move with the sample.

    `first`, `second` (Y, X), lazy or not; `shift`: ``(y, x)`` in pixels by which to
    move the second.
    """
    middle = core.get_central_box(first.shape, validity.LARGEST_TESTED_PX)
    geometry = plan_geometry(middle.shape, (1.0, 1.0), 0.5)
    parts = (core.read_box(data, middle)[None] for data in (first, second))
    a, b = (_standardise_blocks(part)[0] for part in parts)
    recorded_sums = geometry.sum_rings(a, b)
    at_shift = geometry.sum_rings(a, b, geometry.phase_ramp(shift))
    return bool(validity.has_static_noise(recorded_sums, at_shift, geometry)[0])
