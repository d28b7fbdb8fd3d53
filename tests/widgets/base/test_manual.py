"""The manual in the web browser, and its page on messages, to which these lead."""

import ast
import re
from collections.abc import Iterator

import pytest
from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QMainWindow

from napari_semsr.core import OptionError, Progress
from napari_semsr.io.files import get_error_log_path
from napari_semsr.jobs import VERBS
from napari_semsr.widgets.base import navigation as manual, open_manual
from napari_semsr.widgets.base.navigation import (
    create_heading_anchor,
    find_manual_section,
    get_manual_folder,
    get_manual_url,
)
from tests.sources import trees
from tests.widgets.scenes import create_classical

PAGE = (get_manual_folder() / "troubleshooting.md").read_text("utf-8")
ENTRIES = re.findall(r"^### +(.+)$", PAGE, re.MULTILINE)
SAMPLE = "7"  # stands for names and numbers, of which the page knows none


def place(heading: str) -> str:
    return f"troubleshooting.md#{create_heading_anchor(heading)}"


def texts(node: ast.AST) -> Iterator[str]:
    """What a source could say, with something in place of what varies."""
    for part in ast.iter_child_nodes(node):
        if isinstance(part, ast.JoinedStr):
            said = (getattr(item, "value", None) for item in part.values)
            yield "".join(item if isinstance(item, str) else SAMPLE for item in said)
        elif isinstance(part, ast.Constant) and not isinstance(node, ast.Expr):
            yield str(part.value)
        else:
            yield from texts(part)


@pytest.mark.broad
def test_each_entry_is_of_a_message_that_the_source_has():
    said = {text for tree in trees().values() for text in texts(tree) if " " in text}
    assert {place(entry) for entry in ENTRIES} <= set(map(find_manual_section, said))


@pytest.fixture
def panel(model, hold):
    window = hold(QMainWindow())
    made = create_classical(model)
    window.setCentralWidget(made)
    window.show()
    yield made
    window.close()


def test_a_problem_leads_to_its_entry(panel, opened):
    text = "Gold has no pixel size: give --pixel-size-nm."
    panel.messages.show_problem(text)
    [link] = re.findall(r'href="([^"]+)"', panel.status.toHtml())
    panel.status.anchorClicked.emit(QUrl(link))
    assert opened == [get_manual_url(place("has no pixel size"))]


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
    assert "test_manual.py" in said


def test_without_a_browser_the_address_is_said(monkeypatch):
    said = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda _: False)
    monkeypatch.setattr(manual, "show_info", said.append)
    open_manual("frc.md#rings")
    assert get_manual_url("frc.md#rings").toString() in said[0]


def test_the_manual_says_where_each_command_is_in_napari():
    page = (get_manual_folder() / "panels.md").read_text("utf-8")
    table = page.partition("## Commands and panels")[2]
    listed = {word.split()[0] for word in re.findall(r"`([^`]+)`", table)}
    assert listed == set(VERBS)
