"""The levels that a viewer draws while a field is being enhanced.

Each looks like an array. Where tiles have landed it shows them, elsewhere the input
resampled, so that reading never waits for the network.
"""

import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_semsr.core import Box, IntPair, to_dtype
from napari_semsr.io import halve

_IN_MEMORY_BYTES = 16 << 20
_STRIP = 256
_BLOCK = 256


class Backdrop:
    """The input, drawn on the grid of the result at any level; `sources` (Y, X)."""

    def __init__(
        self,
        sources: Sequence[NDArray[Any]],
        shape: IntPair,
        dtype: DTypeLike,
        grey: tuple[float, float] | None = None,
    ) -> None:
        self._sources = list(sources)
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._grey = grey

    def read(self, box: Box, step: int) -> NDArray[Any]:
        """Draw a region by taking the nearest pixels.

        `box`: in pixels of the level; gives (Y, X).
        """
        source = self._nearest(step)
        rows = _places((box.y0, box.y1), step, source.shape[0], self._shape[0])
        columns = _places((box.x0, box.x1), step, source.shape[1], self._shape[1])
        part = _pick(_pick(source, rows, 0), columns, 1)
        if self._grey is not None:
            low, high = self._grey
            part = (part.astype(np.float32) - low) / ((high - low) or 1.0)
        if self._dtype.kind == "f":
            return np.array(part, dtype=self._dtype)
        return to_dtype(part, self._dtype)[0]

    def average(self) -> None:
        """Add coarser sources made of means, so that no level is noisier than it is.

        Until this is called coarse levels skip pixels, which needs no time.
        """
        finest = self._sources[0]
        if len(self._sources) > 1 or max(finest.shape) <= _STRIP:
            return
        sources = [finest]
        while max(sources[-1].shape) > _STRIP:
            fine = sources[-1]
            strips = range(0, fine.shape[0], _STRIP)
            parts = [halve(fine[top : top + _STRIP]) for top in strips]
            sources.append(np.concatenate(parts))
        self._sources = sources

    def _nearest(self, step: int) -> NDArray[Any]:
        """Choose the coarsest source that is as fine as a level."""
        sources = self._sources
        fine = [item for item in sources if item.shape[0] * step >= self._shape[0]]
        return (fine or sources[:1])[-1]


def _places(span: IntPair, step: int, size: int, wanted: int) -> NDArray[np.intp]:
    """Find where the pixels of a level lie on an axis of a source."""
    centres = (np.arange(*span) + 0.5) * (step * size / wanted)
    return np.minimum(centres.astype(np.intp), size - 1)


def _pick(source: NDArray[Any], places: NDArray[np.intp], axis: int) -> NDArray[Any]:
    """Take increasing places of one axis; a view where they are evenly spaced."""
    pitch = int(places[1] - places[0]) if places.size > 1 else 1
    first, last = int(places[0]), int(places[-1])
    if pitch and last - first == pitch * (places.size - 1):
        cut = [slice(None), slice(None)]
        cut[axis] = slice(first, last + 1, pitch)
        return source[tuple(cut)]
    cut = [slice(None), slice(None)]
    cut[axis] = slice(first, last + 1)
    return np.take(source[tuple(cut)], places - first, axis=axis)


class LevelStore:
    """Pixels of one level: in memory when small, else in a scratch file.

    The file is mapped only while it is used, and holds square blocks one after the
    other: the system maps what lies around a page too, which for rows of a wide field
    would be all of them. Thus memory stays flat.

    `dtype`: type of the pixels.
    """

    def __init__(self, shape: IntPair, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._array: NDArray[Any] | None = None
        self._file: Any = None
        if shape[0] * shape[1] * dtype.itemsize <= _IN_MEMORY_BYTES:
            self._array = np.zeros(shape, dtype)
            return
        self._grid = -(-shape[0] // _BLOCK), -(-shape[1] // _BLOCK)
        self._file = tempfile.TemporaryFile(prefix="semsr-level-")  # noqa: SIM115
        self._file.truncate(self._grid[0] * self._grid[1] * _BLOCK**2 * dtype.itemsize)
        weakref.finalize(self, self._file.close)

    def write(self, box: Box, block: NDArray[Any]) -> None:
        """Put a block in; `block` (Y, X), its pixels."""
        if self._array is not None:
            self._array[box.slices] = block
            return
        for part, stored in self._parts(box, "r+"):
            stored[...] = block[part]

    def read(self, box: Box) -> NDArray[Any]:
        """Copy a block out.

        Gives (Y, X).
        """
        if self._array is not None:
            return self._array[box.slices].copy()
        values = np.empty(box.shape, self._dtype)
        for part, stored in self._parts(box, "r"):
            values[part] = stored
        return values

    def _parts(
        self, box: Box, mode: Literal["r", "r+"]
    ) -> Iterator[tuple[tuple[slice, slice], NDArray[Any]]]:
        """Give each part of a region, and the same part of the file."""
        blocks = np.memmap(
            self._file, self._dtype, mode, 0, (*self._grid, _BLOCK, _BLOCK), "C"
        )
        for row in range(box.y0 // _BLOCK, -(-box.y1 // _BLOCK)):
            rows, down = _cut((box.y0, box.y1), row)
            for column in range(box.x0 // _BLOCK, -(-box.x1 // _BLOCK)):
                columns, across = _cut((box.x0, box.x1), column)
                yield (rows, columns), blocks[row, column, down, across]


def _cut(span: IntPair, number: int) -> tuple[slice, slice]:
    """Find what of a range lies in a block: within the range, and within the block."""
    start, stop = (min(max(n, span[0]), span[1]) for n in _ends(number))
    corner = number * _BLOCK
    return (
        slice(start - span[0], stop - span[0]),
        slice(start - corner, stop - corner),
    )


def _ends(number: int) -> IntPair:
    """First pixel of a block, and of the one after it."""
    return number * _BLOCK, (number + 1) * _BLOCK


class TileCache:
    """The tiles that were used last, within a limit of memory."""

    def __init__(self, limit: int = 64 << 20) -> None:
        self.limit = limit
        self._tiles: OrderedDict[IntPair, NDArray[Any]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def put(self, place: IntPair, tile: NDArray[Any]) -> None:
        """Keep a tile, and drop the oldest when there are too many.

        `tile` (Y, X), its pixels; not to be changed any more.
        """
        with self._lock:
            old = self._tiles.pop(place, None)
            self._size += tile.nbytes - (0 if old is None else old.nbytes)
            self._tiles[place] = tile
            while self._size > self.limit and len(self._tiles) > 1:
                _, gone = self._tiles.popitem(last=False)
                self._size -= gone.nbytes

    def get(self, place: IntPair) -> NDArray[Any] | None:
        """Find a tile.

        Gives (Y, X), its pixels, if they are kept.
        """
        with self._lock:
            tile = self._tiles.get(place)
            if tile is not None:
                self._tiles.move_to_end(place)
            return tile


class LiveLevel:
    """An array whose pixels are asked for when they are looked at.

    `dtype`: type of the pixels; `read`: gives the pixels of a `Box`, at once.
    """

    ndim = 2

    def __init__(
        self,
        shape: IntPair,
        dtype: np.dtype[Any],
        chunks: IntPair,
        read: Callable[[Box], NDArray[Any]],
    ) -> None:
        self.shape = shape
        self.dtype = dtype
        self.chunks = chunks
        self._read = read

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        given = index if isinstance(index, tuple) else (index,)
        if any(item is Ellipsis for item in given):
            place = next(i for i, item in enumerate(given) if item is Ellipsis)
            missing = self.ndim - len(given) + 1
            given = given[:place] + (slice(None),) * missing + given[place + 1 :]
        given += (slice(None),) * (self.ndim - len(given))
        spans, rest = [], []
        for item, size in zip(given, self.shape, strict=True):
            span, left = _span(item, size)
            spans.append(span)
            rest.append(left)
        box = Box(*spans[0], *spans[1])
        if min(box.shape) < 1:
            return np.empty(box.shape, self.dtype)[tuple(rest)]
        return self._read(box)[tuple(rest)]

    def __array__(
        self, dtype: DTypeLike | None = None, copy: bool | None = None
    ) -> Any:
        return np.asarray(self[:, :], dtype=dtype)


def _span(item: Any, size: int) -> tuple[IntPair, Any]:
    """Turn one index into a range to read, and what is left to do with it."""
    if isinstance(item, slice):
        start, stop, step = item.indices(size)
        if step == 1:
            return (start, max(start, stop)), slice(None)
        places = range(start, stop, step)
        if not places:
            return (0, 0), slice(None)
        low, high = min(places[0], places[-1]), max(places[0], places[-1])
        return (low, high + 1), slice(None, None, step)
    place = int(item)
    place += size if place < 0 else 0
    if not 0 <= place < size:
        msg = f"index {item} is out of bounds for an axis of {size}"
        raise IndexError(msg)
    return (place, place + 1), 0
