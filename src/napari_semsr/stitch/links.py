"""What one pair of frames says about its shift, to first order.

With inverse variances ``w_i`` and the picture unknown, the likelihood of all frames is
a sum over pairs of ``w_i w_j / sum_k w_k * (I_i - I_j)^2`` at each place of the mosaic:
the picture is eliminated exactly. A pair's part of it is linearised in its shift; its
offset, its gain, and a brightness that varies linearly are eliminated. The Hessian is
taken from products of the two frames' gradients, in which independent noise cancels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.tiling import Box
from napari_semsr.stitch.resampled import Resampled

__all__ = ["Link", "linearise"]

FloatArray = NDArray[np.float64]
SingleArray = NDArray[np.float32]
IntPair = tuple[int, int]

_MIN_PIXELS = 200
_LEAST_SHARE = 0.05
_NUISANCE = 4  # offset, gain, brightness that varies along y and along x


@dataclass(frozen=True, slots=True)
class Link:
    """What one pair says about its shift.

    Attributes
    ----------
    first, second : int
        The frames.
    information : (2, 2) numpy.ndarray
        Inverse covariance of the shift, before division by the noise variance.
    step : (2,) numpy.ndarray
        Change of the shift that this pair alone would make, in px.
    variance : float
        Noise variance of the smoothed frames, by their weighted difference.
    pixels : int
        Pixels compared.
    """

    first: int
    second: int
    information: FloatArray
    step: FloatArray
    variance: float
    pixels: int


def _total_weight(
    sweep: Resampled, first: int, box: Box, around: Sequence[int]
) -> SingleArray:
    """Sum of the weights of all frames over a part of one frame."""
    total = np.zeros(box.shape, np.float32)
    corner = sweep.corners[first] + (box.y0, box.x0)
    for other in around:
        y, x = (int(v) for v in corner - sweep.corners[other])
        weight = sweep.frame(other)[0]
        y0, x0 = max(y, 0), max(x, 0)
        y1 = min(y + box.shape[0], weight.shape[0])
        x1 = min(x + box.shape[1], weight.shape[1])
        if y0 < y1 and x0 < x1:
            total[y0 - y : y1 - y, x0 - x : x1 - x] += weight[y0:y1, x0:x1]
    return total


def linearise(
    sweep: Resampled, first: int, second: int, around: Sequence[int]
) -> Link | None:
    """Compare one pair near its present positions.

    Parameters
    ----------
    sweep : Resampled
        Frames on the mosaic's grid.
    first, second : int
        The pair.
    around : sequence of int
        All frames that reach into their overlap, both included.

    Returns
    -------
    Link or None
        None where fewer than 200 pixels can be compared.
    """
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
    return _eliminated(
        (first, second), normal, right, cross, (power, freedom, len(weight))
    )


def _columns(
    shape: IntPair, inside: NDArray[np.bool_], a: SingleArray, b: SingleArray
) -> SingleArray:
    """Offset, gain, and gain that varies linearly along y and x."""
    mean = (a + b)[inside] / 2
    mean = mean - mean.mean()
    y, x = np.nonzero(inside)
    ramp_y = (y / max(shape[0] - 1, 1) - 0.5).astype(np.float32)
    ramp_x = (x / max(shape[1] - 1, 1) - 0.5).astype(np.float32)
    level = np.float32(1)
    stacked: SingleArray = np.stack(
        [np.full(len(y), level, np.float32), mean, ramp_y, ramp_x]
    )
    return stacked


def _crossed(
    weight: SingleArray,
    a: tuple[SingleArray, SingleArray],
    b: tuple[SingleArray, SingleArray],
    inside: NDArray[np.bool_],
) -> FloatArray:
    """Products of one frame's gradient with the other's: free of noise on the mean."""
    one = np.stack([part[inside] for part in a])
    two = np.stack([part[inside] for part in b])
    cross = ((one * weight) @ two.T).astype(float)
    symmetric: FloatArray = (cross + cross.T) / 2
    return symmetric


def _eliminated(
    pair: IntPair,
    normal: FloatArray,
    right: FloatArray,
    cross: FloatArray,
    sums: tuple[float, float, int],
) -> Link:
    """Take the nuisance parameters out of a pair's normal equations.

    The step is the gradient over the Hessian `cross`. The scatter of the gradient goes
    with `normal`, whose slopes hold noise too: where noise rules, the pair is known to
    say little although its slopes are steep.
    """
    power, freedom, pixels = sums
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
    return Link(*pair, information, step, left / max(freedom, 1e-12), pixels)
