"""Estimation of shading, gains and offsets from overlaps, where the scene cancels.

A frame is ``dark + offset + gain * flat * scene``, with a gain and an offset per frame,
for instance by automatic brightness. In a block that two frames share, their corrected
grey values differ by the errors of the flat field at two pixels of the frame, and by
the errors of two gains and two offsets. Thousands of such differences are fitted at
once, in the logarithms of the missing shading (`SurfaceBasis` of
`napari_semsr.stitching.frames`) and of the gains, and in the offsets.

A prior keeps the field smooth and near its previous value; the priors of gains and
offsets have the variance that the overlaps show, so that a scan of steady light is
fitted as such, and frames of automatic brightness are free. A slope of the field looks
like gains with a trend over the scan. In steady light the mean of all frames decides,
as far as the sample permits; if only offsets change, gains without a trend do. If the
gain of each frame is automatic, nothing decides: the field keeps the slope of the
prior, and the slope that an even mosaic would need is reported.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from napari_semsr import core
from napari_semsr.core import BoolArray, FloatArray, FloatPair, IntPair, RealArray
from napari_semsr.stitching import frames as prepared
from napari_semsr.stitching.frames import CorrectedFrames, FlatField, SurfaceBasis
from napari_semsr.stitching.pairwise import ResampledFrames

# Blocks that two frames share: the scene cancels in the difference of their values.

_BLOCK = 8  # px; chosen: shading changes little over it, noise is averaged by 8


@dataclass(frozen=True, slots=True)
class OverlapBlocks:
    """Blocks shared by two frames; columns are the first and the second frame."""

    pair: NDArray[np.int64]  # (M,) index of the pair
    frames: NDArray[np.int64]  # (M, 2) its frames
    cell: NDArray[np.int64]  # (M, 2) row and column of the block within the overlap
    place_first: FloatArray  # (M, 2) centre of the block in each frame, in px
    place_second: FloatArray
    values: FloatArray  # (M, 2) mean corrected grey value
    # (M, 2) decrease of it per grey level of the frame's offset
    units: FloatArray
    variances: FloatArray  # (M, 2) its variance by pixel noise, up to a constant


def sum_blocks(plane: NDArray[np.float32]) -> FloatArray:
    """Sum a plane over 8 px blocks, (Y // 8, X // 8), dropping partial blocks."""
    blocks = core.reshape_into_blocks(plane, _BLOCK).astype(np.float64)
    return np.asarray(blocks.sum(axis=(1, 3)))


def _compute_shared_blocks(
    frames: ResampledFrames, pair: IntPair, *, with_clipped: bool
) -> tuple[RealArray, ...] | None:
    """Compute block means, positions and variances of both frames in their overlap.

    Clipped pixels of either frame are left out, unless `with_clipped`.
    """
    boxes = frames.get_overlap_boxes(*pair)
    if boxes is None:
        return None
    sides = list(zip(pair, boxes, strict=True))
    parts = [[p[box.slices] for p in frames.get_planes(i)[:2]] for i, box in sides]
    inside = (parts[0][0] > 0) & (parts[1][0] > 0)
    full = sum_blocks(inside.astype(np.float32)) == _BLOCK**2
    for index, box in () if with_clipped else sides:
        is_lost = frames.frames.find_clipped(index)[box.slices]
        if is_lost.any():  # smoothing has mixed it with adjacent pixels
            inside &= ~ndimage.binary_dilation(is_lost, np.ones((3, 3)))
    sound = inside.astype(np.float32)
    count = sum_blocks(sound)
    # chosen: the noise of the mean of 16 px is twice that of all
    usable = full & (count >= 16)
    if not usable.any():
        return None
    cell: RealArray = np.stack(np.nonzero(usable), axis=1)
    place = cell * _BLOCK + (_BLOCK - 1) / 2
    # shading belongs to the camera's pixels, including distortion
    places = [
        frames.frames.compute_raw_positions(place - frames.parts[i] + box.corner)
        for i, box in sides
    ]
    count = count[usable][:, None]

    def average_blocks(planes: Sequence[RealArray]) -> FloatArray:
        sums = [sum_blocks(plane * sound)[usable] for plane in planes]
        return np.asarray(np.stack(sums, axis=1) / count)

    # 1 / (shading * gain)
    roots = [sum_blocks(np.sqrt(weight))[usable] / _BLOCK**2 for weight, _ in parts]
    units = [1 / np.maximum(root, 1e-3) for root in roots]
    return (
        cell,
        *places,
        average_blocks([image for _, image in parts]),
        np.stack(units, axis=1),
        average_blocks([1 / np.maximum(weight, 1e-3) for weight, _ in parts]) / count,
    )


def compare_overlap_blocks(
    frames: CorrectedFrames, positions: FloatArray, pairs: Sequence[IntPair]
) -> OverlapBlocks:
    """Compare overlapping frames block by block; `positions` (N, 2).

    Clipped pixels are left out, unless hardly any other pixels overlap.
    """
    # px; chosen: tolerates errors of positions, as the last sweeps do
    overlaps = ResampledFrames(frames, positions, 1.0, slopes=False)
    common: list[tuple[IntPair, tuple[RealArray, ...]]] = []
    for with_clipped in (False, True):
        common = []
        for pair in pairs:
            part = _compute_shared_blocks(overlaps, pair, with_clipped=with_clipped)
            if part is not None:
                common.append((pair, part))
        if sum(len(part[0]) for _, part in common) >= _ENOUGH_BLOCKS:
            break
    if not common:
        none, whole = np.zeros((0, 2)), np.zeros((0, 2), dtype=np.int64)
        return OverlapBlocks(whole[:, 0], whole, whole, *(none,) * 5)
    sizes = [len(part[0]) for _, part in common]
    columns = [np.concatenate([part[k] for _, part in common]) for k in range(6)]
    return OverlapBlocks(
        np.repeat(np.arange(len(common)), sizes),
        np.repeat([pair for pair, _ in common], sizes, axis=0),
        *columns,
    )


# Remaining shading, gains and offsets in the overlaps.

# Distance of blocks with independent noise: beyond the smoothing of both, and the grain
# of an interpolated camera; chosen
_LAG = 2


def measure_remaining_shading(
    frames: CorrectedFrames,
    positions: FloatArray,
    pairs: Sequence[IntPair],
    pedestal: float = 0.0,
) -> float:
    """Compute the RMS relative difference between corrected frames in overlaps.

    RMS over all blocks, without noise, which is estimated from mixed second differences
    of blocks two blocks apart, in which changes along either axis cancel. At least the
    standard error by noise. `positions` (N, 2); `pedestal` is added to grey values. NaN
    if no blocks overlap.
    """
    blocks = compare_overlap_blocks(frames, positions, pairs)
    level = float(blocks.values.mean() + pedestal) if len(blocks.pair) else 0.0
    if level <= 0:
        return float("nan")
    difference = blocks.values[:, 0] - blocks.values[:, 1]
    width = int(blocks.cell.max()) + _LAG + 1
    key = (blocks.pair * width + blocks.cell[:, 0]) * width + blocks.cell[:, 1]
    corners, complete = [difference], np.ones(len(key), bool)
    for lag in (_LAG, _LAG * width, _LAG * width + _LAG):
        place = np.minimum(np.searchsorted(key, key + lag), len(key) - 1)
        complete &= key[place] == key + lag
        corners.append(difference[place])
    # overlaps too small for four such blocks do not show the noise
    twists = (corners[0] - corners[1] - corners[2] + corners[3])[complete]
    noise = float(np.mean(twists**2)) / 4 if complete.any() else 0.0
    # variance of the mean square minus the noise estimated from four blocks, over the
    # square of the noise, per block: 2 (1 + 9 / 4 - 2 * 1), as each block is in four
    # such sets
    doubt = noise * float(np.sqrt(2.5 / len(key)))
    return float(np.sqrt(max(float(np.mean(difference**2)) - noise, doubt))) / level


# Cells of the splines along an axis, before and after sub-pixel refinement; chosen: a
# cell of the finer grid is wider than two blocks in frames of 200 px and more.
COARSE_KNOTS, FINE_KNOTS = 6, 12
# Prior of the light: s.d. of a gain from frame to frame, of its linear and
# quadratic drift per frame of the scan, and the largest of either. Chosen: light that
# drifts by 20 % leaves a tilt of 0.2 to 1.0 % in the flat field, and so does a field
# tilted by 30 %, in one of four scans 3 % (`benchmarks/stitching.py --light`).
_STEADY = 0.03
_DRIFT = (0.0015, 0.0007)
_MAX_DRIFT = 0.06
_KNOWN_SCATTER = 1e-3  # of gains and offsets known from a whole scan; chosen: they stay
_MAX_LOG = 5.0  # of gain and shading together; chosen: a step never overflows
_CONTRADICTS = 9.0  # three standard deviations, squared; chosen
_HALF = 0.5  # chosen: few frames show variances better than covariances
_BETTER = 0.985  # share of the scatter; chosen: overfitting of noise reduces it less
_ENOUGH_BLOCKS = 100  # chosen: several for each parameter of a surface's broad shape
_ROUNDS = 12  # iterations of a fit; chosen: most converge in five
_FEW_ROUNDS = 3  # iterations of a fit that is only compared with another; chosen


@dataclass(frozen=True, slots=True)
class Shading:
    """Fitted shading, gains and offsets."""

    flat: FlatField  # better one by cross-validation: as given, or refined
    log_gains: FloatArray  # (N,) change of the logarithm of each frame's gain
    offsets: FloatArray  # (N,) change of each frame's offset, in grey values
    # (2,) slope of the logarithm of the field per px, ``(y, x)``, that would make the
    # mosaic even, if the gain of each frame is automatic and the slope thus unknown
    open_slope: FloatPair = (0.0, 0.0)


def _find_valid_blocks(frames: CorrectedFrames) -> tuple[BoolArray, FloatArray]:
    """Return the mask of valid blocks of a frame, and their centres in px."""
    inside = sum_blocks((frames.root > 0).astype(np.float32)) == _BLOCK**2
    corners = np.stack(np.nonzero(inside), axis=1).astype(np.float64) * _BLOCK
    return inside, corners + (_BLOCK - 1) / 2


def _select_sample_frames(has_place: BoolArray) -> list[int]:
    """Select a sample of the placed frames."""
    placed_frames: list[int] = np.flatnonzero(has_place).tolist()
    # chosen: more frames of a mean add little
    return placed_frames[:: max(1, len(placed_frames) // 64)]


def _compute_tilt_and_roundness(
    frames: CorrectedFrames, has_place: NDArray[np.bool_], basis: SurfaceBasis
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Compute the mean frame's tilt and roundness, covariance, and block positions."""
    inside, centres = _find_valid_blocks(frames)
    place = frames.compute_raw_positions(centres)
    shapes = basis.evaluate_shapes(place)
    moments = []
    for index in _select_sample_frames(has_place):
        sums = sum_blocks(frames.correct(int(index))[0])[inside]
        in_light = sums > 0
        if in_light.sum() * 2 < len(in_light):
            continue
        log = np.log(sums[in_light])
        around = shapes[in_light] - shapes[in_light].mean(axis=0)
        moments.append(np.linalg.lstsq(around, log - log.mean())[0])
    if len(moments) < 3:  # chosen: fewer frames have no meaningful covariance
        return np.zeros(shapes.shape[1]), np.eye(shapes.shape[1]), place
    # frames show different parts of the sample: their scatter is its contribution
    spread = np.cov(np.transpose(moments))
    spread = _HALF * spread + (1 - _HALF) * np.diag(np.diag(spread))
    spread = spread / len(moments) + 1e-10 * np.eye(len(spread))
    return np.mean(moments, axis=0), spread, place


def _compute_scatter(values: FloatArray) -> float:
    return float(1.4826 * np.median(np.abs(values))) if len(values) else float("nan")


def compute_gain_prior(count: int, flicker: float) -> FloatArray:
    """Return the (N, N) prior inverse covariance of the log gains."""
    time = np.linspace(-1, 1, count) if count > 1 else np.zeros(1)
    covariance = flicker**2 * np.eye(count)
    for shape, rate in zip((time, time**2 - 1 / 3), _DRIFT, strict=True):
        size = min(rate * count, _MAX_DRIFT)
        level = float(np.sqrt(np.mean(shape**2))) or 1.0
        covariance += (size / level) ** 2 * np.outer(shape, shape)
    return np.asarray(np.linalg.inv(covariance), dtype=float)


def _compute_trend_projector(
    positions: FloatArray, is_known: NDArray[np.bool_]
) -> FloatArray:
    """Compute the (N, N) projector that removes trends caused by a tilted field.

    `is_known` (N,) are frames with overlaps; for few frames only the mean is removed.
    """
    count = int(is_known.sum())
    trend = np.ones((count, 1))
    # chosen: with fewer frames, the scatter of gains about a trend cannot distinguish
    # it from a tilt
    if count >= 6:
        trend = np.column_stack([trend, positions[is_known]])
        trend[:, 1:] -= trend[:, 1:].mean(axis=0)
    basis, sizes, _ = np.linalg.svd(trend, full_matrices=False)
    basis = basis[:, sizes > 1e-6 * sizes[0]]
    projector = np.zeros((len(is_known), len(is_known)))
    projector[np.ix_(is_known, is_known)] = np.eye(count) - basis @ basis.T
    return projector


@dataclass(frozen=True, slots=True)
class _ShadingCorrection:
    """Parameters of the remaining correction."""

    # (F + 1,) coefficients of the logarithm of the missing shading, then the dark level
    surface: FloatArray
    log_gains: FloatArray  # (N,)
    offsets: FloatArray  # (N,) as shares of the typical grey value


class _ShadingProblem:
    """Least-squares problem for shading, gains and offsets over blocks."""

    def __init__(
        self,
        blocks: OverlapBlocks,
        frames: CorrectedFrames,
        positions: FloatArray,
        basis: SurfaceBasis | None,
        expected_frames: CorrectedFrames | None = None,
    ) -> None:
        self.blocks, self.count = blocks, len(frames.gains)
        self.surfaces = [
            np.zeros((len(place), 0)) if basis is None else basis.evaluate(place)
            for place in (blocks.place_first, blocks.place_second)
        ]
        self.surface_apart = self.surfaces[0] - self.surfaces[1]
        self.level = max(float(np.median(np.abs(blocks.values))), 1e-12)
        # the prior of the light applies to the whole gain, not to its change
        self.known_gains = np.log(frames.gains)
        self.known_offsets = frames.offsets / self.level
        if expected_frames is not None:
            self.known_gains -= np.log(expected_frames.gains)
            self.known_offsets -= expected_frames.offsets / self.level
        # s.d. of an offset from frame to frame, as a share of the typical grey value;
        # chosen: so wide at first that overlaps decide
        self.gain_prior, self.offset_sd = compute_gain_prior(self.count, _STEADY), 0.3
        self.flicker = self.scatter = _STEADY
        self.is_known = expected_frames is not None
        if self.is_known:
            self.gain_prior = np.eye(self.count) / _KNOWN_SCATTER**2
            self.offset_sd = _KNOWN_SCATTER
        is_held = np.zeros(self.count, bool)
        is_held[blocks.frames.ravel()] = True
        self.trend_projector = _compute_trend_projector(positions, is_held)
        # the last coefficient is the remaining dark level
        apart = float(np.median(np.abs(blocks.units[:, 0] - blocks.units[:, 1])))
        # as a change of the typical ratio, and of the typical grey value; chosen: wide,
        # overlaps decide, and an even field does not show it
        unit = min(0.1 * self.level / max(apart, 1e-12), 0.3 * self.level)
        self.unit = 0.0 if frames.flat.is_dark_known else unit
        total = blocks.variances.sum(axis=1)
        relative = float(np.median(total)) / np.maximum(total, 1e-30)
        self.relative = np.minimum(relative, 4.0)
        self.noise = self.level
        size = self.surfaces[0].shape[1] + 1
        self.prior, self.pull = np.eye(size), np.zeros(size)
        if basis is not None:
            self.prior[:-1, :-1] = basis.compute_prior()
        self.covariance = np.eye(size)  # of the last fit with the field

    @property
    def zero_correction(self) -> _ShadingCorrection:
        """Identity correction."""
        none = np.zeros(self.count)
        return _ShadingCorrection(np.zeros(len(self.pull)), none, none)

    @property
    def is_steady(self) -> bool:
        """Whether brightness varies between frames no more than in steady light."""
        return self.flicker < 2 * _STEADY and self.offset_sd < _STEADY

    def copy_with_shape_prior(
        self, shape: FloatArray, trust: FloatArray, reader: FloatArray
    ) -> "_ShadingProblem":
        """Return a copy that also fits the broad shape of the mean frame."""
        problem = copy(self)
        problem.prior, problem.pull = self.prior.copy(), self.pull.copy()
        size = reader.shape[1]  # without or with the dark level
        problem.prior[:size, :size] += reader.T @ trust @ reader
        problem.pull[:size] += reader.T @ trust @ shape
        return problem

    def copy_without_shape_prior(self, tilts: FloatArray) -> "_ShadingProblem":
        """Return a copy with shapes (F, 2) constrained only by gains and offsets."""
        problem = copy(self)
        prior = self.prior[:-1, :-1]
        tilt_terms = prior @ tilts
        free_tilts = np.linalg.solve(tilts.T @ tilt_terms, tilt_terms.T)
        problem.prior = self.prior.copy()
        problem.prior[:-1, :-1] -= tilt_terms @ free_tilts
        # chosen: of gains that are equal by the overlaps
        problem.gain_prior = compute_gain_prior(self.count, max(self.scatter, 0.01))
        return problem

    def fit(
        self,
        in_fit: BoolArray,
        start: _ShadingCorrection,
        *,
        with_field: bool,
        learns: bool = False,
        rounds: int = _ROUNDS,
    ) -> _ShadingCorrection:
        """Fit gains, offsets and, if `with_field`, the flat field.

        `learns`: also the noise and the variance between frames, which are then kept.
        """
        correction = start
        for _ in range(rounds):
            left, level, units = self._evaluate_correction(correction)
            weighted_residual = left * np.sqrt(self.relative)
            scatter = _compute_scatter(weighted_residual[in_fit])
            # chosen: this share of the grey value is assumed in every frame
            scatter = max(scatter, 1e-4 * self.level)
            if learns:
                self.noise = scatter
            weight = np.where(in_fit, self.relative / self.noise**2, 0)
            weight = weight / (1 + (weighted_residual / (3 * scatter)) ** 2)
            bright, target, normal, right = self._assemble_normal_equations(
                (left, level, units), weight, correction
            )
            if with_field:
                # the difference's derivatives by surface and dark level, (M, F + 1)
                dark = (units[:, 0] - units[:, 1]) * self.unit
                field = np.column_stack([self.surface_apart * level[:, None], dark])
                more = field @ correction.surface
                heavy = field * weight[:, None]
                mixed_terms = bright.T @ heavy
                own = heavy.T @ field + self.prior
                normal = np.block([[own, mixed_terms.T], [mixed_terms, normal]])
                surface_pull = heavy.T @ (target + more) + self.pull
                right += mixed_terms @ correction.surface
                right = np.concatenate([surface_pull, right])
            numbers = np.asarray(np.linalg.solve(normal, right))
            before = correction
            surface, numbers = np.split(numbers, [len(numbers) - 2 * self.count])
            surface = surface if with_field else before.surface
            correction = _ShadingCorrection(surface, *np.split(numbers, 2))
            if learns:
                self._estimate_variances(correction, np.asarray(np.linalg.inv(normal)))
            change = max(
                np.abs(getattr(correction, f.name) - getattr(before, f.name)).max()
                for f in fields(_ShadingCorrection)
            )
            # of the grey value; chosen: a third of the precision of overlaps
            if change < 3e-4:
                break
        if with_field and rounds > _FEW_ROUNDS:
            size = len(self.pull)
            self.covariance = np.asarray(np.linalg.inv(normal)[:size, :size], float)
        return correction

    def create_shading(
        self, flat: FlatField, correction: _ShadingCorrection
    ) -> Shading:
        """Create the fit result, normalised to a mean gain of 1.

        A dark level below 0 is left to the offsets.
        """
        gains = correction.log_gains - correction.log_gains.mean()
        offsets = correction.offsets * self.level
        if not flat.is_dark_known:
            if not self.is_steady:
                offsets = offsets + np.minimum(flat.dark, 0.0)
            flat = replace(flat, dark=np.maximum(flat.dark, 0.0))
        return Shading(flat, gains, offsets)

    def create_fixed_shading(
        self, flat: FlatField, frames: _ShadingCorrection
    ) -> Shading:
        """Create the result for a flat field of which only the dark level is fitted."""
        if flat.method == "file" and len(self.blocks.pair) >= _ENOUGH_BLOCKS:
            every = np.ones(len(self.blocks.pair), bool)
            frames = self.fit(every, frames, with_field=True)
            dark = flat.dark + float(frames.surface[-1]) * self.unit
            flat = replace(flat, dark=dark)
        return self.create_shading(flat, frames)

    def correct_flat_field(
        self,
        frames: CorrectedFrames,
        basis: SurfaceBasis,
        correction: _ShadingCorrection,
        *,
        is_refined: bool = False,
    ) -> FlatField:
        """Correct the flat field and the dark level using a fit result."""
        surface = basis.evaluate_surface(correction.surface[:-1])
        new_flat = frames.flat.flat * np.exp(np.clip(surface, -1.5, 1.5))
        top = float(np.quantile(new_flat, 0.99))
        single = np.maximum(new_flat / top, 0).astype(np.float32)
        dark = frames.flat.dark + float(correction.surface[-1]) * self.unit
        new = replace(
            frames.flat,
            flat=single,
            dark=dark,
            valid=prepared.compute_valid_mask(single),
        )
        method = f"{new.method.removesuffix(', refined')}, refined"
        return replace(new, method=method) if is_refined else new

    def correct_frames(
        self, frames: CorrectedFrames, flat: FlatField, correction: _ShadingCorrection
    ) -> CorrectedFrames:
        """Correct frames using a fit result and a flat field."""
        return frames.copy_with_changes(
            flat=flat,
            gains=frames.gains * np.exp(correction.log_gains),
            offsets=frames.offsets + correction.offsets * self.level,
        )

    def compute_scatter(
        self, in_fit: BoolArray, correction: _ShadingCorrection
    ) -> float:
        """Compute the robust scatter of the differences after a correction."""
        left = self._evaluate_correction(correction)[0] * np.sqrt(self.relative)
        return _compute_scatter(left[in_fit])

    def compute_relative_scatter(
        self, in_fit: BoolArray, correction: _ShadingCorrection
    ) -> float:
        """Compute the robust scatter of relative differences within pairs."""
        left, level, _ = self._evaluate_correction(correction)
        pair = self.blocks.pair[in_fit]
        # chosen: less of the typical level shows no shading
        share = (left / np.maximum(level, 0.1 * self.level))[in_fit]
        mean = np.bincount(pair, share) / np.maximum(np.bincount(pair), 1)
        return _compute_scatter(share - mean[pair])

    def _evaluate_correction(
        self, correction: _ShadingCorrection
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the frames' difference, their level, and 1 / (shading * gain)."""
        blocks, size = self.blocks, len(self.pull) - 1
        log = correction.log_gains[blocks.frames]
        if correction.surface.any():
            numbers = correction.surface[:size]
            log = log + np.stack([part @ numbers for part in self.surfaces], axis=1)
        offset = correction.offsets[blocks.frames] * self.level
        offset = offset + correction.surface[size] * self.unit
        factor = np.exp(-np.clip(log, -_MAX_LOG, _MAX_LOG))
        units = blocks.units * factor
        values = blocks.values * factor - offset * units
        noise = np.maximum(blocks.variances * factor**2, 1e-30)
        # mean weighted by both variances: its noise is independent of the difference's
        level = (values * noise[:, ::-1]).sum(axis=1) / noise.sum(axis=1)
        return values[:, 0] - values[:, 1], level, units

    def _assemble_normal_equations(
        self,
        differences: tuple[FloatArray, FloatArray, FloatArray],
        weight: FloatArray,
        correction: _ShadingCorrection,
    ) -> tuple[sparse.csr_array, FloatArray, FloatArray, FloatArray]:
        """Assemble the normal equations of gains and offsets.

        `differences`: as from `_evaluate_correction`. Returns their derivatives by each
        gain and offset, (M, 2 N), the differences without correction, and both sides of
        the equations.
        """
        left, level, units = differences
        signs = np.array([1.0, -1.0])
        gains, offsets = level[:, None] * signs, units * signs * self.level
        entries = np.concatenate([gains, offsets], axis=1).ravel()
        frames, count = self.blocks.frames, self.count
        columns = np.concatenate([frames, frames + count], axis=1).ravel()
        starts = np.arange(0, len(entries) + 1, 4)
        bright = sparse.csr_array((entries, columns, starts), (len(level), 2 * count))
        changes = np.concatenate([correction.log_gains, correction.offsets])
        target = left + bright @ changes
        loose = 1 / self.offset_sd**2
        weighted_bright = bright.multiply(weight[:, None]).tocsr()
        normal = (bright.T @ weighted_bright).toarray()
        normal[:count, :count] += self.gain_prior
        normal[count:, count:] += loose * np.eye(count)
        right = weighted_bright.T @ target
        right[:count] -= self.gain_prior @ self.known_gains
        right[count:] -= loose * self.known_offsets
        return bright, target, normal, right

    def _estimate_variances(
        self, correction: _ShadingCorrection, covariance: FloatArray
    ) -> None:
        """Estimate the frame-to-frame variances of gains and offsets.

        One step of expectation maximisation, without trends over the mosaic.
        """
        count, remover = self.count, self.trend_projector
        free = float(np.trace(remover))
        if free < 0.5 or self.is_known:
            return
        sizes = []
        for number, values in enumerate(
            (
                correction.log_gains + self.known_gains,
                correction.offsets + self.known_offsets,
            )
        ):
            own = slice(number * count, (number + 1) * count)
            doubt = float(np.sum(remover * covariance[own, own]))
            sizes.append(float(np.sqrt((values @ remover @ values + doubt) / free)))
        # as a logarithm; chosen: no camera changes its gain by more
        self.scatter = min(sizes[0], 3.0)
        self.flicker = max(self.scatter, _STEADY)
        self.gain_prior = compute_gain_prior(count, self.flicker)
        # chosen: no wider than the range of automatic brightness
        self.offset_sd = float(np.clip(sizes[1], 1e-3, 3.0))


def choose_flat_field(
    frames: CorrectedFrames, positions: FloatArray, pairs: Sequence[IntPair]
) -> FlatField:
    """Discard parts of an initial flat field that belong to the sample.

    It is discarded completely if frames differ less without it. With automatic
    brightness of the frames, overlaps cannot contradict a tilt, but show whether the
    field is round about a point other than the centre. `positions` (N, 2), top-left
    corners, accurate to a pixel.
    """
    flat = frames.flat
    if not flat.valid.all():
        return flat  # a field that ends within the frame is certainly shaded
    blocks = _subsample_blocks(compare_overlap_blocks(frames, positions, pairs))
    if len(blocks.pair) < _ENOUGH_BLOCKS:
        return flat
    plain = _apply_shading_correction(
        blocks, 1 / np.maximum(flat.flat, prepared.MIN_FLAT)
    )

    def compare_scatter(part: OverlapBlocks, centre: FloatPair | None) -> list[float]:
        """Return the scatter after fitting gains and offsets, then a round field."""
        basis = SurfaceBasis(frames.frame_shape, 0, centre)
        problem = _ShadingProblem(part, frames, positions, basis)
        every = np.ones(len(part.pair), bool)
        correction = problem.fit(
            every, problem.zero_correction, with_field=False, learns=True
        )
        left = [problem.compute_scatter(every, correction)]
        if flat.centre is not None and not problem.is_steady:
            correction = problem.fit(every, correction, with_field=True)
            left.append(problem.compute_scatter(every, correction))
        return [value / problem.level for value in left]

    without = compare_scatter(plain, None)
    with_it = compare_scatter(blocks, flat.centre)
    if len(without) > 1 and with_it[-1] > _BETTER * without[-1]:
        flat = prepared.estimate_initial_flat(
            frames.acquisition,
            np.flatnonzero(np.isfinite(positions[:, 0])),
            is_centred=True,
            dark_known=flat.dark if flat.is_dark_known else None,
        )
        shade = np.maximum(flat.flat, prepared.MIN_FLAT)
        with_it = compare_scatter(_apply_shading_correction(plain, shade), None)
    if with_it[0] < without[0] or not flat.valid.all():
        return flat
    return flat.create_uniform()


def _apply_shading_correction(
    blocks: OverlapBlocks, shade: NDArray[np.floating]
) -> OverlapBlocks:
    """Divide blocks of frames by an additional (Y, X) shading."""
    lights = [
        ndimage.map_coordinates(shade, place.T, order=1, mode="nearest")
        for place in (blocks.place_first, blocks.place_second)
    ]
    light = np.stack(lights, axis=1)
    return replace(
        blocks,
        values=blocks.values / light,
        units=blocks.units / light,
        variances=blocks.variances / light**2,
    )


def _subsample_blocks(blocks: OverlapBlocks) -> OverlapBlocks:
    # chosen: all are fitted at once, and time grows with their number
    step = -(-len(blocks.pair) // 12000)
    if step <= 1:
        return blocks
    return OverlapBlocks(*(getattr(blocks, f.name)[::step] for f in fields(blocks)))


def refine_shading(
    corrected_frames: CorrectedFrames,
    positions: FloatArray,
    pairs: Sequence[IntPair],
    *,
    knots: int = COARSE_KNOTS,
    is_fixed: bool = False,
    is_trusted: bool = False,
    expected_frames: CorrectedFrames | None = None,
) -> Shading:
    """Fit shading, gains and offsets to all overlaps.

    The surface is used only if cross-validation supports it, or if `is_trusted`.
    `positions` (N, 2), top-left corners, accurate to a pixel; the frames of
    `expected_frames` have the most likely gains and offsets: 1 and 0 without it;
    `is_fixed`: the flat field does not change, only the dark level of a given one.
    """
    flat = corrected_frames.flat
    blocks = _subsample_blocks(
        compare_overlap_blocks(corrected_frames, positions, pairs)
    )
    if not len(blocks.pair):
        none = np.zeros(len(positions))
        return Shading(flat, none, none)
    few = len(blocks.pair) < _ENOUGH_BLOCKS
    basis = SurfaceBasis(corrected_frames.frame_shape, knots, flat.centre)
    surface = None if few or is_fixed else basis
    problem = _ShadingProblem(
        blocks, corrected_frames, positions, surface, expected_frames
    )
    every = np.ones(len(blocks.pair), bool)
    frames = problem.fit(every, problem.zero_correction, with_field=False, learns=True)
    # below the first s.d. there are no offsets; the second keeps them at 0; chosen:
    # steady light shows a third to two thirds of the first by chance
    if problem.offset_sd < 4e-3 and not problem.is_known:
        problem.offset_sd = 1e-5
        frames = problem.fit(every, frames, with_field=False)
    if few or is_fixed:
        return problem.create_fixed_shading(flat, frames)
    even = problem.correct_frames(corrected_frames, flat, frames)
    shape, spread, place = _compute_tilt_and_roundness(
        even, ~np.isnan(positions[:, 0]), basis
    )
    reader = basis.compute_shape_matrix(place)
    # a tilt of the mean frame may be from the sample, roundness is not
    trust = np.zeros_like(spread)
    trust[2:, 2:] = np.linalg.inv(spread[2:, 2:])
    with_roundness = problem.copy_with_shape_prior(shape, trust, reader)
    is_proven = _cross_validate(with_roundness, frames)
    if is_proven is None:  # no overlaps remain for a test
        return problem.create_shading(flat, frames)
    is_proven = is_proven or is_trusted
    correction = (
        with_roundness.fit(every, frames, with_field=True) if is_proven else frames
    )
    slope, has_changed = np.zeros(2), is_proven
    if problem.is_steady and not problem.is_known and is_proven:
        correction = _fit_with_tilt(
            problem, with_roundness, correction, (shape, spread, reader)
        )
    elif not problem.is_known and not (
        problem.is_steady and problem.scatter <= _STEADY
    ):
        new_flat = problem.correct_flat_field(corrected_frames, basis, correction)
        even = problem.correct_frames(corrected_frames, new_flat, correction)
        other = _minimise_gain_trends(
            with_roundness, correction, basis, (reader, place), even, positions
        )
        # gains without a trend show the slope. Chosen: offsets alone cause a scatter of
        # .001 to .0175, cameras that stretch the contrast of each frame .027 and more
        if problem.scatter <= 0.02:
            correction, has_changed = other, True
        else:
            slope = reader[:2] @ (other.surface - correction.surface)[:-1]
    y, x = (slope / (max(corrected_frames.frame_shape) / 2)).tolist()
    if has_changed:
        frames = correction
        flat = problem.correct_flat_field(
            corrected_frames, basis, frames, is_refined=is_proven
        )
    return replace(problem.create_shading(flat, frames), open_slope=(y, x))


def _cross_validate(
    with_roundness: _ShadingProblem, frames: _ShadingCorrection
) -> bool | None:
    """Cross-validate the field between halves of the pairs; None for too few pairs."""
    pair = with_roundness.blocks.pair
    halves = pair % 2 == 0, pair % 2 == 1
    if not all(half.any() for half in halves):
        return None
    errors = np.zeros((2, 2))
    for half in halves:
        correction = with_roundness.fit(
            ~half, frames, with_field=True, rounds=_FEW_ROUNDS
        )
        for number, start in enumerate((frames, correction)):
            own = with_roundness.fit(half, start, with_field=False, rounds=_FEW_ROUNDS)
            # differences are most sensitive in bright parts, shares in dark parts
            scatter = (
                with_roundness.compute_scatter(half, own),
                with_roundness.compute_relative_scatter(half, own),
            )
            errors[number] += np.square(scatter) * half.sum()
    return bool((errors[1] < _BETTER**2 * errors[0]).any())


def _fit_with_tilt(
    problem: _ShadingProblem,
    with_roundness: _ShadingProblem,
    correction: _ShadingCorrection,
    mean: tuple[FloatArray, FloatArray, FloatArray],
) -> _ShadingCorrection:
    """Fit the field using the tilt of the mean frame, assuming steady light.

    `mean` is its shape, its covariance and its matrix from coefficients. If overlaps
    contradict it, the smaller tilt is more likely: that of the field if the light
    drifted, or none if the sample itself gets brighter along the mosaic.
    """
    shape, spread, reader = mean
    own = reader[:2] @ correction.surface[:-1]
    doubt = reader[:2] @ with_roundness.covariance[:-1, :-1] @ reader[:2].T
    away = shape[:2] - own
    trust = np.asarray(np.linalg.inv(spread), dtype=float)
    with_tilt = problem.copy_with_shape_prior(shape, trust, reader)
    if away @ np.linalg.solve(spread[:2, :2] + doubt, away) > _CONTRADICTS:
        if np.hypot(*own) < np.hypot(*shape[:2]) / 2:
            return correction
        # s.d. of a gain; chosen: ten times that of steady light
        with_tilt.gain_prior = compute_gain_prior(problem.count, 0.3)
    every = np.ones(len(problem.blocks.pair), bool)
    return with_tilt.fit(every, correction, with_field=True)


def _minimise_gain_trends(
    with_roundness: _ShadingProblem,
    correction_found: _ShadingCorrection,
    basis: SurfaceBasis,
    reading: tuple[FloatArray, FloatArray],
    even: CorrectedFrames,
    positions: FloatArray,
) -> _ShadingCorrection:
    """Choose the field slope and dark level that minimise trends in automatic gains.

    A field times exp(a p) at position p in a frame, gains times exp(a x) of frames at
    x and a sample times exp(-a (x + p)) give the same frames, whatever their offsets:
    overlaps do not determine a. Nor do they determine a common offset of all frames if
    the field slopes, and a trend of the offsets with it. Equal light on all frames is
    more likely than a sample whose gradient is compensated by the frames' gains: the
    mosaic gets no slope, unless gains or offsets then had a trend far beyond their
    scatter. In that case they get none. `even` are the frames corrected by
    `correction_found`; `reading`: the matrix from coefficients to broad shapes, and its
    positions.
    """
    reader, place = reading
    slope, spread, level = _compute_mosaic_slope(even, positions)
    # a remaining dark level is a smaller share of brighter light
    shade = np.maximum(even.flat.flat, prepared.MIN_FLAT)
    light = 1 / ndimage.map_coordinates(shade, place.T, order=1, mode="nearest")
    around = place - place.mean(axis=0)
    tilt = np.linalg.lstsq(around, light - light.mean())[0] * max(basis.shape) / 2
    row = np.column_stack([reader[:2], tilt * with_roundness.unit / level])
    numbers = np.zeros((3, len(correction_found.surface)))
    numbers[:2, :-1], numbers[2, -1] = reader[:2], 1
    every = np.ones(len(with_roundness.blocks.pair), bool)

    def compute_change(problem: _ShadingProblem) -> tuple[FloatArray, FloatArray]:
        correction = problem.fit(every, correction_found, with_field=True)
        return correction.surface - correction_found.surface, problem.covariance

    free = with_roundness.copy_without_shape_prior(basis.compute_tilts())
    step, covariance = compute_change(free)
    away = slope - row @ step
    doubt = spread + row @ covariance @ row.T
    # the error of the dark level, in its usual standard deviations, if a sloping field
    # is bent differently from its surface; measured on linear slopes of 20 %
    doubt += 3.0**2 * np.outer(row[:, -1], row[:, -1])
    if away @ np.linalg.solve(doubt, away) <= _CONTRADICTS:
        target_slope = slope + row @ correction_found.surface
        trust = np.asarray(np.linalg.inv(spread), dtype=float)
        step, covariance = compute_change(
            free.copy_with_shape_prior(target_slope, trust, row)
        )
    else:
        step[-1] = 0
    # the part of it beyond chance
    step = numbers @ step
    sure = float(step @ np.linalg.solve(numbers @ covariance @ numbers.T, step))
    # squared slope and dark level, in standard deviations. Chosen: two for each of
    # three parameters, as in Akaike's criterion
    step *= max(0.0, 1 - (6.0 / max(sure, 1e-12)) ** 2)
    if not step.any():
        return correction_found
    surface = correction_found.surface.copy()
    surface[:-1] += basis.compute_tilts() @ step[:2]
    surface[-1] += step[2]
    return with_roundness.fit(
        every, replace(correction_found, surface=surface), with_field=False
    )


def _compute_mosaic_slope(
    even: CorrectedFrames, positions: FloatArray
) -> tuple[FloatArray, FloatArray, float]:
    """Compute the mosaic's relative slope (2,) per half frame, covariance and level.

    From blocks of all frames, which are treated as independent.
    """
    inside, centres = _find_valid_blocks(even)
    half = max(even.frame_shape) / 2
    designs, values = [], []
    for index in _select_sample_frames(np.isfinite(positions[:, 0])):
        image, weight = even.correct(index)
        is_inside = sum_blocks((weight > 0).astype(np.float32))[inside] == _BLOCK**2
        values.append(sum_blocks(image)[inside][is_inside] / _BLOCK**2)
        at = (centres[is_inside] + positions[index]) / half
        designs.append(np.column_stack([np.ones(len(at)), at]))
    design, value = np.concatenate(designs), np.concatenate(values)
    design[:, 1:] -= design[:, 1:].mean(axis=0)
    inverse = np.linalg.pinv(design.T @ design)
    numbers = inverse @ design.T @ value
    left = (value - design @ numbers)[:, None] * design
    ends = np.cumsum([len(part) for part in values])[:-1]
    scores = np.stack([part.sum(axis=0) for part in np.split(left, ends)])
    # Hotelling's limit for two means of few frames over that of infinitely many
    factor, count = 1e12, len(scores)  # two frames have no limit
    if count > 2:
        limit = np.expm1(_CONTRADICTS / (count - 2))
        factor = float((count - 1) * limit / _CONTRADICTS)
    covariance = inverse @ (scores.T @ scores) @ inverse * factor
    level = max(float(numbers[0]), 1e-12)
    spread = covariance[1:, 1:] / level**2 + 1e-10 * np.eye(2)
    return numbers[1:] / level, spread, level
