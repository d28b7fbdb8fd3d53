"""Progress, warnings, threads and memory of running jobs."""

import ctypes
import math
import os
import re
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from napari_semsr.core.errors import DeviceMemoryError, Message, get_error_code

T = TypeVar("T")

# Chosen. In the first second caches are filled, so the pace is not representative.
_FIRST_S = 1.0
_TOLERANCE = 1.2  # ratio of two paces that agree, and largest growth of a time left
_MINUTE_S, _HOUR_MIN = 60, 60
_PARTS = 1000  # of a job of several stages: the pixels of a bar


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a job.

    Attributes
    ----------
    done, total : int
        Number of finished steps and of all steps; `total` is 0 while it is unknown.
    message : str
        The current activity, for the user.
    seconds_left : float or None
        Estimated time for the remaining steps.
    """

    done: int
    total: int
    message: str
    seconds_left: float | None = None

    @property
    def fraction(self) -> float:
        """Completed fraction of the work, in [0, 1]; 0 while unknown."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    def __str__(self) -> str:
        if self.seconds_left is None:
            return self.message
        return f"{self.message}, {format_time(self.seconds_left)} left"


P = TypeVar("P", bound=Progress)


@dataclass(frozen=True, slots=True)
class WaitingProgress(Progress):
    """Progress while waiting for an external resource, shown immediately."""


class TimeEstimator:
    """Estimator of the remaining time of a job.

    The time is known while the pace of all counted steps and that of the latest half to
    three quarters of their time agree within a fifth. It is withheld if it has grown by
    more than a fifth over the shortest one of the same count.
    """

    def __init__(self) -> None:
        self._total = 0
        self._marks: list[tuple[int, float]] = []  # steps and time: first, then two
        self._shortest = math.inf

    def add_time_left(self, step: P, now: float | None = None) -> P:
        """Return a copy of a step with the estimated time left, if it is known.

        A time that the job states is kept. A new total or a count of 0 restarts the
        estimate. `now` is in seconds on a monotonic clock, by default the system's.
        """
        if step.seconds_left is not None or step.done >= step.total > 0:
            return step
        if not step.done or not step.total:
            self._marks = [] if step.total else self._marks
            return step
        now = time.monotonic() if now is None else now
        first, since = self._marks[0] if self._marks else (math.inf, now)
        if step.total != self._total or step.done < first:
            self._total, self._shortest = step.total, math.inf
            self._marks = [(step.done, now)]
            return step
        if step.done == first or now - since < _FIRST_S:
            return step
        left = self._estimate(step, now)
        if now - since >= 2 * (self._marks[-1][1] - since):
            self._marks = [self._marks[0], *self._marks[1:][-1:], (step.done, now)]
        if left is None or left > _TOLERANCE * self._shortest:
            return step
        self._shortest = min(self._shortest, left)
        return replace(step, seconds_left=left)

    def _estimate(self, step: Progress, now: float) -> float | None:
        """Estimate the time left, if the pace is steady."""
        if len(self._marks) < 3 or step.done == self._marks[1][0]:
            return None
        whole, recent = (
            (now - since) / (step.done - done) for done, since in self._marks[:2]
        )
        if max(whole, recent) > _TOLERANCE * min(whole, recent):
            return None
        return (step.total - step.done) * whole


def format_time(seconds: float) -> str:
    """Format a time in seconds, minutes, or hours and minutes."""
    if round(seconds) < _MINUTE_S:
        return f"{seconds:.0f} s"
    minutes = round(seconds / _MINUTE_S)
    if minutes < _HOUR_MIN:
        return f"{minutes} min"
    hours, rest = divmod(minutes, _HOUR_MIN)
    return f"{hours} h {rest:02d} min"


Job = Generator[Progress, None, T]


def run(job: Job[T], report: Callable[[Progress], None] | None = None) -> T:
    """Run a job to completion and return its result.

    `report` receives each `Progress`; an exception raised by it cancels the job.
    """
    try:
        while True:
            step = next(job)
            if report is not None:
                report(step)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        job.close()


def map_progress(
    job: Job[T],
    change: Callable[[Progress], Progress] = lambda step: step,
    *,
    within: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Job[T]:
    """Run a job as part of another job, with modified progress.

    `change` returns the progress to report instead of the job's, `within` a context for
    each step, such as `capture_warnings`. Returns the job's own result.
    """
    with closing(job):
        while True:
            try:
                with within():
                    step = next(job)
            except StopIteration as end:
                result: T = end.value
                return result
            yield change(step)


def count_stages(job: Job[T], ends: Mapping[str, float]) -> Job[T]:
    """Run a job of several stages with one progress of the whole.

    The progress never goes back, so that the time left does not grow.

    Parameters
    ----------
    job : generator of Progress
        Job to run.
    ends : mapping of str to float
        Share of the whole that is done at the end of each stage, in their order, by
        first words of its messages. A single stage keeps the count of its steps.

    Returns
    -------
    T
        Result of the job.
    """
    share, total = 0.0, 0

    def count(step: Progress) -> Progress:
        nonlocal share, total
        begin = 0.0
        for words, end in ends.items():
            if step.message.startswith(words):
                total = step.total if len(ends) == 1 else _PARTS
                share = max(share, begin + (end - begin) * step.fraction)
            begin = end
        return replace(step, done=round(total * share), total=total)

    return map_progress(job, count)


# All threads share Python's own hook: two jobs that overlap would restore each other's,
# and the warnings of a third would be lost.
_NAMES_AND_NUMBERS = re.compile(r"\S+\.\w+|\d+")
_handler: ContextVar[Callable[[str], object] | None] = ContextVar(
    "handler", default=None
)


def warn(message: str, code: str = "", *, stacklevel: int = 2) -> None:
    """Warn the user through the current handler, by default Python warnings.

    `message` is one sentence, `code` its stable name unless it is a `Message`;
    `stacklevel` is that of `warnings.warn`, relative to the caller.
    """
    if code:
        message = Message(message, code)
    handle = _handler.get()
    if handle is None:
        warnings.warn(message, stacklevel=stacklevel + 1)
    else:
        handle(message)


def warn_once(sentences: Iterable[str], files: str) -> None:
    """Merge similar warnings about several files into one that states their number.

    Sentences that differ only in file names and numbers are considered the same;
    `files` describes the files, such as ``"frames of scan"``.
    """
    kinds: dict[str, list[str]] = {}
    for sentence in dict.fromkeys(sentences):
        kinds.setdefault(_NAMES_AND_NUMBERS.sub("", sentence), []).append(sentence)
    for alike in kinds.values():
        end = f" ({len(alike)} such {files} in all)." if len(alike) > 1 else "."
        warn(alike[0].removesuffix(".") + end, get_error_code(alike[0]))


@contextmanager
def capture_warnings(handle: Callable[[str], object]) -> Iterator[None]:
    """Pass warnings from `warn` in this thread and context to `handle`.

    Python's own hook does not receive them.
    """
    before = _handler.set(handle)
    try:
        yield
    finally:
        _handler.reset(before)


# Background work that keeps the main thread of a viewer responsive.
#
# The drawing thread shares the cores with the computing threads, and Python's
# interpreter lock with the thread that compresses and writes tiles. The computing
# threads therefore get a lower priority, and the interpreter switches threads after
# half a millisecond instead of five, since drawing needs it hundreds of times a frame.


# Chosen. A tenth of Python's default interval: measured alternately on two busy cores,
# 200 short calls that release the interpreter, as drawing does, take 29 ms next to a
# thread that computes in Python, and 156 ms with the default interval (medians of 15).
# The longest stall is 0.43 instead of 0.51 s while a scan is stitched, 0.25 instead of
# 0.32 s while a field is enhanced (medians of 7; longer without it in 5 and in 4). A
# niceness of 5 leaves a thread a third of a core that another uses fully; memory is
# returned once a second of work, since fetching the pages again costs time.
_INTERVAL_S = 5e-4
_NICE = 5  # niceness of threads in the background; chosen
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# The interval before each run in progress; the first entry is the default.
_intervals: list[float] = []
_lock = threading.Lock()


def count_available_cores() -> int:
    """Count the CPU cores available to this process.

    All cores of the machine on systems without CPU affinity, such as macOS and
    Windows; 1 if their number is unknown.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_parallel(
    compute: Callable[[_Item], _Result],
    parts: Iterable[_Item],
    *,
    most: int | None = None,
) -> Iterator[_Result]:
    """Process items in parallel on all cores, and yield the results in order.

    `most` limits the number computed at a time, to limit memory.
    """
    cores = min(count_available_cores(), most or sys.maxsize)
    with ThreadPoolExecutor(cores) as pool:
        ahead: deque[Future[_Result]] = deque()
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
def use_background_priority() -> Iterator[None]:
    """Run this thread, and threads it starts, at lower priority than the main one.

    Thread priority is lowered on Linux only, and stays lowered, since a user may not
    raise it again. That of the main thread is not changed.
    """
    with _lock:
        _intervals.append(sys.getswitchinterval())
        sys.setswitchinterval(min(_intervals[-1], _INTERVAL_S))
    try:
        main = threading.current_thread() is threading.main_thread()
        if not main and sys.platform.startswith("linux"):
            own = threading.get_native_id()
            usual = os.getpriority(os.PRIO_PROCESS, os.getpid())
            if os.getpriority(os.PRIO_PROCESS, own) <= usual:
                os.setpriority(os.PRIO_PROCESS, own, min(19, usual + _NICE))
        yield
    finally:
        with _lock:
            sys.setswitchinterval(_intervals.pop())


def release_free_memory() -> None:
    """Return freed memory to the system, if the C library supports it.

    For each thread that ever allocated, glibc keeps the free memory between small
    objects in use. In a viewer, which has many threads, that memory keeps growing.
    """
    if sys.platform.startswith("linux"):
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)


# Keep the memory use of the command small, at no cost in time.
#
# glibc gives each thread its own arena, and memory freed there is not used by other
# threads. Threads that compute, compress and write tiles in turn thus keep several
# times what they use at once. Here all threads share one arena, whose free memory is
# kept, since clearing the pages of new blocks takes a fifth of the time of a network.
# Blocks of 32 MB and more are requested from the system and returned, since those of a
# whole field would leave gaps; tiles are equal in size and reuse these, too. torch
# requests huge pages if an environment variable is set. Another one lets its threads
# sleep between layers, since spinning took 40 % of the processor time on two cores.

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8  # in malloc.h
_USUAL_MAPS = 65536  # blocks that glibc requests from the system at most
_LARGE = 32 << 20  # bytes; the largest threshold that glibc accepts
_SPARE = 1.25  # times the memory after the first pass; chosen
_TORCH_ASKS = "THP_MEM_ALLOC_ENABLE"
_configured: list[ctypes.CDLL] = []  # the C library, once it has been configured


def configure_allocator() -> bool:
    """Configure the allocator of this process; call it before torch is imported.

    The allocator stays as it is if the user has configured it by ``MALLOC_...`` or
    ``GLIBC_TUNABLES``, or if the C library is not glibc; returns whether it was
    changed. Threads of torch wait without spinning, unless ``OMP_WAIT_POLICY`` is set.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    is_set = any(name.startswith("MALLOC_") for name in os.environ)
    is_set |= "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if is_set or not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    os.environ.setdefault(_TORCH_ASKS, "1")
    library.mallopt(_ARENA_MAX, 1)
    library.mallopt(_MMAP_THRESHOLD, _LARGE)
    library.mallopt(_TRIM_THRESHOLD, -1)
    _configured.append(library)
    return True


class MemoryReuse:
    """Lock of the passes of a network, which reuse freed memory until `close`.

    Passes that meet other work in another order leave gaps: free memory is returned
    when a quarter more is used than after the first pass. This is only a lock unless
    `configure_allocator` has configured the allocator.
    """

    def __init__(self) -> None:
        self._lock, self._most = threading.Lock(), 0.0
        self._limit_large_blocks(0)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        if _configured:
            from psutil import Process

            used = Process().memory_info().rss
            self._most = self._most or _SPARE * used
            if used > self._most:
                release_free_memory()
        self._lock.release()

    def close(self) -> None:
        """Return free memory, and request large blocks from the system again."""
        self._limit_large_blocks(_USUAL_MAPS)

    def _limit_large_blocks(self, count: int) -> None:
        if _configured:
            _configured[0].mallopt(_MMAP_MAX, count)
            release_free_memory()


def require_memory(name: str, shape: tuple[int, int], bytes_per_px: float) -> None:
    """Raise `DeviceMemoryError` if a whole image needs more than the free memory.

    `bytes_per_px` is the peak use per pixel.
    """
    import psutil

    need = shape[0] * shape[1] * bytes_per_px
    free = psutil.virtual_memory().available
    if need > free:
        msg = (
            f"Measuring all of {name} ({shape[0]} x {shape[1]} px) needs "
            f"{need / 1000000000.0:.1f} GB of memory, but only "
            f"{free / 1000000000.0:.1f} GB are free; crop the image and measure the "
            "crop."
        )
        raise DeviceMemoryError(msg, code="memory")


def load_torch_libraries() -> None:
    """Load the shared libraries of torch before importing it in a thread.

    Python's import, and `ctypes` too, hold the interpreter lock while a library loads:
    for torch 0.2 s from memory, seconds from a cold disk, which freezes the window. A
    foreign function does not. Does nothing if this build of torch has other files.
    """
    spec = find_spec("torch")
    if not sys.platform.startswith("linux") or spec is None or spec.origin is None:
        return
    folder = Path(spec.origin).parent / "lib"
    # in the order and with the visibility of torch's own import
    modes = {"libtorch_global_deps.so": os.RTLD_GLOBAL, "libtorch.so": 0}
    if all((folder / name).is_file() for name in modes):
        load = ctypes.CDLL(None).dlopen
        load.restype = ctypes.c_void_p
        for name, mode in modes.items():
            load(os.fsencode(folder / name), os.RTLD_NOW | mode)
