"""Manual corrections of a solved scan, and its new solution.

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
from dataclasses import dataclass, field, replace
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from napari_semsr.core import (
    Acquisition,
    BoolArray,
    FloatArray,
    IntPair,
    Job,
    OptionError,
    Progress,
    RegistrationError,
)
from napari_semsr.stitching.bridges import JointPlace, joint_place, minimum_cut
from napari_semsr.stitching.corrections import Corrections
from napari_semsr.stitching.flat_field import evenly
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.layout import (
    CERTAIN,
    TOLERANCE_PX,
    Joint,
    Layout,
    components,
)
from napari_semsr.stitching.nominal import overlapping_pairs
from napari_semsr.stitching.pairwise import Candidates, coefficient, whole_shift
from napari_semsr.stitching.refine import (
    LinearisedShift,
    Refined,
    assemble,
    joint_steps,
    spread_of,
    sweep_shifts,
)
from napari_semsr.stitching.shading import (
    COARSE_KNOTS,
    FINE_KNOTS,
    overlap_blocks,
    remaining_shading,
)
from napari_semsr.stitching.solution import StitchSolution
from napari_semsr.stitching.solve import reshade
from napari_semsr.stitching.state import State
from napari_semsr.stitching.verify import (
    DROP_REASON,
    UNEVEN,
    hand_out,
    settle_periods,
    warn_of_lost,
    warn_of_spread,
)

_NAMES = 3  # frames named in a message; chosen: it stays readable
_LOSS_REASON = "no remaining overlap connects it"
_MIN_MOVE = 0.5  # px; chosen: a pair is linear over two, and was compared within one
_STILL = 0.02  # px; chosen: a tenth of the usual error of a mosaic
_SWEEPS = 4  # chosen: pairs settle in two or three from an error of a pixel
_CONVERGENCE = 1e-3  # px; as for the refinement of all positions
_JOIN_WEIGHT = 1e3  # of the median information; chosen: a join outweighs all overlaps
_HOLD = 1e6  # the same for a placed frame, which no join moves
_SAMPLE = 100  # pairs; chosen: the remaining shading is averaged over them
_AS_WELL = 1.0  # standard deviations; chosen: less does not decide which frame moves


@dataclass(frozen=True, slots=True)
class _ByHand:
    """Corrections by frame index; pairs in ascending order."""

    struck_pairs: frozenset[IntPair]
    dropped_frames: frozenset[int]
    places: dict[int, FloatArray]  # (2,) as in `positions` of the solution
    joins: dict[IntPair, FloatArray]  # (2,) second minus first
    movable: dict[IntPair, int]  # second frame of a join as given

    @property
    def pairs(self) -> frozenset[IntPair]:
        """Struck or joined pairs, whose images are not used."""
        return self.struck_pairs | self.joins.keys()


def check_corrections(corrections: Corrections, acquisition: Acquisition) -> None:
    """Raise an error if corrections do not fit the frames of a scan.

    Raises
    ------
    OptionError
        If a name is not the name of a frame, fewer than two frames are left, or a shift
        or position is larger than all frames in a row.
    """
    _number_frames(corrections, acquisition)


def _check_reach(corrections: Corrections, acquisition: Acquisition) -> None:
    # a misplaced decimal point would need a mosaic larger than the disk
    reach = np.array(acquisition.frame_shape) * len(acquisition.names)
    corners = acquisition.nominal_corners()
    if corners is not None:
        reach = np.maximum(reach, 2 * np.ptp(corners, axis=0))
    for what, (y, x) in (
        *(
            (f"{item.first} and {item.second}", item.shift_px)
            for item in corrections.join
        ),
        *((name, (at.y_px, at.x_px)) for name, at in corrections.place.items()),
    ):
        if (np.abs((y, x)) > reach).any():
            msg = (
                f"Corrections must keep frames within {reach[0]:.0f} x {reach[1]:.0f} "
                f"px, the length of all frames in a row, got {y:g} and {x:g} for "
                f"{what}."
            )
            raise OptionError(msg, code="out-of-range")


def _number_frames(corrections: Corrections, acquisition: Acquisition) -> _ByHand:
    # file systems store names in different Unicode forms
    index_of = {normalize("NFC", name): i for i, name in enumerate(acquisition.names)}
    faulty = {normalize("NFC", fault.frame) for fault in acquisition.faults}
    unknown = sorted(
        name
        for name in corrections.names
        if normalize("NFC", name) not in index_of.keys() | faulty
    )
    if unknown:
        more = f" and {len(unknown) - _NAMES} more" if len(unknown) > _NAMES else ""
        msg = (
            f"Corrections must name frames of the scan, which has no "
            f"{', '.join(unknown[:_NAMES])}{more}: its {len(index_of)} frames are "
            f"{acquisition.names[0]} to {acquisition.names[-1]}."
        )
        raise OptionError(msg, code="frames-unknown")

    def numbers(*names: str) -> list[int]:
        indices = [index_of.get(normalize("NFC", name)) for name in names]
        return [index for index in indices if index is not None]

    def pair_of(*names: str) -> Iterator[IntPair]:
        frame_pair = sorted(numbers(*names))
        if (
            len(frame_pair) == 2
        ):  # otherwise a frame was unreadable and is left out already
            yield frame_pair[0], frame_pair[1]

    dropped_frames = frozenset(numbers(*corrections.drop))
    if len(index_of) - len(dropped_frames) < 2:
        msg = (
            f"Corrections must leave at least two frames, got {len(dropped_frames)} to "
            "drop."
        )
        raise OptionError(msg, code="too-few-frames")
    _check_reach(corrections, acquisition)
    joins, movable = {}, {}
    for item in corrections.join:
        for pair in pair_of(item.first, item.second):
            (second,) = numbers(item.second)
            sign = 1 if second == pair[1] else -1
            joins[pair] = sign * np.array(item.shift_px, dtype=float)
            movable[pair] = second
    return _ByHand(
        frozenset(pair for names in corrections.strike for pair in pair_of(*names)),
        dropped_frames,
        {
            index: np.array((place.y_px, place.x_px))
            for name, place in corrections.place.items()
            for index in numbers(name)
        },
        joins,
        movable,
    )


@dataclass(slots=True)
class _Solver:
    """A solution being corrected."""

    state: State  # copy of the solved state
    hand: _ByHand
    before: FloatArray  # (N, 2) solved corners, NaN for frames without a position
    # pairwise shifts in use: position of the second frame minus the first
    shifts: dict[IntPair, FloatArray]
    pedestal: float  # Of the mosaic
    positions: FloatArray = field(init=False)  # (N, 2)
    # (N, 2) after groups were moved; the mean position of frames that are not placed
    # manually is kept at these
    group_positions: FloatArray = field(init=False)
    fixed_places: dict[int, FloatArray] = field(init=False)  # (2,) As in `positions`
    # overlapping pairs, and the positions they were computed for
    _overlapping: tuple[bytes, list[IntPair]] = (b"", [])

    def __post_init__(self) -> None:
        self.positions = self.before.copy()
        self.positions[list(self.hand.dropped_frames)] = np.nan
        self.group_positions = self.positions
        origin = np.nanmin(self.before, axis=0)
        self.fixed_places = {
            index: at + origin for index, at in self.hand.places.items()
        }

    def apart(self, pair: IntPair) -> FloatArray:
        """Compute the current position of the second frame minus the first, (2,)."""
        return np.asarray(self.positions[pair[1]] - self.positions[pair[0]])

    @property
    def has_place(self) -> BoolArray:
        """Mask of the frames with a position, (N,)."""
        return np.asarray(np.isfinite(self.positions).all(axis=1))

    def distance_moved(self, pair: IntPair) -> float:
        """Return the change of a pair's shift; infinite if a frame had no position."""
        change = self._change(pair)
        return float(np.hypot(*change)) if np.isfinite(change).all() else np.inf

    def _change(self, pair: IntPair) -> FloatArray:
        """Return the difference of a pair's shift from the solved one, (2,)."""
        before = self.before[pair[1]] - self.before[pair[0]]
        return np.asarray(self.apart(pair) - before)

    def _groups(self, ties: Sequence[Joint]) -> NDArray[np.int64]:
        """Label the groups of frames that ties connect, (N,), the largest 0."""
        return components(len(self.positions), ties)

    @property
    def free(self) -> list[IntPair]:
        """List the overlapping pairs that are neither struck nor joined."""
        key = self.positions.tobytes()
        if self._overlapping[0] != key:
            shape = self.state.acquisition.frame_shape
            self._overlapping = key, overlapping_pairs(self.positions, shape)
        by_hand = self.hand.pairs
        return [pair for pair in self._overlapping[1] if pair not in by_hand]

    def ties(self) -> list[Joint]:
        """List the shifts that fit the current positions, and manual ones."""
        state, ties = self.state, []
        for pair in self.free:
            # frames without an accepted shift are connected by all pairs together
            together = state.is_nominal or state.rescued_frames & set(pair)
            is_known = pair in self.shifts or together
            if is_known and self.distance_moved(pair) < TOLERANCE_PX:
                ties.append(Joint(*pair, (0.0, 0.0), 1.0))
        has_place = self.has_place
        for pair in self.hand.joins:
            away = np.hypot(*(self.apart(pair) - self.hand.joins[pair]))
            if has_place[list(pair)].all() and away <= TOLERANCE_PX:
                ties.append(Joint(*pair, (0.0, 0.0), _JOIN_WEIGHT))
        return ties

    def fit(self, group: Sequence[int], move: FloatArray | None = None) -> JointPlace:
        """Compare a group, moved, with all other placed frames."""
        before = self.positions
        if move is not None:
            self.positions = before.copy()
            self.positions[list(group)] += move
        members = np.array(group)
        apart = self.positions[members, None] - self.positions
        common = np.array(self.state.acquisition.frame_shape) - np.abs(apart)
        common[:, members] = np.nan
        overlapping = np.nan_to_num(common, nan=0.0).min(axis=2) > 0
        by_hand = self.hand.pairs
        pairs = [
            (other, int(members[row]))
            for row, other in zip(
                *(part.tolist() for part in overlapping.nonzero()), strict=True
            )
            if (min(other, members[row]), max(other, members[row])) not in by_hand
        ]
        place = joint_place(self.state.frames, pairs, self.positions)
        self.positions = before
        return place

    def _gain(self, group: Sequence[int], move: FloatArray) -> float:
        """Return how much better a group fits after a move, in standard deviations."""
        if self.state.is_nominal:
            return 0.0  # the images do not decide
        before, after = self.fit(group), self.fit(group, move)
        doubt = max(float(np.hypot(before.doubt, after.doubt)), 1e-9)
        return (after.fit - before.fit) / doubt

    # -- struck overlaps --------------------------------------------------------

    def strike(self) -> None:
        """Move frames of struck overlaps to where their others fit clearly better."""
        waiting = self._loose_groups()
        while waiting:
            gains = {group: self._better_place(group) for group in waiting}
            gains = {group: gain for group, gain in gains.items() if gain[0] > 0}
            if not gains:
                return
            group = max(gains, key=lambda one: gains[one][0])
            self.positions[list(group)] = gains[group][1]
            waiting.remove(group)

    def _loose_groups(self) -> list[tuple[int, ...]]:
        """List the frames, and groups of frames, that struck overlaps connected."""
        labels = self._groups(self.ties())
        groups: set[tuple[int, ...]] = set()
        ends = {index for pair in self.hand.struck_pairs for index in pair}
        # those without a position may have lost it with a struck overlap
        near = {
            item.second if item.first in ends else item.first
            for item in self.state.candidates
            if item.best > self.state.threshold and {item.first, item.second} & ends
        }
        without_place = {i for i in near if not np.isfinite(self.positions[i]).all()}
        for first, second in self.hand.struck_pairs:
            if labels[first] != labels[second]:
                apart = max(labels[first], labels[second])  # the largest group has 0
                groups.add(tuple(np.flatnonzero(labels == apart).tolist()))
        groups |= {(index,) for index in ends | without_place}
        return sorted(
            group
            for group in groups
            if not {*group} & (self.hand.dropped_frames | self.hand.places.keys())
        )

    def _better_place(self, group: tuple[int, ...]) -> tuple[float, FloatArray]:
        """Find where a group fits clearly better: its gain and its corners."""
        members, now = list(group), self.positions[list(group)]
        here = self.fit(group) if np.isfinite(now).all() else None
        fits = here is not None and here.score > self.state.threshold
        best, gain, corners = here, 0.0, now
        for proposal in self._proposals(group):
            self.positions[members] = proposal
            place_found = self.fit(group)
            self.positions[members] = now
            if place_found.score <= self.state.threshold:
                continue
            if fits and here is not None:
                doubt = CERTAIN * np.hypot(place_found.doubt, here.doubt)
                if place_found.fit - here.fit <= doubt:
                    continue
            if best is None or place_found.fit > best.fit:
                best, corners = place_found, proposal
                gain = place_found.fit - (0.0 if here is None else here.fit)
        return gain, corners

    def _proposals(self, group: tuple[int, ...]) -> Iterator[FloatArray]:
        """Return corners, (M, 2), that shifts of single pairs propose for a group."""
        inside, by_hand = {*group}, self.hand.pairs
        for item in self.state.candidates:
            pair = (item.first, item.second)
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

    def place(self) -> None:
        """Fix frames, and move the frames that they alone connect."""
        if not self.hand.places:
            return
        ties, fixed_frames = self.ties(), self.fixed_places.keys()
        labels = self._groups(
            [t for t in ties if not {t.first, t.second} & fixed_frames]
        )
        moves = {i: at - self.positions[i] for i, at in self.fixed_places.items()}
        hanging: dict[int, list[FloatArray]] = {}
        for tie in ties:
            for frame, other in ((tie.first, tie.second), (tie.second, tie.first)):
                if (
                    frame in fixed_frames
                    and other not in fixed_frames
                    and labels[other] != 0
                ):
                    hanging.setdefault(int(labels[other]), []).append(moves[frame])
        for index, at in self.fixed_places.items():
            self.positions[index] = at
        for label, far in hanging.items():
            hung: list[int] = np.flatnonzero(labels == label).tolist()
            move = np.median(far, axis=0)
            if self._gain(hung, move) > -_AS_WELL:
                self.positions[hung] += move

    def join(self) -> None:
        """Move frames, or groups of frames, to satisfy the joins."""
        earlier_joints: list[Joint] = []
        for pair, shift in self.hand.joins.items():
            ends = [np.isfinite(self.positions[index]).all() for index in pair]
            if ends == [True, False]:
                self.positions[pair[1]] = self.positions[pair[0]] + shift
            elif ends == [False, True]:
                self.positions[pair[0]] = self.positions[pair[1]] - shift
            elif all(ends):
                self._meet(pair, shift - self.apart(pair), earlier_joints)
            earlier_joints.append(Joint(*pair, (0.0, 0.0), 1.0))

    def _meet(
        self, pair: IntPair, move: FloatArray, earlier_joints: Sequence[Joint]
    ) -> None:
        """Move one side of a pair to its join; `earlier_joints`: those before it."""
        if np.hypot(*move) <= TOLERANCE_PX:
            return
        labels = self._groups(earlier_joints)
        sides = [np.flatnonzero(labels == labels[end]).tolist() for end in pair]
        moves = [-move, move]
        ties = [t for t in self.ties() if (t.first, t.second) != pair]
        cut = minimum_cut(len(self.positions), ties, ({*sides[0]}, {*sides[1]}))
        has_place = self.has_place
        main = self._groups(ties) == 0 if ties else has_place
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
            best_gain = self._gain(group, moves[number])
            if best is None or best_gain > gain + _AS_WELL:
                best, gain = number, best_gain
        if best is not None:
            self.positions[sides[best]] += moves[best]

    # -- all positions ----------------------------------------------------------

    def refine(self, *, every: bool = False) -> None:
        """Solve all positions from kept shifts, and new ones of pairs that moved.

        `every`: from new shifts of all pairs, for frames whose brightness was wrong.
        """
        state, base = self.state, self._kept_shifts()
        if state.is_nominal:  # where overlaps do not decide, except for manual ones
            return
        for _ in range(_SWEEPS):
            free = self.free
            changed_pairs = {
                p for p in free if every or self.distance_moved(p) > _MIN_MOVE
            }
            fresh = self._compare(sorted(changed_pairs))
            same = [
                replace(item, step=item.step[:2] - self._change(p))
                for p, item in base.items()
                if p not in changed_pairs
            ]
            shifts = [*same, *fresh.values()]
            steps, matrix = self._steps(shifts)
            self.positions = self.positions + steps
            if np.nanmax(np.abs(steps)) < _CONVERGENCE:
                break
        fine = self.positions
        still = np.abs(fine - self.before).max(axis=1) < _STILL
        still[list(self.hand.places)] = False
        self.positions = np.where(still[:, None], self.before, fine)
        spread = np.where(np.isfinite(fine), spread_of(matrix, 1.0), np.nan)
        state.refinement = Refined(self.positions, tuple(shifts), spread)
        self.shifts = {
            **{p: at for p, at in self.shifts.items() if p not in changed_pairs},
            **{p: self.apart(p) for p in fresh},
        }

    def _kept_shifts(self) -> dict[IntPair, LinearisedShift]:
        """Return shifts of overlapping pairs, linearised at the solved positions."""
        shifts = () if self.state.refinement is None else self.state.refinement.shifts
        shifts_of_pairs = {(item.first, item.second): item for item in shifts}
        return {
            pair: shifts_of_pairs[pair] for pair in self.free if pair in shifts_of_pairs
        }

    def _compare(self, pairs: Sequence[IntPair]) -> dict[IntPair, LinearisedShift]:
        """Compare pairs at their current shifts; omit those that do not fit."""
        frames, fitting = self.state.frames, []
        for pair in pairs:
            shift = whole_shift(self.positions, pair)
            if coefficient(frames, pair, shift)[1] > self.state.threshold:
                fitting.append(pair)
        linearised_shifts = sweep_shifts(
            frames, self.positions, fitting, 1.0, around=self.free
        )
        return {
            (item.first, item.second): item
            for item in linearised_shifts
            if np.hypot(*item.step) <= TOLERANCE_PX
        }

    def _steps(
        self, shifts: Sequence[LinearisedShift]
    ) -> tuple[FloatArray, sparse.csc_array]:
        """Solve for position updates of all frames, (N, 2); also return the matrix."""
        count, hand = len(self.positions), self.hand
        has_place = self.has_place
        traces = [np.trace(item.information) / 2 for item in shifts] or [1.0]
        much = np.eye(2) * float(np.median(traces)) * _JOIN_WEIGHT
        noise = float(np.median([item.variance for item in shifts] or [1.0]))
        joins = [
            LinearisedShift(*pair, much, shift - self.apart(pair), noise)
            for pair, shift in hand.joins.items()
            if has_place[list(pair)].all()
        ]
        items = [*shifts, *joins]
        if not items:
            return np.zeros((count, 2)), sparse.eye_array(2 * count).tocsc()
        if not self.fixed_places:
            return joint_steps(count, items)
        matrix, right, _, _ = assemble(count, items, noise)
        pulls = right[0].ravel()
        stiff = np.zeros((count, 2))
        fixed_frames = list(self.fixed_places)
        stiff[fixed_frames] = _HOLD * float(np.median(np.abs(matrix.diagonal())))
        away = np.zeros((count, 2))
        away[fixed_frames] = (
            np.array([*self.fixed_places.values()]) - self.positions[fixed_frames]
        )
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

    def lay(self) -> None:
        """Apply all corrections to within a few pixels."""
        self.strike()
        self.place()
        self.join()
        self.group_positions = self.positions.copy()

    def release(self) -> None:
        """Remove the positions of frames that nothing connects any more."""
        if self.state.is_nominal:
            return
        fresh = [
            Joint(*pair, (0.0, 0.0), 1.0)
            for pair in self.free
            if pair in self.shifts and self.distance_moved(pair) >= TOLERANCE_PX
        ]
        ties, fixed_frames = [*self.ties(), *fresh], list(self.fixed_places)
        # placed frames share one coordinate system, whatever is between them
        ties += [
            Joint(fixed_frames[0], index, (0.0, 0.0), 1.0) for index in fixed_frames[1:]
        ]
        labels = self._groups(ties)
        stays = labels == 0 if ties else np.zeros(len(labels), bool)
        stays[fixed_frames] = True
        has_place = self.has_place
        for label in np.unique(labels[~stays & has_place]):
            group = np.flatnonzero(~stays & has_place & (labels == label)).tolist()
            if self.fit(group).score > self.state.threshold:
                continue  # all of their overlaps together connect them
            self.positions[group] = np.nan
            self.state.reasons.update(dict.fromkeys(group, _LOSS_REASON))


def correct_mosaic(
    solution: StitchSolution, corrections: Corrections
) -> Job[StitchSolution]:
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
    solved_state: State = solution.state
    hand = _number_frames(corrections, solved_state.acquisition)
    yield Progress(0, 0, "Applying corrections")
    shifts = {
        (pair.first, pair.second): np.array(pair.shift_px)
        for pair in solution.pairs
        if pair.used
    }
    state = replace(
        solved_state,
        struck_pairs=hand.struck_pairs,
        joined_pairs=frozenset(hand.joins),
        ambiguous=solved_state.ambiguous - hand.pairs,
        reasons={
            **solved_state.reasons,
            **dict.fromkeys(hand.dropped_frames, DROP_REASON),
        },
        warnings=[],
    )
    solver = _Solver(state, hand, solved_state.positions, shifts, solution.pedestal)
    solver.lay()
    yield Progress(0, 0, "Solving positions with corrections")
    solver.refine()
    solver.release()
    state.positions = solver.positions
    if int(state.has_place.sum()) < 2:
        msg = (
            "Corrections must leave overlaps that connect two frames, but none is "
            "left: strike or drop fewer."
        )
        raise RegistrationError(msg, code="nothing-placed")
    for index in np.flatnonzero(state.has_place).tolist():
        state.reasons.pop(index, None)
    state.frames = _match_moved(state, solver)
    remaining = _remaining(state, solver)
    if remaining > UNEVEN and (state.positions != solver.before).any():
        # wrong positions have biased the brightness, and through it all other positions
        for knots in (COARSE_KNOTS, FINE_KNOTS):
            yield Progress(0, 0, "Refining flat field and gains")
            reshade(state, knots)
            solver.refine(every=True)
            state.positions = solver.positions
        remaining = _remaining(state, solver)
    _list_joints(state, solver)
    settle_periods(state, refuses=False)
    warn_of_lost(state)
    warn_of_spread(state)
    outcome = hand_out(state, solution.pedestal, remaining)
    return replace(outcome, state=solved_state, base=solution)


def _remaining(state: State, solver: _Solver) -> float:
    """Measure the remaining shading on some of the pairs, and on all that moved."""
    pairs = state.overlapping()
    some = {pairs[k] for k in evenly(len(pairs), _SAMPLE)}
    pairs_to_measure = [
        p for p in pairs if p in some or solver.distance_moved(p) > _MIN_MOVE
    ]
    where = state.frames, state.positions, pairs_to_measure
    return remaining_shading(*where, solver.pedestal)


def _list_joints(state: State, solver: _Solver) -> None:
    """List the pairwise shifts on which the corrected positions are based."""
    hand = solver.hand
    joints = [
        Joint(*pair, (float(y), float(x)), _JOIN_WEIGHT)
        for pair, (y, x) in hand.joins.items()
        if state.has_place[list(pair)].all()
    ]
    for pair, (y, x) in solver.shifts.items():
        if pair not in hand.pairs:
            joints.append(Joint(*pair, (float(y), float(x)), 1.0))
    in_use = {(joint.first, joint.second) for joint in joints}
    contradicting = () if state.layout is None else state.layout.dropped_joints
    former = () if state.layout is None else state.layout.joints
    contradicted_joints = (j for j in former if (j.first, j.second) not in in_use)
    state.layout = Layout(
        state.positions, tuple(joints), (*contradicting, *contradicted_joints)
    )
    searched_pairs = {(item.first, item.second) for item in state.candidates}
    state.candidates = [
        *state.candidates,
        *(_report_place(state, p) for p in sorted(in_use - searched_pairs)),
    ]


def _report_place(state: State, pair: IntPair) -> Candidates:
    """Report a pair that was not searched, at its current shift."""
    shift = whole_shift(state.positions, pair)
    ncc, score, weight = (
        np.array([value]) for value in coefficient(state.frames, pair, shift)
    )
    return Candidates(*pair, np.array([shift], dtype=np.int64), ncc, score, weight)


def _match_moved(state: State, solver: _Solver) -> CorrectedFrames:
    """Match the brightness of frames that moved to that of the others."""
    far = np.abs(state.positions - solver.before).max(axis=1)
    is_moved = state.has_place & ~(far <= TOLERANCE_PX)
    pairs = [p for p in state.overlapping() if is_moved[p[0]] != is_moved[p[1]]]
    if not (state.options.match_gain and pairs):
        return state.frames
    blocks = overlap_blocks(state.frames, state.positions, pairs)
    gains = state.frames.gains.copy()
    ends = np.array(pairs)[blocks.pair]
    for index in np.flatnonzero(is_moved).tolist():
        own = ends == index
        rows = own.any(axis=1)
        here, there = blocks.values[rows][own[rows]], blocks.values[rows][~own[rows]]
        if there.size and there.sum() > 0 and here.sum() > 0:
            gains[index] *= float(here.sum() / there.sum())
    return state.frames.change(gains=gains)
