"""Sub-pixel positions of all frames together, to the limit that noise sets.

Each sweep resamples every frame once onto the mosaic's grid by sampled Gaussians,
linearises every pair, and moves all frames at once, each pair weighed by its two-by-two
information. Small rotations and scales are found in the same way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special
from scipy.sparse import csgraph
from scipy.sparse.linalg import splu

from napari_semsr.core import BoolArray, Box, Float32Array, FloatArray, IntPair
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.pairwise import Resampled

# What one pair of frames says about its shift, to first order.
#
# With inverse variances ``w_i`` and the picture unknown, the likelihood of all frames
# is a sum over pairs of ``w_i w_j / sum_k w_k * (I_i - I_j)^2`` at each place of the
# mosaic: the picture is eliminated exactly. A pair's part of it is linearised in its
# shift; its offset, its gain, and a brightness that varies linearly are eliminated. The
# Hessian is taken from products of the two frames' gradients, in which independent
# noise cancels.

_MIN_PIXELS = 200  # chosen: thirty for each of the six numbers that are fitted
_LEAST_SHARE = 0.05  # of common slopes; chosen: bounds a step to 20 times the noisy one
_NUISANCE = 4  # offset, gain, brightness that varies along y and along x


@dataclass(frozen=True, slots=True)
class LinearisedShift:
    """What one pair says about its shift."""

    first: int
    second: int
    # (2, 2) Inverse covariance of the shift, before division by the noise variance;
    # (3, 3) where the displacement at the rim is free as well
    information: FloatArray
    # (2,) or (3,) Change of the shift that this pair alone would make, in px
    step: FloatArray
    # Noise variance of the smoothed frames, by their weighted difference
    variance: float


def _total_weight(
    sweep: Resampled, first: int, box: Box, around: Sequence[int]
) -> Float32Array:
    """Sum of the weights of all frames over a part of one frame."""
    total = np.zeros(box.shape, np.float32)
    corner = sweep.corners[first] + (box.y0, box.x0)
    for other in around:
        y, x = (int(v) for v in corner - sweep.corners[other])
        weight, part = sweep.frame(other)[0], Box.of(box.shape, (y, x))
        if part.overlap(frame := Box.of(weight.shape)):
            both = part.intersection(frame)
            total[both.within(part).slices] += weight[both.slices]
    return total


def linearise_pair(
    sweep: Resampled,
    first: int,
    second: int,
    around: Sequence[int],
    stretch: tuple[Float32Array, Float32Array] | None = None,
) -> LinearisedShift | None:
    """Compare one pair near its present positions; None below 200 common pixels.

    `stretch`: how far each pixel of a frame moves for one at its rim, along y and x;
    with it that displacement is free as well.
    """
    boxes = sweep.boxes(first, second)
    if boxes is None:
        return None
    one, two = boxes
    a_weight, a, *a_slopes = (part[one.slices] for part in sweep.frame(first))
    b_weight, b, *b_slopes = (part[two.slices] for part in sweep.frame(second))
    product = a_weight * b_weight
    inside = product > 0
    if int(np.count_nonzero(inside)) < _MIN_PIXELS:
        return None
    total = _total_weight(sweep, first, one, around)[inside]
    weight = product[inside] / total
    freedom = float(((a_weight + b_weight)[inside] / total).sum())
    columns = _columns(one.shape, inside, a, b)
    if stretch is not None:
        apart = [plane[two.slices] - plane[one.slices] for plane in stretch]
        for slope in (a_slopes, b_slopes):
            slope.append(slope[0] * apart[0] + slope[1] * apart[1])
    slopes = [(p + q)[inside] for p, q in zip(a_slopes, b_slopes, strict=True)]
    design = np.concatenate([np.stack(slopes) / 2, columns])
    weighted = design * weight
    normal = (weighted @ design.T).astype(float)
    difference = (b - a)[inside]
    right = (weighted @ difference).astype(float)
    # products of one frame's gradient with the other's: free of noise on the mean
    one_slope, other = (np.stack([p[inside] for p in s]) for s in (a_slopes, b_slopes))
    cross = ((one_slope * weight) @ other.T).astype(float)
    cross = (cross + cross.T) / 2
    power = float(np.vdot(weight, difference**2))
    return _eliminated((first, second), normal, right, cross, (power, freedom))


def _columns(
    shape: IntPair, inside: NDArray[np.bool_], a: Float32Array, b: Float32Array
) -> Float32Array:
    """Offset, gain, and gain that varies linearly along y and x."""
    mean = (a + b)[inside] / 2
    ramps = (
        (place / max(side - 1, 1) - 0.5).astype(np.float32)
        for place, side in zip(np.nonzero(inside), shape, strict=True)
    )
    return np.stack([np.ones(len(mean), np.float32), mean - mean.mean(), *ramps])


def _eliminated(
    pair: IntPair,
    normal: FloatArray,
    right: FloatArray,
    cross: FloatArray,
    sums: tuple[float, float],
) -> LinearisedShift:
    """Take the nuisance parameters out of a pair's normal equations.

    The step is the gradient over the Hessian `cross`. The scatter of the gradient goes
    with `normal`, whose slopes hold noise too: where noise rules, the pair is known to
    say little although its slopes are steep.
    """
    power, freedom = sums
    size = len(cross)
    nuisance = normal[size:, size:]
    nuisance = nuisance + 1e-9 * np.trace(nuisance) * np.eye(_NUISANCE)
    mixed = normal[:size, size:]
    solved = np.linalg.solve(nuisance, np.column_stack([mixed.T, right[size:]]))
    taken = mixed @ solved[:, :size]
    gradient = right[:size] - mixed @ solved[:, size]
    noisy = normal[:size, :size] - taken
    values, vectors = np.linalg.eigh((noisy + noisy.T) / 2)
    values = np.maximum(values, max(1e-6 * float(values[-1]), 1e-12))
    root = vectors * np.sqrt(values)
    # share of the slopes that both frames have in common, along each direction
    inverse = vectors / np.sqrt(values)
    shared = inverse.T @ (cross - taken) @ inverse
    share, turn = np.linalg.eigh((shared + shared.T) / 2)
    share = np.clip(share, _LEAST_SHARE, 1.0)
    basis = root @ turn
    information = (basis * share**2) @ basis.T
    unroot = inverse @ turn
    step = (unroot / share) @ unroot.T @ gradient
    left = max(power - float(right[size:] @ solved[:, size]), 0.0)
    # frames of one grey value, or without noise, differ by what rounding does at least
    least = _ROUNDING * float(np.trace(information))
    variance = max(left / max(freedom, 1e-12), least)
    return LinearisedShift(*pair, information, step, variance)


MAX_STEP = 2.0  # px; chosen: a pair is linear over about the width of the Gaussian
_SETTLED = 1e-3  # px; a tenth of noise's bound, 0.009 to 0.019 px
_ROUNDING = 1e-14  # of the information; that of float32, squared
_HOLD = 1e-7  # of the median information; chosen: holds loose frames, moves no other
DENSE_LIMIT = 1500  # chosen: their matrix, 3000^2 doubles, takes 72 MB
"""Frames from which on errors are not stated."""
SMOOTHED = 4 * np.pi
"""Noise variance before over that after smoothing by a Gaussian of 1 px."""


@dataclass(frozen=True, slots=True)
class Refined:
    """Positions after the last sweep."""

    # (N, 2) Top-left corners; NaN where there was none to start from
    positions: FloatArray
    shifts: tuple[LinearisedShift, ...]  # Of the last sweep
    # (N, 2) Standard deviation of each position by the information of all pairs;
    # infinite for frames that no pair ties to the largest group
    sigma_px: FloatArray


def _bounded(item: LinearisedShift) -> FloatArray:
    """Step of a pair, no farther than it is linear."""
    if len(item.step) == 2:
        return np.clip(item.step, -MAX_STEP, MAX_STEP)
    # shift and rim of a small overlap are nearly the same thing: bounding each by
    # itself would pull along directions in which the pair is sure
    _, axes = np.linalg.eigh(item.information)
    return np.asarray(axes @ np.clip(axes.T @ item.step, -MAX_STEP, MAX_STEP))


def join_blocks(
    count: int, first: NDArray[np.intp], second: NDArray[np.intp], blocks: FloatArray
) -> sparse.csc_array:
    """Make the matrix of positions, (2 N, 2 N), of what pairs hold.

    `first` and `second`, (P,), are the frames of each pair, `blocks` (P, >= 2, >= 2)
    the inverse covariance of its shift.
    """
    rows, columns, values = [], [], []
    for one, two, sign in (
        (first, first, 1),
        (second, second, 1),
        (first, second, -1),
        (second, first, -1),
    ):
        for a in range(2):
            for b in range(2):
                rows.append(2 * one + a)
                columns.append(2 * two + b)
                values.append(sign * blocks[:, a, b])
    places = np.concatenate(rows), np.concatenate(columns)
    size = 2 * count
    return sparse.coo_array((np.concatenate(values), places), (size, size)).tocsc()


def assemble(
    count: int, shifts: Sequence[LinearisedShift], noise: float
) -> tuple[sparse.csc_array, FloatArray, FloatArray, FloatArray]:
    """Make the normal equations of all positions.

    Returns the matrix of the positions; their right sides, (K, N, 2), the first of the
    steps, a second of what one pixel at the rim pulls; and of that pixel itself the
    pull of the steps, (K - 1,), and the stiffness, (K - 1,), where it is free.
    """
    first = np.array([item.first for item in shifts], dtype=np.intp)
    second = np.array([item.second for item in shifts], dtype=np.intp)
    doubt = np.array([max(item.variance, 0.5 * noise) for item in shifts])
    blocks = np.stack([item.information for item in shifts]) / doubt[:, None, None]
    steps = np.stack([_bounded(item) for item in shifts])
    pull = np.einsum("kab,kb->ka", blocks, steps)
    pulls = [pull[:, :2], *np.moveaxis(blocks[:, :2, 2:], 2, 0)]
    right = np.zeros((len(pulls), count, 2))
    for own, each in zip(right, pulls, strict=True):
        np.add.at(own, second, each)
        np.add.at(own, first, -each)
    matrix = join_blocks(count, first, second, blocks)
    tiny = _HOLD * float(np.median(np.abs(blocks[:, [0, 1], [0, 1]])))
    held = (matrix + tiny * sparse.eye_array(2 * count)).tocsc()
    rim = pull[:, 2:].sum(axis=0), np.einsum("kaa->a", blocks[:, 2:, 2:])
    return held, right, *rim


def joint_steps(
    count: int, shifts: Sequence[LinearisedShift], free: BoolArray | None = None
) -> tuple[FloatArray, sparse.csc_array]:
    """Find how all frames move at once, (N, 2); what nothing holds stays.

    `free`: which frames, (N,), may move. Returns the matrix of the normal equations of
    all, (2 N, 2 N), as well.
    """
    noise = float(np.median([item.variance for item in shifts]))
    matrix, right, _, _ = assemble(count, shifts, noise)
    if free is None:
        return splu(matrix).solve(right[0].ravel()).reshape(count, 2), matrix
    chosen = np.flatnonzero(np.repeat(free, 2))
    steps = np.zeros(2 * count)
    part = matrix[:, chosen][chosen]
    steps[chosen] = splu(part.tocsc()).solve(right[0].ravel()[chosen])
    return steps.reshape(count, 2), matrix


def _in_order(pairs: Sequence[IntPair], positions: FloatArray) -> list[IntPair]:
    """Pairs of neighbouring frames one after another: each is resampled once."""
    rank = np.argsort(np.lexsort((positions[:, 1], positions[:, 0])))
    return sorted(
        pairs, key=lambda pair: (min(rank[list(pair)]), max(rank[list(pair)]))
    )


def sweep_shifts(
    prepared: CorrectedFrames,
    positions: FloatArray,
    pairs: Sequence[IntPair],
    sigma: float,
    *,
    stretched: bool = False,
    around: Sequence[IntPair] = (),
) -> list[LinearisedShift]:
    """Linearise all pairs, in the order given; `around`: pairs that share the light."""
    sweep = Resampled(prepared, positions, sigma)
    stretch = prepared.stretch() if stretched else None
    near = [{index} for index in range(len(positions))]  # what each frame touches
    for first, second in (*pairs, *around):
        near[first].add(second)
        near[second].add(first)
    shifts = []
    for first, second in pairs:
        shared = sorted(near[first] & near[second])
        item = linearise_pair(sweep, first, second, shared, stretch)
        if item is not None:
            shifts.append(item)
    return shifts


def refine(
    prepared: CorrectedFrames,
    positions: FloatArray,
    pairs: Sequence[IntPair],
    sweeps: Sequence[float],
) -> Iterator[Refined]:
    """Refine positions by the joint likelihood, sweep after sweep.

    `positions` (N, 2), within a pixel or two of the truth, NaN for frames that are left
    out; `sweeps`: width of the Gaussian in each sweep, in px.
    """
    positions = positions.copy()
    pairs = _in_order(pairs, positions)
    settled = 0.0
    for sigma in sweeps:
        if sigma == settled:
            continue
        shifts = sweep_shifts(prepared, positions, pairs, sigma)
        if not shifts:
            yield Refined(positions, (), np.full(positions.shape, np.inf))
            return
        steps, matrix = joint_steps(len(positions), shifts)
        positions = positions + steps
        if np.abs(np.where(np.isfinite(positions), steps, 0)).max() < _SETTLED:
            settled = sigma
        spread = np.where(np.isfinite(positions), spread_of(matrix, sigma), np.nan)
        yield Refined(positions.copy(), tuple(shifts), spread)


def spread_of(matrix: sparse.csc_array, sigma: float) -> FloatArray:
    """Find standard deviations, the mean position of the largest group taken off.

    Smoothing by `sigma` has divided the noise variance by ``4 pi sigma^2`` and
    correlated it over as many pixels; shifts see the variance before that.
    """
    count = matrix.shape[0] // 2
    groups, labels = csgraph.connected_components(matrix[::2, ::2], directed=False)
    adrift = (labels != np.bincount(labels).argmax())[:, None]
    if count > DENSE_LIMIT:
        return np.where(adrift, np.inf, np.full((count, 2), np.nan))
    values, vectors = np.linalg.eigh(matrix.toarray())
    # nothing tells the common shift of a group: its two modes are the softest
    values = np.maximum(values, np.finfo(float).eps * values[-1])[2 * groups :]
    scaled = vectors[:, 2 * groups :] / np.sqrt(values)
    variance = (scaled**2).sum(axis=1) * SMOOTHED * sigma**2
    return np.where(adrift, np.inf, np.sqrt(variance).reshape(count, 2))


# Radial distortion of the field, one number for all frames, with all positions.
#
# A frame that moves its rim by one pixel more moves each place by `stretch`; two frames
# see the same place at different radii, and differ by their gradient times what
# `stretch` differs by. A part that is the same over an overlap looks like a shift of
# the frames, so that positions and distortion are solved for together.


@dataclass(frozen=True, slots=True)
class RimStep:
    """What all pairs together say about the displacement at the rim."""

    step: float  # Change of the displacement, in px
    sigma: float  # Its standard deviation by noise, in px
    excess: float  # How many times more than by noise the pairs scatter, at least 1
    moves: FloatArray  # (N, 2) Change of the positions that goes with it
    # (N, 2) Deviation of the positions by that of the displacement, the mean taken off
    doubt_px: FloatArray


def measure_rim(
    prepared: CorrectedFrames,
    positions: FloatArray,
    pairs: Sequence[IntPair],
    sigma: float,
) -> RimStep | None:
    """Find how far the rim of every frame still lies from its place, to first order.

    `positions` (N, 2), right to a pixel or two; NaN for frames left out; `sigma`: width
    of the Gaussian in px. None where no pair has enough in common.
    """
    pairs = _in_order(pairs, positions)
    shifts = sweep_shifts(prepared, positions, pairs, sigma, stretched=True)
    if not shifts:
        return None
    noise = float(np.median([item.variance for item in shifts]))
    count = len(positions)
    held, right, pull, stiff = assemble(count, shifts, noise)
    moves, coupled = splu(held).solve(right.reshape(2, -1).T).T
    stiffness = float(stiff[0] - right[1].ravel() @ coupled)
    if stiffness <= 0:
        return None
    step = float(pull[0] - right[1].ravel() @ moves) / stiffness
    moves = (moves - step * coupled).reshape(count, 2)
    smoothed = SMOOTHED * sigma**2
    excess = _excess(shifts, moves, step, noise * smoothed)
    spread = float(np.sqrt(smoothed / stiffness))
    known = np.isfinite(positions).all(axis=1)
    pulled = coupled.reshape(count, 2)
    pulled = np.abs(pulled - pulled[known].mean(axis=0)) * spread * excess
    return RimStep(step, spread, excess, moves, pulled)


def _excess(
    shifts: Sequence[LinearisedShift], moves: FloatArray, step: float, noise: float
) -> float:
    """How many times more than noise of a pixel the pairs scatter, at least 1."""
    sums = []
    for item in shifts:
        left = item.step - np.array([*(moves[item.second] - moves[item.first]), step])
        sums.append(float(left @ item.information @ left) / noise)
    # three numbers each, less what positions and rim take; the median is robust
    free = 3 * len(shifts) - 2 * len(moves) - 1
    if free <= 0:
        return 1.0
    expected = special.chdtri(3, 0.5) * free / (3 * len(shifts))
    return max(1.0, float(np.sqrt(np.median(sums) / expected)))


# Small turn and scale of every frame, found together with its position.
#
# A frame is read at ``c + (1 + s) R(t) (x - c)`` about its centre ``c``: to first order
# that adds ``grad F . (s r + t J r)`` with ``r = x - c`` and ``J`` a quarter turn.
# Pairs are linearised in both frames' shift, turn and scale at once; a turn and a scale
# that all frames have in common cannot be seen, and are held at zero by a weak prior.

_SIGMA = 1.5  # px; chosen between the 2 and 1 px of the sweeps, for places still err
_ROUNDS = 4  # chosen: a degree moves corners by some px, each round by up to 2
_EXPECTED = 0.02  # rad, and share of the scale; chosen: about a degree and 2 %
_MIN_TURN_PIXELS = 400  # chosen: twice those of a shift, for twice its unknowns
_FREE = 4  # shift along y and x, turn, scale


def refine_rotations(
    prepared: CorrectedFrames, positions: FloatArray, pairs: Sequence[IntPair]
) -> tuple[CorrectedFrames, FloatArray]:
    """Find rotations and scales, and positions with them.

    `positions` (N, 2), top-left corners, right to a pixel; NaN for frames left out.
    """
    positions = positions.copy()
    for _ in range(_ROUNDS):
        frames = Resampled(prepared, positions, _SIGMA)
        blocks = ((pair, _normal(frames, pair)) for pair in pairs)
        found = [(pair, block) for pair, block in blocks if block is not None]
        if not found:
            return prepared, positions
        steps = _solved(len(positions), found)
        half = max(prepared.frame_shape) / 2
        positions = positions + np.clip(steps[:, :2], -2, 2)
        prepared = prepared.changed(rotations=prepared.rotations + steps[:, 2:] / half)
    return prepared, positions


def _slopes(
    slope: tuple[FloatArray, FloatArray], place: FloatArray, shape: IntPair
) -> list[FloatArray]:
    """Change of the difference with one frame's shift, turn and scale."""
    half = max(shape) / 2
    y = (place[0] - (shape[0] - 1) / 2) / half
    x = (place[1] - (shape[1] - 1) / 2) / half
    down, along = slope
    return [down, along, -(along * y - down * x), -(down * y + along * x)]


def _normal(
    frames: Resampled, pair: IntPair
) -> tuple[FloatArray, FloatArray, float] | None:
    """Make the normal equations of one pair, with its noise variance."""
    boxes = frames.boxes(*pair)
    if boxes is None:
        return None
    one, two = boxes
    a_weight, a, a_y, a_x = (p[one.slices] for p in frames.frame(pair[0]))
    b_weight, b, b_y, b_x = (p[two.slices] for p in frames.frame(pair[1]))
    inside = (a_weight > 0) & (b_weight > 0)
    if int(np.count_nonzero(inside)) < _MIN_TURN_PIXELS:
        return None
    total = (a_weight + b_weight)[inside]
    weight = (a_weight * b_weight)[inside] / total
    slope = ((a_y + b_y)[inside] / 2, (a_x + b_x)[inside] / 2)
    place = np.stack(np.nonzero(inside)).astype(float)
    shape = frames.prepared.frame_shape
    here = _slopes(slope, place + np.array([[one.y0], [one.x0]]), shape)
    there = _slopes(slope, place + np.array([[two.y0], [two.x0]]), shape)
    mean = (a + b)[inside] / 2
    size = np.array(inside.shape)[:, None]
    tilt = place / size - 0.5
    nuisance = [np.ones(len(mean)), mean - mean.mean(), tilt[0], tilt[1]]
    design = np.stack([*(-part for part in here), *there, *nuisance]).astype(float)
    difference = (b - a)[inside].astype(float)
    weighted = design * weight
    normal = weighted @ design.T
    right = weighted @ difference
    free = 2 * _FREE
    held = normal[free:, free:] + 1e-9 * np.trace(normal) * np.eye(len(nuisance))
    taken = np.linalg.solve(held, np.column_stack([normal[free:, :free], right[free:]]))
    left = float(weight @ difference**2 - right[free:] @ taken[:, -1])
    return (
        normal[:free, :free] - normal[:free, free:] @ taken[:, :-1],
        right[:free] - normal[:free, free:] @ taken[:, -1],
        max(left, 1e-12) / len(mean),
    )


def _solved(
    count: int, found: list[tuple[IntPair, tuple[FloatArray, FloatArray, float]]]
) -> FloatArray:
    """Solve for shift (px), turn and scale (times half a frame) of every frame."""
    noise = float(np.median([block[2] for _, block in found]))
    true = noise * SMOOTHED * _SIGMA**2
    rows, columns, values = [], [], []
    right = np.zeros(count * _FREE)
    for (first, second), (normal, gradient, variance) in found:
        share = 1 / (true * max(variance / noise, 0.5))
        index = np.concatenate(
            [first * _FREE + np.arange(_FREE), second * _FREE + np.arange(_FREE)]
        )
        rows.append(np.repeat(index, len(index)))
        columns.append(np.tile(index, len(index)))
        values.append((normal * share).ravel())
        np.add.at(right, index, gradient * share)
    size = count * _FREE
    places = np.concatenate(rows), np.concatenate(columns)
    matrix = sparse.coo_array((np.concatenate(values), places), (size, size)).tocsc()
    scale = float(np.median(matrix.diagonal())) or 1.0
    prior = np.full((count, _FREE), _HOLD * scale)
    prior[:, 2:] += 1 / (_EXPECTED * 100) ** 2
    held = (matrix + sparse.diags_array(prior.ravel())).tocsc()
    return np.asarray(splu(held).solve(right).reshape(count, _FREE))
