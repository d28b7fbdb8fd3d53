"""Scans that are drawn: their frames as they are stitched, and the best that can be."""

import itertools

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import Acquisition
from napari_semsr.simulation import Scan

STEP = 0.05
"""Pixels by which a frame is moved either way, to see how it changes."""
MOVES = (np.array([STEP, 0]), np.array([0, STEP]))


def taken(scan: Scan) -> Acquisition:
    """Give a scan's frames with their nominal places."""
    return Acquisition(
        scan.frames,
        scan.names,
        nominal_px=scan.nominal_px,
        pixel_size_nm=scan.pixel_size_nm,
    )


def information(
    true_px: NDArray[np.float64],
    slopes: NDArray[np.float64],
    weights: NDArray[np.float64],
    bend: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Give Fisher's information of frames' places, the picture unknown and eliminated.

    `slopes` (N, 2, Y, X) are of the frames without noise along y and x, `weights`
    (N, Y, X) over the variance. Rows are y and x of frame after frame; where `bend`
    (2, Y, X) says how a distortion moves each pixel, the last is of its coefficient.
    """
    count, side = len(true_px), slopes.shape[-1]
    corner = np.round(true_px).astype(int)
    corner -= corner.min(axis=0)
    total = np.zeros(corner.max(axis=0) + side)
    places = [np.s_[y : y + side, x : x + side] for y, x in corner]
    for place, weight in zip(places, weights, strict=True):
        total[place] += weight
    matrix = np.zeros((2 * count + 1, 2 * count + 1))
    for i, j in itertools.combinations(range(count), 2):
        away = corner[j] - corner[i]
        if (np.abs(away) >= side).any():
            continue
        (y, x), (y1, x1) = np.maximum(away, 0), np.minimum(side, side + away)
        mine = np.s_[y:y1, x:x1]
        other = np.s_[y - away[0] : y1 - away[0], x - away[1] : x1 - away[1]]
        both = weights[i][mine] * weights[j][other]
        both = both / np.maximum(total[places[i]][mine], 1e-30)
        slope = slopes[i][:, *mine]
        apart = 0 * slope if bend is None else bend[:, *other] - bend[:, *mine]
        rows = np.stack([*-slope, *slope, (slope * apart).sum(axis=0)])
        index = [2 * i, 2 * i + 1, 2 * j, 2 * j + 1, 2 * count]
        matrix[np.ix_(index, index)] += np.einsum("ayx,yx,byx->ab", rows, both, rows)
    return matrix if bend is not None else matrix[:-1, :-1]
