import io
import json

import pytest

from napari_semsr.cli.command import Console
from napari_semsr.core.progress import Progress, WaitingProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def console(err: io.StringIO | None = None, **options: object) -> Console:
    return Console(out=io.StringIO(), err=err or io.StringIO(), **options)


def test_emit_json_is_one_object_on_one_line():
    made = console(as_json=True)
    made.print_result({"a": None, "µ": "nm"}, "not printed")
    assert made.out.getvalue().count("\n") == 1
    assert json.loads(made.out.getvalue()) == {"a": None, "µ": "nm"}


def test_emit_refuses_numbers_that_json_has_not():
    with pytest.raises(ValueError, match="JSON"):
        console(as_json=True).print_result({"a": float("nan")}, "")


def test_report_on_a_terminal_draws_a_bar_and_clears_it():
    made = console(Terminal())
    made.report(Progress(1, 4, "tiles"))
    assert "1/4 tiles" in made.err.getvalue()
    made.print_result({}, "done")
    assert made.err.getvalue().endswith("\r")
    assert made.out.getvalue() == "done\n"


def test_time_left_is_shown_after_a_long_message():
    made = console(Terminal(), clock=iter(map(float, range(20))).__next__)
    for done in range(1, 8):
        made.report(Progress(done, 9, "training: the gain is 1.5 dB, " * 3))
    assert made.err.getvalue().rstrip().endswith(" left")
    assert max(map(len, made.err.getvalue().split("\r"))) == 78


def test_report_off_a_terminal_is_sparse():
    made = console(clock=iter([0.0, *range(1, 14, 2)]).__next__)
    for done in range(1, 8):
        made.report(Progress(done, 9, "tiles"))
    assert made.err.getvalue() == "2/9 tiles\n7/9 tiles, 4 s left\n"


def test_report_off_a_terminal_waits_for_counted_work():
    made = console(clock=iter([0.0, 100.0, 200.0]).__next__)
    made.report(Progress(0, 0, "reading"))
    made.report(Progress(0, 9, "tiles"))
    assert made.err.getvalue() == ""


@pytest.mark.parametrize("err", [io.StringIO, Terminal])
def test_what_is_waited_for_is_said_at_once_in_full_and_once(err):
    made = console(err())
    for _ in range(3):
        made.report(WaitingProgress(0, 0, "connecting " + "far " * 40))
    assert made.err.getvalue() == f"semsr: connecting {'far ' * 40}".strip() + "\n"


def test_quiet_silences_progress_and_warnings_but_not_errors():
    made = console(Terminal(), quiet=True)
    made.report(Progress(1, 4, "tiles"))
    made.warn("something")
    assert made.err.getvalue() == ""
    made.error("It failed.", "info")
    assert made.err.getvalue() == "semsr info: It failed.\n"


def test_error_is_one_line_whatever_the_message_holds():
    made = console()
    made.error("first\nsecond\tthird")
    assert made.err.getvalue() == "semsr: first second third\n"


def test_text_that_the_stream_cannot_hold_is_escaped():
    raw = io.BytesIO()
    made = Console(out=io.TextIOWrapper(raw, encoding="ascii"), err=io.StringIO())
    made.print_result({}, "5 µm")
    assert raw.getvalue() == b"5 \\xb5m\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_stays_json_on_any_terminal(encoding):
    raw = io.BytesIO()
    made = Console(as_json=True, out=io.TextIOWrapper(raw, encoding))
    record = {"path": "é 名 \N{MICROSCOPE} \udcff.tif"}
    made.print_result(record, "")
    assert json.loads(raw.getvalue().decode(encoding)) == record
