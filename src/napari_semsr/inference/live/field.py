"""A field that is looked at while it is being enhanced; needs neither torch nor Qt.

The store that a run fills is the only truth: its done-map says which tiles are there.
This module draws it at every level without ever waiting, and says which tiles are
wanted next. Batch runs and live runs fill the same store, so that one goes on with what
the other has begun.
"""

import threading
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import Box, IntPair
from napari_semsr.inference.layout import OutputPlan
from napari_semsr.inference.live.levels import (
    Backdrop,
    LevelStore,
    LiveLevel,
    TileCache,
)
from napari_semsr.io import OmeZarrStore, halve, level_shapes

# Which tile comes next: those in view first, from the middle outwards.


class TileQueue:
    """Tiles that wait, ordered anew whenever the view moves.

    It may be used from several threads: a viewer says what it looks at, a worker takes
    what is most urgent.

    `unit`: rows and columns of a tile, in pixels of the result.
    """

    def __init__(
        self, grid: tuple[int, int], unit: tuple[int, int], *, whole: bool = True
    ) -> None:
        self.unit = unit
        self._pending = np.zeros(grid, dtype=bool)
        self._whole = whole
        self._view: Box | None = None
        self._changed = threading.Condition()

    @property
    def whole(self) -> bool:
        """Whether tiles out of view are handed out too."""
        return self._whole

    @whole.setter
    def whole(self, value: bool) -> None:
        with self._changed:
            self._whole = bool(value)
            self._changed.notify_all()

    def __len__(self) -> int:
        return int(np.count_nonzero(self._pending))

    def fill(self, places: Iterable[IntPair]) -> None:
        """Replace what waits."""
        with self._changed:
            self._pending[:] = False
            for place in places:
                self._pending[place] = True
            self._changed.notify_all()

    def look_at(self, view: Box | None) -> None:
        """Say what is looked at from now on.

        `view`: in pixels of the result; None for the whole of it.
        """
        with self._changed:
            if view != self._view:
                self._view = view
                self._changed.notify_all()

    def take(self, count: int = 1, timeout: float = 0.0) -> list[IntPair]:
        """Take the most urgent tiles out of the queue."""
        with self._changed:
            places = self._wanted(count)
            if not places and timeout:
                self._changed.wait(timeout)
                places = self._wanted(count)
            for place in places:
                self._pending[place] = False
            return places

    def _wanted(self, count: int) -> list[IntPair]:
        """Find the most urgent tiles; called with the lock held."""
        rows, columns = np.nonzero(self._pending)
        if not rows.size:
            return []
        outside, distance = self._rank(rows, columns)
        order = np.lexsort((distance, outside))[:count]
        if not self._whole:
            order = order[outside[order] == 0]
        return [(int(rows[i]), int(columns[i])) for i in order]

    def _rank(
        self, rows: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Whether tiles are out of view, and how far from its middle."""
        view = self._view
        if view is None:
            grid = self._pending.shape
            view = Box(0, grid[0] * self.unit[0], 0, grid[1] * self.unit[1])
        top, left = rows * self.unit[0], columns * self.unit[1]
        outside = (
            (top >= view.y1)
            | (top + self.unit[0] <= view.y0)
            | (left >= view.x1)
            | (left + self.unit[1] <= view.x0)
        )
        down = top + (self.unit[0] - view.y0 - view.y1) / 2
        across = left + (self.unit[1] - view.x0 - view.x1) / 2
        return outside, np.hypot(down, across)


_COARSEST = 256
_READING_S = 0.015
_PATIENCE_S = 0.05


class LiveField:
    """The result of a run as a viewer draws it, from before the run begins.

    Parameters
    ----------
    output : OutputPlan
        Shape, tiles and type of the result.
    sources : sequence of (Y, X) numpy.ndarray
        The input and coarser levels of it, finest first, in memory.
    grey : tuple of float, optional
        Grey values that become 0 and 1 where the result is not in the grey scale of
        the input.
    whole : bool, default=True
        Whether tiles are enhanced that nobody looks at.

    Attributes
    ----------
    output : OutputPlan
        As given; a run takes it from here.
    levels : list of LiveLevel
        Arrays to be drawn, finest first, each half as fine as the one before.
    queue : TileQueue
        The tiles that wait.
    """

    def __init__(
        self,
        output: OutputPlan,
        sources: Sequence[NDArray[Any]],
        *,
        grey: tuple[float, float] | None = None,
        whole: bool = True,
    ) -> None:
        self.output = output
        self.shape, self.unit, self.dtype = (
            output.frame.shape,
            output.unit,
            output.dtype,
        )
        shape, unit = self.shape, self.unit
        grid = -(-shape[0] // unit[0]), -(-shape[1] // unit[1])
        self.queue = TileQueue(grid, unit, whole=whole)
        self._backdrop = Backdrop(sources, shape, self.dtype, grey)
        self._store: OmeZarrStore | None = None
        self._turn = 0
        self._stored = np.zeros(grid, dtype=bool)
        self._drawn = np.zeros(grid, dtype=bool)
        self._cache = TileCache()
        self._lock = threading.Lock()
        self._news: Box | None = None
        shapes = level_shapes(shape, smallest=_COARSEST)[: _halvings(grid, unit) + 1]
        self._stores = [LevelStore(each, self.dtype) for each in shapes[1:]]
        self.levels = [LiveLevel(shape, self.dtype, unit, self._read_finest)]
        for level, each in enumerate(shapes[1:], start=1):
            read = partial(self._read, level)
            self.levels.append(LiveLevel(each, self.dtype, unit, read))

    @property
    def done(self) -> int:
        """Number of tiles that are drawn."""
        return int(np.count_nonzero(self._stored))

    def look_at(self, view: Box | None) -> None:
        """Say what is looked at, so that it is enhanced first.

        Parameters
        ----------
        view : Box or None
            In pixels of the result; None for all of it.
        """
        self.queue.look_at(view)

    def take_news(self) -> Box | None:
        """Tell where the picture changed since this was last asked.

        Returns
        -------
        Box or None
            Smallest box around it, in pixels of the result.
        """
        with self._lock:
            news, self._news = self._news, None
            return news

    # -- what the worker calls ------------------------------------------------

    def take(self, count: int) -> list[IntPair] | None:
        """Take what is looked at first; what the store has already is only drawn.

        Parameters
        ----------
        count : int
            Tiles at most.

        Returns
        -------
        list of tuple or None
            Rows and columns of tiles to enhance; None when none waits any more.
        """
        self._turn += 1
        if self._turn == 2:  # after the first tile, which someone waits for
            self.average()
        if not len(self.queue):
            return None
        places = self.queue.take(count, _PATIENCE_S)
        return [place for place in places if not self.restore(place)]

    def attach(self, store: OmeZarrStore) -> None:
        """Draw a store from now on, with what it holds already.

        Parameters
        ----------
        store : OmeZarrStore
            Its write units are the tiles.
        """
        self._store, self._turn = store, 0
        done = np.asarray(store.done[:]) != 0
        with self._lock:
            self._stored = done
            self._drawn = self._drawn & done
            self._tell(Box.of(self.shape))
        self.queue.fill(zip(*np.nonzero(~self._drawn), strict=True))

    def average(self) -> None:
        """Draw coarse levels of the input as means instead of single pixels."""
        self._backdrop.average()
        with self._lock:
            self._tell(Box.of(self.shape))

    def restore(self, place: IntPair) -> bool:
        """Draw a tile that was in the store when the run began.

        Parameters
        ----------
        place : tuple of int
            Row and column of the tile.

        Returns
        -------
        bool
            False when the store does not have it.
        """
        if self._store is None or not self._stored[place]:
            return False
        box = self._box(place)
        self.land(box, np.asarray(self._store.level0[box.slices]))
        return True

    def fetch(self, place: IntPair) -> None:
        """Draw a tile that another process has written into the store.

        Parameters
        ----------
        place : tuple of int
            Row and column of the tile; nothing happens if it is drawn already.
        """
        if self._store is not None and not self._drawn[place]:
            box = self._box(place)
            self.land(box, np.asarray(self._store.level0[box.slices]))

    def land(self, box: Box, tile: NDArray[Any]) -> None:
        """Draw a tile that is in the store now.

        Parameters
        ----------
        box : Box
            Where it lies in the result.
        tile : (Y, X) numpy.ndarray
            Its pixels; not to be changed any more.
        """
        place = box.y0 // self.unit[0], box.x0 // self.unit[1]
        self._cache.put(place, tile)
        part, at = tile, box
        for level in self._stores:
            part = halve(part)
            at = Box.of(part.shape, (at.y0 // 2, at.x0 // 2))
            level.write(at, part)
        with self._lock:
            self._stored[place] = self._drawn[place] = True
            self._tell(box)

    # -- what the viewer calls ------------------------------------------------

    def _read_finest(self, box: Box) -> NDArray[Any]:
        """Read level 0: tiles where they are, the input elsewhere."""
        until = time.perf_counter() + _READING_S
        high, wide = self.unit
        rows = range(box.y0 // high, -(-box.y1 // high))
        columns = range(box.x0 // wide, -(-box.x1 // wide))
        places = [(row, column) for row in rows for column in columns]
        stored = self._stored[rows.start : rows.stop, columns.start : columns.stop]
        out = None if stored.all() else self._backdrop.read(box, 1)
        if out is None:
            out = np.empty(box.shape, self.dtype)
        for place in places:
            if not self._stored[place]:
                continue
            outer = self._box(place)
            inner = outer.intersection(box)
            tile = self._tile(place, outer, until)
            if tile is None:
                out[inner.within(box).slices] = self._backdrop.read(inner, 1)
                with self._lock:
                    self._tell(inner)
            else:
                out[inner.within(box).slices] = tile[inner.within(outer).slices]
        return out

    def _tile(self, place: IntPair, box: Box, until: float) -> NDArray[Any] | None:
        """Find a tile in memory, or on disk while there is time."""
        tile = self._cache.get(place)
        if tile is None and self._store is not None and time.perf_counter() < until:
            tile = np.asarray(self._store.level0[box.slices])
            self._cache.put(place, tile)
        return tile

    def _read(self, level: int, box: Box) -> NDArray[Any]:
        """Read a coarser level."""
        step = 2**level
        rows = np.arange(box.y0, box.y1) * step // self.unit[0]
        columns = np.arange(box.x0, box.x1) * step // self.unit[1]
        known = self._drawn[np.ix_(rows, columns)]
        if not known.any():
            return self._backdrop.read(box, step)
        values = self._stores[level - 1].read(box)
        if not known.all():
            np.copyto(values, self._backdrop.read(box, step), where=~known)
        return values

    # -- both -------------------------------------------------------------------

    def _box(self, place: IntPair) -> Box:
        """Where a tile lies in the result."""
        corner = place[0] * self.unit[0], place[1] * self.unit[1]
        return Box.of(self.unit, corner).intersection(Box.of(self.shape))

    def _tell(self, box: Box) -> None:
        """Remember that the picture changed; called with the lock held."""
        self._news = box if self._news is None else self._news.union(box)


def _halvings(grid: tuple[int, int], unit: tuple[int, int]) -> int:
    """How often a tile can be halved without its borders falling between pixels.

    An axis with one tile has no border.
    """
    sides = [side for side, count in zip(unit, grid, strict=True) if count > 1]
    return min(((side & -side).bit_length() - 1 for side in sides), default=32)
