"""What a verb is: arguments, a job, and a summary of its result."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from napari_semsr.core.progress import Job
from napari_semsr.services.results import Result

__all__ = ["Verb"]

R = TypeVar("R", bound=Result)


@dataclass(frozen=True, slots=True)
class Verb(Generic[R]):
    """One sub-command of ``semsr``.

    Attributes
    ----------
    configure : callable
        Adds the verb's arguments to its parser.
    start : callable
        Makes the job of parsed arguments, without running it.
    summarise : callable
        Says a result in one or more lines.
    """

    configure: Callable[[argparse.ArgumentParser], None]
    start: Callable[[argparse.Namespace], Job[R]]
    summarise: Callable[[R], str]
