"""Pixels of a TIFF: one plane, in memory or lazily, never through an open handle."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import ReadError
from napari_semsr.io.files import decoding

if TYPE_CHECKING:
    import dask.array
    import tifffile

_BLOCK = 2048
_STRIP_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True)
class PlaneSource:
    """Where the pixels of one plane lie; small, and can be sent to a worker."""

    path: Path  # The TIFF
    series: int  # Which page holds the plane
    level: int  # Which page holds the plane
    page: int  # Which page holds the plane
    shape: tuple[int, ...]  # ``(Y, X)``, ``(Y, X, S)`` or ``(S, Y, X)`` as stored
    axes: str  # The same in letters
    dtype: str  # Type with byte order, as stored
    offset: int | None  # First byte when the plane is one uncompressed run of bytes
    sample: int | None  # The one sample to keep, when samples are channels
    block: tuple[int, ...]  # Rows and columns that are cheap to read at once

    @property
    def nbytes(self) -> int:
        """Size of the whole plane."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def extent(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.shape[self.axes.index("Y")], self.shape[self.axes.index("X")]

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape as handed over: ``(Y, X)`` or ``(Y, X, S)``."""
        if "S" not in self.axes or self.sample is not None:
            return self.extent
        return (*self.extent, self.shape[self.axes.index("S")])

    def _ordered(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Put colour samples last, or keep the chosen one."""
        if "S" not in self.axes:
            return samples
        axis = self.axes.index("S")
        if self.sample is not None:
            return np.asarray(np.take(samples, self.sample, axis=axis))
        return np.moveaxis(samples, axis, -1)

    def _page(self, tif: "tifffile.TiffFile") -> "tifffile.TiffPage":
        """Find the page in a freshly opened file."""
        page: Any = tif.series[self.series].levels[self.level].pages[self.page]
        return cast("tifffile.TiffPage", page)

    def whole(self) -> NDArray[Any]:
        """Read the plane into memory.

        Gives (Y, X).
        """
        if self.offset is not None:
            count = math.prod(self.shape)
            flat = np.fromfile(self.path, self.dtype, count, offset=self.offset)
            return self._ordered(flat.reshape(self.shape))
        import tifffile

        with decoding(self.path, "TIFF"), tifffile.TiffFile(self.path) as tif:
            page = self._page(tif)
            found = np.asarray(page.asarray()).reshape(self.shape)
        return self._ordered(found)

    def window(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Read a part of the plane."""
        index = tuple(
            {"Y": rows, "X": columns, "S": slice(None)}[letter] for letter in self.axes
        )
        if self.offset is not None:
            view = np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
            return self._ordered(np.array(view[index]))
        import tifffile
        import zarr

        with decoding(self.path, "TIFF"), tifffile.TiffFile(self.path) as tif:
            page = self._page(tif)
            store = page.aszarr()
            try:
                part = zarr.open_array(store, mode="r")[index]
            finally:
                store.close()
        return self._ordered(np.asarray(part))

    def lazy(self) -> "dask.array.Array":
        """Plan the reading of the plane, block by block.

        Gives (Y, X).
        """
        import dask.array as da
        from dask.base import tokenize

        rows, columns = self.extent
        chunks: list[Any] = [self.block[0], self.block[1]]
        chunks += [-1] * (len(self.out_shape) - 2)
        grid = da.core.normalize_chunks(chunks, self.out_shape, dtype=self.dtype)
        changed = self.path.stat().st_mtime_ns
        planned: da.Array = da.map_blocks(
            _read_block,
            self,
            chunks=grid,
            dtype=np.dtype(self.dtype),
            meta=np.empty((0,) * len(self.out_shape), np.dtype(self.dtype)),
            name=f"tiff-{tokenize(self, rows, columns, changed)}",
        )
        return planned


def _read_block(source: PlaneSource, block_info: Any = None) -> NDArray[Any]:
    """Read one dask block."""
    (top, bottom), (left, right), *_ = block_info[None]["array-location"]
    return source.window(slice(top, bottom), slice(left, right))


def _check_bytes(path: Path, page: "tifffile.TiffPage") -> None:
    """Refuse a page whose pixels lie beyond the end of the file."""
    size = path.stat().st_size
    expected = math.prod(page.chunked)
    found = min(len(page.dataoffsets), len(page.databytecounts))
    if found != expected:
        msg = (
            f"{path} must hold {expected} tiles or strips, but lists {found}: export "
            "it again."
        )
        raise ReadError(msg)
    ends = (o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True))
    end = max(ends)
    if end > size:
        msg = (
            f"{path} is cut short: its pixels end at byte {end}, but the file has "
            f"{size}: copy it again."
        )
        raise ReadError(msg)


def _block(page: "tifffile.TiffPage", extent: tuple[int, int]) -> tuple[int, int]:
    """Choose blocks that hold whole tiles or strips."""
    rows, columns = extent
    if page.is_tiled:
        high, wide = max(1, page.tilelength), max(1, page.tilewidth)
        return (
            min(rows, high * max(1, _BLOCK // high)),
            min(columns, wide * max(1, _BLOCK // wide)),
        )
    strip = max(1, min(rows, page.rowsperstrip or rows))
    row_bytes = max(1, columns * page.samplesperpixel * np.dtype(page.dtype).itemsize)
    wanted = max(1, _STRIP_BYTES // row_bytes)
    return min(rows, strip * max(1, wanted // strip)), columns


def find_plane(
    path: Path, tif: "tifffile.TiffFile", source: PlaneSource, outer: int
) -> PlaneSource:
    """Locate a plane inside the pages of a series."""
    level = tif.series[source.series].levels[source.level]
    key = level.keyframe
    axes = "".join(a for a in key.axes if a in "YXS")
    shape = tuple(n for n, a in zip(key.shape, key.axes, strict=True) if a in "YXS")
    if math.prod(shape) != math.prod(key.shape):
        msg = f"{path} stores volumes in one page, which is not read: export a stack."
        raise ReadError(msg)
    dtype = np.dtype(level.dtype).newbyteorder(tif.byteorder)
    found = replace(
        source, shape=shape, axes=axes, dtype=dtype.str, block=_block(key, (1, 1))
    )
    found = replace(found, block=_block(key, found.extent))
    start = level.dataoffset
    if start is not None:
        offset = int(start) + outer * found.nbytes
        end = offset + found.nbytes
        size = path.stat().st_size
        if end > size:
            msg = (
                f"{path} is cut short: its pixels end at byte {end}, but the file has "
                f"{size}: copy it again."
            )
            raise ReadError(msg)
        # one run of bytes can be read in any blocks, whatever its strips
        free = tuple(min(n, _BLOCK) for n in found.extent)
        return replace(found, offset=offset, block=free)
    pages = level.pages
    page: Any = pages[outer] if outer < len(pages) else None
    if page is None:
        msg = f"{path} lacks the page of plane {outer}: a file of its set is missing."
        raise ReadError(msg)
    if page.parent is tif:
        _check_bytes(path, page)
    return replace(found, page=outer)
