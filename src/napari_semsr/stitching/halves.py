"""Two mosaics of one scan, each from half of its frames.

They share the grid and the frame positions of the whole mosaic and nothing else: flat
field and dark level are estimated from each half alone, so that their noise is
independent and the resolution follows from their correlation.

Frames are split so that, as far as possible, where two of them overlap one is in each
half. The spanning tree of the widest overlaps is coloured alternately, which on a grid
is a checkerboard; then single frames change sides while the area covered by both halves
grows.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from napari_semsr.core import (
    Acquisition,
    BoolArray,
    FloatArray,
    Job,
    Progress,
    RegistrationError,
)
from napari_semsr.stitching.flat_field import (
    FIXED_METHODS,
    create_uniform_flat_field,
    estimate_initial_flat,
)
from napari_semsr.stitching.fuse import FusionPlan, compute_feather_weights
from napari_semsr.stitching.nominal import find_touching_pairs
from napari_semsr.stitching.options import StitchOptions
from napari_semsr.stitching.shading import COARSE_KNOTS, FINE_KNOTS
from napari_semsr.stitching.solution import StitchSolution
from napari_semsr.stitching.solve import update_shading
from napari_semsr.stitching.state import State

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
    acquisition: Acquisition,
    solution: StitchSolution,
    whole: FusionPlan,
    options: StitchOptions | None = None,
) -> Job[tuple[MosaicHalfPlan, MosaicHalfPlan]]:
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
        raise RegistrationError(msg, code="too-few-frames")
    first = select_first_half_frames(whole)
    sides: tuple[tuple[Literal["a", "b"], BoolArray], ...]
    sides = ("a", first), ("b", solution.is_placed & ~first)
    halves: list[MosaicHalfPlan] = []
    for name, half in sides:
        yield Progress(len(halves), 2, f"Estimating the flat field of half {name}")
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
    acquisition: Acquisition,
    solution: StitchSolution,
    whole: FusionPlan,
    options: StitchOptions,
    in_half: BoolArray,
) -> FusionPlan:
    """Plan the mosaic of one half of the frames, with its own flat field."""
    flat = solution.flat
    if flat.method not in FIXED_METHODS:
        flat = estimate_initial_flat(acquisition, np.flatnonzero(in_half))
        if solution.flat.method.startswith("none"):
            # decided by all overlaps; those within a half may be too few
            flat = create_uniform_flat_field(
                flat.flat.shape, flat.dark, "none is better"
            )
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
    factor += np.mean(
        np.log(before.flat.flat[valid_in_both] / after.flat.flat[valid_in_both])
    )
    frames = after.copy_with_changes(gains=after.gains * float(np.exp(factor)))
    return replace(
        whole,
        frames=frames,
        positions=positions,
        feather=compute_feather_weights(frames),
    )
