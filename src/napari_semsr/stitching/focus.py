"""Focus stacking of scans at several focal-plane heights into one mosaic.

The positions of one height have been solved. Every frame of another height shows the
same field as the frame of its stage stop at that height, more or less blurred, so it is
registered to that frame alone. If the shifts of a height agree within their errors, one
shift is used for all: the stage stood still, and the image moved with the focus.

Each pixel is then taken from the height with most detail there. Detail is the energy
between two Gaussians, averaged around the pixel, as in shape from focus [1]_; the
height of the sample follows from the parabola through the logarithm of the energy at
the best height and its neighbours.

.. [1] S. K. Nayar, Y. Nakagawa, IEEE Trans. Pattern Anal. Mach. Intell. 16, 824 (1994),
   doi:10.1109/34.308479.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr import core
from napari_semsr.stitching.flat_field import choose_evenly_spaced_indices
from napari_semsr.stitching.frames import CorrectedFrames, fill_missing_pixels
from napari_semsr.stitching.fuse import FusionPlan, plan_fusion
from napari_semsr.stitching.nominal import find_overlapping_pairs
from napari_semsr.stitching.pairwise import compute_reach, search_shifts
from napari_semsr.stitching.refine import refine_positions
from napari_semsr.stitching.shading import refine_shading
from napari_semsr.stitching.solution import StitchSolution
from napari_semsr.stitching.state import StitchOptions

_NEARLY = 0.9  # of the best score; chosen: among periods, the smallest shift
# Measured on focal series of circuits, particles, pits and fractures: between frames of
# one field the second best shift scores 0.6 of the best or less; between others usually
# 0.7 or more, with correlations up to 0.5. On lattices periods score the same, with
# more.
_RUNNER_UP = 0.65
_ALIKE = 0.6
_TOGETHER_PX = 2.0  # chosen: error of whole-pixel shifts of blurred frames
_LIKE = 0.3  # correlation of frames with a sure position each; of others up to 0.2
_SAME_PX = 0.5  # scatter of equal shifts; chosen: blur moves detail by less
_FINE, _COARSE = 1.0, 3.0  # px; focus affects the detail between them
# Of powers 2, 3, 4 and 8 the third fits best, or to 0.2 dB (benchmarks/focus.py); with
# 8 px instead of 5, height errors are 10 % larger.
_AROUND = 5.0  # px; sigma of the window over which detail is averaged
_SHARPEST = 3.0  # power of the energies that weight the heights
# Share of the light; measured: in steady light fits of few overlaps err by 0.01.
_STEADY = 0.02
_MIN_INSIDE = 0.05  # share of the window; chosen: of less, a few pixels would decide
_BEYOND_NOISE = 2.0  # least energy over that of noise for a height; chosen
# Immerkaer's mask, as for the noise of frames, and the noise that band and mask leave
_CROSS = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]]) / 6
_BAND_SHARE = (
    1 / (4 * np.pi * _FINE**2)
    + 1 / (4 * np.pi * _COARSE**2)
    - 1 / (np.pi * (_FINE**2 + _COARSE**2))
)


@dataclass(frozen=True, slots=True)
class _ConcatenatedFrames:
    """Frames of several scans, concatenated."""

    parts: tuple[core.Acquisition, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        return (sum(map(len, self.parts)), *self.parts[0].frame_shape)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return self.parts[0].dtype

    def __getitem__(self, index: int) -> core.RealArray:
        for part in self.parts:
            if index < len(part):
                return part.read(index)
            index -= len(part)
        raise IndexError(index)


@dataclass(frozen=True, slots=True)
class HeightShift:
    """Lateral shift of one focal height relative to the solved height."""

    z_nm: float  # Height of the focal plane
    # mean position of its frames minus those of the solved height; None if it could not
    # be registered, and is left out
    shift_px: core.FloatPair | None
    scatter_px: float  # RMS of its frames about that shift; NaN if it is left out


def find_sharpest(heights: Sequence[core.Acquisition]) -> int:
    """Find the height whose frames contain the most detail above noise."""
    places = []
    for height in heights:
        frames = (
            fill_missing_pixels(height.read(i))
            for i in choose_evenly_spaced_indices(len(height), 9)
        )
        sharpness = []  # power of detail over brightness, minus that of noise
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
    """Plan of a multi-height mosaic whose blocks are computed on request."""

    # one per height, all on the grid of the solved one, ascending
    plans: tuple[FusionPlan, ...]
    z_nm: tuple[float, ...]  # Their heights
    solved_index: int  # index of the solved one: the mosaic covers its frames

    @property
    def shape(self) -> core.IntPair:
        """Shape of the mosaic (rows, columns)."""
        return self.plans[0].shape

    def compute_block(
        self, box: core.Box
    ) -> tuple[core.Float32Array, NDArray[np.uint16], core.Float32Array]:
        """Compute a rectangular block of the mosaic, given in mosaic pixels.

        Returns grey values from the heights that are sharpest at each pixel, NaN
        outside all frames; the number of frames there, of all heights; and the height
        in nm, NaN without detail above noise or where a height is missing.
        """
        reach = int(np.ceil(4 * (_AROUND + _COARSE))) + 1
        wide = box.grow((reach, reach)).intersection(core.Box.from_shape(self.shape))
        inner = box.relative_to(wide).slices
        images, counts, energies, noises = [], [], [], []
        for plan in self.plans:
            image, count = plan.compute_block(wide)
            energy, noise = _compute_detail_energy(image, count > 0)
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
        mean[~is_reached[self.solved_index]] = np.nan
        floor = np.stack(noises).min(axis=0)
        height = _find_peak_height(np.maximum(energy - floor, 0), np.array(self.z_nm))
        unsure = best <= np.maximum(_BEYOND_NOISE * floor, 1e-30)
        height[unsure | ~is_reached.all(axis=0)] = np.nan
        coverage = np.stack(counts).sum(axis=0, dtype=np.uint16)
        coverage[~is_reached[self.solved_index]] = 0
        return mean.astype(np.float32), coverage, height


def _compute_detail_energy(
    image: core.Float32Array, usable: NDArray[np.bool_]
) -> tuple[core.Float32Array, core.Float32Array]:
    """Compute the local detail energy at each pixel and its noise contribution."""
    cover = usable.astype(np.float32)
    without_gaps = np.where(usable, image, np.float32(0))

    def compute_local_mean(plane: core.Float32Array, sigma: float) -> core.Float32Array:
        smooth, around = (
            ndimage.gaussian_filter(part, sigma, mode="constant")
            for part in (plane * cover, cover)
        )
        spread: core.Float32Array = smooth / np.maximum(around, np.float32(1e-6))
        return np.where(usable, spread, np.float32(0))

    fine, coarse = (compute_local_mean(without_gaps, s) for s in (_FINE, _COARSE))
    band = fine - coarse
    level = np.where(usable, without_gaps, coarse)
    rough = ndimage.convolve(level, _CROSS.astype(np.float32), mode="nearest")
    # next to the rim, missing pixels look like detail
    inside = ndimage.minimum_filter(usable, round(3 * _COARSE), mode="nearest")
    inside = inside.astype(np.float32)
    around = ndimage.gaussian_filter(inside, _AROUND, mode="constant")
    energy, noise = (
        ndimage.gaussian_filter(plane**2 * inside, _AROUND, mode="constant")
        / np.maximum(around, np.float32(1e-6))
        for plane in (band, rough)
    )
    is_lost = around < _MIN_INSIDE
    energy[is_lost] = noise[is_lost] = 0
    return energy, np.float32(_BAND_SHARE) * noise


def _find_peak_height(
    energy: core.Float32Array, z_nm: core.FloatArray
) -> core.Float32Array:
    """Find the height of maximum detail; `energy` (heights, Y, X), `z_nm` ascending."""
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
    # parabola a u^2 + b u through the three, u relative to the central one
    a = ((above - here) / high - (below - here) / low) / (high - low)
    b = (above - here) / high - a * high
    falling = a < 0
    top = np.where(falling, -b / (2 * np.where(falling, a, -1)), 0)
    height = z_nm[middle] + np.clip(top, low, high)
    height = np.where(falling, height, z_nm[best])
    return np.asarray(height, dtype=np.float32)


def plan_focus(
    heights: Sequence[core.Acquisition],
    z_nm: Sequence[float],
    solved_height: int,
    solution: StitchSolution,
    options: StitchOptions | None = None,
) -> core.Job[tuple[FocusPlan, tuple[HeightShift, ...]]]:
    """Register the heights of a scan, in ascending order, to the solved height.

    `solved_height` is the index of that one, whose positions, shading, gains and
    offsets are in `solution`; `options` define how frames are blended. The plan
    computes nothing until a block is requested; it is returned with the shift of each
    height relative to the solved one.

    Raises
    ------
    RegistrationError
        If no other height can be registered to the solved one.
    """
    options = StitchOptions() if options is None else options
    base = plan_fusion(heights[solved_height], solution, options)
    all_heights = core.Acquisition(
        _ConcatenatedFrames(tuple(heights)),
        tuple(f"{k}/{name}" for k, h in enumerate(heights) for name in h.names),
    )
    count, levels = len(heights[solved_height]), len(heights)
    turns = np.tile(solution.turns, (levels, 1))
    gains = np.tile(solution.gains, (levels, 1))
    offsets = np.tile(solution.offsets, (levels, 1))
    joined_frames = base.frames.copy_with_changes(
        all_heights, gains=gains.ravel(), offsets=offsets.ravel(), rotations=turns
    )
    places = np.full((levels, count, 2), np.nan)
    places[solved_height] = base.positions
    placed_frames = np.flatnonzero(solution.is_placed).tolist()
    shifts = [HeightShift(z, None, float("nan")) for z in z_nm]
    shifts[solved_height] = HeightShift(z_nm[solved_height], (0.0, 0.0), 0.0)
    # outwards: a height too blurred for the solved one is registered to the next
    outwards = sorted(range(levels), key=lambda level: abs(level - solved_height))
    for level_count, level in enumerate(outwards[1:]):
        what = "Registering the heights to each other"
        yield core.Progress(level_count, levels - 1, what)
        near = level + (1 if level < solved_height else -1)
        for anchor in dict.fromkeys((solved_height, near)):
            pairs = [(anchor * count + i, level * count + i) for i in placed_frames]
            height_shifts = _measure_shifts(
                joined_frames, pairs, places[anchor], solution.threshold
            )
            if np.isfinite(height_shifts).any():
                break
        else:
            continue
        places[level], shifts[level] = _pool_shifts(
            z_nm[level], places[anchor] + height_shifts, base.positions
        )
        if options.match_gain:
            frames = base.frames.copy_with_changes(heights[level])
            brightness = _fit_brightness(frames, places[level], base.frames)
            gains[level], offsets[level] = brightness
    if sum(shift.shift_px is not None for shift in shifts) < 2:
        msg = (
            "No height could be registered to the sharpest one: check that all heights "
            "show the same area, or stitch a single folder."
        )
        raise core.RegistrationError(msg, code="heights-unrelated")
    matched_frames = joined_frames.copy_with_changes(
        gains=gains.ravel(), offsets=offsets.ravel()
    )
    plans, plans_in_use = [], []
    for level, z in enumerate(z_nm):
        if shifts[level].shift_px is not None:
            positions = np.full((levels * count, 2), np.nan)
            positions[level * count : (level + 1) * count] = places[level]
            plans.append(replace(base, frames=matched_frames, positions=positions))
            plans_in_use.append(z)
    plan = FocusPlan(
        tuple(plans), tuple(plans_in_use), plans_in_use.index(z_nm[solved_height])
    )
    return plan, tuple(shifts)


def _measure_shifts(
    frames: CorrectedFrames,
    pairs: Sequence[core.IntPair],
    first_places: core.FloatArray,
    threshold: float,
) -> core.FloatArray:
    """Measure each frame's shift relative to another height, NaN if uncertain.

    `first_places` (N, 2), corners of the other height's frames; `threshold`: score that
    chance does not reach.
    """
    count = len(first_places)
    frame_shifts = np.full((count, 2), np.nan)
    reach = compute_reach(frames.frame_shape)
    positions = np.full((len(frames.acquisition), 2), np.nan)
    sure_pairs, shifts, likeness = [], [], []
    for pair in pairs:
        candidates = search_shifts(frames, pair, (0, 0), reach)
        here = first_places[pair[0] % count]
        best_score = candidates.best_score
        if best_score <= threshold or not np.isfinite(here).all():
            continue
        # both show the same field: by one clear peak or by periods
        runners_up, ncc = candidates.score[1:2], float(candidates.ncc[0])
        if not ((runners_up < _RUNNER_UP * best_score).all() or ncc >= _ALIKE):
            continue
        good = candidates.shifts[candidates.score >= _NEARLY * best_score]
        shift = good[np.argmin(np.hypot(good[:, 0], good[:, 1]))]
        positions[pair[0]], positions[pair[1]] = here, here + shift
        sure_pairs.append(pair)
        shifts.append(shift)
        likeness.append(ncc)
    if len(sure_pairs) <= len(pairs) / 2:
        return frame_shifts
    off = np.median(np.hypot(*(np.array(shifts) - np.median(shifts, axis=0)).T))
    if not (off <= _TOGETHER_PX or np.median(likeness) >= _LIKE):
        return frame_shifts
    for sweep in refine_positions(frames, positions, sure_pairs, (2.0, 1.0, 1.0)):
        positions = sweep.positions
    for first, second in sure_pairs:
        frame_shifts[first % count] = positions[second] - positions[first]
    return frame_shifts


def _pool_shifts(
    z_nm: float, places: core.FloatArray, solved_places: core.FloatArray
) -> tuple[core.FloatArray, HeightShift]:
    """Average the frame shifts at one height if nearly equal, and summarise them.

    `places`, `solved_places` (N, 2), corners of its frames and of the solved ones.
    """
    shifts = places - solved_places
    off = np.hypot(*(shifts - np.nanmedian(shifts, axis=0)).T)
    is_one = float(np.nanmedian(off)) <= _SAME_PX
    shifts_in_use = shifts[off <= 3 * _SAME_PX] if is_one else shifts[np.isfinite(off)]
    mean = shifts_in_use.mean(axis=0)
    scatter = float(np.sqrt(np.mean(np.sum((shifts_in_use - mean) ** 2, axis=1))))
    # the mean is more precise than any single shift, and applies to all frames
    height_places = solved_places + mean if is_one else places
    return height_places, HeightShift(z_nm, (float(mean[0]), float(mean[1])), scatter)


def _fit_brightness(
    frames: CorrectedFrames, places: core.FloatArray, solved_frames: CorrectedFrames
) -> tuple[core.FloatArray, core.FloatArray]:
    """Estimate the gains and offsets of the frames of one height.

    Offsets follow from the overlaps of the height, whose frames are equally out of
    focus there, unless the light is as steady as at the solved height; gains from the
    mean of each frame over that of the solved one. `places` (N, 2). Returns (N,) gains
    and (N,) offsets in grey values.
    """
    placed_frames = np.flatnonzero(np.isfinite(places[:, 0])).tolist()
    usual = {i: _compute_mean_level(solved_frames, i) for i in placed_frames}
    even = frames.copy_with_changes(
        gains=np.ones_like(solved_frames.gains),
        offsets=np.zeros_like(solved_frames.offsets),
    )
    pairs = find_overlapping_pairs(places, frames.frame_shape)
    offsets = refine_shading(even, places, pairs, is_fixed=True).offsets
    change = np.abs(offsets - solved_frames.offsets)[placed_frames]
    if not (change > _STEADY * np.median([*usual.values()])).any():
        offsets = solved_frames.offsets
    even = even.copy_with_changes(offsets=offsets)
    gains = solved_frames.gains.copy()
    for index, level in usual.items():
        own = _compute_mean_level(even, index)
        if min(level, own) > 0:
            gains[index] = own / level
    return gains, offsets


def _compute_mean_level(frames: CorrectedFrames, index: int) -> float:
    """Compute the weighted mean grey value of a corrected frame."""
    image, weight = frames.correct(index)
    return float((image * weight).sum() / max(float(weight.sum()), 1e-12))
