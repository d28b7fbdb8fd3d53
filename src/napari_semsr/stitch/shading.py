"""Shading and gains from overlaps, where the scene cancels.

Two frames show the same sample in their overlap. The logarithm of the ratio of their
corrected grey values is therefore the difference of what the flat field still lacks at
two places of the frame, plus the difference of two gains. Blocks of 8 px give thousands
of such equations, linear in the logarithm of the missing shading (a smooth spline
surface) and in the gains. Overlaps do not reach the middle of a frame: there the mean of
all frames, with its scatter by the sample, holds the surface.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from napari_semsr.core.tiling import Box
from napari_semsr.stitch.flatfield import FlatField, valid_mask
from napari_semsr.stitch.offsets import overlap_boxes
from napari_semsr.stitch.prepared import Prepared

__all__ = ["BlockRatios", "Shading", "block_ratios", "fit_gains", "refine_shading"]

FloatArray = NDArray[np.float64]
IntPair = tuple[int, int]

_BLOCK = 8
_KNOTS = 6
_GAIN_PRIOR = 0.3
_ROUGH = 30.0
_BETTER = 0.985
_MAX_BLOCKS = 40000


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
    """

    pair: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    place_first: FloatArray
    place_second: FloatArray
    log_ratio: FloatArray
    weight: FloatArray


@dataclass(frozen=True, slots=True)
class Shading:
    """Result of fitting shading and gains together.

    Attributes
    ----------
    flat : FlatField
        The better one by cross-validation: as it came, or refined.
    log_gains : (N,) numpy.ndarray
        Logarithm of each frame's gain, 0 on average.
    residual : float
        Robust scatter of the block ratios that is left (a share of the mean).
    refined : bool
        Whether the refined flat field won.
    """

    flat: FlatField
    log_gains: FloatArray
    residual: float
    refined: bool


def _sums(plane: NDArray[np.float32]) -> FloatArray:
    """Sums over blocks, the ragged border left out."""
    rows, columns = plane.shape[0] // _BLOCK, plane.shape[1] // _BLOCK
    cut = plane[: rows * _BLOCK, : columns * _BLOCK].astype(np.float64)
    summed: FloatArray = cut.reshape(rows, _BLOCK, columns, _BLOCK).sum(axis=(1, 3))
    return summed


def _shared_blocks(
    prepared: Prepared, pair: IntPair, boxes: tuple[Box, Box]
) -> tuple[FloatArray, ...] | None:
    """Block means of both frames over their overlap, with places and weights."""
    one, two = boxes
    a, a_weight = (part[one.slices] for part in prepared.corrected(pair[0]))
    b, b_weight = (part[two.slices] for part in prepared.corrected(pair[1]))
    inside = (a_weight > 0) & (b_weight > 0)
    full = _sums(inside.astype(np.float32)) == _BLOCK**2
    a_sum, b_sum = _sums(a), _sums(b)
    usable = full & (a_sum > 0) & (b_sum > 0)
    if not usable.any():
        return None
    rows, columns = np.nonzero(usable)
    place = np.stack([rows, columns], axis=1) * _BLOCK + (_BLOCK - 1) / 2
    level = (a_sum[usable] + b_sum[usable]) / 2 / _BLOCK**2
    inverse = _sums(np.where(inside, 1 / np.maximum(a_weight, 1e-3), 0)) + _sums(
        np.where(inside, 1 / np.maximum(b_weight, 1e-3), 0)
    )
    return (
        place + (one.y0, one.x0),
        place + (two.y0, two.x0),
        np.log(a_sum[usable] / b_sum[usable]),
        level**2 / inverse[usable],
    )


def block_ratios(
    prepared: Prepared, positions: FloatArray, pairs: Sequence[IntPair]
) -> BlockRatios:
    """Compare overlapping frames block by block.

    Parameters
    ----------
    prepared : Prepared
        Frames, corrected as far as is known.
    positions : (N, 2) numpy.ndarray
        Top-left corners, right to a pixel.
    pairs : sequence of tuple of int
        Placed frames that overlap.

    Returns
    -------
    BlockRatios
        One row for each block that lies within both fields.
    """
    corners = np.round(np.nan_to_num(positions)).astype(int)
    parts: list[tuple[FloatArray, ...]] = []
    frames = []
    for first, second in pairs:
        shift = corners[second] - corners[first]
        boxes = overlap_boxes(prepared.frame_shape, (int(shift[0]), int(shift[1])))
        found = (
            None if boxes is None else _shared_blocks(prepared, (first, second), boxes)
        )
        if found is not None:
            parts.append(found)
            frames.append((len(parts) - 1, first, second, len(found[2])))
    if not parts:
        none, places = np.zeros(0), np.zeros((0, 2))
        whole = np.zeros(0, dtype=np.int64)
        return BlockRatios(whole, whole, whole, places, places, none, none)
    counts = [row[3] for row in frames]
    pair, first, second = (
        np.repeat([row[k] for row in frames], counts).astype(np.int64) for k in range(3)
    )
    stacked = [np.concatenate([part[k] for part in parts]) for k in range(4)]
    return BlockRatios(pair, first, second, *stacked)


def _basis(place: FloatArray, shape: IntPair) -> FloatArray:
    """Cubic B-splines on a grid over the frame, one column for each coefficient."""
    rows, columns = (_axis_basis(place[:, axis], shape[axis]) for axis in range(2))
    product: FloatArray = np.einsum("na,nb->nab", rows, columns)
    return product.reshape(len(place), -1)


def _roughness() -> FloatArray:
    """Second differences of the coefficients along both axes."""
    size = _KNOTS + 3
    second = np.diff(np.eye(size), n=2, axis=0)
    return np.concatenate(
        [np.kron(second, np.eye(size)), np.kron(np.eye(size), second)]
    )


def _mean_frame(
    prepared: Prepared, log_gains: FloatArray, placed: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """What the mean of all frames says of the missing shading, block by block."""
    inside = _sums(prepared.flat.valid.astype(np.float32)) == _BLOCK**2
    chosen = np.flatnonzero(placed)
    chosen = chosen[:: max(1, len(chosen) // 64)]
    logs = []
    for index in chosen:
        sums = _sums(prepared.corrected(int(index))[0])
        with np.errstate(invalid="ignore", divide="ignore"):
            log = np.log(sums) - log_gains[index]
        logs.append(log[inside])
    values = np.stack(logs)
    values -= np.nanmedian(values, axis=1, keepdims=True)
    values = np.where(np.isfinite(values), values, np.nan)
    mean = np.nanmedian(values, axis=0)
    scatter = max(float(np.nanstd(values)), 1e-3)
    weight = np.full(len(mean), len(chosen) / scatter**2 / 8)
    place = np.stack(np.nonzero(inside), axis=1) * _BLOCK + (_BLOCK - 1) / 2
    good = np.isfinite(mean)
    return place[good].astype(float), mean[good], weight[good]


def _scatter(values: FloatArray) -> float:
    return float(1.4826 * np.median(np.abs(values))) if len(values) else float("nan")


class _Problem:
    """Normal equations of shading and gains for a choice of blocks."""

    def __init__(
        self, ratios: BlockRatios, shape: IntPair, count: int, noise: float
    ) -> None:
        self.ratios, self.count = ratios, count
        self.difference = _basis(ratios.place_first, shape) - _basis(
            ratios.place_second, shape
        )
        relative = ratios.weight / max(float(np.median(ratios.weight)), 1e-30)
        self.weight = np.minimum(relative, 4.0) / noise**2
        self.fixed = _ROUGH * _roughness()
        self.mean: tuple[FloatArray, FloatArray, FloatArray] | None = None

    def solve(
        self, chosen: NDArray[np.bool_], shaded: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Coefficients of the surface (0 unless `shaded`) and logarithms of gains."""
        surface = self.difference.shape[1]
        size = surface + self.count
        ratios = self.ratios
        weight = np.where(chosen, self.weight, 0)
        coefficients, gains = np.zeros(surface), np.zeros(self.count)
        for _ in range(4):
            left = ratios.log_ratio - self.predict(coefficients, gains)
            scale = max(3 * _scatter(left[chosen]), 1e-6)
            robust = weight / (1 + (left / scale) ** 2)
            normal, right = self._normal(robust, size, surface)
            if not shaded:
                part = np.linalg.solve(normal[surface:, surface:], right[surface:])
                gains = part
            else:
                part = np.linalg.solve(normal, right)
                coefficients, gains = part[:surface], part[surface:]
        return coefficients, gains - gains.mean()

    def _normal(
        self, weight: FloatArray, size: int, surface: int
    ) -> tuple[FloatArray, FloatArray]:
        ratios, design = self.ratios, self.difference
        normal, right = np.zeros((size, size)), np.zeros(size)
        weighted = design * weight[:, None]
        normal[:surface, :surface] = weighted.T @ design + self.fixed.T @ self.fixed
        normal[:surface, :surface] += 1e-3 * np.eye(surface)
        right[:surface] = weighted.T @ ratios.log_ratio
        if self.mean is not None:
            basis, value, trust = self.mean
            normal[:surface, :surface] += (basis * trust[:, None]).T @ basis
            right[:surface] += (basis * trust[:, None]).T @ value
        first, second = surface + ratios.first, surface + ratios.second
        diagonal = np.arange(surface, size)
        normal[diagonal, diagonal] = 1 / _GAIN_PRIOR**2
        for one, two, sign in (
            (first, first, 1),
            (second, second, 1),
            (first, second, -1),
            (second, first, -1),
        ):
            np.add.at(normal, (one, two), sign * weight)
        mixed = np.zeros((self.count, surface))
        np.add.at(mixed, ratios.first, weighted)
        np.add.at(mixed, ratios.second, -weighted)
        normal[surface:, :surface], normal[:surface, surface:] = mixed, mixed.T
        np.add.at(right, first, weight * ratios.log_ratio)
        np.add.at(right, second, -weight * ratios.log_ratio)
        return normal, right

    def predict(self, coefficients: FloatArray, gains: FloatArray) -> FloatArray:
        """Logarithms of ratios that shading and gains explain."""
        explained: FloatArray = self.difference @ coefficients
        return explained + gains[self.ratios.first] - gains[self.ratios.second]

    def residual(
        self, chosen: NDArray[np.bool_], coefficients: FloatArray
    ) -> FloatArray:
        """What is left of the chosen ratios after shading and each pair's constant."""
        left = self.ratios.log_ratio - self.difference @ coefficients
        left, pair = left[chosen], self.ratios.pair[chosen]
        count = np.bincount(pair)
        mean = np.bincount(pair, left) / np.maximum(count, 1)
        centred: FloatArray = left - mean[pair]
        return centred


def _thinned(ratios: BlockRatios) -> BlockRatios:
    """Every k-th block of a large scan."""
    step = -(-len(ratios.pair) // _MAX_BLOCKS)
    if step <= 1:
        return ratios
    return BlockRatios(
        *(getattr(ratios, name)[::step] for name in BlockRatios.__slots__)
    )


def fit_gains(ratios: BlockRatios, count: int) -> FloatArray:
    """Gains alone, the flat field as it is.

    Parameters
    ----------
    ratios : BlockRatios
        Overlapping blocks.
    count : int
        Frames.

    Returns
    -------
    (N,) numpy.ndarray
        Logarithm of each frame's gain, 0 on average.
    """
    if not len(ratios.pair):
        return np.zeros(count)
    thin = _thinned(ratios)
    noise = max(_scatter(thin.log_ratio - np.median(thin.log_ratio)), 1e-4)
    problem = _Problem(thin, (_BLOCK, _BLOCK), count, noise)
    return problem.solve(np.ones(len(thin.pair), bool), shaded=False)[1]


def refine_shading(
    prepared: Prepared, positions: FloatArray, pairs: Sequence[IntPair]
) -> Shading:
    """Fit shading and gains to all overlaps; keep the surface only if it proves itself.

    Parameters
    ----------
    prepared : Prepared
        Frames, corrected by a first flat field.
    positions : (N, 2) numpy.ndarray
        Top-left corners, right to a pixel.
    pairs : sequence of tuple of int
        Placed frames that overlap.

    Returns
    -------
    Shading
        The flat field that leaves less in overlaps that it was not fitted to.
    """
    count = len(positions)
    ratios = _thinned(block_ratios(prepared, positions, pairs))
    if len(ratios.pair) < 100:
        return Shading(prepared.flat, fit_gains(ratios, count), float("nan"), False)
    every = np.ones(len(ratios.pair), bool)
    noise = max(_scatter(ratios.log_ratio - np.median(ratios.log_ratio)), 1e-4)
    problem = _Problem(ratios, prepared.frame_shape, count, noise)
    _, gains = problem.solve(every, shaded=False)
    placed = np.isfinite(positions).all(axis=1)
    place, value, trust = _mean_frame(prepared, gains, placed)
    problem.mean = (_basis(place, prepared.frame_shape), value, trust)
    flat_error, refined_error = [], []
    nothing = np.zeros(problem.difference.shape[1])
    for half in (ratios.pair % 2 == 0, ratios.pair % 2 == 1):
        fitted, _ = problem.solve(~half, shaded=True)
        flat_error.append(problem.residual(half, nothing))
        refined_error.append(problem.residual(half, fitted))
    before, after = (_scatter(np.concatenate(e)) for e in (flat_error, refined_error))
    if not after < _BETTER * before:
        return Shading(prepared.flat, gains, before, False)
    coefficients, gains = problem.solve(every, shaded=True)
    flat = _corrected_flat(prepared.flat, coefficients)
    return Shading(flat, gains, after, True)


def _corrected_flat(flat: FlatField, coefficients: FloatArray) -> FlatField:
    """Multiply the missing shading into a flat field."""
    rows, columns = flat.flat.shape
    y = _axis_basis(np.arange(rows, dtype=float), rows)
    x = _axis_basis(np.arange(columns, dtype=float), columns)
    size = _KNOTS + 3
    surface = y @ coefficients.reshape(size, size) @ x.T
    changed = flat.flat * np.exp(np.clip(surface, -1.5, 1.5))
    changed = changed / np.quantile(changed, 0.99)
    single = np.maximum(changed, 0).astype(np.float32)
    method = f"{flat.method}, refined"
    return FlatField(single, flat.dark, valid_mask(single), method)


def _axis_basis(place: FloatArray, size: int) -> FloatArray:
    unit = np.clip((place + 0.5) / size, 0, 1 - 1e-9) * _KNOTS
    knots = np.arange(-3, _KNOTS + 4, dtype=float)
    basis: FloatArray = BSpline.design_matrix(unit, knots, 3).toarray()
    return basis
