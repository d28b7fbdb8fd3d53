"""Give a case many damaged inputs, and note what came out that is not ours."""

import os
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Protocol

from napari_semsr.core import SemsrError
from tests.mutations import damaged_json

LONGEST_S = 5.0  # of processor time that one input may take
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


@dataclass(frozen=True)
class Files:
    """Files of one kind that are damaged one at a time.

    What reads them gives False where it refused one otherwise than by an error.
    """

    name: str
    write: Callable[[Path], None]
    read: Callable[[Path], Any]
    damage: Callable[[bytes, Random], bytes] = damaged_json

    def prepare(self, folder: Path) -> list[tuple[str, bytes]]:
        """Write the whole files, read them, and keep their bytes."""
        seeds = folder / "seeds"
        seeds.mkdir()
        self.write(seeds)
        found = sorted(path for path in seeds.iterdir() if path.is_file())
        for path in found:
            assert self.read(path) is not False
        return [(path.name, path.read_bytes()) for path in found]

    def attempt(
        self, whole: list[tuple[str, bytes]], folder: Path, rng: Random
    ) -> object:
        """Damage one of them and read it."""
        name, data = rng.choice(whole)
        path = folder / name
        path.write_bytes(self.damage(data, rng))
        return self.read(path) is False


@dataclass
class Outcome:
    """What became of the inputs."""

    case: str
    count: int = 0
    refused: int = 0
    findings: list[str] = field(default_factory=list)
    slowest_s: float = 0.0  # of processor time
    slowest: int = -1

    def note_time(self, number: int, took_s: float, longest_s: float | None) -> None:
        """Remember the slowest input; one that took too long is a finding."""
        if took_s > self.slowest_s:
            self.slowest_s, self.slowest = took_s, number
        if longest_s is not None and took_s > longest_s:
            told = f"took {took_s:.1f} s of processor time, {longest_s:g} are allowed"
            self.findings.append(f"{self.case} {number}: {told}")


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


def _processor_s() -> float:
    """Tell the processor time of this process and of those that it waited for."""
    return sum(os.times()[:4])


def play(
    case: Case,
    folder: Path,
    count: int,
    *,
    first: int = 0,
    longest_s: float | None = LONGEST_S,
    each: Callable[[int], None] | None = None,
) -> Outcome:
    """Give a case `count` inputs from number `first` on, each the same by its number.

    None may take `longest_s` of processor time, if that is not None; the clock is not
    looked at, since the machine may have other work. `each` is called before each.
    """
    outcome = Outcome(case.name)
    whole = case.prepare(folder)
    for number in range(first, first + count):
        if each is not None:
            each(number)
        rng = Random(f"{case.name}-{number}")  # noqa: S311
        outcome.count += 1
        begun_s = _processor_s()
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
        outcome.note_time(number, _processor_s() - begun_s, longest_s)
    return outcome
