"""Placement across lines in overlaps by images, along them by stated positions.

An overlap of parallel lines fits at any shift along them. Across them it fits at one
shift, or at one per period, which the stated positions select if their error is clearly
less than half a period. Each pair is refined only across its lines. All frames are then
solved together: pairs with lines constrain them across, other pairs in both directions,
and what no pair determines stays as stated.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import splu

from napari_semsr.core import FloatArray, IntPair, RegistrationError
from napari_semsr.stitching import layout, refine
from napari_semsr.stitching.frames import choose_evenly_spaced_indices
from napari_semsr.stitching.layout import ALONG_LINES
from napari_semsr.stitching.nominal import compute_period_fraction
from napari_semsr.stitching.pairwise import Candidates, FramePair, correlate_frames
from napari_semsr.stitching.state import State

_ROUNDS = 4  # steps of a pair; chosen: a ridge of 0.9 of the best is left in two
_FAR = 0.4  # share of a frame; chosen: a stage decides between longer periods
_ALONG_PX = 8  # chosen: larger than any error of a sweep, and within any overlap


@dataclass(frozen=True, slots=True)
class _LinePair(FramePair):
    """Shift of a pair of frames perpendicular to their lines."""

    normal: FloatArray  # (2,) unit vector across the lines, ``(y, x)``
    away: float  # shift across them minus the stated one, px
    score: float
    group: int  # index of the direction


@dataclass(frozen=True, slots=True)
class _PairConstraint(FramePair):
    """Shift of one pair relative to the stated positions."""

    weight: FloatArray  # (2, 2)
    away: FloatArray  # (2,) of the second frame minus that of the first, px


def _find_line_normals(
    shifts: Sequence[refine.LinearisedShift],
) -> tuple[FloatArray, list[int]]:
    """Find the unit normals of common lines, (K, 2), and the normal of each pair."""
    if not shifts:
        return np.zeros((0, 2)), []
    blocks = np.stack([s.information / max(s.variance, 1e-30) for s in shifts])
    normals = np.linalg.eigh(blocks)[1][:, :, 1]
    # chosen: noise changes the direction of a pair by less than a degree
    limit = np.cos(np.deg2rad(5.0))
    groups = np.full(len(shifts), -1)
    axes: list[FloatArray] = []
    while (groups < 0).any():
        free = groups < 0
        first = int(np.argmax(np.where(free, np.trace(blocks, axis1=1, axis2=2), -1)))
        axis = normals[first]
        for _ in range(2):
            near = free & (np.abs(normals @ axis) >= limit)
            near[first] = True
            axis = np.linalg.eigh(blocks[near].sum(axis=0))[1][:, 1]
        groups[near] = len(axes)
        axes.append(axis)
    return np.stack(axes), groups.tolist()


def _linearise_pair(
    state: State, pair: IntPair, shift: FloatArray
) -> refine.LinearisedShift | None:
    """Linearise a pair around a given shift (2,)."""
    places = np.full(state.nominal.shape, np.nan)
    places[pair[0]], places[pair[1]] = 0.0, shift
    shifts = refine.linearise_pairs(state.frames, places, [pair], 1.0)
    return shifts[0] if shifts else None


def _refine_pair_shift(
    state: State, pair: IntPair, near: FloatArray, part: FloatArray
) -> FloatArray | None:
    """Find the best-fitting shift of a pair, or None if no shift fits.

    `part` (2, 2) projects a step, ``(y, x)``, onto the permitted directions.
    """
    shift = near.copy()
    for _ in range(_ROUNDS):
        system = _linearise_pair(state, pair, shift)
        if system is None:
            return None
        move = np.clip(part @ system.step, -refine.MAX_STEP, refine.MAX_STEP)
        shift = shift + move
        # px; chosen: the sweeps correct the rest
        if np.abs(move).max() < 0.05:
            break
    return shift if np.abs(move).max() < refine.MAX_STEP else None


def _find_line_period(
    state: State, frames: Sequence[int], normal: FloatArray, usual: float
) -> float:
    """Find the period of the lines, in px, or infinity if they are not periodic.

    From the autocorrelation of some frames, up to `_FAR` of a frame; `usual`:
    correlation of two frames of the same area.
    """
    side = min(state.acquisition.frame_shape)
    far = int(_FAR * side)
    steps = np.arange(0, far - 1, 0.25)
    heights = []
    # chosen: a few frames outvote one with a defect
    for place in choose_evenly_spaced_indices(len(frames), 8):
        index = frames[place]
        scores = correlate_frames(state.frames, (index, index), (0, 0), (far, far))
        if scores is not None:
            height = scores.compute_height(state.acquisition.frame_shape)
            where = far + np.outer(normal, steps)
            along = ndimage.map_coordinates(height, where, order=3)
            heights.append(along / height[far, far])
    if not heights:
        return float("inf")
    mean = np.mean(heights, axis=0)
    is_peak = (mean[1:-1] >= mean[:-2]) & (mean[1:-1] > mean[2:])
    peaks = np.flatnonzero(is_peak) + 1
    # chosen as for other rivals
    peaks = peaks[(steps[peaks] > layout.TOLERANCE_PX) & (mean[peaks] > 0.7 * usual)]
    return float(steps[peaks[0]]) if len(peaks) else float("inf")


def _refine_line_pairs(
    state: State, lines: Sequence[Candidates], shifts: Sequence[refine.LinearisedShift]
) -> list[_LinePair]:
    """Refine pairs of frames with lines one by one."""
    normals, groups = _find_line_normals(shifts)
    pairs = []
    for item, group in zip(lines, groups, strict=True):
        normal = normals[group]
        stated_shift = state.nominal[item.second] - state.nominal[item.first]
        near = np.array(item.along[0] if item.along else item.shifts[0], dtype=float)
        # as far along the lines as stated
        near = stated_shift + normal * (normal @ (near - stated_shift))
        shift = _refine_pair_shift(state, item.pair, near, np.outer(normal, normal))
        if shift is not None:
            away = float(normal @ (shift - stated_shift))
            pairs.append(_LinePair(*item.pair, normal, away, item.best_score, group))
    return pairs


def _find_position_errors(
    count: int, pairs: Sequence[_LinePair], sure: Sequence[_PairConstraint]
) -> tuple[FloatArray, FloatArray]:
    """Find the (N,) errors of stated positions across lines, modulo the period.

    Follows the surest pairs from frame to frame; returns also the connected units,
    (N,).
    """
    normal = pairs[0].normal
    ties = [(tie.pair, float(normal @ tie.away), 2.0) for tie in sure]
    most = max(pair.score for pair in pairs)
    ties += [(item.pair, item.away, item.score / most) for item in pairs]
    away = {pair: value for pair, value, _ in reversed(ties)}
    first, second = np.array([pair for pair, _, _ in ties]).T
    costs = 3.0 - np.array([weight for _, _, weight in ties])
    graph = sparse.coo_array((costs, (first, second)), (count, count))
    tree = csgraph.minimum_spanning_tree(graph.tocsr())
    labels = csgraph.connected_components(tree, directed=False)[1]
    errors = np.zeros(count)
    for label in np.unique(labels):
        root = int(np.flatnonzero(labels == label)[0])
        order, above = csgraph.breadth_first_order(tree, root, directed=False)
        for frame in order[1:].tolist():
            other = int(above[frame])
            step = away.get((other, frame))
            step = -away[frame, other] if step is None else step
            errors[frame] = errors[other] + step
    return errors, labels


def _wrap_errors(
    errors: FloatArray, units: NDArray[np.intp], period: float, most: float | None
) -> FloatArray:
    """Shift groups of frames by whole periods until their errors agree best.

    `errors` across the lines, (N,), of frames in rigid `units`; `most`: the largest
    possible error, if known. Without it all must agree to half a period, and more
    closely than by chance: n random errors are all within a share s of a period with a
    probability of n s^(n - 1).
    """
    if not np.isfinite(period):
        return np.asarray(errors - errors.mean())
    centre = np.angle(np.exp(2j * np.pi * errors / period).mean()) * period / 2 / np.pi
    size = np.bincount(units)
    for _ in range(_ROUNDS):
        mean = np.bincount(units, errors) / np.maximum(size, 1)
        errors = errors - period * np.rint((mean - centre) / period)[units]
        centre = float(errors.mean())
    errors = np.asarray(errors - centre)
    spread, count = float(np.ptp(errors)), len(errors)
    if most is not None:
        means = np.bincount(units, errors) / size
        trial_errors, other = errors.copy(), np.inf
        for unit in np.argsort(means)[:-1].tolist():
            trial_errors[units == unit] += period
            other = min(other, float(np.ptp(trial_errors)))
        is_open = other <= 2 * most or spread > 2 * most + layout.TOLERANCE_PX
    else:
        share = spread / period
        is_open = share > 0.5 or count * share ** (count - 1) > layout.BY_CHANCE
    if is_open:
        msg = (
            f"{ALONG_LINES}across the lines, they fit equally well after a shift of "
            f"one period ({period:.3g} px), and the stated positions are not accurate "
            "enough to decide. Set the maximum position error (max-shift-px) if it is "
            f"below {period / 4:.2g} px."
        )
        raise RegistrationError(msg, code="periodic")
    return errors


def _compute_chance_probability(
    pairs: Sequence[_LinePair], nominal: FloatArray, periods: Sequence[float]
) -> float:
    """Return the probability that random positions fit lines as well as stated ones.

    A rotation and scale of the stage, fitted to the shifts across, moves steps of
    different directions differently; 1 without two directions.
    """
    rows, away = [], []
    for item in pairs:
        y, x = nominal[item.second] - nominal[item.first]
        down, right = item.normal
        rows.append((down * y + right * x, down * x - right * y))
        away.append(item.away)
    steps = np.array(rows).reshape(-1, 2)
    turn, _, rank, _ = np.linalg.lstsq(steps, np.array(away), rcond=0.1)
    if rank < 2:
        return 1.0
    shift = np.hypot(*turn) * np.median(np.hypot(*steps.T))
    return compute_period_fraction(float(shift), float(np.median(periods)))


def _solve_displacements(
    count: int, ties: Sequence[_PairConstraint], stiffness: float
) -> tuple[FloatArray, sparse.csc_array]:
    """Solve all constraints for (N, 2) displacements from the stated positions.

    `stiffness`: weight of the stated positions. Returns the matrix, (2 N, 2 N), too.
    """
    first, second = np.array([tie.pair for tie in ties]).T
    blocks = np.stack([tie.weight for tie in ties])
    pull = np.einsum("kab,kb->ka", blocks, np.stack([tie.away for tie in ties]))
    right = np.zeros((count, 2))
    np.add.at(right, second, pull)
    np.add.at(right, first, -pull)
    matrix = refine.assemble_matrix(count, first, second, blocks)
    matrix = (matrix + stiffness * sparse.eye_array(2 * count)).tocsc()
    return splu(matrix).solve(right.ravel()).reshape(count, 2), matrix


def _find_line_constraints(
    state: State, pairs: Sequence[_LinePair], sure: Sequence[_PairConstraint]
) -> tuple[list[_PairConstraint], float, float]:
    """Find line constraints, the position error across lines, and the period.

    The error is an RMS, the period the shortest, both in px.
    """
    count, most = len(state.nominal), state.options.max_shift_px
    ncc = {item.pair: item.ncc[0] for item in state.candidates if len(item.ncc)}
    usual = float(np.median([ncc[item.pair] for item in pairs]))
    units = layout.label_components(count, sure) if sure else np.arange(count)
    far = _FAR * min(state.acquisition.frame_shape)
    ties, squares, periods = [], [], []
    for group in sorted({item.group for item in pairs}):
        own = [item for item in pairs if item.group == group]
        normal = own[0].normal
        frames_met = sorted({i for item in own for i in item.pair})
        period = _find_line_period(state, frames_met, normal, usual)
        periods += [min(period, far)] * len(own)
        errors, labels = _find_position_errors(count, own, sure)
        for label in np.unique(labels[frames_met]):
            frames = np.flatnonzero(labels == label)
            unit = np.unique(units[frames], return_inverse=True)[1]
            limit = None if most is None else most * float(np.abs(normal).sum())
            errors[frames] = _wrap_errors(errors[frames], unit, period, limit)
            squares += (errors[frames] ** 2).tolist()
        for item in own:
            away = float(errors[item.second] - errors[item.first])
            off = away - item.away
            left = off - period * np.rint(off / period) if period < np.inf else off
            if abs(left) < layout.TOLERANCE_PX:
                weight = np.outer(normal, normal)
                ties.append(_PairConstraint(*item.pair, weight, (away - left) * normal))
    chance = _compute_chance_probability(pairs, state.nominal, periods)
    if most is None and chance > layout.BY_CHANCE:
        msg = (
            f"{ALONG_LINES}across the lines, they do not confirm the stated positions. "
            "To use the stated positions along the lines, set the maximum position "
            "error (max-shift-px)."
        )
        raise RegistrationError(msg, code="lines-only")
    return ties, float(np.sqrt(np.mean(squares))), min(periods)


def _refine_all_positions(
    state: State, places: FloatArray, pairs: Sequence[IntPair], lines: set[IntPair]
) -> refine.RefinedPositions:
    """Refine all positions jointly; pairs with `lines` count only across the lines.

    `places` (N, 2): displacement of frames from their stated positions, NaN for frames
    without one, which are in no pair.
    """
    nominal, count = state.nominal, len(state.nominal)
    places = np.nan_to_num(places)
    frames_used = np.unique(np.array(pairs))
    # chosen: pairs have been refined one by one before
    for _ in range(3):
        error = float(np.std(places[frames_used], axis=0).mean())
        # chosen: a smaller error of a stage is not visible
        stiffness = refine.NOISE_RATIO / max(error, 0.5) ** 2
        measured_shifts = refine.linearise_pairs(
            state.frames, nominal + places, sorted(pairs), 1.0
        )
        flat = [s for s in measured_shifts if s.pair in lines]
        normals, groups = _find_line_normals(flat)
        axes = dict(zip(map(id, flat), normals[groups], strict=True))
        shifts = []
        for item in measured_shifts:
            normal = axes.get(id(item))
            if normal is None:
                shifts.append(item)
                continue
            part = np.outer(normal, normal)
            step = normal * np.clip(
                normal @ item.step, -refine.MAX_STEP, refine.MAX_STEP
            )
            information = part @ item.information @ part
            shifts.append(replace(item, information=information, step=step))
        noise = float(np.median([item.variance for item in shifts]))
        ties = [
            _PairConstraint(
                *item.pair,
                item.information / max(item.variance, 0.5 * noise, 1e-30),
                places[item.second] - places[item.first] + item.step,
            )
            for item in shifts
        ]
        places, matrix = _solve_displacements(count, ties, stiffness)
    is_held = (layout.label_components(count, ties) == 0)[:, None]
    positions = np.where(is_held, nominal + places, np.nan)
    spread = np.full((count, 2), np.nan)
    if count <= refine.DENSE_LIMIT:  # standard deviations relative to the mean position
        mean = np.ones((count, 1)) * is_held.T / is_held.sum()
        less_mean = np.kron(np.eye(count) - mean, np.eye(2))
        variance = less_mean @ np.linalg.inv(matrix.toarray()) @ less_mean.T
        spread = np.sqrt(refine.NOISE_RATIO * np.diag(variance)).reshape(count, 2)
    spread = np.where(is_held, spread, np.nan)
    return refine.RefinedPositions(positions, tuple(shifts), spread)


def place_across_lines(state: State) -> tuple[refine.RefinedPositions, float]:
    """Place frames by their images across lines and by stated positions along them.

    Returns also the RMS error of the stated positions across the lines, in px.

    Raises
    ------
    RegistrationError
        If the overlaps do not confirm the stated positions across the lines, or allow
        errors of several periods.
    """
    nominal = state.nominal
    known_shifts = {
        item.pair: item
        for item in state.candidates
        if item.best_score > state.threshold
    }
    first_shifts = {
        pair: _linearise_pair(
            state, pair, np.array((item.along or item.shifts)[0], float)
        )
        for pair, item in known_shifts.items()
    }
    flat = [s for s in first_shifts.values() if s and s.is_degenerate]
    pairs = _refine_line_pairs(state, [known_shifts[s.pair] for s in flat], flat)
    flat_pairs = {s.pair for s in flat}
    sure = [
        _PairConstraint(
            *one.pair, np.eye(2), one.shift - (nominal[one.second] - nominal[one.first])
        )
        for one in state.layout.overlaps
        if one.pair not in flat_pairs | state.ambiguous
    ]
    ties, error, period = (
        _find_line_constraints(state, pairs, sure) if pairs else ([], 0.0, np.inf)
    )
    if not ties:
        msg = (
            f"{ALONG_LINES}across the lines, they do not match anywhere near the "
            "stated positions. Check the positions and their unit."
        )
        raise RegistrationError(msg, code="lines-only")
    ties += sure
    # chosen: a weak prior holds only what no pair determines
    places, _ = _solve_displacements(len(nominal), ties, 1e-6)
    # overlaps of both directions, or of a lattice, use the nearest of many fits
    for pair in sorted(state.ambiguous & first_shifts.keys() - flat_pairs):
        stated_shift = nominal[pair[1]] - nominal[pair[0]]
        near = stated_shift + places[pair[1]] - places[pair[0]]
        shift = _refine_pair_shift(state, pair, near, np.eye(2))
        if shift is not None and np.hypot(*(shift - near)) < period / 4:
            ties.append(_PairConstraint(*pair, np.eye(2), shift - stated_shift))
    lines = {item.pair for item in pairs}
    across = _refine_all_positions(state, places, [tie.pair for tie in ties], lines)
    return across, error


def place_frames_along_lines(state: State) -> list[int]:
    """Place frames connected only by lines at their stated positions; list them.

    Without stated positions they have none. Other frames, and positions across lines,
    do not change.
    """
    shifts = state.list_placed_shifts()
    lines = set()
    for item in shifts:
        if not item.is_degenerate:
            continue
        # whether the pair fits equally well farther along a direction
        along = np.linalg.eigh(item.information[:2, :2])[1][:, 0]
        here = state.positions[item.second] - state.positions[item.first]
        places = np.rint([here, here + _ALONG_PX * along, here - _ALONG_PX * along])
        choice = layout.weigh_shifts(
            state.frames, item.pair, places.astype(np.int64), 1.0
        )
        if not choice.is_certain:
            lines.add(item.pair)
    if not lines:
        return []
    pairs = [item.pair for item in shifts]
    firm = [item for item in shifts if item.pair not in lines]
    labels = layout.label_components(len(state.positions), firm)
    hanging = np.flatnonzero(state.is_placed & (labels != 0)).tolist()
    if hanging and not state.is_stated:
        state.positions[hanging] = np.nan
        reason = (
            "connected only by lines of one direction, along which it fits anywhere"
        )
        state.reasons.update(dict.fromkeys(hanging, reason))
    elif hanging:
        off = state.positions - state.nominal
        is_known = np.asarray(np.isfinite(off).all(axis=1))
        both_known = [pair for pair in pairs if is_known[[*pair]].all()]
        places = off - np.median(off[is_known], axis=0)
        state.refinement = _refine_all_positions(state, places, both_known, lines)
        state.positions = state.refinement.positions
    return hanging
