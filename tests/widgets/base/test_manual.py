"""The manual in the web browser: built or on the web, or its address alone."""

import re

from qtpy.QtGui import QDesktopServices

from napari_semsr.jobs import VERBS
from napari_semsr.widgets.base.manual import (
    manual_folder,
    manual_url,
    open_manual,
)


def test_the_built_manual_comes_before_the_web(tmp_path, monkeypatch):
    place = "napari_semsr.widgets.base.manual.manual_folder"
    monkeypatch.setattr(place, lambda: tmp_path)
    assert manual_url("frc.md#rings").host() == "github.com"
    page = tmp_path / "_build" / "html" / "frc.html"
    page.parent.mkdir(parents=True)
    page.touch()
    url = manual_url("frc.md#rings")
    assert (url.toLocalFile(), url.fragment()) == (str(page), "rings")


def test_without_a_browser_the_address_is_said(monkeypatch):
    said = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda _: False)
    monkeypatch.setattr("napari_semsr.widgets.base.manual.show_info", said.append)
    open_manual("frc.md#rings")
    assert manual_url("frc.md#rings").toString() in said[0]


def test_the_manual_says_where_each_command_is_in_napari():
    page = (manual_folder() / "panels.md").read_text("utf-8")
    table = page.partition("## Commands and panels")[2]
    listed = {word.split()[0] for word in re.findall(r"`([^`]+)`", table)}
    assert listed == set(VERBS)
