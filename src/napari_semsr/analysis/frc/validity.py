"""Resolution criteria and the closed list of reasons for having no resolution."""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_semsr.analysis.frc.rings import LINE_BAND, Geometry, RingSums
from napari_semsr.core import (
    BoolArray,
    FloatArray,
    Micrograph,
    OptionError,
    ShapeError,
)

Criterion = Literal["1/7", "half-bit", "3-sigma"]

Reason = Literal[
    "no-signal",
    "correlated-noise",
    "identical",
    "periodic",
    "too-small",
    "beyond-nyquist",
    "not-independent",
]

REASONS: tuple[Reason, ...] = (
    "no-signal",
    "correlated-noise",
    "identical",
    "periodic",
    "too-small",
    "beyond-nyquist",
    "not-independent",
)
"""Why a curve has no valid crossing; code ``i + 1`` stands for ``REASONS[i]``."""

_FIXED = 1 / 7  # = S / (1 + S) for a spectral signal-to-noise S of 1/6: docs/frc.md


def code_of(reason: Reason | None) -> int:
    """Code of a reason in a map.

    Parameters
    ----------
    reason : str or None
        A member of `REASONS`; None where there is a resolution.

    Returns
    -------
    int
        0 for None, else the place in `REASONS` plus one.
    """
    return 0 if reason is None else REASONS.index(reason) + 1


def threshold_curve(
    criterion: Criterion, samples: FloatArray, *, reference: bool = False
) -> FloatArray:
    """Correlation that a ring must reach.

    .. [1] M. van Heel, M. Schatz, J. Struct. Biol. 151, 250 (2005), eq. 17,
       doi:10.1016/j.jsb.2005.05.009.

    `samples` (K,); `reference`: the second image is nearly free of noise: √(1/7) in
    place of 1/7; gives (K,).
    """
    if reference and criterion != "1/7":
        msg = (
            f"A noise-free reference needs the criterion 1/7, got {criterion}; "
            "choose 1/7 or drop the reference option."
        )
        raise OptionError(msg)
    count = np.maximum(samples, 1)
    if criterion == "half-bit":
        return (0.2071 + 1.9102 / np.sqrt(count)) / (1.2071 + 0.9102 / np.sqrt(count))
    if criterion == "3-sigma":
        return 3 / np.sqrt(count / 2)
    return np.full(count.shape, _FIXED**0.5 if reference else _FIXED)


# Whether two images may be correlated at all: grids, pixel sizes, provenance.

_PIXEL_TOLERANCE = 1e-3  # chosen: files round; a pixel in a field of 1000


def check_grids(a: Micrograph, b: Micrograph) -> None:
    """Refuse two images that do not share one grid."""
    if a.shape != b.shape:
        msg = (
            f"Both images must have the same shape, got {a.shape[0]}x{a.shape[1]} px "
            f"and {b.shape[0]}x{b.shape[1]} px; bring them onto one grid (semsr crop)."
        )
        raise ShapeError(msg)
    if a.pixel_size_nm is None or b.pixel_size_nm is None:
        return
    ratios = [p / q for p, q in zip(a.pixel_size_nm, b.pixel_size_nm, strict=True)]
    if any(abs(math.log(ratio)) > _PIXEL_TOLERANCE for ratio in ratios):
        msg = (
            f"Both images must have the same pixel size, got {a.pixel_size_nm} nm and "
            f"{b.pixel_size_nm} nm; resample one of them or correct its calibration."
        )
        raise OptionError(msg)


def not_independent(a: Micrograph, b: Micrograph | None) -> bool:
    """Tell from provenance whether networks made both images from one acquisition."""
    if a.provenance is None or not a.provenance.networks():
        return False
    if b is None:
        return True
    if b.provenance is None or not b.provenance.networks():
        return False
    return b is a or bool(a.provenance.sources() & b.provenance.sources())


# Status rules: when a correlation curve has no resolution to give, and why.
#
# The rules run in the order in which they can be trusted: blocks without contrast or
# with missing pixels, identical blocks, pure gratings, no signal at all, shared noise.
# What is left may have a crossing.
#
# How many drawn pairs they tell rightly, measured in blocks of 64 px and whole images
# of 512: no signal 99.8 and 100 %; shared noise of 20 to 80 % 99.2 and 100 %, of 5 %
# 0.6 and 100 % (hence the field is tested as a whole); identical 100 and 100 %.
# `benchmarks/frc_accuracy.py` (traps) measures whole images anew, goal 99 %.
_POOLED_Z = 3.5  # of rings pooled from the innermost outwards
_BEST_RING_Z = 4.2  # of a single ring, of which there are many: hence higher
_PLATEAU_Z = 4.0
_IDENTICAL = 1e-8  # mean square difference: a ten-thousandth of the standard deviation
# Share of the cross-power in one sample from which the test for gratings, which costs
# more than all others, is made at all; chosen low enough for a lattice of many lobes
_SUSPECT_PEAK = 0.04
# Correlation on a frequency axis that stands out of noise, is strong in itself, and 2.5
# times that of the whole band; chosen
_STRIPE_Z = 4.5
_STRIPE = 0.4
# Where no lens has signal left, cycles per pixel, and its parts on both sides of 0.5:
# neither correlation nor power may fall by 40 % from the one to the other; chosen
_BAND = 0.42, 0.66
_INNER = 0.40, 0.50
_CORNER = 0.52, 0.66
_STAYS = 0.6


def _has_signal(curve: FloatArray, effective: FloatArray, rings: int) -> BoolArray:
    """Tell correlation from the correlation of noise.

    `curve` (B, K); `effective` (K,); gives (B,).
    """
    weight = np.broadcast_to(effective, curve.shape)[:, 1:rings]
    values = curve[:, 1:rings]
    if not values.shape[1]:
        return np.zeros(len(curve), bool)
    best = (values * np.sqrt(2 * weight)).max(axis=1, initial=0)
    pooled = np.cumsum(values * weight, axis=1)
    norm = np.sqrt(np.maximum(np.cumsum(weight, axis=1), 1e-12) / 2)
    last = [4 << k for k in range(16) if 4 << k < rings] or [rings - 1]
    places = np.array(last) - 1
    z = (pooled[:, places] / norm[:, places]).max(axis=1)
    signal: BoolArray = (best >= _BEST_RING_Z) | (z >= _POOLED_Z)
    return signal


def _band(
    values: FloatArray, geometry: Geometry, low: float, high: float
) -> tuple[FloatArray, float]:
    """Mean of a ring quantity over a band, and the effective samples behind it."""
    inside = slice(*np.searchsorted(geometry.relative, [low, high]))
    weight = geometry.effective[inside]
    total = float(weight.sum())
    mean: FloatArray = values[:, inside] @ weight / max(total, 1e-12)
    return mean, total


def has_plateau(
    sums: RingSums, geometry: Geometry, *, copies: float = 1.0
) -> BoolArray:
    """Find correlation that does not fall where no lens has signal left.

    Gives (B,), True where the correlation between 0.42 and 0.66 cycles per pixel stands
    out of noise, and neither it nor the cross-power falls towards the corner beyond
    Nyquist: shared white noise does so, a signal does not.
    """
    curve = sums.correlation
    density = sums.cross / geometry.rings.samples
    band, count = _band(curve, geometry, *_BAND)
    inner, _ = _band(curve, geometry, *_INNER)
    corner, corner_count = _band(curve, geometry, *_CORNER)
    inner_power, _ = _band(density, geometry, *_INNER)
    corner_power, _ = _band(density, geometry, *_CORNER)
    plateau: BoolArray = (
        (band * np.sqrt(2 * copies * count) > _PLATEAU_Z)
        & (corner * np.sqrt(2 * copies * corner_count) > _PLATEAU_Z - 1)
        & (corner > _STAYS * inner)
        & (corner_power > _STAYS * inner_power)
    )
    return plateau


def _has_stripes(sums: RingSums, geometry: Geometry) -> BoolArray:
    """Find stripes that both images share: row or column offsets of a detector.

    Gives (B,).
    """
    band, _ = _band(sums.correlation, geometry, LINE_BAND, 0.5)
    kept = np.sqrt(float((geometry.effective[1:] / geometry.rings.samples[1:])[0] * 2))
    found = np.zeros(band.shape, bool)
    for axis, size in enumerate(reversed(geometry.rings.shape)):
        line = sums.lines[:, axis]
        z = line * np.sqrt(2 * kept * (0.5 - LINE_BAND) * size)
        found |= (z > _STRIPE_Z) & (line > _STRIPE) & (band < _STRIPE * line)
    return found


def judge(
    sums: RingSums,
    geometry: Geometry,
    *,
    valid: BoolArray,
    difference: FloatArray,
    periodic: Callable[[BoolArray], BoolArray],
    reference: bool = False,
) -> NDArray[np.uint8]:
    """Decide for each pair whether its curve may be read.

    `valid` (B,), False for constant blocks and blocks with pixels that are not finite;
    `difference` (B,); gives (B,).
    """
    signal = _has_signal(sums.correlation, geometry.effective, geometry.rings.complete)
    plateau = has_plateau(sums, geometry) | _has_stripes(sums, geometry)
    plateau &= not reference
    suspect = signal & valid & (difference >= _IDENTICAL) & (sums.peak > _SUSPECT_PEAK)
    code = np.zeros(valid.shape, np.uint8)
    code[plateau] = code_of("correlated-noise")
    code[~signal & ~plateau] = code_of("no-signal")
    if suspect.any():
        code[periodic(suspect)] = code_of("periodic")
    code[difference < _IDENTICAL] = code_of("identical")
    code[~valid] = code_of("no-signal")
    return code
