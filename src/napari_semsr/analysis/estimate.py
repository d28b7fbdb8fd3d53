"""From ring sums to a crossing, its spread and a reason, for a batch of pairs."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_semsr.analysis.criteria import Criterion, code_of, threshold_curve
from napari_semsr.analysis.crossing import first_crossing, slope_at
from napari_semsr.analysis.likelihood import fit_crossing
from napari_semsr.analysis.ring_sums import Geometry, RingSums
from napari_semsr.analysis.split import half_threshold

__all__ = ["MODEL_FLOOR", "Estimates", "Estimator", "Question", "estimate"]

Estimator = Literal["plain", "exact"]

MODEL_FLOOR = 0.03
"""Relative error of a crossing that no ring statistics explain (one sigma)."""

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a curve.

    Attributes
    ----------
    criterion : {"1/7", "half-bit", "3-sigma"}
        Threshold.
    estimator : {"plain", "exact"}
        Ring by ring, or the likelihood fit.
    reference : bool
        The second image is nearly free of noise.
    single : bool
        The pair are the diagonal halves of one image, whose own crossing is wanted.
    """

    criterion: Criterion
    estimator: Estimator
    reference: bool
    single: bool


@dataclass(frozen=True, slots=True)
class Estimates:
    """Crossings of a batch of pairs.

    Attributes
    ----------
    crossing : (B,) numpy.ndarray
        Cycles per mean pixel; NaN where there is none.
    spread : (B,) numpy.ndarray
        Standard deviation of the crossing's logarithm.
    code : (B,) numpy.ndarray of uint8
        Codes of reasons; 0 where there is a crossing.
    """

    crossing: Float64Array
    spread: Float64Array
    code: NDArray[np.uint8]


def _plain(
    curve: Float64Array, geometry: Geometry, threshold: Float64Array, start: int
) -> tuple[Float64Array, Float64Array]:
    """First crossing of the rings and its spread from noise over slope."""
    rings = geometry.rings.complete
    frequency = geometry.rings.frequency[:rings]
    crossing = first_crossing(curve, threshold, frequency, start=start)
    slope = slope_at(curve, crossing, frequency, geometry.effective[:rings])
    level = np.interp(np.nan_to_num(crossing), frequency, threshold)
    count = np.interp(np.nan_to_num(crossing), frequency, geometry.effective[:rings])
    noise = (1 - level**2) / np.sqrt(2 * np.maximum(count, 1))
    steep = np.maximum(-slope, 1e-9)
    return crossing, noise / (steep * crossing)


def estimate(
    sums: RingSums, geometry: Geometry, code: NDArray[np.uint8], question: Question
) -> Estimates:
    """Find the crossing of each curve that may be read.

    Parameters
    ----------
    sums : RingSums
        Ring sums of the pairs.
    geometry : Geometry
        Their rings.
    code : (B,) numpy.ndarray of uint8
        What the status rules said; only pairs of code 0 are read.
    question : Question
        Criterion and estimator.

    Returns
    -------
    Estimates
        Crossings, their spread, and the reasons of those that have none.
    """
    rings = geometry.rings.complete
    curve = sums.correlation[:, :rings]
    threshold = threshold_curve(
        question.criterion, geometry.rings.samples[:rings], reference=question.reference
    )
    if question.single:
        threshold = half_threshold(threshold)
    start = 2 if question.criterion == "3-sigma" else 1
    if question.estimator == "plain":
        crossing, spread = _plain(curve, geometry, threshold, start)
        above = (curve[:, start:] >= threshold[start:]).any(axis=1)
    else:
        fit = fit_crossing(
            curve,
            geometry,
            threshold,
            reference=question.reference,
            copies=2.0 if question.single else 1.0,
        )
        crossing, spread, above = fit.crossing, fit.spread, fit.above
    final = code.copy()
    ready = code == 0
    missing = ready & ~np.isfinite(crossing)
    final[missing & above] = code_of("beyond-nyquist")
    final[missing & ~above] = code_of("no-signal")
    small = ready & (crossing < 2 * geometry.rings.bin_width)
    final[small] = code_of("too-small")
    kept = final == 0
    return Estimates(
        np.where(kept, crossing, np.nan),
        np.where(kept, np.hypot(spread, MODEL_FLOOR), np.nan),
        final,
    )
