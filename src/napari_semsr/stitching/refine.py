"""Sub-pixel positions of all frames together, to the limit that noise sets.

Each sweep resamples every frame once onto the mosaic's grid by sampled Gaussians,
linearises every pair, and moves all frames at once, each pair weighed by its two-by-two
information. Small rotations and scales are found in the same way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from napari_semsr.core import Box, Float32Array, FloatArray, IntPair
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
    # (2, 2) Inverse covariance of the shift, before division by the noise variance
    information: FloatArray
    step: FloatArray  # (2,) Change of the shift that this pair alone would make, in px
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


def _linearise(
    sweep: Resampled, first: int, second: int, around: Sequence[int]
) -> LinearisedShift | None:
    """Compare one pair near its present positions; None below 200 common pixels."""
    boxes = sweep.boxes(first, second)
    if boxes is None:
        return None
    one, two = boxes
    a_weight, a, a_y, a_x = (part[one.slices] for part in sweep.frame(first))
    b_weight, b, b_y, b_x = (part[two.slices] for part in sweep.frame(second))
    product = a_weight * b_weight
    inside = product > 0
    if int(np.count_nonzero(inside)) < _MIN_PIXELS:
        return None
    total = _total_weight(sweep, first, one, around)[inside]
    weight = product[inside] / total
    freedom = float(((a_weight + b_weight)[inside] / total).sum())
    columns = _columns(one.shape, inside, a, b)
    slopes = np.stack([(a_y + b_y)[inside], (a_x + b_x)[inside]]) / 2
    design = np.concatenate([slopes, columns])
    weighted = design * weight
    normal = (weighted @ design.T).astype(float)
    difference = (b - a)[inside]
    right = (weighted @ difference).astype(float)
    cross = _crossed(weight, (a_y, a_x), (b_y, b_x), inside)
    power = float(np.vdot(weight, difference**2))
    return _eliminated((first, second), normal, right, cross, (power, freedom))


def _columns(
    shape: IntPair, inside: NDArray[np.bool_], a: Float32Array, b: Float32Array
) -> Float32Array:
    """Offset, gain, and gain that varies linearly along y and x."""
    mean = (a + b)[inside] / 2
    mean = mean - mean.mean()
    y, x = np.nonzero(inside)
    ramp_y = (y / max(shape[0] - 1, 1) - 0.5).astype(np.float32)
    ramp_x = (x / max(shape[1] - 1, 1) - 0.5).astype(np.float32)
    level = np.float32(1)
    return np.stack([np.full(len(y), level, np.float32), mean, ramp_y, ramp_x])


def _crossed(
    weight: Float32Array,
    a: tuple[Float32Array, Float32Array],
    b: tuple[Float32Array, Float32Array],
    inside: NDArray[np.bool_],
) -> FloatArray:
    """Products of one frame's gradient with the other's: free of noise on the mean."""
    one = np.stack([part[inside] for part in a])
    two = np.stack([part[inside] for part in b])
    cross = ((one * weight) @ two.T).astype(float)
    return np.asarray((cross + cross.T) / 2)


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
    nuisance = normal[2:, 2:] + 1e-9 * np.trace(normal[2:, 2:]) * np.eye(_NUISANCE)
    mixed = normal[:2, 2:]
    solved = np.linalg.solve(nuisance, np.column_stack([mixed.T, right[2:]]))
    taken = mixed @ solved[:, :2]
    gradient = right[:2] - mixed @ solved[:, 2]
    noisy = normal[:2, :2] - taken
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
    left = max(power - float(right[2:] @ solved[:, 2]), 0.0)
    return LinearisedShift(*pair, information, step, left / max(freedom, 1e-12))


_MAX_STEP = 2.0  # px; chosen: a pair is linear over about the width of the Gaussian
_SETTLED = 1e-3  # px; a tenth of the bound that noise sets (docs/stitching.md)
_HOLD = 1e-7  # of the median information; chosen: holds loose frames, moves no other
_DENSE_LIMIT = 1500  # frames; chosen: their matrix, 3000^2 doubles, takes 72 MB


@dataclass(frozen=True, slots=True)
class Refined:
    """Positions after the last sweep."""

    # (N, 2) Top-left corners; NaN where there was none to start from
    positions: FloatArray
    shifts: tuple[LinearisedShift, ...]  # Of the last sweep
    # (N, 2) Standard deviation of each position by the information of all pairs
    sigma_px: FloatArray


def _solve_steps(
    count: int, shifts: Sequence[LinearisedShift], noise: float
) -> tuple[FloatArray, sparse.csc_array]:
    """Move all frames at once; what nothing holds stays where it is."""
    first = np.array([item.first for item in shifts], dtype=np.intp)
    second = np.array([item.second for item in shifts], dtype=np.intp)
    doubt = np.array([max(item.variance, 0.5 * noise) for item in shifts])
    blocks = np.stack([item.information for item in shifts]) / doubt[:, None, None]
    steps = np.clip(np.stack([item.step for item in shifts]), -_MAX_STEP, _MAX_STEP)
    pull = np.einsum("kab,kb->ka", blocks, steps)
    right = np.zeros((count, 2))
    np.add.at(right, second, pull)
    np.add.at(right, first, -pull)
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
    size = 2 * count
    matrix = sparse.coo_array(
        (
            np.concatenate(values),
            (np.concatenate(rows), np.concatenate(columns)),
        ),
        (size, size),
    ).tocsc()
    tiny = _HOLD * float(np.median(np.abs(blocks[:, [0, 1], [0, 1]])))
    held = (matrix + tiny * sparse.eye_array(size)).tocsc()
    return splu(held).solve(right.ravel()).reshape(count, 2), held


def _around(pairs: Sequence[IntPair], count: int) -> list[set[int]]:
    """Frames that each frame touches, itself included."""
    near = [{index} for index in range(count)]
    for first, second in pairs:
        near[first].add(second)
        near[second].add(first)
    return near


def _sweep_shifts(
    prepared: CorrectedFrames,
    positions: FloatArray,
    pairs: Sequence[IntPair],
    sigma: float,
) -> list[LinearisedShift]:
    """Linearise all pairs, those of neighbouring frames one after another."""
    sweep = Resampled(prepared, positions, sigma)
    near = _around(pairs, len(positions))
    shifts = []
    for first, second in pairs:
        around = sorted(near[first] & near[second])
        item = _linearise(sweep, first, second, around)
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
    order = np.lexsort((positions[:, 1], positions[:, 0]))
    rank = np.argsort(order)
    pairs = sorted(
        pairs, key=lambda pair: (min(rank[list(pair)]), max(rank[list(pair)]))
    )
    settled = 0.0
    for sigma in sweeps:
        if sigma == settled:
            continue
        shifts = _sweep_shifts(prepared, positions, pairs, sigma)
        if not shifts:
            yield Refined(positions, (), np.full(positions.shape, np.nan))
            return
        noise = float(np.median([item.variance for item in shifts]))
        steps, matrix = _solve_steps(len(positions), shifts, noise)
        positions = positions + steps
        if (
            float(np.nanmax(np.abs(np.where(np.isfinite(positions), steps, 0))))
            < _SETTLED
        ):
            settled = sigma
        spread = _spread(matrix, sigma)
        yield Refined(positions.copy(), tuple(shifts), spread)


def _spread(matrix: sparse.csc_array, sigma: float) -> FloatArray:
    """Find standard deviations, the mean position taken off.

    Smoothing by `sigma` has divided the noise variance by ``4 pi sigma^2`` and
    correlated it over as many pixels; shifts see the variance before that.
    """
    count = matrix.shape[0] // 2
    if count > _DENSE_LIMIT:
        return np.full((count, 2), np.nan)
    values, vectors = np.linalg.eigh(matrix.toarray())
    free = values > 1e-6 * values[-1]
    scaled = vectors[:, free] / np.sqrt(values[free])
    variance = (scaled**2).sum(axis=1) * 4 * np.pi * sigma**2
    return np.asarray(np.sqrt(variance).reshape(count, 2))


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
        found = [
            (pair, block)
            for pair in pairs
            if (block := _normal(frames, pair)) is not None
        ]
        if not found:
            return prepared, positions
        steps = _solved(len(positions), found)
        half = max(prepared.frame_shape) / 2
        positions = positions + np.clip(steps[:, :2], -2, 2)
        prepared = prepared.with_rotations(prepared.rotations + steps[:, 2:] / half)
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
    true = noise * 4 * np.pi * _SIGMA**2
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
    matrix = sparse.coo_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
        (size, size),
    ).tocsc()
    scale = float(np.median(matrix.diagonal())) or 1.0
    prior = np.full((count, _FREE), _HOLD * scale)
    prior[:, 2:] += 1 / (_EXPECTED * 100) ** 2
    solved: FloatArray = splu(
        (matrix + sparse.diags_array(prior.ravel())).tocsc()
    ).solve(right)
    return solved.reshape(count, _FREE)
