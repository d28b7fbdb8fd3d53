"""Progress, and warnings: what services say while they work.

A service is a generator that yields `Progress` and returns its result, so that a
panel, a command and a script consume the same object. Closing the generator cancels.
"""

import re
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TypeVar

from napari_semsr.core.errors import Message, code_of

T = TypeVar("T")

# Chosen. Over less than a second the pace is that of caches which fill.
_FIRST_S = 1.0
_MINUTE_S, _HOUR_S = 60, 3600


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job has come.

    Attributes
    ----------
    done, total : int
        Steps finished and steps in all; `total` is 0 while it is unknown.
    message : str
        What is being done now, for the user.
    seconds_left : float or None
        How long these steps take still, at the pace so far.
    """

    done: int
    total: int
    message: str
    seconds_left: float | None = None

    @property
    def fraction(self) -> float:
        """Share of the work that is finished, in [0, 1]; 0 while unknown."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    def __str__(self) -> str:
        if self.seconds_left is None:
            return self.message
        return f"{self.message}, {spell_time(self.seconds_left)} left"


P = TypeVar("P", bound=Progress)


@dataclass(frozen=True, slots=True)
class Waiting(Progress):
    """Something outside this process is waited for; the user must know it at once."""


class Pace:
    """Tells the time left from the steps so far."""

    def __init__(self) -> None:
        self._start: tuple[int, int, float] | None = None

    def add_time_left(self, step: P, now: float | None = None) -> P:
        """Add the time left to a step, once there is a pace; a new total begins anew.

        `now` is in seconds on a clock that only goes on, by default the system's.
        """
        if not step.done or not step.total:
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


def spell_time(seconds: float) -> str:
    """Say a time in seconds, minutes, or hours and minutes, as suits it."""
    if seconds < _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    hours, rest = divmod(seconds, _HOUR_S)
    return f"{hours:.0f} h {rest // _MINUTE_S:02.0f} min"


Job = Generator[Progress, None, T]


def run(job: Job[T], report: Callable[[Progress], None] | None = None) -> T:
    """Run a job to its end and return what it returns.

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


def retell(
    job: Job[T],
    tell: Callable[[Progress], Progress] = lambda step: step,
    *,
    within: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Job[T]:
    """Run a job whose steps are told in other words, as those of a larger one.

    `tell` gives what is told in place of a step, `within` what each step is done
    within, such as `hear_warnings`. Returns the job's own result.
    """
    with closing(job):
        while True:
            try:
                with within():
                    step = next(job)
            except StopIteration as end:
                result: T = end.value
                return result
            yield tell(step)


# Python's own hook is one for all threads: two jobs that overlap would leave each
# other's in place, and what a third says would reach nobody.
_NAMES_AND_NUMBERS = re.compile(r"\S+\.\w+|\d+")
_hears: ContextVar[Callable[[str], object] | None] = ContextVar("hears", default=None)


def warn(message: str, code: str = "", *, stacklevel: int = 2) -> None:
    """Warn the user of what a result must be taken with: who listens, else Python.

    `message` is one sentence, `code` its stable name unless it has one already;
    `stacklevel` is as that of `warnings.warn`, seen from the caller.
    """
    if code:
        message = Message(message, code)
    hear = _hears.get()
    if hear is None:
        warnings.warn(message, stacklevel=stacklevel + 1)
    else:
        hear(message)


def warn_once(sentences: Iterable[str], files: str) -> None:
    """Warn of what several files have in common once, with the number of them.

    Sentences are taken as alike that differ in names of files and in numbers alone;
    `files` says what they are of, such as ``"frames of scan"``.
    """
    kinds: dict[str, list[str]] = {}
    for sentence in dict.fromkeys(sentences):
        kinds.setdefault(_NAMES_AND_NUMBERS.sub("", sentence), []).append(sentence)
    for alike in kinds.values():
        end = f" ({len(alike)} such {files} in all)." if len(alike) > 1 else "."
        warn(alike[0].removesuffix(".") + end, code_of(alike[0]))


@contextmanager
def hear_warnings(hear: Callable[[str], object]) -> Iterator[None]:
    """Listen to the sentences told by `warn` within, in this thread.

    Python's own hook does not receive them.
    """
    before = _hears.set(hear)
    try:
        yield
    finally:
        _hears.reset(before)
