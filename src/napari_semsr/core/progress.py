"""Progress: the one thing that services say while they work.

A service is a generator that yields `Progress` and returns its result, so that a
panel, a command and a script consume the same object. Closing the generator cancels.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job has come.

    Attributes
    ----------
    done, total : int
        Steps finished and steps in all; `total` is 0 while it is unknown.
    message : str
        What is being done now, for the user.
    """

    done: int
    total: int
    message: str

    @property
    def fraction(self) -> float:
        """Share of the work that is finished, in [0, 1]; 0 while unknown."""
        return min(1.0, self.done / self.total) if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Waiting(Progress):
    """Something outside this process is waited for; the user must know it at once."""


Job = Generator[Progress, None, T]


def run(job: Job[T], report: Callable[[Progress], None] | None = None) -> T:
    """Run a job to its end and return what it returns.

    Parameters
    ----------
    job : generator of Progress
        A service that has been called but not started.
    report : callable, optional
        Receives each `Progress`. An exception raised by it cancels the job.

    Returns
    -------
    object
        The job's own result.
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
