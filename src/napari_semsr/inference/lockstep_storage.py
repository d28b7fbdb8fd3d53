"""Where tiles that step together leave their pixels: in memory, then on disk.

A layer is one tensor of the whole field, to which every tile writes its core and from
which it reads its window. Layers lie in memory while a budget lasts, which they share
with the shelves of waiting tiles; what comes later lies in files that have no name, so
that nothing is left behind however the process ends. Channels come last, which makes
each row of a window one piece of the file.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from napari_semsr.core.errors import DeviceMemoryError
from napari_semsr.core.tiling import Box
from napari_semsr.inference.pages import as_tensor, blank

__all__ = ["Layer", "NoRoomError", "Room", "bytes_of", "read_all", "write_all"]


class NoRoomError(DeviceMemoryError):
    """Neither memory nor disk holds the layers; smaller tiles do not help."""


@dataclass(slots=True)
class Room:
    """Memory for layers and shelves, and a folder for what exceeds it.

    Attributes
    ----------
    budget : int
        Bytes that may lie in memory.
    folder : pathlib.Path
        Where files are made.
    used, spilled : int
        Bytes in memory now; the most that lay on disk at once.
    """

    budget: int
    folder: Path
    used: int = 0
    spilled: int = 0
    _on_disk: int = 0

    def take(self, size: int) -> bool:
        """Claim memory.

        Parameters
        ----------
        size : int
            Bytes.

        Returns
        -------
        bool
            Whether they may lie in memory; otherwise they count as lying on disk.

        Raises
        ------
        NoRoomError
            If neither memory nor disk holds them.
        """
        if self.used + size <= self.budget:
            self.used += size
            return True
        free = shutil.disk_usage(self.folder).free
        if size > free:
            msg = (
                f"The layers of this field need {size / 2**30:.1f} GiB more than fits "
                f"into memory, and {self.folder} has {free / 2**30:.1f} GiB free: "
                "free some space, or use --norm frozen."
            )
            raise NoRoomError(msg)
        self._on_disk += size
        self.spilled = max(self.spilled, self._on_disk)
        return False

    def release(self, size: int, *, in_memory: bool) -> None:
        """Give back what was claimed.

        Parameters
        ----------
        size : int
            Bytes.
        in_memory : bool
            What `take` returned.
        """
        if in_memory:
            self.used -= size
        else:
            self._on_disk -= size

    def open(self) -> IO[bytes]:
        """Make a file without a name.

        Returns
        -------
        file
            Open for reading and writing, gone when it is closed.
        """
        return tempfile.TemporaryFile(dir=self.folder, buffering=0)


class Layer:
    """One tensor of the whole field, ``(1, C, Y, X)`` with channels last in memory.

    Parameters
    ----------
    room : Room
        Where it lies.
    shape : tuple of int
        Rows and columns.
    channels : int
        Channels.
    dtype : torch.dtype
        Type of the values.
    """

    def __init__(
        self, room: Room, shape: tuple[int, int], channels: int, dtype: torch.dtype
    ) -> None:
        self._room, self._shape, self._channels = room, shape, channels
        self._dtype = dtype
        self._pixel = channels * dtype.itemsize
        self._size = shape[0] * shape[1] * self._pixel
        self._held: Tensor | None = None
        self._file: IO[bytes] | None = None
        if room.take(self._size):
            self._held = as_tensor(blank(self._size), dtype).view(*shape, channels)
        else:
            self._file = room.open()
            self._file.truncate(self._size)

    def write(self, box: Box, values: Tensor) -> None:
        """Write a region.

        Parameters
        ----------
        box : Box
            Region in pixels of the layer.
        values : (1, C, Y, X) torch.Tensor
            Its values.
        """
        rows = values[0].permute(1, 2, 0)
        if self._held is not None:
            self._held[box.slices] = rows.to("cpu")
            return
        data = rows.to("cpu").contiguous().view(torch.uint8).numpy()
        for y, row in zip(range(box.y0, box.y1), data, strict=True):
            write_all(self._open_file, self._place(y, box.x0), memoryview(row))

    def read(self, box: Box) -> Tensor:
        """Read a region.

        Parameters
        ----------
        box : Box
            Region in pixels of the layer.

        Returns
        -------
        (1, C, Y, X) torch.Tensor
            A copy on the CPU, in channels-last order.
        """
        if self._held is not None:
            rows = self._held[box.slices].clone()
        else:
            rows = torch.empty(*box.shape, self._channels, dtype=self._dtype)
            data = rows.view(torch.uint8).numpy()
            for y, row in zip(range(box.y0, box.y1), data, strict=True):
                read_all(self._open_file, self._place(y, box.x0), memoryview(row))
        return rows.permute(2, 0, 1)[None]

    def close(self) -> None:
        """Give the memory back; a second call does nothing."""
        if self._held is None and self._file is None:
            return
        self._room.release(self._size, in_memory=self._held is not None)
        self._held = None
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def _open_file(self) -> IO[bytes]:
        if self._file is None:
            msg = "A layer was used after it had been closed."
            raise ValueError(msg)
        return self._file

    def _place(self, y: int, x: int) -> int:
        return (y * self._shape[1] + x) * self._pixel


def bytes_of(flat: Tensor) -> memoryview:
    """Look at a vector's memory.

    Parameters
    ----------
    flat : (N,) torch.Tensor
        Values side by side, on the CPU.

    Returns
    -------
    memoryview
        Their bytes.
    """
    raw: Any = flat.view(torch.uint8).numpy()
    return memoryview(raw)


def write_all(stream: IO[bytes], place: int, data: memoryview) -> None:
    """Write all bytes at a place; a raw file may take fewer at once.

    Parameters
    ----------
    stream : file
        From `Room.open`.
    place : int
        Where to begin.
    data : memoryview
        What to write.
    """
    stream.seek(place)
    flat = data.cast("B")
    while len(flat):
        flat = flat[stream.write(flat) :]


def read_all(stream: IO[bytes], place: int, data: memoryview) -> None:
    """Read all bytes at a place.

    Parameters
    ----------
    stream : file
        From `Room.open`.
    place : int
        Where to begin.
    data : memoryview
        What to fill.

    Raises
    ------
    OSError
        If the file ends early.
    """
    stream.seek(place)
    flat = data.cast("B")
    while len(flat):
        count: int = stream.readinto(flat)  # type: ignore[attr-defined]
        if not count:
            msg = "A file of layers ended early."
            raise OSError(msg)
        flat = flat[count:]
