"""The manual in the web browser: built or on the web, or its address alone."""

import re
from pathlib import Path
from urllib.parse import unquote

from qtpy.QtGui import QDesktopServices

import napari_semsr
from napari_semsr.jobs import VERBS
from napari_semsr.widgets.base.manual import (
    manual_folder,
    manual_url,
    open_manual,
    slug,
)


def test_the_built_manual_comes_first_and_what_is_not_there_is_on_the_web(
    tmp_path, monkeypatch
):
    place = "napari_semsr.widgets.base.manual.manual_folder"
    monkeypatch.setattr(place, lambda: tmp_path)
    assert manual_url("frc.md#rings").host() == "github.com"
    page = tmp_path / "_build" / "html" / "frc.html"
    page.parent.mkdir(parents=True)
    page.touch()
    url = manual_url("frc.md#rings")
    assert (url.toLocalFile(), url.fragment()) == (str(page), "rings")


def test_pages_that_are_not_built_are_drawn_with_their_headings_and_links(monkeypatch):
    monkeypatch.setattr("napari_semsr.widgets.base.manual._BUILT", "nowhere")
    anchors = {}
    for source in sorted(manual_folder().glob("*.md")):
        page = Path(manual_url(source.name).toLocalFile())
        text = page.read_text("utf-8")
        anchors[page.name] = set(re.findall(r'<h\d id="([^"]+)"', text))
        wanted = re.findall(r"^##+ +(.+)$", source.read_text("utf-8"), re.MULTILINE)
        assert anchors[page.name] >= {slug(heading) for heading in wanted}
        assert "```{" not in text
        for image in re.findall(r'<img src="file://([^"]+)"', text):
            assert Path(unquote(image)).is_file()
    root = Path(napari_semsr.__file__).parent / "widgets"
    sources = "".join(path.read_text("utf-8") for path in root.rglob("*.py"))
    places = re.findall(r'help_place = "(\S+)\.md#(\S+)"', sources)
    assert len(places) > 5
    for page, heading in places:
        assert heading in anchors[f"{page}.html"]


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
