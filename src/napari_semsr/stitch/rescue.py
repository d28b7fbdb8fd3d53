"""Frames that no single joint holds: all their neighbours are asked together.

One overlap may be too dark or too poor to give a peak of its own. The sum of a frame's
correlations with all placed neighbours, each in the same place of the mosaic, gathers
what they have in common.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_semsr.stitch.offsets import overlap_boxes, surface
from napari_semsr.stitch.prepared import Prepared

__all__ = ["Evidence", "place_among"]

FloatArray = NDArray[np.float64]
IntPair = tuple[int, int]

SURE = 5.5
_APART = 6
_RIVAL = 0.8


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where a frame lies by all of its neighbours together.

    Attributes
    ----------
    position : (2,) numpy.ndarray
        Top-left corner, in whole pixels.
    score : float
        Height of the peak in robust standard deviations of the surface.
    rival : float
        Height of the next peak elsewhere, as a share of the first.
    neighbours : tuple of int
        Placed frames that were asked.
    """

    position: FloatArray
    score: float
    rival: float
    neighbours: tuple[int, ...]

    @property
    def is_sure(self) -> bool:
        """Whether the peak stands out, and alone."""
        return self.score > SURE and self.rival < _RIVAL


def place_among(
    prepared: Prepared,
    index: int,
    expected: FloatArray,
    positions: FloatArray,
    reach: IntPair,
) -> Evidence | None:
    """Place one frame among those that have a place.

    Parameters
    ----------
    prepared : Prepared
        The frames.
    index : int
        Frame to place.
    expected : (2,) numpy.ndarray
        Where it is expected.
    positions : (N, 2) numpy.ndarray
        Solved corners; NaN for frames without a place.
    reach : tuple of int
        Largest departure from it.

    Returns
    -------
    Evidence or None
        None when no placed frame is near.
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
