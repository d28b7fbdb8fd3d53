"""Fusion of overlapping frames into any rectangle of the mosaic.

A plan has the position of every frame; `FusionPlan.compute_block` computes one
rectangle and depends on nothing else, so that blocks may be computed in any order, by
any worker, and have the same pixels however the mosaic is divided. Grey values are
those of the frames above their dark level and offset, shading and gain divided out; if
offsets would make some of them negative, a pedestal is added.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from napari_semsr import core
from napari_semsr.stitching.flat_field import (
    FIXED_METHODS,
    estimate_initial_flat,
)
from napari_semsr.stitching.frames import LOBES, CorrectedFrames
from napari_semsr.stitching.nominal import find_touching_pairs
from napari_semsr.stitching.shading import COARSE_KNOTS, FINE_KNOTS
from napari_semsr.stitching.solution import StitchSolution
from napari_semsr.stitching.solve import update_shading
from napari_semsr.stitching.state import State, StitchOptions

# Share of a frame's shorter side, at least 8 px; chosen: wide enough to hide a step,
# narrow enough to use most of an overlap with full weight.
_FEATHER = 0.08
_MIN_FEATHER = 8.0
_FAINT = 1e-3  # chosen: a rim is used alone where no other frame reaches


def _compute_lanczos_weights(part: float) -> core.FloatArray:
    """Compute Lanczos weights to interpolate a row at ``x - part``, summing to 1."""
    place = np.arange(-LOBES, LOBES + 1) + part
    weights = np.sinc(place) * np.sinc(place / LOBES) * (np.abs(place) < LOBES)
    return np.asarray(weights / weights.sum())


def compute_feather_weights(frames: CorrectedFrames) -> core.Float32Array:
    """Compute the feathering weights of a frame, which decrease towards its edge."""
    valid = frames.weight > 0
    padded_mask = np.pad(valid, 1)
    distance = ndimage.distance_transform_edt(padded_mask)[1:-1, 1:-1]
    width = max(_MIN_FEATHER, _FEATHER * min(frames.frame_shape))
    unit = np.clip(distance / width, 0, 1)
    smooth: core.Float32Array = (unit**2 * (3 - 2 * unit)).astype(np.float32)
    return np.where(valid, np.maximum(smooth, _FAINT), 0).astype(np.float32)


@dataclass(frozen=True, slots=True)
class FusionPlan:
    """Plan of a mosaic whose blocks are computed on request."""

    frames: CorrectedFrames
    # (N, 2) top-left corners; NaN for frames that are left out
    positions: core.FloatArray
    # (Y, X) share of a frame's weight near the edge of its field
    feather: core.Float32Array
    # weighted mean, or the frame of largest weight at each pixel
    blend: Literal["feather", "seam"]
    shape: core.IntPair  # Rows and columns of the mosaic
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

    def _find_nearby_frames(self, box: core.Box) -> core.BoolArray:
        """Return the (N,) mask of frames that may overlap a rectangle."""
        rows, columns = self.frames.frame_shape
        y, x = self.positions.T
        with np.errstate(invalid="ignore"):
            near = (y < box.y1 + 1) & (y + rows > box.y0 - 1)
            near &= (x < box.x1 + 1) & (x + columns > box.x0 - 1)
        return np.asarray(near)

    def compute_block(
        self, box: core.Box
    ) -> tuple[core.Float32Array, NDArray[np.uint16]]:
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
    ) -> tuple[tuple[slice, slice], core.Float32Array, core.Float32Array] | None:
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
            kernel = _compute_lanczos_weights(float(shift[axis]))
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

# Cells along a frame's shorter side for measuring areas, and sweeps over all frames;
# both chosen: a cell is 3 % of a frame, and a grid needs no sweep.
_CELLS = 32
_SWEEPS = 8


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
    sides: tuple[tuple[Literal["a", "b"], core.BoolArray], ...]
    sides = ("a", first), ("b", solution.is_placed & ~first)
    halves: list[MosaicHalfPlan] = []
    for name, half in sides:
        yield core.Progress(len(halves), 2, f"Estimating the flat field of half {name}")
        frames = tuple(solution.names[i] for i in np.flatnonzero(half))
        plan = _plan_mosaic_half(acquisition, solution, whole, options, half)
        halves.append(MosaicHalfPlan(name, frames, plan))
    return halves[0], halves[1]


def select_first_half_frames(whole: FusionPlan) -> core.BoolArray:
    """Assign frames to two halves; return the (N,) mask of the first half."""
    positions = whole.positions
    has_place = np.asarray(np.isfinite(positions).all(axis=1))
    in_first: core.BoolArray = _assign_frame_halves(positions, whole.frames.frame_shape)
    in_first &= has_place
    step = max(1, min(whole.frames.frame_shape) // _CELLS)
    valid = (whole.feather > 0)[step // 2 :: step, step // 2 :: step]
    rows, columns = np.nonzero(valid)
    width = whole.shape[1] // step + valid.shape[1] + 2
    corners = np.zeros(positions.shape, np.intp)
    corners[has_place] = np.rint(positions[has_place] / step).astype(np.intp)
    cells = [(y + rows) * width + x + columns for y, x in corners]
    counts = np.zeros((2, (whole.shape[0] // step + valid.shape[0] + 2) * width), int)
    for index in np.flatnonzero(has_place):
        counts[int(in_first[index]), cells[index]] += 1
    for _ in range(_SWEEPS):
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


def _assign_frame_halves(
    positions: core.FloatArray, shape: tuple[int, int]
) -> core.BoolArray:
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
    in_half: core.BoolArray,
) -> FusionPlan:
    """Plan the mosaic of one half of the frames, with its own flat field."""
    flat = solution.flat
    if flat.method not in FIXED_METHODS:
        known = flat.dark if flat.is_dark_known else None
        some = np.flatnonzero(in_half)
        flat = estimate_initial_flat(acquisition, some, dark_known=known)
        if solution.flat.method.startswith("none"):
            # decided by all overlaps; those within a half may be too few
            flat = flat.create_uniform()
    frames = whole.frames.copy_with_changes(flat=flat)
    positions = np.where(in_half[:, None], whole.positions, np.nan)
    state = State(acquisition, options, frames, whole.positions, True)
    state.positions, state.noise = positions, solution.noise
    for knots in (COARSE_KNOTS, FINE_KNOTS):
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
