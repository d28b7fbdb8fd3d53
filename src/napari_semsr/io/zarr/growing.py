"""Mosaic that grows on all sides, stored as an incomplete single-level OME-Zarr.

It shows a scan during acquisition, and is replaced by the finished mosaic.
Adding rows or columns before the first ones renames the files of the chunks, row by
row, without copying pixels.
"""

import threading
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_semsr.core import Box, Float32Array, FloatPair, IntPair, Micrograph
from napari_semsr.io.files import convert_write_errors
from napari_semsr.io.zarr.image import create_image_store
from napari_semsr.io.zarr.store import OmeZarrStore, read_store_state

if TYPE_CHECKING:
    from napari_semsr.io.zarr.store import ZarrArray

# Chosen: 256 chunks of 256 px, more than a window shows. A viewer reads them in its
# main thread, where a read of the store waits several times for other threads.
_RECENT_BYTES = 64 << 20
_LIVE = "live"  # marks a store that is filled while a scan is followed


def is_live_mosaic(place: Path) -> bool:
    """Return whether a store is the live mosaic of a scan."""
    return bool(read_store_state(place)[1].get(_LIVE))


@dataclass(slots=True)
class GrowingMosaic:
    """Growing float32 mosaic (Y, X) with NaN in areas not yet written.

    Pixels count from the mosaic's own origin, and may be negative. Other threads may
    read while one writes; neither waits for the other, as chunks are replaced whole.
    """

    store: OmeZarrStore
    level0: "ZarrArray"
    chunk: int
    origin: IntPair = (0, 0)  # pixel at the first row and column of the store
    _moves: int = 0  # number of times that the files of the chunks were renamed
    # rows and columns of the chunks with pixels, counted from the mosaic's origin
    _written_chunks: set[IntPair] = field(default_factory=set, repr=False)
    # the last chunks that were written
    _recent: dict[IntPair, Float32Array] = field(default_factory=dict, repr=False)
    # held while the store is extended
    _lock: Any = field(default_factory=threading.RLock, repr=False)

    @classmethod
    def create(cls, place: Path, about: Micrograph, chunk: int) -> "GrowingMosaic":
        """Create and lock an empty store, overwriting an existing one.

        Raises a `WriteError` if it cannot be created, or another process has locked it.
        """
        how: dict[str, Any] = {"chunk": chunk, "overwrite": True}
        how |= {"shape": (chunk, chunk), "dtype": np.float32}
        store = create_image_store(about, place, **how)
        with convert_write_errors(place):
            level0 = store.group.create_array(
                "0",
                shape=(chunk, chunk),
                dtype=np.float32,
                chunks=(chunk, chunk),
                fill_value=float("nan"),
                dimension_names=("y", "x"),
                overwrite=True,
            )
            store.write_note(_LIVE, {"origin_px": [0, 0]})
        return cls(store, level0, chunk)

    @property
    def shape(self) -> IntPair:
        """Shape of the store, (rows, columns)."""
        rows, columns = self.level0.shape
        return int(rows), int(columns)

    @property
    def start_position(self) -> FloatPair:
        """Position ``(y, x)`` of pixel (0, 0), in nm if the pixel size is known."""
        return self.store.record.origin

    @property
    def box(self) -> Box:
        """Rectangle covered by the store, in mosaic pixels."""
        with self._lock:
            return Box.from_shape(self.shape, self.origin)

    def write(self, box: Box, values: Float32Array) -> None:
        """Write a rectangle (Y, X), in mosaic pixels, extending the store if needed.

        Raises an `OSError` if the disk is full.
        """
        with self._lock:
            self._extend_store(box)
        places = self._list_chunk_indices(box)
        chunks = [self._get_chunk_box(place) for place in places]
        whole = chunks[0].union(chunks[-1])
        pixels = self.read(whole)
        pixels[box.relative_to(whole).slices] = values
        self.level0[whole.relative_to(self.box).slices] = pixels
        with self._lock:
            for place, chunk in zip(places, chunks, strict=True):
                self._written_chunks.add(place)
                self._recent.pop(place, None)
                self._recent[place] = pixels[chunk.relative_to(whole).slices].copy()
            while len(self._recent) * 4 * self.chunk**2 > _RECENT_BYTES:
                del self._recent[next(iter(self._recent))]

    def read(self, box: Box) -> Float32Array:
        """Read a rectangle (Y, X), in mosaic pixels; NaN outside the store."""
        while True:
            with self._lock:
                store, moves = self.box, self._moves
                touched = self._list_chunk_indices(box)
                places = [place for place in touched if place in self._written_chunks]
                recent = [self._recent.get(place) for place in places]
            result = np.full(box.shape, np.nan, np.float32)
            for place, values in zip(places, recent, strict=True):
                chunk = self._get_chunk_box(place)
                part = box.intersection(chunk)
                result[part.relative_to(box).slices] = (
                    self.level0[part.relative_to(store).slices]
                    if values is None
                    else values[part.relative_to(chunk).slices]
                )
            if moves == self._moves:
                return result

    def _get_chunk_box(self, place: IntPair) -> Box:
        corner = place[0] * self.chunk, place[1] * self.chunk
        return Box.from_shape((self.chunk, self.chunk), corner)

    def _list_chunk_indices(self, box: Box) -> list[IntPair]:
        """List the indices of the chunks that a rectangle touches."""
        rows = range(box.y0 // self.chunk, -(-box.y1 // self.chunk))
        columns = range(box.x0 // self.chunk, -(-box.x1 // self.chunk))
        return list(product(rows, columns))

    def _extend_store(self, box: Box) -> None:
        """Add chunks on each side where a rectangle exceeds the store."""
        before, after = [], []
        low, high = (box.y0, box.x0), (box.y1, box.x1)
        sides = zip(self.origin, self.shape, low, high, strict=True)
        for first, size, start, end in sides:
            before.append(max(0, -(-(first - start) // self.chunk)))
            after.append(max(0, -(-(end - first - size) // self.chunk)))
        if not any((*before, *after)):
            return
        rows, columns = (
            size + (b + a) * self.chunk
            for size, b, a in zip(self.shape, before, after, strict=True)
        )
        self.level0.resize((rows, columns))
        if any(before):
            self._moves += 1
            name = self.level0.metadata.encode_chunk_key((0, 0)).rpartition("/")[0]
            top = (self.store.path / self.level0.path / name).parent
            # the chunk files, if any were written, get other names, the last one first
            paths = top.iterdir() if top.is_dir() else ()
            numbered_paths = [path for path in paths if path.name.isdecimal()]
            for row in sorted(numbered_paths, key=lambda item: -int(item.name)):
                chunks = [item for item in row.iterdir() if item.name.isdecimal()]
                for item in sorted(chunks, key=lambda item: -int(item.name)):
                    item.rename(row / str(int(item.name) + before[1]))
                row.rename(top / str(int(row.name) + before[0]))
            y, x = self.origin
            self.origin = y - before[0] * self.chunk, x - before[1] * self.chunk
            record = self.store.record
            pitch = record.pixel_size_nm or record.spacing_px
            steps = zip(self.start_position, self.origin, pitch, strict=True)
            down, right = (start + at * step for start, at, step in steps)
            self.store.write_metadata(replace(record, origin=(down, right)), 1)
            self.store.write_note(_LIVE, {"origin_px": list(self.origin)})


@dataclass(frozen=True, slots=True)
class GrowingWindow:
    """Rectangle of a growing mosaic, read from its store on demand."""

    mosaic: GrowingMosaic
    box: Box
    dtype = np.dtype(np.float32)
    ndim = 2

    @property
    def shape(self) -> IntPair:
        """Shape of the image, (rows, columns)."""
        return self.box.shape

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.shape[0] * self.shape[1]

    def __getitem__(self, index: object) -> Float32Array:
        index = index if isinstance(index, tuple) else (index, slice(None))
        spans = [item.indices(n) for item, n in zip(index, self.shape, strict=True)]
        part = Box(spans[0][0], spans[0][1], spans[1][0], spans[1][1])
        values = self.mosaic.read(part.move(self.box.corner))
        return values[:: spans[0][2], :: spans[1][2]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self[:, :], dtype=dtype)
