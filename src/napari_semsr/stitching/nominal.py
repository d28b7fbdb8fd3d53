"""Expected frame positions: stated, from a grid, or from the images alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from napari_semsr.core import BoolArray, FloatArray, IntPair
from napari_semsr.stitching import discovery, layout, solution
from napari_semsr.stitching.flat_field import choose_evenly_spaced_indices
from napari_semsr.stitching.frames import (
    CorrectedFrames,
    compute_band_noise,
    estimate_noise,
)
from napari_semsr.stitching.pairwise import compute_rounded_shift, search_shifts

_MIN_PIXELS = 600  # chosen: above the 400 that a pair needs for a coefficient


def find_touching_pairs(nominal: FloatArray, shape: IntPair) -> list[IntPair]:
    """Find pairs overlapping by more than 4 px along both axes; `nominal` (N, 2)."""
    limit = np.array(shape, dtype=float)
    order = np.lexsort((nominal[:, 1], nominal[:, 0]))
    touching: list[IntPair] = []
    rows = nominal[order, 0]
    for place, first in enumerate(order.tolist()):
        if not np.isfinite(nominal[first]).all():
            continue
        stop = int(np.searchsorted(rows, rows[place] + limit[0], side="left"))
        others = order[place + 1 : stop]
        away = np.abs(nominal[others] - nominal[first])
        near = (away < limit - 4).all(axis=1)
        pairs = [sorted((first, other)) for other in others[near].tolist()]
        touching += [(low, high) for low, high in pairs]
    touching.sort()
    return touching


def find_overlapping_pairs(positions: FloatArray, shape: IntPair) -> list[IntPair]:
    """Find pairs of placed frames sharing at least 600 px; `positions` (N, 2)."""
    pairs = []
    for first, second in find_touching_pairs(positions, shape):
        rows, columns = np.array(shape) - np.abs(positions[second] - positions[first])
        if rows * columns >= _MIN_PIXELS:
            pairs.append((first, second))
    return pairs


_SURE = 8.0  # twice the usual four standard deviations; chosen: all pairs are searched
_MIN_SCORE = 4.0  # standard deviations; chosen as in the options
_RIVALS = 24  # weighed steps of a pair; chosen: time against missing the true one
_TRIALS = 16  # pairs along each axis; chosen: each is a search of that size


def find_nominal_positions(
    frames: CorrectedFrames,
) -> tuple[FloatArray, bool, Sequence[layout.Overlap]]:
    """Return expected positions (N, 2), whether these are stated, and all matches."""
    acquisition = frames.acquisition
    positions = acquisition.nominal_corners()
    if positions is not None:
        return positions, True, ()
    if acquisition.grid is not None:
        steps = _measure_grid_steps(frames)
        return acquisition.grid_cells() @ steps, False, ()
    joints = discovery.match_frames(frames)
    noise = compute_band_noise(estimate_noise(frames))
    return discovery.discover_positions(frames, joints, noise), False, joints


# Share of the matches that other axes explain; chosen: at most two thirds for two rows,
# whose frames fit along the rows in either order.
_AS_WELL = 0.75
_MAX_SCALE = 1.5  # or its inverse; chosen: a factor of two is binning or another unit
_SEEDS = 200  # matches; chosen: each is compared with all others
# Share of the matches that the best map explains; chosen: a single row fits equally
# well mirrored or not, except for chance.
_EQUAL = 0.9
_REFITS = 4  # chosen: the set of fitting matches has converged before


def find_alternative_axes(
    frames: CorrectedFrames, nominal: FloatArray
) -> FloatArray | None:
    """Find a linear map of stated positions that fits the images clearly better.

    `nominal` (N, 2). Returns the map, (2, 2), from stated to camera px, ``(y, x)``;
    None if there is none.
    """
    joints = [joint for joint in discovery.match_frames(frames) if joint.weight > _SURE]
    if not joints:
        return None
    shift = np.array([joint.shift for joint in joints]).reshape(-1, 2)
    first, second = ([getattr(j, end) for j in joints] for end in ("first", "second"))
    apart = nominal[second] - nominal[first]
    shape = np.array(frames.frame_shape)

    def find_fitting_pairs(matrix: FloatArray) -> BoolArray:
        away = apart @ matrix.T
        near = np.hypot(*(away - shift).T) < solution.MAX_JITTER * shape.min()
        return np.asarray(near & (np.abs(away) < shape - 4).all(axis=1))

    seeds: list[FloatArray] = [np.eye(2)]  # and maps from one stated step to its shift
    for place in choose_evenly_spaced_indices(len(apart), _SEEDS):
        step = complex(solution.convert_to_complex(apart[place]))
        step_seen = complex(solution.convert_to_complex(shift[place]))
        if 1 / _MAX_SCALE < abs(step_seen) / max(abs(step), 1e-9) < _MAX_SCALE:
            seeds.append(solution.convert_to_matrix(step_seen / step))
            # the same with y mirrored first
            mirror_matrix = solution.convert_to_matrix(step_seen / step.conjugate())
            seeds.append(mirror_matrix @ np.diag([-1.0, 1.0]))
    fits = np.array([find_fitting_pairs(matrix).sum() for matrix in seeds])
    if fits[0] >= _AS_WELL * fits.max():
        return None
    names = [*solution.AXES]
    rank = [names.index(solution.find_nearest_axes(matrix)) for matrix in seeds]
    equal = np.flatnonzero(fits >= _EQUAL * fits.max()).tolist()
    best = seeds[min(equal, key=lambda k: (rank[k], -fits[k]))]
    named_axes = np.array(solution.AXES[solution.find_nearest_axes(best)], dtype=float)
    for _ in range(_REFITS):
        inside = find_fitting_pairs(best)
        have, want = apart[inside] @ named_axes.T, shift[inside]
        # in both directions, so that steps have zero mean
        both = [np.concatenate([steps, -steps]) for steps in (have, want)]
        axes_fit = solution.fit_stage_axes(both[0], both[1], int(shape.min()))
        if axes_fit is None:
            break
        best = named_axes
        if axes_fit.has_deviation:
            best = axes_fit.compose(named_axes).matrix
    return best


# Share of a frame: the reach of the last search.
_WIDE = 0.4
_ALIKE = 1.2  # times the usual distance of neighbours; chosen: a diagonal is 1.4
_BY_CHANCE = 1e-3  # probability of a turn by chance; chosen as for pairs
_NEIGHBOURS = 8  # pairs of neighbours; chosen: each is weighed at two dozen shifts


@dataclass(frozen=True, slots=True)
class PossibleRotations:
    """Rotations and scales of stated positions consistent with neighbouring images.

    On a periodic sample a shift by a whole period is a rotation of all positions, so
    that many may fit.
    """

    turns: tuple[complex, ...] = ()  # factors of x + iy, the nearest to 1 first
    doubt: float = float("inf")  # possible error of a single one by chance
    distance: float = 0.0  # distance of neighbours, in px
    # between two shifts of neighbours that fit equally well, px; infinite if one fits
    period: float = float("inf")

    @property
    def chance_probability(self) -> float:
        """Probability that a random rotation fits as well as the stated positions.

        The shift of neighbours is assumed uniform within a period.
        """
        if not self.turns:
            return 1.0
        away = abs(self.turns[0] - 1) * self.distance
        return compute_period_fraction(away, self.period)


def compute_period_fraction(away: float, period: float) -> float:
    """Return the fraction of shifts within half a period that are at most `away` px."""
    return min(1.0, 2 * away / period) ** 2


def find_possible_rotations(
    frames: CorrectedFrames,
    nominal: FloatArray,
    pairs: Sequence[IntPair],
    most_px: float | None = None,
) -> PossibleRotations:
    """Find rotations and scales of stated positions (N, 2) that match neighbours.

    The nearest of the `pairs` are used together. `most_px`: largest error of the
    difference of two stated positions, if known.
    """
    rows, columns = (round(_WIDE * side) for side in frames.frame_shape)
    pairs = [pair for pair in pairs if (nominal[pair[0]] != nominal[pair[1]]).any()]
    if not pairs:
        return PossibleRotations()
    steps = np.array([nominal[second] - nominal[first] for first, second in pairs])
    far = np.hypot(*steps.T)
    usual = np.median(np.sort(far)[: len(far) // 2 + 1])
    nearest = np.flatnonzero(far < _ALIKE * usual)
    length = float(np.median(far[nearest]))
    choices, lines = [], 0
    sample = nearest[choose_evenly_spaced_indices(len(nearest), _NEIGHBOURS)].tolist()
    whole_shifts = [compute_rounded_shift(nominal, pairs[place]) for place in sample]
    threshold, _ = layout.measure_chance_threshold(
        frames, whole_shifts, (rows, columns), _MIN_SCORE
    )
    for place, shift in zip(sample, whole_shifts, strict=True):
        pair = pairs[place]
        item = search_shifts(frames, pair, shift, (rows, columns), threshold / 2)
        if item.best_score <= threshold:
            continue
        lines += bool(item.along)
        order = np.argsort(-item.ncc, kind="stable")
        order = order[layout.find_rival_candidates(item, threshold)[order]][:_RIVALS]
        choice = layout.weigh_shifts(frames, pair, item.shifts[order], item.weight[0])
        turns_seen = length * solution.convert_to_complex(choice.shifts)
        turns_seen = turns_seen / solution.convert_to_complex(steps[place])
        seen = np.stack([turns_seen.imag, turns_seen.real], 1)
        choices.append(replace(choice, shifts=seen))
    if lines > layout.LINES * len(sample):
        return PossibleRotations()  # along lines any shift fits
    certain = [choice.shifts[0] for choice in choices if choice.is_certain]
    period = float(np.median([*map(_measure_rival_distance, choices)] or [np.inf]))
    if choices and not certain:
        steps_found, doubt = _find_likely_steps(choices), 0.0
    else:
        common_step = _compute_average_step(certain, length) if certain else None
        steps_found, doubt = [] if common_step is None else [common_step], np.inf
        if len(certain) > 1:
            scatter = np.hypot(*np.std(certain, axis=0, ddof=1)) / np.sqrt(len(certain))
            doubt = float(scatter * stdtrit(len(certain) - 1, 1 - _BY_CHANCE / 2))
    turns = [
        complex(solution.convert_to_complex(turn)) / length for turn in steps_found
    ]
    turns.sort(key=lambda turn: abs(turn - 1))
    most = np.inf if most_px is None else most_px
    turns = [turn for turn in turns if abs(turn - 1) * length <= most]
    return PossibleRotations(tuple(turns), doubt / length, length, period)


def _measure_rival_distance(choice: layout.ShiftChoice) -> float:
    """Return the distance from a pair's best shift to the nearest equally good one."""
    rivals = choice.shifts[choice.doubt < layout.CERTAIN][1:] - choice.shifts[0]
    return float(np.hypot(*rivals.T).min(initial=np.inf))


def _compute_average_step(
    certain: Sequence[FloatArray], side: float
) -> FloatArray | None:
    """Average the step (2,) if most pairs agree within a tenth of a side; else None."""
    every = np.stack(certain)
    close = np.abs(every - np.median(every, axis=0)).max(axis=1) <= 0.1 * side
    if close.sum() * 2 <= len(certain):
        return None
    return np.asarray(np.mean(every[close], axis=0))


def _measure_grid_steps(frames: CorrectedFrames) -> FloatArray:
    """Measure the row and column steps of a grid from neighbouring frames."""
    cells = frames.acquisition.grid_cells()
    grid = frames.acquisition.grid or (1, len(cells))
    place = {(int(r), int(c)): index for index, (r, c) in enumerate(cells)}
    steps: list[FloatArray | None] = []
    for axis, (y, x) in enumerate(((1, 0), (0, 1))):
        pairs = [
            (index, place[r + y, c + x])
            for (r, c), index in place.items()
            if (r + y, c + x) in place
        ]
        pairs = pairs[:: max(1, len(pairs) // _TRIALS)]  # distributed over the grid
        steps.append(_find_common_step(frames, pairs, axis) if pairs else None)
    rows, columns = frames.frame_shape
    lacking = [step is None and grid[axis] > 1 for axis, step in enumerate(steps)]
    if any(lacking):
        what = "rows" if lacking[0] else "columns"
        msg = (
            f"Neighbouring {what} of a {grid[0]}x{grid[1]} grid have no common detail "
            "at any shift: check the grid and order, or set the overlap."
        )
        others = discovery.find_likely_grids(
            frames.acquisition, discovery.match_frames(frames)
        )
        raise discovery.UnplacedFramesError(msg, others, code="no-overlap")
    down = np.array([rows, 0.0]) if steps[0] is None else steps[0]
    along = np.array([0.0, columns]) if steps[1] is None else steps[1]
    return np.stack([down, along])


def _find_common_step(
    frames: CorrectedFrames, pairs: Sequence[IntPair], axis: int
) -> FloatArray | None:
    """Find the step that most pairs of neighbours agree on.

    Raises
    ------
    UnplacedError
        If the pairs fit equally well at several steps.
    """
    side = np.array(frames.frame_shape)
    middle, reach = np.zeros(2), discovery.ASIDE * side
    middle[axis] = (discovery.MIN_STEP + discovery.MAX_STEP) / 2 * side[axis]
    reach[axis] = (discovery.MAX_STEP - discovery.MIN_STEP) / 2 * side[axis]
    nominal = (int(middle[0]), int(middle[1]))
    around = (int(reach[0]), int(reach[1]))
    where = frames, [nominal], around
    threshold, _ = layout.measure_chance_threshold(*where, _MIN_SCORE)
    choices, lines = [], 0
    for pair in pairs:
        item = search_shifts(frames, pair, nominal, around, threshold / 2)
        if item.best_score > threshold:
            order = np.argsort(-item.ncc, kind="stable")
            order = order[layout.find_rival_candidates(item, threshold)[order]]
            shifts = item.shifts[order[:_RIVALS]]
            choices.append(layout.weigh_shifts(frames, pair, shifts, item.weight[0]))
        else:  # lines across an overlap are too few to stand out from chance
            item = search_shifts(frames, pair, nominal, around)
        lines += bool(item.along)
    if lines > layout.LINES * len(pairs):
        msg = f"{layout.ALONG_LINES}pass the positions of the frames."
        raise discovery.UnplacedFramesError(msg, (), code="lines-only")
    if not choices:
        return None
    steps = _find_likely_steps(choices)
    if len(steps) > 1:
        what = "columns" if axis else "rows"
        msg = (
            f"The sample is periodic, and neighbouring {what} fit equally well at "
            f"{len(steps)} distances: set the overlap, or pass positions."
        )
        raise discovery.UnplacedFramesError(msg, (), code="periodic")
    certain = [c.shifts[0] for c in choices if c.is_certain] or steps
    return _compute_average_step(certain, side.max())


def _find_likely_steps(choices: Sequence[layout.ShiftChoice]) -> list[FloatArray]:
    """Find the steps that fit all pairs, only one if any pair is certain."""
    certain = [choice.shifts[0] for choice in choices if choice.is_certain]
    if certain:
        return certain[:1]
    apart = [np.abs(c.shifts[1:] - c.shifts[0]).max(axis=1).min() for c in choices]
    same = float(np.median(apart)) / 2  # half a period
    offered = np.concatenate([choice.shifts for choice in choices])
    proposals = layout.merge_close_proposals(offered, same)
    doubt = np.zeros(len(proposals))
    for choice in choices:
        for place, proposal in enumerate(proposals):
            near = np.abs(choice.shifts - proposal).max(axis=1) < same
            own = choice.doubt[near].min() if near.any() else choice.doubt.max()
            doubt[place] += min(float(own), layout.MAX_DOUBT) ** 2
    return [*proposals[doubt < doubt.min() + layout.CERTAIN**2]]
