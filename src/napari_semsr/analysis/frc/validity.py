"""Reasons why a resolution is invalid, and the independence of two exposures.

`classify_curves` applies the rules to curves, in order of reliability: blocks without
contrast or with missing pixels, identical blocks, pure gratings (`is_periodic`), no
signal at all, shared noise (`has_plateau`, `_has_stripes`). What curves cannot show is
tested elsewhere: noise that stays in place while the sample moves (`has_static_noise`),
calibration of counts (`has_anticorrelation`), histories (`is_noise_dependent`,
`is_noise_independent`), and correlation beyond that of the signal
(`has_unexplained_correlation`).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal, get_args

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import fft

from napari_semsr import core
from napari_semsr.analysis.frc.rings import LINE_BAND, TINY, Geometry, RingSums

Reason = Literal[
    "no-signal",
    "correlated-noise",
    "identical",
    "periodic",
    "too-small",
    "beyond-nyquist",
    "not-independent",
    "undetermined",
    "inverted",
]

REASONS: tuple[Reason, ...] = get_args(Reason)
"""Reasons why a curve has no valid crossing; code ``i + 1`` is ``REASONS[i]``."""

REASON_TEXTS: dict[str, str] = {
    "no-signal": "nothing but noise, no contrast, or a gap",
    "correlated-noise": "noise is shared, so the correlation never falls",
    "identical": "both images are the same",
    "periodic": "a grating or lattice, for which a ring correlation is meaningless",
    "too-small": "the block is too small for such a coarse resolution",
    "beyond-nyquist": "finer than two pixels, or than one split image can show",
    "not-independent": (
        "two images from one acquisition, or one image that a network made"
    ),
    "undetermined": "its 95 % interval is wider than the resolution itself",
    "inverted": "the second image has inverted contrast: invert one of them",
}
"""Explanation of each reason."""


def get_reason_code(reason: Reason | None) -> int:
    """Return the map code of a reason: its index in `REASONS` plus one, 0 for None."""
    return 0 if reason is None else REASONS.index(reason) + 1


# Validity rules: when a correlation curve yields no resolution, and why.
#
# The rules are applied in order of reliability: blocks without contrast or with missing
# pixels, identical blocks, pure gratings, no signal at all, shared noise. The remaining
# curves may have a crossing.
#
# Share of simulated pairs classified correctly, in blocks of 64 px and whole images of
# 512: no signal 99.8 and 100 %; shared noise of 20 to 80 % 99.2 and 100 %, of 5 % 0 and
# 95 % (hence the field is tested as a whole); identical 100 and 100 %.
# `benchmarks/frc_accuracy.py` (traps) measures whole images; the goal is 99 %.
_POOLED_Z = 3.5  # for rings pooled from the innermost outwards
_BEST_RING_Z = 4.2  # for a single ring; higher, as there are many rings
_PLATEAU_Z = 4.0
_IDENTICAL = 1e-8  # mean square difference: 1e-4 of the standard deviation
# Share of the cross-power in one sample above which the test for gratings is made,
# which takes longer than all others; chosen low enough for a lattice of many lobes
_SUSPECT_PEAK = 0.04
# Stripes: the correlation on a frequency axis is significant, strong, and 2.5 times
# that of the whole band; chosen
_STRIPE_Z = 4.5
_STRIPE = 0.4
_FALL = 0.1  # least loss of correlation on an axis due to a shift; chosen
# Band without optical signal, cycles per pixel, and its parts on both sides of 0.5: for
# noise, neither correlation nor power falls by a quarter from one to the other; that of
# a 1/q² object falls by two fifths; chosen
_BAND = 0.42, 0.66
_INNER = 0.40, 0.50
_CORNER = 0.52, 0.66
_STAYS = 0.75
# Smallest side of a pair of blocks, in pixels: eight rings, for a curve of three
# parameters; chosen, and documented in docs/frc.md. For oblong pixels the coarser axis
# counts, since the number of rings matters.
MINIMUM_SIDE = 16


def classify_curves(
    sums: RingSums,
    geometry: Geometry,
    a: core.Float32Array,
    b: core.Float32Array | None,
    *,
    valid: core.BoolArray,
    reference: bool = False,
) -> NDArray[np.uint8]:
    """Classify each pair's curve as valid, or by the reason why it is invalid.

    `a`, `b` (B, Y, X), standardised blocks; `b` is None if the pair are halves of `a`;
    `valid` (B,), False for constant blocks and blocks with non-finite pixels; returns
    codes (B,).
    """
    difference = np.ones(valid.shape)
    if b is not None:
        apart = (a - b).reshape(len(a), -1)
        difference = np.vecdot(apart, apart) / np.float64(apart.shape[1])
    curve, known = sums.correlation, (geometry.effective, geometry.rings.complete)
    signal = _has_signal(curve, *known)
    plateau = has_plateau(sums, geometry) | _has_stripes(sums, geometry)
    plateau &= not reference
    suspect = signal & (sums.peak > _SUSPECT_PEAK)
    if b is None:
        suspect |= _has_dominant_lobes(a)
    suspect &= valid & (difference >= _IDENTICAL)
    code = np.zeros(valid.shape, np.uint8)
    code[plateau] = get_reason_code("correlated-noise")
    code[~signal & ~plateau] = get_reason_code("no-signal")
    if b is not None:
        opposite = ~signal & ~plateau & _has_signal(-curve, *known)
        code[opposite] = get_reason_code("inverted")
    if suspect.any():
        periodic = is_periodic(a[suspect], None if b is None else b[suspect])
        code[np.flatnonzero(suspect)[periodic]] = get_reason_code("periodic")
    code[difference < _IDENTICAL] = get_reason_code("identical")
    code[~valid] = get_reason_code("no-signal")
    if geometry.rings.complete <= MINIMUM_SIDE // 2:
        differs = code != get_reason_code("identical")
        code[valid & differs] = get_reason_code("too-small")
    return code


def _has_signal(
    curve: core.FloatArray, effective: core.FloatArray, rings: int
) -> core.BoolArray:
    """Check whether a correlation (B, K) exceeds that of noise with (K,) samples."""
    weight = np.broadcast_to(effective, curve.shape)[:, 1:rings]
    values = curve[:, 1:rings]
    if not values.shape[1]:
        return np.zeros(len(curve), bool)
    best = (values * np.sqrt(2 * weight)).max(axis=1, initial=0)
    summed_values = np.cumsum(values * weight, axis=1)
    norm = np.sqrt(np.maximum(np.cumsum(weight, axis=1), 1e-12) / 2)
    last = [4 << k for k in range(16) if 4 << k < rings] or [rings - 1]
    places = np.array(last) - 1
    z = (summed_values[:, places] / norm[:, places]).max(axis=1)
    return np.asarray((best >= _BEST_RING_Z) | (z >= _POOLED_Z))


def has_plateau(
    sums: RingSums, geometry: Geometry, *, copies: float = 1.0
) -> core.BoolArray:
    """Check whether correlation persists at frequencies without any signal.

    Returns (B,), True if the correlation between 0.42 and 0.66 cycles per pixel is
    significant, and neither it nor the cross-power falls towards the corner beyond
    Nyquist, as for shared white noise, unlike signal.
    """
    curve = sums.correlation
    density = sums.cross / geometry.rings.samples
    band, count = _average_band(curve, geometry, *_BAND)
    inner, _ = _average_band(curve, geometry, *_INNER)
    corner, corner_count = _average_band(curve, geometry, *_CORNER)
    inner_power, _ = _average_band(density, geometry, *_INNER)
    corner_power, _ = _average_band(density, geometry, *_CORNER)
    return np.asarray(
        (band * np.sqrt(2 * copies * count) > _PLATEAU_Z)
        & (corner * np.sqrt(2 * copies * corner_count) > _PLATEAU_Z - 1)
        & (corner > _STAYS * inner)
        & (corner_power > _STAYS * inner_power)
    )


def _average_band(
    values: core.FloatArray, geometry: Geometry, low: float, high: float
) -> tuple[core.FloatArray, float]:
    """Average a ring quantity over a band, and count its effective samples."""
    inside = slice(*np.searchsorted(geometry.relative_frequency, [low, high]))
    weight = geometry.effective[inside]
    total = float(weight.sum())
    mean: core.FloatArray = values[:, inside] @ weight / max(total, 1e-12)
    return mean, total


def _has_stripes(sums: RingSums, geometry: Geometry) -> core.BoolArray:
    """Check for stripes in both images, due to row or column offsets of a detector."""
    band, _ = _average_band(sums.correlation, geometry, LINE_BAND, 0.5)
    shares = geometry.effective[1:] / geometry.rings.samples[1:]
    noise_ratio = np.sqrt(float(shares[0] * 2))
    has_stripes = np.zeros(band.shape, bool)
    for axis, size in enumerate(reversed(geometry.rings.shape)):
        line = sums.lines[:, axis]
        z = line * np.sqrt(2 * noise_ratio * (0.5 - LINE_BAND) * size)
        has_stripes |= (z > _STRIPE_Z) & (line > _STRIPE) & (band < _STRIPE * line)
    return has_stripes


# Pure gratings and lattices: correlation without a resolution.
#
# A grating correlates perfectly at the few points of the Fourier plane where its lines
# are, and not at all elsewhere: the rings between them contain noise, and the crossing
# of such a curve is meaningless. Two properties together distinguish it from an
# ordinary image: most of the coherent power is in a few isolated lobes; and in the
# rings that seem correlated, hardly any samples agree in phase if all are weighted
# equally.

# Chosen; the share of simulated gratings and ordinary images classified correctly is
# measured by `benchmarks/frc_accuracy.py` (traps); the goal is 99 %.
_LOBES = 8  # enough for a lattice and its first harmonics, each with its mirror image
_LOBE_SHARE = 0.5  # least share of a grating's coherent power in its lobes
_ISOLATION = 0.03  # largest power around a lobe, over its height
_CROWD = 90  # percentile of the surroundings, which may include another lobe
_AGREEMENT = 0.65  # between ordinary images, 0.8 to 1, and gratings, near 0
# Multiple of √samples subtracted from the sum of power above white noise; its standard
# error is 1.4 to 2.4, measured on noise of 64 to 400 px
_CHANCE = 4.0

# Sizes, px; chosen: from 192 on the lobe of the steep window, four bins to each side,
# is narrow enough; for fields above 1024 the central part suffices and is faster.
_LARGE_PX = 192
LARGEST_TESTED_PX = 1024

# Minimum four-term Blackman-Harris window, side lobes of -92 dB, and Hann: F. J.
# Harris, Proc. IEEE 66, 51 (1978), doi:10.1109/PROC.1978.10837.
_COSINES_STEEP = (0.35875, 0.48829, 0.14128, 0.01168)
_COSINES_HANN = (0.5, 0.5)


@dataclass(frozen=True, slots=True)
class _LobeTestPlan:
    """Precomputed data for the periodicity test of a given block shape."""

    window: core.Float32Array
    reach: int
    index: NDArray[np.int32]
    lobe: tuple[NDArray[np.intp], NDArray[np.intp]]
    halo: tuple[NDArray[np.intp], NDArray[np.intp]]


def is_periodic(
    first: core.Float32Array, second: core.Float32Array | None = None
) -> core.BoolArray:
    """Check for gratings and lattices, whose resolution cannot be measured.

    `first`, `second` (B, Y, X); without the second the first is split into diagonal
    halves. Lobes are also searched in the whole image, since lines too fine for the
    halves are aliased in them, often with a negative correlation. Returns (B,).
    """
    lobes = np.zeros(len(first), bool)
    if single := second is None:
        lobes = _has_dominant_lobes(first)
        rows, columns = (size - size % 2 for size in first.shape[1:])
        first, second = first[:, :rows:2, :columns:2], first[:, 1:rows:2, 1:columns:2]
    first, second = _crop_centre(first), _crop_centre(second)
    plan = _plan_lobe_test((first.shape[1], first.shape[2]))
    a, b = (fft.fft2(part * plan.window, axes=(1, 2)) for part in (first, second))
    if single:  # removes the shift of half a pixel on both axes
        turns = np.add.outer(*map(np.fft.fftfreq, first.shape[1:]))
        b *= np.exp(-1j * np.pi * turns).astype(np.complex64)
    size_a, size_b = np.abs(a), np.abs(b)
    cross = a.real * b.real + a.imag * b.imag
    cosine = cross / np.maximum(size_a * size_b, TINY)
    cross[:, plan.index <= 1] = 0
    power_a, power_b = (_sum_rings(size**2, plan.index) for size in (size_a, size_b))
    power = np.sqrt(power_a * power_b)
    correlation = _sum_rings(cross, plan.index) / np.maximum(power, TINY)
    count = np.bincount(plan.index.ravel()).astype(float)
    agreement = _sum_rings(cosine, plan.index) / count
    inner_share = 0.3 if plan.reach == len(_COSINES_HANN) else 0.25
    is_significant = correlation > np.maximum(
        0.2, 4 / np.sqrt(2 * inner_share * count / 2)
    )
    is_significant[:, :2] = False
    weight = np.where(is_significant, count, 0.0)
    weighted_sum = np.maximum((weight * correlation).sum(axis=1), TINY)
    ratio = (weight * agreement).sum(axis=1) / weighted_sum
    # about 0.8 to 1 for ordinary images, near 0 for gratings, 0 if no ring is
    # significant: then only lobes of a whole image count, as those of a cross-power are
    # noise
    is_isolated = _compute_isolated_fraction(cross, plan) > _LOBE_SHARE
    lobes |= is_significant.any(axis=1) & is_isolated
    return np.asarray((ratio < _AGREEMENT) & lobes)


def _has_dominant_lobes(stack: core.Float32Array) -> core.BoolArray:
    """Check whether isolated lobes of (B, Y, X) hold most power above white noise."""
    stack = _crop_centre(stack)
    plan = _plan_lobe_test((stack.shape[1], stack.shape[2]))
    power = np.abs(fft.fft2(stack * plan.window, axes=(1, 2))) ** 2
    half = power[:, :, : power.shape[2] // 2 + 1].reshape(len(power), -1)
    at = half.shape[1] // 2
    median = np.partition(half, at, axis=1)[:, at, None, None]  # robust to lines
    above = (1 + _CHANCE / np.sqrt(power[0].size)) / np.log(2)  # exponential noise
    power -= np.float32(above) * median
    power[:, plan.index <= 1] = 0
    return _compute_isolated_fraction(power, plan) > _LOBE_SHARE


def _crop_centre(stack: core.Float32Array) -> core.Float32Array:
    """Crop large images to the central part used in the test."""
    _, rows, columns = stack.shape
    return stack[:, *core.get_central_box((rows, columns), LARGEST_TESTED_PX).slices]


@lru_cache(maxsize=4)
def _plan_lobe_test(shape: core.IntPair) -> _LobeTestPlan:
    """Prepare the window, rings and neighbourhood of a lobe."""
    terms = _COSINES_STEEP if min(shape) >= _LARGE_PX else _COSINES_HANN
    # cosine-sum windows like SciPy's, without its slow import
    sides = [2 * np.pi * (np.arange(size) + 0.5) / size for size in shape]
    order = np.arange(len(terms))
    factors = (-1.0) ** order * terms
    window = np.outer(*(np.cos(np.outer(side, order)) @ factors for side in sides))
    rows, columns = (np.rint(np.abs(np.fft.fftfreq(n)) * min(shape)) for n in shape)
    index = np.rint(np.hypot(rows[:, None], columns[None, :])).astype(np.int32)
    reach = len(terms)  # the lobe has as many bins on each side
    grid = np.arange(-2 * reach, 2 * reach + 1)
    dy, dx = np.meshgrid(grid, grid, indexing="ij")
    distance = np.hypot(dy, dx)
    lobe = distance <= reach
    halo = (distance > reach + 0.5) & (distance <= 2 * reach)
    return _LobeTestPlan(
        window.astype(np.float32),
        reach,
        index,
        (dy[lobe], dx[lobe]),
        (dy[halo], dx[halo]),
    )


def _sum_rings(plane: core.Float32Array, index: NDArray[np.int32]) -> core.FloatArray:
    """Sum a batch of full planes over rings of rounded radius."""
    count, flat = int(index.max()) + 1, index.ravel()
    sums = [np.bincount(flat, weights=p.ravel(), minlength=count) for p in plane]
    return np.stack(sums)


def _compute_isolated_fraction(
    cross: core.Float32Array, plan: _LobeTestPlan
) -> core.FloatArray:
    """Compute the fraction of coherent power in the strongest isolated lobes."""
    batch, rows, columns = cross.shape
    total = np.maximum(cross.sum(axis=(1, 2), dtype=np.float64), TINY)
    remaining = cross.copy()
    share = np.zeros(batch)
    every = np.arange(batch)[:, None]
    crowd = _CROWD * plan.halo[0].size // 100
    for _ in range(_LOBES):
        place = remaining.reshape(batch, -1).argmax(axis=1)
        y, x = np.divmod(place, columns)
        peak = remaining[every[:, 0], y, x].astype(np.float64)
        around, inside = (
            ((y[:, None] + down) % rows, (x[:, None] + along) % columns)
            for down, along in (plan.halo, plan.lobe)
        )
        near = np.abs(cross[every, *around])
        level = np.partition(near, crowd, axis=1)[:, crowd]
        opposite = (-inside[0]) % rows, (-inside[1]) % columns
        power = remaining[every, *inside].sum(axis=1, dtype=np.float64)
        clear = plan.index[y, x] > plan.reach + 1
        share += np.where(clear & (level < _ISOLATION * peak), 2 * power, 0.0)
        remaining[every, *inside] = 0
        remaining[every, *opposite] = 0
    return np.asarray(share / total)


def has_static_noise(
    recorded_sums: RingSums, shifted_sums: RingSums, geometry: Geometry
) -> core.BoolArray:
    """Check for noise that stays in place while the sample has moved.

    Compares ring sums of a pair before and after correcting the sample's shift, which
    makes the correlation of shared noise fall. Returns (B,).
    """
    bands = [
        _average_band(sums.correlation, geometry, *_BAND)[0]
        for sums in (recorded_sums, shifted_sums)
    ]
    lines = (recorded_sums.lines - shifted_sums.lines).max(axis=1)
    level = has_plateau(recorded_sums, geometry) & (bands[0] > bands[1])
    return np.asarray(level | (_has_stripes(recorded_sums, geometry) & (lines > _FALL)))


def has_anticorrelation(sums: RingSums, geometry: Geometry) -> core.BoolArray:
    """Check whether halves of counts are anticorrelated at frequencies without signal.

    Returns (B,). The halves' noise correlates by (V - E) / (V + E), with V the actual
    noise and E that expected from gain and read noise: 0 if these are right, below 0
    for smoothed noise; the rule for shared noise detects values above 0.
    """
    band, count = _average_band(sums.correlation, geometry, *_BAND)
    return np.asarray(band * np.sqrt(2 * count) < -_PLATEAU_Z)


# Histories: which images pass their noise on to another.
#
# An image passes its noise on to all images derived from it, except for simulated
# images: there the input is the object, and the noise is new.

_Key = tuple[str, str]  # digest, and the image or frame in it; "" for any
_NOISE = "photons", "read_noise"  # options of a degradation that adds new noise


def is_noise_dependent(
    a: core.Micrograph, b: core.Micrograph | None, *, reference: bool = False
) -> bool:
    """Check whether two images share noise according to their histories.

    They do if one was derived from the other, or both from one image. Halves of one
    mosaic do not, unless a network enhanced both, since it may invent the same in both.
    A single image is not independent if a network made it. `reference`: `b` may be the
    object from which `a` was simulated.
    """
    histories = [None if image is None else image.provenance for image in (a, b)]
    by_network = [
        record is not None and bool(record.network_names()) for record in histories
    ]
    if b is None or a is b:
        return by_network[0]
    record, other = histories
    alike = (
        record is not None
        and other is not None
        and record.reproducible_record() == other.reproducible_record()
    )
    if alike and not any(by_network):
        return False  # planes of one stack; equal ones are found as identical
    split = not all(by_network)
    ancestors = [list(_iterate_ancestors(record, split=split)) for record in histories]
    noise, other_noise = ({key for key, noisy in keys if noisy} for keys in ancestors)
    every, other_every = ({key for key, _ in keys} for keys in ancestors)
    return (
        _have_common_key(noise, other_noise)
        or _have_common_key(noise, other_every)
        or (not reference and _have_common_key(every, other_noise))
    )


def is_noise_independent(a: core.Micrograph, b: core.Micrograph) -> bool:
    """Check whether the noise of both images is simulated or from different frames.

    For images that `is_noise_dependent` rejects.
    """
    noisy_ancestors = [
        [key for key, noisy in _iterate_ancestors(image.provenance) if noisy]
        for image in (a, b)
    ]
    all_simulated = all(
        any(base.startswith("{") for base, _ in keys) for keys in noisy_ancestors
    )
    bases = [{base for base, part in keys if part} for keys in noisy_ancestors]
    return all_simulated or bool(bases[0] & bases[1])


def _iterate_ancestors(
    record: core.Provenance | None, *, noisy: bool = True, split: bool = True
) -> Iterator[tuple[_Key, bool]]:
    """Yield each image of a history, and whether its noise is inherited.

    `split`: halves of a mosaic are made of their own frames, otherwise of all.
    """
    if record is None:
        return
    if record.job == "simulate" or (
        record.job == "degrade" and any(record.options.get(name) for name in _NOISE)
    ):
        made = json.dumps(record.reproducible_record(), sort_keys=True, default=str)
        yield (made, ""), noisy
        noisy = False
    is_stitched = record.job == "stitch"
    half = record.options.get("half") if is_stitched and split else None
    for item in record.inputs:
        base, _, part_name = (item.digest or "").partition("#")
        if is_stitched and item.role != "frames":
            continue  # positions or a flat field, not frames
        if base:
            # without a selection: the first image of a file, or each of them
            frames = half["frames"] if half else (part_name,)
            yield from (((base, frame), noisy) for frame in frames)
        if not is_stitched:  # a mosaic records only the history of its first frame
            yield from _iterate_ancestors(item.provenance, noisy=noisy, split=split)


def _have_common_key(some: set[_Key], others: set[_Key]) -> bool:
    return any(
        base == other and (not part or not which or part == which)
        for base, part in some
        for other, which in others
    )


# Noise: correlation that the signal cannot explain.
#
# The noise of a raw image is white along at least one axis: along both for a camera,
# from line to line for a scan with a slow detector. So the spectrum along this axis
# ends in a noise floor. The power above the floor is at most that of the signal, which
# is assumed to fall with the square of the frequency or faster. Two exposures correlate
# by at most sqrt(S / (S + N)), with S and N the signal and noise power of either. A
# higher correlation is due to shared noise. If the spectrum falls up to the highest
# frequency, because an image was filtered, nothing is concluded.

_BLOCK_PX = 64  # chosen: small enough to find empty areas between objects
# cycles per pixel, along both axes; chosen: above the frequencies of shading
_BANDS = np.array([0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.501])
_MIDDLES = (_BANDS[1:] + _BANDS[:-1]) / 2
_FLOOR = 8  # first band of the noise floor: 0.4 and above
_POOLS = (1, 1), (2, 2), (3, 2), (4, 3), (6, 3)  # pooled bands across and along; chosen
# Independent samples per Fourier sample of a block, with a Hann window and steps of
# half a block
_EFFECTIVE = 0.125
_QUIET = 0.25  # share of blocks used: those with the least power, hence least signal
_FEW = 32  # least number of blocks for choosing quiet ones
_LOW = 5  # number of bands by which they are chosen: up to 0.25
_SMALLEST = float(np.finfo(float).tiny)
# Chosen on simulated images and real pairs
_SLOPE = 0.04  # share of the floor that may not be noise
_MOST = 0.75  # share of the pooled bands that must not lie below the floor
_DIP = 0.1  # share by which a spectrum may be below its floor
_MARGIN = 1.5  # standard errors of the signal's share allowed
_Z = 4.5
_EXCESS = 0.15  # least excess of correlation over that of the signal


def has_unexplained_correlation(
    first: core.ReadableArray,
    second: core.ReadableArray,
    shift: core.FloatPair | None = None,
    *,
    reference: bool = False,
) -> bool:
    """Check whether two images correlate more than their signals can explain.

    `first`, `second` (Y, X), lazy or not; blocks with missing pixels are ignored.
    `shift`: ``(y, x)`` in pixels by which the second is to be moved; `reference`: the
    second is nearly free of noise, so that its own spectrum is not used.
    """
    one, other = (
        core.read_box(data, core.get_central_box(data.shape, LARGEST_TESTED_PX))
        for data in (first, second)
    )
    spectra, samples = _compute_block_spectra(one, other, shift)
    block_spectra = [spectra]
    if len(spectra) >= _FEW:
        relative = spectra[:, :2] / np.maximum(spectra[:, :2].mean(axis=0), _SMALLEST)
        low = relative[..., :_LOW, :_LOW].mean(axis=(1, 2, 3))
        block_spectra.append(spectra[np.argsort(low)[: int(_QUIET * len(spectra))]])
    return any(
        _has_excess_correlation(
            mean if axis else mean.swapaxes(1, 2), len(part) * count, noisy
        )
        for part in block_spectra
        if len(part) and (mean := part.mean(axis=0))[:2].all()
        for axis, count in enumerate((samples.T, samples))
        for noisy in range(1 if reference else 2)
    )


def _compute_block_spectra(
    first: core.RealArray,
    second: core.RealArray,
    shift: core.FloatPair | None,
) -> tuple[core.FloatArray, core.FloatArray]:
    """Compute mean powers and cross-power of two images in bands, (N, 3, K, K).

    The bands are along y and x; also returns the effective samples in each (K, K).
    """
    side = min(_BLOCK_PX, *first.shape)
    step = max(side // 2, 1)
    window = np.hanning(side + 2)[1:-1]
    y, x = fft.fftfreq(side), fft.rfftfreq(side)
    turns = 0.0 if shift is None else y[:, None] * shift[0] + x * shift[1]
    phase = np.exp(-2j * np.pi * np.asarray(turns))
    rows, columns = (
        (np.abs(axis) >= _BANDS[:-1, None]) & (np.abs(axis) < _BANDS[1:, None])
        for axis in (y, x)
    )
    count = np.outer(rows.sum(axis=1), columns.sum(axis=1)).astype(float)
    spectra = [np.empty((0, 3, *count.shape))]
    windows = (sliding_window_view(i, (side, side)) for i in (first, second))
    views = (view[::step, ::step] for view in windows)
    for a, b in zip(*views, strict=True):  # one row of blocks at a time
        finite = np.isfinite(a).all(axis=(1, 2)) & np.isfinite(b).all(axis=(1, 2))
        parts = (part[finite].astype(float) for part in (a, b))
        one, other = (
            fft.rfft2(
                (part - part.mean(axis=(1, 2), keepdims=True))
                * np.outer(window, window)
            )
            for part in parts
        )
        cross = (one * np.conj(other * phase)).real
        planes = np.stack([np.abs(one) ** 2, np.abs(other) ** 2, cross], axis=1)
        spectra.append(rows.astype(float) @ planes @ columns.T / np.maximum(count, 1))
    return np.concatenate(spectra), count * _EFFECTIVE


def _has_excess_correlation(
    mean: core.FloatArray, samples: core.FloatArray, noisy: int
) -> bool:
    """Check whether a correlation exceeds what the signal in either image can explain.

    `mean` (3, K, K): powers and cross-power in bands across and along the axis along
    which the noise of the image with index `noisy` is white; `samples` (K, K).
    """
    last = samples[:, _FLOOR:]
    in_floor = last.sum(axis=1, keepdims=True)
    floor = (mean[:2, :, _FLOOR:] * last).sum(axis=2, keepdims=True) / in_floor
    powers = mean[:2] / floor
    cross = mean[2] / np.sqrt(floor[0] * floor[1])
    power = powers[noisy]
    square = _MIDDLES[:, None] ** 2 + _MIDDLES**2
    fall = 1 - square / square[:, _FLOOR:].mean(axis=1, keepdims=True)
    # adjacent bands in which the spectrum is not below the floor
    error = np.sqrt(1 / samples + 1 / in_floor)
    level = np.flip(power * (1 + 3 * error) > 1 - _DIP, axis=1)
    level = np.flip(np.logical_and.accumulate(level, axis=1), axis=1)
    level[:, _FLOOR:] = False
    fall = np.where(level, fall, 1)
    weight = level * samples
    for across, along in _POOLS:
        pool = partial(_sum_bands, across=across, along=along)
        full = pool(level.astype(float)) >= _MOST * across * along
        total = np.where(full, pool(weight), 1)
        a, b = (np.where(full, pool(weight * part) / total, 1) for part in powers)
        own = (a, b)[noisy]
        correlation = pool(weight * cross) / total / np.sqrt(a * b)
        signal = pool(weight * (power - 1 + _SLOPE) / fall) / total
        # errors of the power, and of the floor, which is the same for all bands of the
        # axis
        variance = pool(weight**2 * (power / fall) ** 2 / samples) / total**2
        of_floor = pool(weight / fall / np.sqrt(in_floor)) / total
        variance += of_floor**2 / max(1.0, 0.7 * across)
        share = (signal + _MARGIN * np.sqrt(variance)) / own
        upper_bound = np.sqrt(np.clip(share, 0, 1))
        chance = (1 - np.clip(correlation, -0.99, 0.99) ** 2) ** 2 / (2 * total)
        chance += variance / own**2 / 4 / np.maximum(upper_bound, 0.2) ** 2
        excess = correlation - upper_bound
        exceeding = full & (excess > _EXCESS) & (excess > _Z * np.sqrt(chance))
        if exceeding.any():
            return True
    return False


def _sum_bands(values: core.FloatArray, across: int, along: int) -> core.FloatArray:
    """Sum values (K, K) over all rectangles of a given number of bands."""
    sums: core.FloatArray = sliding_window_view(values, (across, along)).sum(
        axis=(2, 3)
    )
    return sums
