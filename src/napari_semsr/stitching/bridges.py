"""Frames connected to the others by few overlaps, or by none.

No loop of overlaps can contradict an overlap that is the only connection of some
frames, and a loop may have overruled others: on a sample with repeating detail both may
off by a period. Here all overlaps across such a cut are compared together, at each
position where they correlate above chance. At the right position they share all of
their detail, a period away only what repeats. If that does not decide, the stage does,
provided that its error is known to be small enough.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial.distance import cdist

from napari_semsr.core import BoolArray, FloatArray, IntPair, Job, Progress
from napari_semsr.stitching import layout, pairwise
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.nominal import fit_stage_map
from napari_semsr.stitching.state import State
from napari_semsr.stitching.verify import find_loop_pairs, list_valid_overlaps


@dataclass(frozen=True, slots=True)
class GroupPosition:
    """Position of a group relative to the other frames, from all shared overlaps."""

    move: IntPair  # Displacement from the expected position, in px
    score: float  # Score of all overlaps as if they were one
    fit: float  # Inverse hyperbolic tangent of their coefficient (Fisher's z)
    doubt: float  # Standard deviation of `fit`


def evaluate_group_position(
    frames: CorrectedFrames,
    pairs: Sequence[IntPair],
    positions: FloatArray,
    move: IntPair = (0, 0),
) -> GroupPosition:
    """Evaluate the overlaps of pairs jointly, with the second frames displaced."""
    overlaps = []
    for pair in pairs:
        y, x = pairwise.compute_rounded_shift(positions, pair)
        overlaps.append((pair, (y + move[0], x + move[1])))
    ncc, score, _ = pairwise.compute_joint_correlation(frames, overlaps)
    fit = float(np.arctanh(np.clip(ncc, -0.999, 0.999)))
    # the score implies this number of independent details
    doubt = float(np.sqrt(-2 * np.log(1 / np.cosh(fit)))) / max(score, 1e-9)
    return GroupPosition(move, score, fit, doubt)


def compare_group_positions(
    frames: CorrectedFrames,
    group: Sequence[int],
    positions: FloatArray,
    reach: IntPair,
    centre: IntPair = (0, 0),
    *,
    is_placed: bool = False,
    proposals: Sequence[IntPair] = (),
) -> list[GroupPosition]:
    """Compare candidate positions of a group, proposed by its overlaps, best first.

    `positions` (N, 2): of the group and of the frames it is compared with, NaN for
    others; moves are searched within `reach` of the move `centre`; `is_placed`: whether
    no move is tried as well; `proposals`: further moves to try. Empty without an
    overlap.
    """
    moved_positions = positions.copy()
    moved_positions[list(group)] += centre
    correlation = layout.correlate_group(frames, group, moved_positions, reach)
    if correlation is None:
        return []
    moves = {(0, 0), *proposals} if is_placed else {*proposals}
    peaks = (
        pairwise.find_highest_peaks(plane, None)
        for plane in (correlation.score, correlation.height)
    )
    for y, x in chain.from_iterable(peaks):
        move = (int(y + centre[0]) - reach[0], int(x + centre[1]) - reach[1])
        if max(map(abs, move)) > pairwise.PEAK_PX or not is_placed:
            moves.add(move)
    places: list[GroupPosition] = []
    places_tried = [
        evaluate_group_position(frames, correlation.pairs, positions, move)
        for move in sorted(moves)
    ]
    for place in sorted(places_tried, key=lambda place: -place.fit):
        # both planes have peaks; those a few pixels apart are one position
        if all(
            np.abs(np.subtract(place.move, p.move)).max() > pairwise.PEAK_PX
            for p in places
        ):
            places.append(place)
    return places


def find_possible_positions(
    state: State,
    group: Sequence[int],
    positions: FloatArray,
    middle: FloatArray,
    spread: float,
    *,
    is_placed: bool,
    proposals: Sequence[IntPair] = (),
) -> list[GroupPosition]:
    """Find the positions where a group fits above chance and about as well as the best.

    `middle` (2,): expected move of the group, with a standard deviation of `spread` px
    along each axis; the other arguments are those of `compare_positions`.
    """
    if state.chance is None:
        return []
    y, x = np.round(middle).astype(int)
    places = compare_group_positions(
        state.frames, group, positions, state.reach, (int(y), int(x)),
        is_placed=is_placed, proposals=proposals,
    )  # fmt: skip
    # chosen: one position in 100 is more than three standard deviations away
    around = 3.0 * spread
    near = state.threshold
    if np.isfinite(around):
        shifts = layout.count_shifts((round(around), round(around)))
        near = min(near, state.chance.compute_chance_score(shifts, layout.BY_CHANCE))
    above = [
        place
        for place in places
        if place.score > state.threshold
        or (np.hypot(*(place.move - middle)) <= around and place.score > near)
    ]
    return [
        place
        for place in above
        if above[0].fit - place.fit
        <= layout.CERTAIN * np.hypot(above[0].doubt, place.doubt)
    ]


def choose_nearest_position(
    places: Sequence[GroupPosition], middle: FloatArray, spread: float
) -> GroupPosition | None:
    """Choose the position nearest to the stage's; None if its error permits several."""
    if len(places) < 2:
        return places[0] if places else None
    away = cdist([place.move for place in places], middle[None])[:, 0]
    first, second = np.argsort(away, kind="stable")[:2]
    # log likelihood ratio to the nearest, for normal errors
    excess = (away[second] ** 2 - away[first] ** 2) / (2 * spread**2)
    return places[int(first)] if excess > -np.log(layout.BY_CHANCE) else None


def try_place_frame(state: State, index: int) -> bool:
    """Place a frame near its expected position if exactly one position fits.

    Returns whether it fits anywhere there, even equally well at several positions.
    """
    rest = np.flatnonzero(state.is_placed).tolist()
    places, spread = predict_positions(state, [index], rest)
    if not np.isfinite(places).all():
        return False
    positions = state.positions.copy()
    positions[index] = places[0]
    places_found = find_possible_positions(
        state, [index], positions, np.zeros(2), spread, is_placed=False
    )
    if len(places_found) == 1:
        state.positions[index] = np.round(places[0]) + places_found[0].move
        state.rescued_frames.add(index)
    return bool(places_found)


def predict_positions(
    state: State, group: Sequence[int], rest: Sequence[int]
) -> tuple[FloatArray, float]:
    """Predict the positions of a group, (M, 2), and their error from the stage.

    NaN where there is no prediction. The error, of the group as a whole, is a standard
    deviation in px along each axis; infinite if it cannot be estimated from so few
    frames.
    """
    # frames known to be elsewhere than stated do not determine the axes
    rest = [index for index in rest if index not in state.strays]
    others = np.full_like(state.positions, np.nan)
    others[rest] = state.positions[rest]
    stage = fit_stage_map(state.nominal, others, state.options.stage_model)
    members = state.nominal[list(group)]
    if stage is None or state.matches:  # these have already placed the frames
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
    # positions are whole pixels here
    variance = max(stage.scatter_px**2 * len(have) / (2 * free), 1.0)
    return places, float(np.sqrt(variance * (leverage + 1 / len(at))))


def reposition_bridged_frames(state: State) -> Job[bool]:
    """Check doubtful connections between groups of frames, using all their overlaps.

    A shift that no loop confirms is doubtful, and so are the shifts that separate
    frames which other pairs would move. Moves frames to where all of these overlaps fit
    better, and removes frames whose position neither images nor stage can decide.
    Returns whether any frame changed.
    """
    has_changed = False
    # on a repeating sample all pairs across a bridge have decided already
    overlaps = [] if state.is_periodic else list_valid_overlaps(state)
    pairs_in_loops = {overlap.pair for overlap in find_loop_pairs(overlaps)}
    bridges = [overlap for overlap in overlaps if overlap.pair not in pairs_in_loops]
    for checked_count, bridge in enumerate(bridges):
        what = "Checking frames connected by one overlap"
        yield Progress(checked_count, len(bridges), what)
        if bridge.pair in state.ambiguous or not state.is_placed[[*bridge.pair]].all():
            continue
        others = [overlap for overlap in overlaps if overlap is not bridge]
        labels = layout.label_components(len(state.positions), others)
        sides = [
            np.flatnonzero((labels == labels[end]) & state.is_placed).tolist()
            for end in bridge.pair
        ]
        has_changed |= _reposition_cut_frames(state, sides, ())
    cuts = _find_contradicted_cuts(state)
    for checked_count, (sides, moves) in enumerate(cuts):
        what = "Checking overlaps that contradict others"
        yield Progress(checked_count, len(cuts), what)
        # still, after the previous cuts
        if state.is_placed[[*sides[0], *sides[1]]].all():
            has_changed |= _reposition_cut_frames(state, sides, moves)
    return has_changed


_Cut = tuple[list[list[int]], list[IntPair]]


def _find_contradicted_cuts(state: State) -> list[_Cut]:
    """Find the overlaps that separate frames which other pairs suggest moving.

    Pairs that would move frames by the same step are taken together: the overlaps of
    least weight that separate all of their first from all of their second frames are in
    doubt (a minimum cut). Yields the frames on both sides, the smaller side first, and
    its moves.
    """
    overlaps = list_valid_overlaps(state)
    is_main = layout.label_components(len(state.positions), overlaps) == 0
    doubtful = []
    for item in state.candidates:
        above = item.shifts[item.score > state.threshold]
        if not len(above) or item.pair in state.ambiguous:
            continue
        step = above - (state.positions[item.second] - state.positions[item.first])
        # frames that only stated positions would move are left to the stage
        if np.isfinite(step).all() and is_main[[*item.pair]].all():
            away = np.abs(step).max(axis=1)
            if away.min() > layout.TOLERANCE_PX:
                doubtful.append((item.best_score, item.pair, step[0]))
    doubtful.sort(key=lambda one: -one[0])
    cuts: list[_Cut] = []
    while doubtful:
        _, _, move = doubtful[0]
        ends: tuple[set[int], set[int]] = (set(), set())
        rest = []
        for one in doubtful:
            _, (first, second), step = one
            same = np.abs(step - move).max() <= layout.TOLERANCE_PX
            if not same and np.abs(step + move).max() <= layout.TOLERANCE_PX:
                first, second, same = second, first, True
            if same and first not in ends[1] and second not in ends[0]:
                ends[0].add(first)
                ends[1].add(second)
            else:
                rest.append(one)
        doubtful = rest
        apart = find_minimum_cut(len(state.positions), overlaps, ends)
        sides = [
            np.flatnonzero(part & state.is_placed & is_main).tolist()
            for part in (apart, ~apart)
        ]
        y, x = np.round(move).astype(int)
        moves = [(int(y), int(x))]
        if len(sides[0]) > len(sides[1]):
            sides, moves = sides[::-1], [(-int(y), -int(x))]
        cuts.append((sides, moves))
    return cuts


def find_minimum_cut(
    count: int, overlaps: Sequence[layout.Overlap], ends: tuple[set[int], set[int]]
) -> BoolArray:
    """Find the frames, (N,), on the second side of the minimum cut of the overlaps."""
    rows = [(one.first, one.second, 1 + round(one.weight)) for one in overlaps]
    rows += [(b, a, weight) for a, b, weight in rows]
    much = sum(weight for *_, weight in rows)
    rows += [(count, frame, much) for frame in ends[0]]
    rows += [(frame, count + 1, much) for frame in ends[1]]
    first, second, weights = np.array(rows, dtype=np.int32).T
    graph = sparse.csr_array((weights, (first, second)), (count + 2, count + 2))
    left = graph - csgraph.maximum_flow(graph, count, count + 1).flow
    left.data[left.data < 0] = 0
    left.eliminate_zeros()
    reachable = csgraph.breadth_first_order(left, count, return_predecessors=False)
    second_side = np.ones(count, bool)
    second_side[reachable[reachable < count]] = False
    return second_side


def _reposition_cut_frames(
    state: State, sides: Sequence[list[int]], proposals: Sequence[IntPair]
) -> bool:
    """Check the positions of the frames in the smaller component of a cut.

    `proposals`: moves of the first side to try.
    """
    rest, group = sorted(sides, key=len, reverse=True)
    places, spread = predict_positions(state, group, rest)
    away = (places - state.positions[group])[np.isfinite(places).all(axis=1)]
    middle = away.mean(axis=0) if len(away) else np.zeros(2)
    positions = np.full_like(state.positions, np.nan)
    positions[rest + group] = state.positions[rest + group]
    places_found = find_possible_positions(
        state, group, positions, middle, spread, is_placed=True, proposals=proposals
    )
    if proposals and any(place.move == (0, 0) for place in places_found):
        # the residual of the overlaps that connect them is the finer measure
        return False
    best = choose_nearest_position(places_found, middle, spread)
    # a previous cut may have removed other frames with overlaps
    is_placed = state.is_placed
    across = [
        overlap
        for overlap in state.layout.overlaps
        if (overlap.first in group) != (overlap.second in group)
        and is_placed[[*overlap.pair]].all()
    ]
    if len(places_found) > 1:
        if (best is not None) == state.is_stated:  # the stage decides
            state.ambiguous |= {overlap.pair for overlap in across}
        if best is None:
            state.positions[group] = np.nan
            for index in group:
                state.rescued_frames.discard(index)
                state.reasons[index] = (
                    "its overlaps with the other frames fit equally well elsewhere"
                )
            return True
    if best is None or best.move == (0, 0):
        return False
    state.positions[group] += best.move
    overlaps = [overlap for overlap in state.layout.overlaps if overlap not in across]
    for overlap in across:
        y, x = pairwise.compute_rounded_shift(state.positions, overlap.pair)
        overlaps.append(replace(overlap, shift=(float(y), float(x))))
    state.layout = replace(state.layout, overlaps=tuple(overlaps))
    return True
