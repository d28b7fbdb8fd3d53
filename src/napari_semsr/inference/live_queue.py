"""Which tile comes next: those in view first, from the middle outwards."""

import threading
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.tiling import Box

__all__ = ["TileQueue"]

Place = tuple[int, int]


class TileQueue:
    """Tiles that wait, ordered anew whenever the view moves.

    It may be used from several threads: a viewer says what it looks at, a worker takes
    what is most urgent.

    Parameters
    ----------
    grid : tuple of int
        Rows and columns of tiles.
    unit : tuple of int
        Rows and columns of a tile, in pixels of the result.
    whole : bool, default=True
        Whether tiles out of view are handed out too, once those in view are done.
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

    def fill(self, places: Iterable[Place]) -> None:
        """Replace what waits.

        Parameters
        ----------
        places : iterable of tuple of int
            Rows and columns of tiles.
        """
        with self._changed:
            self._pending[:] = False
            for place in places:
                self._pending[place] = True
            self._changed.notify_all()

    def look_at(self, view: Box | None) -> None:
        """Say what is looked at from now on.

        Parameters
        ----------
        view : Box or None
            In pixels of the result; None for the whole of it.
        """
        with self._changed:
            if view != self._view:
                self._view = view
                self._changed.notify_all()

    def take(self, count: int = 1, timeout: float = 0.0) -> list[Place]:
        """Take the most urgent tiles out of the queue.

        Parameters
        ----------
        count : int, default=1
            At most so many.
        timeout : float, default=0
            Seconds to wait for a tile that is wanted.

        Returns
        -------
        list of tuple of int
            Rows and columns; empty when none is wanted yet.
        """
        with self._changed:
            places = self._wanted(count)
            if not places and timeout:
                self._changed.wait(timeout)
                places = self._wanted(count)
            for place in places:
                self._pending[place] = False
            return places

    def _wanted(self, count: int) -> list[Place]:
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
