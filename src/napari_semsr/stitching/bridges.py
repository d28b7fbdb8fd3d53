"""Frames that one joint alone holds to the others, and frames that none holds.

No loop of joints can contradict such a joint, and on a sample with repeating detail it
may be off by a period. Here all overlaps between the frames on both of its sides speak
together, at each place where they correlate above chance. In the right place they
have all of their detail in common, a period away only what repeats. Where that does
not decide, the stage does, if its error is known to be small enough.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from scipy.spatial.distance import cdist

from napari_semsr.core import FloatArray, IntPair, Job, Progress
from napari_semsr.stitching.layout import (
    CERTAIN,
    Joint,
    components,
    correlate_group,
    shifts_within,
)
from napari_semsr.stitching.pairwise import (
    PEAK_PX,
    common_coefficient,
    highest_peaks,
    whole_shift,
)
from napari_semsr.stitching.solution import fit_stage
from napari_semsr.stitching.state import State
from napari_semsr.stitching.verify import holding_joints, in_loops

_BY_CHANCE = 1e-3  # that the stage decides wrongly; chosen as for joints
_NEAR = 3.0  # standard deviations of the stage; chosen: one place in 100 is beyond


@dataclass(frozen=True, slots=True)
class JointPlace:
    """A place of some frames among others, by all of their overlaps together."""

    move: IntPair  # From where they are expected, in px
    score: float  # Of all overlaps as if they were one
    fit: float  # Inverse hyperbolic tangent of their coefficient (Fisher's z)
    doubt: float  # Standard deviation of it


def _place(
    state: State, pairs: Sequence[IntPair], positions: FloatArray, move: IntPair
) -> JointPlace:
    overlaps = []
    for pair in pairs:
        y, x = whole_shift(positions, pair)
        overlaps.append((pair, (y + move[0], x + move[1])))
    ncc, score, _ = common_coefficient(state.prepared, overlaps)
    fit = float(np.arctanh(np.clip(ncc, -0.999, 0.999)))
    # the score counts details: so many have such a coefficient
    doubt = float(np.sqrt(-2 * np.log(1 / np.cosh(fit)))) / max(score, 1e-9)
    return JointPlace(move, score, fit, doubt)


def possible_places(
    state: State,
    group: Sequence[int],
    positions: FloatArray,
    middle: FloatArray,
    spread: float,
    *,
    is_placed: bool,
) -> list[JointPlace]:
    """Find where a group fits the placed frames above chance, and as well as anywhere.

    `positions` (N, 2): of the group and of those it is compared with, NaN of others;
    `middle` (2,): move of the group at which it is expected, with a standard deviation
    of `spread` px along each axis; `is_placed`: whether it may stay as well.
    """
    centre = np.round(middle).astype(int)
    moved = positions.copy()
    moved[list(group)] += centre
    found = correlate_group(state.prepared, group, moved, state.reach)
    if state.chance is None or found is None:
        return []
    moves = {(0, 0)} if is_placed else set()
    peaks = (highest_peaks(plane, None) for plane in (found.score, found.height))
    for y, x in chain.from_iterable(peaks):
        move = (
            int(y + centre[0]) - state.reach[0],
            int(x + centre[1]) - state.reach[1],
        )
        if max(map(abs, move)) > PEAK_PX or not is_placed:
            moves.add(move)
    places = [_place(state, found.pairs, positions, move) for move in sorted(moves)]
    around = _NEAR * spread
    near = state.threshold
    if np.isfinite(around):
        tried = shifts_within((round(around), round(around)))
        near = min(near, state.chance.exceeded(tried, _BY_CHANCE))
    above = [
        place
        for place in places
        if place.score > state.threshold
        or (np.hypot(*(place.move - middle)) <= around and place.score > near)
    ]
    best = max(above, key=lambda place: place.fit, default=None)
    return [
        place
        for place in above
        if best is not None
        and best.fit - place.fit <= CERTAIN * np.hypot(best.doubt, place.doubt)
    ]


def nearest_place(
    places: Sequence[JointPlace], middle: FloatArray, spread: float
) -> JointPlace | None:
    """Let the stage choose among places; None if its error leaves several."""
    if len(places) < 2:
        return places[0] if places else None
    away = cdist([place.move for place in places], middle[None])[:, 0]
    first, second = np.argsort(away, kind="stable")[:2]
    # how much likelier the nearest is, of normal errors
    excess = (away[second] ** 2 - away[first] ** 2) / (2 * spread**2)
    return places[int(first)] if excess > -np.log(_BY_CHANCE) else None


def place_near(state: State, index: int) -> bool:
    """JointPlace a frame where it fits near its expected place, if only one place does.

    Returns whether it fits anywhere there, even if at several places alike.
    """
    rest = np.flatnonzero(state.placed).tolist()
    places, spread = expected_places(state, [index], rest)
    if not np.isfinite(places).all():
        return False
    positions = state.positions.copy()
    positions[index] = places[0]
    found = possible_places(
        state, [index], positions, np.zeros(2), spread, is_placed=False
    )
    if len(found) == 1:
        state.positions[index] = np.round(places[0]) + found[0].move
        state.rescued.add(index)
    return bool(found)


def expected_places(
    state: State, group: Sequence[int], rest: Sequence[int]
) -> tuple[FloatArray, float]:
    """Where the stage expects a group, (M, 2), by the other frames, and its error.

    NaN where nothing is expected. The error, of the group as a whole, is a standard
    deviation in px along each axis; infinite if too few frames show it.
    """
    # what is known to be elsewhere than stated shows no axes
    rest = [index for index in rest if index not in state.strays]
    others = np.full_like(state.positions, np.nan)
    others[rest] = state.positions[rest]
    stage = fit_stage(state.nominal, others, state.options.stage_model)
    members = state.nominal[list(group)]
    if stage is None or state.matches:  # which have placed the frames already
        return np.full_like(members, np.nan), np.inf
    places = stage.predict(members)
    have = state.nominal[rest]
    have, at = (part[np.isfinite(part).all(axis=1)] for part in (have, members))
    design, row = np.ones((len(have), 1)), np.ones(1)
    if not np.array_equal(stage.matrix, np.eye(2)):
        design = np.c_[design, have]
        row = np.r_[row, at.mean(axis=0)]
    free = len(have) - design.shape[1]
    if free <= 0 or not len(at):
        return places, np.inf
    leverage = float(row @ np.linalg.pinv(design.T @ design) @ row)
    # frames are counted in whole pixels here
    variance = max(stage.scatter_px**2 * len(have) / (2 * free), 1.0)
    return places, float(np.sqrt(variance * (leverage + 1 / len(at))))


def check_bridges(state: State) -> Job[bool]:
    """Compare each joint that no loop confirms with all overlaps across it.

    Moves frames to where these fit better, and takes the place from frames that neither
    images nor stage can decide on. Returns whether any was.
    """
    if state.layout is None or state.is_periodic:
        return False  # there all pairs across have decided already
    joints = holding_joints(state)
    looped = {(joint.first, joint.second) for joint in in_loops(joints)}
    bridges = [j for j in joints if (j.first, j.second) not in looped]
    changed = False
    for done, bridge in enumerate(bridges):
        yield Progress(done, len(bridges), "Checking frames that one overlap holds")
        pair = (bridge.first, bridge.second)
        if pair in state.ambiguous or not state.placed[list(pair)].all():
            continue
        changed |= _check_bridge(state, bridge, [j for j in joints if j is not bridge])
    return changed


def _check_bridge(state: State, bridge: Joint, others: Sequence[Joint]) -> bool:
    """Check one joint; `others` hold the frames on both of its sides."""
    labels = components(len(state.positions), others)
    sides = [
        np.flatnonzero((labels == labels[end]) & state.placed).tolist()
        for end in (bridge.first, bridge.second)
    ]
    rest, group = sorted(sides, key=len, reverse=True)
    places, spread = expected_places(state, group, rest)
    away = (places - state.positions[group])[np.isfinite(places).all(axis=1)]
    middle = away.mean(axis=0) if len(away) else np.zeros(2)
    positions = np.full_like(state.positions, np.nan)
    positions[rest + group] = state.positions[rest + group]
    found = possible_places(state, group, positions, middle, spread, is_placed=True)
    chosen = nearest_place(found, middle, spread)
    pair = (bridge.first, bridge.second)
    if len(found) > 1:
        if (chosen is not None) == state.is_stated:  # the stage decides, or is asked
            state.ambiguous.add(pair)
        if chosen is None:
            state.positions[group] = np.nan
            for index in group:
                state.rescued.discard(index)
                state.reasons[index] = (
                    "one overlap alone holds it to the others, and fits as well "
                    "elsewhere"
                )
            return True
    if chosen is None or chosen.move == (0, 0):
        return False
    state.positions[group] += chosen.move
    apart = state.positions[bridge.second] - state.positions[bridge.first]
    moved = replace(bridge, shift=(float(apart[0]), float(apart[1])))
    if state.layout is not None:
        kept = tuple(
            moved if (j.first, j.second) == pair else j for j in state.layout.joints
        )
        state.layout = replace(state.layout, joints=kept)
    return True
