import io
import json
from unittest.mock import Mock

import pytest

from napari_semsr.cli.command import Console
from napari_semsr.core.progress import Progress, WaitingProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def console(err: io.StringIO | None = None, **options: object) -> Console:
    return Console(out=io.StringIO(), err=err or io.StringIO(), **options)


def test_emit_refuses_numbers_that_json_has_not():
    with pytest.raises(ValueError, match="JSON"):
        console(as_json=True).print_result({"a": float("nan")}, "")


def test_report_on_a_terminal_draws_a_bar_and_clears_it():
    made = console(Terminal())
    made.report(Progress(1, 4, "tiles"))
    assert "1/4 tiles" in made.err.getvalue()
    made.print_result({}, "done")
    assert made.err.getvalue().endswith("\r")


@pytest.mark.parametrize("error", [BrokenPipeError, OSError, ValueError])
def test_messages_that_cannot_be_written_end_no_command(error, monkeypatch):
    made = console(Terminal())
    monkeypatch.setattr(made.err, "write", Mock(side_effect=error))
    made.report(Progress(1, 4, "tiles"))
    made.warn("noise")
    made.print_result({}, "done")
    assert made.out.getvalue() == "done\n"


@pytest.mark.parametrize("err", [io.StringIO, Terminal])
def test_what_is_waited_for_is_said_at_once_in_full_and_once(err):
    made = console(err())
    for _ in range(3):
        made.report(WaitingProgress(0, 0, "connecting " + "far " * 40))
    assert made.err.getvalue() == f"semsr: connecting {'far ' * 40}".strip() + "\n"


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
