"""Whole-pixel layout: one position per frame from many pairwise shifts.

Shifts are first weighted robustly, which suppresses wrong ones; those that then
disagree with the others by more than three pixels are dropped, and a dropped pair may
be used again with another of its candidate shifts that agrees.

On a lattice a pair of frames correlates equally well a whole period away. Only the
non-repeating part of the sample differs; it shows in the residual variance after each
candidate has been refined. A candidate stays possible while its variance is within five
standard deviations of the least one. Pairs with one possible shift are certain and
connect frames into groups; a group is connected to the others by all pairs between them
together. What remains ambiguous is decided by the stage model, with a warning.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import splu
from scipy.special import ndtri

from napari_semsr import core
from napari_semsr.core import BoolArray, Float32Array, FloatArray, IntPair, RealArray
from napari_semsr.stitching import pairwise
from napari_semsr.stitching.frames import CorrectedFrames

TOLERANCE_PX = 3.0  # chosen in trials on eight simulated scans
_WEAK = 1e-6  # share of the largest weight; chosen: holds loose frames, moves no other
STRONG = 50.0  # score; chosen: above it, certainty no longer grows
BY_CHANCE = 1e-3
"""Probability of a wrong decision by chance that is accepted for pairs, and chosen
likewise wherever positions are decided.
"""


@dataclass(frozen=True, slots=True)
class Overlap(pairwise.FramePair):
    """Overlap of two frames with its accepted shift."""

    shift: tuple[float, float]  # position of the second minus that of the first
    weight: float  # weight in the layout


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions computed from consistent pairwise shifts."""

    # (N, 2) top-left corners; NaN for frames outside the largest connected group
    positions: FloatArray
    overlaps: tuple[Overlap, ...] = ()  # shifts that were kept
    dropped_overlaps: tuple[Overlap, ...] = ()  # shifts that disagreed


def label_components(
    count: int, overlaps: Sequence[pairwise.FramePair]
) -> NDArray[np.int64]:
    """Return (N,) group labels of connected frames; the largest group is 0."""
    first, second = np.array([one.pair for one in overlaps], int).reshape(-1, 2).T
    graph = sparse.coo_array((np.ones(len(overlaps)), (first, second)), (count, count))
    _, labels = csgraph.connected_components(graph, directed=False)
    sizes = np.bincount(labels)
    rank = np.empty_like(sizes)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return np.asarray(rank[labels].astype(np.int64))


def fit_positions(
    count: int,
    overlaps: Sequence[Overlap],
    weights: FloatArray,
    prior: FloatArray | None = None,
) -> FloatArray:
    """Fit positions (N, 2) to all shifts; unconnected frames keep their `prior`."""
    first, second = np.array([one.pair for one in overlaps], int).reshape(-1, 2).T
    shift = np.array([one.shift for one in overlaps], dtype=float).reshape(-1, 2)
    prior_positions = np.zeros((count, 2)) if prior is None else np.nan_to_num(prior)
    scale = float(weights.max(initial=0.0)) or 1.0
    diagonal = np.full(count, _WEAK * scale)
    np.add.at(diagonal, first, weights)
    np.add.at(diagonal, second, weights)
    indices = np.arange(count)
    rows = np.concatenate([indices, first, second])
    columns = np.concatenate([indices, second, first])
    values = np.concatenate([diagonal, -weights, -weights])
    matrix = sparse.coo_array((values, (rows, columns)), (count, count))
    right = _WEAK * scale * prior_positions
    np.add.at(right, second, weights[:, None] * shift)
    np.add.at(right, first, -weights[:, None] * shift)
    return np.asarray(splu(matrix.tocsc()).solve(right))


def _create_overlap(
    item: pairwise.FramePair, shift: RealArray, weight: float
) -> Overlap:
    """Create an overlap from an accepted shift of a pair."""
    y, x = (float(value) for value in shift)
    return Overlap(*item.pair, (y, x), float(min(weight, STRONG)))


# Score that unrelated frames reach by chance, measured on the scan itself, and whether
# they match at many shifts.

_BY_CHANCE = BY_CHANCE / 3  # of unrelated pairs, in each of three searches
_WINDOWS = 48  # pairs; chosen: their highest peaks show how fast peaks become rare
# Prior number of peaks of unrelated normal frames; chosen: a quarter of the measured
# ones, and as many if the tail is steeper than normal.
_PRIOR = 12


@dataclass(frozen=True, slots=True)
class ChanceLevel:
    """Distribution of matching scores between unrelated frames of one scan.

    The evidence of a peak, half of its squared score, exceeds `least` at `_WINDOWS`
    positions among `shifts`, and becomes rarer beyond it by an exponential tail (of a
    normal deviate with a slope of 1).
    """

    expected_shifts: tuple[IntPair, ...]  # shifts over whose overlap it was measured
    least: float
    slope: float  # slope of the tail; 0 for hardly any peak
    shifts: float
    usual: float  # median of the windows' best scores
    spread: float  # robust standard deviation of these
    repeats: bool  # whether most windows match at many shifts
    grain: float  # pixels that one detail covers

    def compute_threshold(
        self, shift_count: float, significance: float
    ) -> tuple[float, bool]:
        """Compute the score threshold for shifts and whether frames are periodic.

        A share `_BY_CHANCE` of unrelated pairs exceeds it somewhere among `shift_count`
        shifts. As the slope is itself estimated, from n peaks, a further peak exceeds
        ``least + x / slope`` with a probability of ``(1 + x / n) ** -n`` (a Lomax
        distribution) instead of ``exp(-x)``.
        """
        normal = _compute_gaussian_field_height(shift_count, self.grain, _BY_CHANCE)
        repeats = self.repeats or self.usual > normal
        if repeats or not self.slope:
            return max(significance, normal), repeats
        usual = self.usual + significance * self.spread
        return max(usual, self.compute_chance_score(shift_count, _BY_CHANCE)), False

    def compute_chance_score(self, shift_count: float, rate: float) -> float:
        """Compute the score that unrelated frames exceed at a given rate."""
        if not self.slope:
            return _compute_gaussian_field_height(shift_count, self.grain, rate)
        # ratio of the expected to the permitted number of peaks above `least`
        excess = max(_WINDOWS * shift_count / self.shifts / rate, 1.0)
        peaks = _WINDOWS + _PRIOR
        score = self.least + peaks * (excess ** (1 / peaks) - 1) / self.slope
        return float(np.sqrt(2 * score))


def measure_chance_level(
    frames: CorrectedFrames, typical_shifts: Sequence[IntPair]
) -> ChanceLevel:
    """Measure the distribution of chance scores between unrelated frames of a scan.

    Frames are compared with others rotated by 180 degrees, over the overlap at
    `typical_shifts`: these have the same detail and nothing in common.
    """
    rng = np.random.default_rng(0)
    count, side = len(frames.acquisition), np.array(frames.frame_shape)
    reach = pairwise.compute_reach(frames.frame_shape)
    scores_found = []
    for _ in range(_WINDOWS):
        first, second = rng.choice(count, 2, replace=False)
        typical_shift = typical_shifts[int(rng.integers(len(typical_shifts)))]
        share = 1 - np.abs(typical_shift) / side
        # chosen: smaller overlaps are not compared
        area = max(float(np.prod(share.clip(0))), 0.05)
        rows = area ** rng.random()
        apart = side * (1 - np.array([rows, area / rows])) * rng.choice([-1, 1], 2)
        y, x = np.rint(apart).astype(int)
        pair = int(first), ~int(second)
        scores_found.append(
            pairwise.search_shifts(frames, pair, (int(y), int(x)), reach)
        )
    repeating = [has_repetitive_peaks(i) or bool(i.along) for i in scores_found]
    best = np.array([item.best_score for item in scores_found])
    usual = float(np.median(best))
    scores = np.concatenate([item.score for item in scores_found])
    evidence = np.sort(scores.clip(0) ** 2 / 2)[::-1]
    high, least = evidence[:_WINDOWS], evidence[_WINDOWS : _WINDOWS + 1]
    slope = 0.0
    if len(least):
        total = float((high - least).sum())
        # few details have a steeper tail than normal, up to their first coincidence
        prior = _WINDOWS if total < len(high) else _PRIOR
        slope = (len(high) + prior) / (total + prior)
    return ChanceLevel(
        expected_shifts=tuple(typical_shifts),
        least=float(least.sum()),
        slope=slope,
        shifts=float(_WINDOWS * count_shifts(reach)),
        usual=usual,
        spread=1.4826 * float(np.median(np.abs(best - usual))),
        repeats=bool(np.mean(repeating) > 0.5),
        grain=frames.grain,
    )


def count_shifts(reach: IntPair) -> float:
    """Return the number of shifts in a search range."""
    return float((2 * reach[0] + 1) * (2 * reach[1] + 1))


def _compute_gaussian_field_height(shifts: float, grain: float, rate: float) -> float:
    """Compute the peak height that normal fields exceed at `rate` among `shifts`.

    From the mean number of peaks (Adler, The Geometry of Random Fields, 1981).
    """
    height = 5.0  # start of the iterations
    for _ in range(10):
        independent = max(1.0, shifts * min(1.0, height**2 / (2 * grain)))
        height = -float(ndtri(rate / independent))
    return height


def has_repetitive_peaks(item: pairwise.Candidates) -> bool:
    """Return whether a pair has several peaks nearly as high as the best."""
    # chosen: with less, the third peak occurs by chance
    return (
        len(item.score) > 3  # chosen: a lattice has more
        and float(item.ncc[0]) > 0.25
        and float(item.score[2]) > 0.7 * item.best_score
    )


# Share of overlaps that fit all along a line, above which none is trusted; chosen:
# an edge across an overlap or two of a real scan is left to the other overlaps.
LINES = 0.3
MOSTLY = 0.3
"""Fraction of ambiguous overlaps above which a sample is treated as periodic (chosen).
"""
ALONG_LINES = (
    "The overlaps contain lines of one direction, along which they fit anywhere: "
)

# Which of several equal peaks is right, if any: by the residual variance of each.

# Share of the best coefficient, and of the threshold: a true peak of a small overlap is
# lower than a false one of a large overlap; chosen: time against missing the true peak.
_RIVAL_NCC, _RIVAL_SCORE = 0.7, 0.5
# Standard deviations. Trials with weak disorder: the first peak was wrong in 9 of 24
# pairs, the smallest residual in 1, and with this bound none without a warning.
CERTAIN = 5.0
"""Standard deviations above the smallest residual at which a shift is ruled out."""
_BLOCK = 12  # px; chosen: much larger than the grain, yet several fit a small overlap
_MARGIN = 5  # px = ceil(3.6 * 1) + 1, the radius of that Gaussian's kernel
_SAME = 2.5  # px; chosen: candidates are more than 3 px apart
MAX_DOUBT = 6.0
"""Chosen above `CERTAIN`, so that a single pair can rule out a shift."""


@dataclass(frozen=True, slots=True)
class ShiftChoice(pairwise.FramePair):
    """Candidate shifts of one pair and their residuals."""

    shifts: FloatArray  # (K, 2) refined candidates, the smallest residual first
    # (K,) excess of each residual over the smallest, in standard deviations
    doubt: FloatArray
    weight: float  # weight in the layout
    # residual variance of the best one, and its standard deviation
    least: tuple[float, float] = (0.0, 0.0)

    @property
    def is_certain(self) -> bool:
        """Whether the images allow only one shift."""
        return int((self.doubt < CERTAIN).sum()) == 1

    @property
    def rival_distance(self) -> float:
        """Distance from the best shift to the nearest equally good one; or infinity."""
        rivals = self.shifts[self.doubt < CERTAIN][1:] - self.shifts[0]
        return float(np.hypot(*rivals.T).min(initial=np.inf))


def _measure_residual(
    frames: CorrectedFrames, pair: IntPair, shift: FloatArray
) -> tuple[FloatArray, float, float] | None:
    """Refine a shift of a pair; return shift, residual variance and its error."""
    shift = shift.astype(float)
    result = None
    # Gauss-Newton steps from a peak; chosen: time against precision
    for _ in range(3):
        y, x = np.round(shift).astype(int).tolist()
        boxes = pairwise.compute_overlap_boxes(frames.frame_shape, (y, x))
        if boxes is None or min(boxes[0].shape) < 2 * _MARGIN + 6:
            return result
        crops = [
            plane[box.slices]
            for index, box in zip(pair, boxes, strict=True)
            for plane in frames.correct(index)
        ]
        part_y, part_x = (shift - (y, x)).tolist()
        step, variance, deviation = _fit_shift(crops, (part_y, part_x))
        result = (shift, variance, deviation)
        if np.abs(step).max() > 3:  # px; chosen: farther away is another peak
            return result
        shift = shift + step
    return result


def _fit_shift(
    crops: Sequence[Float32Array], part: tuple[float, float]
) -> tuple[FloatArray, float, float]:
    """Fit shift, offset, gain and tilt; return shift step, variance and its error."""
    a, a_weight, b, b_weight = crops
    a, a_y, a_x = pairwise.resample_frame(a, (0.0, 0.0), 1.0)
    b, b_y, b_x = pairwise.resample_frame(b, part, 1.0)
    weight = a_weight * b_weight / np.maximum(a_weight + b_weight, 1e-9)
    edge = np.zeros(a.shape, bool)
    edge[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN] = True
    weight = np.where(edge, weight, 0)
    y, x = (np.linspace(-0.5, 0.5, n, dtype=np.float32) for n in a.shape)
    ones = np.ones(a.shape, np.float32)
    mean = (a + b) / 2
    mean = mean - np.average(mean, weights=weight + 1e-12)
    parts = ((a_y + b_y) / 2, (a_x + b_x) / 2, ones, mean, ones * y[:, None], ones * x)
    design = np.stack([part.ravel() for part in parts]).astype(float)
    weighted_design = design * weight.ravel()
    normal = weighted_design @ design.T
    normal += 1e-9 * np.diag(np.diag(normal)) + 1e-12 * np.eye(len(normal))
    difference = (b - a).astype(float)
    solution = np.linalg.solve(normal, weighted_design @ difference.ravel())
    left = difference - (solution @ design).reshape(a.shape)
    power = _sum_blocks(weight * left**2)
    count = _sum_blocks((weight > 0).astype(float))
    variance = float(power.sum() / max(count.sum(), 1))
    pixels = max(float(count.sum()), 1.0)
    scatter = float(np.sqrt(((power - variance * count) ** 2).sum())) / pixels
    # few blocks may agree by chance: noise alone has this scatter, over 2 pi pixels,
    # the integral of exp(-r^2 / 2), its squared correlation behind a Gaussian of 1 px
    by_noise = variance * np.sqrt(2 * 2 * np.pi / pixels)
    return solution[:2], variance, max(scatter, by_noise)


def _sum_blocks(plane: NDArray[np.float64]) -> FloatArray:
    """Sum a plane over blocks, including incomplete border blocks."""
    rows = np.add.reduceat(plane, np.arange(0, plane.shape[0], _BLOCK), axis=0)
    return np.add.reduceat(rows, np.arange(0, plane.shape[1], _BLOCK), axis=1)


def find_rival_candidates(item: pairwise.Candidates, threshold: float) -> BoolArray:
    """Return the (K,) mask of plausible candidate shifts of a pair, at least one."""
    alike = item.ncc > _RIVAL_NCC * item.ncc.max(initial=0.0)
    return np.asarray(alike & (item.score > _RIVAL_SCORE * threshold))


def weigh_shifts(
    frames: CorrectedFrames, pair: IntPair, shifts: NDArray[np.int64], weight: float
) -> ShiftChoice:
    """Compare candidate shifts (K, 2) of a pair, best first, by their residuals.

    Shifts whose overlap is too small for a residual count as possible.
    """
    several = shifts if len(shifts) > 1 else ()
    rows = [_measure_residual(frames, pair, shift) for shift in several]
    is_sound = [row is not None and np.isfinite(row[1]) for row in rows]
    sound = [row for row in rows if row is not None and np.isfinite(row[1])]
    if not sound:
        return ShiftChoice(*pair, shifts.astype(float), np.zeros(len(shifts)), weight)
    order = np.argsort([row[1] for row in sound])
    places = np.stack([sound[k][0] for k in order])
    variance = np.array([sound[k][1] for k in order])
    spread = np.array([sound[k][2] for k in order])
    doubt = (variance - variance[0]) / np.sqrt(spread**2 + spread[0] ** 2 + 1e-30)
    doubt[0] = 0.0
    # candidates refined to the same shift are one
    far = np.abs(places - places[0]).max(axis=1) > 1.0
    far[0] = True
    least = (float(variance[0]), float(spread[0]))
    unsound = shifts[~np.array(is_sound)]
    places = np.concatenate([places[far], unsound])
    doubt = np.concatenate([doubt[far], np.zeros(len(unsound))])
    return ShiftChoice(*pair, places, doubt, weight, least)


# All frames at once.


def compute_layout(
    frames: CorrectedFrames,
    candidates: Sequence[pairwise.Candidates],
    threshold: float,
    nominal: FloatArray,
    *,
    is_periodic: bool,
    is_stated: bool,
) -> core.Job[tuple[Layout, set[IntPair]]]:
    """Place frames by their pairwise shifts; also return ambiguous pairs.

    `nominal` (N, 2), `is_stated`: whether the scan states them, which then decides if
    the images do not; `is_periodic`: whether unrelated frames match too.
    """
    choices = []
    good = [item for item in candidates if item.best_score > threshold]
    lines = sum(bool(item.along) for item in good) > LINES * len(good)
    for pair_count, item in enumerate(good):
        # except on a lattice, peaks below the threshold are chance
        least = threshold if is_periodic else threshold / _RIVAL_SCORE
        # chosen: more candidates than the eight neighbours on a square lattice
        shifts = item.shifts[find_rival_candidates(item, least)][:14]
        if lines and item.along:
            shifts = np.concatenate([shifts, np.array(item.along)])
        choices.append(weigh_shifts(frames, item.pair, shifts, float(item.weight[0])))
        yield core.Progress(
            pair_count + 1, len(candidates), "Comparing possible shifts"
        )
    open_still = sum(not choice.is_certain for choice in choices)
    if is_periodic or open_still > (0 if is_stated else MOSTLY * len(choices)):
        usual = float(np.median([item.ncc[0] for item in good])) if good else 0.0
        # if other pairs fit much better, the lattice alone does not count
        sure_choices = [
            choice
            for item, choice in zip(good, choices, strict=True)
            if choice.is_certain or item.ncc[0] > _RIVAL_NCC * usual
        ]
        return compute_periodic_layout(
            frames, sure_choices, nominal, is_stated=is_stated
        )
    candidates_in_use = []
    for item, choice in zip(good, choices, strict=True):
        if not choice.is_certain:
            continue
        if len(choice.shifts) > 1:  # keep only the chosen candidate
            nearest = int(np.argmin(np.abs(item.shifts - choice.shifts[0]).max(axis=1)))
            shifts = np.rint(choice.shifts[:1]).astype(np.int64)
            which = slice(nearest, nearest + 1)
            values = (item.ncc[which], item.score[which], item.weight[which])
            item = pairwise.Candidates(*item.pair, shifts, *values)
        candidates_in_use.append(item)
    return solve_layout(len(nominal), candidates_in_use, threshold, nominal), set()


def _compute_residuals(
    overlaps: Sequence[Overlap], positions: FloatArray
) -> FloatArray:
    apart = np.array([positions[one.second] - positions[one.first] for one in overlaps])
    return np.asarray(np.hypot(*(apart - [one.shift for one in overlaps]).T))


def _fit_robust_positions(
    count: int, overlaps: Sequence[Overlap], prior: FloatArray
) -> FloatArray:
    """Fit positions by iterative reweighting with decreasing tolerance."""
    base = np.array([overlap.weight for overlap in overlaps])
    weights = base.copy()
    positions = fit_positions(count, overlaps, weights, prior)
    # the tolerance of 1 px is reached in the sixth round; as many again, chosen, let
    # the weights settle
    for step in range(12):
        doubt = max(1.0, 20.0 * 0.6**step)
        away = _compute_residuals(overlaps, positions)
        weights = base / (1 + (away / doubt) ** 2)
        positions = fit_positions(count, overlaps, weights, prior)
    return positions


def solve_layout(
    count: int,
    candidates: Sequence[pairwise.Candidates],
    threshold: float,
    prior: FloatArray,
) -> Layout:
    """Place frames using mutually consistent shifts; `prior` (N, 2)."""
    good = [item for item in candidates if item.best_score > threshold]
    overlaps = [_create_overlap(item, item.shifts[0], item.weight[0]) for item in good]
    contradicting: list[Overlap] = []
    if not overlaps:
        return Layout(np.full((count, 2), np.nan))
    positions = _fit_robust_positions(count, overlaps, prior)
    for _ in range(5):
        overlaps, contradicting, has_changed = [], [], False
        for item in good:  # the accepted candidate that agrees with the layout
            apart = positions[item.second] - positions[item.first]
            distance = np.hypot(*(item.shifts - apart).T)
            distance[item.score <= threshold] = np.inf
            which = 0 if distance[0] <= TOLERANCE_PX else int(np.argmin(distance))
            is_near = bool(distance[which] <= TOLERANCE_PX)
            has_changed |= is_near and which != 0
            which = which if is_near else 0
            overlap = _create_overlap(item, item.shifts[which], item.weight[which])
            (overlaps if is_near else contradicting).append(overlap)
        if overlaps:
            positions = _fit_robust_positions(count, overlaps, prior)
        if not has_changed:
            break
    away = _compute_residuals(overlaps, positions) if overlaps else np.zeros(0)
    fits = (away <= TOLERANCE_PX).tolist()
    contradicting += [one for one, fit in zip(overlaps, fits, strict=True) if not fit]
    overlaps = [one for one, fit in zip(overlaps, fits, strict=True) if fit]
    labels = label_components(count, overlaps)
    positions[labels != 0] = np.nan
    if not overlaps:
        positions[:] = np.nan
    main_overlaps = tuple(one for one in overlaps if labels[one.first] == 0)
    return Layout(positions, main_overlaps, tuple(contradicting))


def compute_periodic_layout(
    frames: CorrectedFrames,
    choices: Sequence[ShiftChoice],
    nominal: FloatArray,
    *,
    is_stated: bool,
) -> tuple[Layout, set[IntPair]]:
    """Compute the layout of a periodic sample.

    Frames that the images do not determine are at `nominal` if it `is_stated`, and have
    no position otherwise.
    """
    sure = [choice for choice in choices if choice.is_certain]
    certain = [_create_overlap(c, c.shifts[0], c.weight) for c in sure]
    count = len(nominal)
    positions = np.zeros((count, 2))
    if certain:
        weights = np.array([overlap.weight for overlap in certain])
        positions = fit_positions(count, certain, weights)
    labels = label_components(count, certain)
    main, *waiting = (
        set(np.flatnonzero(labels == k).tolist()) for k in range(labels.max() + 1)
    )
    ambiguous: set[IntPair] = set()
    unsure: list[set[int]] = []
    while waiting:
        bridges = [  # pairs that join a group to the main one
            [c for c in choices if main & {*c.pair} and group & {*c.pair}]
            for group in waiting
        ]
        nearest = int(np.argmax([len(bridge) for bridge in bridges]))
        if not bridges[nearest]:
            break
        group, bridge = waiting.pop(nearest), bridges[nearest]
        here, members = sorted(main), sorted(group)
        shift = np.nanmedian(positions[here] - nominal[here], axis=0)
        # move to its nominal position relative to the main group
        away = nominal[members] + shift - positions[members]
        expected_move = np.nanmedian(away, axis=0)
        move, is_sure = _find_group_move(frames, main, bridge, positions, expected_move)
        if not is_sure:
            ambiguous |= {choice.pair for choice in bridge}
        if not (is_sure or is_stated):
            unsure.append(group)
            continue
        positions[members] += move
        main |= group
        waiting, unsure = waiting + unsure, []  # more frames may make them certain
    positions[[index for index in range(count) if index not in main]] = np.nan
    overlaps, contradicting = _split_by_agreement(choices, positions, main)
    return Layout(positions, tuple(overlaps), tuple(contradicting)), ambiguous


def _find_group_move(
    frames: CorrectedFrames,
    main: set[int],
    bridge: Sequence[ShiftChoice],
    positions: FloatArray,
    expected_move: FloatArray,
) -> tuple[FloatArray, bool]:
    """Find a group's shift relative to the main group, and whether it is unique."""
    moves_offered, signs = [], []
    for c in bridge:
        signs.append(1.0 if c.first in main else -1.0)
        apart = positions[c.second] - positions[c.first]
        moves_offered.append(signs[-1] * (c.shifts - apart))
    proposals = merge_close_proposals(np.concatenate(moves_offered), _SAME)
    doubt = np.zeros(len(proposals))
    for c, sign, moves in zip(bridge, signs, moves_offered, strict=True):
        apart = positions[c.second] - positions[c.first]
        for place, proposal in enumerate(proposals):
            away = np.abs(moves - proposal).max(axis=1)
            nearest = int(np.argmin(away))
            own = c.doubt[nearest]
            if away[nearest] >= _SAME:  # the excess residual of an additional shift
                fit = _measure_residual(frames, c.pair, apart + sign * proposal)
                variance, deviation = c.least
                own = 0.0
                if fit is not None and np.isfinite(fit[1]) and deviation > 0:
                    own = (fit[1] - variance) / np.hypot(fit[2], deviation)
            own = min(max(float(own), -MAX_DOUBT), MAX_DOUBT)
            doubt[place] += own * abs(own)
    excess = np.sqrt(np.maximum(doubt - doubt.min(), 0))
    open_still = excess < CERTAIN
    if open_still.sum() == 1:
        return proposals[int(np.argmin(doubt))], True
    away = np.hypot(*(proposals - expected_move).T)
    away[~open_still] = np.inf
    return proposals[int(np.argmin(away))], False


def merge_close_proposals(proposals: FloatArray, same: float) -> FloatArray:
    """Average proposals (K, 2) that differ by less than `same` px."""
    left = list(range(len(proposals)))
    distinct_items = []
    while left:
        away = np.abs(proposals - proposals[left[0]]).max(axis=1)
        near = [k for k in left if away[k] < same]
        distinct_items.append(proposals[near].mean(axis=0))
        left = [k for k in left if k not in near]
    return np.stack(distinct_items)


def _split_by_agreement(
    choices: Sequence[ShiftChoice], positions: FloatArray, main: set[int]
) -> tuple[list[Overlap], list[Overlap]]:
    """Split shifts into those that agree with the layout and those that do not."""
    agreeing, contradicting = [], []
    for c in choices:
        if c.first not in main or c.second not in main:
            continue
        apart = positions[c.second] - positions[c.first]
        away = np.abs(c.shifts - apart).max(axis=1)
        which = int(np.argmin(away))
        if away[which] < _SAME and c.doubt[which] < CERTAIN:
            agreeing.append(_create_overlap(c, c.shifts[which], c.weight))
        else:
            contradicting.append(_create_overlap(c, c.shifts[0], c.weight))
    return agreeing, contradicting


# Pairs below the chance level, confirmed by the positions of their frames.
#
# Other pairs predict their shift. A peak as high occurs by chance among all shifts of
# the search, but hardly ever among the few that agree with the prediction.

_AGREES = 2  # px along each axis; chosen: whole-pixel positions err by one or two


def confirm_weak_pairs(
    frames: CorrectedFrames,
    candidates: Sequence[pairwise.Candidates],
    layout: Layout,
    chance: ChanceLevel,
    threshold: float,
) -> tuple[list[pairwise.Candidates], Layout]:
    """Accept weak pairs with a peak at the shift predicted by the layout.

    Returns the candidates, with those of confirmed pairs replaced by the agreeing peak,
    and the layout with their shifts; its positions do not change.
    """
    least = chance.compute_chance_score((2 * _AGREES + 1) ** 2, BY_CHANCE)
    result, overlaps = list(candidates), list(layout.overlaps)
    around = (
        _AGREES + pairwise.PEAK_PX,
        _AGREES + pairwise.PEAK_PX,
    )  # a shoulder outside is not a peak
    for place, item in enumerate(candidates):
        pair = item.pair
        has_places = np.isfinite(layout.positions[list(pair)]).all()
        if item.best_score > threshold or not has_places:
            continue
        shift = pairwise.compute_rounded_shift(layout.positions, pair)
        near = pairwise.search_shifts(frames, pair, shift, around)
        agrees = np.abs(near.shifts - shift).max(axis=1) <= _AGREES
        which = np.flatnonzero(agrees & (near.score > least))[:1]
        if len(which):
            values = (near.ncc[which], near.score[which], near.weight[which])
            result[place] = pairwise.Candidates(*pair, near.shifts[which], *values)
            overlaps.append(_create_overlap(near, near.shifts[which[0]], values[2][0]))
    return result, replace(layout, overlaps=tuple(overlaps))


# Frames without an accepted shift: placed by all of their neighbours together.
#
# A single overlap may be too dark or too poor in detail to have a peak. The sum of a
# frame's correlations with all placed neighbours, aligned in the mosaic, combines them.

_APART = 6  # px; chosen: beyond it is no shoulder of the same peak


@dataclass(frozen=True, slots=True)
class GroupCorrelation:
    """Correlation of a group of frames with all other placed frames."""

    pairs: list[IntPair]  # compared pairs, the frame of the group second
    score: FloatArray  # (H, W) score of moves of the group, in standard deviations
    height: FloatArray  # (H, W) the same, without its growth with the overlap


def correlate_group(
    frames: CorrectedFrames, group: Sequence[int], positions: FloatArray, reach: IntPair
) -> GroupCorrelation | None:
    """Sum the correlations of a group of frames with all other placed frames.

    `positions` (N, 2): top-left corners in px, NaN for frames without a position. The
    group is moved by up to `reach`; None if nothing overlaps.
    """
    pairs: list[IntPair] = []
    cross, variance, pixels = np.zeros(
        (3, 2 * reach[0] + 1, 2 * reach[1] + 1), np.float32
    )
    moves = [np.arange(-far, far + 1) for far in reach]
    others = set(np.flatnonzero(np.isfinite(positions).all(axis=1)).tolist())
    for other in sorted(others - {*group}):
        for index in group:
            pair = (other, index)
            shift = pairwise.compute_rounded_shift(positions, pair)
            if pairwise.compute_overlap_boxes(frames.frame_shape, shift) is None:
                continue
            scores = pairwise.correlate_frames(frames, pair, shift, reach)
            if scores is None:
                continue
            pairs.append(pair)
            possible = scores.cross != 0
            cross += scores.cross
            variance += np.where(possible, scores.variance, 0)
            sides = zip(frames.frame_shape, shift, moves, strict=True)
            common = [np.maximum(side - np.abs(at + m), 0) for side, at, m in sides]
            pixels += np.where(possible, np.outer(*common), 0)
    floor = 0.05 * float(variance.max(initial=0.0))
    if floor <= 0:
        return None
    spread = np.sqrt(np.maximum(variance, floor))
    score = np.where(variance > floor, cross / spread, 0)
    return GroupCorrelation(pairs, score, score / np.sqrt(np.maximum(pixels, 1)))


def place_frame_by_neighbours(
    frames: CorrectedFrames,
    index: int,
    expected_place: FloatArray,
    positions: FloatArray,
    reach: IntPair,
    threshold: float,
) -> tuple[FloatArray, float] | None:
    """Place a frame using its placed neighbours; None if not above chance.

    Returns its top-left corner (2,), and the score of all its overlaps as if they were
    one.

    `expected_place` (2,), `positions` (N, 2): top-left corners in px, NaN for frames
    without a position; `threshold`: score that a pair of unrelated frames does not
    reach within `reach`.
    """
    corner = np.round(expected_place).astype(int)
    around = positions.copy()
    around[index] = corner
    correlation = correlate_group(frames, [index], around, reach)
    if correlation is None:
        return None
    score = correlation.score
    y, x = np.unravel_index(int(np.argmax(score)), score.shape)
    rest = score.copy()
    rest[max(0, y - _APART) : y + _APART + 1, max(0, x - _APART) : x + _APART + 1] = 0
    # chosen: on a lattice the next peak is nearly as high
    if not rest.max() < 0.8 * score[y, x]:
        return None
    move = (int(y) - reach[0], int(x) - reach[1])
    around[index] += move
    pairs = correlation.pairs
    overlaps = [(pair, pairwise.compute_rounded_shift(around, pair)) for pair in pairs]
    height = pairwise.compute_joint_correlation(frames, overlaps)[1]
    place = (corner + np.array(move)).astype(float)
    return (place, height) if height > threshold else None
