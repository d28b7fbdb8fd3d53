"""Sub-pixel positions of all frames together, to the limit that noise sets.

With inverse variances ``w_i`` and the picture unknown, the likelihood of all frames is a
sum over pairs of ``w_i w_j / sum_k w_k * (I_i - I_j)^2`` at each place of the mosaic:
the picture is eliminated exactly. Each sweep resamples every frame once onto the
mosaic's grid by sampled Gaussians (smoothing, derivative and sub-pixel shift in one
separable kernel), linearises every pair, eliminates its gain, offset and linear gain,
and solves all shifts at once. The Hessian is taken from products of the two frames'
gradients, in which independent noise cancels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.linalg import splu

from napari_semsr.core.tiling import Box
from napari_semsr.stitch.offsets import overlap_boxes
from napari_semsr.stitch.prepared import BoundedCache, Prepared

__all__ = ["Link", "Refined", "refine", "resample"]

FloatArray = NDArray[np.float64]
SingleArray = NDArray[np.float32]
IntPair = tuple[int, int]

SWEEPS = (2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0)
_CACHE_BYTES = 256 << 20
_MIN_PIXELS = 200
_MAX_STEP = 2.0
_SETTLED = 2e-4
_HOLD = 1e-7
_DENSE_LIMIT = 1500
_NUISANCE = 4  # offset, gain, linear gain along y and x


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


@dataclass(frozen=True, slots=True)
class Refined:
    """Positions after the last sweep.

    Attributes
    ----------
    positions : (N, 2) numpy.ndarray
        Top-left corners; NaN where there was none to start from.
    links : tuple of Link
        Of the last sweep.
    sigma_px : (N, 2) numpy.ndarray
        Standard deviation of each position by the information of all pairs.
    """

    positions: FloatArray
    links: tuple[Link, ...]
    sigma_px: FloatArray


def _kernels(sigma: float, part: float) -> tuple[FloatArray, FloatArray]:
    """Sampled Gaussian and its derivative, reading at ``x - part``.

    The derivative's weights are scaled so that a ramp has slope one.
    """
    radius = int(np.ceil(3.6 * sigma)) + 1
    place = np.arange(-radius, radius + 1) + part
    smooth = np.exp(-0.5 * (place / sigma) ** 2)
    smooth /= smooth.sum()
    slope = -place / sigma**2 * smooth
    slope -= slope.sum() * smooth
    slope /= -(slope * np.arange(-radius, radius + 1)).sum()
    return smooth, -slope


def resample(
    image: SingleArray, part: tuple[float, float], sigma: float
) -> tuple[SingleArray, SingleArray, SingleArray]:
    """Smooth a frame and move it by part of a pixel.

    Parameters
    ----------
    image : (Y, X) numpy.ndarray of float32
        Corrected frame.
    part : tuple of float
        Move by this much, ``(y, x)``: the result at ``x`` is the frame at ``x - part``.
    sigma : float
        Width of the Gaussian in px.

    Returns
    -------
    tuple of (Y, X) numpy.ndarray of float32
        Smoothed frame and its derivatives along y and x.
    """
    (smooth_y, slope_y), (smooth_x, slope_x) = (_kernels(sigma, p) for p in part)
    rows = ndimage.correlate1d(image, smooth_y, axis=0, mode="nearest")
    steep = ndimage.correlate1d(image, slope_y, axis=0, mode="nearest")
    return (
        ndimage.correlate1d(rows, smooth_x, axis=1, mode="nearest"),
        ndimage.correlate1d(steep, smooth_x, axis=1, mode="nearest"),
        ndimage.correlate1d(rows, slope_x, axis=1, mode="nearest"),
    )


class _Sweep:
    """All frames of one sweep, resampled when they are needed."""

    def __init__(self, prepared: Prepared, positions: FloatArray, sigma: float) -> None:
        self.prepared = prepared
        self.sigma = sigma
        self.corners = np.where(np.isfinite(positions), np.round(positions), 0)
        self.corners = self.corners.astype(np.int64)
        self.parts = np.nan_to_num(positions - self.corners)
        self.margin = int(np.ceil(2.0 * sigma)) + 1
        self._cache = BoundedCache(_CACHE_BYTES)

    def frame(self, index: int) -> tuple[SingleArray, ...]:
        """Weight, smoothed frame and its two derivatives on the mosaic's grid."""
        made: tuple[SingleArray, ...] = self._cache.get(
            index, lambda: self._make(index)
        )
        return made

    def _make(self, index: int) -> tuple[SingleArray, ...]:
        image, weight = self.prepared.corrected(index)
        filled = self._filled(image, weight)
        part = (float(self.parts[index, 0]), float(self.parts[index, 1]))
        planes = resample(filled, part, self.sigma)
        return (self._inner(weight), *planes)

    def _filled(self, image: SingleArray, weight: SingleArray) -> SingleArray:
        """Replace what lies outside the field by the level of what lies inside."""
        outside = weight <= 0
        if not outside.any():
            return image
        total = float(weight.sum())
        level = float((image * weight).sum()) / total if total else 0.0
        return np.where(outside, np.float32(level), image)

    def _inner(self, weight: SingleArray) -> SingleArray:
        """Weight without the rim that smoothing has mixed with what lies beyond."""
        inside = ndimage.binary_erosion(
            weight > 0, structure=np.ones((3, 3)), iterations=self.margin
        )
        return np.where(inside, weight, np.float32(0))

    def boxes(self, first: int, second: int) -> tuple[Box, Box] | None:
        """Parts of two frames that show the same place."""
        shift = self.corners[second] - self.corners[first]
        return overlap_boxes(self.prepared.frame_shape, (int(shift[0]), int(shift[1])))


def _total_weight(
    sweep: _Sweep, first: int, box: Box, around: Sequence[int]
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


def _link(sweep: _Sweep, first: int, second: int, around: Sequence[int]) -> Link | None:
    """Linearise one pair."""
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
    normal[:2, :2] = _crossed(weight, (a_y, a_x), (b_y, b_x), inside)
    power = float(np.vdot(weight, difference**2))
    return _eliminated((first, second), normal, right, (power, freedom, len(weight)))


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
    sums: tuple[float, float, int],
) -> Link:
    """Take the nuisance parameters out of a pair's normal equations."""
    power, freedom, pixels = sums
    nuisance = normal[2:, 2:] + 1e-9 * np.trace(normal[2:, 2:]) * np.eye(_NUISANCE)
    mixed = normal[:2, 2:]
    solved = np.linalg.solve(nuisance, np.column_stack([mixed.T, right[2:]]))
    information = normal[:2, :2] - mixed @ solved[:, :2]
    gradient = right[:2] - mixed @ solved[:, 2]
    values, vectors = np.linalg.eigh((information + information.T) / 2)
    values = np.maximum(values, max(1e-3 * float(values[-1]), 1e-12))
    information = (vectors * values) @ vectors.T
    step = np.linalg.solve(information, gradient)
    left = max(power - float(right[2:] @ solved[:, 2]), 0.0)
    return Link(*pair, information, step, left / max(freedom, 1e-12), pixels)


def _solve_steps(
    count: int, links: Sequence[Link], noise: float
) -> tuple[FloatArray, sparse.csc_array]:
    """Move all frames at once; what nothing holds stays where it is."""
    first = np.array([link.first for link in links], dtype=np.intp)
    second = np.array([link.second for link in links], dtype=np.intp)
    doubt = np.array([max(link.variance, 0.5 * noise) for link in links])
    blocks = np.stack([link.information for link in links]) / doubt[:, None, None]
    steps = np.clip(np.stack([link.step for link in links]), -_MAX_STEP, _MAX_STEP)
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


def _sweep_links(
    prepared: Prepared, positions: FloatArray, pairs: Sequence[IntPair], sigma: float
) -> list[Link]:
    """Linearise all pairs, those of neighbouring frames one after another."""
    sweep = _Sweep(prepared, positions, sigma)
    near = _around(pairs, len(positions))
    links = []
    for first, second in pairs:
        around = sorted(near[first] & near[second])
        link = _link(sweep, first, second, around)
        if link is not None:
            links.append(link)
    return links


def refine(
    prepared: Prepared,
    positions: FloatArray,
    pairs: Sequence[IntPair],
    *,
    sweeps: Sequence[float] = SWEEPS,
) -> Iterator[Refined]:
    """Refine positions by the joint likelihood, sweep after sweep.

    Parameters
    ----------
    prepared : Prepared
        Corrected frames.
    positions : (N, 2) numpy.ndarray
        Within a pixel or two of the truth; NaN for frames that are left out.
    pairs : sequence of tuple of int
        All pairs of placed frames that overlap.
    sweeps : sequence of float
        Width of the Gaussian in each sweep, in px.

    Yields
    ------
    Refined
        Positions after each sweep; the last one is the result. Sweeps of equal width
        end early when nothing moves any more.
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
        links = _sweep_links(prepared, positions, pairs, sigma)
        if not links:
            yield Refined(positions, (), np.full(positions.shape, np.nan))
            return
        noise = float(np.median([link.variance for link in links]))
        steps, matrix = _solve_steps(len(positions), links, noise)
        positions = positions + steps
        if (
            float(np.nanmax(np.abs(np.where(np.isfinite(positions), steps, 0))))
            < _SETTLED
        ):
            settled = sigma
        spread = _spread(matrix, sigma)
        yield Refined(positions.copy(), tuple(links), spread)


def _spread(matrix: sparse.csc_array, sigma: float) -> FloatArray:
    """Standard deviations, the mean position taken off.

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
    spread: FloatArray = np.sqrt(variance).reshape(count, 2)
    return spread
