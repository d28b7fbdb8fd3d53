"""The exact estimator: a likelihood fit of the signal-to-noise spectrum of a block.

The spectral signal-to-noise near the crossing is modelled as
``ln s(u) = a - b u - c u²`` of the frequency u. The window's leakage mixes it into ring
values (`mixing`), a ring's correlation follows from those, and the parameters maximise
the likelihood of the measured correlations. `docs/frc.md` derives every step.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_semsr.analysis.crossing import first_crossing
from napari_semsr.analysis.mixing import mix_rings
from napari_semsr.analysis.ring_sums import Geometry

__all__ = ["Fit", "fit_crossing"]

Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

WIDEST, NARROWEST = 0.55, 0.15
_RINGS_WANTED = 12.0
_LOWER_SHARE = 5 / 6
STEPS = 12
_STRIDE = 3.0
_SETTLED = 3e-3
_FEWEST = 5
_LIMIT = 30.0
_RIDGE = np.array([1e-4, 4e-2, 4e-3])
_CLOSE = 1e-9


@dataclass(frozen=True, slots=True)
class Fit:
    """Crossings of a batch by likelihood.

    Attributes
    ----------
    crossing : (B,) numpy.ndarray
        Frequency, cycles per mean pixel; NaN where the model does not cross.
    spread : (B,) numpy.ndarray
        Standard deviation of its logarithm from the Fisher information.
    above : (B,) numpy.ndarray of bool
        Whether the model lies above the threshold anywhere below Nyquist.
    """

    crossing: Float64Array
    spread: Float64Array
    above: BoolArray


def _smoothing(effective: Float64Array) -> Float64Array:
    """Matrix that averages each ring with those within a tenth of its frequency."""
    place = np.arange(effective.size)
    reach = np.maximum(1.0, 0.1 * place)
    near = np.abs(place[:, None] - place[None, :]) <= reach[:, None]
    weight = np.where(near, effective[None, :], 0.0)
    weight[:, 0] = 0
    smooth: Float64Array = weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-12)
    return smooth


def _pilot(
    curve: Float64Array, level: Float64Array, geometry: Geometry
) -> Float64Array:
    """Rough crossing of each curve, by smoothing over neighbouring rings."""
    rings = geometry.rings.complete
    frequency = geometry.rings.frequency[:rings]
    smooth = curve @ _smoothing(geometry.effective[:rings]).T
    crossing = first_crossing(smooth, level, frequency)
    low, high = 3 * geometry.rings.bin_width, geometry.rings.nyquist
    above = (smooth[:, 1:] >= level[1:]).any(axis=1)
    crossing = np.where(np.isnan(crossing), np.where(above, high, low), crossing)
    return np.clip(crossing, low, high)


def _influence(pilot: Float64Array, geometry: Geometry) -> Float64Array:
    """Weight of each ring by its distance from the pilot crossing ``(B, K)``.

    The model is local. Small blocks need rings out to 1.55 times the crossing; where
    rings abound, fewer and nearer ones serve, and the model's shape matters less.
    """
    rings = geometry.rings.complete
    frequency = geometry.rings.frequency[:rings]
    wanted = _RINGS_WANTED * geometry.rings.bin_width / pilot
    half = np.clip(wanted, NARROWEST, WIDEST)[:, None]
    v = frequency[None, :] / pilot[:, None]
    lower = half * _LOWER_SHARE
    weight = np.clip((v - 1 + 2 * lower) / lower, 0.0, 1.0)
    inside = (v <= 1 + half) | (np.arange(rings) <= _FEWEST)
    weight = np.where(inside, weight, 0.0)
    weight[:, 0] = 0
    return weight


def _start(
    curve: Float64Array, weight: Float64Array, basis: Float64Array
) -> Float64Array:
    """First parameters: a weighted straight line of logit correlation over u²."""
    clipped = np.clip(curve, 0.03, 0.98)
    value = np.log(clipped / (1 - clipped))
    w = weight * (clipped * (1 - clipped)) ** 2
    x = basis**2
    total = np.maximum(w.sum(axis=1), 1e-9)
    mean_x, mean_y = (w * x).sum(axis=1) / total, (w * value).sum(axis=1) / total
    dx = x - mean_x[:, None]
    slope = (w * dx * (value - mean_y[:, None])).sum(axis=1)
    slope /= np.maximum((w * dx**2).sum(axis=1), 1e-9)
    slope = np.minimum(slope, -0.3)
    return np.stack([mean_y - slope * mean_x, np.zeros_like(slope), -slope], axis=1)


def _expected(
    theta: Float64Array, nodes: Float64Array, matrix: Float64Array, power: float
) -> tuple[Float64Array, Float64Array]:
    """Ring correlations of the model ``(B, J)`` and their derivatives ``(B, 3, J)``."""
    u = nodes
    exponent = theta[:, :1] - u * (theta[:, 1:2] + u * theta[:, 2:])
    density = np.exp(np.clip(exponent, -_LIMIT, _LIMIT))
    stack = np.stack([density, -density * u, -density * u * u], axis=1)
    mixed = stack @ matrix.T
    ratio = mixed[:, 0]
    base = ratio / (1 + ratio)
    rho = np.minimum(base**power, 1 - _CLOSE)
    chain = power * rho / np.maximum(ratio * (1 + ratio), 1e-30)
    return rho, mixed * chain[:, None, :]


@dataclass(frozen=True, slots=True)
class _State:
    """Where the search stands: parameters, likelihood, gradient and information."""

    theta: Float64Array
    value: Float64Array
    gradient: Float64Array
    fisher: Float64Array

    def adopt(
        self, other: "_State", places: NDArray[np.intp], better: BoolArray
    ) -> None:
        """Take over what another state, of the pairs at `places`, has improved."""
        to = places[better]
        self.theta[to] = other.theta[better]
        self.value[to] = other.value[better]
        self.gradient[to] = other.gradient[better]
        self.fisher[to] = other.fisher[better]


@dataclass(frozen=True, slots=True)
class _Problem:
    """Curves to be fitted and what they are fitted with."""

    curve: Float64Array
    weight: Float64Array
    u: Float64Array
    matrix: Float64Array
    power: float

    def only(self, places: NDArray[np.intp]) -> "_Problem":
        """Keep some of the curves."""
        return replace(
            self,
            curve=self.curve[places],
            weight=self.weight[places],
            u=self.u[places],
        )

    def at(self, theta: Float64Array) -> _State:
        """Evaluate the penalised likelihood and its derivatives."""
        rho, jacobian = _expected(theta, self.u, self.matrix, self.power)
        narrow = 1 - rho**2
        wide = 1 - rho * self.curve
        value = np.vecdot(self.weight, np.log(narrow) - 2 * np.log(wide))
        value -= 0.5 * (theta**2 @ _RIDGE)
        pull = 2 * self.weight * (self.curve - rho) / (narrow * wide)
        gradient = np.vecdot(pull[:, None, :], jacobian) - theta * _RIDGE
        scaled = jacobian * (np.sqrt(2 * self.weight) / narrow)[:, None, :]
        fisher = scaled @ scaled.transpose(0, 2, 1) + np.diag(_RIDGE)
        return _State(theta, value, gradient, fisher)


def _maximise(problem: _Problem, theta: Float64Array) -> _State:
    """Fisher scoring, damped wherever a step would lower the likelihood.

    Pairs leave the batch as soon as their steps have become small.
    """
    state = problem.at(theta)
    damping = np.full(theta.shape[0], 1e-2)
    active = np.arange(theta.shape[0])
    diagonal = np.arange(3)
    for _ in range(STEPS):
        system = state.fisher[active]
        system[:, diagonal, diagonal] *= 1 + damping[active, None]
        step = np.linalg.solve(system, state.gradient[active][:, :, None])[:, :, 0]
        moved = state.theta[active] + np.clip(step, -_STRIDE, _STRIDE)
        trial = problem.at(moved)
        better = trial.value >= state.value[active]
        state.adopt(trial, active, better)
        damping[active] *= np.where(better, 0.1, 10.0)
        going = np.flatnonzero(np.abs(step).max(axis=1) >= _SETTLED)
        if not going.size:
            break
        if going.size < active.size:
            active, problem = active[going], problem.only(going)
    return state


def fit_crossing(
    curve: Float64Array,
    geometry: Geometry,
    threshold: Float64Array,
    *,
    reference: bool,
    copies: float = 1.0,
) -> Fit:
    """Fit each curve around its crossing and give the model's crossing.

    Parameters
    ----------
    curve : (B, K) numpy.ndarray
        Ring correlations up to Nyquist, ring 0 included.
    geometry : Geometry
        Rings and window.
    threshold : (K,) numpy.ndarray
        Threshold of each ring.
    reference : bool
        The second image is nearly free of noise, so a ring's correlation is the root
        of what two noisy images would give.
    copies : float, default=1.0
        Pairs with independent noise that were pooled into each curve.

    Returns
    -------
    Fit
        Crossings and their spread.
    """
    rings = geometry.rings.complete
    frequency = geometry.rings.frequency[:rings]
    power = 0.5 if reference else 1.0
    pilot_level = np.maximum(threshold, 1 / 7)
    pilot = _pilot(curve, pilot_level, geometry)
    weight = copies * geometry.effective[:rings] * _influence(pilot, geometry)
    used = np.flatnonzero(weight.any(axis=0))
    first, last = int(used[0]), int(used[-1]) + 1
    matrix, nodes = mix_rings(geometry, first, last)
    weight = weight[:, first:last]
    part = np.clip(curve[:, first:last], -1 + _CLOSE, 1 - 1e-7)
    theta = _start(part, weight, frequency[None, first:last] / pilot[:, None])
    problem = _Problem(part, weight, nodes[None, :] / pilot[:, None], matrix, power)
    best = _maximise(problem, theta)
    return _read(best.theta, best.fisher, pilot, frequency, threshold, power)


def _read(
    theta: Float64Array,
    fisher: Float64Array,
    pilot: Float64Array,
    frequency: Float64Array,
    threshold: Float64Array,
    power: float,
) -> Fit:
    """Crossing of the fitted model and its spread by the delta method."""
    fine = np.linspace(0, frequency[-1], 4 * (frequency.size - 1) + 1)
    level = np.interp(fine, frequency, threshold)
    base = np.clip(level, 0, 1 - 1e-6) ** (1 / power)
    target = np.where(level < 1, np.log(base / (1 - base)), np.inf)
    start = max(int(np.argmax(np.isfinite(target))), 1)
    target[~np.isfinite(target)] = target[start]
    u = fine[None, :] / pilot[:, None]
    model = theta[:, :1] - u * (theta[:, 1:2] + u * theta[:, 2:])
    crossing = first_crossing(model, target, fine, start=start)
    above: BoolArray = np.asarray((model[:, start:] >= target[start:]).any(axis=1))
    v = crossing / pilot
    steep = theta[:, 1] + 2 * theta[:, 2] * v
    vector = np.nan_to_num(np.stack([np.ones_like(v), -v, -v * v], axis=1))
    solved = np.linalg.solve(fisher, vector[:, :, None])[:, :, 0]
    variance = np.maximum((vector * solved).sum(axis=1), 0)
    spread = np.sqrt(variance) / np.maximum(steep * v, 1e-6)
    return Fit(crossing, spread, above)
