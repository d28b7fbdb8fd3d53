"""What many gaps say together: histogram, fitted Gaussian, and 95 % intervals."""

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from napari_semsr.core import FloatArray, FloatPair, OptionError

LEVEL = 0.95  # of all intervals
# Another seed moves an end by 1 to 2 % of the interval (benchmarks/gap_intervals.py)
RESAMPLES = 4000
SEED = 0
_LEAST_VALUES = 5  # fewer are often drawn as one value alone, which has no spread
_REFITS = 200  # for a standard error that is known to 5 %, as 1 / sqrt(2 n)
_LEAST_GAPS = 8  # fewer make no histogram of three numbers
_FAR = 3.0  # Tukey's outer fence, in quartile ranges above the third quartile
_ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)  # widths of bins that a reader can add up
_MOST_BINS = 1000
_AT_ONCE = 1 << 22  # resampled values held in memory


@dataclass(frozen=True, slots=True)
class WidthFit:
    """Gaussian that was fitted to a histogram of widths, in the histogram's unit."""

    mean: float
    # Its standard error: the spread of fits to gaps that are drawn again
    error: float
    sigma: float
    height: float  # gaps per bin

    def at(self, widths: ArrayLike) -> FloatArray:
        """Give gaps per bin at some widths.

        Parameters
        ----------
        widths : array_like
            In the histogram's unit.

        Returns
        -------
        numpy.ndarray
            Of the same shape.
        """
        return _gaussian(
            np.asarray(widths, dtype=float), self.height, self.mean, self.sigma
        )


@dataclass(frozen=True, slots=True)
class WidthHistogram:
    """Widths of gaps, counted.

    Attributes
    ----------
    edges : tuple of float
        Of the bins, one more than there are counts.
    counts : tuple of int
        Gaps in each bin.
    beyond : int
        Gaps that are wider than the last edge.
    fit : WidthFit or None
        None where there are too few gaps, or no Gaussian fits.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    beyond: int
    fit: WidthFit | None


def width_edges(widths: Iterable[float], bin_width: float | None = None) -> FloatArray:
    """Choose the bins of a histogram, from 0 to Tukey's outer fence.

    Parameters
    ----------
    widths : iterable of float
        All that are to be counted in these bins.
    bin_width : float, optional
        Width of a bin, else that of Freedman and Diaconis [1]_, rounded.

    Returns
    -------
    (N,) numpy.ndarray
        Edges.

    Raises
    ------
    OptionError
        If there would be more than 1000 bins.

    References
    ----------
    .. [1] D. Freedman and P. Diaconis, Z. Wahrscheinlichkeitstheorie 57, 453 (1981),
       doi:10.1007/BF01025868.
    """
    known = np.array(list(widths), dtype=float)
    if not known.size:
        return np.array([0.0, bin_width or 1.0])
    low, high = np.quantile(known, [0.25, 0.75])
    last = min(float(known.max()), float(high + _FAR * (high - low)))
    step = bin_width
    if step is None:
        step = 2 * float(high - low) / known.size ** (1 / 3)
        step = _round_number(step if step > last / _MOST_BINS else last / 10)
    count = math.floor(last / step) + 1
    if count > _MOST_BINS:
        msg = (
            f"bin_width must give at most {_MOST_BINS} bins, got {step:g} for gaps as "
            f"wide as {last:.4g}; choose wider bins."
        )
        raise OptionError(msg)
    return np.arange(count + 1, dtype=float) * step


def _round_number(value: float) -> float:
    """Round to the nearest of 1, 2, 2.5, 5 and 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return power * min(_ROUND, key=lambda one: abs(math.log(value / power / one)))


def count_widths(widths: Iterable[float], edges: ArrayLike) -> WidthHistogram:
    """Count widths, and fit a Gaussian to the counts by plain least squares.

    Widths have a long tail, which no Gaussian has: the fit's mean is that of the hump.

    Parameters
    ----------
    widths : iterable of float
        Widths.
    edges : (N,) array_like
        Edges of the bins, all of one width.

    Returns
    -------
    WidthHistogram
        Counts and Gaussian.
    """
    known, at = np.array(list(widths), dtype=float), np.asarray(edges, dtype=float)
    counts, _ = np.histogram(known, at)
    return WidthHistogram(
        tuple(at.tolist()),
        tuple(counts.tolist()),
        int(np.count_nonzero(known > at[-1])),
        _fit(known[known <= at[-1]], counts, at),
    )


def _fit(
    known: FloatArray, counts: NDArray[np.integer], edges: FloatArray
) -> WidthFit | None:
    if counts.sum() < _LEAST_GAPS or counts.size <= 3:
        return None
    middle, step = (edges[:-1] + edges[1:]) / 2, float(edges[1] - edges[0])
    start = (float(counts.max()), float(np.median(known)), float(known.std()))
    best = _fitted(middle, counts, (*start[:2], max(start[2], step)))
    if best is None or not 0 <= best[1] <= edges[-1]:
        return None
    rng, means = np.random.default_rng(SEED), []
    for drawn in rng.multinomial(counts.sum(), counts / counts.sum(), _REFITS):
        again = _fitted(middle, drawn, best)
        if again is not None:
            means.append(again[1])
    if len(means) < _REFITS / 2:  # a hump that comes and goes is none
        return None
    # half of what holds 68 %: one wild fit would make a standard deviation large
    low, high = np.quantile(means, [0.16, 0.84])
    height, mean, sigma = best
    return WidthFit(mean, float(high - low) / 2, abs(sigma), height)


def _fitted(
    middle: FloatArray, counts: NDArray[np.integer], start: tuple[float, float, float]
) -> tuple[float, float, float] | None:
    """Fit height, mean and sigma; None without convergence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a spread that is not asked for
            best, _ = optimize.curve_fit(_gaussian, middle, counts, start, jac=_slopes)
    except RuntimeError:
        return None
    height, mean, sigma = (float(value) for value in best)
    return (height, mean, sigma) if math.isfinite(mean) else None


def _gaussian(x: FloatArray, height: float, mean: float, sigma: float) -> FloatArray:
    return np.asarray(height * np.exp(-0.5 * ((x - mean) / sigma) ** 2))


def _slopes(x: FloatArray, height: float, mean: float, sigma: float) -> FloatArray:
    away = (x - mean) / sigma
    shape = np.exp(-0.5 * away**2)
    rise = height * shape * away / sigma
    return np.stack([shape, rise, rise * away], axis=1)


def share_interval(part: int, whole: int) -> FloatPair | None:
    """Give Wilson's 95 % interval of a share, which holds at 0 of n, too.

    Parameters
    ----------
    part, whole : int
        Counts, such as gaps that are missed and all gaps.

    Returns
    -------
    tuple of float or None
        Between 0 and 1; None of nothing.

    References
    ----------
    .. [1] E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927), doi:10.2307/2276774.
    """
    if whole < 1:
        return None
    z2 = NormalDist().inv_cdf((1 + LEVEL) / 2) ** 2
    share = part / whole
    middle = (share + z2 / (2 * whole)) / (1 + z2 / whole)
    half = math.sqrt(z2 * share * (1 - share) / whole + (z2 / (2 * whole)) ** 2)
    half /= 1 + z2 / whole
    low = 0.0 if part == 0 else max(0.0, middle - half)
    high = 1.0 if part == whole else min(1.0, middle + half)
    return low, high


def mean_interval(values: ArrayLike, *, seed: int = SEED) -> FloatPair | None:
    """Give the studentised bootstrap's 95 % interval of a mean.

    Values are drawn again 4000 times, from one seed: measured twice, it is the same.
    Each draw's mean is told in units of its own standard error, so that skewed
    values, as absolute errors are, have an interval that is longer on one side.

    Parameters
    ----------
    values : (N,) array_like
        One for each gap.
    seed : int, default=0
        Of the draws.

    Returns
    -------
    tuple of float or None
        None of fewer than five values.

    References
    ----------
    .. [1] B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993),
       section 12.5.
    """
    known = np.asarray(values, dtype=float)
    count = known.size
    if count < _LEAST_VALUES:
        return None
    mean, error = float(known.mean()), float(known.std(ddof=1)) / math.sqrt(count)
    if error <= 1e-9 * abs(mean):  # all are one value
        return mean, mean
    rng = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // count)
    ratios = []
    for first in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - first)
        drawn = known[rng.integers(0, count, (rows, count))]
        errors = drawn.std(axis=1, ddof=1) / math.sqrt(count)
        spread = errors > 1e-9 * error  # else one value was drawn each time
        ratios.append((drawn[spread].mean(axis=1) - mean) / errors[spread])
    low, high = np.quantile(
        np.concatenate(ratios), [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    ).tolist()
    return mean - high * error, mean - low * error
