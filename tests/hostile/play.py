"""Give a case many damaged inputs, and note what came out that is not ours."""

import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Protocol

from napari_semsr.core import SemsrError

_LONGEST = 3000  # letters of a message that somebody could still read


class Case(Protocol):
    """One kind of input: whole ones, and what reads them."""

    name: str

    def prepare(self, folder: Path) -> Any:
        """Make whole inputs in a folder, once."""

    def attempt(self, whole: Any, folder: Path, rng: Random) -> object:
        """Damage one of them and read it; only our errors may come out.

        What it returns is true where it was refused otherwise than by an error.
        """


@dataclass
class Outcome:
    """What became of the inputs."""

    case: str
    count: int = 0
    refused: int = 0
    findings: list[str] = field(default_factory=list)


def _asked_for_all(error: BaseException | None) -> bool:
    """Whether an error comes of memory that there is not."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _fault(error: Exception) -> str | None:
    """Say what is wrong with how an input was refused; None where nothing is."""
    text = str(error)
    if not isinstance(error, SemsrError):
        return "foreign exception"
    if _asked_for_all(error):
        return "asked for more memory than is allowed"
    if not text.strip() or "\n" in text or len(text) > _LONGEST:
        return "message that is no sentence"
    return None


def play(
    case: Case,
    folder: Path,
    count: int,
    *,
    seed: int = 0,
    first: int = 0,
    each: Callable[[int], None] | None = None,
) -> Outcome:
    """Give a case `count` inputs, of which each is the same by seed and number.

    Parameters
    ----------
    case : Case
        What reads them.
    folder : pathlib.Path
        Empty; receives the inputs.
    count : int
        How many.
    seed, first : int
        Which ones.
    each : callable, optional
        Called before each input with its number.
    """
    outcome = Outcome(case.name)
    whole = case.prepare(folder)
    for number in range(first, first + count):
        if each is not None:
            each(number)
        rng = Random(f"{case.name}-{seed}-{number}")  # noqa: S311
        outcome.count += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome.refused += bool(case.attempt(whole, folder, rng))
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            outcome.refused += 1
            fault = _fault(error)
            if fault is not None:
                told = "".join(traceback.format_exception(error))
                outcome.findings.append(f"{case.name} {number}: {fault}\n{told}")
    return outcome
