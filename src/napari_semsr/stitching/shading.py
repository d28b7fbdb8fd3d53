"""Shading and gains from overlaps, where the scene cancels.

The logarithm of the ratio of two frames' corrected grey values in a block that both
show is the difference of what the flat field still lacks at two places of the frame,
plus the difference of two gains. Thousands of such equations are linear in the
logarithm of the missing shading (`napari_semsr.stitching.flat_field`) and in the gains.
A tilt of the shading looks like gains that change steadily over the scan; there the
mean of all frames decides, as far as the sample lets it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from napari_semsr.core import FloatArray, IntPair
from napari_semsr.stitching.flat_field import (
    MIN_FLAT,
    FlatField,
    SurfaceBasis,
    no_flat,
    valid_mask,
)
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.pairwise import Resampled

# Blocks that two frames share: the scene cancels in the ratio of their grey values.

_BLOCK = 8  # px; chosen: shading changes little over it, noise is averaged by 8
_SIGMA = 1.0  # px; chosen: takes out what places still err by, as the last sweeps do


@dataclass(frozen=True, slots=True)
class OverlapRatios:
    """Blocks that two frames share."""

    pair: NDArray[np.int64]  # (M,) Index of the pair
    first: NDArray[np.int64]  # (M,) Its frames
    second: NDArray[np.int64]
    place_first: FloatArray  # (M, 2) Centre of the block in either frame, in px
    place_second: FloatArray
    # (M,) Logarithm of the first frame's mean over the second's, both corrected
    log_ratio: FloatArray
    weight: FloatArray  # (M,) Inverse variance of it by pixel noise, up to a constant
    # (M,) Change of it for one more count of dark level: the inverse of the first
    # frame's uncorrected level less that of the second's
    offset: FloatArray


def block_sums(plane: NDArray[np.float32]) -> FloatArray:
    """Sum a plane over blocks of 8 px, (Y // 8, X // 8), a ragged border left out."""
    rows, columns = plane.shape[0] // _BLOCK, plane.shape[1] // _BLOCK
    cut = plane[: rows * _BLOCK, : columns * _BLOCK].astype(np.float64)
    return np.asarray(cut.reshape(rows, _BLOCK, columns, _BLOCK).sum(axis=(1, 3)))


def _shared_blocks(frames: Resampled, pair: IntPair) -> tuple[FloatArray, ...] | None:
    """Block means of both frames over their overlap, with places and weights."""
    boxes = frames.boxes(*pair)
    if boxes is None:
        return None
    one, two = boxes
    a_weight, a = (part[one.slices] for part in frames.frame(pair[0])[:2])
    b_weight, b = (part[two.slices] for part in frames.frame(pair[1])[:2])
    inside = (a_weight > 0) & (b_weight > 0)
    full = block_sums(inside.astype(np.float32)) == _BLOCK**2
    a_sum, b_sum = block_sums(a), block_sums(b)
    usable = full & (a_sum > 0) & (b_sum > 0)
    if not usable.any():
        return None
    rows, columns = np.nonzero(usable)
    place = np.stack([rows, columns], axis=1) * _BLOCK + (_BLOCK - 1) / 2
    level = (a_sum[usable] + b_sum[usable]) / 2 / _BLOCK**2
    inverse = block_sums(
        np.where(inside, 1 / np.maximum(a_weight, 1e-3), 0)
    ) + block_sums(np.where(inside, 1 / np.maximum(b_weight, 1e-3), 0))
    # shading belongs to the camera's pixels, distorted as they are
    raw = frames.prepared.raw_places
    return (
        raw(place + np.array((one.y0, one.x0)) - frames.parts[pair[0]]),
        raw(place + np.array((two.y0, two.x0)) - frames.parts[pair[1]]),
        np.log(a_sum[usable] / b_sum[usable]),
        level**2 / inverse[usable],
        (_inverse(a_weight)[usable] - _inverse(b_weight)[usable]) / level,
    )


def _inverse(weight: NDArray[np.float32]) -> FloatArray:
    """One over shading and gain of every block.

    The level itself is taken of both frames together, lest its noise be correlated
    with that of the ratio.
    """
    mean = block_sums(np.sqrt(weight)) / _BLOCK**2
    return 1 / np.maximum(mean, 1e-3)


def overlap_ratios(
    prepared: CorrectedFrames, positions: FloatArray, pairs: Sequence[IntPair]
) -> OverlapRatios:
    """Compare overlapping frames block by block; `positions` (N, 2)."""
    resampled = Resampled(prepared, positions, _SIGMA, slopes=False)
    found = ((pair, _shared_blocks(resampled, pair)) for pair in pairs)
    shared = [(pair, part) for pair, part in found if part is not None]
    if not shared:
        none, places = np.zeros(0), np.zeros((0, 2))
        whole = np.zeros(0, dtype=np.int64)
        return OverlapRatios(whole, whole, whole, places, places, none, none, none)
    rows = np.array([(number, *pair) for number, (pair, _) in enumerate(shared)])
    table = np.repeat(rows, [len(part[2]) for _, part in shared], axis=0)
    stacked = [np.concatenate([part[k] for _, part in shared]) for k in range(5)]
    return OverlapRatios(*table.T, *stacked)


# Cells of the splines along an axis, while places err by a pixel and after; chosen: a
# cell of the finer grid is wider than two blocks in frames of 200 px and more.
COARSE_KNOTS, FINE_KNOTS = 6, 12
# What is thought of light: deviations of a gain from frame to frame, of its linear and
# bent drift for each frame of the scan, and the most of either. Chosen: of light that
# drifts by 20 % they leave 0.2 to 1.0 % in the flat field as a tilt, of a field tilted
# by 30 % as much, in one of four scans 3 % (`benchmarks/stitching.py --light`).
_STEADY, _UNSTEADY = 0.03, 0.3
_DRIFT = (0.0015, 0.0007)
_MOST_DRIFT = 0.06
_CONTRADICTS = 9.0  # three standard deviations, squared; chosen
_HALF = 0.5  # chosen: few frames tell variances better than covariances
_DARK_PRIOR = 0.1  # as a change of the typical ratio; chosen: wide, overlaps decide
_BETTER = 0.985  # of the scatter; chosen: noise alone gains less by the fit's freedom
_MAX_BLOCKS = 12000  # chosen: all are fitted at once, time grows with them
_ENOUGH_BLOCKS = 100  # chosen: some for each number of a surface's broad shape
_SOME_PAIRS = 16  # chosen: two flat fields are told apart by few


@dataclass(frozen=True, slots=True)
class Shading:
    """Result of fitting shading and gains together."""

    flat: FlatField  # The better one by cross-validation: as it came, or refined
    log_gains: FloatArray  # (N,) Logarithm of each frame's gain, 0 on average
    # Robust scatter of the block ratios that is left beyond noise (a share of the
    # mean); NaN where too few blocks overlap
    residual: float
    refined: bool  # Whether the refined flat field won


def _mean_shape(
    prepared: CorrectedFrames, placed: NDArray[np.bool_], basis: SurfaceBasis
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Tilt and roundness of the mean frame, their covariance, and where they count."""
    inside = block_sums((prepared.root > 0).astype(np.float32)) == _BLOCK**2
    chosen = np.flatnonzero(placed)
    chosen = chosen[:: max(1, len(chosen) // 64)]
    place = np.stack(np.nonzero(inside), axis=1).astype(np.float64) * _BLOCK
    place = prepared.raw_places(place + (_BLOCK - 1) / 2)
    shapes = basis.shapes(place)
    moments = []
    for index in chosen:
        sums = block_sums(prepared.corrected(int(index))[0])[inside]
        lit = sums > 0
        if lit.sum() * 2 < len(lit):
            continue
        log = np.log(sums[lit])
        around = shapes[lit] - shapes[lit].mean(axis=0)
        moments.append(np.linalg.lstsq(around, log - log.mean())[0])
    if len(moments) < 3:  # chosen: fewer frames have no covariance to speak of
        return np.zeros(shapes.shape[1]), np.eye(shapes.shape[1]), place
    found = np.array(moments)
    # frames see different parts of the sample: their scatter tells what it adds
    spread = np.cov(found.T)
    spread = _HALF * spread + (1 - _HALF) * np.diag(np.diag(spread))
    return found.mean(axis=0), spread / len(found) + 1e-10 * np.eye(len(spread)), place


def _scatter(values: FloatArray) -> float:
    return float(1.4826 * np.median(np.abs(values))) if len(values) else float("nan")


def _centred(values: FloatArray, pair: NDArray[np.int64]) -> FloatArray:
    """Take each pair's mean off its values."""
    count = np.bincount(pair)
    mean = np.bincount(pair, values) / np.maximum(count, 1)
    return values - mean[pair]


def light_prior(count: int, flicker: float) -> FloatArray:
    """Inverse covariance, (N, N), of the logarithms of gains before any measurement."""
    time = np.linspace(-1, 1, count) if count > 1 else np.zeros(1)
    covariance = flicker**2 * np.eye(count)
    for shape, rate in zip((time, time**2 - 1 / 3), _DRIFT, strict=True):
        size = min(rate * count, _MOST_DRIFT)
        level = float(np.sqrt(np.mean(shape**2))) or 1.0
        covariance += (size / level) ** 2 * np.outer(shape, shape)
    return np.asarray(np.linalg.inv(covariance), dtype=float)


class _ShadingProblem:
    """Normal equations of shading and gains for a choice of blocks."""

    def __init__(
        self, ratios: OverlapRatios, log_gains: FloatArray, basis: SurfaceBasis
    ) -> None:
        self.ratios, self.count = ratios, len(log_gains)
        rows = np.arange(len(ratios.pair))
        signs = np.repeat([1.0, -1.0], len(rows))
        places = (np.tile(rows, 2), np.concatenate([ratios.first, ratios.second]))
        shape = (len(rows), self.count)
        self.incidence = sparse.coo_array((signs, places), shape).tocsr()
        # what is thought of light is said of all of a gain, not of its change
        self.known_gains = log_gains
        self.hold = light_prior(self.count, _STEADY)
        # of blocks about their pair: gains differ from pair to pair
        noise = max(_scatter(_centred(ratios.log_ratio, ratios.pair)), 1e-4)
        surface = basis.at(ratios.place_first) - basis.at(ratios.place_second)
        # the last coefficient is the dark level that is still to be taken off
        typical = max(float(np.median(np.abs(ratios.offset))), 1e-12)
        self.unit = _DARK_PRIOR / typical
        self.difference = np.column_stack([surface, ratios.offset * self.unit])
        relative = ratios.weight / max(float(np.median(ratios.weight)), 1e-30)
        self.weight = np.minimum(relative, 4.0) / noise**2
        size = self.difference.shape[1]
        self.prior, self.pull = np.eye(size), np.zeros(size)
        self.prior[:-1, :-1] = basis.prior()
        self.expected: tuple[FloatArray, FloatArray, FloatArray] | None = None

    def expect(
        self, shape: FloatArray, covariance: FloatArray, reader: FloatArray
    ) -> None:
        """Let the mean frame tell the broad shape, which overlaps may hardly show."""
        trust: FloatArray = np.asarray(np.linalg.inv(covariance), dtype=float)
        self.expected = (shape, trust, reader)
        self.prior[:-1, :-1] += reader.T @ trust @ reader
        self.pull[:-1] += reader.T @ trust @ shape

    def contradiction(self, coefficients: FloatArray) -> float:
        """Squared deviations by which the mean frame contradicts a surface's tilt."""
        if self.expected is None:
            return 0.0
        shape, trust, reader = self.expected
        away = (shape - reader @ coefficients[:-1])[:2]
        return float(away @ trust[:2, :2] @ away)

    def solve(
        self, chosen: NDArray[np.bool_], shaded: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Coefficients of the surface (0 unless `shaded`) and logarithms of gains."""
        surface = self.difference.shape[1]
        size = surface + self.count
        ratios = self.ratios
        weight = np.where(chosen, self.weight, 0)
        coefficients: FloatArray = np.zeros(surface)
        gains: FloatArray = np.zeros(self.count)
        for _ in range(3):
            left = ratios.log_ratio - self.predict(coefficients, gains)
            scale = max(3 * _scatter(left[chosen]), 1e-6)
            robust = weight / (1 + (left / scale) ** 2)
            if shaded:
                both = np.asarray(np.linalg.solve(*self._normal(robust, size, surface)))
                coefficients, gains = both[:surface], both[surface:]
            else:
                gains = np.asarray(np.linalg.solve(*self._normal_of_gains(robust)))
        return coefficients, gains - gains.mean()

    def _normal(
        self, weight: FloatArray, size: int, surface: int
    ) -> tuple[FloatArray, FloatArray]:
        ratios, design = self.ratios, self.difference
        normal, right = np.zeros((size, size)), np.zeros(size)
        weighted = design * weight[:, None]
        normal[:surface, :surface] = weighted.T @ design + self.prior
        right[:surface] = weighted.T @ ratios.log_ratio + self.pull
        gains, right[surface:] = self._normal_of_gains(weight)
        normal[surface:, surface:] = gains
        mixed = self.incidence.T @ weighted
        normal[surface:, :surface], normal[:surface, surface:] = mixed, mixed.T
        return normal, right

    def _normal_of_gains(self, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Make the part of the normal equations that holds gains alone."""
        incidence = self.incidence
        gains = incidence.T @ (incidence * weight[:, None])
        right = incidence.T @ (weight * self.ratios.log_ratio)
        return gains.toarray() + self.hold, right - self.hold @ self.known_gains

    def predict(self, coefficients: FloatArray, gains: FloatArray) -> FloatArray:
        """Logarithms of ratios that shading and gains explain."""
        gained = gains[self.ratios.first]
        return self.difference @ coefficients + gained - gains[self.ratios.second]

    def residual(
        self, chosen: NDArray[np.bool_], coefficients: FloatArray
    ) -> FloatArray:
        """Take shading and each pair's constant off the chosen ratios."""
        left = self.ratios.log_ratio - self.difference @ coefficients
        return _centred(left[chosen], self.ratios.pair[chosen])


def _beyond(scatter: float, ratios: OverlapRatios, noise: float) -> float:
    """Scatter that pixel noise does not explain."""
    expected = noise**2 * float(np.median(1 / ratios.weight)) / _BLOCK**4
    return float(np.sqrt(max(scatter**2 - expected, 0.0)))


def without_flat(
    prepared: CorrectedFrames, positions: FloatArray, pairs: Sequence[IntPair]
) -> FlatField | None:
    """Give up a first flat field that holds the sample rather than the light.

    `positions` (N, 2), top-left corners, right to a pixel.
    """
    flat = prepared.flat
    if not flat.valid.all():
        return None  # a field that ends within the frame is shaded beyond doubt
    some = pairs[:: max(1, len(pairs) // _SOME_PAIRS)]
    ratios = overlap_ratios(prepared, positions, some)
    if len(ratios.pair) < _ENOUGH_BLOCKS:
        return None
    log = np.log(np.maximum(flat.flat, MIN_FLAT))
    first, second = (
        ndimage.map_coordinates(log, place.T, order=1, mode="nearest")
        for place in (ratios.place_first, ratios.place_second)
    )
    plain = replace(ratios, log_ratio=ratios.log_ratio + first - second)
    before, after = (
        _scatter(_centred(part.log_ratio, part.pair)) for part in (plain, ratios)
    )
    if after < before:
        return None
    return no_flat(flat.flat.shape, flat.dark, "none is better")


def refine_shading(
    prepared: CorrectedFrames,
    positions: FloatArray,
    pairs: Sequence[IntPair],
    *,
    knots: int = COARSE_KNOTS,
    noise: float = 0.0,
    fixed: bool = False,
) -> Shading:
    """Fit shading and gains to all overlaps; keep the surface only if it proves itself.

    `positions` (N, 2), top-left corners, right to a pixel.
    """
    count = len(positions)
    ratios = overlap_ratios(prepared, positions, pairs)
    step = -(-len(ratios.pair) // _MAX_BLOCKS)
    if step > 1:
        parts = (getattr(ratios, f.name)[::step] for f in fields(ratios))
        ratios = OverlapRatios(*parts)
    every = np.ones(len(ratios.pair), bool)
    if len(ratios.pair) < _ENOUGH_BLOCKS:  # the flat field as it is
        gains = np.zeros(count)
        if len(ratios.pair):
            basis = SurfaceBasis((_BLOCK, _BLOCK), 1)
            gains = _ShadingProblem(ratios, gains, basis).solve(every, shaded=False)[1]
        return Shading(prepared.flat, gains, float("nan"), False)
    basis = SurfaceBasis(prepared.frame_shape, knots, prepared.flat.centre)
    problem = _ShadingProblem(ratios, np.log(prepared.gains), basis)
    _, gains = problem.solve(every, shaded=False)
    nothing = np.zeros(problem.difference.shape[1])
    if fixed:
        left = _scatter(problem.residual(every, nothing))
        return Shading(prepared.flat, gains, _beyond(left, ratios, noise), False)
    placed: NDArray[np.bool_] = ~np.isnan(positions[:, 0])
    shape, spread, place = _mean_shape(prepared, placed, basis)
    problem.expect(shape, spread, basis.shape_reader(place))
    flat_error, refined_error = [], []
    for half in (ratios.pair % 2 == 0, ratios.pair % 2 == 1):
        fitted, _ = problem.solve(~half, shaded=True)
        flat_error.append(problem.residual(half, nothing))
        refined_error.append(problem.residual(half, fitted))
    before, after = (_scatter(np.concatenate(e)) for e in (flat_error, refined_error))
    if not after < _BETTER * before:
        return Shading(prepared.flat, gains, _beyond(before, ratios, noise), False)
    coefficients, gains = problem.solve(every, shaded=True)
    if problem.contradiction(coefficients) > _CONTRADICTS:
        problem.hold = light_prior(count, _UNSTEADY)
        coefficients, gains = problem.solve(every, shaded=True)
    flat = prepared.flat
    missing = np.exp(np.clip(basis.surface(coefficients[:-1]), -1.5, 1.5))
    changed = flat.flat * missing
    top = float(np.quantile(changed, 0.99))
    single = np.maximum(changed / top, 0).astype(np.float32)
    flat = replace(
        flat,
        flat=single,
        dark=max(flat.dark + float(coefficients[-1]) * problem.unit, 0.0),
        valid=valid_mask(single),
        method=f"{flat.method.removesuffix(', refined')}, refined",
    )
    return Shading(flat, gains, _beyond(after, ratios, noise), True)
