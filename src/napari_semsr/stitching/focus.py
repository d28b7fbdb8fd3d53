"""A scan at several heights of the focal plane: one mosaic of what each has in focus.

The stage of one height has been solved. Every frame of another height shows what the
frame of its stop shows there, more or less blurred, so its place is found against that
frame alone. Where the shifts of a height differ by no more than they are known to, one
shift serves for all: the stage stood still, and the picture moved with the focus.

Each place is then taken from the height that shows most detail there. Detail is the
energy between two Gaussians, averaged around the place, as in shape from focus [1]_; a
height follows from the parabola through the logarithm of the energy at the best height
and its neighbours.

.. [1] S. K. Nayar, Y. Nakagawa, IEEE Trans. Pattern Anal. Mach. Intell. 16, 824 (1994),
   doi:10.1109/34.308479.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.core import (
    Acquisition,
    Box,
    Float32Array,
    FloatArray,
    FloatPair,
    IntPair,
    Job,
    Progress,
    RegistrationError,
)
from napari_semsr.stitching.flat_field import evenly
from napari_semsr.stitching.frames import CorrectedFrames, whole_frame
from napari_semsr.stitching.fuse import FusionPlan, plan_fusion
from napari_semsr.stitching.nominal import overlapping_pairs
from napari_semsr.stitching.options import StitchOptions
from napari_semsr.stitching.pairwise import Candidates, search
from napari_semsr.stitching.refine import refine
from napari_semsr.stitching.shading import refine_shading
from napari_semsr.stitching.solution import StitchSolution

_REACH = 0.1  # of a frame, and at least 16 px; chosen: as the first search for joints
_LEAST_REACH = 16
_NEARLY = 0.9  # of the best score; chosen: of periods, the one that moved least
# Measured on focal series of circuits, particles, pits and fractures: the second best
# shift scores 0.6 of the best or less between frames of one place; of others usually
# 0.7 or more, with correlations up to 0.5. On lattices periods score alike, with more.
_RUNNER_UP = 0.65
_ALIKE = 0.6
_TOGETHER_PX = 2.0  # chosen: of whole-pixel shifts between much blurred frames
_LIKE = 0.3  # correlation of frames that each say where they lie; of others up to 0.2
_SAME_PX = 0.5  # scatter of shifts that are one; chosen: blur moves detail by less
_FINE, _COARSE = 1.0, 3.0  # px; between them lies the detail that focus decides
# Of 2, 3, 4 and 8 the cube fits best, or to 0.2 dB (benchmarks/focus.py); over 8 px in
# place of 5, heights err by 10 % more.
_AROUND = 5.0  # px; deviation of the window over which detail is averaged
_SHARPEST = 3.0  # power of the energies by which heights are weighted
# Of the light; measured: in steady light fits of few overlaps err by 0.01.
_STEADY = 0.02
_RIM = 9  # px; chosen: three times the width of the coarser Gaussian
_LEAST_INSIDE = 0.05  # of the window; chosen: of less, a few pixels would decide
_BEYOND_NOISE = 2.0  # energy over that of noise from which a place has a height; chosen
# Immerkaer's mask, as for the noise of frames, and what band and mask leave of noise
_CROSS = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]]) / 6
_BAND_SHARE = (
    1 / (4 * np.pi * _FINE**2)
    + 1 / (4 * np.pi * _COARSE**2)
    - 1 / (np.pi * (_FINE**2 + _COARSE**2))
)


@dataclass(frozen=True, slots=True)
class _JoinedFrames:
    """Frames of several scans, one scan after another."""

    parts: tuple[Acquisition, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        return (sum(map(len, self.parts)), *self.parts[0].frame_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.parts[0].dtype

    def __getitem__(self, index: int) -> NDArray[Any]:
        for part in self.parts:
            if index < len(part):
                return part.read(index)
            index -= len(part)
        raise IndexError(index)


@dataclass(frozen=True, slots=True)
class HeightShift:
    """How a height lies on the one that was solved."""

    z_nm: float  # Height of the focal plane
    # Of its frames less those of the solved height, in the mean; None where it could
    # not be laid on it, and is left out
    shift_px: FloatPair | None
    scatter_px: float  # RMS of its frames about that shift; NaN where it is left out


def sharpest(heights: Sequence[Acquisition]) -> int:
    """Find the height whose frames have most detail beyond their noise."""
    places = []
    for height in heights:
        frames = (whole_frame(height.read(i)) for i in evenly(len(height), 9))
        sharpness = []  # detail over brightness, as power, the noise taken off
        for frame, usable in frames:
            if not usable.any():
                continue
            fine, coarse = (ndimage.gaussian_filter(frame, s) for s in (_FINE, _COARSE))
            rough = np.abs(ndimage.convolve(frame, _CROSS))
            noise = 1.4826 * np.median(rough[usable])
            power = float(np.mean((fine - coarse)[usable] ** 2))
            power -= _BAND_SHARE * float(noise) ** 2
            sharpness.append(power / max(float(frame[usable].mean()) ** 2, 1e-12))
        places.append(float(np.mean(sharpness)) if sharpness else -np.inf)
    return int(np.argmax(places))


@dataclass(frozen=True, slots=True)
class FocusPlan:
    """A mosaic of several heights that has not been computed."""

    # One for each height, all on the grid of the solved one, rising
    plans: tuple[FusionPlan, ...]
    z_nm: tuple[float, ...]  # Their heights
    solved: int  # Which of them was solved: the mosaic is where its frames reach

    @property
    def shape(self) -> IntPair:
        """Rows and columns of the mosaic."""
        return self.plans[0].shape

    def block(self, box: Box) -> tuple[Float32Array, NDArray[np.uint16], Float32Array]:
        """Compute one rectangle of the mosaic, in its pixels.

        Gives grey values, each of the heights that are sharpest there, NaN where no
        frame reaches; how many frames reach there, of all heights; and the height in
        nm, NaN where there is no detail beyond noise, or not all heights reach.
        """
        reach = int(np.ceil(4 * (_AROUND + _COARSE))) + 1
        wide = box.grow((reach, reach)).intersection(Box.of(self.shape))
        inner = box.within(wide).slices
        images, counts, energies, noises = [], [], [], []
        for plan in self.plans:
            image, count = plan.block(wide)
            energy, noise = _detail(image, count > 0)
            images.append(image[inner])
            counts.append(count[inner])
            energies.append(energy[inner])
            noises.append(noise[inner])
        is_reached = np.stack(counts) > 0
        energy = np.where(is_reached, np.stack(energies), 0)
        best = np.maximum(energy.max(axis=0), 1e-30)
        share = np.where(is_reached, np.maximum(energy / best, 1e-3), 0) ** _SHARPEST
        total = np.where(is_reached, share * np.stack(images), 0).sum(axis=0)
        mean = total / np.maximum(share.sum(axis=0), 1e-30)
        mean[~is_reached[self.solved]] = np.nan
        floor = np.stack(noises).min(axis=0)
        height = _peak(np.maximum(energy - floor, 0), np.array(self.z_nm))
        unsure = best <= np.maximum(_BEYOND_NOISE * floor, 1e-30)
        height[unsure | ~is_reached.all(axis=0)] = np.nan
        coverage = np.where(
            is_reached[self.solved],
            np.sum(counts, axis=0, dtype=np.uint16),
            np.uint16(0),
        )
        return mean.astype(np.float32), coverage, height


def _detail(
    image: Float32Array, usable: NDArray[np.bool_]
) -> tuple[Float32Array, Float32Array]:
    """Energy of the detail around each pixel, and what noise has of it."""
    cover = usable.astype(np.float32)
    without_gaps = np.where(usable, image, np.float32(0))

    def mean(plane: Float32Array, sigma: float) -> Float32Array:
        smooth, around = (
            ndimage.gaussian_filter(part, sigma, mode="constant")
            for part in (plane * cover, cover)
        )
        spread: Float32Array = smooth / np.maximum(around, np.float32(1e-6))
        return np.where(usable, spread, np.float32(0))

    band = mean(without_gaps, _FINE) - mean(without_gaps, _COARSE)
    level = np.where(usable, without_gaps, mean(without_gaps, _COARSE))
    rough = ndimage.convolve(level, _CROSS.astype(np.float32), mode="nearest")
    # beside the rim, what is missing looks like detail
    inside = ndimage.minimum_filter(usable, _RIM, mode="nearest").astype(np.float32)
    around = ndimage.gaussian_filter(inside, _AROUND, mode="constant")
    energy, noise = (
        ndimage.gaussian_filter(plane**2 * inside, _AROUND, mode="constant")
        / np.maximum(around, np.float32(1e-6))
        for plane in (band, rough)
    )
    is_lost = around < _LEAST_INSIDE
    energy[is_lost] = noise[is_lost] = 0
    return energy, np.float32(_BAND_SHARE) * noise


def _peak(energy: Float32Array, z_nm: FloatArray) -> Float32Array:
    """Height of the most detail; `energy` (heights, Y, X), `z_nm` rising."""
    best = energy.argmax(axis=0)
    if len(z_nm) < 3:
        return np.asarray(z_nm[best], dtype=np.float32)
    middle = np.clip(best, 1, len(z_nm) - 2)
    floor = np.maximum(energy.max(axis=0) * 1e-3, 1e-30)
    below, here, above = (
        np.log(np.maximum(np.take_along_axis(energy, at[None], axis=0)[0], floor))
        for at in (middle - 1, middle, middle + 1)
    )
    low, high = z_nm[middle - 1] - z_nm[middle], z_nm[middle + 1] - z_nm[middle]
    # the parabola a u^2 + b u through the three, u counted from the middle one
    a = ((above - here) / high - (below - here) / low) / (high - low)
    b = (above - here) / high - a * high
    falling = a < 0
    top = np.where(falling, -b / (2 * np.where(falling, a, -1)), 0)
    height = z_nm[middle] + np.clip(top, low, high)
    height = np.where(falling, height, z_nm[best])
    return np.asarray(height, dtype=np.float32)


def plan_focus(
    heights: Sequence[Acquisition],
    z_nm: Sequence[float],
    solved_height: int,
    solution: StitchSolution,
    options: StitchOptions | None = None,
) -> Job[tuple[FocusPlan, tuple[HeightShift, ...]]]:
    """Lay the heights of a scan, rising, on the one that was solved.

    `solved_height` is the number of that one, of which `solution` says where its frames
    lie, with shading, gains and offsets; `options` say how frames are blended. The plan
    computes nothing until a block is asked for; beside it stands how each height lies
    on the solved one.

    Raises
    ------
    RegistrationError
        If no other height can be laid on the solved one.
    """
    options = StitchOptions() if options is None else options
    base = plan_fusion(heights[solved_height], solution, options)
    all_heights = Acquisition(
        _JoinedFrames(tuple(heights)),
        tuple(f"{k}/{name}" for k, h in enumerate(heights) for name in h.names),
    )
    count, levels = len(heights[solved_height]), len(heights)
    turns = np.tile(solution.turns, (levels, 1))
    gains = np.tile(solution.gains, (levels, 1))
    offsets = np.tile(solution.offsets, (levels, 1))
    joined_frames = base.prepared.change(
        all_heights,
        gains=gains.ravel(),
        offsets=offsets.ravel(),
        rotations=turns,
    )
    places = np.full((levels, count, 2), np.nan)
    places[solved_height] = base.positions
    placed_frames = np.flatnonzero(solution.has_place).tolist()
    shifts = [HeightShift(z, None, float("nan")) for z in z_nm]
    shifts[solved_height] = HeightShift(z_nm[solved_height], (0.0, 0.0), 0.0)
    # outwards: a height that is blurred too much for the solved one is laid on the next
    outwards = sorted(range(levels), key=lambda level: abs(level - solved_height))
    for level_count, level in enumerate(outwards[1:]):
        yield Progress(level_count, levels - 1, "Laying the heights on each other")
        near = level + (1 if level < solved_height else -1)
        for anchor in dict.fromkeys((solved_height, near)):
            pairs = [(anchor * count + i, level * count + i) for i in placed_frames]
            height_shifts = _shifts(
                joined_frames, pairs, places[anchor], solution.threshold
            )
            if np.isfinite(height_shifts).any():
                break
        else:
            continue
        places[level], shifts[level] = _pool(
            z_nm[level], places[anchor] + height_shifts, base.positions
        )
        if options.match_gain:
            frames = base.prepared.change(heights[level])
            brightness = _brightness(frames, places[level], base.prepared)
            gains[level], offsets[level] = brightness
    if all(
        shift.shift_px is None for k, shift in enumerate(shifts) if k != solved_height
    ):
        msg = (
            "None of the heights shows what the sharpest one shows: check that they "
            "are of one place, or stitch one folder alone."
        )
        raise RegistrationError(msg, code="heights-unrelated")
    matched_frames = joined_frames.change(gains=gains.ravel(), offsets=offsets.ravel())
    plans, plans_in_use = [], []
    for level, z in enumerate(z_nm):
        if shifts[level].shift_px is not None:
            positions = np.full((levels * count, 2), np.nan)
            positions[level * count : (level + 1) * count] = places[level]
            plans.append(replace(base, prepared=matched_frames, positions=positions))
            plans_in_use.append(z)
    plan = FocusPlan(
        tuple(plans), tuple(plans_in_use), plans_in_use.index(z_nm[solved_height])
    )
    return plan, tuple(shifts)


def _shifts(
    frames: CorrectedFrames,
    pairs: Sequence[IntPair],
    first_places: FloatArray,
    threshold: float,
) -> FloatArray:
    """Shift of each frame of a height off that of another; NaN if not believed.

    `first_places` (N, 2), corners of the other's frames; `threshold`: score that chance
    does not reach.
    """
    count = len(first_places)
    frame_shifts = np.full((count, 2), np.nan)
    reach = [max(_LEAST_REACH, round(_REACH * side)) for side in frames.frame_shape]
    positions = np.full((len(frames.acquisition), 2), np.nan)
    sure_pairs, shifts, likeness = [], [], []
    for pair in pairs:
        candidates = search(frames, pair, (0, 0), (reach[0], reach[1]))
        here = first_places[pair[0] % count]
        if _is_sure(candidates, threshold) and np.isfinite(here).all():
            good = candidates.shifts[candidates.score >= _NEARLY * candidates.best]
            shift = good[np.argmin(np.hypot(good[:, 0], good[:, 1]))]
            positions[pair[0]], positions[pair[1]] = here, here + shift
            sure_pairs.append(pair)
            shifts.append(shift)
            likeness.append(float(candidates.ncc[0]))
    if len(sure_pairs) <= len(pairs) / 2 or not _agree(np.array(shifts), likeness):
        return frame_shifts
    for sweep in refine(frames, positions, sure_pairs, (2.0, 1.0, 1.0)):
        positions = sweep.positions
    for first, second in sure_pairs:
        frame_shifts[first % count] = positions[second] - positions[first]
    return frame_shifts


def _is_sure(candidates: Candidates, threshold: float) -> bool:
    """Whether two frames show one place: one shift stands out, or periods match."""
    if candidates.best <= threshold:
        return False
    alone = (
        len(candidates.score) < 2 or candidates.score[1] < _RUNNER_UP * candidates.best
    )
    return alone or float(candidates.ncc[0]) >= _ALIKE


def _agree(shifts: NDArray[np.int64], likeness: Sequence[float]) -> bool:
    """Whether the frames of a height are moved alike, or each beyond doubt."""
    off = np.hypot(*(shifts - np.median(shifts, axis=0)).T)
    return float(np.median(off)) <= _TOGETHER_PX or float(np.median(likeness)) >= _LIKE


def _pool(
    z_nm: float, places: FloatArray, solved_places: FloatArray
) -> tuple[FloatArray, HeightShift]:
    """Take the shifts of a height for one where they are, and say how it lies.

    `places`, `solved_places` (N, 2), corners of its frames and of the solved ones.
    """
    shifts = places - solved_places
    off = np.hypot(*(shifts - np.nanmedian(shifts, axis=0)).T)
    is_one = float(np.nanmedian(off)) <= _SAME_PX
    shifts_in_use = shifts[off <= 3 * _SAME_PX] if is_one else shifts[np.isfinite(off)]
    mean = shifts_in_use.mean(axis=0)
    scatter = float(np.sqrt(np.mean(np.sum((shifts_in_use - mean) ** 2, axis=1))))
    # the mean of one shift is better known than any, and holds for all frames
    height_places = solved_places + mean if is_one else places
    return height_places, HeightShift(z_nm, (float(mean[0]), float(mean[1])), scatter)


def _brightness(
    frames: CorrectedFrames, places: FloatArray, solved_frames: CorrectedFrames
) -> tuple[FloatArray, FloatArray]:
    """Fit gain and offset of the frames of a height.

    Offsets follow from the overlaps of the height, since its frames show the same out
    of focus there, unless the light is as steady as at the solved height; the gain of
    each frame from its mean over that of the solved one. `places` (N, 2). Returns (N,)
    gains and (N,) offsets in grey values.
    """
    placed_frames = np.flatnonzero(np.isfinite(places[:, 0])).tolist()
    usual = {index: _mean_level(solved_frames, index) for index in placed_frames}
    even = frames.change(
        gains=np.ones_like(solved_frames.gains),
        offsets=np.zeros_like(solved_frames.offsets),
    )
    pairs = overlapping_pairs(places, frames.frame_shape)
    offsets = refine_shading(even, places, pairs, is_fixed=True).offsets
    change = np.abs(offsets - solved_frames.offsets)[placed_frames]
    if not (change > _STEADY * np.median([*usual.values()])).any():
        offsets = solved_frames.offsets
    even = even.change(offsets=offsets)
    gains = solved_frames.gains.copy()
    for index, level in usual.items():
        own = _mean_level(even, index)
        if min(level, own) > 0:
            gains[index] = own / level
    return gains, offsets


def _mean_level(frames: CorrectedFrames, index: int) -> float:
    """Mean grey value of a corrected frame, by its weights."""
    image, weight = frames.correct(index)
    return float((image * weight).sum() / max(float(weight.sum()), 1e-12))
