"""Correlate batches of blocks: the one path that whole images and maps both take."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_semsr.analysis.criteria import (
    Criterion,
    Reason,
    code_of,
    reason_of,
    threshold_curve,
)
from napari_semsr.analysis.estimate import Estimator, Question, estimate
from napari_semsr.analysis.ring_sums import (
    RingSums,
    plan_geometry,
    standardise,
    sum_rings,
)
from napari_semsr.analysis.split import (
    NYQUIST_SHARE,
    diagonal_sums,
    equivalent,
    is_coloured,
)
from napari_semsr.analysis.status import judge

__all__ = ["MINIMUM_SIDE", "Measurement", "measure"]

MINIMUM_SIDE = 16
"""Smallest side of a pair of blocks that is measured at all, in pixels."""

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measurement:
    """Correlations of a batch of block pairs on one grid.

    Attributes
    ----------
    crossing, spread : (B,) numpy.ndarray
        Frequency of the crossing in cycles per mean pixel of the images, NaN where
        there is none, and the standard deviation of its logarithm.
    code : (B,) numpy.ndarray of uint8
        Codes of reasons; 0 where there is a crossing.
    frequency, threshold, samples : (K,) numpy.ndarray
        Rings up to Nyquist, ring 0 left out.
    correlation : (B, K) numpy.ndarray
        Ring correlations; for split images that of two exposures like them.
    sums : RingSums
        The sums behind them, all rings.
    """

    crossing: Float64Array
    spread: Float64Array
    code: NDArray[np.uint8]
    frequency: Float64Array
    threshold: Float64Array
    samples: Float64Array
    correlation: Float64Array
    sums: RingSums

    @property
    def reasons(self) -> tuple[Reason | None, ...]:
        """Reason of each pair in words."""
        return tuple(reason_of(int(code)) for code in self.code)


def _reduced(stack: NDArray[np.floating]) -> NDArray[np.floating]:
    """Crop to even sides, which a split needs."""
    rows, columns = (size - size % 2 for size in stack.shape[1:])
    return stack[:, :rows, :columns]


def measure(
    first: NDArray[np.floating],
    second: NDArray[np.floating] | None,
    *,
    pitch: tuple[float, float] = (1.0, 1.0),
    tukey: float = 0.5,
    criterion: Criterion = "1/7",
    estimator: Estimator = "exact",
    reference: bool = False,
) -> Measurement:
    """Correlate a batch of blocks pair by pair, or each with itself split.

    Parameters
    ----------
    first : (B, Y, X) numpy.ndarray of float
        Blocks. Double precision, or single with the field's mean already off.
    second : (B, Y, X) numpy.ndarray of float or None
        Their partners; None splits each block into diagonal halves.
    pitch : tuple of float
        ``(y, x)`` relative pixel pitch.
    tukey : float
        Tapered share of the window.
    criterion : {"1/7", "half-bit", "3-sigma"}
        Threshold.
    estimator : {"plain", "exact"}
        Ring by ring, or the likelihood fit.
    reference : bool
        `second` is nearly free of noise.

    Returns
    -------
    Measurement
        Crossings, reasons and curves.
    """
    single = second is None
    if second is None:
        first = _reduced(first)
    rows, columns = first.shape[1:]
    shape = (rows // 2, columns // 2) if single else (rows, columns)
    geometry = plan_geometry(shape, pitch, tukey)
    a, sd = standardise(first)
    valid = np.isfinite(sd) & (sd > 0)
    if second is None:
        sums = diagonal_sums(a, geometry)
        difference = np.ones(valid.shape)
    else:
        b, other = standardise(second)
        valid &= np.isfinite(other) & (other > 0)
        difference = np.square(a - b).mean(axis=(1, 2), dtype=np.float64)
        sums = sum_rings(a, b, geometry)
    code = judge(sums, geometry, valid=valid, difference=difference)
    if min(shape) < MINIMUM_SIDE:
        code[code == 0] = code_of("too-small")
    question = Question(criterion, estimator, reference, single)
    found = estimate(sums, geometry, code, question)
    crossing, final = found.crossing, found.code
    curve = sums.correlation
    scale = 1.0
    if single:
        scale = 0.5
        curve = equivalent(curve)
        whole = plan_geometry((rows, columns), pitch, tukey)
        final[(final == 0) & is_coloured(a, whole)] = code_of("correlated-noise")
        high = crossing > NYQUIST_SHARE * geometry.rings.nyquist
        final[(final == 0) & high] = code_of("beyond-nyquist")
        crossing = np.where(final == 0, crossing, np.nan)
    rings = slice(1, geometry.rings.complete)
    samples = geometry.rings.samples[rings]
    return Measurement(
        crossing=crossing * scale,
        spread=found.spread,
        code=final,
        frequency=geometry.rings.frequency[rings] * scale,
        threshold=threshold_curve(criterion, samples, reference=reference),
        samples=samples,
        correlation=curve[:, rings],
        sums=sums,
    )
