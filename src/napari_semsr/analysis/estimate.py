"""From ring sums to a crossing, its spread and a reason, for a batch of pairs."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_semsr.analysis.criteria import Criterion, code_of, threshold_curve
from napari_semsr.analysis.crossing import first_crossing, slope_at
from napari_semsr.analysis.likelihood import Fit, fit_crossing
from napari_semsr.analysis.ring_sums import Geometry, RingSums
from napari_semsr.analysis.split import half_threshold

__all__ = ["MODEL_FLOOR", "Estimates", "Estimator", "Question", "estimate"]

Estimator = Literal["plain", "exact"]

MODEL_FLOOR = 0.03
"""Relative error of a crossing that no ring statistics explain (one sigma)."""

SMALLEST_RING = 2.0
"""A crossing inside this ring is coarser than the block can tell."""

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
) -> Fit:
    """First crossing of the rings and its spread from noise over slope."""
    rings = geometry.rings.complete
    frequency = geometry.rings.frequency[:rings]
    crossing = first_crossing(curve, threshold, frequency, start=start)
    slope = slope_at(curve, crossing, frequency, geometry.effective[:rings])
    level = np.interp(np.nan_to_num(crossing), frequency, threshold)
    count = np.interp(np.nan_to_num(crossing), frequency, geometry.effective[:rings])
    noise = (1 - level**2) / np.sqrt(2 * np.maximum(count, 1))
    steep = np.maximum(-slope, 1e-9)
    above = np.asarray((curve[:, start:] >= threshold[start:]).any(axis=1))
    return Fit(crossing, noise / (steep * crossing), above)


def _read(
    curve: Float64Array,
    geometry: Geometry,
    threshold: Float64Array,
    question: Question,
) -> Fit:
    """Read curves by the estimator that was asked for."""
    if question.estimator == "plain":
        start = 2 if question.criterion == "3-sigma" else 1
        return _plain(curve, geometry, threshold, start)
    return fit_crossing(
        curve,
        geometry,
        threshold,
        reference=question.reference,
        copies=2.0 if question.single else 1.0,
    )


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
    final = code.copy()
    crossing = np.full(code.shape, np.nan)
    spread = np.full(code.shape, np.nan)
    ready = np.flatnonzero(code == 0)
    if ready.size:
        found = _read(curve[ready], geometry, threshold, question)
        crossing[ready], spread[ready] = found.crossing, found.spread
        small = found.crossing < SMALLEST_RING * geometry.rings.bin_width
        missing = np.where(found.above, code_of("beyond-nyquist"), code_of("no-signal"))
        final[ready[small]] = code_of("too-small")
        lost = ~np.isfinite(found.crossing)
        final[ready[lost]] = missing[lost]
    kept = final == 0
    return Estimates(
        np.where(kept, crossing, np.nan),
        np.where(kept, np.hypot(spread, MODEL_FLOOR), np.nan),
        final,
    )
