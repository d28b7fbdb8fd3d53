"""Line and edge models, fitted to the pixels of a profile by least squares.

All lengths are pixels along the line. A pixel averages over its area, which widens a
Gaussian of variance sigma² to sigma² + a², with a the standard deviation of the pixel's
area along the line. Sigma is fitted, so that widths are those of the object.

- *Gaussian*: background b0 + b1 t and A exp(-(t - c)² / 2 (sigma² + a²)) for each line.
- *Box*: a box of width W blurred by that Gaussian, A F(t - c) / F(0) with
  F(z) = (erf((z + W/2) / s) - erf((z - W/2) / s)) / 2, s² = 2 (sigma² + a²).
- *Edge*: b + A (1 + erf((t - c) / s)) / 2, optionally + m (t - c).

The covariance is that of least squares, (J'J)^-1 RSS / (n - k), times the variance of
means of residuals over that of independent ones, as neighbouring pixels of a resampled
image are correlated; errors of quantities derived from the parameters follow by the
delta method.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy  # the submodules are loaded lazily
from scipy import special

from napari_semsr.core import FloatArray

GAUSSIAN_FWHM = 2 * math.sqrt(2 * math.log(2))
EDGE_10_90 = 2 * math.sqrt(2) * float(special.erfinv(0.8))
"""Ratio of the 10 to 90 % width of a blurred edge to the standard deviation of the
blur.
"""
_SMALLEST, _LARGEST = -4.0, 9.0  # logarithm of a width in px; chosen: 0.02 to 8000 px


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its standard deviation and 95 % interval."""

    value: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class ModelFit:
    """Fitted model parameters and their covariance."""

    shape: str  # "gaussian", "box" or "edge"
    parameters: FloatArray
    covariance: FloatArray
    noise: float  # standard deviation of a pixel from the model
    sum_of_squares: float
    pixels: int
    area_px: float

    @property
    def degrees_of_freedom(self) -> int:
        """Degrees of freedom: pixels minus parameters."""
        return self.pixels - len(self.parameters)

    @property
    def akaike_criterion(self) -> float:
        """Akaike information criterion; lower is better."""
        n, k = self.pixels, len(self.parameters)
        return n * math.log(max(self.sum_of_squares, 1e-300) / n) + 2 * k

    @property
    def line_parameters(self) -> FloatArray:
        """Parameters of each line: height, position, log of blur and of box width."""
        return self.parameters[2:].reshape(-1, _COUNTS[self.shape])

    def get_position_index(self, number: int) -> int:
        """Return the index of a line's position among the parameters."""
        return 3 + number * _COUNTS[self.shape]

    def evaluate(
        self,
        places: FloatArray,
        parameters: FloatArray | None = None,
        *,
        background: bool = True,
    ) -> FloatArray:
        """Evaluate the model at positions (K,), optionally with other parameters."""
        parameters = (self.parameters if parameters is None else parameters).copy()
        if not background:
            parameters[:2] = 0
        return _evaluate_model(self.shape, parameters, places, self.area_px)[0]

    def estimate(
        self, of: Callable[[FloatArray], float], *, positive: bool = False
    ) -> Estimate:
        """Estimate a function of the parameters, with its error.

        For a `positive` quantity the interval is that of its logarithm.
        """
        value = of(self.parameters)
        slopes = np.empty(len(self.parameters))
        for place in range(len(slopes)):
            step = np.zeros(len(slopes))
            # of a parameter's error: step of the numerical derivative; chosen
            step[place] = 1e-2 * math.sqrt(self.covariance[place, place])
            if not step[place]:
                slopes[place] = 0.0
                continue
            ahead, behind = of(self.parameters + step), of(self.parameters - step)
            slopes[place] = (ahead - behind) / (2 * step[place])
        sd = math.sqrt(max(0.0, float(slopes @ self.covariance @ slopes)))
        return create_estimate(value, sd, self.degrees_of_freedom, positive=positive)


def create_estimate(
    value: float, sd: float, freedom: float = math.inf, *, positive: bool = False
) -> Estimate:
    """Return a number with its 95 % interval."""
    # quantile of Student's distribution for 95 % intervals
    # degrees of freedom from which Student's distribution is normal
    k = float(special.stdtrit(min(max(1.0, freedom), 1e9), 0.975))
    if positive and value > 0:
        with np.errstate(over="ignore"):
            spread = float(np.exp(k * sd / value))
        return Estimate(value, sd, value / spread, value * spread)
    return Estimate(value, sd, value - k * sd, value + k * sd)


def convert_log_width(log: float) -> float:
    """Convert the logarithm of a width to the width, clipped to a finite range."""
    return math.exp(min(max(log, _SMALLEST), _LARGEST))


def average_estimates(
    models: Sequence[ModelFit], estimates: Sequence[Estimate]
) -> Estimate:
    """Average the estimates of one or two models, the better first, by Akaike weights.

    The difference between them is added to the error.
    """
    if len(estimates) == 1:
        return estimates[0]
    (better, model), (one, other) = models, estimates
    lead = (model.akaike_criterion - better.akaike_criterion) / 2
    weight = 1 / (1 + math.exp(min(lead, 50.0)))
    value = (1 - weight) * one.value + weight * other.value
    spread = (1 - weight) * (one.sd**2 + (one.value - value) ** 2)
    spread += weight * (other.sd**2 + (other.value - value) ** 2)
    freedom = better.degrees_of_freedom
    return create_estimate(value, math.sqrt(spread), freedom, positive=True)


def compute_fwhm(sigma: float, box: float = 0.0) -> float:
    """Compute the full width at half maximum of a box blurred by a Gaussian."""
    if box <= 0:
        return GAUSSIAN_FWHM * sigma
    if box > 12 * sigma:  # half maximum is at the ends of the box
        return box
    s = math.sqrt(2) * sigma
    half = math.erf(box / 2 / s)

    def excess(x: float) -> float:
        return math.erf((x + box / 2) / s) - math.erf((x - box / 2) / s) - half

    return 2 * float(scipy.optimize.brentq(excess, 0.0, box / 2 + 3 * sigma))


_COUNTS = {"gaussian": 3, "box": 4}
"""Number of parameters per line in each model."""


def fit_lines(
    places: FloatArray, values: FloatArray, start: FloatArray, area_px: float
) -> ModelFit | None:
    """Fit lines on a sloping background; None if the fit fails.

    `start` (N, 3) or (N, 4): height, position, sigma, and the width of a box.
    """
    shape = "box" if start.shape[1] == 4 else "gaussian"
    begin = start.copy()
    begin[:, 2:] = np.log(begin[:, 2:])
    parameters = np.array([0, 0, *begin.ravel()])
    derivatives = _evaluate_model(shape, parameters, places, area_px)[1]
    # background and heights are linear parameters: solve for them first
    linear = [0, 1, *range(2, derivatives.shape[1], begin.shape[1])]
    best = np.linalg.lstsq(derivatives[:, linear], values, rcond=None)[0]
    begin[:, 0] = np.where(best[2:] * begin[:, 0] > 0, best[2:], begin[:, 0])
    parameters = np.array([*best[:2], *begin.ravel()])
    return _fit_model(shape, parameters, places, values, area_px)


def fit_edge(
    places: FloatArray, values: FloatArray, start: tuple[float, ...], area_px: float
) -> ModelFit | None:
    """Fit an edge, starting from level, step, position and sigma; None if it fails.

    A fifth number is the slope on either side; without it the sides are level.
    """
    low, step, place, sigma, *slope = start
    begin = np.array([low, step, place, math.log(sigma), *slope])
    return _fit_model("edge", begin, places, values, area_px)


def _fit_model(
    shape: str, start: FloatArray, places: FloatArray, values: FloatArray, area: float
) -> ModelFit | None:
    if len(values) <= len(start):
        return None
    # chosen: keeps the slope of a step finite
    area = max(area, 0.01)
    unit = float(np.ptp(values)) or 1.0

    @lru_cache(1)
    def evaluate(raw: bytes) -> tuple[FloatArray, FloatArray]:
        return _evaluate_model(shape, np.frombuffer(raw), places, area)

    solution, _, details, _, status = scipy.optimize.leastsq(
        lambda p: (evaluate(p.tobytes())[0] - values) / unit,
        start,
        Dfun=lambda p: evaluate(p.tobytes())[1] / unit,
        # maximum evaluations per parameter; chosen: ten are usual
        maxfev=60 * len(start),
        full_output=True,
    )
    # MINPACK's codes of convergence
    if not np.isfinite(solution).all() or status not in (1, 2, 3, 4):
        return None
    slopes = evaluate(solution.tobytes())[1] / unit
    squares = float((details["fvec"] ** 2).sum()) * unit**2
    variance = squares / (len(values) - len(start))
    scale = np.maximum(np.linalg.norm(slopes, axis=0), 1e-300)
    _, singular, right_vectors = np.linalg.svd(slopes / scale, full_matrices=False)
    # of the largest singular value; chosen: below, undetermined
    sure = singular > 1e-10 * singular[0]
    half = right_vectors[sure] / singular[sure, None] / scale
    correlated = _compare_with_white_noise(details["fvec"], places)
    covariance = half.T @ half * variance * correlated / unit**2
    return ModelFit(
        shape, solution, covariance, math.sqrt(variance), squares, len(values), area
    )


def _compare_with_white_noise(residuals: FloatArray, places: FloatArray) -> float:
    """Return the variance of means of residuals, over that if they were independent.

    Neighbours of resampled images are not. From the sums at each pixel along the line,
    and from their autocorrelation up to the first lag that is within its 95 % interval
    for white noise; at least 1.
    """
    at = np.rint(places - places.min()).astype(int)
    counts = np.bincount(at)
    sums = np.bincount(at, residuals)[counts > 0] / np.sqrt(counts[counts > 0])
    products = np.correlate(sums, sums, "full")[len(sums) - 1 :]
    square = len(sums) * float(np.mean(residuals**2))
    if not square:
        return 1.0
    across, limit = products[0] / square, 2 / math.sqrt(len(sums))
    share = products / products[0]
    along = 1 + 2 * share[1 : np.argmax(np.append(share, 0) < limit)].sum()
    across = across if across > 1 + math.sqrt(2) * limit else 1.0
    return max(1.0, float(along * across))


def _evaluate_model(
    shape: str, parameters: FloatArray, places: FloatArray, area: float
) -> tuple[FloatArray, FloatArray]:
    """Evaluate the model (K,) and its parameter derivatives (K, P)."""
    if shape == "edge":
        return _evaluate_edge(parameters, places, area)
    count = _COUNTS[shape]
    lines = parameters[2:].reshape(-1, count)
    slopes = np.empty((len(places), len(parameters)))
    slopes[:, 0], slopes[:, 1] = 1, places
    model = parameters[0] + parameters[1] * places
    one = _evaluate_gaussian if shape == "gaussian" else _evaluate_box
    for number, line in enumerate(lines):
        part = slopes[:, 2 + number * count : 2 + (number + 1) * count]
        model = model + one(line, places, area, part)
    return model, slopes


def _compute_total_blur(log: float, area: float) -> tuple[float, float]:
    """Return the blur including the pixel area, and its log-width derivative."""
    sigma = convert_log_width(log)
    both = math.hypot(sigma, area)
    return both, sigma**2 / both


def _evaluate_gaussian(
    line: FloatArray, places: FloatArray, area: float, slopes: FloatArray
) -> FloatArray:
    height, centre, log = line
    both, slope = _compute_total_blur(log, area)
    z = (places - centre) / both
    bell = np.exp(-(z**2) / 2)
    model: FloatArray = height * bell
    slopes[:, 0] = bell
    slopes[:, 1] = model * z / both
    slopes[:, 2] = model * z**2 / both * slope
    return model


def _evaluate_box(
    line: FloatArray, places: FloatArray, area: float, slopes: FloatArray
) -> FloatArray:
    height, centre, log, log_box = line
    both, slope = _compute_total_blur(log, area)
    box = convert_log_width(log_box)
    s = math.sqrt(2) * both
    top = box / 2 / s
    a, b = (places - centre) / s + top, (places - centre) / s - top
    bell_a, bell_b = np.exp(-(a**2)), np.exp(-(b**2))
    full = math.erf(top)
    profile = (special.erf(a) - special.erf(b)) / 2 / full
    k = 1 / math.sqrt(math.pi)
    bell = math.exp(-(top**2))
    slopes[:, 0] = profile
    slopes[:, 1] = -height * k * (bell_a - bell_b) / s / full
    by_top = profile * 2 * k * top * bell / both
    by_blur = -k * (a * bell_a - b * bell_b) / both + by_top
    slopes[:, 2] = height * by_blur / full * slope
    by_box = k * (bell_a + bell_b) / 2 / s - profile * k * bell / s
    slopes[:, 3] = height * by_box / full * box
    model: FloatArray = height * profile
    return model


def _evaluate_edge(
    parameters: FloatArray, places: FloatArray, area: float
) -> tuple[FloatArray, FloatArray]:
    low, step, centre, log, *tilt = parameters
    both, slope = _compute_total_blur(log, area)
    z = (places - centre) / (math.sqrt(2) * both)
    rise = (1 + special.erf(z)) / 2
    bell = np.exp(-(z**2)) / math.sqrt(math.pi)
    slopes = np.empty((len(places), len(parameters)))
    slopes[:, 0], slopes[:, 1] = 1, rise
    slopes[:, 2] = -step * bell / (math.sqrt(2) * both)
    slopes[:, 3] = -step * bell * z / both * slope
    model = low + step * rise
    if tilt:
        slopes[:, 4] = places - centre
        slopes[:, 2] -= tilt[0]
        model += tilt[0] * slopes[:, 4]
    return model, slopes
