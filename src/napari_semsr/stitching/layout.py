"""Whole-pixel layout: one position for each frame from many pairwise shifts.

Shifts are first weighed robustly, so that wrong ones lose their say; those that then
disagree with the others by more than three pixels are dropped, and a pair that was
dropped may come back with another of its candidate shifts that agrees.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import splu

from napari_semsr.core import FloatArray, IntPair
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.pairwise import Candidates, overlap_boxes, surface

_TOLERANCE = 3.0
_ROUNDS = 12
_WEAK = 1e-6


@dataclass(frozen=True, slots=True)
class Joint:
    """One accepted shift between two frames."""

    first: int  # The frames
    second: int  # The frames
    shift: tuple[float, float]  # Position of the second less that of the first
    weight: float  # Its say in the layout


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions that the joints agree on."""

    # (N, 2) Top-left corners; NaN for frames outside the largest connected group
    positions: FloatArray
    joints: tuple[Joint, ...]  # Those that were kept
    dropped: tuple[Joint, ...]  # Those that disagreed


def components(count: int, joints: Sequence[Joint]) -> NDArray[np.int64]:
    """Label the groups of frames that joints hold together.

    Gives (N,).
    """
    first = [joint.first for joint in joints]
    second = [joint.second for joint in joints]
    graph = sparse.coo_array((np.ones(len(joints)), (first, second)), (count, count))
    _, labels = csgraph.connected_components(graph, directed=False)
    sizes = np.bincount(labels)
    rank = np.empty_like(sizes)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    grouped: NDArray[np.int64] = rank[labels].astype(np.int64)
    return grouped


def least_squares(
    count: int,
    joints: Sequence[Joint],
    weights: FloatArray,
    prior: FloatArray | None = None,
) -> FloatArray:
    """Positions that fit all shifts best.

    `weights` (M,); `prior` (N, 2); gives (N, 2).
    """
    first = np.array([joint.first for joint in joints], dtype=np.intp)
    second = np.array([joint.second for joint in joints], dtype=np.intp)
    shift = np.array([joint.shift for joint in joints], dtype=float).reshape(-1, 2)
    held = np.zeros((count, 2)) if prior is None else np.nan_to_num(prior)
    scale = float(weights.max(initial=0.0)) or 1.0
    diagonal = np.full(count, _WEAK * scale)
    np.add.at(diagonal, first, weights)
    np.add.at(diagonal, second, weights)
    indices = np.arange(count)
    matrix = sparse.coo_array(
        (
            np.concatenate([diagonal, -weights, -weights]),
            (
                np.concatenate([indices, first, second]),
                np.concatenate([indices, second, first]),
            ),
        ),
        (count, count),
    )
    right = _WEAK * scale * held
    np.add.at(right, second, weights[:, None] * shift)
    np.add.at(right, first, -weights[:, None] * shift)
    solved: FloatArray = splu(matrix.tocsc()).solve(right)
    return solved


def _residuals(joints: Sequence[Joint], positions: FloatArray) -> FloatArray:
    shift = np.array([joint.shift for joint in joints], dtype=float).reshape(-1, 2)
    first = [joint.first for joint in joints]
    second = [joint.second for joint in joints]
    apart: FloatArray = positions[second] - positions[first] - shift
    return np.hypot(apart[:, 0], apart[:, 1])


def _robust(count: int, joints: Sequence[Joint], prior: FloatArray) -> FloatArray:
    """Reweigh and solve again and again; the scale of doubt shrinks step by step."""
    base = np.array([joint.weight for joint in joints])
    weights = base.copy()
    positions = least_squares(count, joints, weights, prior)
    for step in range(_ROUNDS):
        doubt = max(1.0, 20.0 * 0.6**step)
        away = _residuals(joints, positions)
        weights = base / (1 + (away / doubt) ** 2)
        positions = least_squares(count, joints, weights, prior)
    return positions


def solve_layout(
    count: int, found: Sequence[Candidates], threshold: float, prior: FloatArray
) -> Layout:
    """Join frames by the shifts that agree; `prior` (N, 2)."""
    good = [item for item in found if item.best > threshold]
    joints = [_joint(item, 0) for item in good]
    dropped: list[Joint] = []
    if not joints:
        return Layout(np.full((count, 2), np.nan), (), ())
    positions = _robust(count, joints, prior)
    for _ in range(5):
        joints, dropped, changed = _choose(good, threshold, positions)
        positions = _robust(count, joints, prior) if joints else positions
        if not changed:
            break
    away = _residuals(joints, positions) if joints else np.zeros(0)
    dropped += [j for j, a in zip(joints, away, strict=True) if a > _TOLERANCE]
    joints = [j for j, a in zip(joints, away, strict=True) if a <= _TOLERANCE]
    labels = components(count, joints)
    positions[labels != 0] = np.nan
    if not joints:
        positions[:] = np.nan
    kept = tuple(j for j in joints if labels[j.first] == 0)
    return Layout(positions, kept, tuple(dropped))


def _joint(item: Candidates, which: int) -> Joint:
    y, x = item.shifts[which]
    weight = float(min(item.score[which], 50.0))
    return Joint(item.first, item.second, (float(y), float(x)), weight)


def _choose(
    good: Sequence[Candidates], threshold: float, positions: FloatArray
) -> tuple[list[Joint], list[Joint], bool]:
    """Take of each pair the believed candidate that agrees with the layout."""
    joints, dropped, changed = [], [], False
    for item in good:
        apart = positions[item.second] - positions[item.first]
        away = np.hypot(*(item.shifts - apart).T)
        away[item.score <= threshold] = np.inf
        which = int(np.argmin(away))
        if away[0] <= _TOLERANCE:
            which = 0
        if away[which] > _TOLERANCE:
            dropped.append(_joint(item, 0))
            continue
        changed |= which != 0
        joints.append(_joint(item, which))
    return joints, dropped, changed


# Frames that no single joint holds: all their neighbours are asked together.
#
# One overlap may be too dark or too poor to give a peak of its own. The sum of a
# frame's correlations with all placed neighbours, each in the same place of the mosaic,
# gathers what they have in common.

_SURE = 5.5
_APART = 6
_RIVAL = 0.8


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where a frame lies by all of its neighbours together."""

    position: FloatArray  # (2,) Top-left corner, in whole pixels
    score: float  # Height of the peak in robust standard deviations of the surface
    rival: float  # Height of the next peak elsewhere, as a share of the first
    neighbours: tuple[int, ...]  # Placed frames that were asked

    @property
    def is_sure(self) -> bool:
        """Whether the peak stands out, and alone."""
        return self.score > _SURE and self.rival < _RIVAL


def place_among(
    prepared: CorrectedFrames,
    index: int,
    expected: FloatArray,
    positions: FloatArray,
    reach: IntPair,
) -> Evidence | None:
    """Place one frame among those that have a place.

    `expected` (2,); `positions` (N, 2).
    """
    shape = prepared.frame_shape
    corner = np.round(expected).astype(int)
    cross = np.zeros((2 * reach[0] + 1, 2 * reach[1] + 1))
    variance = np.zeros_like(cross)
    asked = []
    for other in np.flatnonzero(np.isfinite(positions).all(axis=1)):
        shift = corner - np.round(positions[other]).astype(int)
        nominal = (int(shift[0]), int(shift[1]))
        if other == index or overlap_boxes(shape, nominal) is None:
            continue
        found = surface(prepared, (int(other), index), nominal, reach)
        if found is not None:
            cross += found.cross
            variance += np.where(found.cross != 0, found.variance, 0)
            asked.append(int(other))
    floor = 0.05 * float(variance.max(initial=0.0))
    if not asked or floor <= 0:
        return None
    score = np.where(variance > floor, cross / np.sqrt(np.maximum(variance, floor)), 0)
    spread = 1.4826 * float(np.median(np.abs(score[variance > floor])))
    y, x = np.unravel_index(int(np.argmax(score)), score.shape)
    top = float(score[y, x])
    rest = score.copy()
    rest[max(0, y - _APART) : y + _APART + 1, max(0, x - _APART) : x + _APART + 1] = 0
    place = corner + np.array([int(y) - reach[0], int(x) - reach[1]])
    return Evidence(
        place.astype(float),
        top / max(spread, 1e-9),
        float(rest.max()) / max(top, 1e-9),
        tuple(asked),
    )
