"""Status rules: when a correlation curve has no resolution to give, and why.

The rules run in the order in which they can be trusted: blocks without contrast or
with missing pixels, identical blocks, pure gratings, no signal at all, shared
noise. What is left
may have a crossing.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from napari_semsr.analysis.criteria import code_of
from napari_semsr.analysis.ring_sums import LINE_BAND, Geometry, RingSums

__all__ = ["has_plateau", "has_signal", "has_stripes", "judge"]

Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

POOLED_Z = 3.5
BEST_RING_Z = 4.2
PLATEAU_Z = 4.0
IDENTICAL = 1e-8
SUSPECT_PEAK = 0.04
STRIPE_Z = 4.5


def has_signal(curve: Float64Array, effective: Float64Array, rings: int) -> BoolArray:
    """Tell correlation from the correlation of noise.

    Parameters
    ----------
    curve : (B, K) numpy.ndarray
        Ring correlations.
    effective : (K,) or (B, K) numpy.ndarray
        Independent complex samples of each ring.
    rings : int
        Rings below the Nyquist frequency.

    Returns
    -------
    (B,) numpy.ndarray of bool
        True where the rings 1 to 4, 8, 16, … pooled, or the best single ring, stand
        out of what independent noise gives: under noise a ring's correlation has
        the variance 1 / (2 · effective).
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
    signal: BoolArray = (best >= BEST_RING_Z) | (z >= POOLED_Z)
    return signal


def _band(
    values: Float64Array, geometry: Geometry, low: float, high: float
) -> tuple[Float64Array, float]:
    """Mean of a ring quantity over a band, and the effective samples behind it."""
    inside = slice(*np.searchsorted(geometry.relative, [low, high]))
    weight = geometry.effective[inside]
    total = float(weight.sum())
    mean: Float64Array = values[:, inside] @ weight / max(total, 1e-12)
    return mean, total


def has_plateau(
    sums: RingSums, geometry: Geometry, *, copies: float = 1.0
) -> BoolArray:
    """Find correlation that does not fall where no lens has signal left.

    Parameters
    ----------
    sums : RingSums
        Ring sums of the pairs.
    geometry : Geometry
        Their rings.
    copies : float, default=1.0
        Independent blocks that were pooled into each of the sums.

    Returns
    -------
    (B,) numpy.ndarray of bool
        True where the correlation between 0.42 and 0.66 cycles per pixel stands out
        of noise, and neither it nor the cross-power falls towards the corner beyond
        Nyquist: shared white noise does so, a signal does not.
    """
    curve = sums.correlation
    density = sums.cross / geometry.rings.samples
    band, count = _band(curve, geometry, 0.42, 0.66)
    inner, _ = _band(curve, geometry, 0.40, 0.50)
    corner, corner_count = _band(curve, geometry, 0.52, 0.66)
    inner_power, _ = _band(density, geometry, 0.40, 0.50)
    corner_power, _ = _band(density, geometry, 0.52, 0.66)
    plateau: BoolArray = (
        (band * np.sqrt(2 * copies * count) > PLATEAU_Z)
        & (corner * np.sqrt(2 * copies * corner_count) > PLATEAU_Z - 1)
        & (corner > 0.6 * inner)
        & (corner_power > 0.6 * inner_power)
    )
    return plateau


def has_stripes(sums: RingSums, geometry: Geometry) -> BoolArray:
    """Find stripes that both images share: row or column offsets of a detector.

    Parameters
    ----------
    sums : RingSums
        Ring sums of the pairs.
    geometry : Geometry
        Their rings.

    Returns
    -------
    (B,) numpy.ndarray of bool
        True where one of the frequency axes is correlated near its end and the rings
        at the same frequencies are not. Only fields of some 200 px and more have
        enough samples on an axis to tell.
    """
    band, _ = _band(sums.correlation, geometry, LINE_BAND, 0.5)
    kept = np.sqrt(float((geometry.effective[1:] / geometry.rings.samples[1:])[0] * 2))
    found = np.zeros(band.shape, bool)
    for axis, size in enumerate(reversed(geometry.rings.shape)):
        line = sums.lines[:, axis]
        z = line * np.sqrt(2 * kept * (0.5 - LINE_BAND) * size)
        found |= (z > STRIPE_Z) & (line > 0.4) & (band < 0.4 * line)
    return found


def judge(
    sums: RingSums,
    geometry: Geometry,
    *,
    valid: BoolArray,
    difference: Float64Array,
    periodic: Callable[[BoolArray], BoolArray],
    reference: bool = False,
) -> NDArray[np.uint8]:
    """Decide for each pair whether its curve may be read.

    Parameters
    ----------
    sums : RingSums
        Ring sums of the pairs.
    geometry : Geometry
        Their rings.
    valid : (B,) numpy.ndarray of bool
        False for constant blocks and blocks with pixels that are not finite.
    difference : (B,) numpy.ndarray
        Mean square difference of the standardised blocks.
    periodic : callable
        Takes a mask of pairs worth testing and returns a mask of those that are pure
        gratings or lattices; called at most once, for few pairs.
    reference : bool, default=False
        The partner is nearly free of noise, so that there is none to share: a
        correlation that stays up is then the object's own.

    Returns
    -------
    (B,) numpy.ndarray of uint8
        Codes of reasons; 0 where the curve may be read.
    """
    signal = has_signal(sums.correlation, geometry.effective, geometry.rings.complete)
    plateau = has_plateau(sums, geometry) | has_stripes(sums, geometry)
    plateau &= not reference
    suspect = signal & valid & (difference >= IDENTICAL) & (sums.peak > SUSPECT_PEAK)
    code = np.zeros(valid.shape, np.uint8)
    code[plateau] = code_of("correlated-noise")
    code[~signal & ~plateau] = code_of("no-signal")
    if suspect.any():
        code[periodic(suspect)] = code_of("periodic")
    code[difference < IDENTICAL] = code_of("identical")
    code[~valid] = code_of("no-signal")
    return code
