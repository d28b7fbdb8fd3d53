"""Memory that goes back to the system as soon as it is freed.

What tiles leave for each other outlives the maps of a network, which come and go around
it. On the heap of the C library the two get in each other's way: a small object that
stays takes the beginning of a freed map's place, the next map does not fit there any
more, and the heap grows with the number of tiles. Hence what stays lies in pages of its
own, and is held as an object of Python, which keeps its small objects together; a
tensor is only made of it while it is used. That helps a command, a script, and a viewer
alike, since nobody's allocator has to be set.
"""

import mmap
import sys

import torch
from torch import Tensor

__all__ = ["Pages", "as_tensor", "blank"]

_SMALLEST = 4 << 10
Pages = mmap.mmap | bytearray


def blank(size: int) -> Pages:
    """Make room for what is to be kept for long.

    Parameters
    ----------
    size : int
        Bytes.

    Returns
    -------
    mmap.mmap or bytearray
        Zeros: pages of this process alone, which take no memory until they are written
        to and go with the last object that uses them; a few bytes lie on the heap.
    """
    if size < _SMALLEST:
        return bytearray(size)
    try:
        if sys.platform == "win32":
            return mmap.mmap(-1, size)
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:  # the system counts mappings, too
        return bytearray(size)


def as_tensor(pages: Pages, dtype: torch.dtype) -> Tensor:
    """Look at pages as a tensor.

    Parameters
    ----------
    pages : mmap.mmap or bytearray
        From `blank`.
    dtype : torch.dtype
        Type of the values.

    Returns
    -------
    (N,) torch.Tensor
        On the CPU; it shares the memory, and keeps it.
    """
    if not len(pages):
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(pages, dtype=dtype)
