"""The "?" of a panel: the right page at the right place, without a network."""

import re
from importlib import import_module

import pytest
from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QMainWindow

from napari_semsr.cli.command import VERBS
from napari_semsr.widgets.base.manual import (
    Manual,
    find_in_manual,
    manual_folder,
    pages,
    slug,
)
from tests.widgets.test_panels import PANELS


def anchors(page: str) -> set[str]:
    text = (manual_folder() / page).read_text("utf-8")
    return {slug(line.lstrip("#")) for line in text.splitlines() if line[:1] == "#"}


@pytest.fixture
def manual(qtbot):
    window = QMainWindow()
    qtbot.addWidget(window)
    made = Manual(window)
    made.show()
    yield made
    made.close()


def top_heading(manual: Manual) -> str:
    """The heading at the top of what is in view."""
    cursor = manual.browser.textCursor()
    at = manual.browser.cursorRect(cursor).top()
    bar = manual.browser.verticalScrollBar()
    assert 0 <= at < 40 or bar.value() == bar.maximum()
    return cursor.block().text()


@pytest.mark.parametrize("module", PANELS)
def test_the_button_opens_the_page_about_the_panel(module, model, qtbot):
    window = QMainWindow()
    qtbot.addWidget(window)
    found = import_module(f"napari_semsr.widgets.{module}")
    panel = getattr(found, PANELS[module])(model)
    window.setCentralWidget(panel)
    page, _, anchor = panel.help_place.partition("#")
    assert page != "panels.md"  # its own, not what all share
    assert page in pages()
    assert not anchor or anchor in anchors(page)
    panel.help_button.click()
    panel.help_button.click()
    [manual] = window.findChildren(Manual)
    assert manual.isVisible()
    assert manual.place.rstrip("#") == panel.help_place
    if anchor:
        assert slug(top_heading(manual)) == anchor


@pytest.mark.parametrize("page", pages())
def test_pages_are_shown_without_marks_of_the_web_manual(manual, page):
    manual.show_place(page)
    shown = manual.browser.toPlainText()
    assert "```" not in shown
    assert not re.search(r"^\{\w+\}\S|^:\w+:|\]\(\)", shown, re.MULTILINE)
    title = (manual_folder() / page).read_text("utf-8").splitlines()[0].lstrip("# ")
    assert shown.startswith(title)


def test_links_lead_from_page_to_page_and_back(manual, monkeypatch):
    opened = []
    monkeypatch.setattr(QDesktopServices, "openUrl", opened.append)
    manual.show_place("first-steps.md")
    manual.browser.anchorClicked.emit(QUrl("formats.md#in-napari"))
    assert top_heading(manual) == "In napari"
    manual.browser.anchorClicked.emit(QUrl("https://napari.org"))
    assert [link.host() for link in opened] == ["napari.org"]
    manual.browser.anchorClicked.emit(QUrl("reference/commands.md"))
    assert "on the web only" in manual.said.text()
    manual.back_button.click()
    assert manual.place == "first-steps.md#"
    manual.start_button.click()
    assert manual.place == "index.md#"
    assert "Classical restoration" in manual.browser.toPlainText()  # of the contents


def test_search_lists_sections_that_hold_all_words(manual, qtbot):
    qtbot.keyClicks(manual.search, "spreadsheet clipboard")
    manual.search.returnPressed.emit()
    [(place, title, _)] = find_in_manual("spreadsheet clipboard")
    assert place == "panels.md#numbers-and-plots"
    assert title in manual.browser.toPlainText()
    manual.browser.anchorClicked.emit(QUrl(place))
    assert top_heading(manual) == "Numbers and plots"
    manual.search.setText("no-such-word")
    manual.search.returnPressed.emit()
    assert "No section" in manual.browser.toPlainText()


def test_pictures_are_no_wider_than_the_window(manual):
    manual.show_place("first-steps.md")
    image = manual.browser.loadResource(2, QUrl("images/enhance.png"))
    assert 0 < image.width() <= manual.browser.viewport().width()


def test_the_manual_says_where_each_command_is_in_napari():
    page = (manual_folder() / "panels.md").read_text("utf-8")
    table = page.partition("## Commands and panels")[2]
    listed = {word.split()[0] for word in re.findall(r"`([^`]+)`", table)}
    assert listed == set(VERBS)
