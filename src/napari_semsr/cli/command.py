"""The ``semsr`` command: argument parsing, job execution, output and exit code."""

import argparse
import atexit
import gc
import json
import logging
import os
import re
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import napari_semsr
from napari_semsr import core, jobs

if TYPE_CHECKING:
    from napari_semsr.cli.verb import Command

_COMMON = {
    "--json": "print one JSON object on stdout",
    "--quiet": "no progress and no warnings on stderr",
    "--debug": "show the traceback of an error",
}
_MISSING_ARGUMENTS = "the following arguments are required: "


class _Parser(argparse.ArgumentParser):
    """Argument parser that raises usage errors as one-sentence messages.

    A word that starts like a negative number, such as ``-2px`` or ``-1,5``, is a value.
    """

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def expand_help(self) -> None:
        """Replace option names in help texts with their flags."""
        for action in self._actions:
            text = action.help
            action.help = text and convert_names_to_flags(text, self._actions)

    def format_help(self) -> str:
        """Return the help text, composed only on request."""
        self.expand_help()
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        code = None
        if message.startswith(_MISSING_ARGUMENTS):
            code = "missing-value"
            names = message.removeprefix(_MISSING_ARGUMENTS).split(", ")
            described = map(self._describe_argument, names)
            message = _MISSING_ARGUMENTS + ", ".join(described)
        sentence = message[:1].upper() + message[1:].rstrip(".")
        msg = f"{sentence}; see `{self.prog} --help`."
        raise core.OptionError(msg, code=code)

    def _describe_argument(self, name: str) -> str:
        """Return the name of an argument with the start of its help text."""
        for action in self._actions:
            if name in ("/".join(action.option_strings), action.metavar, action.dest):
                choices = ", ".join(str(item) for item in action.choices or ())
                description = choices or re.split(r";| \(", str(action.help or ""))[0]
                description = convert_names_to_flags(description, self._actions)
                return f"{name} ({description})" if description else name
        return name


def load_command(name: str) -> "Command":
    """Load the command with a given name."""
    from napari_semsr.cli.verb import Command

    value = jobs.get_verb(name)
    assert value is not None  # noqa: S101 - the parser knows the names
    return Command(value)


def list_arguments(name: str) -> list[argparse.Action]:
    """List the arguments of a command in order, without common options."""
    parser = argparse.ArgumentParser(add_help=False)
    load_command(name).configure(parser)
    return list(parser._actions)  # noqa: SLF001 - argparse has no public way


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Build the parser with the arguments of one command or of all commands."""
    parser = _Parser(
        prog="semsr",
        description="Enhance and measure SEM and superlens images.",
        epilog=(
            "Lengths are in nanometres. Run `semsr COMMAND --help` to list the options "
            "of a command. Messages are explained in docs/troubleshooting.md of the "
            "manual."
        ),
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    _add_common_options(parser)
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", title="commands")
    for name in jobs.VERBS:
        # with a command, the help shows no other
        is_other = bool(only) and only != name
        text = name if is_other else jobs.read_summary(name)
        one = _add_parser(verbs, name, text)
        if only is None or only == name:
            _add_arguments(one, name)
    return parser


def _add_parser(
    place: "argparse._SubParsersAction[_Parser]", name: str, text: str
) -> _Parser:
    """Add the parser of a command, or of one of its actions."""
    about = f"{text[0].upper()}{text[1:]}."
    return place.add_parser(name, help=text, description=about, allow_abbrev=False)


def _add_arguments(parser: _Parser, name: str) -> None:
    """Add the arguments of a command, or its actions with their arguments."""
    actions = _get_actions(name)
    if actions:
        place = parser.add_subparsers(dest="action", metavar="action", required=True)
        for action in actions:
            full = f"{name} {action}"
            one = _add_parser(place, action, jobs.read_summary(full))
            _add_arguments(one, full)
    else:
        load_command(name).configure(parser)
    _add_common_options(parser)


def convert_names_to_flags(text: str, arguments: Sequence[argparse.Action]) -> str:
    """Replace option and command names in text with command-line syntax."""

    def format_reference(verb: str, option: str, value: str) -> str:
        name = jobs.FUNCTIONS.get(verb, verb)
        is_known = option and name in (*jobs.VERBS, *jobs.ACTIONS)
        known_names = list_arguments(name) if is_known else arguments
        words = [f"semsr {name}"] if verb else []
        return " ".join([*words, *_format_option(option, value, known_names)])

    return core.replace_option_names(text, format_reference)


def _convert_option_names(words: Sequence[str], text: str) -> str:
    """Replace option names in a sentence with the flags of the current command."""
    if "`" not in text:
        return text
    verb = next((word for word in words if word in jobs.VERBS), "")
    action = next((word for word in words if word in _get_actions(verb)), "")
    name = f"{verb} {action}".strip()
    whole = name and (action or not _get_actions(verb))
    return convert_names_to_flags(text, list_arguments(name) if whole else ())


def _format_option(
    option: str, value: str, arguments: Sequence[argparse.Action]
) -> list[str]:
    """Return the command-line arguments that set an option."""
    flag = f"--{option.replace('_', '-')}"
    for one in (one for one in arguments if one.dest == option):
        if isinstance(one, argparse._StoreConstAction) and one.const is not True:  # noqa: SLF001
            if str(one.const) == value:
                return [one.option_strings[0]]
            continue
        flag = next((word for word in one.option_strings if word[:2] == "--"), option)
    return [word for word in (flag, value) if word not in ("", "--", "True", "…")]


def _get_actions(name: str) -> tuple[str, ...]:
    """Return the actions of a command, or an empty tuple."""
    words = (one.partition(" ") for one in jobs.ACTIONS)
    return tuple(action for verb, _, action in words if verb == name)


def _get_full_command_name(arguments: argparse.Namespace) -> str:
    """Return the name of a command with its action, if any; empty without a command."""
    verb = arguments.verb or ""
    return f"{verb} {arguments.action}" if _get_actions(verb) else verb


def _add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options common to all commands, allowed before or after the name."""
    group = parser.add_argument_group("output")
    for flag, text in _COMMON.items():
        group.add_argument(
            flag, action="store_true", default=argparse.SUPPRESS, help=text
        )


# Output of a command: results on stdout, everything else on stderr.

_BAR_WIDTH = 24  # characters of the progress bar; chosen: two thirds of a line remain
_TTY_COLUMNS = 78  # characters of a line on a terminal
_TTY_INTERVAL_S = 0.1  # seconds between updates of the bar; chosen: looks smooth
_FIRST_LINE_S = 3.0  # seconds before the first line without a terminal
_LINE_INTERVAL_S = 10.0  # seconds between such lines; chosen: a log stays short
_SENTENCES = {"warnings", "message", "error", "notes", "reason", "refused"}


@dataclass
class Console:
    """Output streams and verbosity of a command."""

    as_json: bool = False  # Print one JSON object instead of a summary
    quiet: bool = False  # Print only errors on stderr
    words: Callable[[str], str] = str  # Replaces option names in sentences
    # Looked up at creation, so that redirection works
    out: TextIO = field(default_factory=lambda: sys.stdout)
    err: TextIO = field(default_factory=lambda: sys.stderr)
    clock: Callable[[], float] = time.monotonic  # Returns seconds
    warnings: list[str] = field(default_factory=list, init=False)  # Even if quiet
    _start_time: float = field(default=0.0, init=False)
    _last: float = field(default=float("-inf"), init=False)
    _open_line: int = field(default=0, init=False)
    _awaited_name: str = field(default="", init=False)
    _pace: core.TimeEstimator = field(default_factory=core.TimeEstimator, init=False)

    def __post_init__(self) -> None:
        self._start_time = self.clock()

    def report(self, step: core.Progress) -> None:
        """Show the progress of a job: a bar on a terminal, otherwise occasional lines.

        Lines wait until counted work is under way, so that a command that refuses its
        input prints only one line.
        """
        if self.quiet:
            return
        now = self.clock()
        since = now - self._last
        due = now - self._start_time >= _FIRST_LINE_S and since >= _LINE_INTERVAL_S
        step = self._pace.add_time_left(step, now)
        if isinstance(step, core.WaitingProgress):
            if step.message != self._awaited_name:  # printed once, in full
                self._awaited_name = step.message
                self._print_line(f"semsr: {step.message}")
        elif self.err.isatty():
            is_finished = bool(step.total) and step.done >= step.total
            if is_finished or since >= _TTY_INTERVAL_S:
                self._last = now
                bar = f"{'#' * round(step.fraction * _BAR_WIDTH):.<{_BAR_WIDTH}}"
                excess = max(0, len(f"[{bar}] {_format_progress(step)}") - _TTY_COLUMNS)
                message = step.message[: max(0, len(step.message) - excess)]
                step = replace(step, message=message)  # the time left stays
                text = f"[{bar}] {_format_progress(step)}"
                text = _to_printable(text, self.err)[:_TTY_COLUMNS]
                pad = " " * max(0, self._open_line - len(text))
                self.write_message(f"\r{text}{pad}")
                self._open_line = len(text)
        elif step.done and step.total and due:
            self._last = now
            self._print_line(_format_progress(step))

    def clear(self) -> None:
        """Erase an unfinished progress bar from the terminal."""
        if self._open_line:
            self.write_message("\r" + " " * self._open_line + "\r")
            self._open_line = 0

    def print_result(self, record: dict[str, object], summary: str) -> None:
        """Print the result as JSON or as a summary."""
        self.clear()
        if self.as_json:
            shown = self._rewrite_sentences("", record)
            text = json.dumps(shown, allow_nan=False, ensure_ascii=False)
            if _to_printable(text, self.out) != text:  # JSON has its own escapes
                text = json.dumps(shown, allow_nan=False).replace("\x7f", r"\u007f")
        else:
            text = _to_printable(self.words(summary), self.out)
        self.write_result(text + "\n")

    def write_result(self, text: str) -> None:
        """Write to stdout; its reader may close it early, as `head` does."""
        try:
            self.out.write(text)
            self.out.flush()
        except OSError as error:
            # what is still buffered would raise the same error at exit
            with suppress(OSError, ValueError):  # not a real stream
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.out.fileno())
            if not isinstance(error, BrokenPipeError):
                raise

    def warn(self, message: str) -> None:
        """Print a warning on one line."""
        self.warnings.append(message)
        if not self.quiet:
            self._print_line(f"semsr: warning: {message}")

    def error(self, message: str, verb: str | None = None) -> None:
        """Print an error on one line."""
        self._print_line(f"semsr {verb}: {message}" if verb else f"semsr: {message}")

    def _print_line(self, line: str) -> None:
        """Print a message on stderr as a single line."""
        self.clear()
        line = self.words(" ".join(line.split()))
        self.write_message(_to_printable(line, self.err) + "\n")

    def write_message(self, text: str) -> None:
        """Write to stderr; if it is closed or full, the command continues without."""
        with suppress(OSError, ValueError):
            self.err.write(text)
            self.err.flush()

    def _rewrite_sentences(self, name: str, value: object) -> object:
        """Replace option names in all sentences of a record."""
        if isinstance(value, str):
            return self.words(value) if name in _SENTENCES else value
        if isinstance(value, dict):
            items = value.items()
            return {key: self._rewrite_sentences(str(key), one) for key, one in items}
        if isinstance(value, list | tuple):
            return [self._rewrite_sentences(name, one) for one in value]
        return value


def _format_progress(step: core.Progress) -> str:
    count = f"{step.done}/{step.total} " if step.total else ""
    return f"{count}{step}"


def _to_printable(text: str, stream: TextIO) -> str:
    """Escape control characters and characters that the stream cannot encode."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return (
        core.escape_invisible_characters(text, lines=True)
        .encode(encoding, errors="backslashreplace")
        .decode(encoding)
    )


# Parse, run, print, set the exit code.

_SUCCESS, _BAD_INPUT, _INTERRUPT = 0, 2, 130
# commands that use finished results again without an option
_CONTINUABLE_COMMANDS = ("demo",)
# objects between two searches for garbage; chosen: torch loads in a third less time
_COLLECTION_INTERVAL = 10_000
_PACKAGE = str(Path(__file__).resolve().parents[1])


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        Exit status: 0 if done, 2 for bad input or usage, 130 if interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:  # imports make many objects and no garbage
        gc.set_threshold(_COLLECTION_INTERVAL)
        atexit.register(gc.freeze)  # nor is any searched for at the end
    debug = "--debug" in words
    verb = next((word for word in words if word in jobs.VERBS), None)
    quiet = "--quiet" in words or _is_helper_process(verb)
    if None in (sys.stdin, sys.stdout, sys.stderr):  # closed by the caller
        _open_missing_streams()
    console = Console("--json" in words, quiet, partial(_convert_option_names, words))
    signals: list[int] = []
    try:
        with _handle_termination(signals), _silence_logging(debug=debug):
            return _run_command(words, verb, console, debug=debug)
    except SystemExit as stop:
        return int(stop.code or 0)
    except KeyboardInterrupt:
        return _report_interrupt(words, verb, console, debug=debug)
    except Exception as error:  # noqa: BLE001 - users see a sentence, no traceback
        if signals and not debug:  # C code may raise another error for the interrupt
            return _report_interrupt(words, verb, console, debug=debug)
        message = core.describe_error(error)
        if debug:
            console.clear()
            text = traceback.format_exc()
            console.write_message(_to_printable(text, console.err))
        else:
            console.error(message, verb)
        place = os.environ.get("SEMSR_LOG")
        if place and not isinstance(error, core.SemsrError):
            from napari_semsr.io import log_error

            log_error(f"semsr {verb or ''}".strip(), error, Path(place))
        if console.as_json:
            code = core.get_error_code(error)
            refusal: dict[str, object] = {"kind": verb, "code": code}
            refusal["message"] = message
            refusal |= error.to_json() if isinstance(error, core.SemsrError) else {}
            refusal |= create_warning_record(console.warnings)
            with suppress(OSError):  # stdout is full: stderr has the message
                console.print_result(refusal, "")
        return _BAD_INPUT


def _open_missing_streams() -> None:
    """Open the null device as closed streams, whose numbers an image would receive."""
    while (stream := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(stream, True)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def create_warning_record(messages: Sequence[str]) -> dict[str, list[str]]:
    """Return warnings together with their codes."""
    return {
        "warnings": [*messages],
        "warning_codes": [*map(core.get_error_code, messages)],
    }


def _report_interrupt(
    words: list[str], verb: str | None, console: Console, *, debug: bool
) -> int:
    if not _is_helper_process(verb):
        definition, message = jobs.get_verb(verb or ""), "Interrupted"
        has_table = any(word.partition("=")[0] == "--table" for word in words)
        has_rows = definition and definition.makes_table and has_table
        if definition and (definition.resumes or has_rows):
            message += "; run the command again with --resume to use finished results"
        elif verb in _CONTINUABLE_COMMANDS:
            message += "; run the command again to use finished results"
        console.error(f"{message}.", verb)
    if not debug:
        # an interrupted write leaves a task, which asyncio would report at exit
        atexit.register(logging.disable, logging.CRITICAL)
    return _INTERRUPT


def _is_helper_process(verb: str | None) -> bool:
    """Return whether this is a helper process of a distributed training."""
    return verb == "train" and os.environ.get("LOCAL_RANK", "0") != "0"


def _parse(
    parser: argparse.ArgumentParser, words: list[str], console: Console
) -> argparse.Namespace:
    try:
        arguments, strange = parser.parse_known_args(words)
    except SystemExit:  # --help has printed the help
        console.write_result("")
        raise
    if strange:
        _raise_unknown_arguments(strange, _get_full_command_name(arguments))
    return arguments


def _run_command(
    words: list[str], verb: str | None, console: Console, *, debug: bool
) -> int:
    """Parse and run a command, raising every failure as an exception."""
    _check_command_name(verb, [word for word in words if not word.startswith("-")])
    parser = build_parser(verb or "")
    arguments = _parse(parser, words, console)
    if arguments.version:
        version = napari_semsr.__version__
        console.print_result({"version": version}, f"semsr {version}")
        return _SUCCESS
    if arguments.verb is None:
        parser.error(f"a command is required (one of {', '.join(jobs.VERBS)})")
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("always")
        name = _get_full_command_name(arguments)
        if name == "enhance":  # before torch is loaded
            core.configure_allocator()
        command = load_command(name)
        try:
            result = core.run(command.start(arguments), console.report)
            record = {**result.to_json(), "kind": arguments.verb}
            summary = command.summarise(result)
        except Exception:  # the warnings may explain the failure
            for message in dict.fromkeys(_select_user_warnings(records, debug=debug)):
                console.warn(message)
            raise
    own = record.get("warnings")  # a job may return warnings
    messages = [*own] if isinstance(own, list) else []
    messages += _select_user_warnings(records, debug=debug)
    messages = [*dict.fromkeys(messages)]
    if not _is_helper_process(verb):
        record |= create_warning_record(messages)
        console.print_result(record, summary)
    for message in messages:
        console.warn(message)
    failures = getattr(result, "failures", ())  # of several images
    for failure in failures:
        console.error(f"{failure['image']}: {failure['message']}", verb)
    return _BAD_INPUT if failures else _SUCCESS


def _check_command_name(verb: str | None, names: list[str]) -> None:
    """Raise an error for a command or action that is unknown, or left."""
    if names[:1] == [verb] and not _get_actions(names[0]):
        return
    for count in (1, 2):  # of a command, of an action
        name = " ".join(names[:count])
        if former := jobs.describe_former_name(name, f"`semsr {name}`"):
            raise core.OptionError(former)
    if verb is None and names:
        near = get_close_matches(names[0], jobs.VERBS, 1)
        suggestion = f"choose one of {', '.join(jobs.VERBS)}"
        suggestion = f"did you mean `semsr {near[0]}`?" if near else suggestion
        msg = f"Unknown command {names[0]!r} ({suggestion}); see `semsr --help`."
        raise core.OptionError(msg, code="verb-unknown")


def _raise_unknown_arguments(strange: list[str], verb: str) -> NoReturn:
    """Raise an error for unknown arguments, suggesting one similar to the first."""
    names = [word.partition("=")[0] for word in strange]
    for name in names:
        if former := jobs.describe_former_name(f"{verb} {name}"):
            raise core.OptionError(former)
    flag = names[0]
    group = verb.partition(" ")[0]
    for other in jobs.ACTIONS:
        if other.startswith(f"{group} ") and flag in _list_flags(other):
            msg = f"{flag} is an option of `{other}`, not of `{verb}`."
            raise core.OptionError(msg, code="unknown-option")
    flags = _list_flags(verb) if verb else ["--version"]
    near = get_close_matches(flag, [*flags, *_COMMON], 1)
    suggestion = f" (did you mean {near[0]}?)" if near else ""
    what = "option" if flag.startswith("-") else "argument"
    page = f"semsr {verb}".rstrip()
    msg = f"Unknown {what} {flag}{suggestion}; see `{page} --help`."
    raise core.OptionError(msg, code="unknown-option")


def _list_flags(verb: str) -> list[str]:
    return [flag for action in list_arguments(verb) for flag in action.option_strings]


def _select_user_warnings(
    records: list[warnings.WarningMessage], *, debug: bool
) -> Iterator[str]:
    """Yield the warnings intended for the user."""
    for item in records:
        own = item.category is UserWarning and item.filename.startswith(_PACKAGE)
        if debug or own:
            message = next(iter(getattr(item.message, "args", ())), "")
            line = " ".join(str(message).split())
            yield core.Message(line, core.get_error_code(message))


@contextmanager
def _handle_termination(signals: list[int]) -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that clean-up runs; record the signal.

    An interrupt that the process ignores stays ignored.
    """

    def interrupt(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        raise KeyboardInterrupt

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before[signal.SIGTERM] = signal.getsignal(signal.SIGTERM)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            before[signal.SIGINT] = signal.default_int_handler
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _silence_logging(*, debug: bool) -> Iterator[None]:
    """Keep library logs off stderr unless `debug` is set."""
    before = logging.root.manager.disable
    logging.disable(before if debug else logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
