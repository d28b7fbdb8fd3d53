"""Run a field in the order in which it is looked at."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import Box, IntPair, TilePlan
from napari_semsr.inference.live.field import LiveField
from napari_semsr.inference.tiles import (
    EnhancePlan,
    Places,
    StoreSink,
    Take,
)

_PATIENCE_S = 0.05


@dataclass(frozen=True, slots=True)
class _LiveTarget:
    """A store's finest level that tells a viewer of each tile written."""

    array: Any
    live: LiveField

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        kind: np.dtype[Any] = np.dtype(self.array.dtype)
        return kind

    def __setitem__(self, index: tuple[slice, slice], tile: NDArray[Any]) -> None:
        self.array[index] = tile
        rows, columns = index
        box = Box(rows.start, rows.stop, columns.start, columns.stop)
        self.live.land(box, np.array(tile))


@dataclass(frozen=True, slots=True)
class LiveSink:
    """A store that is looked at while it is filled."""

    inner: StoreSink  # The store
    live: LiveField  # What the viewer draws

    @property
    def array(self) -> Any:
        """The finest level."""
        return _LiveTarget(self.inner.array, self.live)

    @property
    def shared(self) -> Any:
        """The finest level, without the viewer: what other processes write into."""
        return self.inner.array

    @property
    def folder(self) -> Path:
        """Where a run may put large files that it needs for a while."""
        return self.inner.folder

    def prepare(self, plan: EnhancePlan) -> None:
        """Refuse a store that does not fit the run, then let it be drawn."""
        self.inner.prepare(plan)
        self.live.attach(self.inner.store)

    def pending(self, plan: TilePlan) -> Places:
        """List the tiles without a mark."""
        return self.inner.pending(plan)

    def keep(self, key: str, value: Any) -> None:
        """Keep a value in the store's own attributes."""
        self.inner.keep(key, value)

    def kept(self, key: str) -> Any:
        """Read a value from the store's own attributes."""
        return self.inner.kept(key)

    def finish_tile(self, index: tuple[int, int]) -> None:
        """Mark a tile whose pixels are on disk, and draw it if that is still to do."""
        self.inner.finish_tile(index)
        self.live.fetch(index)


def in_view_first(live: LiveField) -> Take:
    """Take what is looked at first; what the store has already is only drawn."""
    turns = itertools.count()

    def take(count: int) -> list[IntPair] | None:
        if next(turns) == 1:  # after the first tile, which someone waits for
            live.average()
        if not len(live.queue):
            return None
        places = live.queue.take(count, _PATIENCE_S)
        return [place for place in places if not live.restore(place)]

    return take
