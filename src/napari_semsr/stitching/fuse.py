"""Fusion of overlapping frames into any rectangle of the mosaic.

A plan has the position of every frame; `FusionPlan.compute_block` computes one
rectangle and depends on nothing else, so that blocks may be computed in any order, by
any worker, and have the same pixels however the mosaic is divided. Grey values are
those of the frames above their dark level and offset, shading and gain divided out; if
offsets would make some of them negative, a pedestal is added.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from napari_semsr import core
from napari_semsr.core import BoolArray, Float32Array, FloatArray, FloatPair, IntPair
from napari_semsr.stitching import frames as prepared, shading
from napari_semsr.stitching.frames import LOBES, CorrectedFrames
from napari_semsr.stitching.nominal import find_overlapping_pairs, find_touching_pairs
from napari_semsr.stitching.pairwise import compute_reach, search_shifts
from napari_semsr.stitching.refine import refine_positions
from napari_semsr.stitching.solve import update_shading
from napari_semsr.stitching.state import State, StitchOptions, StitchSolution

_FAINT = 1e-3  # chosen: a rim is used alone where no other frame reaches


def compute_feather_weights(frames: CorrectedFrames) -> Float32Array:
    """Compute the feathering weights of a frame, which decrease towards its edge."""
    valid = frames.weight > 0
    padded_mask = np.pad(valid, 1)
    distance = ndimage.distance_transform_edt(padded_mask)[1:-1, 1:-1]
    # chosen: wide enough to hide a step, narrow enough to use most of an overlap with
    # full weight
    width = max(8.0, 0.08 * min(frames.frame_shape))
    unit = np.clip(distance / width, 0, 1)
    smooth: Float32Array = (unit**2 * (3 - 2 * unit)).astype(np.float32)
    return np.where(valid, np.maximum(smooth, _FAINT), 0).astype(np.float32)


@dataclass(frozen=True, slots=True)
class FusionPlan:
    """Plan of a mosaic whose blocks are computed on request."""

    frames: CorrectedFrames
    # (N, 2) top-left corners; NaN for frames that are left out
    positions: FloatArray
    # (Y, X) share of a frame's weight near the edge of its field
    feather: Float32Array
    # weighted mean, or the frame of largest weight at each pixel
    blend: Literal["feather", "seam"]
    shape: IntPair  # Rows and columns of the mosaic
    pedestal: float = 0.0  # Added to all grey values

    def has_same_pixels(self, other: "FusionPlan", box: core.Box) -> bool:
        """Return whether another plan yields the same pixels in a rectangle."""
        one, two = self.frames, other.frames
        same = (
            (self.shape, self.blend, self.pedestal)
            == (other.shape, other.blend, other.pedestal)
            and np.array_equal(one.flat.dark, two.flat.dark)
            and np.array_equal(one.flat.flat, two.flat.flat)
            and (one.distortion, one.centre_px) == (two.distortion, two.centre_px)
        )
        near = self._find_nearby_frames(box)
        if not same or not np.array_equal(near, other._find_nearby_frames(box)):  # noqa: SLF001
            return False
        return all(
            np.array_equal(ours[near], theirs[near])
            for ours, theirs in (
                (self.positions, other.positions),
                (one.gains, two.gains),
                (one.offsets, two.offsets),
                (one.rotations, two.rotations),
            )
        )

    def _find_nearby_frames(self, box: core.Box) -> BoolArray:
        """Return the (N,) mask of frames that may overlap a rectangle."""
        rows, columns = self.frames.frame_shape
        y, x = self.positions.T
        with np.errstate(invalid="ignore"):
            near = (y < box.y1 + 1) & (y + rows > box.y0 - 1)
            near &= (x < box.x1 + 1) & (x + columns > box.x0 - 1)
        return np.asarray(near)

    def compute_block(self, box: core.Box) -> tuple[Float32Array, NDArray[np.uint16]]:
        """Compute a rectangular block of the mosaic, given in mosaic pixels.

        Returns grey values, NaN outside all frames, and the number of frames at each
        pixel.
        """
        total = np.zeros(box.shape, np.float32)
        weights = np.zeros(box.shape, np.float32)
        coverage = np.zeros(box.shape, np.uint16)
        for index in np.flatnonzero(self._find_nearby_frames(box)).tolist():
            part = self._resample_frame(index, box)
            if part is None:
                continue
            where, image, weight = part
            is_covered = weight > 0
            coverage[where] += is_covered
            if self.blend == "feather":
                total[where] += weight * image
                weights[where] += weight
            else:
                wins = weight > weights[where]
                total[where] = np.where(wins, image, total[where])
                weights[where] = np.where(wins, weight, weights[where])
        empty = coverage == 0
        if self.blend == "feather":
            total /= np.where(empty, np.float32(1), weights)
        if self.pedestal:
            total += np.float32(self.pedestal)
        total[empty] = np.nan
        return total, coverage

    def _resample_frame(
        self, index: int, box: core.Box
    ) -> tuple[tuple[slice, slice], Float32Array, Float32Array] | None:
        """Resample a frame to a rectangle's grid; return box, values and weights."""
        corner = np.round(self.positions[index]).astype(int)
        shift = self.positions[index] - corner
        y, x = corner.tolist()
        frame = core.Box.from_shape(self.frames.frame_shape, (y, x))
        if not box.overlaps(frame):
            return None
        shown_box = box.intersection(frame)
        image, weight = self.frames.correct(index)
        inner = shown_box.relative_to(frame)
        # kernels use a few pixels beyond the rectangle, wherever it ends
        read = inner.grow(LOBES).intersection(core.Box.from_shape(frame.shape))
        values = image[read.slices]
        for axis in range(2):
            place = np.arange(-LOBES, LOBES + 1) + float(shift[axis])
            kernel = np.sinc(place) * np.sinc(place / LOBES) * (np.abs(place) < LOBES)
            kernel = kernel / kernel.sum()
            values = ndimage.correlate1d(values, kernel, axis=axis, mode="nearest")
        values = values[inner.relative_to(read).slices]
        weight = (weight * self.feather)[inner.slices]
        is_clipped = self.frames.find_clipped(index)[read.slices]
        if is_clipped.any():  # clipped pixels are used where there is nothing else
            share = ndimage.uniform_filter(is_clipped.astype(np.float32), 2 * LOBES + 1)
            kept_share = 1 - share[inner.relative_to(read).slices]
            weight = weight * np.maximum(kept_share, _FAINT)
        return shown_box.relative_to(box).slices, values, weight


def plan_fusion(
    acquisition: core.Acquisition,
    solution: StitchSolution,
    options: StitchOptions | None = None,
) -> FusionPlan:
    """Plan the mosaic of a solved scan, with blocks computed on request.

    Raises
    ------
    RegistrationError
        If no frame has a position, or the solution is of another scan.
    """
    options = StitchOptions() if options is None else options
    if len(acquisition) != len(solution.positions_px):
        msg = (
            f"The solution has {len(solution.positions_px)} positions for "
            f"{len(acquisition)} frames: use the solution of this scan."
        )
        raise core.RegistrationError(msg, code="solution-of-other-scan")
    if not solution.is_placed.any():
        msg = "Cannot create a mosaic because no frame is placed."
        raise core.RegistrationError(msg, code="nothing-placed")
    frames = solution.correct_frames(acquisition)
    positions = solution.positions_px - np.nanmin(solution.positions_px, axis=0)
    last = np.nanmax(np.round(positions), axis=0).astype(int)
    rows, columns = (last + acquisition.frame_shape).tolist()
    shape = rows, columns
    feather, pedestal = compute_feather_weights(frames), solution.pedestal
    return FusionPlan(frames, positions, feather, options.blend, shape, pedestal)


# Two mosaics of one scan, each from half of its frames.
#
# They share the grid and the frame positions of the whole mosaic and nothing else: flat
# field and dark level are estimated from each half alone, so that their noise is
# independent and the resolution follows from their correlation.
#
# Frames are split so that, as far as possible, where two of them overlap one is in each
# half. The spanning tree of the widest overlaps is coloured alternately, which on a
# grid is a checkerboard; then single frames change sides while the area covered by both
# halves grows.


@dataclass(frozen=True, slots=True)
class MosaicHalfPlan:
    """Plan of a mosaic from half of the frames, with blocks computed on request."""

    name: Literal["a", "b"]
    frames: tuple[str, ...]  # names of its frames
    plan: FusionPlan  # on the grid of the whole mosaic


def plan_mosaic_halves(
    acquisition: core.Acquisition,
    solution: StitchSolution,
    whole: FusionPlan,
    options: StitchOptions | None = None,
) -> core.Job[tuple[MosaicHalfPlan, MosaicHalfPlan]]:
    """Plan two mosaics, each from half of the placed frames of a solved scan.

    `whole` is the mosaic of all frames; `options` are those of the solution.

    Raises
    ------
    RegistrationError
        If fewer than two frames have a position.
    """
    options = StitchOptions() if options is None else options
    placed_count = int(solution.is_placed.sum())
    if placed_count < 2:
        msg = (
            f"Half mosaics need at least two placed frames, got {placed_count}: stitch "
            "without halves."
        )
        raise core.RegistrationError(msg, code="too-few-frames")
    first = select_first_half_frames(whole)
    sides: tuple[tuple[Literal["a", "b"], BoolArray], ...]
    sides = ("a", first), ("b", solution.is_placed & ~first)
    halves: list[MosaicHalfPlan] = []
    for name, half in sides:
        yield core.Progress(len(halves), 2, f"Estimating the flat field of half {name}")
        frames = tuple(solution.names[i] for i in np.flatnonzero(half))
        plan = _plan_mosaic_half(acquisition, solution, whole, options, half)
        halves.append(MosaicHalfPlan(name, frames, plan))
    return halves[0], halves[1]


def select_first_half_frames(whole: FusionPlan) -> BoolArray:
    """Assign frames to two halves; return the (N,) mask of the first half."""
    positions = whole.positions
    has_place = np.asarray(np.isfinite(positions).all(axis=1))
    in_first: BoolArray = _assign_frame_halves(positions, whole.frames.frame_shape)
    in_first &= has_place
    # chosen: a cell is 3 % of a frame
    step = max(1, min(whole.frames.frame_shape) // 32)
    valid = (whole.feather > 0)[step // 2 :: step, step // 2 :: step]
    rows, columns = np.nonzero(valid)
    width = whole.shape[1] // step + valid.shape[1] + 2
    corners = np.zeros(positions.shape, np.intp)
    corners[has_place] = np.rint(positions[has_place] / step).astype(np.intp)
    cells = [(y + rows) * width + x + columns for y, x in corners]
    counts = np.zeros((2, (whole.shape[0] // step + valid.shape[0] + 2) * width), int)
    for index in np.flatnonzero(has_place):
        counts[int(in_first[index]), cells[index]] += 1
    # chosen: a grid needs no sweep
    for _ in range(8):
        has_moved = False
        for frame in np.flatnonzero(has_place).tolist():
            here = int(in_first[frame])
            own, other = counts[here, cells[frame]], counts[1 - here, cells[frame]]
            # the frame itself covers its cells; in the other half it may cover more
            if np.count_nonzero(own > 1) > np.count_nonzero(other > 0):
                counts[here, cells[frame]] -= 1
                counts[1 - here, cells[frame]] += 1
                in_first[frame] = not in_first[frame]
                has_moved = True
        if not has_moved:
            break
    return in_first


def _assign_frame_halves(positions: FloatArray, shape: tuple[int, int]) -> BoolArray:
    """Two-colour the spanning tree of the largest overlaps."""
    count = len(positions)
    pairs = find_touching_pairs(positions, shape)
    area = np.zeros(len(pairs))
    for number, (i, j) in enumerate(pairs):
        sides = np.array(shape) - np.abs(positions[j] - positions[i])
        area[number] = float(np.prod(np.maximum(sides, 0)))
    # a minimum spanning tree uses the smallest; an edge of 0 would be missing
    least = np.prod(shape) * 2.0 - area
    first, second = np.array(pairs, np.int32).reshape(-1, 2).T  # as older SciPy needs
    graph = sparse.coo_array((least, (first, second)), (count, count)).tocsr()
    tree = csgraph.minimum_spanning_tree(graph)
    tree = tree + tree.T
    even = np.zeros(count, bool)
    is_visited = np.zeros(count, bool)
    for start in range(count):
        if is_visited[start]:
            continue
        order, before = csgraph.breadth_first_order(tree, start, directed=False)
        even[start] = True
        for index in order[1:]:
            even[index] = not even[before[index]]
        is_visited[order] = True
    return even


def _plan_mosaic_half(
    acquisition: core.Acquisition,
    solution: StitchSolution,
    whole: FusionPlan,
    options: StitchOptions,
    in_half: BoolArray,
) -> FusionPlan:
    """Plan the mosaic of one half of the frames, with its own flat field."""
    flat = solution.flat
    if flat.method not in prepared.FIXED_METHODS:
        known = flat.dark if flat.is_dark_known else None
        some = np.flatnonzero(in_half)
        flat = prepared.estimate_initial_flat(acquisition, some, dark_known=known)
        if solution.flat.method.startswith("none"):
            # decided by all overlaps; those within a half may be too few
            flat = flat.create_uniform()
    frames = whole.frames.copy_with_changes(flat=flat)
    positions = np.where(in_half[:, None], whole.positions, np.nan)
    state = State(acquisition, options, frames, whole.positions, True)
    state.positions, state.noise = positions, solution.noise
    for knots in (shading.COARSE_KNOTS, shading.FINE_KNOTS):
        # overlaps of the whole scan complement those within a half
        update_shading(state, knots, expected_frames=whole.frames)
    # as bright as the whole mosaic: shading and gains are known up to a factor
    before, after = whole.frames, state.frames
    valid_in_both = before.flat.valid & after.flat.valid
    factor = np.mean(np.log(before.gains[in_half] / after.gains[in_half]))
    shades = before.flat.flat[valid_in_both] / after.flat.flat[valid_in_both]
    factor += np.mean(np.log(shades))
    frames = after.copy_with_changes(gains=after.gains * float(np.exp(factor)))
    feather = compute_feather_weights(frames)
    return replace(whole, frames=frames, positions=positions, feather=feather)


# Focus stacking: scans at several focal-plane heights become one mosaic.
#
# The positions of one height have been solved. Every frame of another height shows the
# same field as the frame of its stage stop at that height, more or less blurred, so it
# is registered to that frame alone. If the shifts of a height agree within their
# errors, one shift is used for all: the stage did not move, but the image moved with
# the focus.
#
# Each pixel is then taken from the height with most detail there. Detail is the energy
# between two Gaussians, averaged around the pixel, as in shape from focus [1]_; the
# height of the sample follows from the parabola through the logarithm of the energy at
# the best height and its neighbours.
#
# .. [1] S. K. Nayar, Y. Nakagawa, IEEE Trans. Pattern Anal. Mach. Intell. 16, 824
#    (1994), doi:10.1109/34.308479.

_SAME_PX = 0.5  # scatter of equal shifts; chosen: blur moves detail by less
_FINE, _COARSE = 1.0, 3.0  # px; focus affects the detail between them
# Of powers 2, 3, 4 and 8 the third fits best, or to 0.2 dB (benchmarks/focus.py); with
# 8 px instead of 5, height errors are 10 % larger.
_AROUND = 5.0  # px; sigma of the window over which detail is averaged
_SHARPEST = 3.0  # power of the energies that weight the heights
# As for the noise of frames, and the noise that band and mask leave
_CROSS = prepared.SECOND_DIFFERENCE / 6
_BAND_SHARE = (
    1 / (4 * np.pi * _FINE**2)
    + 1 / (4 * np.pi * _COARSE**2)
    - 1 / (np.pi * (_FINE**2 + _COARSE**2))
)


@dataclass(frozen=True, slots=True)
class HeightShift:
    """Lateral shift of one focal height relative to the solved height."""

    z_nm: float  # Height of the focal plane
    # mean position of its frames minus those of the solved height; None if it could not
    # be registered, and is left out
    shift_px: FloatPair | None
    scatter_px: float  # RMS of its frames about that shift; NaN if it is left out


def find_sharpest(heights: Sequence[core.Acquisition]) -> int:
    """Find the height whose frames contain the most detail above noise."""
    places = []
    for height in heights:
        frames = (
            prepared.fill_missing_pixels(height.read(i))
            for i in prepared.choose_evenly_spaced_indices(len(height), 9)
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
    def shape(self) -> IntPair:
        """Shape of the mosaic (rows, columns)."""
        return self.plans[0].shape

    def compute_block(
        self, box: core.Box
    ) -> tuple[Float32Array, NDArray[np.uint16], Float32Array]:
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
        # chosen: a height needs twice the energy of noise
        unsure = best <= np.maximum(2.0 * floor, 1e-30)
        height[unsure | ~is_reached.all(axis=0)] = np.nan
        coverage = np.stack(counts).sum(axis=0, dtype=np.uint16)
        coverage[~is_reached[self.solved_index]] = 0
        return mean.astype(np.float32), coverage, height


def _compute_detail_energy(
    image: Float32Array, usable: NDArray[np.bool_]
) -> tuple[Float32Array, Float32Array]:
    """Compute the local detail energy at each pixel and its noise contribution."""
    cover = usable.astype(np.float32)
    without_gaps = np.where(usable, image, np.float32(0))

    def compute_local_mean(plane: Float32Array, sigma: float) -> Float32Array:
        smooth, around = (
            ndimage.gaussian_filter(part, sigma, mode="constant")
            for part in (plane * cover, cover)
        )
        spread: Float32Array = smooth / np.maximum(around, np.float32(1e-6))
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
    # chosen: of a smaller share of the window, a few pixels would decide
    is_lost = around < 0.05
    energy[is_lost] = noise[is_lost] = 0
    return energy, np.float32(_BAND_SHARE) * noise


def _find_peak_height(energy: Float32Array, z_nm: FloatArray) -> Float32Array:
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
    count, levels = len(heights[solved_height]), len(heights)
    turns = np.tile(solution.turns, (levels, 1))
    gains = np.tile(solution.gains, (levels, 1))
    offsets = np.tile(solution.offsets, (levels, 1))
    joined_frames = base.frames.copy_with_changes(
        _join_heights(heights),
        gains=gains.ravel(),
        offsets=offsets.ravel(),
        rotations=turns,
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


def _join_heights(heights: Sequence[core.Acquisition]) -> core.Acquisition:
    """Return the frames of all heights as one scan."""
    names = tuple(f"{k}/{name}" for k, h in enumerate(heights) for name in h.names)
    owners = [(height, index) for height in heights for index in range(len(height))]

    def read_frame(index: int) -> core.RealArray:
        height, own = owners[index]
        return height.read(own)

    shape, kind = heights[0].frame_shape, heights[0].dtype
    stack = prepared.FrameStack(read_frame, shape, kind, len(names))
    return core.Acquisition(stack, names)


def _measure_shifts(
    frames: CorrectedFrames,
    pairs: Sequence[IntPair],
    first_places: FloatArray,
    threshold: float,
) -> FloatArray:
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
        # measured on focal series of circuits, particles, pits and fractures: between
        # frames of one field the second best shift scores 0.6 of the best or less;
        # between others usually 0.7 or more, with correlations up to 0.5. On lattices
        # periods score the same, with more
        if not ((runners_up < 0.65 * best_score).all() or ncc >= 0.6):
            continue
        # chosen: among periods, the smallest shift
        good = candidates.shifts[candidates.score >= 0.9 * best_score]
        shift = good[np.argmin(np.hypot(good[:, 0], good[:, 1]))]
        positions[pair[0]], positions[pair[1]] = here, here + shift
        sure_pairs.append(pair)
        shifts.append(shift)
        likeness.append(ncc)
    if len(sure_pairs) <= len(pairs) / 2:
        return frame_shifts
    off = np.median(np.hypot(*(np.array(shifts) - np.median(shifts, axis=0)).T))
    # chosen: the error in px of whole-pixel shifts of blurred frames; frames with a
    # sure position each correlate by 0.3 and more, others by up to 0.2
    if not (off <= 2.0 or np.median(likeness) >= 0.3):
        return frame_shifts
    for sweep in refine_positions(frames, positions, sure_pairs, (2.0, 1.0, 1.0)):
        positions = sweep.positions
    for first, second in sure_pairs:
        frame_shifts[first % count] = positions[second] - positions[first]
    return frame_shifts


def _pool_shifts(
    z_nm: float, places: FloatArray, solved_places: FloatArray
) -> tuple[FloatArray, HeightShift]:
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
    frames: CorrectedFrames, places: FloatArray, solved_frames: CorrectedFrames
) -> tuple[FloatArray, FloatArray]:
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
    offsets = shading.refine_shading(even, places, pairs, is_fixed=True).offsets
    change = np.abs(offsets - solved_frames.offsets)[placed_frames]
    # measured: in steady light, fits of few overlaps err by 0.01 of it
    if not (change > 0.02 * np.median([*usual.values()])).any():
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
