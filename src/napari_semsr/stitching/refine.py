"""Joint sub-pixel refinement of all frame positions to the noise limit.

Each sweep resamples every frame once onto the mosaic's grid by sampled Gaussians,
linearises every pair, and moves all frames at once, each pair weighted by its 2 x 2
information matrix. Small rotations and scales are estimated in the same way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import fft, sparse, special
from scipy.sparse import csgraph
from scipy.sparse.linalg import splu

from napari_semsr import core
from napari_semsr.core import BoolArray, Box, Float32Array, FloatArray, IntPair
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.pairwise import (
    FramePair,
    ResampledFrames,
    compute_overlap_boxes,
)

# Linearised shift of one pair of frames.
#
# With inverse variances ``w_i`` and an unknown scene, the likelihood of all frames is a
# sum over pairs of ``w_i w_j / sum_k w_k * (I_i - I_j)^2`` at each pixel of the mosaic:
# the scene is eliminated exactly. The term of a pair is linearised in its shift; its
# offset, its gain, and a linearly varying brightness are eliminated. The Hessian is
# computed from products of the two frames' gradients, in which independent noise
# cancels.


@dataclass(frozen=True, slots=True)
class LinearisedShift(FramePair):
    """Linearised shift of a pair of frames."""

    # (2, 2) inverse covariance of the shift, before division by the noise variance; (3,
    # 3) if the displacement at the rim is free too
    information: FloatArray
    # (2,) or (3,) change of the shift by this pair alone, in px
    step: FloatArray
    # noise variance of the smoothed frames, from their weighted difference
    variance: float

    @property
    def is_degenerate(self) -> bool:
        """Whether one direction is undetermined, as along lines."""
        least, most = np.linalg.eigvalsh(self.information[:2, :2])
        # chosen: a few thousandths for noise alone, a few tenths for a sample with
        # detail in both directions
        return bool(least < 0.01 * most)


def _sum_weights(
    sweep: ResampledFrames, first: int, box: Box, around: Sequence[int]
) -> Float32Array:
    """Sum the weights of all frames over a box within one frame."""
    total = np.zeros(box.shape, np.float32)
    corner = sweep.corners[first] + (box.y0, box.x0)
    for other in around:
        y, x = (int(v) for v in corner - sweep.corners[other])
        weight, part = sweep.get_planes(other)[0], Box.from_shape(box.shape, (y, x))
        if part.overlaps(frame := Box.from_shape(weight.shape)):
            both = part.intersection(frame)
            total[both.relative_to(part).slices] += weight[both.slices]
    return total


def linearise_pair(
    sweep: ResampledFrames,
    first: int,
    second: int,
    around: Sequence[int],
    stretch: tuple[Float32Array, Float32Array] | None = None,
) -> LinearisedShift | None:
    """Linearise a pair at its current positions; None for under 200 shared pixels.

    `stretch`: displacement of each pixel, along y and x, per pixel at the rim; if
    given, that displacement is free too.
    """
    boxes = sweep.get_overlap_boxes(first, second)
    if boxes is None:
        return None
    one, two = boxes
    a_weight, a, *a_slopes = (part[one.slices] for part in sweep.get_planes(first))
    b_weight, b, *b_slopes = (part[two.slices] for part in sweep.get_planes(second))
    product = a_weight * b_weight
    inside = product > 0
    # chosen: about thirty pixels for each of the six fitted parameters
    if int(np.count_nonzero(inside)) < 200:
        return None
    total = _sum_weights(sweep, first, one, around)[inside]
    weight = product[inside] / total
    freedom = float(((a_weight + b_weight)[inside] / total).sum())
    # free too: offset, gain, and gain that varies linearly along y and x
    mean = (a + b)[inside] / 2
    ramps = (
        (place / max(side - 1, 1) - 0.5).astype(np.float32)
        for place, side in zip(np.nonzero(inside), one.shape, strict=True)
    )
    columns = np.stack([np.ones(len(mean), np.float32), mean - mean.mean(), *ramps])
    if stretch is not None:
        apart = [plane[two.slices] - plane[one.slices] for plane in stretch]
        for slope in (a_slopes, b_slopes):
            slope.append(slope[0] * apart[0] + slope[1] * apart[1])
    slopes = [(p + q)[inside] for p, q in zip(a_slopes, b_slopes, strict=True)]
    design = np.concatenate([np.stack(slopes) / 2, columns])
    weighted_design = design * weight
    normal = (weighted_design @ design.T).astype(float)
    difference = (b - a)[inside]
    right = (weighted_design @ difference).astype(float)
    # products of one frame's gradient with the other's: unbiased by noise
    one_slope, other = (np.stack([p[inside] for p in s]) for s in (a_slopes, b_slopes))
    cross = ((one_slope * weight) @ other.T).astype(float)
    cross = (cross + cross.T) / 2
    power = float(np.vdot(weight, difference**2))
    return _eliminate_nuisance_parameters(
        (first, second), normal, right, cross, (power, freedom)
    )


def _eliminate_nuisance_parameters(
    pair: IntPair,
    normal: FloatArray,
    right: FloatArray,
    cross: FloatArray,
    sums: tuple[float, float],
) -> LinearisedShift:
    """Eliminate the nuisance parameters from a pair's normal equations.

    The step is the gradient over the Hessian `cross`. The scatter of the gradient
    follows `normal`, whose slopes include noise: where noise dominates, the pair has
    little information although its slopes are steep.
    """
    power, freedom = sums
    size = len(cross)
    nuisance = normal[size:, size:]
    nuisance = nuisance + 1e-9 * np.trace(nuisance) * np.eye(4)
    mixed_terms = normal[:size, size:]
    solution = np.linalg.solve(nuisance, np.column_stack([mixed_terms.T, right[size:]]))
    nuisance_terms = mixed_terms @ solution[:, :size]
    gradient = right[:size] - mixed_terms @ solution[:, size]
    noisy = normal[:size, :size] - nuisance_terms
    values, vectors = np.linalg.eigh((noisy + noisy.T) / 2)
    values = np.maximum(values, max(1e-6 * float(values[-1]), 1e-12))
    root = vectors * np.sqrt(values)
    # share of the slopes common to both frames, along each direction
    inverse = vectors / np.sqrt(values)
    gain_terms = inverse.T @ (cross - nuisance_terms) @ inverse
    share, turn = np.linalg.eigh((gain_terms + gain_terms.T) / 2)
    # chosen: limits a step to 20 times the noisy one
    share = np.clip(share, 0.05, 1.0)
    basis = root @ turn
    information = (basis * share**2) @ basis.T
    unroot = inverse @ turn
    step = (unroot / share) @ unroot.T @ gradient
    left = max(power - float(right[size:] @ solution[:, size]), 0.0)
    # frames of one grey value, or without noise, differ at least by rounding
    least = _ROUNDING * float(np.trace(information))
    variance = max(left / max(freedom, 1e-12), least)
    return LinearisedShift(*pair, information, step, variance)


MAX_STEP = 2.0  # px; chosen: a pair is linear over about the width of the Gaussian
CONVERGENCE = 1e-3  # px; a tenth of the noise limit, 0.009 to 0.019 px
_ROUNDING = 1e-14  # share of the information; float32 precision, squared
_HOLD = 1e-7  # of the median information; chosen: holds loose frames, moves no other
DENSE_LIMIT = 1500  # chosen: their matrix, 3000^2 doubles, takes 72 MB
"""Number of frames above which errors are not computed."""
NOISE_RATIO = 4 * np.pi
"""Ratio of noise variance before to noise variance after a Gaussian of 1 px."""


@dataclass(frozen=True, slots=True)
class RefinedPositions:
    """Positions after a refinement sweep."""

    # (N, 2) top-left corners; NaN without a start position
    positions: FloatArray
    shifts: tuple[LinearisedShift, ...]  # shifts of the last sweep
    # (N, 2) standard deviation of each position from the information of all pairs;
    # infinite for frames that no pair connects to the largest group
    sigma_px: FloatArray


def assemble_matrix(
    count: int, first: NDArray[np.intp], second: NDArray[np.intp], blocks: FloatArray
) -> sparse.csc_array:
    """Assemble the (2 N, 2 N) matrix of the positions from per-pair blocks.

    `first` and `second`, (P,), are the frames of each pair, `blocks` (P, >= 2, >= 2)
    the inverse covariance of its shift.
    """
    pairs = (
        (first, first, 1),
        (second, second, 1),
        (first, second, -1),
        (second, first, -1),
    )
    rows, columns, values = [], [], []
    for (one, two, sign), a, b in product(pairs, range(2), range(2)):
        rows.append(2 * one + a)
        columns.append(2 * two + b)
        values.append(sign * blocks[:, a, b])
    places = np.concatenate(rows), np.concatenate(columns)
    size = 2 * count
    return sparse.coo_array((np.concatenate(values), places), (size, size)).tocsc()


def assemble_normal_equations(
    count: int, shifts: Sequence[LinearisedShift], noise: float
) -> tuple[sparse.csc_array, FloatArray, FloatArray, FloatArray]:
    """Assemble the normal equations of all positions.

    Returns the matrix of the positions; their right-hand sides, (K, N, 2), the first of
    the steps, the second of one pixel at the rim; and, if the rim is free, its
    right-hand side, (K - 1,), and diagonal, (K - 1,).
    """
    first = np.array([item.first for item in shifts], dtype=np.intp)
    second = np.array([item.second for item in shifts], dtype=np.intp)
    doubt = np.array([max(item.variance, 0.5 * noise) for item in shifts])
    blocks = np.stack([item.information for item in shifts]) / doubt[:, None, None]
    steps = []
    for item in shifts:  # within the linear range
        if len(item.step) == 2:
            steps.append(np.clip(item.step, -MAX_STEP, MAX_STEP))
            continue
        # shift and rim of a small overlap are nearly equivalent: limiting each
        # separately would pull along directions that the pair determines well
        _, axes = np.linalg.eigh(item.information)
        steps.append(axes @ np.clip(axes.T @ item.step, -MAX_STEP, MAX_STEP))
    pull = np.einsum("kab,kb->ka", blocks, np.stack(steps))
    pulls = [pull[:, :2], *np.moveaxis(blocks[:, :2, 2:], 2, 0)]
    right = np.zeros((len(pulls), count, 2))
    for own, each in zip(right, pulls, strict=True):
        np.add.at(own, second, each)
        np.add.at(own, first, -each)
    matrix = assemble_matrix(count, first, second, blocks)
    tiny = _HOLD * float(np.median(np.abs(blocks[:, [0, 1], [0, 1]])))
    held_matrix = (matrix + tiny * sparse.eye_array(2 * count)).tocsc()
    rim = pull[:, 2:].sum(axis=0), np.einsum("kaa->a", blocks[:, 2:, 2:])
    return held_matrix, right, *rim


def solve_steps(
    count: int, shifts: Sequence[LinearisedShift], free: BoolArray | None = None
) -> tuple[FloatArray, sparse.csc_array]:
    """Solve for the (N, 2) displacements of all frames, 0 for unconnected frames.

    `free`: which frames, (N,), may move. Returns also the matrix of the normal
    equations of all, (2 N, 2 N).
    """
    noise = float(np.median([item.variance for item in shifts]))
    matrix, right, _, _ = assemble_normal_equations(count, shifts, noise)
    if free is None:
        return splu(matrix).solve(right[0].ravel()).reshape(count, 2), matrix
    free_columns = np.flatnonzero(np.repeat(free, 2))
    steps = np.zeros(2 * count)
    part = matrix[:, free_columns][free_columns]
    steps[free_columns] = splu(part.tocsc()).solve(right[0].ravel()[free_columns])
    return steps.reshape(count, 2), matrix


def _sort_pairs(pairs: Sequence[IntPair], positions: FloatArray) -> list[IntPair]:
    """Order pairs so that each frame is resampled only once."""
    rank = np.argsort(np.lexsort((positions[:, 1], positions[:, 0])))
    return sorted(pairs, key=lambda pair: sorted(rank[list(pair)]))


def linearise_pairs(
    frames: CorrectedFrames,
    positions: FloatArray,
    pairs: Sequence[IntPair],
    sigma: float,
    *,
    with_stretch: bool = False,
    around: Sequence[IntPair] = (),
) -> list[LinearisedShift]:
    """Linearise all pairs in the given order; `around`: other overlapping pairs."""
    sweep = ResampledFrames(frames, positions, sigma)
    stretch = frames.compute_stretch() if with_stretch else None
    near = [{index} for index in range(len(positions))]  # overlapping frames
    for first, second in (*pairs, *around):
        near[first].add(second)
        near[second].add(first)
    shifts = (
        linearise_pair(sweep, a, b, sorted(near[a] & near[b]), stretch)
        for a, b in pairs
    )
    return [item for item in shifts if item is not None]


def refine_positions(
    frames: CorrectedFrames,
    positions: FloatArray,
    pairs: Sequence[IntPair],
    sweeps: Sequence[float],
) -> Iterator[RefinedPositions]:
    """Refine positions by maximum likelihood in successive sweeps.

    `positions` (N, 2), accurate to a pixel or two, NaN for frames that are left out;
    `sweeps`: width of the Gaussian in each sweep, in px.
    """
    positions = positions.copy()
    pairs = _sort_pairs(pairs, positions)
    last_sigma = 0.0
    for sigma in sweeps:
        if sigma == last_sigma:
            continue
        shifts = linearise_pairs(frames, positions, pairs, sigma)
        if not shifts:
            yield RefinedPositions(positions, (), np.full(positions.shape, np.inf))
            return
        steps, matrix = solve_steps(len(positions), shifts)
        positions = positions + steps
        if np.abs(np.where(np.isfinite(positions), steps, 0)).max() < CONVERGENCE:
            last_sigma = sigma
        spread = np.where(
            np.isfinite(positions), compute_position_spread(matrix, sigma), np.nan
        )
        yield RefinedPositions(positions.copy(), tuple(shifts), spread)


def compute_position_spread(matrix: sparse.csc_array, sigma: float) -> FloatArray:
    """Compute standard deviations relative to the mean position of the largest group.

    Smoothing by `sigma` divides the noise variance by ``4 pi sigma^2`` and correlates
    it over as many pixels; shifts depend on the variance before that.
    """
    count = matrix.shape[0] // 2
    groups, labels = csgraph.connected_components(matrix[::2, ::2], directed=False)
    adrift = (labels != np.bincount(labels).argmax())[:, None]
    if count > DENSE_LIMIT:
        return np.where(adrift, np.inf, np.full((count, 2), np.nan))
    values, vectors = np.linalg.eigh(matrix.toarray())
    # the common shift of a group is undetermined: its two modes are the softest
    values = np.maximum(values, np.finfo(float).eps * values[-1])[2 * groups :]
    scaled_vectors = vectors[:, 2 * groups :] / np.sqrt(values)
    variance = (scaled_vectors**2).sum(axis=1) * NOISE_RATIO * sigma**2
    return np.where(adrift, np.inf, np.sqrt(variance).reshape(count, 2))


# Radial distortion of the field, one parameter for all frames, with all positions.
#
# One more pixel of displacement at the rim moves each pixel by `stretch`; two frames
# show the same point at different radii, and differ by their gradient times the
# difference of `stretch`. Its constant part over an overlap looks like a shift of the
# frames, so that positions and distortion are solved together.


@dataclass(frozen=True, slots=True)
class RimDisplacement:
    """Rim displacement estimated jointly from all pairs."""

    step: float  # change of the displacement, in px
    sigma: float  # its standard deviation by noise, in px
    excess: float  # scatter of the pairs relative to noise, at least 1
    moves: FloatArray  # (N, 2) corresponding change of the positions
    # (N, 2) resulting deviation of the positions, minus the mean
    doubt_px: FloatArray


def measure_rim_displacement(
    frames: CorrectedFrames,
    positions: FloatArray,
    pairs: Sequence[IntPair],
    sigma: float,
) -> RimDisplacement | None:
    """Estimate the residual rim displacement of all frames, to first order.

    `positions` (N, 2), accurate to a pixel or two, NaN if left out; `sigma`: width
    of the Gaussian in px. None if no pair has enough overlap.
    """
    pairs = _sort_pairs(pairs, positions)
    shifts = linearise_pairs(frames, positions, pairs, sigma, with_stretch=True)
    if not shifts:
        return None
    noise = float(np.median([item.variance for item in shifts]))
    count = len(positions)
    held_matrix, right, pull, stiff = assemble_normal_equations(count, shifts, noise)
    moves, coupling = splu(held_matrix).solve(right.reshape(2, -1).T).T
    stiffness = float(stiff[0] - right[1].ravel() @ coupling)
    if stiffness <= 0:
        return None
    step = float(pull[0] - right[1].ravel() @ moves) / stiffness
    moves = (moves - step * coupling).reshape(count, 2)
    smoothing_area = NOISE_RATIO * sigma**2
    # scatter of the pairs relative to pixel noise: three values each, minus the fitted
    # parameters; the median is robust
    excess, free = 1.0, 3 * len(shifts) - 2 * count - 1
    if free > 0:
        sums = []
        for item in shifts:
            move = moves[item.second] - moves[item.first]
            left = item.step - np.array([*move, step])
            power = float(left @ item.information @ left)
            sums.append(power / (noise * smoothing_area))
        expected_chi2 = special.chdtri(3, 0.5) * free / (3 * len(shifts))
        excess = max(1.0, float(np.sqrt(np.median(sums) / expected_chi2)))
    spread = float(np.sqrt(smoothing_area / stiffness))
    has_place = np.isfinite(positions).all(axis=1)
    doubt = coupling.reshape(count, 2)
    doubt = np.abs(doubt - doubt[has_place].mean(axis=0)) * spread * excess
    return RimDisplacement(step, spread, excess, moves, doubt)


# First estimate of the field's radial distortion, from the overlaps.
#
# Frames with a distortion of some per cent differ by many pixels within one overlap:
# correlation peaks blur, and positions are too inexact for a linear fit. Here the
# overlaps of some pairs are divided into blocks that are correlated one by one. A
# distortion moves their peaks in a known pattern, and the estimate is the distortion at
# which their sum is largest; it is refined together with the positions
# (`measure_rim_displacement`).

_BLOCK = 32  # px; chosen: at 3 % at the rim, peaks blur by up to 3 px within a block


def estimate_distortion(
    frames: CorrectedFrames, shifts: dict[IntPair, IntPair], reach: int
) -> float:
    """Estimate the distortion that makes overlaps agree best, or 0 if insignificant.

    `shifts`: whole-pixel position of the second frame of a pair minus that of the
    first, right to within `reach` px.
    """
    rim = min(frames.frame_shape) / 2
    # of either sign; chosen: three times that expected of a microsphere
    farthest = int(0.1 * rim)
    amounts = np.arange(-farthest, farthest + 1.0)
    # chosen: each pair is sufficient alone, a dozen outvotes a foreign frame
    sample = list(shifts)[:: -(-len(shifts) // 12) or 1]
    # chosen: fewer pairs have no meaningful scatter
    if len(sample) < 3:
        return 0.0
    scores = np.array(
        [_score_distortions(frames, p, shifts[p], reach, amounts) for p in sample]
    )
    best = int(np.argmax(scores.sum(axis=0)))
    gain = scores[:, best] - scores[:, farthest]
    # in standard deviations of the gain; chosen: pairs that disagree would cost a
    # useless second search
    sure = gain.mean() * np.sqrt(len(gain)) > 2.0 * gain.std(ddof=1)
    # chosen: less than two pixels at the rim are found with the positions, and noise
    # changes the estimate by about one
    if not sure or abs(amounts[best]) < 2:
        return 0.0
    return float(amounts[best] / rim)


def _score_distortions(
    frames: CorrectedFrames,
    pair: IntPair,
    shift: IntPair,
    reach: int,
    amounts: FloatArray,
) -> FloatArray:
    """Compute a pair's best joint block correlation for each rim displacement."""
    shape = frames.frame_shape
    boxes = compute_overlap_boxes(shape, shift)
    if boxes is None or min(boxes[1].shape) < _BLOCK // 2:
        return np.zeros(len(amounts))
    box = boxes[1]  # filled evenly by blocks
    counts = [max(1, side // _BLOCK) for side in box.shape]
    size = (box.shape[0] // counts[0], box.shape[1] // counts[1])
    cells = np.indices(counts).reshape(2, -1).T
    corners = cells * np.array(size) + np.array((box.y0, box.x0))
    # chosen: more blocks of a large frame add little
    corners = corners[:: -(-len(corners) // 24)]
    y, x = (corners + (np.array(size) - 1) / 2).T
    there = np.stack(core.compute_radial_displacement(y, x, shape))
    here = np.stack(core.compute_radial_displacement(y + shift[0], x + shift[1], shape))
    # (amounts, blocks, 2)
    moves = np.rint(np.multiply.outer(amounts, (there - here).T)).astype(int)
    around = int(np.abs(moves).max()) + reach
    bands = frames.band_pass(pair[0]), frames.band_pass(pair[1])
    lags = _correlate_blocks(*bands, corners, size, shift, around)
    best = np.empty(len(amounts))
    for which, move in enumerate(moves):
        total = np.zeros((2 * reach + 1, 2 * reach + 1))
        for (y, x), lag in zip(move + around - reach, lags, strict=True):
            total += lag[y : y + 2 * reach + 1, x : x + 2 * reach + 1]
        best[which] = total.max()
    return best


def _correlate_blocks(
    first: Float32Array,
    second: Float32Array,
    corners: NDArray[np.int64],
    size: IntPair,
    shift: IntPair,
    around: int,
) -> FloatArray:
    """Correlate blocks of the second frame with their surroundings in the first.

    Returns (B, 2 * around + 1, 2 * around + 1), lags from -`around` about `shift`.
    """
    padded_block = np.pad(first, around)
    shape = tuple(side + 2 * around for side in size)
    windows = np.zeros((len(corners), *shape), np.float32)
    blocks = np.zeros_like(windows)
    for window, block, (y, x) in zip(windows, blocks, corners, strict=True):
        block[: size[0], : size[1]] = second[y : y + size[0], x : x + size[1]]
        part = padded_block[y + shift[0] :, x + shift[1] :][: shape[0], : shape[1]]
        window[: part.shape[0], : part.shape[1]] = part
    power = np.sqrt(np.vdot(windows, windows) * np.vdot(blocks, blocks))
    fast = [fft.next_fast_len(side, real=True) for side in shape]
    spectra = fft.rfft2(windows, s=fast) * fft.rfft2(blocks, s=fast).conj()
    lags = fft.irfft2(spectra, s=fast)[:, : 2 * around + 1, : 2 * around + 1]
    return np.asarray(lags / max(float(power), 1e-30))


# Small rotation and scale of every frame, estimated together with its position.
#
# A frame is sampled at ``c + (1 + s) R(t) (x - c)`` about its centre ``c``: to first
# order that adds ``grad F . (s r + t J r)`` with ``r = x - c`` and ``J`` a rotation by
# 90 degrees. Pairs are linearised in both frames' shift, rotation and scale at once; a
# rotation and a scale common to all frames are not observable, and are kept at zero by
# a weak prior.

_SIGMA = 1.5  # px; chosen between the 2 and 1 px of the sweeps, for inexact positions
_FREE = 4  # shift along y and x, rotation, scale


def refine_rotations(
    corrected_frames: CorrectedFrames, positions: FloatArray, pairs: Sequence[IntPair]
) -> tuple[CorrectedFrames, FloatArray]:
    """Refine rotations, scales and positions jointly.

    `positions` (N, 2), top-left corners, accurate to a pixel; NaN for frames left out.
    """
    positions = positions.copy()
    # chosen: a degree moves corners by several px, each round by up to 2
    for _ in range(4):
        frames = ResampledFrames(corrected_frames, positions, _SIGMA)
        blocks = ((pair, _compute_normal_equations(frames, pair)) for pair in pairs)
        blocks_found = [(pair, block) for pair, block in blocks if block is not None]
        if not blocks_found:
            return corrected_frames, positions
        steps = _solve_rotations(len(positions), blocks_found)
        half = max(corrected_frames.frame_shape) / 2
        positions = positions + np.clip(steps[:, :2], -2, 2)
        corrected_frames = corrected_frames.copy_with_changes(
            rotations=corrected_frames.rotations + steps[:, 2:] / half
        )
    return corrected_frames, positions


def _differentiate_frame(
    slope: tuple[FloatArray, FloatArray], place: FloatArray, shape: IntPair
) -> list[FloatArray]:
    """Differentiate a pair's difference w.r.t. a frame's shift, rotation and scale."""
    half = max(shape) / 2
    y = (place[0] - (shape[0] - 1) / 2) / half
    x = (place[1] - (shape[1] - 1) / 2) / half
    down, along = slope
    return [down, along, -(along * y - down * x), -(down * y + along * x)]


def _compute_normal_equations(
    frames: ResampledFrames, pair: IntPair
) -> tuple[FloatArray, FloatArray, float] | None:
    """Compute the normal equations of one pair, and its noise variance."""
    boxes = frames.get_overlap_boxes(*pair)
    if boxes is None:
        return None
    one, two = boxes
    a_weight, a, a_y, a_x = (p[one.slices] for p in frames.get_planes(pair[0]))
    b_weight, b, b_y, b_x = (p[two.slices] for p in frames.get_planes(pair[1]))
    inside = (a_weight > 0) & (b_weight > 0)
    # chosen: twice the pixels of a shift, for twice its unknowns
    if int(np.count_nonzero(inside)) < 400:
        return None
    total = (a_weight + b_weight)[inside]
    weight = (a_weight * b_weight)[inside] / total
    slope = ((a_y + b_y)[inside] / 2, (a_x + b_x)[inside] / 2)
    place = np.stack(np.nonzero(inside)).astype(float)
    shape = frames.frames.frame_shape
    here = _differentiate_frame(slope, place + np.array([[one.y0], [one.x0]]), shape)
    there = _differentiate_frame(slope, place + np.array([[two.y0], [two.x0]]), shape)
    mean = (a + b)[inside] / 2
    size = np.array(inside.shape)[:, None]
    tilt = place / size - 0.5
    nuisance = [np.ones(len(mean)), mean - mean.mean(), tilt[0], tilt[1]]
    design = np.stack([*(-part for part in here), *there, *nuisance]).astype(float)
    difference = (b - a)[inside].astype(float)
    weighted_design = design * weight
    normal = weighted_design @ design.T
    right = weighted_design @ difference
    free = 2 * _FREE
    held_matrix = normal[free:, free:] + 1e-9 * np.trace(normal) * np.eye(len(nuisance))
    nuisance_terms = np.linalg.solve(
        held_matrix, np.column_stack([normal[free:, :free], right[free:]])
    )
    left = float(weight @ difference**2 - right[free:] @ nuisance_terms[:, -1])
    return (
        normal[:free, :free] - normal[:free, free:] @ nuisance_terms[:, :-1],
        right[:free] - normal[:free, free:] @ nuisance_terms[:, -1],
        max(left, 1e-12) / len(mean),
    )


def _solve_rotations(
    count: int, blocks: list[tuple[IntPair, tuple[FloatArray, FloatArray, float]]]
) -> FloatArray:
    """Solve for shift (px), rotation and scale (px at half a frame) of every frame."""
    noise = float(np.median([block[2] for _, block in blocks]))
    true = noise * NOISE_RATIO * _SIGMA**2
    rows, columns, values = [], [], []
    right = np.zeros(count * _FREE)
    for (first, second), (normal, gradient, variance) in blocks:
        share = 1 / (true * max(variance / noise, 0.5))
        ends = _FREE * np.array([first, second])
        index = np.add.outer(ends, np.arange(_FREE)).ravel()
        rows.append(np.repeat(index, len(index)))
        columns.append(np.tile(index, len(index)))
        values.append((normal * share).ravel())
        np.add.at(right, index, gradient * share)
    size = count * _FREE
    places = np.concatenate(rows), np.concatenate(columns)
    matrix = sparse.coo_array((np.concatenate(values), places), (size, size)).tocsc()
    scale = float(np.median(matrix.diagonal())) or 1.0
    prior = np.full((count, _FREE), _HOLD * scale)
    # rad, and relative scale; chosen: about a degree and 2 %
    prior[:, 2:] += 1 / (0.02 * 100) ** 2
    held_matrix = (matrix + sparse.diags_array(prior.ravel())).tocsc()
    return np.asarray(splu(held_matrix).solve(right).reshape(count, _FREE))
