"""Expected frame positions: stated, from a grid, or from the images alone.

Also the map of the stage, from these to the solved positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from napari_semsr.core import BoolArray, FloatArray, IntPair
from napari_semsr.stitching import discovery, frames as prepared, layout, pairwise
from napari_semsr.stitching.frames import CorrectedFrames


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
        # chosen: above the 400 that a pair needs for a coefficient
        if rows * columns >= 600:
            pairs.append((first, second))
    return pairs


_MIN_SCORE = 4.0  # standard deviations; chosen as in the options


def find_nominal_positions(
    frames: CorrectedFrames,
) -> tuple[FloatArray, bool, Sequence[layout.Overlap]]:
    """Return expected positions (N, 2), whether these are stated, and all matches."""
    acquisition = frames.acquisition
    positions = acquisition.nominal_corners()
    if positions is not None:
        return positions, True, ()
    if acquisition.grid is not None:
        cells = acquisition.grid_cells()
        steps = _measure_grid_steps(frames, cells, acquisition.grid)
        return cells @ steps, False, ()
    overlaps = discovery.match_frames(frames)
    noise = prepared.compute_band_noise(prepared.estimate_noise(frames))
    return discovery.discover_positions(frames, overlaps, noise), False, overlaps


_MAX_SCALE = 1.5  # or its inverse; chosen: a factor of two is binning or another unit


def find_alternative_axes(
    frames: CorrectedFrames, nominal: FloatArray
) -> FloatArray | None:
    """Find a linear map of stated positions that fits the images clearly better.

    `nominal` (N, 2). Returns the map, (2, 2), from stated to camera px, ``(y, x)``;
    None if there is none.
    """
    # chosen: twice the usual four standard deviations, as all pairs are searched
    overlaps = [one for one in discovery.match_frames(frames) if one.weight > 8.0]
    if not overlaps:
        return None
    shift = np.array([one.shift for one in overlaps]).reshape(-1, 2)
    first, second = ([getattr(j, end) for j in overlaps] for end in ("first", "second"))
    apart = nominal[second] - nominal[first]
    shape = np.array(frames.frame_shape)

    def find_fitting_pairs(matrix: FloatArray) -> BoolArray:
        away = apart @ matrix.T
        near = np.hypot(*(away - shift).T) < MAX_JITTER * shape.min()
        return np.asarray(near & (np.abs(away) < shape - 4).all(axis=1))

    seeds: list[FloatArray] = [np.eye(2)]  # and maps from one stated step to its shift
    # chosen: each match is compared with all others
    for place in prepared.choose_evenly_spaced_indices(len(apart), 200):
        step = complex(convert_to_complex(apart[place]))
        step_seen = complex(convert_to_complex(shift[place]))
        if 1 / _MAX_SCALE < abs(step_seen) / max(abs(step), 1e-9) < _MAX_SCALE:
            seeds.append(convert_to_matrix(step_seen / step))
            # the same with y mirrored first
            mirror_matrix = convert_to_matrix(step_seen / step.conjugate())
            seeds.append(mirror_matrix @ np.diag([-1.0, 1.0]))
    fits = np.array([find_fitting_pairs(matrix).sum() for matrix in seeds])
    # chosen: other axes explain at most two thirds of the matches of two rows, whose
    # frames fit along the rows in either order
    if fits[0] >= 0.75 * fits.max():
        return None
    names = [*AXES]
    rank = [names.index(find_nearest_axes(matrix)) for matrix in seeds]
    # chosen: a single row fits equally well mirrored or not, except for chance
    equal = np.flatnonzero(fits >= 0.9 * fits.max()).tolist()
    best = seeds[min(equal, key=lambda k: (rank[k], -fits[k]))]
    named_axes = np.array(AXES[find_nearest_axes(best)], dtype=float)
    # chosen: the set of fitting matches has converged before
    for _ in range(4):
        inside = find_fitting_pairs(best)
        have, want = apart[inside] @ named_axes.T, shift[inside]
        # in both directions, so that steps have zero mean
        both = [np.concatenate([steps, -steps]) for steps in (have, want)]
        axes_fit = fit_stage_axes(both[0], both[1], int(shape.min()))
        if axes_fit is None:
            break
        best = named_axes
        if axes_fit.has_deviation:
            best = axes_fit.compose(named_axes).matrix
    return best


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
    rows, columns = (round(pairwise.LAST_REACH * side) for side in frames.frame_shape)
    pairs = [pair for pair in pairs if (nominal[pair[0]] != nominal[pair[1]]).any()]
    if not pairs:
        return PossibleRotations()
    steps = np.array([nominal[second] - nominal[first] for first, second in pairs])
    far = np.hypot(*steps.T)
    usual = np.median(np.sort(far)[: len(far) // 2 + 1])
    # chosen: a diagonal is 1.4 times the usual distance of neighbours
    nearest = np.flatnonzero(far < 1.2 * usual)
    length = float(np.median(far[nearest]))
    choices, lines = [], 0
    # chosen: each pair is weighed at two dozen shifts
    sample = nearest[prepared.choose_evenly_spaced_indices(len(nearest), 8)].tolist()
    whole_shifts = [
        pairwise.compute_rounded_shift(nominal, pairs[place]) for place in sample
    ]
    chance, reach = layout.measure_chance_level(frames, whole_shifts), (rows, columns)
    threshold, _ = chance.compute_threshold(layout.count_shifts(reach), _MIN_SCORE)
    for place, shift in zip(sample, whole_shifts, strict=True):
        pair = pairs[place]
        item = pairwise.search_shifts(frames, pair, shift, reach, threshold / 2)
        if item.best_score <= threshold:
            continue
        lines += bool(item.along)
        choice = _weigh_rivals(frames, item, threshold)
        turns_seen = length * convert_to_complex(choice.shifts)
        turns_seen /= convert_to_complex(steps[place])
        seen = np.stack([turns_seen.imag, turns_seen.real], 1)
        choices.append(replace(choice, shifts=seen))
    if lines > layout.LINES * len(sample):
        return PossibleRotations()  # along lines any shift fits
    certain = [choice.shifts[0] for choice in choices if choice.is_certain]
    if choices and not certain:
        steps_found, doubt = _find_likely_steps(choices), 0.0
    else:
        common_step = _compute_average_step(certain, length) if certain else None
        steps_found, doubt = [] if common_step is None else [common_step], np.inf
        if len(certain) > 1:
            scatter = np.hypot(*np.std(certain, axis=0, ddof=1)) / np.sqrt(len(certain))
            doubt = float(scatter * stdtrit(len(certain) - 1, 1 - layout.BY_CHANCE / 2))
    turns = [complex(convert_to_complex(turn)) / length for turn in steps_found]
    turns.sort(key=lambda turn: abs(turn - 1))
    if most_px is not None:
        turns = [turn for turn in turns if abs(turn - 1) * length <= most_px]
    period = float(np.median([choice.rival_distance for choice in choices] or [np.inf]))
    return PossibleRotations(tuple(turns), doubt / length, length, period)


def _weigh_rivals(
    frames: CorrectedFrames, item: pairwise.Candidates, threshold: float
) -> layout.ShiftChoice:
    """Compare the plausible shifts of a pair, of the highest coefficients."""
    order = np.argsort(-item.ncc, kind="stable")
    # chosen: time against missing the true one of more than two dozen
    order = order[layout.find_rival_candidates(item, threshold)[order]][:24]
    return layout.weigh_shifts(frames, item.pair, item.shifts[order], item.weight[0])


def _compute_average_step(
    certain: Sequence[FloatArray], side: float
) -> FloatArray | None:
    """Average the step (2,) if most pairs agree within a tenth of a side; else None."""
    every = np.stack(certain)
    close = np.abs(every - np.median(every, axis=0)).max(axis=1) <= 0.1 * side
    if close.sum() * 2 <= len(certain):
        return None
    return np.asarray(np.mean(every[close], axis=0))


def _measure_grid_steps(
    frames: CorrectedFrames, cells: NDArray[np.int64], grid: IntPair
) -> FloatArray:
    """Measure the row and column steps of a grid from neighbouring frames."""
    place = {(int(r), int(c)): index for index, (r, c) in enumerate(cells)}
    steps: list[FloatArray | None] = []
    for axis, (y, x) in enumerate(((1, 0), (0, 1))):
        pairs = [
            (index, place[r + y, c + x])
            for (r, c), index in place.items()
            if (r + y, c + x) in place
        ]
        # chosen: each pair is a search of that size
        pairs = pairs[:: max(1, len(pairs) // 16)]  # distributed over the grid
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
    chance = layout.measure_chance_level(frames, [nominal])
    threshold, _ = chance.compute_threshold(layout.count_shifts(around), _MIN_SCORE)
    choices, lines = [], 0
    for pair in pairs:
        item = pairwise.search_shifts(frames, pair, nominal, around, threshold / 2)
        if item.best_score > threshold:
            choices.append(_weigh_rivals(frames, item, threshold))
        else:  # lines across an overlap are too few to stand out from chance
            item = pairwise.search_shifts(frames, pair, nominal, around)
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


# The stage: map from nominal to solved positions.


@dataclass(frozen=True, slots=True)
class StageFit:
    """Affine map from nominal to solved positions."""

    matrix: FloatArray  # (2, 2) solved px per nominal px, ``(y, x)``
    offset: FloatArray  # (2,) In px
    scatter_px: float  # RMS residual: the error of the stage

    def predict(self, nominal: FloatArray) -> FloatArray:
        """Predict positions (N, 2) from `nominal` positions (N, 2)."""
        return nominal @ self.matrix.T + self.offset


@dataclass(frozen=True, slots=True)
class StageAxes:
    """Linear map from stated positions to camera pixels, in terms of the stage axes.

    With ``x`` to the right and ``y`` down, a step of the stage along its ``x`` axis
    appears in the images at an angle `angle_deg` from their ``x`` axis towards their
    ``y`` axis, that is clockwise on the screen. The matrix for ``(x, y)`` is ``scale *
    rotation(angle_deg) @ [[1, shear], [0, 1]]``, as in
    `skimage.transform.AffineTransform`, if both axes have the same scale and neither is
    mirrored.
    """

    matrix: FloatArray  # (2, 2) camera px per stated px, ``(y, x)``
    # (2,) bound of the error of each column by the stage's scatter, exceeded with a
    # probability of 0.001; infinite without residuals
    doubt: FloatArray
    is_whole: bool  # whether both axes were measured independently
    is_sized: bool = True  # whether a pixel size was stated, or positions in px

    @property
    def angle_deg(self) -> float:
        """Direction of the stage's x axis in the images, in degrees, (-180, 180]."""
        y, x = self.matrix[:, 1]
        return float(np.rad2deg(np.arctan2(y, x)))

    @property
    def scale(self) -> float | None:
        """Camera pixels per stated pixel, as the geometric mean of both directions.

        None if no pixel size converts stated positions to px.
        """
        size = float(np.sqrt(abs(np.linalg.det(self.matrix))))
        return size if self.is_sized else None

    @property
    def shear(self) -> float | None:
        """Tangent of the angle by which the axes deviate from a right angle.

        Positive if the stage's ``y`` axis is tilted towards its ``x`` axis; None if the
        frames are in a line or too few.
        """
        y_axis, x_axis = self.matrix.T
        across = abs(float(np.linalg.det(self.matrix)))
        return float(y_axis @ x_axis) / max(across, 1e-30) if self.is_whole else None

    @property
    def has_deviation(self) -> bool:
        """Whether the axes differ significantly from those of the images."""
        doubt = np.minimum(self.doubt, MAX_JITTER)
        deviation = np.hypot(*(self.matrix - np.eye(2)))  # of steps along each axis
        return bool((deviation > np.maximum(NOTICEABLE, doubt)).any())

    @property
    def description(self) -> str:
        """Description of the map, such as ``a rotation of 8.0 degrees``."""
        name = find_nearest_axes(self.matrix)
        rest = replace(self, matrix=self.matrix @ np.linalg.inv(AXES[name]))
        parts = [] if name == "as stated" else [name]
        least = max([NOTICEABLE, *self.doubt[np.isfinite(self.doubt)]])
        if abs(np.deg2rad(rest.angle_deg)) > least:
            parts.append(f"a rotation of {rest.angle_deg:.1f} degrees")
        if rest.scale is not None and abs(rest.scale - 1) > least:
            parts.append(f"a scale of {rest.scale:.3f}")
        if rest.shear is not None and abs(rest.shear) > least:
            parts.append(f"a shear of {rest.shear:.3f}")
        *first, last = parts or ["unequal scales along both axes"]
        return f"{', '.join(first)} and {last}" if first else last

    def compose(self, axes: FloatArray) -> "StageAxes":
        """Return the composition with another map (2, 2) that is applied first."""
        each = np.multiply(axes.T, self.doubt, where=axes.T != 0, out=np.zeros((2, 2)))
        return replace(self, matrix=self.matrix @ axes, doubt=np.hypot(*each.T))

    def to_json(self) -> dict[str, float | None]:
        """Return the values keyed by their names in the record."""
        names = ("angle_deg", "scale", "shear")
        return {name: getattr(self, name) for name in names}


# Share of a distance: 1.1 degrees, or 2 % as for a pixel size; chosen: at a distance of
# two frames, a dozen px for frames of 300 px.
NOTICEABLE = 0.02
"""Largest relative difference at which axes count as equal."""
MAX_JITTER = 0.2
"""Largest stage error as a fraction of a frame, or of the distance between two; chosen.
"""
# Each axis of the images by ``(y, x)`` of the stage; the simplest first, as a single
# row cannot distinguish all of them.
AXES = {
    "as stated": ((1, 0), (0, 1)),
    "x mirrored": ((1, 0), (0, -1)),
    "y mirrored": ((-1, 0), (0, 1)),
    "x and y mirrored": ((-1, 0), (0, -1)),
    "x and y swapped": ((0, 1), (1, 0)),
    "x and y swapped, then x mirrored": ((0, 1), (-1, 0)),
    "x and y swapped, then y mirrored": ((0, -1), (1, 0)),
    "x and y swapped, then both mirrored": ((0, -1), (-1, 0)),
}
"""Axes related by mirroring and quarter turns, each described by its change of the
stage's axes.
"""


def find_nearest_axes(matrix: FloatArray) -> str:
    """Return the key in `AXES` nearest to a map, (2, 2)."""
    return max(AXES, key=lambda name: float((matrix * AXES[name]).sum()))


ENOUGH = 5
"""Minimum number of frames for an affine map; chosen: 10 equations for its 6
parameters.
"""


def fit_stage_map(
    nominal: FloatArray,
    solved_positions: FloatArray,
    model: Literal["affine", "shift"] = "affine",
) -> StageFit | None:
    """Fit the map from nominal to solved positions, both (N, 2)."""
    has_both = np.isfinite(np.hstack([nominal, solved_positions])).all(axis=1)
    if not has_both.any():
        return None
    have, want = nominal[has_both], solved_positions[has_both]
    spread = np.linalg.svd(have - have.mean(axis=0), compute_uv=False)
    affine = model == "affine" and len(have) >= ENOUGH and spread[-1] > 1e-3 * spread[0]
    matrix: FloatArray = np.eye(2)
    weight = np.ones(len(have))
    offset = np.zeros(2)
    for _ in range(8):
        centre = np.average(have, axis=0, weights=weight)
        goal = np.average(want, axis=0, weights=weight)
        if affine:
            root = np.sqrt(weight)[:, None]
            near, far = (have - centre) * root, (want - goal) * root
            matrix = np.asarray(np.linalg.lstsq(near, far)[0].T, dtype=float)
        offset = goal - matrix @ centre
        left = np.hypot(*(want - have @ matrix.T - offset).T)
        scale = max(2 * float(np.median(left)), 1e-6)
        weight = 1 / (1 + (left / scale) ** 2)
    return StageFit(matrix, offset, float(np.sqrt(np.mean(left**2))))


_OUTSIDE = 0.05  # weight; chosen: at four times the scale a position is wrong


def fit_stage_axes(
    stated_positions: FloatArray, solved_positions: FloatArray, side: int
) -> StageAxes | None:
    """Fit the linear part of the map from stated to solved positions.

    A minority of wrong positions is ignored. `stated_positions`, `solved_positions` (N,
    2) in px, NaN where unknown; `side` of a frame in px. Returns None for fewer than
    two positions, and if most do not fit such a map. Frames in a line, or fewer than
    four, determine only one angle and one scale.

    The start is the rotation and scale of the pair of frames with the least median
    residual of all positions (Rousseeuw, J. Am. Stat. Assoc. 79, 871 (1984)).
    """
    has_both = np.isfinite(np.hstack([stated_positions, solved_positions])).all(axis=1)
    have, want = stated_positions[has_both], solved_positions[has_both]
    count = len(have)
    if count < 2 or np.ptp(have, axis=0).max() <= 0:
        return None
    left = _compute_initial_residuals(have, want)
    # chosen: weights have converged before
    for _ in range(12):
        # px; chosen: the accuracy of frame positions
        scale = max(2 * float(np.median(left)), 0.1)
        weight = 1 / (1 + (left / scale) ** 2)
        centre = np.average(have, axis=0, weights=weight)
        goal = np.average(want, axis=0, weights=weight)
        root = np.sqrt(weight)[:, None]
        near, far = (have - centre) * root, (want - goal) * root
        across = np.linalg.svd(near, compute_uv=False)[-1] / np.sqrt(weight.sum())
        fitting = int((weight > _OUTSIDE).sum())
        # chosen: one frame more than an affine map needs, to contradict it; two rows
        # are 0.4 of a frame from a line, and the jitter of a single row is 0.02
        is_whole = bool(fitting >= 4 and across > 0.1 * side)
        if is_whole:
            matrix = np.asarray(np.linalg.lstsq(near, far)[0].T)
            spread = np.diag(np.linalg.inv(near.T @ near))
        else:
            size = max(float((near**2).sum()), 1e-30)
            turn = convert_to_complex(near).conj() @ convert_to_complex(far)
            matrix = convert_to_matrix(complex(turn) / size)
            spread = np.full(2, 1 / size)
        left = np.hypot(*(want - goal - (have - centre) @ matrix.T).T)
    # chosen: with more it is not a map of these positions, and stage errors are smaller
    if np.median(left) > 0.1 * side:
        return None
    free = 2 * (fitting - 1) - (4 if is_whole else 2)
    doubt = np.full(2, np.inf)
    if free > 0:
        inside = weight > _OUTSIDE
        scatter = np.sqrt(float((left[inside] ** 2).sum()) / free)
        # union bound of four components; a column is at most root two times its larger
        # one
        sure = np.sqrt(2) * stdtrit(free, 1 - layout.BY_CHANCE / 8)
        doubt = sure * scatter * np.sqrt(spread)
    return StageAxes(matrix, doubt, is_whole)


def convert_to_complex(steps: FloatArray) -> NDArray[np.complex128]:
    """Convert steps ``(y, x)``, (..., 2), to complex numbers x + iy."""
    return np.asarray(steps[..., 1] + 1j * steps[..., 0])


def convert_to_matrix(turn: complex) -> FloatArray:
    """Return the (2, 2) matrix on ``(y, x)`` that multiplies x + iy by `turn`."""
    return np.array([[turn.real, turn.imag], [-turn.imag, turn.real]])


def _compute_initial_residuals(have: FloatArray, want: FloatArray) -> FloatArray:
    """Return (N,) residuals for the best rotation and scale from a pair of frames."""
    stated_places, solved_places = convert_to_complex(have), convert_to_complex(want)
    first, second = np.triu_indices(len(have), 1)
    sound = np.abs(stated_places[second] - stated_places[first]) > 0
    first, second = first[sound], second[sound]
    # pairs of frames; chosen: a quarter of them are right even at half
    some = prepared.choose_evenly_spaced_indices(len(first), 300)
    first, second = first[some], second[some]
    steps_seen = (solved_places[second] - solved_places[first])[:, None]
    from_first = solved_places - solved_places[first, None]
    steps = stated_places - stated_places[first, None]
    best = np.full(len(have), np.inf)
    for mirror in (False, True):
        mapped = steps.conj() if mirror else steps
        turns = steps_seen / mapped[np.arange(len(second)), second][:, None]
        left = np.abs(from_first - turns * mapped)
        left = left[np.argmin(np.median(left, axis=1))]
        if np.median(left) < np.median(best):
            best = left
    return best
