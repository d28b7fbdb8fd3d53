"""Shading, gains and offsets from overlaps, where the scene cancels.

A frame is ``dark + offset + gain * flat * scene``, with a gain and an offset of each
frame, such as automatic brightness gives it. The corrected grey values of two frames in
a block that both show differ by what the flat field still lacks at two places of the
frame, and by what is wrong with two gains and two offsets. Thousands of such
differences are fitted at once, in the logarithms of the missing shading
(`napari_semsr.stitching.flat_field`) and of the gains, and in the offsets.

The field is held smooth and near what it was; frames are held as closely to each other
as the overlaps show them to be, so that a scan of steady light is fitted as such, and
frames of automatic brightness are free. A slope of the field looks like gains that
change steadily over the scan. In steady light the mean of all frames decides, as far as
the sample lets it; where offsets alone change, gains without a trend do. Where the gain
of each frame is automatic, nothing decides: the field keeps the slope that the prior
has, and the slope that an even mosaic would need is reported.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from napari_semsr.core import BoolArray, FloatArray, FloatPair, IntPair
from napari_semsr.stitching.flat_field import (
    MIN_FLAT,
    FlatField,
    SurfaceBasis,
    first_flat,
    no_flat,
    valid_mask,
)
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.pairwise import Resampled

# Blocks that two frames share: the scene cancels in the difference of their values.

_BLOCK = 8  # px; chosen: shading changes little over it, noise is averaged by 8
_SIGMA = 1.0  # px; chosen: takes out what places still err by, as the last sweeps do
_SOUND = 16  # px of a block; chosen: noise of their mean is twice that of the whole


@dataclass(frozen=True, slots=True)
class OverlapBlocks:
    """Blocks that two frames share; columns are the first and the second frame."""

    pair: NDArray[np.int64]  # (M,) Index of the pair
    frames: NDArray[np.int64]  # (M, 2) Its frames
    cell: NDArray[np.int64]  # (M, 2) Row and column of the block within the overlap
    place_first: FloatArray  # (M, 2) Centre of the block in either frame, in px
    place_second: FloatArray
    values: FloatArray  # (M, 2) Mean corrected grey value
    # (M, 2) Change of it for one grey level more of the frame's offset, less its sign
    units: FloatArray
    variances: FloatArray  # (M, 2) Of it by pixel noise, up to a constant


def block_sums(plane: NDArray[np.float32]) -> FloatArray:
    """Sum a plane over blocks of 8 px, (Y // 8, X // 8), a ragged border left out."""
    rows, columns = plane.shape[0] // _BLOCK, plane.shape[1] // _BLOCK
    cut = plane[: rows * _BLOCK, : columns * _BLOCK].astype(np.float64)
    return np.asarray(cut.reshape(rows, _BLOCK, columns, _BLOCK).sum(axis=(1, 3)))


def _shared_blocks(
    frames: Resampled, pair: IntPair, *, with_clipped: bool
) -> tuple[NDArray[Any], ...] | None:
    """Block means of both frames over their overlap, with places and variances.

    Where either frame has lost its grey values it is left out, unless `with_clipped`.
    """
    boxes = frames.boxes(*pair)
    if boxes is None:
        return None
    sides = list(zip(pair, boxes, strict=True))
    parts = [
        [plane[box.slices] for plane in frames.frame(index)[:2]] for index, box in sides
    ]
    inside = (parts[0][0] > 0) & (parts[1][0] > 0)
    full = block_sums(inside.astype(np.float32)) == _BLOCK**2
    for index, box in () if with_clipped else sides:
        is_lost = frames.prepared.find_clipped(index)[box.slices]
        if is_lost.any():  # smoothing has mixed it with what lies beside
            inside &= ~ndimage.binary_dilation(is_lost, np.ones((3, 3)))
    sound = inside.astype(np.float32)
    count = block_sums(sound)
    usable = full & (count >= _SOUND)
    if not usable.any():
        return None
    cell: NDArray[Any] = np.stack(np.nonzero(usable), axis=1)
    place = cell * _BLOCK + (_BLOCK - 1) / 2
    # shading belongs to the camera's pixels, distorted as they are
    places = [
        frames.prepared.raw_places(place - frames.parts[index] + (box.y0, box.x0))
        for index, box in sides
    ]
    count = count[usable][:, None]

    def means(planes: Sequence[NDArray[Any]]) -> FloatArray:
        sums = [block_sums(plane * sound)[usable] for plane in planes]
        return np.asarray(np.stack(sums, axis=1) / count)

    return (
        cell,
        *places,
        means([image for _, image in parts]),
        np.stack([_unit(weight)[usable] for weight, _ in parts], axis=1),
        means([1 / np.maximum(weight, 1e-3) for weight, _ in parts]) / count,
    )


def _unit(weight: NDArray[np.float32]) -> FloatArray:
    """One over shading and gain of every block."""
    mean = block_sums(np.sqrt(weight)) / _BLOCK**2
    return 1 / np.maximum(mean, 1e-3)


def overlap_blocks(
    frames: CorrectedFrames, positions: FloatArray, pairs: Sequence[IntPair]
) -> OverlapBlocks:
    """Compare overlapping frames block by block; `positions` (N, 2).

    What has lost its grey values is left out, unless hardly anything else overlaps.
    """
    overlaps = Resampled(frames, positions, _SIGMA, slopes=False)
    common: list[tuple[IntPair, tuple[NDArray[Any], ...]]] = []
    for with_clipped in (False, True):
        blocks = (
            (pair, _shared_blocks(overlaps, pair, with_clipped=with_clipped))
            for pair in pairs
        )
        common = [(pair, part) for pair, part in blocks if part is not None]
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


# What is left of the shading, of gains and of offsets, in the overlaps.

# Blocks apart, whose noise is independent: beyond the smoothing of both, and the grain
# of an interpolated camera; chosen
_LAG = 2
# Variance of the mean square less the noise that four blocks tell, by the square of the
# noise, for each block: 2 (1 + 9 / 4 - 2 * 1), as each block is in four such sets
_DOUBT = 2.5


def remaining_shading(
    frames: CorrectedFrames,
    positions: FloatArray,
    pairs: Sequence[IntPair],
    pedestal: float = 0.0,
) -> float:
    """Difference of corrected frames where they overlap, as a share of their mean.

    RMS over all blocks, noise left out: that is told by mixed second differences of
    blocks two blocks apart, in which what changes along either axis cancels. No less
    than the standard error that noise leaves.
    `positions` (N, 2); `pedestal` is added to grey values. NaN if no blocks overlap.
    """
    blocks = overlap_blocks(frames, positions, pairs)
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
    # of overlaps so small that they hold no such four, noise is not told
    twists = (corners[0] - corners[1] - corners[2] + corners[3])[complete]
    noise = float(np.mean(twists**2)) / 4 if complete.any() else 0.0
    doubt = noise * float(np.sqrt(_DOUBT / len(key)))
    return float(np.sqrt(max(float(np.mean(difference**2)) - noise, doubt))) / level


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
# Deviations of an offset from frame to frame, as a share of the typical grey value, at
# the beginning and the least and the most that are believed. Chosen: so wide at first
# that overlaps decide, and no wider than automatic brightness goes.
_OFFSETS, _LEAST_OFFSETS, _MOST_OFFSETS = 0.3, 1e-3, 3.0
# Less than the first is none, and offsets are held to 0 by the second; chosen: steady
# light shows a third to two thirds of it by chance
_NO_OFFSETS, _NONE = 4e-3, 1e-5
_KNOWN = 1e-3  # of gains and offsets that a whole scan has told; chosen: they stay
_MOST_FLICKER = 3.0  # as a logarithm; chosen: no camera changes its gain by more
_MOST_LOG = 5.0  # of gain and shading together; chosen: a step never overflows
# Chosen: of fewer frames, gains that change steadily cannot be told from a tilt by how
# they scatter about it.
_FRAMES_OF_A_TREND = 6
_CONTRADICTS = 9.0  # three standard deviations, squared; chosen
_MOST_READ = 64  # frames of a mean; chosen: more tell the same again
# Of the slope and the dark level, squared, in their standard deviations; less is none.
# Chosen: two for each of three numbers, as Akaike's criterion has it.
_CHANCE = 6.0
_HALF = 0.5  # chosen: few frames tell variances better than covariances
_DARK_PRIOR = 0.1  # as a change of the typical ratio; chosen: wide, overlaps decide
_MOST_DARK = 0.3  # of the typical grey value; chosen: an even field tells nothing of it
# Standard deviations of the usual one that a field which bends otherwise than its
# surface displaces the dark level by, if it slopes; measured on linear slopes of 20 %
_BENT_DARK = 3.0
# Scatter of gains that still count as equal. Chosen: offsets alone leave .001 to .0175
# of it, cameras that stretch each frame .027 and more.
_EQUAL = 0.02
_LEAST_FLICKER = 0.01  # of gains that overlaps show to be equal; chosen
_BETTER = 0.985  # of the scatter; chosen: noise alone gains less by the fit's freedom
_MAX_BLOCKS = 12000  # chosen: all are fitted at once, time grows with them
_ENOUGH_BLOCKS = 100  # chosen: some for each number of a surface's broad shape
_ROUNDS = 12  # of a fit at most; chosen: most settle in five
_FEW_ROUNDS = 3  # of a fit that is only compared with another; chosen
_SETTLED = 3e-4  # of the grey value; chosen: a third of what overlaps tell
_LEAST_LEVEL = 0.1  # of the typical one; chosen: less tells no shading
_LEAST_NOISE = 1e-4  # of the grey value; chosen: as if there were some in any frame


@dataclass(frozen=True, slots=True)
class Shading:
    """Result of fitting shading, gains and offsets together."""

    flat: FlatField  # The better one by cross-validation: as it came, or refined
    log_gains: FloatArray  # (N,) Change of the logarithm of each frame's gain
    offsets: FloatArray  # (N,) Change of each frame's offset, in grey values
    refined: bool  # Whether the refined flat field won
    # (2,) Slope of the logarithm of the field per px, ``(y, x)``, by which the mosaic
    # would be even, where the gain of each frame is automatic, so that none is known
    open_slope: FloatPair = (0.0, 0.0)


def _whole_blocks(frames: CorrectedFrames) -> tuple[BoolArray, FloatArray]:
    """Blocks of a frame that hold grey values, as a mask, and their centres in px."""
    inside = block_sums((frames.root > 0).astype(np.float32)) == _BLOCK**2
    corners = np.stack(np.nonzero(inside), axis=1).astype(np.float64) * _BLOCK
    return inside, corners + (_BLOCK - 1) / 2


def _some(has_place: BoolArray) -> list[int]:
    """Choose frames for a mean, of the placed ones."""
    placed_frames = np.flatnonzero(has_place)
    return [
        int(index)
        for index in placed_frames[:: max(1, len(placed_frames) // _MOST_READ)]
    ]


def _mean_shape(
    frames: CorrectedFrames, has_place: NDArray[np.bool_], basis: SurfaceBasis
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Tilt and roundness of the mean frame, their covariance, and where they count."""
    inside, centres = _whole_blocks(frames)
    place = frames.raw_places(centres)
    shapes = basis.shapes(place)
    moments = []
    for index in _some(has_place):
        sums = block_sums(frames.correct(int(index))[0])[inside]
        in_light = sums > 0
        if in_light.sum() * 2 < len(in_light):
            continue
        log = np.log(sums[in_light])
        around = shapes[in_light] - shapes[in_light].mean(axis=0)
        moments.append(np.linalg.lstsq(around, log - log.mean())[0])
    if len(moments) < 3:  # chosen: fewer frames have no covariance to speak of
        return np.zeros(shapes.shape[1]), np.eye(shapes.shape[1]), place
    moments_array = np.array(moments)
    # frames see different parts of the sample: their scatter tells what it adds
    spread = np.cov(moments_array.T)
    spread = _HALF * spread + (1 - _HALF) * np.diag(np.diag(spread))
    return (
        moments_array.mean(axis=0),
        spread / len(moments_array) + 1e-10 * np.eye(len(spread)),
        place,
    )


def _scatter(values: FloatArray) -> float:
    return float(1.4826 * np.median(np.abs(values))) if len(values) else float("nan")


def light_prior(count: int, flicker: float) -> FloatArray:
    """Inverse covariance, (N, N), of the logarithms of gains before any measurement."""
    time = np.linspace(-1, 1, count) if count > 1 else np.zeros(1)
    covariance = flicker**2 * np.eye(count)
    for shape, rate in zip((time, time**2 - 1 / 3), _DRIFT, strict=True):
        size = min(rate * count, _MOST_DRIFT)
        level = float(np.sqrt(np.mean(shape**2))) or 1.0
        covariance += (size / level) ** 2 * np.outer(shape, shape)
    return np.asarray(np.linalg.inv(covariance), dtype=float)


def _beside_a_trend(positions: FloatArray, is_known: NDArray[np.bool_]) -> FloatArray:
    """Projector, (N, N), onto what changes otherwise than a tilted field would look.

    `is_known` (N,) are frames that overlaps hold; of few frames only the mean is taken.
    """
    count = int(is_known.sum())
    trend = np.ones((count, 1))
    if count >= _FRAMES_OF_A_TREND:
        trend = np.column_stack([trend, positions[is_known]])
        trend[:, 1:] -= trend[:, 1:].mean(axis=0)
    basis, sizes, _ = np.linalg.svd(trend, full_matrices=False)
    basis = basis[:, sizes > 1e-6 * sizes[0]]
    projector = np.zeros((len(is_known), len(is_known)))
    projector[np.ix_(is_known, is_known)] = np.eye(count) - basis @ basis.T
    return projector


@dataclass(frozen=True, slots=True)
class _Correction:
    """What is still to be taken off: the unknowns of the fit."""

    # (F + 1,) Coefficients of the logarithm of the missing shading, then the dark level
    surface: FloatArray
    log_gains: FloatArray  # (N,)
    offsets: FloatArray  # (N,) As shares of the typical grey value


class _ShadingProblem:
    """Least squares of shading, gains and offsets over blocks."""

    def __init__(
        self,
        blocks: OverlapBlocks,
        frames: CorrectedFrames,
        positions: FloatArray,
        basis: SurfaceBasis,
        expected_frames: CorrectedFrames | None = None,
    ) -> None:
        self.blocks, self.count = blocks, len(frames.gains)
        self.surfaces = [basis.at(blocks.place_first), basis.at(blocks.place_second)]
        self.surface_apart = self.surfaces[0] - self.surfaces[1]
        self.level = max(float(np.median(np.abs(blocks.values))), 1e-12)
        # what is thought of light is said of all of a gain, not of its change
        self.known_gains = np.log(frames.gains)
        self.known_offsets = frames.offsets / self.level
        if expected_frames is not None:
            self.known_gains -= np.log(expected_frames.gains)
            self.known_offsets -= expected_frames.offsets / self.level
        self.hold, self.offset_sd = light_prior(self.count, _STEADY), _OFFSETS
        self.flicker = self.scatter = _STEADY
        self.is_known = expected_frames is not None
        if self.is_known:
            self.hold = np.eye(self.count) / _KNOWN**2
            self.offset_sd = _KNOWN
        is_held = np.zeros(self.count, bool)
        is_held[blocks.frames.ravel()] = True
        self.beside_a_trend = _beside_a_trend(positions, is_held)
        # the last coefficient is the dark level that is still to be taken off
        apart = float(np.median(np.abs(blocks.units[:, 0] - blocks.units[:, 1])))
        self.unit = min(
            _DARK_PRIOR * self.level / max(apart, 1e-12), _MOST_DARK * self.level
        )
        total = blocks.variances.sum(axis=1)
        relative = float(np.median(total)) / np.maximum(total, 1e-30)
        self.relative = np.minimum(relative, 4.0)
        self.noise = self.level
        size = self.surfaces[0].shape[1] + 1
        self.prior, self.pull = np.eye(size), np.zeros(size)
        self.prior[:-1, :-1] = basis.prior()
        self.covariance = np.eye(size)  # of the last shaded fit

    @property
    def nothing(self) -> _Correction:
        """No correction."""
        none = np.zeros(self.count)
        return _Correction(np.zeros(len(self.pull)), none, none)

    @property
    def is_steady(self) -> bool:
        """Whether the frames are as bright as those of steady light."""
        return self.flicker < 2 * _STEADY and self.offset_sd < _STEADY

    @property
    def is_even(self) -> bool:
        """Whether gains and offsets differ by no more than those of steady light."""
        return self.is_steady and self.scatter <= _STEADY

    def expecting(
        self, shape: FloatArray, trust: FloatArray, reader: FloatArray
    ) -> "_ShadingProblem":
        """Let the mean frame tell the broad shape, which overlaps may hardly show."""
        problem = copy(self)
        problem.prior, problem.pull = self.prior.copy(), self.pull.copy()
        size = reader.shape[1]  # without or with the dark level
        problem.prior[:size, :size] += reader.T @ trust @ reader
        problem.pull[:size] += reader.T @ trust @ shape
        return problem

    def leaving_open(self, tilts: FloatArray) -> "_ShadingProblem":
        """Hold some shapes of the surface, (F, 2), by gains and offsets alone."""
        problem = copy(self)
        prior = self.prior[:-1, :-1]
        tilt_terms = prior @ tilts
        problem.prior = self.prior.copy()
        problem.prior[:-1, :-1] -= tilt_terms @ np.linalg.solve(
            tilts.T @ tilt_terms, tilt_terms.T
        )
        problem.hold = light_prior(self.count, max(self.scatter, _LEAST_FLICKER))
        return problem

    def fit(
        self,
        in_fit: BoolArray,
        start: _Correction,
        *,
        with_field: bool,
        learns: bool = False,
        rounds: int = _ROUNDS,
    ) -> _Correction:
        """Fit gains and offsets, and the field with them if `with_field`.

        `learns`: also noise, and by how much frames differ, which then holds.
        """
        correction = start
        for _ in range(rounds):
            left, level, units = self._evaluate(correction)
            weighted_residual = left * np.sqrt(self.relative)
            scatter = max(
                _scatter(weighted_residual[in_fit]), _LEAST_NOISE * self.level
            )
            if learns:
                self.noise = scatter
            weight = np.where(in_fit, self.relative / self.noise**2, 0)
            weight = weight / (1 + (weighted_residual / (3 * scatter)) ** 2)
            bright = self._bright(level, units)
            target = left + bright @ np.concatenate(
                [correction.log_gains, correction.offsets]
            )
            normal, right = self._frames_normal(bright, weight, target)
            if with_field:
                field = self._field(level, units)
                more = field @ correction.surface
                heavy = field * weight[:, None]
                mixed_terms = bright.T @ heavy
                own = heavy.T @ field + self.prior
                normal = np.block([[own, mixed_terms.T], [mixed_terms, normal]])
                right = np.concatenate(
                    [
                        heavy.T @ (target + more) + self.pull,
                        right + mixed_terms @ correction.surface,
                    ]
                )
            numbers = np.asarray(np.linalg.solve(normal, right))
            before = correction
            surface, numbers = np.split(numbers, [len(numbers) - 2 * self.count])
            surface = surface if with_field else before.surface
            correction = _Correction(surface, *np.split(numbers, 2))
            if learns:
                self._learn(correction, np.asarray(np.linalg.inv(normal)))
            if _change(before, correction) < _SETTLED:
                break
        if with_field and rounds > _FEW_ROUNDS:
            size = len(self.pull)
            self.covariance = np.asarray(np.linalg.inv(normal)[:size, :size], float)
        return correction

    def shading(
        self, flat: FlatField, correction: _Correction, *, is_refined: bool = False
    ) -> Shading:
        """Make the result of a fit, by which gains are 1 on average, as before.

        A dark level below 0 is left to the offsets.
        """
        gains = correction.log_gains - correction.log_gains.mean()
        offsets = correction.offsets * self.level
        if not self.is_steady:
            offsets = offsets + min(flat.dark, 0.0)
        flat = replace(flat, dark=max(flat.dark, 0.0))
        return Shading(flat, gains, offsets, is_refined)

    def field(
        self, frames: CorrectedFrames, basis: SurfaceBasis, correction: _Correction
    ) -> FlatField:
        """Give the flat field and the dark level what they still lack."""
        missing = np.exp(np.clip(basis.surface(correction.surface[:-1]), -1.5, 1.5))
        new_flat = frames.flat.flat * missing
        top = float(np.quantile(new_flat, 0.99))
        single = np.maximum(new_flat / top, 0).astype(np.float32)
        dark = frames.flat.dark + float(correction.surface[-1]) * self.unit
        return replace(frames.flat, flat=single, dark=dark, valid=valid_mask(single))

    def take_off(
        self, frames: CorrectedFrames, flat: FlatField, correction: _Correction
    ) -> CorrectedFrames:
        """Correct the frames by what was found, and by a flat field."""
        return frames.change(
            flat=flat,
            gains=frames.gains * np.exp(correction.log_gains),
            offsets=frames.offsets + correction.offsets * self.level,
        )

    def left(self, in_fit: BoolArray, correction: _Correction) -> float:
        """Robust scatter of the differences that a correction leaves."""
        left = self._evaluate(correction)[0] * np.sqrt(self.relative)
        return _scatter(left[in_fit])

    def uneven(self, in_fit: BoolArray, correction: _Correction) -> float:
        """Robust scatter within pairs of the differences, as shares of the level."""
        left, level, _ = self._evaluate(correction)
        pair = self.blocks.pair[in_fit]
        share = (left / np.maximum(level, _LEAST_LEVEL * self.level))[in_fit]
        mean = np.bincount(pair, share) / np.maximum(np.bincount(pair), 1)
        return _scatter(share - mean[pair])

    def _evaluate(
        self, correction: _Correction
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Difference of both frames, their level, and what a grey value changes."""
        blocks, size = self.blocks, len(self.pull) - 1
        log = correction.log_gains[blocks.frames]
        if correction.surface.any():
            numbers = correction.surface[:size]
            log = log + np.stack([part @ numbers for part in self.surfaces], axis=1)
        offset = correction.offsets[blocks.frames] * self.level
        offset = offset + correction.surface[size] * self.unit
        factor = np.exp(-np.clip(log, -_MOST_LOG, _MOST_LOG))
        units = blocks.units * factor
        values = blocks.values * factor - offset * units
        noise = np.maximum(blocks.variances * factor**2, 1e-30)
        # the mean by both variances: its noise and the difference's are independent
        level = (values * noise[:, ::-1]).sum(axis=1) / noise.sum(axis=1)
        return values[:, 0] - values[:, 1], level, units

    def _bright(self, level: FloatArray, units: FloatArray) -> sparse.csr_array:
        """Change of the difference with each gain and each offset, (M, 2 N)."""
        signs = np.array([1.0, -1.0])
        gains, offsets = level[:, None] * signs, units * signs * self.level
        entries = np.concatenate([gains, offsets], axis=1).ravel()
        frames = self.blocks.frames
        columns = np.concatenate([frames, frames + self.count], axis=1).ravel()
        starts = np.arange(0, len(entries) + 1, 4)
        shape = (len(level), 2 * self.count)
        return sparse.csr_array((entries, columns, starts), shape)

    def _field(self, level: FloatArray, units: FloatArray) -> FloatArray:
        """Change of the difference with the surface and the dark level, (M, F + 1)."""
        dark = (units[:, 0] - units[:, 1]) * self.unit
        return np.column_stack([self.surface_apart * level[:, None], dark])

    def _frames_normal(
        self, bright: sparse.csr_array, weight: FloatArray, target: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Make the normal equations of gains and offsets."""
        count, loose = self.count, 1 / self.offset_sd**2
        weighted_bright = bright.multiply(weight[:, None]).tocsr()
        normal = (bright.T @ weighted_bright).toarray()
        normal[:count, :count] += self.hold
        normal[count:, count:] += loose * np.eye(count)
        right = weighted_bright.T @ target
        right[:count] -= self.hold @ self.known_gains
        right[count:] -= loose * self.known_offsets
        return normal, right

    def _learn(self, correction: _Correction, covariance: FloatArray) -> None:
        """Find by how much gains and offsets differ from frame to frame.

        One step of expectation and maximisation, of what is no trend over the mosaic.
        """
        count, beside = self.count, self.beside_a_trend
        free = float(np.trace(beside))
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
            doubt = float(np.sum(beside * covariance[own, own]))
            sizes.append(float(np.sqrt((values @ beside @ values + doubt) / free)))
        self.scatter = min(sizes[0], _MOST_FLICKER)
        self.flicker = max(self.scatter, _STEADY)
        self.hold = light_prior(count, self.flicker)
        self.offset_sd = float(np.clip(sizes[1], _LEAST_OFFSETS, _MOST_OFFSETS))


def _change(before: _Correction, after: _Correction) -> float:
    """Largest change of any number."""
    return max(
        float(np.abs(getattr(after, f.name) - getattr(before, f.name)).max())
        for f in fields(_Correction)
    )


def choose_flat(
    frames: CorrectedFrames, positions: FloatArray, pairs: Sequence[IntPair]
) -> FlatField:
    """Give up what a first flat field holds of the sample rather than of the light.

    That is all of it where frames differ less without it. Where the brightness of
    frames is automatic, overlaps cannot contradict a tilt; they tell whether the field
    is round about another place than the middle. `positions` (N, 2), top-left corners,
    right to a pixel.
    """
    flat = frames.flat
    if not flat.valid.all():
        return flat  # a field that ends within the frame is shaded beyond doubt
    blocks = _thin(overlap_blocks(frames, positions, pairs))
    if len(blocks.pair) < _ENOUGH_BLOCKS:
        return flat
    plain = _divide(blocks, 1 / np.maximum(flat.flat, MIN_FLAT))

    def compare(part: OverlapBlocks, centre: FloatPair | None) -> tuple[float, ...]:
        """Scatter that gains and offsets leave, and with them a round field."""
        basis = SurfaceBasis(frames.frame_shape, 0, centre)
        problem = _ShadingProblem(part, frames, positions, basis)
        every = np.ones(len(part.pair), bool)
        correction = problem.fit(every, problem.nothing, with_field=False, learns=True)
        left = [problem.left(every, correction)]
        if flat.centre is not None and not problem.is_steady:
            correction = problem.fit(every, correction, with_field=True)
            left.append(problem.left(every, correction))
        return tuple(value / problem.level for value in left)

    without, with_it = compare(plain, None), compare(blocks, flat.centre)
    if len(without) > 1 and with_it[-1] > _BETTER * without[-1]:
        placed_frames = np.flatnonzero(np.isfinite(positions[:, 0]))
        flat = first_flat(frames.acquisition, placed_frames, is_centred=True)
        blocks_in_light = _divide(plain, np.maximum(flat.flat, MIN_FLAT))
        with_it = compare(blocks_in_light, None)
    if with_it[0] < without[0] or not flat.valid.all():
        return flat
    return no_flat(flat.flat.shape, flat.dark, "none is better")


def _divide(blocks: OverlapBlocks, shade: NDArray[np.floating]) -> OverlapBlocks:
    """Blocks of frames that are divided by some shading, (Y, X), in addition."""
    light = np.stack(
        [
            ndimage.map_coordinates(shade, place.T, order=1, mode="nearest")
            for place in (blocks.place_first, blocks.place_second)
        ],
        axis=1,
    )
    return replace(
        blocks,
        values=blocks.values / light,
        units=blocks.units / light,
        variances=blocks.variances / light**2,
    )


def _thin(blocks: OverlapBlocks) -> OverlapBlocks:
    step = -(-len(blocks.pair) // _MAX_BLOCKS)
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

    The surface is kept only if it proves itself, or if it is `is_trusted`. `positions`
    (N, 2), top-left corners, right to a pixel; the frames of `expected_frames` have the
    gains and offsets that are thought likeliest: 1 and 0 without it; `is_fixed`: the
    flat field stays as it is.
    """
    blocks = _thin(overlap_blocks(corrected_frames, positions, pairs))
    if not len(blocks.pair):
        none = np.zeros(len(positions))
        return Shading(corrected_frames.flat, none, none, False)
    few = len(blocks.pair) < _ENOUGH_BLOCKS
    basis = SurfaceBasis(
        corrected_frames.frame_shape,
        1 if few or is_fixed else knots,
        corrected_frames.flat.centre,
    )
    problem = _ShadingProblem(
        blocks, corrected_frames, positions, basis, expected_frames
    )
    every = np.ones(len(blocks.pair), bool)
    frames = problem.fit(every, problem.nothing, with_field=False, learns=True)
    if problem.offset_sd < _NO_OFFSETS and not problem.is_known:
        problem.offset_sd = _NONE
        frames = problem.fit(every, frames, with_field=False)
    if few or is_fixed:
        return problem.shading(corrected_frames.flat, frames)
    even = problem.take_off(corrected_frames, corrected_frames.flat, frames)
    has_place: BoolArray = ~np.isnan(positions[:, 0])
    shape, spread, place = _mean_shape(even, has_place, basis)
    reader = basis.shape_reader(place)
    # a tilt of the mean frame may be the sample's, roundness is not
    trust = np.zeros_like(spread)
    trust[2:, 2:] = np.linalg.inv(spread[2:, 2:])
    with_roundness = problem.expecting(shape, trust, reader)
    is_proven = _proves_itself(with_roundness, frames)
    if is_proven is None:  # nothing is left to judge by
        return problem.shading(corrected_frames.flat, frames)
    is_proven = is_proven or is_trusted
    correction = (
        with_roundness.fit(every, frames, with_field=True) if is_proven else frames
    )
    slope, has_changed = np.zeros(2), is_proven
    if problem.is_steady and not problem.is_known and is_proven:
        correction = _with_tilt(
            problem, with_roundness, correction, (shape, spread, reader)
        )
    elif not problem.is_known and not problem.is_even:
        even = problem.take_off(
            corrected_frames,
            problem.field(corrected_frames, basis, correction),
            correction,
        )
        other = _least_trend(
            with_roundness, correction, basis, (reader, place), even, positions
        )
        if problem.scatter <= _EQUAL:  # gains without a trend show the slope
            correction, has_changed = other, True
        else:
            slope = reader[:2] @ (other.surface - correction.surface)[:-1]
    y, x = (slope / (max(corrected_frames.frame_shape) / 2)).tolist()
    if not has_changed:
        return replace(
            problem.shading(corrected_frames.flat, frames), open_slope=(y, x)
        )
    flat = problem.field(corrected_frames, basis, correction)
    if is_proven:
        method = f"{corrected_frames.flat.method.removesuffix(', refined')}, refined"
        flat = replace(flat, method=method)
    return replace(
        problem.shading(flat, correction, is_refined=is_proven), open_slope=(y, x)
    )


def _proves_itself(with_roundness: _ShadingProblem, frames: _Correction) -> bool | None:
    """Whether a field of one half of the pairs helps the other; None without halves."""
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
            # differences tell most where it is bright, shares where it is not
            scatter = with_roundness.left(half, own), with_roundness.uneven(half, own)
            errors[number] += np.square(scatter) * half.sum()
    return bool((errors[1] < _BETTER**2 * errors[0]).any())


def _with_tilt(
    problem: _ShadingProblem,
    with_roundness: _ShadingProblem,
    correction: _Correction,
    mean: tuple[FloatArray, FloatArray, FloatArray],
) -> _Correction:
    """Let the mean frame tell the tilt as well, in light that is steady.

    `mean` is its shape, the covariance of that and its reader. Where overlaps
    contradict it, the smaller tilt is likelier: of the field, if light drifted, or none
    where the sample itself grows brighter along the mosaic.
    """
    shape, spread, reader = mean
    own = reader[:2] @ correction.surface[:-1]
    doubt = reader[:2] @ with_roundness.covariance[:-1, :-1] @ reader[:2].T
    away = shape[:2] - own
    trust = np.asarray(np.linalg.inv(spread), dtype=float)
    with_tilt = problem.expecting(shape, trust, reader)
    if away @ np.linalg.solve(spread[:2, :2] + doubt, away) > _CONTRADICTS:
        if np.hypot(*own) < np.hypot(*shape[:2]) / 2:
            return correction
        with_tilt.hold = light_prior(problem.count, _UNSTEADY)
    every = np.ones(len(problem.blocks.pair), bool)
    return with_tilt.fit(every, correction, with_field=True)


def _least_trend(
    with_roundness: _ShadingProblem,
    correction_found: _Correction,
    basis: SurfaceBasis,
    reading: tuple[FloatArray, FloatArray],
    even: CorrectedFrames,
    positions: FloatArray,
) -> _Correction:
    """Give the field a slope and a dark level that leave automatic light no trend.

    A field times exp(a p) at the place p of a frame, gains times exp(a x) of frames at
    x and a sample times exp(-a (x + p)) give the same frames, whatever their offsets:
    overlaps leave a open. So they do a common offset of all frames where the field
    slopes, and a trend of the offsets with it. Light that falls alike on all frames is
    likelier than a sample whose gradient the frames' gains take back: the mosaic has no
    slope, unless gains or offsets had a trend then, far beyond their scatter. In that
    case they have none. `even` are the frames as `correction_found` corrects them;
    `reading`: the reader of broad shapes, and its places.
    """
    reader, place = reading
    slope, spread, level = _mosaic_slope(even, positions)
    # a dark level that is left takes off the less of the light, the more there is
    shade = np.maximum(even.flat.flat, MIN_FLAT)
    light = 1 / ndimage.map_coordinates(shade, place.T, order=1, mode="nearest")
    around = place - place.mean(axis=0)
    tilt = np.linalg.lstsq(around, light - light.mean())[0] * max(basis.shape) / 2
    row = np.column_stack([reader[:2], tilt * with_roundness.unit / level])
    numbers = np.zeros((3, len(correction_found.surface)))
    numbers[:2, :-1], numbers[2, -1] = reader[:2], 1
    every = np.ones(len(with_roundness.blocks.pair), bool)

    def change(problem: _ShadingProblem) -> tuple[FloatArray, FloatArray]:
        correction = problem.fit(every, correction_found, with_field=True)
        return correction.surface - correction_found.surface, problem.covariance

    free = with_roundness.leaving_open(basis.tilts())
    step, covariance = change(free)
    away = slope - row @ step
    doubt = spread + row @ covariance @ row.T
    doubt += _BENT_DARK**2 * np.outer(row[:, -1], row[:, -1])
    if away @ np.linalg.solve(doubt, away) <= _CONTRADICTS:
        target_slope = slope + row @ correction_found.surface
        trust = np.asarray(np.linalg.inv(spread), dtype=float)
        step, covariance = change(free.expecting(target_slope, trust, row))
    else:
        step[-1] = 0
    # as much of it as is more than chance
    step = numbers @ step
    sure = float(step @ np.linalg.solve(numbers @ covariance @ numbers.T, step))
    step *= max(0.0, 1 - (_CHANCE / max(sure, 1e-12)) ** 2)
    if not step.any():
        return correction_found
    surface = correction_found.surface.copy()
    surface[:-1] += basis.tilts() @ step[:2]
    surface[-1] += step[2]
    return with_roundness.fit(
        every, replace(correction_found, surface=surface), with_field=False
    )


def _mosaic_slope(
    even: CorrectedFrames, positions: FloatArray
) -> tuple[FloatArray, FloatArray, float]:
    """Relative slope of the mosaic, (2,), for half a frame, its covariance, and level.

    By blocks of all frames, which count as independent of each other.
    """
    inside, centres = _whole_blocks(even)
    half = max(even.frame_shape) / 2
    designs, values = [], []
    for index in _some(np.isfinite(positions[:, 0])):
        image, weight = even.correct(index)
        is_inside = block_sums((weight > 0).astype(np.float32))[inside] == _BLOCK**2
        values.append(block_sums(image)[inside][is_inside] / _BLOCK**2)
        at = (centres[is_inside] + positions[index]) / half
        designs.append(np.column_stack([np.ones(len(at)), at]))
    design, value = np.concatenate(designs), np.concatenate(values)
    design[:, 1:] -= design[:, 1:].mean(axis=0)
    inverse = np.linalg.pinv(design.T @ design)
    numbers = inverse @ design.T @ value
    left = (value - design @ numbers)[:, None] * design
    ends = np.cumsum([len(part) for part in values])[:-1]
    scores = np.stack([part.sum(axis=0) for part in np.split(left, ends)])
    covariance = inverse @ (scores.T @ scores) @ inverse * _few_means(len(scores))
    level = max(float(numbers[0]), 1e-12)
    spread = covariance[1:, 1:] / level**2 + 1e-10 * np.eye(2)
    return numbers[1:] / level, spread, level


def _few_means(count: int) -> float:
    """By how much a variance of so many values is to be widened to be relied upon.

    Hotelling's limit of two means of `count` frames over that of infinitely many.
    """
    if count < 3:  # two values have no limit
        return 1e12
    return float((count - 1) * np.expm1(_CONTRADICTS / (count - 2)) / _CONTRADICTS)
