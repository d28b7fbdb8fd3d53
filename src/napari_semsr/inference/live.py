"""Live view of an image during enhancement, independent of torch and Qt.

The store that a run fills is the only record: its map of finished tiles lists those
that exist. This module displays it at every level without waiting, and decides which
tiles are computed next. Batch runs and live runs fill the same store, so that either
can resume the other.
"""

import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_semsr import core
from napari_semsr.inference.options import OutputPlan
from napari_semsr.io import OmeZarrStore, compute_pyramid_shapes, downsample_block

# Levels for display. Each is array-like: it returns finished tiles, and elsewhere the
# resampled input, so that reading never waits for the network.

_LEVEL_BYTES = 16 << 20  # largest level that is kept in memory, not in a file; chosen
_STRIP = 256  # side of the reduced backdrop, and rows processed at once; chosen
_BLOCK = 256  # side of the blocks of that file; chosen


@dataclass(slots=True)
class ResampledInput:
    """Input pyramid `sources` (Y, X) resampled to any level of the output grid."""

    sources: Sequence[core.RealArray]
    shape: core.IntPair
    dtype: np.dtype[np.generic]
    grey: core.FloatPair | None = None

    def read(self, box: core.Box, step: int) -> core.RealArray:
        """Return a region (Y, X) of a level by nearest-neighbour sampling."""
        sources = self.sources
        fine = [item for item in sources if item.shape[0] * step >= self.shape[0]]
        source = (fine or sources[:1])[-1]  # the coarsest source that is fine enough
        rows = _compute_source_indices(
            (box.y0, box.y1), step, source.shape[0], self.shape[0]
        )
        columns = _compute_source_indices(
            (box.x0, box.x1), step, source.shape[1], self.shape[1]
        )
        part = _select_along_axis(_select_along_axis(source, rows, 0), columns, 1)
        with np.errstate(over="ignore"):  # infinite pixels count as missing
            if self.grey is not None:
                low, high = self.grey
                part = (part.astype(np.float32) - low) / ((high - low) or 1.0)
            if self.dtype.kind == "f":
                return np.array(part, dtype=self.dtype)
        return core.convert_dtype(part, self.dtype)[0]

    def average_levels(self) -> None:
        """Add coarser sources by averaging, to avoid noise in coarse levels.

        Until this is called coarse levels skip pixels, which is fast.
        """
        finest = self.sources[0]
        if len(self.sources) > 1 or max(finest.shape) <= _STRIP:
            return
        sources = [finest]
        while max(sources[-1].shape) > _STRIP:
            fine = sources[-1]
            strips = range(0, fine.shape[0], _STRIP)
            parts = [downsample_block(fine[top : top + _STRIP]) for top in strips]
            sources.append(np.concatenate(parts))
        self.sources = sources


def _compute_source_indices(
    span: core.IntPair, step: int, size: int, level_count: int
) -> NDArray[np.intp]:
    """Return the source index of each pixel in a level along one axis."""
    centres = (np.arange(*span) + 0.5) * (step * size / level_count)
    return np.minimum(centres.astype(np.intp), size - 1)


def _select_along_axis(
    source: core.RealArray, places: NDArray[np.intp], axis: int
) -> core.RealArray:
    """Index an axis at increasing positions, as a view if evenly spaced."""
    pitch = int(places[1] - places[0]) if places.size > 1 else 1
    first, last = int(places[0]), int(places[-1])
    if pitch and last - first == pitch * (places.size - 1):
        return source[(slice(None),) * axis + (slice(first, last + 1, pitch),)]
    cut = (slice(None),) * axis + (slice(first, last + 1),)
    return np.take(source[cut], places - first, axis=axis)


class LevelStore:
    """Pixel storage of one level, in memory if small, else in a temporary file.

    The file is mapped only while it is used, and consists of square blocks: the system
    also maps the surroundings of a page, which for rows of a wide field would be the
    whole file. So memory remains constant.
    """

    def __init__(self, shape: core.IntPair, dtype: np.dtype[np.generic]) -> None:
        self._dtype = dtype
        self._array: core.RealArray | None = None
        self._file: Any = None
        if shape[0] * shape[1] * dtype.itemsize <= _LEVEL_BYTES:
            self._array = np.zeros(shape, dtype)
            return
        self._grid = -(-shape[0] // _BLOCK), -(-shape[1] // _BLOCK)
        self._file = tempfile.TemporaryFile(prefix="semsr-level-")  # noqa: SIM115
        self._file.truncate(self._grid[0] * self._grid[1] * _BLOCK**2 * dtype.itemsize)
        weakref.finalize(self, self._file.close)

    def write(self, box: core.Box, block: core.RealArray) -> None:
        """Write a block (Y, X)."""
        if self._array is not None:
            self._array[box.slices] = block
            return
        for part, stored_block in self._iterate_stored_blocks(box, "r+"):
            stored_block[...] = block[part]

    def read(self, box: core.Box) -> core.RealArray:
        """Return a copy of a block (Y, X)."""
        if self._array is not None:
            return self._array[box.slices].copy()
        values = np.empty(box.shape, self._dtype)
        for part, stored_block in self._iterate_stored_blocks(box, "r"):
            values[part] = stored_block
        return values

    def _iterate_stored_blocks(
        self, box: core.Box, mode: Literal["r", "r+"]
    ) -> Iterator[tuple[tuple[slice, slice], core.RealArray]]:
        """Yield slices of a region with the matching part of each stored block."""
        blocks = np.memmap(
            self._file, self._dtype, mode, 0, (*self._grid, _BLOCK, _BLOCK), "C"
        )
        for row in range(box.y0 // _BLOCK, -(-box.y1 // _BLOCK)):
            for column in range(box.x0 // _BLOCK, -(-box.x1 // _BLOCK)):
                whole = core.Box.from_shape(
                    (_BLOCK, _BLOCK), (row * _BLOCK, column * _BLOCK)
                )
                part = whole.intersection(box)
                stored_block = blocks[row, column][part.relative_to(whole).slices]
                yield part.relative_to(box).slices, stored_block


@dataclass(eq=False)
class LiveLevel:
    """Array-like pyramid level whose pixels are read when indexed."""

    shape: core.IntPair
    dtype: np.dtype[np.generic]
    chunks: core.IntPair
    read: Callable[[core.Box], core.RealArray]

    ndim = 2

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: object) -> object:
        from dask.array.slicing import normalize_index  # slow to import

        # the ranges to read, and the indices within these ranges
        spans: list[core.IntPair] = []
        rest: list[int | slice] = []
        for item, size in zip(
            normalize_index(index, self.shape), self.shape, strict=True
        ):
            places = range(size)[item]
            if isinstance(places, int):
                spans.append((places, places + 1))
                rest.append(0)
            else:
                low, high = sorted((places[0], places[-1])) if places else (0, -1)
                spans.append((low, high + 1))
                rest.append(slice(None, None, places.step if places else None))
        box = core.Box(*spans[0], *spans[1])
        if min(box.shape) < 1:
            return np.empty(box.shape, self.dtype)[tuple(rest)]
        return self.read(box)[tuple(rest)]

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> object:
        return np.asarray(self[:, :], dtype=dtype)


# Order of tiles: those in view first, from the centre outwards.


class TileQueue:
    """Queue of pending tiles, reordered whenever the view moves.

    It may be used from several threads: a viewer sets the view, a worker takes the most
    urgent tiles. `unit` is rows and columns of a tile, in pixels of the result.
    """

    def __init__(
        self, grid: core.IntPair, unit: core.IntPair, *, whole: bool = True
    ) -> None:
        self.unit = unit
        self._pending = np.zeros(grid, dtype=bool)
        self.whole = whole  # whether tiles out of view are returned too
        self._view: core.Box | None = None
        self._change = threading.Condition()

    def __len__(self) -> int:
        return int(np.count_nonzero(self._pending))

    def replace_pending(self, places: Iterable[core.IntPair]) -> None:
        """Replace the pending tiles."""
        with self._change:
            self._pending[:] = False
            for place in places:
                self._pending[place] = True
            self._change.notify_all()

    def set_view(self, view: core.Box | None) -> None:
        """Set the visible region, in output pixels, or None for the whole image."""
        with self._change:
            if view != self._view:
                self._view = view
                self._change.notify_all()

    def take_tiles(self, count: int = 1, timeout: float = 0.0) -> list[core.IntPair]:
        """Remove the most urgent tiles from the queue and return them."""
        with self._change:
            places = self._get_next_tiles(count)
            if not places and timeout:
                self._change.wait(timeout)
                places = self._get_next_tiles(count)
            for place in places:
                self._pending[place] = False
            return places

    def _get_next_tiles(self, count: int) -> list[core.IntPair]:
        """Return the most urgent tiles; the caller must hold the lock."""
        rows, columns = np.nonzero(self._pending)
        if not rows.size:
            return []
        view = self._view
        if view is None:
            grid = self._pending.shape
            view = core.Box(0, grid[0] * self.unit[0], 0, grid[1] * self.unit[1])
        top, left = rows * self.unit[0], columns * self.unit[1]
        outside = (
            (top >= view.y1)
            | (top + self.unit[0] <= view.y0)
            | (left >= view.x1)
            | (left + self.unit[1] <= view.x0)
        )
        down = top + (self.unit[0] - view.y0 - view.y1) / 2
        across = left + (self.unit[1] - view.x0 - view.x1) / 2
        distance = np.hypot(down, across)  # to the centre of the view
        order = np.lexsort((distance, outside))[:count]
        if not self.whole:
            order = order[outside[order] == 0]
        return [(int(rows[i]), int(columns[i])) for i in order]


_COARSEST = 256  # side at which the live pyramid ends; chosen
_CACHE_BYTES = 64 << 20  # of recent tiles; chosen
_READING_S = 0.015  # seconds that one redraw may spend on reading tiles; chosen
_PATIENCE_S = 0.05  # seconds that a run waits at most for a tile to be shown; chosen


class LiveField:
    """Result of a run for display in a viewer, available before the run starts.

    `sources` are the input and its coarser levels, (Y, X) each, finest first, in
    memory; `grey` the grey values that become 0 and 1 if the result does not have the
    grey values of the input. Unless `whole`, only tiles in view are enhanced.
    """

    levels: list[LiveLevel]
    """Display arrays, finest first, each downsampled by 2 from the previous one."""
    queue: TileQueue
    """Queue of pending tiles."""

    def __init__(
        self,
        output: OutputPlan,
        sources: Sequence[core.RealArray],
        *,
        grey: core.FloatPair | None = None,
        whole: bool = True,
    ) -> None:
        self.output = output
        self.shape = output.frame.shape
        self.unit = output.tile_shape
        self.dtype = output.dtype
        shape, unit = self.shape, self.unit
        grid = -(-shape[0] // unit[0]), -(-shape[1] // unit[1])
        self.queue = TileQueue(grid, unit, whole=whole)
        self._backdrop = ResampledInput(sources, shape, self.dtype, grey)
        self._level0: Any = None  # (Y, X) the output, if it may be read
        self._turn = 0
        self._is_stored = np.zeros(grid, dtype=bool)
        self._is_drawn = np.zeros(grid, dtype=bool)
        self._cache = core.BoundedCache(_CACHE_BYTES)
        self._lock = threading.Lock()
        self._changed_box: core.Box | None = None
        # tiles are halved as often as this splits no pixels
        sides = [side for side, count in zip(unit, grid, strict=True) if count > 1]
        most = min(((side & -side).bit_length() - 1 for side in sides), default=32)
        shapes = compute_pyramid_shapes(shape, smallest=_COARSEST)[: most + 1]
        self._stores = [LevelStore(each, self.dtype) for each in shapes[1:]]
        self.levels = [LiveLevel(shape, self.dtype, unit, self._read_finest_level)]
        for level, each in enumerate(shapes[1:], start=1):
            read = partial(self._read_level, level)
            self.levels.append(LiveLevel(each, self.dtype, unit, read))

    @property
    def tiles_done(self) -> int:
        """Number of finished tiles."""
        return int(np.count_nonzero(self._is_stored))

    def set_view(self, view: core.Box | None) -> None:
        """Set the visible region, in output pixels, or None for the whole image."""
        self.queue.set_view(view)

    def take_changed_box(self) -> core.Box | None:
        """Return the bounding box of all changes since the last call."""
        with self._lock:
            news, self._changed_box = self._changed_box, None
            return news

    # -- called by the worker --------------------------------------------------

    def take_tiles(self, count: int) -> list[core.IntPair] | None:
        """Return up to `count` tiles, visible ones first; None if none are pending.

        Tiles that are already in the store are only displayed.
        """
        self._turn += 1
        if self._turn == 2:  # after the first tile, for which the user waits
            self.average_levels()
        if not len(self.queue):
            return None
        places = self.queue.take_tiles(count, _PATIENCE_S)
        return [place for place in places if not self.show_stored_tile(place)]

    def attach_store(self, store: OmeZarrStore) -> None:
        """Display the finished tiles of a store in which each write unit is a tile."""
        self._level0, self._turn = store.level0, 0
        is_done = np.asarray(store.done_marks[:]) != 0
        with self._lock:
            self._is_stored = is_done
            self._is_drawn = self._is_drawn & is_done
            self._record_change(core.Box.from_shape(self.shape))
        self.queue.replace_pending(zip(*np.nonzero(~self._is_drawn), strict=True))

    def average_levels(self) -> None:
        """Display averaged instead of subsampled pixels in coarse input levels."""
        self._backdrop.average_levels()
        with self._lock:
            self._record_change(core.Box.from_shape(self.shape))

    def set_output(self, level0: object) -> None:
        """Set the output (Y, X) to read from, or None while it is being moved."""
        self._level0 = level0

    def show_stored_tile(self, place: core.IntPair) -> bool:
        """Display a tile already in the store; return whether it was displayed."""
        if self._level0 is None or not self._is_stored[place]:
            return False
        box = self._get_tile_box(place)
        self.show_tile(box, np.asarray(self._level0[box.slices]))
        return True

    def show_external_tile(self, place: core.IntPair) -> None:
        """Display a tile written by another process, unless it is already shown."""
        if self._level0 is not None and not self._is_drawn[place]:
            box = self._get_tile_box(place)
            self.show_tile(box, np.asarray(self._level0[box.slices]))

    def show_tile(self, box: core.Box, tile: core.RealArray) -> None:
        """Display a finished tile (Y, X)."""
        place = box.y0 // self.unit[0], box.x0 // self.unit[1]
        self._cache.put(place, tile)
        part, at = tile, box
        for level in self._stores:
            part = downsample_block(part)
            at = core.Box.from_shape(part.shape, (at.y0 // 2, at.x0 // 2))
            level.write(at, part)
        with self._lock:
            self._is_stored[place] = self._is_drawn[place] = True
            self._record_change(box)

    # -- called by the viewer --------------------------------------------------

    def _read_finest_level(self, box: core.Box) -> core.RealArray:
        """Read level 0, with the input in place of unfinished tiles."""
        until = time.perf_counter() + _READING_S
        high, wide = self.unit
        rows = range(box.y0 // high, -(-box.y1 // high))
        columns = range(box.x0 // wide, -(-box.x1 // wide))
        places = [(row, column) for row in rows for column in columns]
        is_stored = self._is_stored[
            rows.start : rows.stop, columns.start : columns.stop
        ]
        out = None if is_stored.all() else self._backdrop.read(box, 1)
        if out is None:
            out = np.empty(box.shape, self.dtype)
        for place in places:
            if not self._is_stored[place]:
                continue
            outer = self._get_tile_box(place)
            inner = outer.intersection(box)
            tile: core.RealArray | None = self._cache.get(place)
            level0 = self._level0
            if tile is None and level0 is not None and time.perf_counter() < until:
                tile = np.asarray(level0[outer.slices])
                self._cache.put(place, tile)
            if tile is None:
                out[inner.relative_to(box).slices] = self._backdrop.read(inner, 1)
                with self._lock:
                    self._record_change(inner)
            else:
                out[inner.relative_to(box).slices] = tile[
                    inner.relative_to(outer).slices
                ]
        return out

    def _read_level(self, level: int, box: core.Box) -> core.RealArray:
        step = 2**level
        rows = np.arange(box.y0, box.y1) * step // self.unit[0]
        columns = np.arange(box.x0, box.x1) * step // self.unit[1]
        is_drawn = self._is_drawn[np.ix_(rows, columns)]
        if not is_drawn.any():
            return self._backdrop.read(box, step)
        values = self._stores[level - 1].read(box)
        if not is_drawn.all():
            np.copyto(values, self._backdrop.read(box, step), where=~is_drawn)
        return values

    # -- helpers ---------------------------------------------------------------

    def _get_tile_box(self, place: core.IntPair) -> core.Box:
        corner = place[0] * self.unit[0], place[1] * self.unit[1]
        return core.Box.from_shape(self.unit, corner).intersection(
            core.Box.from_shape(self.shape)
        )

    def _record_change(self, box: core.Box) -> None:
        """Record a changed region; the caller must hold the lock."""
        self._changed_box = (
            box if self._changed_box is None else self._changed_box.union(box)
        )
