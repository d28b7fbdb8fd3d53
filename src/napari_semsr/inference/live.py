"""Live view of an image during enhancement, independent of torch and Qt.

The store that a run fills is the only record: its map of finished tiles lists those
that exist. This module displays it at every level without waiting, and decides which
tiles are computed next. Batch runs and live runs fill the same store, so that either
can resume the other.
"""

import itertools
import math
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

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
        part = source
        for axis, span in enumerate(((box.y0, box.y1), (box.x0, box.x1))):
            size = source.shape[axis]
            centres = (np.arange(*span) + 0.5) * (step * size / self.shape[axis])
            places = np.minimum(centres.astype(np.intp), size - 1)
            first, last = int(places[0]), int(places[-1])
            pitch = int(places[:2][-1]) - first or 1
            if last - first == pitch * (places.size - 1):  # evenly spaced: a view
                part = part[(slice(None),) * axis + (slice(first, last + 1, pitch),)]
            else:
                part = part.take(places, axis)
        with np.errstate(over="ignore"):  # infinite pixels count as missing
            if self.grey is not None:
                low, high = self.grey
                part = (part.astype(np.float32) - low) / ((high - low) or 1.0)
            if self.dtype.kind == "f":
                return np.array(part, dtype=self.dtype)
        return np.array(core.convert_dtype(part, self.dtype)[0])

    def average_levels(self) -> None:
        """Add coarser sources by averaging, to avoid noise in coarse levels.

        Until this is called coarse levels skip pixels, which is fast.
        """
        sources = list(self.sources)
        while len(self.sources) == 1 and max(sources[-1].shape) > _STRIP:
            fine = sources[-1]
            strips = range(0, fine.shape[0], _STRIP)
            parts = [downsample_block(fine[top : top + _STRIP]) for top in strips]
            sources.append(np.concatenate(parts))
        self.sources = sources


class LevelStore:
    """Pixel storage of one level, in memory if small, else in a temporary file.

    The file is mapped only while it is used, and consists of square blocks: the system
    also maps the surroundings of a page, which for rows of a wide field would be the
    whole file. So memory remains constant.
    """

    def __init__(self, shape: core.IntPair, dtype: np.dtype[np.generic]) -> None:
        rows, columns = (-(-side // _BLOCK) for side in shape)
        self._layout = dtype, (rows, columns, _BLOCK, _BLOCK)
        self._array: core.RealArray | None = None
        if shape[0] * shape[1] * dtype.itemsize <= _LEVEL_BYTES:
            self._array = np.zeros(self._layout[1], dtype)
            return
        self._file: Any = tempfile.TemporaryFile(prefix="semsr-level-")  # noqa: SIM115
        self._file.truncate(math.prod(self._layout[1]) * dtype.itemsize)
        weakref.finalize(self, self._file.close)

    def write(self, box: core.Box, block: core.RealArray) -> None:
        """Write a block (Y, X)."""
        for part, stored_block in self._iterate_stored_blocks(box):
            stored_block[...] = block[part]

    def read(self, box: core.Box) -> core.RealArray:
        """Return a copy of a block (Y, X)."""
        values = np.empty(box.shape, self._layout[0])
        for part, stored_block in self._iterate_stored_blocks(box):
            values[part] = stored_block
        return values

    def _iterate_stored_blocks(
        self, box: core.Box
    ) -> Iterator[tuple[tuple[slice, slice], core.RealArray]]:
        """Yield slices of a region with the matching part of each stored block."""
        blocks = self._array
        if blocks is None:
            dtype, shape = self._layout
            blocks = np.memmap(self._file, dtype, "r+", shape=shape)
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
        items = normalize_index(index, self.shape)
        for item, size in zip(items, self.shape, strict=True):
            is_one = not isinstance(item, slice)
            places = range(size)[slice(item, item + 1) if is_one else item]
            low, high = sorted((places[0], places[-1])) if places else (0, -1)
            spans.append((low, high + 1))
            rest.append(0 if is_one else slice(None, None, places.step))
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

    def replace_pending(self, pending: core.BoolArray) -> None:
        """Replace the pending tiles by those that are True in an array of the grid."""
        with self._change:
            self._pending = pending
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
            choose = partial(self._get_next_tiles, count)
            places = self._change.wait_for(choose, timeout)
            for place in places:
                self._pending[place] = False
            return places

    def _get_next_tiles(self, count: int) -> list[core.IntPair]:
        """Return the most urgent tiles; the caller must hold the lock."""
        rows, columns = np.nonzero(self._pending)
        (high, wide), (down, across) = self.unit, self._pending.shape
        view = self._view or core.Box(0, down * high, 0, across * wide)
        top, left = rows * high, columns * wide
        outside = (top >= view.y1) | (top + high <= view.y0)
        outside |= (left >= view.x1) | (left + wide <= view.x0)
        y, x = (view.y0 + view.y1 - high) / 2, (view.x0 + view.x1 - wide) / 2
        distance = np.hypot(top - y, left - x)  # to the centre of the view
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
    level0: Any
    """The output (Y, X) to read from, or None before the run and while it is moved."""

    def __init__(
        self,
        output: OutputPlan,
        sources: Sequence[core.RealArray],
        *,
        grey: core.FloatPair | None = None,
        whole: bool = True,
    ) -> None:
        self.output = output
        self.shape, self.unit = output.frame.shape, output.tile_shape
        self.level0 = None
        side = output.core * output.scale
        self._tiles = core.plan_tiles(self.shape, core=side, halo=0)
        grid, dtype = self._tiles.grid, output.dtype
        self.queue = TileQueue(grid, self.unit, whole=whole)
        self._backdrop = ResampledInput(sources, self.shape, dtype, grey)
        self._turn = 0
        self._is_stored = np.zeros(grid, dtype=bool)
        self._is_drawn = np.zeros(grid, dtype=bool)
        self._cache = core.BoundedCache(_CACHE_BYTES)
        self._lock = threading.Lock()
        self._changed_box: core.Box | None = None
        # tiles are halved as often as this splits no pixels
        sides = [side for side, n in zip(self.unit, grid, strict=True) if n > 1]
        most = min(((side & -side).bit_length() - 1 for side in sides), default=32)
        shapes = compute_pyramid_shapes(self.shape, smallest=_COARSEST)[1 : most + 1]
        self._stores = [LevelStore(shape, dtype) for shape in shapes]
        self.levels = [LiveLevel(self.shape, dtype, self.unit, self._read_finest_level)]
        for level, shape in enumerate(shapes, start=1):
            read = partial(self._read_level, level)
            self.levels.append(LiveLevel(shape, dtype, self.unit, read))

    @property
    def tiles_done(self) -> int:
        """Number of finished tiles."""
        return int(np.count_nonzero(self._is_stored))

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
            self._backdrop.average_levels()
            self._record_change(core.Box.from_shape(self.shape))
        if not len(self.queue):
            return None
        places = self.queue.take_tiles(count, _PATIENCE_S)
        for place in places:
            if self._is_stored[place]:
                self.show_external_tile(place)
        return [place for place in places if not self._is_stored[place]]

    def attach_store(self, store: OmeZarrStore) -> None:
        """Display the finished tiles of a store in which each write unit is a tile."""
        self.level0, self._turn = store.level0, 0
        self._is_stored = np.asarray(store.done_marks[:]) != 0
        self._is_drawn &= self._is_stored
        self._record_change(core.Box.from_shape(self.shape))
        self.queue.replace_pending(~self._is_drawn)

    def show_external_tile(self, place: core.IntPair) -> None:
        """Display a tile that is in the store, unless it is already shown."""
        if self.level0 is not None and not self._is_drawn[place]:
            box = self._tiles.tile(*place).core
            self.show_tile(box, np.asarray(self.level0[box.slices]))

    def show_tile(self, box: core.Box, tile: core.RealArray) -> None:
        """Display a finished tile (Y, X)."""
        place = box.y0 // self.unit[0], box.x0 // self.unit[1]
        self._cache.put(place, tile)
        part, at = tile, box
        for level in self._stores:
            part = downsample_block(part)
            at = core.Box.from_shape(part.shape, (at.y0 // 2, at.x0 // 2))
            level.write(at, part)
        self._is_stored[place] = self._is_drawn[place] = True
        self._record_change(box)

    # -- called by the viewer --------------------------------------------------

    def _read_finest_level(self, box: core.Box) -> core.RealArray:
        """Read level 0, with the input in place of unfinished tiles."""
        until = time.perf_counter() + _READING_S
        high, wide = self.unit
        rows = range(box.y0 // high, -(-box.y1 // high))
        columns = range(box.x0 // wide, -(-box.x1 // wide))
        values = np.empty(box.shape, self.levels[0].dtype)
        for place in itertools.product(rows, columns):
            outer, level0 = self._tiles.tile(*place).core, self.level0
            inner, is_stored = outer.intersection(box), self._is_stored[place]
            tile = self._cache.get(place) if is_stored else None
            may_read = is_stored and level0 is not None and time.perf_counter() < until
            if tile is None and may_read:
                tile = np.asarray(level0[outer.slices])
                self._cache.put(place, tile)
            if tile is not None:
                part = tile[inner.relative_to(outer).slices]
            else:
                part = self._backdrop.read(inner, 1)
                if is_stored:
                    self._record_change(inner)
            values[inner.relative_to(box).slices] = part
        return values

    def _read_level(self, level: int, box: core.Box) -> core.RealArray:
        step = 2**level
        rows = np.arange(box.y0, box.y1) * step // self.unit[0]
        columns = np.arange(box.x0, box.x1) * step // self.unit[1]
        is_drawn = self._is_drawn[np.ix_(rows, columns)]
        values = self._backdrop.read(box, step)
        np.copyto(values, self._stores[level - 1].read(box), where=is_drawn)
        return values

    def _record_change(self, box: core.Box) -> None:
        """Add a changed region to those of `take_changed_box`."""
        with self._lock:
            self._changed_box = box.union(self._changed_box or box)
