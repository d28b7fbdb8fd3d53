"""Small turn and scale of every frame, found together with its position.

A frame is read at ``c + (1 + s) R(t) (x - c)`` about its centre ``c``: to first order
that adds ``grad F . (s r + t J r)`` with ``r = x - c`` and ``J`` a quarter turn. Pairs
are linearised in both frames' shift, turn and scale at once; a turn and a scale that
all frames have in common cannot be seen, and are held at zero by a weak prior.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from napari_semsr.stitch.prepared import Prepared
from napari_semsr.stitch.resampled import Resampled

__all__ = ["refine_turns"]

FloatArray = NDArray[np.float64]
IntPair = tuple[int, int]

_SIGMA = 1.5
_ROUNDS = 4
_EXPECTED = 0.02  # rad, and share of the scale
_HOLD = 1e-7
_MIN_PIXELS = 400
_FREE = 4  # shift along y and x, turn, scale


def refine_turns(
    prepared: Prepared, positions: FloatArray, pairs: Sequence[IntPair]
) -> tuple[Prepared, FloatArray]:
    """Find turns and scales, and positions with them.

    Parameters
    ----------
    prepared : Prepared
        Corrected frames.
    positions : (N, 2) numpy.ndarray
        Top-left corners, right to a pixel; NaN for frames that are left out.
    pairs : sequence of tuple of int
        Placed frames that overlap.

    Returns
    -------
    Prepared
        The frames turned and scaled back.
    (N, 2) numpy.ndarray
        Positions of the frames as they are then.
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
        prepared = prepared.with_turns(prepared.turns + steps[:, 2:] / half)
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
    if int(np.count_nonzero(inside)) < _MIN_PIXELS:
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
