"""Crossing of a correlation curve with a threshold, by interpolation or fit.

`FrcCriterion.find_crossings` interpolates between rings (plain), or calls
`fit_crossing` (exact), which

1. estimates a pilot crossing, and from it the rings to use and their weights;
2. computes how the window mixes the spectrum into these rings;
3. fits a model of the spectrum, with the optical cut-off if it is known and fits;
4. finds where the model crosses the threshold, and how far it may be off.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_semsr import core
from napari_semsr.analysis.frc.rings import Geometry, plan_geometry

Criterion = Literal["1/7", "half-bit", "3-sigma"]
Estimator = Literal["plain", "exact"]

# S / (1 + S) for a spectral signal-to-noise S of 1/6: docs/frc.md
FIXED_THRESHOLD = 1 / 7


@dataclass(frozen=True, slots=True)
class FrcCriterion:
    """Threshold criterion for a correlation curve."""

    criterion: Criterion
    estimator: Estimator
    reference: bool  # The second image is nearly free of noise
    single: bool  # The pair are diagonal halves of one image, to be measured
    # Optical cut-off, cycles per mean pixel of the images
    end: float | None = None

    def compute_threshold(self, samples: core.FloatArray) -> core.FloatArray:
        """Return the threshold correlation of each ring; √(1/7) with a reference.

        .. [1] M. van Heel, M. Schatz, J. Struct. Biol. 151, 250 (2005), eq. 17,
           doi:10.1016/j.jsb.2005.05.009.

        `samples` (K,); returns (K,).
        """
        count = np.maximum(samples, 1)
        if self.criterion == "half-bit":
            root = np.sqrt(count)
            return (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)
        if self.criterion == "3-sigma":
            return 3 / np.sqrt(count / 2)
        fixed = FIXED_THRESHOLD**0.5 if self.reference else FIXED_THRESHOLD
        return np.full(count.shape, fixed)

    def find_crossings(
        self,
        curve: core.FloatArray,
        geometry: Geometry,
        threshold: core.FloatArray,
        floor: core.FloatArray,
    ) -> "Crossings":
        """Find the crossings of curves (B, K) with the chosen estimator.

        `threshold` (K,), or (B, K) if it differs between pairs; `floor`: the same for a
        threshold of 1/7, below which rings contribute little.
        """
        if self.estimator != "plain":
            return fit_crossing(self, curve, geometry, threshold, floor)
        start, rings = 2 if self.criterion == "3-sigma" else 1, geometry.rings.complete
        frequency = geometry.rings.frequency[:rings]
        effective = geometry.effective[:rings]
        crossing = find_first_crossing(curve, threshold, frequency, start=start)
        slope = fit_slope(curve, crossing, frequency, effective)
        level = _interpolate_rings(threshold, np.nan_to_num(crossing) / frequency[1])
        count = np.interp(np.nan_to_num(crossing), frequency, effective)
        noise = (1 - level**2) / np.sqrt(2 * np.maximum(count, 1))
        steep = np.maximum(-slope, 1e-9)
        above = np.asarray((curve[:, start:] >= threshold[..., start:]).any(axis=1))
        misfit = np.full(crossing.shape, _FLOOR)
        spread = np.hypot(noise / (steep * crossing), misfit)
        return Crossings(crossing, spread, misfit, above, np.zeros(len(curve), bool))


@dataclass(frozen=True, slots=True)
class Crossings:
    """Threshold crossings of a batch of curves."""

    # (B,) Frequency, cycles per mean pixel; NaN if there is no crossing
    crossing: core.FloatArray
    # (B,) Standard deviation of its logarithm, and its part not due to noise
    spread: core.FloatArray
    misfit: core.FloatArray
    # (B,) Whether the curve exceeds the threshold anywhere below Nyquist
    above: core.BoolArray
    # (B,) Whether it was fitted with the known optical cut-off
    under_lens: core.BoolArray


def find_first_crossing(
    curve: core.FloatArray,
    threshold: core.FloatArray,
    frequency: core.FloatArray,
    *,
    start: int = 1,
) -> core.FloatArray:
    """Find the first downward crossing of each curve, interpolated between rings.

    `curve` (B, K); `threshold` (K,) or (B, K); `frequency` (K,); returns (B,).
    """
    excess = curve[:, start:] - threshold[..., start:]
    down = (excess[:, :-1] >= 0) & (excess[:, 1:] < 0)
    has_crossing = down.any(axis=1)
    place = np.argmax(down, axis=1)
    rows = np.arange(curve.shape[0])
    above, below = excess[rows, place], excess[rows, place + 1]
    share = above / np.where(has_crossing, above - below, 1)
    left = frequency[start + place]
    crossing: core.FloatArray = left + share * (frequency[start + place + 1] - left)
    return np.where(has_crossing, crossing, np.nan)


def fit_slope(
    curve: core.FloatArray,
    crossing: core.FloatArray,
    frequency: core.FloatArray,
    weight: core.FloatArray,
) -> core.FloatArray:
    """Fit the slope of curves (B, K) around crossings (B,) by least squares."""
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
    slope: core.FloatArray = (w * dx * (curve - mean_y[:, None])).sum(axis=1) / spread
    return np.where(np.isfinite(crossing), slope, np.nan)


def _interpolate_rings(
    values: core.FloatArray, place: core.FloatArray
) -> core.FloatArray:
    """Interpolate ring values, (K,) or (B, K), at ring positions (B,)."""
    rings = values.shape[-1]
    low = np.clip(place.astype(np.intp), 0, rings - 2)
    part = np.clip(place - low, 0, 1)
    rows = np.broadcast_to(values, (len(place), rings))
    every = np.arange(len(place))
    below, above = rows[every, low], rows[every, low + 1]
    return np.asarray(below * (1 - part) + above * part)


# The exact estimator: a likelihood fit of the signal-to-noise spectrum of a block.
#
# The spectral signal-to-noise near the crossing is modelled as ``ln s(u) = a - b ln u -
# c u²`` of the frequency u: an object with a power-law spectrum and a Gaussian transfer
# function, which does not sharpen as c >= 0. The window's leakage mixes it into ring
# values (the matrix below), from which the correlation of each ring follows, and the
# parameters maximise the likelihood of the measured correlations. If the optical
# cut-off is known, the power transmitted by ideal optics is a factor of s.
# `docs/validation/frc.md` derives every step.

# Model error in ln q (one sigma): the largest of three terms, chosen so that intervals
# include the true value also for objects that differ from the model
# (docs/validation/frc.md, "Intervals"): a floor; a share of the fall of ln S within the
# rings used, which is large close to an optical cut-off; an error of ln S over its
# slope, which is large for shallow spectra, as of 1/q² objects.
_FLOOR = 0.03
_MISFIT_OF_FALL = 0.012
_MISFIT_OF_LEVEL = 0.5

# Rings used: a dozen beyond the pilot crossing, but at least to 0.15 and at most to
# 0.55 of it, and below it 5/6 of that (docs/validation/frc.md). In blocks of 64 px the
# fit was validated with rings up to 1.6; the rest is chosen.
_WIDEST, _NARROWEST = 0.55, 0.15
_RINGS_WANTED = 12.0
_LOWER_SHARE = 5 / 6

# Fisher scoring; chosen: about ten damped steps were enough in trials, and a step of
# 0.003 in ln S is a tenth of the model error of 3 %.
_STEPS = 12
_STRIDE = 3.0
_CONVERGENCE = 3e-3

_LIMIT = 30.0  # limit of ln S; chosen: exp(30) is beyond any image, exp(700) overflows

# The "very weak quadratic penalty" on a, b and c of docs/validation/frc.md; chosen so
# that a curve without slope has a unique solution too.
_RIDGE = np.array([1e-4, 4e-2, 4e-3])

# With a known cut-off, b describes the object only, 0 to 3, and additional blur is the
# exception: the penalty on b has a standard deviation of 2, and that on c is
# proportional. Chosen on simulated pairs with ideal optics, with and without blur
# (docs/validation/frc.md).
_RIDGE_OF_LENS = np.array([1e-4, 0.25, 4e-3])
_COST_OF_BLUR = np.array([0.0, 0.0, 0.25])
# Loss of log-likelihood above which there is signal beyond the cut-off, and the fit
# without it is used; chosen: by chance in fewer than one of a thousand
_MAX_LOSS = 6.0

_LEAST = 1e-2  # smallest u in ln u; chosen: rings are used from 0.08 of the pilot on
_CLOSE = 1e-9  # chosen: distance from a correlation of 1, where ln(1 - r²) is infinite


def fit_crossing(
    question: FrcCriterion,
    curve: core.FloatArray,
    geometry: Geometry,
    threshold: core.FloatArray,
    floor: core.FloatArray,
) -> Crossings:
    """Fit each curve near its crossing and return the model's crossing.

    `curve` (B, K); `threshold`, `floor` (K,) or (B, K): the model is centred on the
    higher of both. With a reference a ring's correlation is the root of that of two
    noisy images. The optical cut-off is ignored for curves that contradict it.
    """
    rings = geometry.rings.complete
    frequency = geometry.rings.frequency[:rings]
    power, copies = 0.5 if question.reference else 1.0, 2.0 if question.single else 1.0
    end = question.end and question.end * copies
    pilot = _estimate_pilot_crossing(curve, np.maximum(threshold, floor), geometry)
    weight = copies * geometry.effective[:rings]
    weight = weight * _compute_ring_weights(pilot, geometry)
    rings_in_use = np.flatnonzero(weight.any(axis=0))
    first, last = int(rings_in_use[0]), int(rings_in_use[-1]) + 1
    matrix, nodes = create_mixing_matrix(geometry, first, last)
    weight = weight[:, first:last]
    part = np.clip(curve[:, first:last], -1 + _CLOSE, 1 - 1e-7)
    distance = frequency[None, first:last] / pilot[:, None]
    theta = _estimate_start_parameters(part, weight, distance)
    u = nodes[None, :] / pilot[:, None]
    basis = np.log(np.maximum(u, _LEAST)), u**2, np.zeros(nodes.shape), matrix
    problem = _FitProblem(part, weight, *basis, power, _RIDGE, np.zeros(3))
    best = _fit_model(problem, theta)
    ends = np.full(len(curve), np.inf)
    if end is not None:  # fit with a known optical cut-off
        lens_power = _compute_log_otf_power(frequency[first:last] / end)
        inner_curve = np.clip(part, 0.03, 0.98)
        lens_weight = weight * np.exp(lens_power)
        level = lens_weight * (np.log(inner_curve / (1 - inner_curve)) - lens_power)
        start = np.zeros((len(inner_curve), 3))
        start[:, 0] = level.sum(axis=1) / np.maximum(lens_weight.sum(axis=1), 1e-9)
        lens = _compute_log_otf_power(nodes / end)
        through_lens = replace(
            problem, lens=lens, ridge=_RIDGE_OF_LENS, cost=_COST_OF_BLUR
        )
        under = _fit_model(through_lens, start)
        # of the cut-off: below, T is smooth and the plain fit as good; chosen
        ends_earlier = (under.value >= best.value - _MAX_LOSS) & (pilot > 0.4 * end)
        best.copy_improvements(under, np.arange(len(curve)), ends_earlier)
        ends[ends_earlier] = end
    inner = 1 - _LOWER_SHARE * _compute_half_width(pilot, geometry)
    model = _SpectrumModel(best.theta, pilot, ends)
    return _find_model_crossing(model, best.fisher, inner, frequency, threshold, power)


def _estimate_pilot_crossing(
    curve: core.FloatArray, level: core.FloatArray, geometry: Geometry
) -> core.FloatArray:
    """Estimate a rough crossing of each curve from smoothed rings."""
    rings = geometry.rings.complete
    frequency = geometry.rings.frequency[:rings]
    # each ring is averaged with those within a tenth of its frequency
    place = np.arange(rings)
    near = np.abs(place[:, None] - place) <= np.maximum(1.0, 0.1 * place)[:, None]
    weight = np.where(near, geometry.effective[:rings], 0.0)
    weight[:, 0] = 0
    weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-12)
    smooth = curve @ weight.T
    crossing = find_first_crossing(smooth, level, frequency)
    low, high = 3 * geometry.rings.bin_width, geometry.rings.nyquist
    above = (smooth[:, 1:] >= level[..., 1:]).any(axis=1)
    crossing = np.where(np.isnan(crossing), np.where(above, high, low), crossing)
    return np.clip(crossing, low, high)


def _compute_ring_weights(
    pilot: core.FloatArray, geometry: Geometry
) -> core.FloatArray:
    """Weight each ring by its distance from the pilot crossing, ``(B, K)``.

    The model is local. Small blocks need rings up to 1.55 times the crossing; if there
    are many rings, those closer to it suffice, and the model's shape matters less.
    """
    rings = geometry.rings.complete
    frequency = geometry.rings.frequency[:rings]
    half = _compute_half_width(pilot, geometry)[:, None]
    v = frequency[None, :] / pilot[:, None]
    lower = half * _LOWER_SHARE
    weight = np.clip((v - 1 + 2 * lower) / lower, 0.0, 1.0)
    # inner rings always used; chosen: three parameters need more
    inside = (v <= 1 + half) | (np.arange(rings) <= 5)
    weight = np.where(inside, weight, 0.0)
    weight[:, 0] = 0
    return weight


def _compute_half_width(pilot: core.FloatArray, geometry: Geometry) -> core.FloatArray:
    """Return the range of rings above the pilot crossing, as a fraction of it."""
    half_width = _RINGS_WANTED * geometry.rings.bin_width / pilot
    return np.clip(half_width, _NARROWEST, _WIDEST)


# Effect of a window on the spectrum of a small block: leakage between rings.
#
# The expected power of a windowed, mean-free block at frequency k is the true spectral
# density smeared by a kernel that depends only on the window and the block,
#
#     E |F(k)|² = ∫ S(f) |W(k - f) - W(k) D(f)|² df,
#
# with W the transform of the window and D that of the block's outline (the second term
# is the subtracted mean). For a density that depends on radius only, ring means of the
# smeared density are linear in the density at a set of radial nodes: a matrix, computed
# once for each block size.

# Sampling of the integral; chosen so that the rows of the matrix sum to one within
# 0.002 (tested at 32 and 48 px), and the bias printed by `benchmarks/frc_accuracy.py`
# is at most about 1 % (docs/validation/frc.md).
_NODES_PER_RING = 4  # radial nodes
_FINE = 2  # samples of the kernel per bin of the spectrum
_MARGIN = 2  # rings beyond the last one that leak into it

# Reach of the modelled leakage, in bins: larger in small blocks, where leakage is a
# larger error than noise (at 64 px raw curves gave up to 44 % too fine a result);
# smaller in large blocks, to save time. Chosen.
_REACH_SMALL = 16
_REACH_LARGE = 8
_SMALL = 160  # largest side of a small block, px

# Samples that represent a ring: all samples of inner rings, six angles of the others,
# as the kernel is the same for neighbouring samples; chosen.
_WHOLE = 24
_ANGLES = 6


def create_mixing_matrix(
    geometry: Geometry, first: int = 1, last: int | None = None
) -> tuple[core.FloatArray, core.FloatArray]:
    """Return the matrix that maps spectral density at radial nodes to ring means.

    Also returns (I,), frequencies of the nodes, cycles per mean pixel.
    """
    complete = geometry.rings.complete
    last = complete if last is None else last
    if complete > _SMALL // 2 + 1:
        return _compute_mixing_matrix(geometry, first, last)
    rings = geometry.rings
    matrix, nodes = _create_full_mixing_matrix(rings.shape, rings.pitch, geometry.tukey)
    node_count = min((last + _MARGIN) * _NODES_PER_RING, nodes.size)
    return matrix[first - 1 : last - 1, :node_count], nodes[:node_count]


@lru_cache(maxsize=8)  # up to 200 kB each; chosen: jobs use one or two block sizes
def _create_full_mixing_matrix(
    shape: core.IntPair, pitch: core.FloatPair, taper: float
) -> tuple[core.FloatArray, core.FloatArray]:
    geometry = plan_geometry(shape, pitch, taper)
    return _compute_mixing_matrix(geometry, 1, geometry.rings.complete)


def _compute_mixing_matrix(
    geometry: Geometry, first: int, last: int
) -> tuple[core.FloatArray, core.FloatArray]:
    """Sum the kernel over the radial nodes for a few samples of each ring."""
    rings = geometry.rings
    rows, columns = rings.shape
    reach = _REACH_SMALL if min(rings.shape) <= _SMALL else _REACH_LARGE
    reach = min(reach, min(rings.shape) // 2)
    look_up_y, look_up_x = (
        _tabulate_window(side, geometry.tukey, reach) for side in rings.shape
    )
    spacing = rings.bin_width / _NODES_PER_RING
    lowest = max(0, (first - reach) * _NODES_PER_RING)
    count = (last + _MARGIN) * _NODES_PER_RING - lowest
    steps = (1 / (rows * rings.pitch[0]), 1 / (columns * rings.pitch[1]))
    matrix = np.zeros((last - first, count))
    norm = float((rows * columns * _FINE) ** 2)
    norm *= float(np.mean(core.tukey_window(rows, geometry.tukey) ** 2))
    norm *= float(np.mean(core.tukey_window(columns, geometry.tukey) ** 2))
    for ring in range(first, last):
        for (y, x), share in zip(*_choose_samples(rings, ring), strict=True):
            wy, dy, own_y, fy = look_up_y(int(y))
            wx, dx, own_x, fx = look_up_x(int(x))
            kernel = np.outer(wy, wx) - own_y * own_x * np.outer(dy, dx)
            radius = np.hypot(fy[:, None] * steps[0], fx[None, :] * steps[1])
            node = np.rint(radius / spacing).astype(int) - lowest
            node = np.clip(node, 0, count - 1).ravel()
            power = np.bincount(node, (kernel**2).ravel(), minlength=count)
            matrix[ring - first] += share * power
    nodes = (lowest + np.arange(count, dtype=np.float64)) * spacing
    return matrix / norm, nodes


def _choose_samples(
    rings: core.Rings, ring: int
) -> tuple[NDArray[np.intp], core.FloatArray]:
    """Choose representative samples ``(n, 2)`` of a ring, and their weights.

    The kernel is the same in all four quadrants, so one is enough. All samples of small
    rings are used, and evenly spaced angles of large ones.
    """
    axes = zip(rings.shape, rings.pitch, strict=True)
    sides = [n * p * rings.bin_width for n, p in axes]
    if ring <= _WHOLE:
        limits = [int((ring + 1) * side) + 1 for side in sides]
        quadrant = rings.index[: limits[0], : limits[1]]
        quadrant = quadrant[: rings.shape[0] // 2 + 1]
        places: NDArray[np.intp] = np.argwhere(quadrant == ring)
        weight = np.prod(np.where(places == 0, 1.0, 2.0), axis=1)
    else:
        angle = (np.arange(_ANGLES) + 0.5) * (np.pi / 2 / _ANGLES)
        circle = np.stack([np.sin(angle) * sides[0], np.cos(angle) * sides[1]], axis=1)
        places = np.rint(ring * circle).astype(np.intp)
        weight = np.ones(len(places))
    return places, weight / weight.sum()


def _tabulate_window(
    size: int, taper: float, reach: int
) -> Callable[[int], tuple[core.FloatArray, core.FloatArray, float, core.FloatArray]]:
    """Tabulate the responses of a window and of its outline at fractions of a bin.

    Returns a function that looks up window and outline around a sample, the window at
    zero frequency, and the positions in bins.
    """
    zero = (size // 2 + reach + 1) * _FINE
    offset = np.arange(-zero, zero + 1) / _FINE
    phase = np.outer(offset, np.arange(size) - (size - 1) / 2) * (2 * np.pi / size)
    waves = np.cos(phase)
    window, outline = (
        waves @ core.tukey_window(size, taper),
        waves @ np.ones(size) / size,
    )
    shift = np.arange(-reach * _FINE, reach * _FINE + 1)

    def look_up(
        place: int,
    ) -> tuple[core.FloatArray, core.FloatArray, float, core.FloatArray]:
        at = place * _FINE + shift
        own = float(window[zero + place * _FINE])
        return window[zero - shift], outline[zero + at], own, at / _FINE

    return look_up


def _estimate_start_parameters(
    curve: core.FloatArray, weight: core.FloatArray, basis: core.FloatArray
) -> core.FloatArray:
    """Estimate start parameters by a weighted line fit of logit correlation over u²."""
    inner_curve = np.clip(curve, 0.03, 0.98)
    value = np.log(inner_curve / (1 - inner_curve))
    w = weight * (inner_curve * (1 - inner_curve)) ** 2
    x = basis**2
    total = np.maximum(w.sum(axis=1), 1e-9)
    mean_x, mean_y = (w * x).sum(axis=1) / total, (w * value).sum(axis=1) / total
    dx = x - mean_x[:, None]
    slope = (w * dx * (value - mean_y[:, None])).sum(axis=1)
    slope /= np.maximum((w * dx**2).sum(axis=1), 1e-9)
    slope = np.minimum(slope, -0.3)
    return np.stack([mean_y - slope * mean_x, np.zeros_like(slope), -slope], axis=1)


@dataclass(frozen=True, slots=True)
class _FitState:
    """Optimiser state: parameters, likelihood, gradient and Fisher information."""

    theta: core.FloatArray
    value: core.FloatArray
    gradient: core.FloatArray
    fisher: core.FloatArray

    def copy_improvements(
        self, other: "_FitState", places: NDArray[np.intp], better: core.BoolArray
    ) -> None:
        """Copy improvements from another state for the pairs at `places`."""
        for item in fields(self):
            new = getattr(other, item.name)[better]
            getattr(self, item.name)[places[better]] = new


@dataclass(frozen=True, slots=True)
class _FitProblem:
    """Curves to fit, with the data needed for the fit."""

    curve: core.FloatArray
    weight: core.FloatArray
    falls: core.FloatArray  # ln u and u² of the nodes
    ends: core.FloatArray
    lens: core.FloatArray  # (J,) ln T² of ideal optics at the nodes
    matrix: core.FloatArray
    power: float
    ridge: core.FloatArray
    cost: core.FloatArray  # proportional penalty of each parameter

    def select(self, places: NDArray[np.intp]) -> "_FitProblem":
        names = "curve", "weight", "falls", "ends"
        return replace(self, **{name: getattr(self, name)[places] for name in names})

    def evaluate(self, theta: core.FloatArray) -> _FitState:
        """Evaluate the penalised likelihood and its derivatives."""
        exponent = theta[:, :1] - theta[:, 1:2] * self.falls - theta[:, 2:] * self.ends
        density = np.exp(np.clip(exponent + self.lens, -_LIMIT, _LIMIT))
        stack = np.stack([density, -density * self.falls, -density * self.ends], axis=1)
        mixture = stack @ self.matrix.T
        ratio = mixture[:, 0]
        rho = np.minimum((ratio / (1 + ratio)) ** self.power, 1 - _CLOSE)
        chain = self.power * rho / np.maximum(ratio * (1 + ratio), 1e-30)
        jacobian = mixture * chain[:, None, :]
        narrow = 1 - rho**2
        wide = 1 - rho * self.curve
        value = np.vecdot(self.weight, np.log(narrow) - 2 * np.log(wide))
        value -= 0.5 * (theta**2 @ self.ridge) + theta @ self.cost
        pull = 2 * self.weight * (self.curve - rho) / (narrow * wide)
        gradient = np.vecdot(pull[:, None, :], jacobian)
        gradient -= theta * self.ridge + self.cost
        weighted_jacobian = jacobian * (np.sqrt(2 * self.weight) / narrow)[:, None, :]
        fisher = weighted_jacobian @ weighted_jacobian.transpose(0, 2, 1)
        fisher = fisher + np.diag(self.ridge)
        return _FitState(theta, value, gradient, fisher)


def _fit_model(problem: _FitProblem, theta: core.FloatArray) -> _FitState:
    """Fit the model, and refit it with c = 0 if c is negative."""
    best = _maximise_likelihood(problem, theta)
    rising = np.flatnonzero(best.theta[:, 2] < 0)
    if rising.size:
        # penalty on c to keep it at 0
        fixed_theta = np.array([*problem.ridge[:2], 1e9])
        straight = replace(problem.select(rising), ridge=fixed_theta)
        theta = best.theta[rising] * [1.0, 1.0, 0.0]
        refit = _maximise_likelihood(straight, theta)
        best.copy_improvements(refit, rising, np.ones(rising.size, bool))
    return best


def _maximise_likelihood(problem: _FitProblem, theta: core.FloatArray) -> _FitState:
    """Maximise the likelihood by Fisher scoring with damped steps.

    Pairs leave the batch as soon as their steps are small.
    """
    state = problem.evaluate(theta)
    damping = np.full(theta.shape[0], 1e-2)
    active = np.arange(theta.shape[0])
    diagonal = np.arange(3)
    for _ in range(_STEPS):
        system = state.fisher[active]
        system[:, diagonal, diagonal] *= 1 + damping[active, None]
        step = np.linalg.solve(system, state.gradient[active][:, :, None])[:, :, 0]
        trial_theta = state.theta[active] + np.clip(step, -_STRIDE, _STRIDE)
        trial = problem.evaluate(trial_theta)
        better = trial.value >= state.value[active]
        state.copy_improvements(trial, active, better)
        damping[active] *= np.where(better, 0.1, 10.0)
        going = np.flatnonzero(np.abs(step).max(axis=1) >= _CONVERGENCE)
        if not going.size:
            break
        if going.size < active.size:
            active, problem = active[going], problem.select(going)
    return state


@dataclass(frozen=True, slots=True)
class _SpectrumModel:
    """Fitted signal-to-noise spectra, (B,)."""

    theta: core.FloatArray
    pilot: core.FloatArray
    ends: core.FloatArray  # optical cut-offs; infinite if not used

    def evaluate(self, frequency: core.FloatArray) -> core.FloatArray:
        """Evaluate ln S at frequencies (B, F)."""
        u = frequency / self.pilot[:, None]
        a, b, c = (self.theta[:, [place]] for place in range(3))
        lens = _compute_log_otf_power(frequency / self.ends[:, None])
        return np.asarray(a - b * np.log(np.maximum(u, _LEAST)) - c * u**2 + lens)

    def compute_slope(self, crossing: core.FloatArray) -> core.FloatArray:
        """Return the slope of ln S against ln q at one frequency per curve, (B,)."""
        v, x = crossing / self.pilot, np.minimum(crossing / self.ends, 1)
        least = np.exp(-_LIMIT)
        lens = x * np.sqrt(1 - x * x) / np.maximum(core.ideal_otf(x), least)
        fall = self.theta[:, 1] + 2 * self.theta[:, 2] * v**2 + 8 / np.pi * lens
        return np.asarray(np.maximum(fall, 1e-6))


def _compute_log_otf_power(x: core.FloatArray) -> core.FloatArray:
    """Compute ln T², the log power of ideal optics; `x`: frequency over cut-off."""
    power = np.square(core.ideal_otf(x))
    return np.asarray(np.log(np.maximum(power, np.exp(-2 * _LIMIT))))


def _find_model_crossing(
    model: _SpectrumModel,
    fisher: core.FloatArray,
    inner: core.FloatArray,
    frequency: core.FloatArray,
    threshold: core.FloatArray,
    power: float,
) -> Crossings:
    """Find the model's crossing, its spread by the delta method, and the model error.

    `inner` (B,), over the pilot: rings from there on have full weight.
    """
    theta, pilot = model.theta, model.pilot
    fine = np.linspace(0, frequency[-1], 4 * (frequency.size - 1) + 1)
    place = np.arange(fine.size) / 4
    rows = np.atleast_2d(threshold)
    level = np.stack([_interpolate_rings(row[None], place) for row in rows])
    target = np.where(level < 1, _compute_log_odds(level, power), np.inf)
    start = max(int(np.argmax(np.isfinite(target).all(axis=0))), 1)
    target = np.where(np.isfinite(target), target, target[:, start : start + 1])
    curve_values = model.evaluate(np.broadcast_to(fine, (len(pilot), fine.size)))
    above = (curve_values[:, start:] >= target[:, start:]).any(axis=1)
    # close to the cut-off the transfer falls too steeply for linear interpolation
    low = find_first_crossing(curve_values, target, fine, start=start)
    low = np.floor(low / fine[1]) * fine[1]
    crossing = low + fine[1] / 2
    # bisections of a quarter of a ring; chosen: far below any spread
    for halving in range(12):
        level = _interpolate_rings(threshold, np.nan_to_num(crossing) / frequency[1])
        odds = _compute_log_odds(level, power)
        over = model.evaluate(crossing[:, None])[:, 0] >= odds
        crossing += np.where(over, 1, -1) * fine[1] / 2 ** (halving + 2)
    v = crossing / pilot
    steep = model.compute_slope(crossing)
    fall = theta[:, 1] * np.log(v / inner) + theta[:, 2] * (v**2 - inner**2)
    vector = np.nan_to_num(np.stack([np.ones_like(v), -np.log(v), -v * v], axis=1))
    solution = np.linalg.solve(fisher, vector[:, :, None])[:, :, 0]
    variance = np.maximum((vector * solution).sum(axis=1), 0)
    misfit = np.maximum(_FLOOR, _MISFIT_OF_FALL * fall)
    misfit = np.maximum(misfit, _MISFIT_OF_LEVEL / steep)
    spread = np.hypot(np.sqrt(variance) / steep, misfit)
    is_under = np.isfinite(model.ends)
    return Crossings(crossing, spread, misfit, np.asarray(above), is_under)


def _compute_log_odds(level: core.FloatArray, power: float) -> core.FloatArray:
    """Return ln S for a given correlation of a pair."""
    base = np.clip(level, 0, 1 - 1e-6) ** (1 / power)
    return np.asarray(np.log(base / (1 - base)))
