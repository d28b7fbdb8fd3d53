"""Processes that tests start: with the usual signals, and ended when they hang."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LIMIT_S, SLOW_LIMIT_S = 300, 7200
"""End what hangs, a process or a wait, in a quick and in a slow test.

No assertion reads them and no test comes near them, so that no machine is too slow.
"""
LIMIT_MS = 1000 * LIMIT_S


def reset_signals() -> None:
    """Let the processes that this one starts take every signal as they usually do.

    A shell makes what runs in the background ignore SIGINT and SIGQUIT, `nohup` SIGHUP,
    and an ignored or blocked signal is inherited. One that has a handler here is at its
    default in a child, whoever starts that: a test, the package or dask.
    """
    if not hasattr(signal, "pthread_sigmask"):
        return
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    usual = {"SIGINT": signal.default_int_handler}
    for name in ("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP"):
        number = getattr(signal, name)
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual.get(name, signal.SIG_DFL))


def run(words: Sequence[object], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; what it said is kept as text."""
    usual = {"check": False, "text": True, "timeout": LIMIT_S}
    if not {"stdout", "stderr"} & options.keys():
        usual["capture_output"] = True
    return subprocess.run([str(word) for word in words], **(usual | options))


def run_python(code: str, *words: object, **options: Any) -> str:
    """Run Python code in a process of its own, and give what it printed."""
    # A process that a signal ends says nothing, but for where its threads were.
    done = run([sys.executable, "-X", "faulthandler", "-c", code, *words], **options)
    told = done.stderr.partition("\nExtension modules: ")[0]  # which takes all the room
    said = done.stdout[-3000:] + told[-3000:]
    assert done.returncode == 0, f"exited with {done.returncode}: {said}"
    return done.stdout


KILLED = """
import os, sys, pathlib
from napari_semsr.io import use_temporary_path
with use_temporary_path(pathlib.Path(sys.argv[1])) as place:
    place.touch()
    print(place, flush=True)
    os._exit(0)
"""


def leave_temporary_file(path: Path) -> Path:
    """Leave the hidden file of an output as a process that is killed does."""
    return Path(run_python(KILLED, path).strip())


@contextmanager
def started(words: Sequence[object], **options: Any) -> Iterator[subprocess.Popen]:
    """Start a command that the block ends or waits for; it never outlives the block."""
    with subprocess.Popen([str(word) for word in words], **options) as process:
        try:
            yield process
        finally:
            process.kill()  # nothing if it has ended
