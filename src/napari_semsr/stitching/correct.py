"""Manual corrections of a solved scan, and the corrected solution.

The shifts of all pairs are kept from the solution that is corrected, and only pairs
whose frames have moved are compared again. Frames that no correction concerns keep
their positions, so that only what moved is fused again.

The images decide which frames a correction moves. After an overlap is struck, a frame
moves to where its other overlaps fit clearly better, if there is such a position. A
join that contradicts the solution moves the one of its frames, or of the groups on
either side of the weakest overlaps between them, that fits better after the move; the
second frame if neither does. A placed frame moves only with the frames that it alone
connects.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from unicodedata import normalize

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from napari_semsr import core
from napari_semsr.core import BoolArray, FloatArray, IntPair
from napari_semsr.stitching import bridges, layout, pairwise, refine, shading, verify
from napari_semsr.stitching.frames import CorrectedFrames, choose_evenly_spaced_indices
from napari_semsr.stitching.layout import TOLERANCE_PX, Overlap
from napari_semsr.stitching.nominal import find_overlapping_pairs
from napari_semsr.stitching.solve import update_shading
from napari_semsr.stitching.state import Corrections, State, StitchSolution

_NAMES = 3  # frames named in a message; chosen: it stays readable
_MIN_MOVE = 0.5  # px; chosen: a pair is linear over two, and was compared within one
_JOIN_WEIGHT = 1e3  # of the median information; chosen: a join outweighs all overlaps
_AS_WELL = 1.0  # standard deviations; chosen: less does not decide which frame moves


@dataclass(frozen=True, slots=True)
class _IndexedCorrections:
    """Corrections keyed by frame index, with pairs in ascending order."""

    struck_pairs: frozenset[IntPair]
    dropped_frames: frozenset[int]
    places: dict[int, FloatArray]  # (2,) as in `positions` of the solution
    joins: dict[IntPair, FloatArray]  # (2,) second minus first
    movable: dict[IntPair, int]  # second frame of a join as given

    @property
    def pairs(self) -> frozenset[IntPair]:
        """Struck or joined pairs, whose images are not compared."""
        return self.struck_pairs | self.joins.keys()


def check_corrections(corrections: Corrections, acquisition: core.Acquisition) -> None:
    """Raise an error if corrections do not fit the frames of a scan.

    Raises
    ------
    OptionError
        If a name is not the name of a frame, fewer than two frames are left, or a shift
        or position is larger than all frames in a row.
    """
    _index_corrections(corrections, acquisition)


def _check_extent(corrections: Corrections, acquisition: core.Acquisition) -> None:
    # a misplaced decimal point would need a mosaic larger than the disk
    reach = np.array(acquisition.frame_shape) * len(acquisition.names)
    corners = acquisition.nominal_corners()
    if corners is not None:
        reach = np.maximum(reach, 2 * np.ptp(corners, axis=0))
    for what, (y, x) in (
        *((f"{one.first} and {one.second}", one.shift_px) for one in corrections.join),
        *((name, (at.y_px, at.x_px)) for name, at in corrections.place.items()),
    ):
        if (np.abs((y, x)) > reach).any():
            msg = (
                f"Corrections must keep frames within {reach[0]:.0f} x {reach[1]:.0f} "
                f"px (the length of all frames in a row), got {y:g}, {x:g} for {what}."
            )
            raise core.OptionError(msg, code="out-of-range")


def _index_corrections(
    corrections: Corrections, acquisition: core.Acquisition
) -> _IndexedCorrections:
    # file systems store names in different Unicode forms
    index_of = {normalize("NFC", name): i for i, name in enumerate(acquisition.names)}
    faulty = {normalize("NFC", fault.frame) for fault in acquisition.faults}
    known = index_of.keys() | faulty
    unknown = sorted(n for n in corrections.names if normalize("NFC", n) not in known)
    if unknown:
        more = f" and {len(unknown) - _NAMES} more" if len(unknown) > _NAMES else ""
        msg = (
            "Corrections must name frames of the scan, got "
            f"{', '.join(unknown[:_NAMES])}{more}; its {len(index_of)} frames are "
            f"{acquisition.names[0]} to {acquisition.names[-1]}."
        )
        raise core.OptionError(msg, code="frames-unknown")

    def find_indices(*names: str) -> list[int]:
        indices = [index_of.get(normalize("NFC", name)) for name in names]
        return [index for index in indices if index is not None]

    def find_pair(*names: str) -> Iterator[IntPair]:
        frame_pair = sorted(find_indices(*names))
        # otherwise a frame was unreadable and is left out already
        if len(frame_pair) == 2:
            yield frame_pair[0], frame_pair[1]

    dropped_frames = frozenset(find_indices(*corrections.drop))
    if len(index_of) - len(dropped_frames) < 2:
        msg = (
            "Corrections must leave at least two frames, but they drop "
            f"{len(dropped_frames)}."
        )
        raise core.OptionError(msg, code="too-few-frames")
    _check_extent(corrections, acquisition)
    joins, movable = {}, {}
    for item in corrections.join:
        for pair in find_pair(item.first, item.second):
            (second,) = find_indices(item.second)
            sign = 1 if second == pair[1] else -1
            joins[pair] = sign * np.array(item.shift_px, dtype=float)
            movable[pair] = second
    return _IndexedCorrections(
        frozenset(pair for names in corrections.strike for pair in find_pair(*names)),
        dropped_frames,
        {
            index: np.array((place.y_px, place.x_px))
            for name, place in corrections.place.items()
            for index in find_indices(name)
        },
        joins,
        movable,
    )


class _CorrectionSolver:
    """Solver that applies manual corrections to a solved scan.

    `state` is a copy of the solved state, `before` its corners, (N, 2), NaN for frames
    without a position. `shifts` are the pairwise shifts in use, position of the second
    frame minus the first.
    """

    def __init__(
        self,
        state: State,
        hand: _IndexedCorrections,
        before: FloatArray,
        shifts: dict[IntPair, FloatArray],
    ) -> None:
        self.state, self.hand, self.before, self.shifts = state, hand, before, shifts
        self.positions = before.copy()
        self.positions[list(hand.dropped_frames)] = np.nan
        # after groups were moved; the mean position of frames that are not placed
        # manually is kept at these
        self.group_positions = self.positions
        origin = np.nanmin(before, axis=0)
        self.fixed_places = {index: at + origin for index, at in hand.places.items()}
        # shifts of overlapping pairs, linearised at the solved positions
        self.measured = state.refined_shifts
        # overlapping pairs, and the positions they were computed for
        self._overlapping: tuple[bytes, list[IntPair]] = (b"", [])

    def compute_shift(self, pair: IntPair) -> FloatArray:
        """Compute the second frame's current position relative to the first, (2,)."""
        return np.asarray(self.positions[pair[1]] - self.positions[pair[0]])

    @property
    def is_placed(self) -> BoolArray:
        """Mask of the frames with a position, (N,)."""
        return np.asarray(np.isfinite(self.positions).all(axis=1))

    def compute_distance_moved(self, pair: IntPair) -> float:
        """Return the change of a pair's shift, in px; infinite without a position."""
        change = self._compute_shift_change(pair)
        return float(np.hypot(*change)) if np.isfinite(change).all() else np.inf

    def _compute_shift_change(self, pair: IntPair) -> FloatArray:
        """Return the change of a pair's shift from its solved value, (2,)."""
        before = self.before[pair[1]] - self.before[pair[0]]
        return np.asarray(self.compute_shift(pair) - before)

    def _list_measured_shifts(
        self, pairs: Sequence[IntPair]
    ) -> list[refine.LinearisedShift]:
        """List the solved shifts of pairs, relative to the current positions."""
        return [
            replace(item, step=item.step[:2] - self._compute_shift_change(pair))
            for pair, item in ((pair, self.measured[pair]) for pair in pairs)
        ]

    @property
    def free_pairs(self) -> list[IntPair]:
        """Overlapping pairs that are neither struck nor joined."""
        key = self.positions.tobytes()
        if self._overlapping[0] != key:
            shape = self.state.acquisition.frame_shape
            self._overlapping = key, find_overlapping_pairs(self.positions, shape)
        by_hand = self.hand.pairs
        return [pair for pair in self._overlapping[1] if pair not in by_hand]

    def list_constraints(self) -> list[Overlap]:
        """List the shifts consistent with the current positions, and manual shifts."""
        state, overlaps = self.state, []
        for pair in self.free_pairs:
            # frames without an accepted shift are connected by all pairs together
            together = state.is_nominal or state.rescued_frames & set(pair)
            is_known = pair in self.shifts or together
            if is_known and self.compute_distance_moved(pair) < TOLERANCE_PX:
                overlaps.append(Overlap(*pair, (0.0, 0.0), 1.0))
        has_place = self.is_placed
        for pair in self.hand.joins:
            away = np.hypot(*(self.compute_shift(pair) - self.hand.joins[pair]))
            if has_place[list(pair)].all() and away <= TOLERANCE_PX:
                overlaps.append(Overlap(*pair, (0.0, 0.0), _JOIN_WEIGHT))
        return overlaps

    def evaluate_group(
        self, group: Sequence[int], move: FloatArray | None = None
    ) -> bridges.GroupPosition:
        """Evaluate the fit of a group, optionally moved, to all other placed frames."""
        before = self.positions
        if move is not None:
            self.positions = before.copy()
            self.positions[list(group)] += move
        members = np.array(group)
        shape, by_hand = self.state.acquisition.frame_shape, self.hand.pairs
        apart = self.positions[members, None] - self.positions
        common = np.array(shape) - np.abs(apart)
        common[:, members] = np.nan
        overlapping = np.argwhere(np.nan_to_num(common, nan=0.0).min(axis=2) > 0)
        pairs = [
            (other, group[row])
            for row, other in overlapping.tolist()
            if (min(other, group[row]), max(other, group[row])) not in by_hand
        ]
        place = bridges.evaluate_group_position(
            self.state.frames, pairs, self.positions
        )
        self.positions = before
        return place

    def _compute_fit_improvement(self, group: Sequence[int], move: FloatArray) -> float:
        """Return how much a move improves a group's fit, in standard deviations."""
        if self.state.is_nominal:
            return 0.0  # the images do not decide
        before, after = self.evaluate_group(group), self.evaluate_group(group, move)
        doubt = max(float(np.hypot(before.doubt, after.doubt)), 1e-9)
        return (after.fit - before.fit) / doubt

    # -- struck overlaps --------------------------------------------------------

    def reposition_detached_frames(self) -> None:
        """Move frames of struck overlaps to positions that clearly fit better."""
        # the frames and groups of frames that struck overlaps connected
        labels = layout.label_components(len(self.positions), self.list_constraints())
        groups: set[tuple[int, ...]] = set()
        ends = {index for pair in self.hand.struck_pairs for index in pair}
        # those without a position may have lost it with a struck overlap
        near = {
            item.second if item.first in ends else item.first
            for item in self.state.candidates
            if item.best_score > self.state.threshold
            and {item.first, item.second} & ends
        }
        without_place = {i for i in near if not np.isfinite(self.positions[i]).all()}
        for first, second in self.hand.struck_pairs:
            if labels[first] != labels[second]:
                apart = max(labels[first], labels[second])  # the largest group has 0
                groups.add(tuple(np.flatnonzero(labels == apart).tolist()))
        groups |= {(index,) for index in ends | without_place}
        held_frames = self.hand.dropped_frames | self.hand.places.keys()
        waiting = sorted(group for group in groups if held_frames.isdisjoint(group))
        while waiting:
            gains = {group: self._find_better_position(group) for group in waiting}
            gains = {group: gain for group, gain in gains.items() if gain[0] > 0}
            if not gains:
                return
            group = max(gains, key=lambda one: gains[one][0])
            self.positions[list(group)] = gains[group][1]
            waiting.remove(group)

    def _find_better_position(self, group: tuple[int, ...]) -> tuple[float, FloatArray]:
        """Find a clearly better position for a group; return its gain and corners."""
        members, now = list(group), self.positions[list(group)]
        here = self.evaluate_group(group) if np.isfinite(now).all() else None
        best, gain, corners = here, 0.0, now
        for proposal in self._propose_positions(group):
            self.positions[members] = proposal
            place_found = self.evaluate_group(group)
            self.positions[members] = now
            if place_found.score <= self.state.threshold:
                continue
            if here is not None and here.score > self.state.threshold:
                doubt = layout.CERTAIN * np.hypot(place_found.doubt, here.doubt)
                if place_found.fit - here.fit <= doubt:
                    continue
            if best is None or place_found.fit > best.fit:
                best, corners = place_found, proposal
                gain = place_found.fit - (0.0 if here is None else here.fit)
        return gain, corners

    def _propose_positions(self, group: tuple[int, ...]) -> Iterator[FloatArray]:
        """Yield corners of a group, (M, 2), proposed by the shifts of single pairs."""
        inside, by_hand = {*group}, self.hand.pairs
        for item in self.state.candidates:
            pair = item.pair
            ends = [index for index in pair if index in inside]
            if len(ends) != 1 or pair in by_hand:
                continue
            (member,) = ends
            other = pair[0] if member == pair[1] else pair[1]
            if not np.isfinite(self.positions[other]).all():
                continue
            sign = 1 if member == pair[1] else -1
            now = self.positions[list(group)]
            if len(group) == 1:
                now = np.nan_to_num(now)
            for shift in item.shifts[item.score > self.state.threshold]:
                corner = self.positions[other] + sign * shift
                yield now + (corner - now[group.index(member)])

    # -- placed frames and joins ------------------------------------------------

    def apply_fixed_positions(self) -> None:
        """Fix the given frames and move frames connected only through them."""
        if not self.hand.places:
            return
        overlaps, fixed_frames = self.list_constraints(), self.fixed_places.keys()
        free = [one for one in overlaps if fixed_frames.isdisjoint(one.pair)]
        labels = layout.label_components(len(self.positions), free)
        moves = {i: at - self.positions[i] for i, at in self.fixed_places.items()}
        hanging: dict[int, list[FloatArray]] = {}
        for overlap in overlaps:
            for frame, other in (overlap.pair, overlap.pair[::-1]):
                is_hanging = other not in fixed_frames and labels[other] != 0
                if frame in fixed_frames and is_hanging:
                    hanging.setdefault(int(labels[other]), []).append(moves[frame])
        for index, at in self.fixed_places.items():
            self.positions[index] = at
        for label, far in hanging.items():
            hung: list[int] = np.flatnonzero(labels == label).tolist()
            move = np.median(far, axis=0)
            if self._compute_fit_improvement(hung, move) > -_AS_WELL:
                self.positions[hung] += move

    def apply_joins(self) -> None:
        """Move frames, or groups of frames, to satisfy the joins."""
        earlier_joins: list[Overlap] = []
        for pair, shift in self.hand.joins.items():
            ends = [np.isfinite(self.positions[index]).all() for index in pair]
            if ends == [True, False]:
                self.positions[pair[1]] = self.positions[pair[0]] + shift
            elif ends == [False, True]:
                self.positions[pair[0]] = self.positions[pair[1]] - shift
            elif all(ends):
                self._apply_join(pair, shift - self.compute_shift(pair), earlier_joins)
            earlier_joins.append(Overlap(*pair, (0.0, 0.0), 1.0))

    def _apply_join(
        self, pair: IntPair, move: FloatArray, earlier_joins: Sequence[Overlap]
    ) -> None:
        """Move one side of a pair to satisfy its join, given the earlier joins."""
        if np.hypot(*move) <= TOLERANCE_PX:
            return
        count = len(self.positions)
        labels = layout.label_components(count, earlier_joins)
        sides = [np.flatnonzero(labels == labels[end]).tolist() for end in pair]
        moves = [-move, move]
        overlaps = [one for one in self.list_constraints() if one.pair != pair]
        cut = bridges.find_minimum_cut(count, overlaps, ({*sides[0]}, {*sides[1]}))
        has_place = self.is_placed
        main = layout.label_components(count, overlaps) == 0 if overlaps else has_place
        for side, far in ((~cut, -move), (cut, move)):
            sides.append(np.flatnonzero(side & has_place & main).tolist())
            moves.append(far)
        # the frame named second moves if nothing decides
        is_second = self.hand.movable[pair] == pair[1]
        best, gain = None, -np.inf
        for number in (1, 0, 3, 2) if is_second else (0, 1, 2, 3):
            group = sides[number]
            if not group or len(group) == has_place.sum() or {*group} >= {*pair}:
                continue
            if {*group} & self.hand.places.keys():
                continue
            best_gain = self._compute_fit_improvement(group, moves[number])
            if best is None or best_gain > gain + _AS_WELL:
                best, gain = number, best_gain
        if best is not None:
            self.positions[sides[best]] += moves[best]

    # -- all positions ----------------------------------------------------------

    def refine_positions(self, *, every: bool = False) -> None:
        """Solve for all positions from kept shifts and new shifts of moved pairs.

        `every`: from new shifts of all pairs, for frames whose brightness was wrong.
        """
        state = self.state
        if state.is_nominal:  # where overlaps do not decide, except for manual ones
            if state.refinement is not None:
                refined = tuple(self._list_measured_shifts([*self.measured]))
                state.refinement = replace(state.refinement, shifts=refined)
            return
        base = [pair for pair in self.free_pairs if pair in self.measured]
        # chosen: pairs settle in two or three rounds from an error of a pixel
        for _ in range(4):
            free = self.free_pairs
            changed_pairs = {
                p for p in free if every or self.compute_distance_moved(p) > _MIN_MOVE
            }
            fitting = []
            for pair in sorted(changed_pairs):
                shift = pairwise.compute_rounded_shift(self.positions, pair)
                fit = pairwise.compute_correlation(state.frames, pair, shift)
                if fit[1] > state.threshold:
                    fitting.append(pair)
            linearised_shifts = refine.linearise_pairs(
                state.frames, self.positions, fitting, 1.0, around=self.free_pairs
            )
            fresh = {
                item.pair: item
                for item in linearised_shifts
                if np.hypot(*item.step) <= TOLERANCE_PX
            }
            same = [pair for pair in base if pair not in changed_pairs]
            shifts = [*self._list_measured_shifts(same), *fresh.values()]
            steps, matrix = self._solve_frame_moves(shifts)
            self.positions = self.positions + steps
            if np.nanmax(np.abs(steps)) < refine.CONVERGENCE:
                break
        fine = self.positions
        # px; chosen: a tenth of the usual error of a mosaic
        still = np.abs(fine - self.before).max(axis=1) < 0.02
        still[list(self.hand.places)] = False
        self.positions = np.where(still[:, None], self.before, fine)
        spread = np.where(
            np.isfinite(fine), refine.compute_position_spread(matrix, 1.0), np.nan
        )
        # those that do not fit any more have no effect, but their misfit is reported
        in_use = {item.pair for item in shifts} | self.hand.joins.keys()
        unused = [pair for pair in self.measured if pair not in in_use]
        shifts += self._list_measured_shifts(unused)
        state.refinement = refine.RefinedPositions(
            self.positions, tuple(shifts), spread
        )
        self.shifts = {
            **{p: at for p, at in self.shifts.items() if p not in changed_pairs},
            **{p: self.compute_shift(p) for p in fresh},
        }

    def _solve_frame_moves(
        self, shifts: Sequence[refine.LinearisedShift]
    ) -> tuple[FloatArray, sparse.csc_array]:
        """Solve for position updates of all frames, (N, 2); also return the matrix."""
        count, hand = len(self.positions), self.hand
        has_place = self.is_placed
        traces = [np.trace(item.information) / 2 for item in shifts] or [1.0]
        much = np.eye(2) * float(np.median(traces)) * _JOIN_WEIGHT
        noise = float(np.median([item.variance for item in shifts] or [1.0]))
        joins = [
            refine.LinearisedShift(*pair, much, shift - self.compute_shift(pair), noise)
            for pair, shift in hand.joins.items()
            if has_place[list(pair)].all()
        ]
        items = [*shifts, *joins]
        if not items:
            return np.zeros((count, 2)), sparse.eye_array(2 * count).tocsc()
        if not self.fixed_places:
            return refine.solve_steps(count, items)
        matrix, right, _, _ = refine.assemble_normal_equations(count, items, noise)
        pulls = right[0].ravel()
        stiff = np.zeros((count, 2))
        fixed_frames = list(self.fixed_places)
        # chosen: heavier than any join, so that a placed frame does not move
        stiff[fixed_frames] = 1e6 * float(np.median(np.abs(matrix.diagonal())))
        away = np.zeros((count, 2))
        places = np.array([*self.fixed_places.values()])
        away[fixed_frames] = places - self.positions[fixed_frames]
        matrix = (matrix + sparse.diags_array(stiff.ravel())).tocsc()
        pulls = pulls + (stiff * away).ravel()
        # placed frames move relative to all others, whose mean position is kept
        others = has_place.copy()
        others[fixed_frames] = False
        if not others.any():
            return splu(matrix).solve(pulls).reshape(count, 2), matrix
        mean = sparse.csc_array(np.kron(others / others.sum(), np.eye(2)))
        with_means = sparse.block_array([[matrix, mean.T], [mean, None]]).tocsc()
        drift = np.nanmean((self.group_positions - self.positions)[others], axis=0)
        solution = splu(with_means).solve(np.concatenate([pulls, drift]))
        return solution[:-2].reshape(count, 2), matrix

    def remove_unconnected_frames(self) -> None:
        """Remove the positions of frames that are no longer connected."""
        if self.state.is_nominal:
            return
        fresh = [
            Overlap(*pair, (0.0, 0.0), 1.0)
            for pair in self.free_pairs
            if pair in self.shifts and self.compute_distance_moved(pair) >= TOLERANCE_PX
        ]
        overlaps = [*self.list_constraints(), *fresh]
        fixed_frames = list(self.fixed_places)
        # placed frames share one coordinate system, whatever is between them
        overlaps += [
            Overlap(fixed_frames[0], index, (0.0, 0.0), 1.0)
            for index in fixed_frames[1:]
        ]
        labels = layout.label_components(len(self.positions), overlaps)
        stays = labels == 0 if overlaps else np.zeros(len(labels), bool)
        stays[fixed_frames] = True
        has_place = self.is_placed
        for label in np.unique(labels[~stays & has_place]):
            group = np.flatnonzero(~stays & has_place & (labels == label)).tolist()
            if self.evaluate_group(group).score > self.state.threshold:
                continue  # all of their overlaps together connect them
            self.positions[group] = np.nan
            self.state.reasons.update(
                dict.fromkeys(group, "no remaining overlap connects it")
            )


def correct_mosaic(
    solution: StitchSolution, corrections: Corrections
) -> core.Job[StitchSolution]:
    """Solve a scan again with manual corrections.

    Starts from `solution` without the corrections that it may already contain.

    Raises
    ------
    OptionError
        If a name is not the name of a frame, or fewer than two frames are left.
    RegistrationError
        If nothing connects two frames any more.
    """
    solution = solution.base or solution
    solved_state = solution.state
    hand = _index_corrections(corrections, solved_state.acquisition)
    yield core.Progress(0, 0, "Applying corrections")
    used = (pair for pair in solution.pairs if pair.used)
    shifts = {pair.pair: np.array(pair.shift_px) for pair in used}
    state = replace(
        solved_state,
        struck_pairs=hand.struck_pairs,
        joined_pairs=frozenset(hand.joins),
        ambiguous=solved_state.ambiguous - hand.pairs,
        reasons={
            **solved_state.reasons,
            **dict.fromkeys(hand.dropped_frames, verify.DROP_REASON),
        },
        warnings=[],
    )
    solver = _CorrectionSolver(state, hand, solved_state.positions, shifts)
    solver.reposition_detached_frames()
    solver.apply_fixed_positions()
    solver.apply_joins()
    solver.group_positions = solver.positions.copy()
    yield core.Progress(0, 0, "Solving positions with corrections")
    solver.refine_positions()
    solver.remove_unconnected_frames()
    state.positions = solver.positions
    if int(state.is_placed.sum()) < 2:
        msg = (
            "Corrections must leave at least one overlap between two frames: strike "
            "fewer overlaps or drop fewer frames."
        )
        raise core.RegistrationError(msg, code="nothing-placed")
    for index in np.flatnonzero(state.is_placed).tolist():
        state.reasons.pop(index, None)
    state.frames = _match_brightness(state, solver)
    pedestal = solution.pedestal
    remaining = _measure_remaining_shading(state, solver, pedestal)
    if remaining > verify.UNEVEN and (state.positions != solver.before).any():
        # wrong positions have biased the brightness, and through it all other positions
        for knots in (shading.COARSE_KNOTS, shading.FINE_KNOTS):
            yield core.Progress(0, 0, "Refining flat field and gains")
            update_shading(state, knots)
            solver.refine_positions(every=True)
            state.positions = solver.positions
        remaining = _measure_remaining_shading(state, solver, pedestal)
    _update_layout(state, solver)
    verify.check_periods(state, refuses=False)
    verify.warn_of_unplaced_frames(state)
    verify.warn_of_uncertain_positions(state)
    outcome = verify.create_solution(state, pedestal, remaining)
    return replace(outcome, state=solved_state, base=solution)


def _measure_remaining_shading(
    state: State, solver: _CorrectionSolver, pedestal: float
) -> float:
    """Measure the remaining shading on a sample of pairs and on all moved pairs."""
    pairs = state.list_overlapping_pairs()
    # chosen: the remaining shading is averaged over so many pairs
    some = {pairs[k] for k in choose_evenly_spaced_indices(len(pairs), 100)}
    pairs_to_measure = [
        p for p in pairs if p in some or solver.compute_distance_moved(p) > _MIN_MOVE
    ]
    where = state.frames, state.positions, pairs_to_measure
    return shading.measure_remaining_shading(*where, pedestal)


def _update_layout(state: State, solver: _CorrectionSolver) -> None:
    """Update the layout with the pairwise shifts of the corrected positions."""
    hand = solver.hand
    overlaps = [
        Overlap(*pair, (float(y), float(x)), _JOIN_WEIGHT)
        for pair, (y, x) in hand.joins.items()
        if state.is_placed[list(pair)].all()
    ]
    for pair, (y, x) in solver.shifts.items():
        if pair not in hand.pairs:
            overlaps.append(Overlap(*pair, (float(y), float(x)), 1.0))
    in_use = {one.pair for one in overlaps}
    unused = (one for one in state.layout.overlaps if one.pair not in in_use)
    dropped_overlaps = (*state.layout.dropped_overlaps, *unused)
    state.layout = layout.Layout(state.positions, tuple(overlaps), dropped_overlaps)
    searched_pairs = {item.pair for item in state.candidates}
    more = []
    for pair in sorted(in_use - searched_pairs):  # at the current shift, without search
        shift = pairwise.compute_rounded_shift(state.positions, pair)
        values = np.array(pairwise.compute_correlation(state.frames, pair, shift))[
            :, None
        ]
        more.append(
            pairwise.Candidates(*pair, np.array([shift], dtype=np.int64), *values)
        )
    state.candidates = [*state.candidates, *more]


def _match_brightness(state: State, solver: _CorrectionSolver) -> CorrectedFrames:
    """Match the brightness of moved frames to the other frames."""
    far = np.abs(state.positions - solver.before).max(axis=1)
    is_moved = state.is_placed & ~(far <= TOLERANCE_PX)
    pairs = [
        p for p in state.list_overlapping_pairs() if is_moved[p[0]] != is_moved[p[1]]
    ]
    if not (state.options.match_gain and pairs):
        return state.frames
    blocks = shading.compare_overlap_blocks(state.frames, state.positions, pairs)
    gains = state.frames.gains.copy()
    ends = np.array(pairs)[blocks.pair]
    for index in np.flatnonzero(is_moved).tolist():
        own = ends == index
        rows = own.any(axis=1)
        here, there = blocks.values[rows][own[rows]], blocks.values[rows][~own[rows]]
        if there.size and there.sum() > 0 and here.sum() > 0:
            gains[index] *= float(here.sum() / there.sum())
    return state.frames.copy_with_changes(gains=gains)
