"""Keep the memory of a command small, at no cost in time.

glibc gives each thread an arena of its own, and what a thread has freed there does not
serve another. Threads that compute, compress and write tiles in turn thus keep several
times what they use at once. And between the maps of a network, which come and go, lie
small objects that stay, so that the freed space is in pieces. Here all threads share
one arena, and blocks of 4 MB and more come from the system and return to it. Fetching
such a block anew for each layer would cost a fifth of the time in page faults, were it
not for huge pages, which torch asks for when it is told to.
"""

import ctypes
import os
import sys
from pathlib import Path

__all__ = ["compact_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # names in malloc.h
_LARGE, _KEPT = 4 << 20, 96 << 20
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_TORCH_ASKS = "THP_MEM_ALLOC_ENABLE"


def compact_memory() -> bool:
    """Set the allocator of this process; call it before torch is imported.

    Nothing is done where the user has set the allocator by ``MALLOC_...`` or
    ``GLIBC_TUNABLES``, or where the C library is not glibc.

    Returns
    -------
    bool
        Whether anything was set.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ)
    chosen |= "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if chosen or not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    library.mallopt(_ARENA_MAX, 1)
    if _has_huge_pages():
        os.environ.setdefault(_TORCH_ASKS, "1")
        library.mallopt(_MMAP_THRESHOLD, _LARGE)
        library.mallopt(_TRIM_THRESHOLD, _KEPT)
    return True


def _has_huge_pages() -> bool:
    """Whether the system gives huge pages to those who ask."""
    try:
        return "[never]" not in _HUGE_PAGES.read_text()
    except OSError:
        return False
