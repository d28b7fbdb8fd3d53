"""What tiles keep while they wait for the others, in memory and then on disk."""

from dataclasses import dataclass, field
from typing import IO, Any, Protocol

import torch
from torch import Tensor

from napari_semsr.inference.lockstep_storage import (
    Room,
    bytes_of,
    read_all,
    write_all,
)
from napari_semsr.inference.pages import Pages, as_tensor, blank

__all__ = ["Keeping", "Shelf", "dense"]


class Keeping(Protocol):
    """Where a tile keeps tensors while it waits."""

    def put(self, key: Any, value: Tensor) -> None:
        """Keep a tensor under a key, in place of an older one.

        Parameters
        ----------
        key : hashable
            Its name.
        value : torch.Tensor
            What to keep.
        """

    def get(self, key: Any) -> Tensor:
        """Fetch a tensor; it stays there.

        Parameters
        ----------
        key : hashable
            Its name.

        Returns
        -------
        torch.Tensor
            As it was kept.
        """

    def drop(self, key: Any) -> None:
        """Forget a tensor.

        Parameters
        ----------
        key : hashable
            Its name; an unknown one is ignored.
        """

    def __contains__(self, key: Any) -> bool: ...


@dataclass(slots=True)
class _Slot:
    """One tensor on a shelf: its values, or where they lie in the shelf's file."""

    held: Pages | None
    place: int
    size: int
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


@dataclass(slots=True)
class Shelf:
    """Tensors that tiles keep while they wait.

    Attributes
    ----------
    room : Room
        Where they lie.
    """

    room: Room
    _slots: dict[Any, _Slot] = field(default_factory=dict)
    _file: IO[bytes] | None = None
    _end: int = 0
    _free: dict[int, list[int]] = field(default_factory=dict)

    def put(self, key: Any, value: Tensor) -> None:
        """Keep a tensor under a key, in place of an older one.

        Parameters
        ----------
        key : hashable
            Its name.
        value : torch.Tensor
            What to keep; not changed by anybody afterwards.
        """
        self.drop(key)
        size = value.nbytes
        whole = dense(value)  # in memory too: the layout decides how sums are rounded
        if self.room.take(size):
            self._slots[key] = _slot(whole, _copied(whole), -1)
            return
        if self._file is None:
            self._file = self.room.open()
        spare = self._free.get(size)
        place = spare.pop() if spare else self._end
        if place == self._end:
            self._end += size
        flat = torch.as_strided(whole.to("cpu"), (whole.numel(),), (1,))
        write_all(self._file, place, bytes_of(flat))
        self._slots[key] = _slot(whole, None, place)

    def get(self, key: Any) -> Tensor:
        """Fetch a tensor; it stays on the shelf.

        Parameters
        ----------
        key : hashable
            Its name.

        Returns
        -------
        torch.Tensor
            As it was kept.
        """
        slot = self._slots[key]
        if slot.held is not None:
            flat = as_tensor(slot.held, slot.dtype)
        else:
            flat = torch.empty(slot.size // slot.dtype.itemsize, dtype=slot.dtype)
            if self._file is not None:
                read_all(self._file, slot.place, bytes_of(flat))
        return torch.as_strided(flat, slot.shape, slot.stride).to(slot.device)

    def __contains__(self, key: Any) -> bool:
        return key in self._slots

    def drop(self, key: Any) -> None:
        """Forget a tensor.

        Parameters
        ----------
        key : hashable
            Its name; an unknown one is ignored.
        """
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


def dense(value: Tensor) -> Tensor:
    """Copy a tensor whose values do not lie side by side in memory.

    Parameters
    ----------
    value : torch.Tensor
        Any tensor.

    Returns
    -------
    torch.Tensor
        The same values; the same tensor where nothing has to be done.
    """
    whole = value.is_contiguous() or (
        value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last)
    )
    return value if whole else value.contiguous()


def _copied(value: Tensor) -> Pages:
    """Copy a dense tensor's values to pages of their own."""
    pages = blank(value.nbytes)
    flat = as_tensor(pages, value.dtype)
    torch.as_strided(flat, value.shape, value.stride()).copy_(value)
    return pages


def _slot(value: Tensor, held: Pages | None, place: int) -> _Slot:
    return _Slot(
        held,
        place,
        value.nbytes,
        value.shape,
        value.stride(),
        value.dtype,
        value.device,
    )
