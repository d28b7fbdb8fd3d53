"""The page of the manual on messages: what it answers is said, and leads to it."""

import ast
import re
from collections.abc import Iterator

import pytest
from qtpy.QtCore import QUrl
from qtpy.QtWidgets import QMainWindow

from napari_semsr.cli.command import build_parser
from napari_semsr.core import OptionError
from napari_semsr.core.progress import Progress, warn
from napari_semsr.io.log import get_error_log_path
from napari_semsr.jobs import VERBS
from napari_semsr.widgets.base.manual import (
    create_heading_anchor,
    find_manual_section,
    get_manual_folder,
    get_manual_url,
)
from napari_semsr.widgets.restore import RestorePanel
from tests.sources import trees

PAGE = (get_manual_folder() / "troubleshooting.md").read_text("utf-8")
ENTRIES = re.findall(r"^### +(.+)$", PAGE, re.MULTILINE)
SAMPLE = "7"  # stands for names and numbers, of which the page knows none


def place(heading: str) -> str:
    return f"troubleshooting.md#{create_heading_anchor(heading)}"


def _templates(tree: ast.AST) -> Iterator[str]:
    """Texts of a module with something in place of what varies, without docstrings."""
    said = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    inner = {
        part
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (
                str(part.value) if isinstance(part, ast.Constant) else SAMPLE
                for part in node.values
            )
            yield "".join(parts)
        elif isinstance(node, ast.Constant) and node not in inner | said:
            yield str(node.value)


def answered() -> set[str | None]:
    """Places that what the package could say leads to."""
    return {
        find_manual_section(text)
        for tree in trees().values()
        for text in _templates(tree)
    }


def test_headings_of_the_page_differ():
    assert (
        len({create_heading_anchor(heading) for heading in ENTRIES})
        == len(ENTRIES)
        > 30
    )


@pytest.mark.broad
def test_each_entry_is_of_a_message_that_the_source_has():
    assert {place(heading) for heading in ENTRIES} <= answered()


@pytest.mark.broad
def test_options_that_it_names_are_those_of_commands(capsys):
    parser = build_parser()
    for verb in VERBS:
        with pytest.raises(SystemExit):
            parser.parse_args([verb, "--help"])
    known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    named = [
        flag
        for quoted in re.findall(r"`([^`]+)`", PAGE)
        for flag in re.findall(r"--[a-z][a-z-]+", quoted)
    ]
    assert named
    assert set(named) <= known


def test_what_nobody_wrote_about_has_no_entry():
    assert find_manual_section("It rains.") is None


@pytest.fixture
def panel(model, hold):
    window = hold(QMainWindow())
    made = RestorePanel(model)
    window.setCentralWidget(made)
    window.show()
    yield made
    window.close()


def test_a_problem_leads_to_its_entry(panel, opened):
    text = "Gold has no pixel size: give --pixel-size-nm."
    panel.messages.show_problem(text)
    assert "What to do" not in panel.status.text()
    shown = panel.status.toPlainText()
    assert shown.replace("\N{NO-BREAK SPACE}", " ").endswith("What to do")
    [link] = re.findall(r'href="([^"]+)"', panel.status.toHtml())
    panel.status.anchorClicked.emit(QUrl(link))
    assert opened == [get_manual_url(place("has no pixel size"))]
    panel.messages.show_problem("It rains.")
    [link] = re.findall(r'href="([^"]+)"', panel.status.toHtml())
    assert link == "troubleshooting.md"


def test_a_warning_leads_to_its_entry_and_is_said_once(panel, qtbot, finish):
    def job():
        yield Progress(0, 1, "going")
        for _ in "ab":
            warn("3 of 9 pixels are outside the range of uint8 and were clipped.")

    panel.controls.start(job, lambda _: None)
    finish(panel)
    links = re.findall(r'href="([^"]+)"', panel.warning_label.text())
    assert links == [place("pixels are outside the range of … and were clipped")]


def test_a_job_that_fails_offers_the_log(panel, finish, opened):
    def job(error):
        yield Progress(0, 1, "going")
        raise error

    for error, advice in (
        (OptionError("Take another."), "troubleshooting.md"),
        (KeyError("<lost>"), place("stopped because of")),
    ):
        panel.controls.start(lambda error=error: job(error), lambda _: None)
        finish(panel)
        links = re.findall(r'href="([^"]+)"', panel.status.toHtml())
        assert links[0] == advice
        panel.status.anchorClicked.emit(QUrl(links[1]))
        assert opened.pop().toLocalFile() == str(get_error_log_path())
    said = get_error_log_path().read_text("utf-8")
    assert "OptionError: Take another." in said
    assert "KeyError: '<lost>'" in said
    assert "test_troubleshooting.py" in said
