"""Blocks that two frames share: the scene cancels in the ratio of their grey values."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_semsr.stitch.prepared import Prepared
from napari_semsr.stitch.resampled import Resampled

__all__ = ["BLOCK", "BlockRatios", "block_ratios", "block_sums"]

FloatArray = NDArray[np.float64]
IntPair = tuple[int, int]

BLOCK = 8
_SIGMA = 1.0


@dataclass(frozen=True, slots=True)
class BlockRatios:
    """Blocks that two frames share.

    Attributes
    ----------
    pair : (M,) numpy.ndarray of int
        Index of the pair.
    first, second : (M,) numpy.ndarray of int
        The frames.
    place_first, place_second : (M, 2) numpy.ndarray
        Centre of the block in either frame, in px.
    log_ratio : (M,) numpy.ndarray
        Logarithm of the first frame's mean over the second's, both corrected.
    weight : (M,) numpy.ndarray
        Inverse variance of it by pixel noise, up to a constant.
    offset : (M,) numpy.ndarray
        Change of it for one more count of dark level: the inverse of the first frame's
        uncorrected level less that of the second's.
    """

    pair: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    place_first: FloatArray
    place_second: FloatArray
    log_ratio: FloatArray
    weight: FloatArray
    offset: FloatArray


def block_sums(plane: NDArray[np.float32]) -> FloatArray:
    """Sum a plane over square blocks; a ragged border is left out.

    Parameters
    ----------
    plane : (Y, X) numpy.ndarray
        Values.

    Returns
    -------
    (Y // 8, X // 8) numpy.ndarray
        Sums over blocks of 8 px.
    """
    rows, columns = plane.shape[0] // BLOCK, plane.shape[1] // BLOCK
    cut = plane[: rows * BLOCK, : columns * BLOCK].astype(np.float64)
    summed: FloatArray = cut.reshape(rows, BLOCK, columns, BLOCK).sum(axis=(1, 3))
    return summed


def _shared_blocks(frames: Resampled, pair: IntPair) -> tuple[FloatArray, ...] | None:
    """Block means of both frames over their overlap, with places and weights."""
    boxes = frames.boxes(*pair)
    if boxes is None:
        return None
    one, two = boxes
    a_weight, a = (part[one.slices] for part in frames.frame(pair[0])[:2])
    b_weight, b = (part[two.slices] for part in frames.frame(pair[1])[:2])
    inside = (a_weight > 0) & (b_weight > 0)
    full = block_sums(inside.astype(np.float32)) == BLOCK**2
    a_sum, b_sum = block_sums(a), block_sums(b)
    usable = full & (a_sum > 0) & (b_sum > 0)
    if not usable.any():
        return None
    rows, columns = np.nonzero(usable)
    place = np.stack([rows, columns], axis=1) * BLOCK + (BLOCK - 1) / 2
    level = (a_sum[usable] + b_sum[usable]) / 2 / BLOCK**2
    inverse = block_sums(
        np.where(inside, 1 / np.maximum(a_weight, 1e-3), 0)
    ) + block_sums(np.where(inside, 1 / np.maximum(b_weight, 1e-3), 0))
    return (
        place + np.array((one.y0, one.x0)) - frames.parts[pair[0]],
        place + np.array((two.y0, two.x0)) - frames.parts[pair[1]],
        np.log(a_sum[usable] / b_sum[usable]),
        level**2 / inverse[usable],
        (_inverse(a_weight)[usable] - _inverse(b_weight)[usable]) / level,
    )


def _inverse(weight: NDArray[np.float32]) -> FloatArray:
    """One over shading and gain of every block.

    The level itself is taken of both frames together, lest its noise be correlated
    with that of the ratio.
    """
    mean = block_sums(np.sqrt(weight)) / BLOCK**2
    inverse: FloatArray = 1 / np.maximum(mean, 1e-3)
    return inverse


def block_ratios(
    prepared: Prepared, positions: FloatArray, pairs: Sequence[IntPair]
) -> BlockRatios:
    """Compare overlapping frames block by block.

    Parameters
    ----------
    prepared : Prepared
        Frames, corrected as far as is known.
    positions : (N, 2) numpy.ndarray
        Top-left corners; the better they are, the less the scene disturbs.
    pairs : sequence of tuple of int
        Placed frames that overlap.

    Returns
    -------
    BlockRatios
        One row for each block that lies within both fields.
    """
    resampled = Resampled(prepared, positions, _SIGMA, slopes=False)
    parts: list[tuple[FloatArray, ...]] = []
    frames = []
    for first, second in pairs:
        found = _shared_blocks(resampled, (first, second))
        if found is not None:
            parts.append(found)
            frames.append((len(parts) - 1, first, second, len(found[2])))
    if not parts:
        none, places = np.zeros(0), np.zeros((0, 2))
        whole = np.zeros(0, dtype=np.int64)
        return BlockRatios(whole, whole, whole, places, places, none, none, none)
    table = np.repeat(
        np.array([row[:3] for row in frames], dtype=np.int64),
        [row[3] for row in frames],
        axis=0,
    )
    stacked = [np.concatenate([part[k] for part in parts]) for k in range(5)]
    return BlockRatios(table[:, 0], table[:, 1], table[:, 2], *stacked)
