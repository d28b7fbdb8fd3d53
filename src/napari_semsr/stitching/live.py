"""Incremental placement of frames while a scan is acquired.

While a scan has few frames it is repeatedly solved as a whole, in steps that run while
idle (`LivePlacement.solve_all_frames`): this determines the flat field, the axes of the
stage, and the chance level. Between these solutions a new frame is placed among those
that overlap it, by the search that also rescues frames of a complete scan, and refined
against them. The global optimisation then starts from the current state: each pair
keeps its measured shift, so that only pairs of the new frame are measured, and the
positions around it are solved together, as far as they move.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import replace
from typing import TypeVar

import numpy as np

from napari_semsr import core
from napari_semsr.core import BoolArray, FloatArray, FloatPair, IntPair, RealArray
from napari_semsr.stitching import (
    discovery,
    frames as prepared,
    layout,
    nominal,
    pairwise,
)
from napari_semsr.stitching.bridges import GroupPosition, compare_group_positions
from napari_semsr.stitching.frames import CorrectedFrames, FrameStack
from napari_semsr.stitching.fuse import FusionPlan, compute_feather_weights
from napari_semsr.stitching.layout import TOLERANCE_PX
from napari_semsr.stitching.refine import LinearisedShift, linearise_pair, solve_steps
from napari_semsr.stitching.solve import solve_mosaic
from napari_semsr.stitching.state import StitchOptions, StitchSolution

# Numbers of frames at which the whole scan is solved; chosen: each solution takes as
# long as the frames since the last one, and after 32 frames flat field and axes no
# longer change. Of more frames that wait, the first 32 are solved, so that neither
# time nor memory of a solution grows with a fast scan.
_SOLUTION_SIZES = (4, 8, 16, 32)
_RECENT = 24  # frames first compared with one without a stated position; chosen
# frames without a stated position that are tried again, after so many placed; chosen
_RETRIES = 8
_BATCH = 16  # pairs measured between two steps of a job; chosen


_T = TypeVar("_T")


class _GrowingFrames(CorrectedFrames):
    """Growing sequence of corrected frames with bounded caches."""

    # chosen: 200 frames of 256 px and their neighbours in the previous row; memory does
    # not grow with the scan
    cache_bytes = 128 << 20, 64 << 20

    def grow(self, acquisition: core.Acquisition) -> None:
        """Add frames with unit gain."""
        more = len(acquisition) - len(self.acquisition)
        self.acquisition = acquisition
        self.gains = np.append(self.gains, np.ones(more))
        self.offsets = np.append(self.offsets, np.zeros(more))
        self.rotations = np.append(self.rotations, np.zeros((more, 2)), axis=0)

    def drop_from_cache(self, index: int) -> None:
        """Drop a frame from the caches; it is read again when needed."""
        self._corrected_cache.drop(index)
        self._banded_cache.drop(index)


class _ReferenceFrames(pairwise.ResampledFrames):
    """Resampled frames, reused until their positions change by a pixel or more.

    The measured shift of a pair refers to the positions of resampling.
    """

    cache_bytes = 192 << 20  # chosen as for the growing frames

    def __init__(self, frames: CorrectedFrames) -> None:
        # 1 px, as in the last sweeps of a whole solution
        super().__init__(frames, np.zeros((0, 2)), 1.0)

    def set_position(self, index: int, position: FloatArray) -> None:
        """Set the position of a frame and resample it."""
        more = index + 1 - len(self.corners)
        if more > 0:
            self.corners = np.append(self.corners, np.zeros((more, 2), int), axis=0)
            self.parts = np.append(self.parts, np.zeros((more, 2)), axis=0)
        self.corners[index] = np.round(position)
        self.parts[index] = position - self.corners[index]
        self._cache.drop(index)

    def compute_shift(self, pair: IntPair) -> FloatArray:
        """Return the shift (2,) of a resampled pair, second frame minus first."""
        places = self.corners[list(pair)] + self.parts[list(pair)]
        return np.asarray(places[1] - places[0])

    def compute_distances(self, positions: FloatArray) -> FloatArray:
        """Return the (N, 2) distances from the resampling positions along each axis."""
        return np.abs(positions - self.corners - self.parts)


class _PairShifts:
    """Measured pairwise shifts, indexed by frame."""

    def __init__(self) -> None:
        self._of: dict[int, dict[int, LinearisedShift]] = {}

    def store_shifts(self, shifts: Iterable[LinearisedShift]) -> None:
        """Store the measured shifts of pairs, replacing any earlier ones."""
        for item in shifts:
            self._of.setdefault(item.first, {})[item.second] = item
            self._of.setdefault(item.second, {})[item.first] = item

    def remove_frame(self, index: int) -> None:
        """Remove the pairs of a frame."""
        for other in self._of.pop(index, {}):
            del self._of[other][index]

    def get_pairs(self, index: int) -> Mapping[int, LinearisedShift]:
        """Return the pairs of a frame, keyed by the other frame."""
        return self._of.get(index, {})

    def find_reachable(self, start: Iterable[int], hops: int) -> set[int]:
        """Return the given frames and all frames reachable within `hops` pairs."""
        reachable = {*start}
        for _ in range(hops):
            reachable |= {other for i in reachable for other in self.get_pairs(i)}
        return reachable


def _get_known_mask(places: FloatArray) -> BoolArray:
    """Return the (N,) mask of known positions (N, 2)."""
    return np.asarray(np.isfinite(places).all(axis=1))


def _run_job_in_thread(job: core.Job[_T]) -> core.Job[_T]:
    """Run a job in a thread; each step waits briefly for it to finish."""
    stop = threading.Event()

    def run_job() -> _T:
        try:
            while True:
                next(job)
                if stop.is_set():
                    raise core.Cancelled("The solution is no longer needed.")
        except StopIteration as end:
            result: _T = end.value
            return result
        finally:
            job.close()

    pool = ThreadPoolExecutor(1)
    future = pool.submit(copy_context().run, run_job)
    try:
        # s; chosen: a new frame hardly waits
        while not wait([future], 0.02).done:
            yield core.Progress(0, 0, "Solving all frames so far")
        return future.result()
    finally:
        stop.set()
        pool.shutdown(wait=False)


class LivePlacement:
    """Frame positions of a scan in progress.

    Parameters
    ----------
    read : callable
        Returns the grey values (Y, X) of a frame by its index.
    frame_shape : tuple of int
        Rows and columns of each frame.
    dtype : dtype
        Data type of their grey values.
    options : StitchOptions, optional
        As for `solve_mosaic`.
    unit : {"px", "nm"}
        Of the stated positions.
    pixel_size_nm : pair of float, optional
        ``(y, x)`` as stated.
    flat, dark : (Y, X) array, optional
        Flat field and dark frame, if the options name them; `dark` may be a grey level.
    """

    def __init__(
        self,
        read: Callable[[int], RealArray],
        frame_shape: IntPair,
        dtype: np.dtype[np.generic],
        options: StitchOptions | None = None,
        *,
        unit: str = "px",
        pixel_size_nm: core.PixelSize | None = None,
        flat: RealArray | None = None,
        dark: RealArray | float | None = None,
    ) -> None:
        self.options = options or StitchOptions()
        self.unit, self.pixel_size_nm = unit, pixel_size_nm
        self.flat, self.dark = flat, dark
        self.names: list[str] = []
        self.stated_corners = np.zeros((0, 2))  # NaN without a stated position
        # (N, 2) top-left corners in px; NaN without a position
        self.positions = np.zeros((0, 2))
        self.provisional: set[int] = set()  # at their stated positions, not measured
        self.blank: set[int] = set()  # blank frames, which have no position
        # frames that fitted nowhere when they were last tried
        self.misfits: set[int] = set()
        # frames to be tried again, as others near them were placed
        self.pending: set[int] = set()
        self.solution: StitchSolution | None = None
        self._stack = FrameStack(read, frame_shape, np.dtype(dtype))
        empty = core.Acquisition(self._stack, ())
        flat_field = prepared.create_uniform_flat_field(frame_shape, 0.0, "none")
        self.frames = _GrowingFrames(empty, flat_field)
        self._references = _ReferenceFrames(self.frames)
        self._feather = compute_feather_weights(self.frames)
        self._chance: layout.ChanceLevel | None = None
        # of each pair: step and information at its positions of resampling
        self._links = _PairShifts()
        self._fused_positions = np.zeros((0, 2))
        self._stale: set[int] = set()  # fused with another flat field or gain
        self._matrix: FloatArray | None = None  # camera px for each stated unit
        self._solve_at = float(_SOLUTION_SIZES[0])

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_placed(self) -> BoolArray:
        """Mask (N,) of the frames placed by their images."""
        has_position = _get_known_mask(self.positions)
        has_position[sorted(self.provisional)] = False
        return has_position

    # New frames.

    def add_frame(self, name: str, stated_corner: FloatPair | None = None) -> int:
        """Add a frame with the stated corner ``(y, x)``; return its index."""
        index = len(self.names)
        self.names.append(name)
        nowhere = np.full((1, 2), np.nan)
        here = nowhere
        if stated_corner is not None:
            here = np.array([stated_corner], dtype=float)
        self.stated_corners = np.append(self.stated_corners, here, axis=0)
        self.positions = np.append(self.positions, nowhere, axis=0)
        self._fused_positions = np.append(self._fused_positions, nowhere, axis=0)
        self._stack = replace(self._stack, count=index + 1)
        self.frames.grow(core.Acquisition(self._stack, tuple(self.names)))
        self._references.set_position(index, np.zeros(2))
        return index

    def set_stated_corner(
        self, index: int, stated_corner: FloatPair, unit: str
    ) -> None:
        """Set the stated corner, in px or nm, of a frame added without one."""
        self.stated_corners[index], self.unit = stated_corner, unit

    def reload_frame(self, index: int) -> None:
        """Reload a rewritten frame and discard its position."""
        self.frames.drop_from_cache(index)
        self._references.set_position(index, np.zeros(2))
        self._links.remove_frame(index)
        self.positions[index] = np.nan
        self._stale.add(index)
        for frames in (self.provisional, self.blank, self.misfits, self.pending):
            frames.discard(index)

    def place_frame(self, index: int) -> bool:
        """Place a frame using those that overlap it; return whether this succeeded."""
        self.pending.discard(index)
        if index in self.blank:
            return False
        if self._chance is None:
            self._use_stated_position(index)
            return bool(np.isfinite(self.positions[index]).all())
        self._links.remove_frame(index)
        self.provisional.discard(index)
        self.positions[index] = np.nan
        # the corner of the frame in whole pixels, (2,), from its image
        place, corner = self._predict_position(index), None
        if place is None:
            corner = self._search_all_placed_frames(index)
        else:
            first, last = pairwise.FIRST_REACH, pairwise.LAST_REACH
            for share in (first, 2 * first, last):
                reach = pairwise.compute_reach(self.frames.frame_shape, share)
                corner = self._find_nearby_position(index, place, reach)
                if corner is not None:
                    break
        if corner is None:
            self.misfits.add(index)
            self._use_stated_position(index)
            return False
        self.misfits.discard(index)
        self.positions[index] = corner
        self._refine_frame(index)
        self._optimise_neighbourhood(index)
        # unplaced frames that may overlap this one, and now and then all others
        search_range = pairwise.compute_reach(
            self.frames.frame_shape, pairwise.LAST_REACH
        )
        side = np.array(self.frames.frame_shape) + search_range
        waiting = np.array(self.list_unplaced(), dtype=int)
        with np.errstate(invalid="ignore"):
            away = np.abs(self.positions[waiting] - self.positions[index])
        self.pending.update(waiting[(away < side).all(axis=1)].tolist())
        if np.count_nonzero(self.is_placed) % _RETRIES == 0:
            unknown = waiting[np.isnan(away).any(axis=1)]
            self.pending.update(unknown[-_RETRIES:].tolist())
        return True

    def retry_pending(self, most: int = 1) -> int:
        """Retry frames whose neighbours were placed after the last attempt.

        Tries `most` frames at most; returns how many.
        """
        for count in range(most):
            if not self.pending:
                return count
            self.place_frame(min(self.pending))
        return most

    def list_changed_frames(self) -> list[int]:
        """List frames that were added or moved since the last fusion."""
        here, was = map(_get_known_mask, (self.positions, self._fused_positions))
        with np.errstate(invalid="ignore"):
            moves = np.abs(self.positions - self._fused_positions).max(axis=1)
            # px; chosen: not visible, five times the final error
            has_changed = moves > 0.1
        has_changed[sorted(self._stale)] = True
        return np.flatnonzero((here != was) | (here & has_changed)).tolist()

    def get_fused_position(self, index: int) -> FloatArray:
        """Return the corner (2,) where a frame was last fused; NaN if never fused."""
        return np.asarray(self._fused_positions[index])

    def mark_fused(self, index: int) -> None:
        """Record that a frame was fused at its current position."""
        self._fused_positions[index] = self.positions[index]
        self._stale.discard(index)

    def plan_mosaic(self, origin: IntPair, shape: IntPair) -> FusionPlan:
        """Plan the current mosaic; `origin` is the pixel ``(y, x)`` of its corner."""
        positions = self.positions - np.array(origin)
        pedestal = 0.0 if self.solution is None else self.solution.pedestal
        how = self._feather, self.options.blend, shape, pedestal
        return FusionPlan(self.frames, positions, *how)

    # Expected and actual position of a frame.

    def _use_stated_position(self, index: int) -> None:
        """Place a frame at its stated position, if it has one."""
        place = self._predict_position(index)
        if place is not None:
            self.positions[index] = place
            self.provisional.add(index)

    def _predict_position(self, index: int) -> FloatArray | None:
        """Predict the corner (2,) of a frame from its stated position."""
        stated_corner = self.stated_corners[index]
        if not np.isfinite(stated_corner).all():
            return None
        matrix = self._matrix
        if matrix is None:
            size = self.pixel_size_nm
            if self.unit == "nm" and size is None:
                return None
            matrix = np.eye(2) if self.unit == "px" else np.diag(1 / np.array(size))
        is_solved = self._chance is not None
        has_place = self.is_placed if is_solved else _get_known_mask(self.positions)
        has_place &= _get_known_mask(self.stated_corners)
        has_place[index] = False
        others = np.flatnonzero(has_place)
        if not len(others):
            return np.asarray(matrix @ stated_corner)
        # the nearest frames show the error of the stage there
        away = np.hypot(*((self.stated_corners[others] - stated_corner) @ matrix.T).T)
        near = others[np.argsort(away, kind="stable")[:3]]
        steps = (stated_corner - self.stated_corners[near]) @ matrix.T
        return np.asarray(np.median(self.positions[near] + steps, axis=0))

    def _fit_stage(self) -> None:
        """Fit the map from stated positions to camera pixels on all placed frames."""
        solved_positions = np.where(self.is_placed[:, None], self.positions, np.nan)
        side = min(self.frames.frame_shape)
        axes = nominal.fit_stage_axes(self.stated_corners, solved_positions, side)
        stage = nominal.fit_stage_map(self.stated_corners, solved_positions)
        if axes is not None:
            self._matrix = axes.matrix
        elif stage is not None and not np.array_equal(stage.matrix, np.eye(2)):
            self._matrix = stage.matrix

    def _select_nearby_positions(
        self, index: int, place: FloatArray, reach: IntPair
    ) -> FloatArray:
        """Return corners (N, 2) of nearby placed frames, NaN for other frames.

        Frames elsewhere are not used, so that the time does not grow with the scan.
        """
        side = np.array(self.frames.frame_shape) + reach
        with np.errstate(invalid="ignore"):
            near = (np.abs(self.positions - place) < side).all(axis=1) & self.is_placed
        near[index] = False
        return np.where(near[:, None], self.positions, np.nan)

    def find_best_fit(self, index: int) -> GroupPosition | None:
        """Find the best fit of a frame to placed frames, or None without overlap.

        Searches the same distance from the expected position as `place`.
        """
        place = self._predict_position(index)
        if place is None:
            return None
        reach = pairwise.compute_reach(self.frames.frame_shape, pairwise.LAST_REACH)
        positions = self._select_nearby_positions(index, place, reach)
        positions[index] = place
        places = compare_group_positions(self.frames, [index], positions, reach)
        return places[0] if places else None

    def _find_nearby_position(
        self, index: int, expected_place: FloatArray, reach: IntPair
    ) -> FloatArray | None:
        """Search for a frame near its expected position; None if not above chance."""
        if self._chance is None:
            return None
        shift_count, significance = (
            layout.count_shifts(reach),
            self.options.significance,
        )
        threshold, _ = self._chance.compute_threshold(shift_count, significance)
        around = self._select_nearby_positions(index, expected_place, reach)
        if not _get_known_mask(around).any():
            return None
        place_found = layout.place_frame_by_neighbours(
            self.frames, index, expected_place, around, reach, threshold
        )
        return None if place_found is None else place_found[0]

    def _search_all_placed_frames(self, index: int) -> FloatArray | None:
        """Place a frame without a stated position, trying recent frames first."""
        placed_frames = np.flatnonzero(self.is_placed).tolist()[::-1]
        factor = discovery.compute_reduction(self.frames.frame_shape)
        reach = (max(pairwise.MIN_REACH, 4 * factor),) * 2
        for first in range(0, len(placed_frames), _RECENT):
            some = [*placed_frames[first : first + _RECENT], index]
            whole = self.frames
            part = CorrectedFrames(
                self._select_frames(some), whole.flat, whole.gains[some],
                whole.rotations[some], whole.distortion, whole.centre_px,
                whole.offsets[some],
            )  # fmt: skip
            overlaps = discovery.match_frames(part, [len(some) - 1])
            for overlap in sorted(overlaps, key=lambda item: -item.weight):
                if overlap.weight < discovery.SURE:
                    break
                place = self.positions[some[overlap.first]] + overlap.shift
                corner = self._find_nearby_position(index, place, reach)
                if corner is not None:
                    return corner
        return None

    def _select_frames(self, frame_numbers: Sequence[int]) -> core.Acquisition:
        """Create an acquisition from a subset of the frames."""
        numbers, stack = list(frame_numbers), self._stack
        part = replace(stack, read=lambda i: stack[numbers[i]], count=len(numbers))
        return core.Acquisition(part, tuple(self.names[i] for i in numbers))

    # Measured shifts of pairs, and all positions from them.

    def _measure_pair_shifts(self, pairs: Sequence[IntPair]) -> list[LinearisedShift]:
        """Measure the shifts of pairs at their resampling positions."""
        near = {i: {i, *self._links.get_pairs(i)} for pair in pairs for i in pair}
        for first, second in pairs:
            near[first].add(second)
            near[second].add(first)
        shifts = (
            linearise_pair(self._references, a, b, sorted(near[a] & near[b]))
            for a, b in pairs
        )
        return [item for item in shifts if item is not None]

    def _refine_frame(self, index: int) -> None:
        """Refine a new frame against its neighbours and store the measured shifts."""
        side = np.array(self.frames.frame_shape)
        with np.errstate(invalid="ignore"):
            near = (np.abs(self.positions - self.positions[index]) < side).all(axis=1)
        near &= self.is_placed
        near[index] = True
        numbers = np.flatnonzero(near)
        local = nominal.find_overlapping_pairs(
            self.positions[numbers], self.frames.frame_shape
        )
        pairs_found = [(int(numbers[a]), int(numbers[b])) for a, b in local]
        pairs = [pair for pair in pairs_found if index in pair]
        shifts: list[LinearisedShift] = []
        # chosen: from a whole pixel, two steps suffice
        for sweep in range(4):
            self._references.set_position(index, self.positions[index])
            shifts = self._measure_pair_shifts(pairs)
            if not shifts:
                return
            if sweep == 0:
                self._fit_frame_gain(index, shifts)
            normal, right = 1e-12 * np.eye(2), np.zeros(2)
            for item in shifts:
                sign = 1.0 if item.second == index else -1.0
                left = self._compute_misfit(item)
                weight = item.information / max(item.variance, 1e-30)
                normal += weight
                right += sign * weight @ np.clip(left, -TOLERANCE_PX, TOLERANCE_PX)
            step = np.clip(np.linalg.solve(normal, right), -2, 2)
            self.positions[index] += step
            # px; chosen: a fifth of the move for fusing a frame again
            if np.abs(step).max() < 0.02:
                break
        self._links.store_shifts(shifts)

    def _compute_misfit(self, item: LinearisedShift) -> FloatArray:
        """Return the measured minus the current shift of a pair, (2,)."""
        first, second = pair = item.first, item.second
        apart = self.positions[second] - self.positions[first]
        return np.asarray(self._references.compute_shift(pair) + item.step - apart)

    def _optimise_neighbourhood(self, index: int) -> None:
        """Jointly optimise positions around a frame, starting from current values.

        Frames more than some pairs away do not move; more are included while the last
        ones move.
        """
        # chosen: 40 frames in a grid
        around, hops = {index}, 4
        while True:
            free = self._links.find_reachable(around, hops)
            around = self._links.find_reachable(free, 1)
            moves = self._solve_frame_moves(free, around)
            rim = self._links.find_reachable(around - free, 1) & free
            # px; chosen: a tenth of a step that is applied, at the rim of these
            if all(np.abs(moves[i]).max() <= 0.002 for i in rim):
                break
            hops *= 2
        for number, move in moves.items():
            self.positions[number] += move
        # px from its position of resampling; chosen
        far = (self._references.compute_distances(self.positions) > 0.5).any(axis=1)
        for number in np.flatnonzero(far & self.is_placed).tolist():
            # only linear about its old position: its pairs are measured again
            self._references.set_position(number, self.positions[number])
            pairs = [item.pair for item in self._links.get_pairs(number).values()]
            self._links.store_shifts(self._measure_pair_shifts(pairs))

    def _solve_frame_moves(
        self, free: set[int], around: set[int]
    ) -> dict[int, FloatArray]:
        """Solve for displacements of some frames, with the surrounding ones fixed."""
        numbers, items = sorted(around), []
        places = {number: place for place, number in enumerate(numbers)}
        for one in sorted(free):
            for other, item in self._links.get_pairs(one).items():
                if other in free and other < one:
                    continue  # listed from the other frame
                left = self._compute_misfit(item)
                if np.abs(left).max() <= TOLERANCE_PX:  # the pair fits its position
                    first, second = places[item.first], places[item.second]
                    items.append(replace(item, first=first, second=second, step=left))
        if not items:
            return dict.fromkeys(free, np.zeros(2))
        is_free = np.array([number in free for number in numbers])
        steps, _ = solve_steps(len(numbers), items, is_free)
        return {number: steps[places[number]] for number in free}

    def _fit_frame_gain(self, index: int, shifts: Sequence[LinearisedShift]) -> None:
        """Estimate the gain of a frame from its overlaps with other frames."""
        logs, counts = [], []
        for item in shifts:
            boxes = self._references.get_overlap_boxes(*item.pair)
            if boxes is None:
                continue
            planes = [
                [plane[box.slices] for plane in self._references.get_planes(number)[:2]]
                for number, box in zip(item.pair, boxes, strict=True)
            ]
            inside = (planes[0][0] > 0) & (planes[1][0] > 0)
            first, second = (float(image[inside].sum()) for _, image in planes)
            if min(first, second) > 0:
                sign = 1.0 if item.second == index else -1.0
                logs.append(sign * np.log(second / first))
                counts.append(float(np.count_nonzero(inside)))
        if not logs:
            return
        gain = self.frames.gains[index] * np.exp(np.average(logs, weights=counts))
        if self.options.match_gain and abs(gain - self.frames.gains[index]) > 1e-3:
            self.frames.gains[index] = gain
            self.frames.drop_from_cache(index)
            self._references.set_position(index, self.positions[index])

    # Whole solution of the frames so far, in steps.

    @property
    def is_solution_due(self) -> bool:
        """Whether enough frames were added to solve all frames again."""
        return len(self.names) - len(self.blank) >= self._solve_at

    def solve_all_frames(self) -> core.Job[None]:
        """Solve all frames so far; update positions, brightness and axes at the end.

        The solution runs in a thread, as its steps take seconds: frames may be added
        between the steps of this job, which are short.
        """
        in_light = [i for i in range(len(self.names)) if i not in self.blank]
        in_light = in_light[: max(_SOLUTION_SIZES[-1], int(self._solve_at))]
        has_position = _get_known_mask(self.stated_corners)
        frames_to_solve = [i for i in in_light if has_position[i]]
        has_stated = 2 * len(frames_to_solve) > len(in_light)
        frames_to_solve = frames_to_solve if has_stated else in_light
        frame_count = len(in_light)
        self._solve_at = next((n for n in _SOLUTION_SIZES if n > frame_count), np.inf)
        stated = {f"nominal_{self.unit}": self.stated_corners[frames_to_solve]}
        part = self._select_frames(frames_to_solve).replace(
            pixel_size_nm=self.pixel_size_nm, **(stated if has_stated else {})
        )
        names = list(self.names)
        try:
            solution = yield from _run_job_in_thread(self._solve_frames(part))
        except core.ReadError:
            self._solve_at = frame_count  # again, once the frames can be read
            raise
        if solution is None:
            # chosen: the next attempt needs half as many frames again
            later = max(1.5 * frame_count, frame_count + 2)
            self._solve_at = min(self._solve_at, later)
        elif names == self.names[: len(names)]:
            yield from self._apply_solution(frames_to_solve, *solution)

    def _solve_frames(
        self, part: core.Acquisition
    ) -> core.Job[tuple[StitchSolution, layout.ChanceLevel] | None]:
        """Solve some frames and measure their chance level without changing state."""
        try:
            # without a grid, as some of its frames are missing
            options = self.options.replace(
                grid=None, order=None, first=None, overlap=None
            )
            solution = yield from solve_mosaic(
                part, options, flat=self.flat, dark=self.dark
            )
        except core.RegistrationError:  # the frames keep their present positions
            return None
        if not solution.has_sufficient_placement:
            return None
        frames = solution.correct_frames(part)
        pairs = nominal.find_overlapping_pairs(
            solution.positions_px, self.frames.frame_shape
        )
        shifts = [
            pairwise.compute_rounded_shift(solution.positions_px, pair)
            for pair in pairs
        ]
        return solution, layout.measure_chance_level(frames, shifts)

    def _apply_solution(
        self,
        numbers_solved: Sequence[int],
        solution: StitchSolution,
        chance: layout.ChanceLevel,
    ) -> core.Job[None]:
        """Apply a solution of some frames and place the remaining ones again."""
        numbers, new_positions = np.array(numbers_solved), solution.positions_px
        fits = solution.is_placed
        before = self.positions[numbers]
        can_compare = fits & _get_known_mask(before)
        start = can_compare if can_compare.any() else fits
        offset = np.median(before[start] - new_positions[start], axis=0)
        if not np.isfinite(offset).all():
            offset = np.zeros(2)
        old = self.frames
        gains, offsets = old.gains.copy(), old.offsets.copy()
        scale = float(np.median(solution.gains / old.gains[numbers]))
        gains *= scale
        gains[numbers], offsets[numbers] = solution.gains, solution.offsets
        turns = np.zeros((len(self.names), 2))
        turns[numbers] = solution.turns
        self.frames = _GrowingFrames(
            old.acquisition, solution.flat, gains, turns, solution.distortion,
            solution.distortion_centre_px, offsets,
        )  # fmt: skip
        self.solution, self._chance = solution, chance
        self.misfits.clear()
        self._feather = compute_feather_weights(self.frames)
        self._references, self._links = _ReferenceFrames(self.frames), _PairShifts()
        placed_at = np.where(fits[:, None], new_positions + offset, np.nan)
        self.positions[numbers] = placed_at
        self.provisional -= {*numbers_solved}
        for index, position in enumerate(self.positions):
            self._references.set_position(index, np.nan_to_num(position))
        self._stale = {*range(len(self.names))}  # all may have changed in brightness
        local = nominal.find_overlapping_pairs(
            self.positions[numbers], self.frames.frame_shape
        )
        pairs = [(numbers_solved[a], numbers_solved[b]) for a, b in local]
        for done_count in range(0, len(pairs), _BATCH):
            yield core.Progress(done_count, len(pairs), "Measuring pairs of frames")
            some = pairs[done_count : done_count + _BATCH]
            self._links.store_shifts(self._measure_pair_shifts(some))
        self._fit_stage()
        fitting_numbers = {*numbers[fits].tolist()}
        self.pending = {*range(len(self.names))} - fitting_numbers - self.blank
        while self.pending:
            yield core.Progress(0, len(self.pending), "Placing the other frames")
            self.retry_pending()

    def list_unplaced(self) -> list[int]:
        """List the frames that are not yet placed by their images."""
        without_place = np.flatnonzero(~self.is_placed).tolist()
        return [index for index in without_place if index not in self.blank]
