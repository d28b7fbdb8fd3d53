"""Acquisition: the frames of one scan, read lazily, and their metadata."""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.errors import OptionError
from napari_semsr.core.micrograph import PixelSize, Provenance, parse_pixel_size
from napari_semsr.core.types import FloatArray, IntPair, RealArray

FrameOrder = Literal["row", "serpentine", "column", "column-serpentine"]
FirstFrame = Literal["top-left", "top-right", "bottom-left", "bottom-right"]


class Frames(Protocol):
    """Array-like stack of frames (Y, X) of one shape and type, read one at a time."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the stack, (frames, rows, columns)."""

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Data type of the grey values."""

    def __getitem__(self, index: int) -> RealArray: ...


class BoundedCache:
    """Thread-safe keyed array cache that evicts the least recently used entries."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._entries: OrderedDict[Hashable, object] = OrderedDict()
        self._bytes = 0
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[type["BoundedCache"], tuple[int]]:
        # a copy in another process starts empty
        return BoundedCache, (self.limit_bytes,)

    def get(self, key: Hashable) -> Any:
        """Return an entry; None if it is missing."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: Hashable, value: object) -> None:
        """Add or replace an entry, and remove the oldest ones beyond the limit."""
        with self._lock:
            self.drop(key)
            self._entries[key] = value
            self._bytes += _count_bytes(value)
            while self._bytes > self.limit_bytes and len(self._entries) > 1:
                _, old = self._entries.popitem(last=False)
                self._bytes -= _count_bytes(old)

    def drop(self, key: Hashable) -> None:
        """Remove an entry, if present, so that it is recomputed."""
        with self._lock:
            if key in self._entries:
                self._bytes -= _count_bytes(self._entries.pop(key))


def _count_bytes(value: object) -> int:
    """Return the size of an array, or of a tuple of arrays, in bytes."""
    parts = value if isinstance(value, tuple) else (value,)
    return sum(int(part.nbytes) for part in parts)


def check_grid_options(
    grid: IntPair | None, options: Mapping[str, object], *, has_positions: bool
) -> None:
    """Raise an error for grid options given without a grid; None means not given.

    Raises
    ------
    OptionError
        If order, first frame or overlap are given without a grid.
    """
    grid_options = ("order", "first", "overlap")
    names = [name for name in grid_options if options.get(name) is not None]
    if grid is not None or not names:
        return
    which = " and ".join(names)
    how, remedy = "the grid is unknown", "set the grid as well"
    if has_positions:
        how = "the frames have positions"
        remedy = f"omit {which}, or set the grid to use it instead of the positions"
    msg = f"Only a scan grid has {which}, but {how}: {remedy}."
    raise OptionError(msg, code="grid-missing")


@dataclass(frozen=True, slots=True)
class UnusedFrame:
    """Unused frame and the reason for its exclusion."""

    frame: str
    reason: str


def compute_grid_cells(
    count: int,
    grid: IntPair,
    order: FrameOrder = "row",
    first: FirstFrame = "top-left",
) -> NDArray[np.int64]:
    """Return the grid row and column of each frame (N, 2), filled row by row.

    It may also be filled column by column; a serpentine reverses every second line.
    `first` is the corner of the first frame. Raises `OptionError` if the size of the
    grid is not `count`.
    """
    rows, columns = grid
    if rows < 1 or columns < 1 or rows * columns != count:
        msg = (
            f"A grid of {rows}x{columns} needs {max(rows * columns, 0)} frames, got "
            f"{count}; correct the grid, or pass positions if the scan has gaps."
        )
        raise OptionError(msg, code="grid-mismatch")
    by_column = order.startswith("column")
    length = rows if by_column else columns
    line, place = np.divmod(np.arange(count), length)
    if order.endswith("serpentine"):
        place = np.where(line % 2 == 1, length - 1 - place, place)
    row, column = (place, line) if by_column else (line, place)
    if first.startswith("bottom"):
        row = rows - 1 - row
    if first.endswith("right"):
        column = columns - 1 - column
    return np.stack([row, column], axis=1).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Acquisition:
    """Frames of one scan with their nominal positions."""

    frames: Frames  # ``(N, Y, X)``, read lazily
    names: tuple[str, ...]  # one for each frame, all different
    # (N, 2) nominal top-left corners ``(y, x)`` in pixels
    nominal_px: FloatArray | None = None
    # (N, 2) the same in nanometres, as reported by the stage
    nominal_nm: FloatArray | None = None
    grid: IntPair | None = None  # rows and columns of the scan
    order: FrameOrder = "row"  # how the grid was filled
    first: FirstFrame = "top-left"  # corner of the grid that holds the first frame
    # (N, 2) row and column of each frame of a grid with gaps
    cells: NDArray[np.int64] | None = None
    # names for which a grid may have cells: first all, including unused frames, then
    # only those that need a cell. Empty if both equal `names`.
    slots: tuple[tuple[str, ...], ...] = ()
    # nominal overlap of neighbours as a fraction of a frame, in (0, 1)
    overlap: float | None = None
    pixel_size_nm: PixelSize | None = None  # ``(y, x)`` as stated; None when unknown
    name: str = "scan"  # of the scan, for display
    # from ``scan.json`` or the file
    metadata: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()  # files read from a folder: frames, texts, tables
    # frames that could not be read and are not among `frames`
    faults: tuple[UnusedFrame, ...] = ()
    provenance: Provenance | None = None  # stored in the first frame

    def __post_init__(self) -> None:
        if self.overlap is not None and not 0 < self.overlap < 1:
            msg = (
                "The overlap must be a fraction of the frame between 0 and 1, got "
                f"{self.overlap:g}. Frames without overlap cannot be stitched."
            )
            raise OptionError(msg, code="out-of-range")
        if self.grid is not None and self.cells is None:
            compute_grid_cells(len(self), self.grid, self.order, self.first)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the stack, (frames, rows, columns)."""
        return self.frames.shape

    @property
    def frame_shape(self) -> IntPair:
        """Shape of one frame, (rows, columns)."""
        return self.frames.shape[1:]

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Data type of the grey values."""
        return self.frames.dtype

    def grid_cells(self) -> NDArray[np.int64]:
        """Return the row and column (N, 2) of each frame; one row without a grid."""
        if self.cells is not None:
            return self.cells
        grid = self.grid or (1, len(self))
        return compute_grid_cells(len(self), grid, self.order, self.first)

    def grid_corners(self) -> FloatArray | None:
        """Return top-left corners in px (N, 2) from grid and overlap, if known."""
        if self.grid is None or self.overlap is None:
            return None
        step = np.array(self.frame_shape) * (1 - self.overlap)
        return np.asarray(self.grid_cells() * step)

    def nominal_corners(self) -> FloatArray | None:
        """Return nominal top-left frame corners in px (N, 2), or None if unknown.

        As stated in pixels, in nanometres with a known pixel size, or from grid and
        overlap.
        """
        if self.nominal_px is not None:
            return np.asarray(self.nominal_px, dtype=float)
        if self.nominal_nm is not None and self.pixel_size_nm is not None:
            return np.asarray(self.nominal_nm / np.array(self.pixel_size_nm))
        return self.grid_corners()

    def read(self, index: int) -> RealArray:
        """Read the grey values (Y, X) of a frame by its index."""
        return self.frames[index]

    def replace(self, **changes: Any) -> Self:
        """Return a validated copy with changed attributes; parse `pixel_size_nm`."""
        if "pixel_size_nm" in changes:
            changes["pixel_size_nm"] = parse_pixel_size(changes["pixel_size_nm"])
        return replace(self, **changes)
