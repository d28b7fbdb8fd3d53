"""Work behind a viewer, so that its main thread is served first.

A thread that draws shares the cores with the threads that compute, and Python's
interpreter with the one that cuts, compresses and writes tiles. The first yields to a
lower priority of the others; the second by handing over the interpreter after half a
millisecond where five are usual, since drawing asks for it hundreds of times a frame.
"""

import ctypes
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from napari_semsr.core.errors import DeviceMemoryError

# Chosen. A tenth of Python's own interval: measured in turn on two busy cores, 200
# short calls that hand over the interpreter, as drawing makes them, take 29 ms beside a
# thread that computes in Python, and 156 ms with the usual interval (medians of 15).
# The longest stall is 0.43 instead of 0.51 s while a scan is stitched, 0.25 instead of
# 0.32 s while a field is enhanced (medians of 7; longer without it in 5 and in 4). A
# nice of 5 leaves a thread a third of a core that another wants wholly; and memory is
# given back once a second of work, since the pages cost time to fetch anew.
_INTERVAL_S = 5e-4
_NICE = 5  # niceness of threads in the background; chosen
_Part = TypeVar("_Part")
_Made = TypeVar("_Made")

# What the interval was when each run that goes on began: the first found the usual one.
_intervals: list[float] = []
_lock = threading.Lock()


def available_cores() -> int:
    """Count the cores that this process may use.

    All of the machine where the system, as macOS and Windows, keeps none from a process
    by name; one where it tells nothing.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def compute_ahead(
    compute: Callable[[_Part], _Made],
    parts: Iterable[_Part],
    *,
    most: int | None = None,
) -> Iterator[_Made]:
    """Compute parts on all cores and give them in order, a few ahead of the reader.

    `most` limits how many are computed at a time, where each takes much memory.
    """
    cores = min(available_cores(), most or sys.maxsize)
    with ThreadPoolExecutor(cores) as pool:
        ahead: deque[Future[_Made]] = deque()
        try:
            for part in parts:
                ahead.append(pool.submit(compute, part))
                if len(ahead) > cores:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


@contextmanager
def in_background() -> Iterator[None]:
    """Let this thread, and those that it starts, stand back behind the main thread.

    The priority of a thread can be lowered on Linux alone, and stays lowered, since a
    user may not raise it again. In the main thread it is left as it is.
    """
    with _lock:
        _intervals.append(sys.getswitchinterval())
        sys.setswitchinterval(min(_intervals[-1], _INTERVAL_S))
    try:
        _lower_priority()
        yield
    finally:
        with _lock:
            sys.setswitchinterval(_intervals.pop())


def _lower_priority() -> None:
    main = threading.current_thread() is threading.main_thread()
    if main or not sys.platform.startswith("linux"):
        return
    own = threading.get_native_id()
    usual = os.getpriority(os.PRIO_PROCESS, os.getpid())
    if os.getpriority(os.PRIO_PROCESS, own) <= usual:
        os.setpriority(os.PRIO_PROCESS, own, min(19, usual + _NICE))


def return_free_memory() -> None:
    """Give memory that was freed back to the system, where the C library can.

    glibc keeps, for each thread that ever allocated, what lies between the small
    objects that stay. In a viewer, which has many threads, that grows for a long time.
    """
    if sys.platform.startswith("linux"):
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)


# Keep the memory of the command small, at no cost in time.
#
# glibc gives each thread an arena of its own, and what a thread has freed there does
# not serve another. Threads that compute, compress and write tiles in turn thus keep
# several times what they use at once. And between the maps of a network, which come and
# go, lie small objects that stay, so that the freed space is in pieces. Here all
# threads share one arena, and blocks of 4 MB and more come from the system and return
# to it. Fetching such a block anew for each layer would cost a fifth of the time in
# page faults, were it not for huge pages, which torch asks for when it is told to.

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # names in malloc.h
_LARGE = 4 << 20  # bytes of a block from which it comes from the system and returns
_KEPT = 96 << 20  # bytes of free memory at the top of the heap that are kept; chosen
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_TORCH_ASKS = "THP_MEM_ALLOC_ENABLE"


def compact_memory() -> bool:
    """Set the allocator of this process; call it before torch is imported.

    Nothing is done where the user has set the allocator by ``MALLOC_...`` or
    ``GLIBC_TUNABLES``, or where the C library is not glibc. Tells whether anything was.
    """
    is_set = any(name.startswith("MALLOC_") for name in os.environ)
    is_set |= "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if is_set or not sys.platform.startswith("linux"):
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
        return "[never]" not in _HUGE_PAGES.read_text("utf-8")
    except OSError:
        return False


def require_memory(name: str, shape: tuple[int, int], bytes_per_px: float) -> None:
    """Refuse to compute of a whole image what would end the process for want of memory.

    `bytes_per_px` is held at the peak; a `DeviceMemoryError` where that is more than is
    free.
    """
    import psutil

    need = shape[0] * shape[1] * bytes_per_px
    free = psutil.virtual_memory().available
    if need > free:
        msg = (
            f"{name} of {shape[0]} x {shape[1]} px needs {need / 1e9:.1f} GB of memory "
            f"to be measured as a whole, and {free / 1e9:.1f} GB are free: crop a part "
            "of it and measure that."
        )
        raise DeviceMemoryError(msg, code="memory")


def load_torch_libraries() -> None:
    """Load what torch is made of, before its import in a thread.

    Python's import, and `ctypes` too, hold the interpreter while a library is loaded:
    for torch 0.2 s from memory, seconds from a cold disk, and the window stands still.
    A foreign function does not. Does nothing where torch lies in other files.
    """
    spec = find_spec("torch")
    if not sys.platform.startswith("linux") or spec is None or spec.origin is None:
        return
    folder = Path(spec.origin).parent / "lib"
    # in the order of torch's own import, and as visible to each other
    modes = {"libtorch_global_deps.so": os.RTLD_GLOBAL, "libtorch.so": 0}
    if all((folder / name).is_file() for name in modes):
        load = ctypes.CDLL(None).dlopen
        load.restype = ctypes.c_void_p
        for name, mode in modes.items():
            load(os.fsencode(folder / name), os.RTLD_NOW | mode)
