"""What benchmarks share: options, means in words, rows on file, peers, and pictures."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # some draw as tests do
NAN = float("nan")
# brings a scan into a folder as a microscope does: source, target, seconds of a frame
BRING = """
import shutil, sys, time
from pathlib import Path
source, target, every = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
target.mkdir()
shutil.copy(source / "positions.csv", target)
for path in sorted(source.glob("*.tif")):
    shutil.copy(path, target / "part.tmp")
    (target / "part.tmp").rename(target / path.name)
    print(time.time(), flush=True)
    time.sleep(every)
"""
WORDS = {"FILE": Path, "N": int, "X": float, "WORD": str}


def read_options(
    doc: str | None, usage: str = "", /, **flags: Any
) -> argparse.Namespace:
    """Read the command line.

    `usage` lists words: ``images*`` is a list of paths, ``--quick`` a switch, and
    ``--side=512``, ``--sides=1,2``, ``--clock=wall|cpu`` say type and default. In place
    of a default FILE, N, X and WORD name a type, and an empty choice is none. `flags`
    are those with help, as ``(default or type, help)``, or all that `argparse` is told.
    """
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=how)
    for word in usage.split():
        name, equals, value = word.partition("=")
        if name.endswith("*"):
            parser.add_argument(name.rstrip("*"), type=Path, nargs="*")
        else:
            flags[name.removeprefix("--")] = _meant(value) if equals else False
    for name, told in flags.items():
        value, said = told if isinstance(told, tuple) else (told, None)
        if isinstance(value, dict):
            more = value
        elif value is False:
            more = {"action": "store_true"}
        elif isinstance(value, list):
            more = {"nargs": "+", "type": type(value[0]), "default": value}
        elif isinstance(value, type):
            more = {"type": value}
        else:
            more = {"type": type(value), "default": value}
        short = ["-o"] if name == "output" else []
        long = f"--{name.replace('_', '-')}"
        parser.add_argument(*short, long, **{"help": said, **more})
    return parser.parse_args()


def _meant(text: str) -> Any:
    """Give the default, or what `argparse` is told, of a word of a usage."""
    if text in WORDS:
        return WORDS[text]
    if "|" in text:
        first, *others = text.split("|")
        return {
            "choices": [first, *others] if first else others,
            "default": first or None,
        }
    if "," in text:
        return [_meant(part) for part in text.split(",")]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def run_parts(only: str | None, **parts: Callable[[], object]) -> int:
    """Run the part that is asked for, or all; 1 if one says that it missed its goal."""
    met = [part() for name, part in parts.items() if only in (None, name)]
    return int(any(one is not None and not one for one in met))


def standard_error(values: Iterable[float | None]) -> float | None:
    """Give the standard error of a mean; None of less than two values."""
    known = np.array([v for v in values if v is not None], dtype=float)
    return None if known.size < 2 else float(known.std(ddof=1) / np.sqrt(known.size))


def mean_and_error(values: ArrayLike, form: str = "+.2f") -> str:
    """Write a mean and its standard error."""
    error = standard_error(np.ravel(values))
    error = NAN if error is None else error
    return f"{np.mean(values):{form}} ± {error:{form[form.index('.') :]}}"


def in_line(row: Mapping[str, Any], form: str = ".4g") -> str:
    """Write a row in one line."""
    return ", ".join(
        f"{k} {v:{form}}" if isinstance(v, float) else f"{k} {v}"
        for k, v in row.items()
    )


def verdict(reached: object) -> str:
    """Say whether a goal is met."""
    return "met" if reached else "MISSED"


class Rows:
    """Rows that are known by some of their values, kept on file as they come."""

    def __init__(self, path: Path | None, *names: str) -> None:
        self.path, self.names = path, names
        kept = path.read_text().splitlines() if path and path.exists() else []
        self.known = {self._key(row): row for row in map(json.loads, kept)}

    def _key(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in self.names)

    def __contains__(self, key: tuple[Any, ...]) -> bool:
        return key in self.known

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.known.values())

    def add(self, row: dict[str, Any]) -> dict[str, Any]:
        """Keep a row."""
        self.known[self._key(row)] = row
        if self.path is not None:
            with self.path.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
        return row


def middle(image: NDArray[Any], side: int) -> NDArray[Any]:
    """Cut out the middle of an image, at most so large."""
    y, x = ((n - min(n, side)) // 2 for n in image.shape)
    return image[y : y + side, x : x + side]


# Processes and times.

PEER = os.environ.get("SEMSR_PEER_PYTHON", sys.executable)


def find_peer(python: str, module: str) -> str | None:
    """Give the interpreter if it has a module; else say that it has not."""
    probe = [python, "-c", f"import {module}"]
    if not subprocess.run(probe, capture_output=True, check=False).returncode:
        return python
    print(f"{module} is not importable by {python}: no comparison.")
    return None


def by_peer(python: str, code: str, *arrays: NDArray[Any]) -> Any:
    """Run code on arrays in another interpreter; give the JSON of its last line."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number}.npy") for number in range(len(arrays))]
        for path, array in zip(paths, arrays, strict=True):
            np.save(path, array)
        words = [python, "-c", code, *map(str, paths)]
        done = subprocess.run(words, capture_output=True, check=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


class Seconds(float):
    """What a way took, by its own word."""


def least_of(
    rounds: int,
    ways: Mapping[str, Callable[[], Any]],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Let ways take turns, and give the least time of each.

    Of a way that gives `Seconds` these count.
    """
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            begun = clock()
            made = way()
            took = made if isinstance(made, Seconds) else clock() - begun
            best[name] = min(best[name], took)
    return best


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process took, and what it printed."""

    code: int
    said: str
    seconds: float
    cpu_s: float
    peak_kib: float  # of resident memory, its own or that of a child of its own


# The peak of a process is no less than what its parent holds when it starts it, so that
# a small one stands between.
_WAIT = """
import json, os, subprocess, sys, time
begun = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)
said = child.stdout.read()
_, status, used = os.wait4(child.pid, 0)
seconds, cpu_s = time.perf_counter() - begun, used.ru_utime + used.ru_stime
code = child.returncode = os.waitstatus_to_exitcode(status)
print(json.dumps([code, said, seconds, cpu_s, used.ru_maxrss]))
"""


def usage_of(words: Sequence[object]) -> Usage:
    """Run a command to its end, and tell what it took."""
    call = [sys.executable, "-c", _WAIT, *map(str, words)]
    done = subprocess.run(call, stdout=subprocess.PIPE, check=True, text=True)
    return Usage(*json.loads(done.stdout))


def on_a_screen(script: str) -> None:
    """Begin again on a virtual screen where there is none."""
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        screen = str(ROOT / "scripts" / "with_display.sh")
        os.execv(screen, [screen, sys.executable, script, *sys.argv[1:]])  # noqa: S606


# Pictures.


@contextmanager
def picture(
    path: Path, rows: int, columns: int, *, dpi: int = 110, **how: Any
) -> Iterator[tuple[Any, Any]]:
    """Give a figure and its axes, and save it when they are drawn."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    how = {"layout": "constrained", **how}
    figure, axes = plt.subplots(rows, columns, **how)
    yield figure, axes
    figure.savefig(path, dpi=dpi)
    plt.close(figure)
