"""What tiles keep while they wait for the others, in memory and then on disk."""

import mmap
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from napari_semsr.core import Box, DeviceMemoryError, IntPair

# Memory that goes back to the system as soon as it is freed.
#
# What tiles leave for each other outlives the maps of a network, which come and go
# around it. On the heap of the C library the two get in each other's way: a small
# object that stays takes the beginning of a freed map's place, the next map does not
# fit there any more, and the heap grows with the number of tiles. Hence what stays lies
# in pages of its own, and is held as an object of Python, which keeps its small objects
# together; a tensor is only made of it while it is used. That helps a command, a
# script, and a viewer alike, since nobody's allocator has to be set.

_SMALLEST = 4 << 10
Pages = mmap.mmap | bytearray


def _blank(size: int) -> Pages:
    """Make room for what is to be kept for long.

    Gives zeros: pages of this process alone, which take no memory until they are
    written to and go with the last object that uses them; a few bytes lie on the heap.
    """
    if size < _SMALLEST:
        return bytearray(size)
    try:
        if sys.platform == "win32":
            return mmap.mmap(-1, size)
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:  # the system counts mappings, too
        return bytearray(size)


def _as_tensor(pages: Pages, dtype: torch.dtype) -> Tensor:
    """Look at pages as a tensor (N,)."""
    if not len(pages):
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(pages, dtype=dtype)


# Where tiles that step together leave their pixels: in memory, then on disk.
#
# A layer is one tensor of the whole field, to which every tile writes its core and from
# which it reads its window. Layers lie in memory while a budget lasts, which they share
# with the stores of waiting tiles; what comes later lies in files that have no name,
# so that nothing is left behind however the process ends. Channels come last, which
# makes each row of a window one piece of the file.


class NoRoomError(DeviceMemoryError):
    """Neither memory nor disk holds the layers; smaller tiles do not help."""


@dataclass(slots=True)
class Room:
    """Memory for layers and stores, and a folder for what exceeds it."""

    budget: int  # Bytes that may lie in memory
    folder: Path  # Where files are made
    used: int = 0  # Bytes in memory now
    spilled: int = 0  # The most that lay on disk at once
    _on_disk: int = 0

    def take(self, size: int) -> bool:
        """Claim memory."""
        if self.used + size <= self.budget:
            self.used += size
            return True
        free = shutil.disk_usage(self.folder).free
        if size > free:
            msg = (
                f"The layers of this field need {size / 2**30:.1f} GiB more than fits "
                f"into memory, and {self.folder} has {free / 2**30:.1f} GiB free: "
                "free some space, or use --norm sampled."
            )
            raise NoRoomError(msg)
        self._on_disk += size
        self.spilled = max(self.spilled, self._on_disk)
        return False

    def release(self, size: int, *, in_memory: bool) -> None:
        """Give back what was claimed."""
        if in_memory:
            self.used -= size
        else:
            self._on_disk -= size

    def open(self) -> IO[bytes]:
        """Make a file without a name."""
        return tempfile.TemporaryFile(dir=self.folder, buffering=0)


class Layer:
    """One tensor of the whole field, ``(1, C, Y, X)`` with channels last in memory."""

    def __init__(
        self, room: Room, shape: IntPair, channels: int, dtype: torch.dtype
    ) -> None:
        self._room, self._shape, self._channels = room, shape, channels
        self._dtype = dtype
        self._pixel = channels * dtype.itemsize
        self._size = shape[0] * shape[1] * self._pixel
        self._held: Tensor | None = None
        self._file: IO[bytes] | None = None
        if room.take(self._size):
            self._held = _as_tensor(_blank(self._size), dtype).view(*shape, channels)
        else:
            self._file = room.open()
            self._file.truncate(self._size)

    def write(self, box: Box, values: Tensor) -> None:
        """Write a region of the layer's pixels; `values` (1, C, Y, X)."""
        rows = values[0].permute(1, 2, 0)
        if self._held is not None:
            self._held[box.slices] = rows.to("cpu")
            return
        data = rows.to("cpu").contiguous().view(torch.uint8).numpy()
        for y, row in zip(range(box.y0, box.y1), data, strict=True):
            _write_all(self._open_file, self._place(y, box.x0), memoryview(row))

    def read(self, box: Box) -> Tensor:
        """Read a region; `box`: region in pixels of the layer; gives (1, C, Y, X)."""
        if self._held is not None:
            rows = self._held[box.slices].clone()
        else:
            rows = torch.empty(*box.shape, self._channels, dtype=self._dtype)
            data = rows.view(torch.uint8).numpy()
            for y, row in zip(range(box.y0, box.y1), data, strict=True):
                _read_all(self._open_file, self._place(y, box.x0), memoryview(row))
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


def _bytes_of(flat: Tensor) -> memoryview:
    """Look at a vector's memory; `flat` (N,); gives their bytes."""
    raw: Any = flat.view(torch.uint8).numpy()
    return memoryview(raw)


def _write_all(stream: IO[bytes], place: int, data: memoryview) -> None:
    """Write all bytes at a place; a raw file may take fewer at once."""
    stream.seek(place)
    flat = data.cast("B")
    while len(flat):
        flat = flat[stream.write(flat) :]


def _read_all(stream: IO[bytes], place: int, data: memoryview) -> None:
    stream.seek(place)
    flat = data.cast("B")
    while len(flat):
        count: int = stream.readinto(flat)  # type: ignore[attr-defined]
        if not count:
            msg = "A file of layers ended early."
            raise OSError(msg)
        flat = flat[count:]


@dataclass(slots=True)
class _Slot:
    """One tensor in a store: its values, or where they lie in the store's file."""

    held: Pages | None
    place: int
    size: int
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


@dataclass(slots=True)
class TensorStore:
    """Tensors that tiles keep while they wait."""

    room: Room  # Where they lie
    _slots: dict[Any, _Slot] = field(default_factory=dict)
    _file: IO[bytes] | None = None
    _end: int = 0
    _free: dict[int, list[int]] = field(default_factory=dict)

    def put(self, key: Any, value: Tensor) -> None:
        """Keep a tensor under a key, in place of an older one."""
        self.drop(key)
        size = value.nbytes
        # dense in memory too: the layout decides how sums are rounded
        dense = value.is_contiguous() or (
            value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last)
        )
        whole = value if dense else value.contiguous()
        pages, place = None, -1
        if self.room.take(size):
            pages = _blank(size)
            flat = _as_tensor(pages, whole.dtype)
            torch.as_strided(flat, whole.shape, whole.stride()).copy_(whole)
        else:
            if self._file is None:
                self._file = self.room.open()
            spare = self._free.get(size)
            place = spare.pop() if spare else self._end
            if place == self._end:
                self._end += size
            flat = torch.as_strided(whole.to("cpu"), (whole.numel(),), (1,))
            _write_all(self._file, place, _bytes_of(flat))
        layout = whole.shape, whole.stride(), whole.dtype, whole.device
        self._slots[key] = _Slot(pages, place, size, *layout)

    def get(self, key: Any) -> Tensor:
        """Fetch a tensor; it stays in the store."""
        slot = self._slots[key]
        if slot.held is not None:
            flat = _as_tensor(slot.held, slot.dtype)
        else:
            flat = torch.empty(slot.size // slot.dtype.itemsize, dtype=slot.dtype)
            if self._file is not None:
                _read_all(self._file, slot.place, _bytes_of(flat))
        return torch.as_strided(flat, slot.shape, slot.stride).to(slot.device)

    def __contains__(self, key: Any) -> bool:
        return key in self._slots

    def drop(self, key: Any) -> None:
        """Forget a tensor."""
        slot = self._slots.pop(key, None)
        if slot is None:
            return
        self.room.release(slot.size, in_memory=slot.held is not None)
        if slot.held is None:
            self._free.setdefault(slot.size, []).append(slot.place)

    def close(self) -> None:
        """Forget everything."""
        for key in list(self._slots):
            self.drop(key)
        if self._file is not None:
            self._file.close()
            self._file = None
