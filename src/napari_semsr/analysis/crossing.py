"""Plain crossing: where the measured rings first fall below the threshold."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["first_crossing", "slope_at"]

Float64Array = NDArray[np.float64]


def first_crossing(
    curve: Float64Array,
    threshold: Float64Array,
    frequency: Float64Array,
    *,
    start: int = 1,
) -> Float64Array:
    """Find the first downward crossing of each curve, interpolated between rings.

    Parameters
    ----------
    curve : (B, K) numpy.ndarray
        Ring correlations.
    threshold, frequency : (K,) numpy.ndarray
        Threshold and frequency of each ring.
    start : int, default=1
        First ring to look at; ring 0 is the mean, which was taken off.

    Returns
    -------
    (B,) numpy.ndarray
        Frequencies; NaN where no ring lies above the threshold with the next below.
    """
    excess = curve[:, start:] - threshold[start:]
    down = (excess[:, :-1] >= 0) & (excess[:, 1:] < 0)
    found = down.any(axis=1)
    place = np.argmax(down, axis=1)
    rows = np.arange(curve.shape[0])
    above, below = excess[rows, place], excess[rows, place + 1]
    share = above / np.where(found, above - below, 1)
    left = frequency[start + place]
    crossing: Float64Array = left + share * (frequency[start + place + 1] - left)
    return np.where(found, crossing, np.nan)


def slope_at(
    curve: Float64Array,
    crossing: Float64Array,
    frequency: Float64Array,
    weight: Float64Array,
) -> Float64Array:
    """Slope of each curve around its crossing, by weighted least squares.

    Parameters
    ----------
    curve : (B, K) numpy.ndarray
        Ring correlations.
    crossing : (B,) numpy.ndarray
        Frequencies of the crossings; NaN gives NaN.
    frequency, weight : (K,) numpy.ndarray
        Frequency and effective samples of each ring.

    Returns
    -------
    (B,) numpy.ndarray
        Change of correlation with frequency, over a quarter of the crossing on each
        side and three rings at least.
    """
    step = frequency[1] - frequency[0]
    reach = np.maximum(0.25 * crossing, 1.5 * step)
    offset = frequency[None, :] - crossing[:, None]
    w = np.where(np.abs(offset) <= reach[:, None], weight, 0.0)
    w[:, 0] = 0
    total = np.maximum(w.sum(axis=1), 1e-12)
    mean_x = (w * np.nan_to_num(offset)).sum(axis=1) / total
    mean_y = (w * curve).sum(axis=1) / total
    dx = np.nan_to_num(offset) - mean_x[:, None]
    spread = np.maximum((w * dx**2).sum(axis=1), 1e-12)
    slope: Float64Array = (w * dx * (curve - mean_y[:, None])).sum(axis=1) / spread
    return np.where(np.isfinite(crossing), slope, np.nan)
