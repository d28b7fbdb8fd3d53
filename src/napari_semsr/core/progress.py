"""Progress and warnings of running jobs.

A job is a generator that yields `Progress` and returns its result, so that a panel, a
command and a script consume the same object. Closing the generator cancels it.
"""

import re
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TypeVar

from napari_semsr.core.errors import Message, get_error_code

T = TypeVar("T")

# Chosen. In the first second caches are filled, so the pace is not representative.
_FIRST_S = 1.0
_MINUTE_S, _HOUR_MIN = 60, 60


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
    """Estimator of the remaining time of a job."""

    def __init__(self) -> None:
        self._start: tuple[int, int, float] | None = None

    def add_time_left(self, step: P, now: float | None = None) -> P:
        """Return a copy of a step with the estimated time left, once available.

        A new total or a count of 0 restarts the estimate. `now` is in seconds on a
        monotonic clock, by default the system's.
        """
        if not step.done or not step.total:
            self._start = None if step.total else self._start
            return step
        now, start = time.monotonic() if now is None else now, self._start
        if start is None or start[1] != step.total or step.done < start[0]:
            self._start = step.done, step.total, now
            return step
        first, _, since = start
        if step.done == first or now - since < _FIRST_S:
            return step
        left = (step.total - step.done) * (now - since) / (step.done - first)
        return replace(step, seconds_left=left)


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
