"""What a command says: results on stdout, everything else on stderr."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TextIO

from napari_semsr.core.progress import Progress, Waiting

__all__ = ["Console"]

_BAR_WIDTH = 24
_TTY_INTERVAL_S = 0.1
_FIRST_LINE_S = 3.0
_LINE_INTERVAL_S = 10.0


@dataclass
class Console:
    """The two streams of a command and how talkative it is.

    Attributes
    ----------
    as_json : bool
        Print one JSON object instead of a summary.
    quiet : bool
        Say nothing on stderr but errors.
    out, err : text streams
        Looked up when the console is made, so that redirection works.
    clock : callable
        Tells seconds.
    """

    as_json: bool = False
    quiet: bool = False
    out: TextIO = field(default_factory=lambda: sys.stdout)
    err: TextIO = field(default_factory=lambda: sys.stderr)
    clock: Callable[[], float] = time.monotonic
    _started: float = field(default=0.0, init=False)
    _last: float = field(default=float("-inf"), init=False)
    _open_line: int = field(default=0, init=False)
    _awaited: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self._started = self.clock()

    def report(self, step: Progress) -> None:
        """Show how far a job has come: a bar on a terminal, else a line now and then.

        Lines wait until counted work is under way, so that a command that refuses its
        input says one line and no more.

        Parameters
        ----------
        step : Progress
            What the service yielded.
        """
        if self.quiet:
            return
        now = self.clock()
        since = now - self._last
        if isinstance(step, Waiting):
            self._wait(step.message)
        elif self.err.isatty():
            finished = bool(step.total) and step.done >= step.total
            if finished or since >= _TTY_INTERVAL_S:
                self._last = now
                self._draw(step)
        elif step.done and step.total and self._is_due(now, since):
            self._last = now
            self.err.write(f"{_printable(_line(step), self.err)}\n")
            self.err.flush()

    def _wait(self, message: str) -> None:
        """Say once, and in full, what is waited for."""
        if message != self._awaited:
            self._awaited = message
            self._say(f"semsr: {message}")

    def _is_due(self, now: float, since: float) -> bool:
        """Tell whether a line would not come too soon or too often."""
        return now - self._started >= _FIRST_LINE_S and since >= _LINE_INTERVAL_S

    def clear(self) -> None:
        """Take an unfinished progress bar off the terminal."""
        if self._open_line:
            self.err.write("\r" + " " * self._open_line + "\r")
            self.err.flush()
            self._open_line = 0

    def emit(self, record: dict[str, Any], summary: str) -> None:
        """Print the result.

        Parameters
        ----------
        record : dict
            Printed as one JSON object when JSON was asked for.
        summary : str
            Printed otherwise.
        """
        self.clear()
        if self.as_json:
            text = json.dumps(record, allow_nan=False, ensure_ascii=False)
            if _printable(text, self.out) != text:  # JSON escapes in its own way
                text = json.dumps(record, allow_nan=False)
        else:
            text = _printable(summary, self.out)
        self.out.write(text + "\n")
        self.out.flush()

    def warn(self, message: str) -> None:
        """Print one line of warning.

        Parameters
        ----------
        message : str
            A sentence.
        """
        if not self.quiet:
            self._say(f"semsr: warning: {message}")

    def error(self, message: str, verb: str | None = None) -> None:
        """Print the one line that says why a command failed.

        Parameters
        ----------
        message : str
            A sentence.
        verb : str, optional
            The command.
        """
        self._say(f"semsr {verb}: {message}" if verb else f"semsr: {message}")

    def _say(self, line: str) -> None:
        """Print one line on stderr, whatever line breaks the message holds."""
        self.clear()
        self.err.write(_printable(" ".join(line.split()), self.err) + "\n")
        self.err.flush()

    def _draw(self, step: Progress) -> None:
        """Redraw the bar in place."""
        filled = round(step.fraction * _BAR_WIDTH)
        bar = "#" * filled + "." * (_BAR_WIDTH - filled)
        text = f"[{bar}] {_line(step)}"[:78]
        pad = " " * max(0, self._open_line - len(text))
        self.err.write(f"\r{_printable(text, self.err)}{pad}")
        self.err.flush()
        self._open_line = len(text)


def _line(step: Progress) -> str:
    """Say a progress step in one line."""
    count = f"{step.done}/{step.total} " if step.total else ""
    return f"{count}{step.message}"


def _printable(text: str, stream: TextIO) -> str:
    """Replace what the stream's encoding cannot hold (a Latin-1 terminal, say)."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, errors="backslashreplace").decode(encoding)
