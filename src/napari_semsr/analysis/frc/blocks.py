"""From ring sums to a crossing, its spread and a reason, for a batch of pairs."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from napari_semsr.analysis.frc.crossing import Estimator, Question, read_crossing
from napari_semsr.analysis.frc.periodicity import is_periodic
from napari_semsr.analysis.frc.rings import (
    Geometry,
    RingSums,
    is_coloured,
    plan_geometry,
    sum_rings,
)
from napari_semsr.analysis.frc.validity import (
    REASONS,
    Criterion,
    Reason,
    code_of,
    judge,
    threshold_curve,
)
from napari_semsr.core import (
    BoolArray,
    Float32Array,
    FloatArray,
    FloatPair,
)

# Relative error of a crossing that no ring statistics explain (one sigma). With it the
# 95 % intervals held the truth in 96 % of the blocks of 64 px and 97 % of those of
# 128 px, measured as `benchmarks/frc_accuracy.py` does ("in interval").
_MODEL_FLOOR = 0.03

# A crossing inside this ring is coarser than half of the block, hence has less than two
# periods in it; chosen, and told to users in docs/frc.md.
_SMALLEST_RING = 2.0


@dataclass(frozen=True, slots=True)
class Estimates:
    """Crossings of a batch of pairs."""

    crossing: FloatArray  # (B,) Cycles per mean pixel; NaN where there is none
    spread: FloatArray  # (B,) Standard deviation of the crossing's logarithm
    code: NDArray[np.uint8]  # (B,) Codes of reasons; 0 where there is a crossing


def _estimate(
    sums: RingSums, geometry: Geometry, code: NDArray[np.uint8], question: Question
) -> Estimates:
    """Find the crossing of each curve that may be read; `code` (B,)."""
    rings = geometry.rings.complete
    curve = sums.correlation[:, :rings]
    threshold = threshold_curve(
        question.criterion, geometry.rings.samples[:rings], reference=question.reference
    )
    if question.single:
        threshold = _half_threshold(threshold)
    final = code.copy()
    crossing = np.full(code.shape, np.nan)
    spread = np.full(code.shape, np.nan)
    ready = np.flatnonzero(code == 0)
    if ready.size:
        found = read_crossing(curve[ready], geometry, threshold, question)
        crossing[ready], spread[ready] = found.crossing, found.spread
        small = found.crossing < _SMALLEST_RING * geometry.rings.bin_width
        missing = np.where(found.above, code_of("beyond-nyquist"), code_of("no-signal"))
        final[ready[small]] = code_of("too-small")
        lost = ~np.isfinite(found.crossing)
        final[ready[lost]] = missing[lost]
    kept = final == 0
    return Estimates(
        np.where(kept, crossing, np.nan),
        np.where(kept, np.hypot(spread, _MODEL_FLOOR), np.nan),
        final,
    )


# Correlate batches of blocks: the one path that whole images and maps both take.

# Smallest side of a pair of blocks that is measured at all, in pixels: eight rings, for
# a curve of three parameters; chosen, and told to users in docs/frc.md. Of oblong
# pixels the coarser axis counts, since what matters is the number of rings.
_MINIMUM_SIDE = 16

_SMALLEST_PLANE = 2  # follows from `plan_rings`: less has no ring


@dataclass(frozen=True, slots=True)
class Measurement:
    """Correlations of a batch of block pairs on one grid."""

    crossing: FloatArray  # (B,) Cycles per mean pixel of the images; NaN without one
    spread: FloatArray  # (B,) Standard deviation of the crossing's logarithm
    code: NDArray[np.uint8]  # (B,) Codes of reasons; 0 where there is a crossing
    # (K,) Rings up to Nyquist, ring 0 left out
    frequency: FloatArray
    threshold: FloatArray
    samples: FloatArray
    # (B, K) Their correlations; for split images that of two exposures like them
    correlation: FloatArray
    sums: RingSums  # The sums behind them, all rings

    @property
    def reasons(self) -> tuple[Reason | None, ...]:
        """Reason of each pair in words."""
        return tuple(REASONS[code - 1] if code else None for code in self.code)


def _reduced(stack: NDArray[np.floating]) -> NDArray[np.floating]:
    """Crop to even sides, which a split needs."""
    rows, columns = (size - size % 2 for size in stack.shape[1:])
    return stack[:, :rows, :columns]


def _periodic(
    first: Float32Array,
    second: Float32Array | None,
    mask: BoolArray,
) -> BoolArray:
    """Test the pairs of a mask for gratings; halves of one image when it is alone."""
    found = np.zeros(mask.shape, bool)
    a = first[mask]
    found[mask] = (
        is_periodic(a[:, ::2, ::2], a[:, 1::2, 1::2], diagonal=True)
        if second is None
        else is_periodic(a, second[mask])
    )
    return found


def _standardise(stack: NDArray[np.floating]) -> tuple[Float32Array, FloatArray]:
    """Take off each block's mean and divide by its standard deviation.

    `stack` (B, Y, X); gives (B, Y, X), blocks of mean 0 and deviation 1; constant
    blocks are all 0, blocks with NaN or infinite pixels too, (B,), the deviations; 0
    for constant blocks, NaN where a pixel was not finite.
    """
    flat = stack.reshape(stack.shape[0], -1)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = flat.mean(axis=1)
        centred = flat - mean[:, None]
        peak = np.ones(len(flat))
        if stack.dtype != np.float32:
            peak = np.abs(centred).max(axis=1)
            centred /= np.where((peak > 0) & np.isfinite(peak), peak, 1)[:, None]
        centred = centred.astype(np.float32, copy=False)
        sd = np.sqrt(np.vecdot(centred, centred).astype(np.float64) / flat.shape[1])
    level = np.where(np.isfinite(mean), np.abs(mean), 0)
    good = np.isfinite(sd) & (sd * peak > level * 1e-6)
    if not good.all():
        centred[~good] = 0
    centred *= (1 / np.where(good, sd, 1)).astype(np.float32)[:, None]
    deviation = np.where(np.isfinite(sd), np.where(good, sd, 0) * peak, np.nan)
    return centred.reshape(stack.shape), deviation


def measure(
    first: NDArray[np.floating],
    second: NDArray[np.floating] | None,
    *,
    pitch: FloatPair = (1.0, 1.0),
    tukey: float = 0.5,
    criterion: Criterion = "1/7",
    estimator: Estimator = "exact",
    reference: bool = False,
) -> Measurement:
    """Correlate a batch of blocks pair by pair, or each with itself split.

    `first` (B, Y, X); `second` (B, Y, X); `pitch`: ``(y, x)`` relative pixel pitch;
    `reference`: `second` is nearly free of noise.
    """
    if second is None:
        first = _reduced(first)
    shape = (first.shape[1], first.shape[2])
    half = (shape[0] // 2, shape[1] // 2)
    if min(half if second is None else shape) < _SMALLEST_PLANE:
        return _too_small(len(first))
    geometry = plan_geometry(half if second is None else shape, pitch, tukey)
    a, sd = _standardise(first)
    valid = np.isfinite(sd) & (sd > 0)
    question = Question(criterion, estimator, reference, second is None)
    if second is None:
        sums = _diagonal_sums(a, geometry)
        code = _status(sums, geometry, valid, a, None)
        found = _estimate(sums, geometry, code, question)
        found = _accept(found, geometry, a, plan_geometry(shape, pitch, tukey))
        return _report(found, sums, geometry, question, scale=0.5)
    b, other = _standardise(second)
    valid &= np.isfinite(other) & (other > 0)
    sums = sum_rings(a, b, geometry)
    code = _status(sums, geometry, valid, a, b, reference=reference)
    found = _estimate(sums, geometry, code, question)
    return _report(found, sums, geometry, question, scale=1.0)


def _too_small(count: int) -> Measurement:
    """Say that blocks are too small to have a single ring."""
    none, empty = np.full(count, np.nan), np.zeros((count, 0))
    return Measurement(
        crossing=none,
        spread=none,
        code=np.full(count, code_of("too-small"), np.uint8),
        frequency=empty[0],
        threshold=empty[0],
        samples=empty[0],
        correlation=empty,
        sums=RingSums(empty, empty, empty, np.zeros(count), np.zeros((count, 2))),
    )


def _status(
    sums: RingSums,
    geometry: Geometry,
    valid: BoolArray,
    a: Float32Array,
    b: Float32Array | None,
    *,
    reference: bool = False,
) -> NDArray[np.uint8]:
    """Codes of the status rules, blocks that are too small included."""
    difference = np.ones(valid.shape)
    if b is not None:
        apart = (a - b).reshape(len(a), -1)
        difference = np.vecdot(apart, apart) / np.float64(apart.shape[1])
    code = judge(
        sums,
        geometry,
        valid=valid,
        difference=difference,
        periodic=partial(_periodic, a, b),
        reference=reference,
    )
    if geometry.rings.complete <= _MINIMUM_SIDE // 2:
        code[valid & (code != code_of("identical"))] = code_of("too-small")
    return code


def _accept(
    found: Estimates, geometry: Geometry, a: Float32Array, whole: Geometry
) -> Estimates:
    """Keep crossings of split images only where the split can be trusted."""
    code = found.code.copy()
    code[(code == 0) & is_coloured(a, whole)] = code_of("correlated-noise")
    high = found.crossing > _NYQUIST_SHARE * geometry.rings.nyquist
    code[(code == 0) & high] = code_of("beyond-nyquist")
    return Estimates(
        np.where(code == 0, found.crossing, np.nan),
        np.where(code == 0, found.spread, np.nan),
        code,
    )


def _report(
    found: Estimates,
    sums: RingSums,
    geometry: Geometry,
    question: Question,
    *,
    scale: float,
) -> Measurement:
    """Cut the curves at Nyquist and state them for the whole image's pixels."""
    rings = slice(1, geometry.rings.complete)
    samples = geometry.rings.samples[rings]
    curve = sums.correlation[:, rings]
    return Measurement(
        crossing=found.crossing * scale,
        spread=found.spread,
        code=found.code,
        frequency=geometry.rings.frequency[rings] * scale,
        threshold=threshold_curve(
            question.criterion, samples, reference=question.reference
        ),
        samples=samples,
        correlation=_equivalent(curve) if question.single else curve,
        sums=sums,
    )


# Single-image correlation: diagonal halves of one image, put back on one grid.
#
# One image is split into its four interleaved sub-images. Those on a diagonal make a
# pair: (even, even) with (odd, odd), and (even, odd) with (odd, even). The halves of a
# pair are half a sub-image pixel apart on both axes; a phase ramp takes the shift off.
#
# A half samples the signal four times more sparsely at the same noise per pixel, so
# below its own Nyquist frequency its spectral signal-to-noise is a quarter of that of
# the image. Both are tied by arithmetic, not by an empirical curve: the correlation c
# of the halves stands for the 4c / (1 + 3c) that two exposures like this one would
# have. That holds for noise that is white from pixel to pixel, and only there.

# Spectral signal-to-noise of the image over that of one of its halves: four pixels of
# the image to one of a half; c = 4c' / (1 + 3c') above follows from it.
_GAIN = 4.0

# Crossings above this share of the halves' Nyquist frequency are refused: nearer to it
# diagonal splitting was measured to read 22 to 33 % too fine on simulated pairs (3.04
# and 2.14 px where two exposures gave 3.88 and 3.18).
_NYQUIST_SHARE = 0.7


def _diagonal_sums(stack: Float32Array, geometry: Geometry) -> RingSums:
    """Ring sums of both diagonal pairs, pooled; `stack` (B, 2Y, 2X)."""
    ee, eo = stack[:, ::2, ::2], stack[:, ::2, 1::2]
    oe, oo = stack[:, 1::2, ::2], stack[:, 1::2, 1::2]
    rows = np.fft.fftfreq(geometry.rings.shape[0])[:, None]
    columns = np.fft.rfftfreq(geometry.rings.shape[1])[None, :]
    main = np.exp(-1j * np.pi * (rows + columns)).astype(np.complex64)
    anti = np.exp(-1j * np.pi * (rows - columns)).astype(np.complex64)
    return sum_rings(ee, oo, geometry, main) + sum_rings(eo, oe, geometry, anti)


def _equivalent(curve: FloatArray) -> FloatArray:
    """Correlation that two exposures like the split image would have."""
    size = np.abs(curve)
    result: FloatArray = np.sign(curve) * _GAIN * size / (1 + (_GAIN - 1) * size)
    return result


def _half_threshold(threshold: FloatArray) -> FloatArray:
    """Correlation of the halves at which the image itself meets a threshold."""
    result: FloatArray = threshold / (_GAIN - (_GAIN - 1) * threshold)
    return result
