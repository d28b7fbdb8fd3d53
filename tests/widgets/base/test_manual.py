"""The manual in the web browser: built or on the web, or its address alone."""

import re
from pathlib import Path

from qtpy.QtGui import QDesktopServices

import napari_semsr
from napari_semsr.jobs import VERBS
from napari_semsr.widgets.base import manual
from napari_semsr.widgets.base.manual import (
    create_heading_anchor,
    get_manual_folder,
    get_manual_url,
    open_manual,
)


def test_every_panel_names_a_heading_of_the_manual():
    root = Path(napari_semsr.__file__).parent / "widgets"
    sources = "".join(path.read_text("utf-8") for path in root.rglob("*.py"))
    places = re.findall(r'help_place = "(\S+\.md)#(\S+)"', sources)
    assert len(places) > 5
    for page, heading in places:
        text = (get_manual_folder() / page).read_text("utf-8")
        headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
        assert heading in map(create_heading_anchor, headings)


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
