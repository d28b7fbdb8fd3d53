"""The ``semsr`` command: parse, run one service, print, set the exit code."""

import argparse
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from napari_semsr.cli.console import Console
from napari_semsr.cli.parser import VERBS, build_parser, load_verb
from napari_semsr.core.errors import SemsrError

__all__ = ["main"]

DONE, BAD_INPUT, INTERRUPTED = 0, 2, 130
_PACKAGE = str(Path(__file__).resolve().parents[1])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        0 done, 2 bad input or usage, 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    verb = next((word for word in words if word in VERBS), None)
    quiet = "--quiet" in words or _helps(verb)
    console = Console(as_json="--json" in words, quiet=quiet)
    try:
        with _terminable(), _quiet_logging(debug=debug):
            return _run(words, verb, console, debug=debug)
    except KeyboardInterrupt:
        if not _helps(verb):
            console.error("Interrupted; what was finished is kept.", verb)
        if not debug:
            _leave_quietly()
        return INTERRUPTED
    except BrokenPipeError:
        _abandon_stdout()
        return DONE
    except Exception as error:  # noqa: BLE001 - the last door before the user
        if debug:
            console.clear()
            traceback.print_exc(file=console.err)
        else:
            console.error(_sentence(error), verb)
        return BAD_INPUT


def _helps(verb: str | None) -> bool:
    """Whether this process learns along with another one, which speaks for both."""
    return verb == "train" and os.environ.get("LOCAL_RANK", "0") != "0"


def _run(words: list[str], verb: str | None, console: Console, *, debug: bool) -> int:
    """Parse and run; every failure is an exception."""
    parser = build_parser(verb or "")
    try:
        arguments = parser.parse_args(words)
    except SystemExit as stop:  # --help has printed what was asked for
        sys.stdout.flush()
        return int(stop.code or 0)
    if arguments.version:
        return _print_version(console)
    if arguments.verb is None:
        parser.error(f"a verb is required, one of {', '.join(VERBS)}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        record, summary = _result(arguments, console)
    own = record.get("warnings")  # a job may return what it has to say
    told = [str(item) for item in own] if isinstance(own, list) else []
    said = list(dict.fromkeys([*told, *_ours(caught, debug=debug)]))
    if not _helps(verb):
        console.emit({**record, "warnings": said}, summary)
    for message in said:
        console.warn(message)
    return DONE


def _result(
    arguments: argparse.Namespace, console: Console
) -> tuple[dict[str, object], str]:
    """Run the job of a verb and give its record and its summary."""
    from napari_semsr.core.progress import run

    verb = load_verb(arguments.verb)
    result = run(verb.start(arguments), console.report)
    return result.to_json(), verb.summarise(result)


def _print_version(console: Console) -> int:
    """Print the package's version."""
    import napari_semsr

    version = napari_semsr.__version__
    console.emit({"version": version}, f"semsr {version}")
    return DONE


def _ours(caught: list[warnings.WarningMessage], *, debug: bool) -> Iterator[str]:
    """Pick the warnings that are meant for the user."""
    for item in caught:
        told = item.category is UserWarning and item.filename.startswith(_PACKAGE)
        if debug or told:
            yield " ".join(str(item.message).split())


def _sentence(error: Exception) -> str:
    """Say any error as one sentence."""
    if isinstance(error, SemsrError):
        return str(error)
    if isinstance(error, MemoryError):
        return "Not enough memory for this image; try --level, --plane or .ome.zarr."
    if isinstance(error, OSError):
        what = error.strerror or str(error)
        where = f" ({error.filename})" if error.filename else ""
        return f"The system refused to read or write: {what}{where}."
    return (
        f"Unexpected {type(error).__name__}: {str(error) or 'no message'}; "
        "run again with --debug to see where, and report it."
    )


@contextmanager
def _terminable() -> Iterator[None]:
    """Treat a polite kill as Ctrl-C, so that clean-up runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Turn a signal into the exception of Ctrl-C."""
    raise KeyboardInterrupt


@contextmanager
def _quiet_logging(*, debug: bool) -> Iterator[None]:
    """Keep library logs off stderr unless they were asked for."""
    if debug:
        yield
        return
    import logging

    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _leave_quietly() -> None:
    """Keep the logs of libraries off stderr while the interpreter ends.

    A write that was cut short leaves a task behind, of which asyncio would complain
    after the last sentence.
    """
    import atexit
    import logging

    atexit.register(logging.disable, logging.CRITICAL)


def _abandon_stdout() -> None:
    """Point a closed stdout elsewhere, so that the interpreter ends in silence."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # not a real stream, or closed already
        return
