"""The manual: which page tells of what, opened in the web browser."""

import atexit
import re
import shutil
from functools import cache
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt
from napari.utils.notifications import show_info
from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices

from napari_semsr.widgets.base.temporary import make_temporary

_PACKAGE = Path(__file__).parents[2]
_TROUBLES = "troubleshooting.md"
_BUILT = "_build/html"  # where `make docs` puts it
_IMAGE = re.compile(r"^```\{image\} (\S+)\n.*?^```$", re.MULTILINE | re.DOTALL)
_NOTE = re.compile(
    r"^```\{(?:note|admonition)\}.*?\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
_TOCTREE = re.compile(r"^```\{toctree\}.*?^```$", re.MULTILINE | re.DOTALL)
_PAGE = re.compile(r"^([^:]+)\.md(?=$|#)")  # no address of the web
_HEAD = """<!doctype html><meta charset="utf-8"><style>
body { max-width: 46em; margin: 2em auto; padding: 0 1em; font: 16px/1.5 sans-serif }
img { max-width: 100% } pre, code { background: #eee } pre { padding: .6em }
pre { overflow: auto } td, th { padding: .2em .6em; border-bottom: 1px solid #ccc }
</style>
"""
_ON_THE_WEB = "https://github.com/napari-semsr/napari-semsr/blob/main/docs"


def manual_folder() -> Path:
    """Folder of the pages: in the package, or beside the source that it is run from."""
    shipped = _PACKAGE / "docs"
    return shipped if shipped.is_dir() else _PACKAGE.parents[1] / "docs"


def slug(heading: str) -> str:
    """Anchor of a heading, as the built manual and GitHub have it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@cache
def _troubles() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Pattern and place of each entry of the page on messages, from its headings."""
    try:
        text = (manual_folder() / _TROUBLES).read_text("utf-8")
    except OSError:
        return ()
    found = []
    for heading in re.findall(r"^### +(.+)$", text, re.MULTILINE):
        parts = map(re.escape, heading.split("…"))
        pattern = re.compile(".+?".join(parts), re.DOTALL)
        found.append((pattern, f"{_TROUBLES}#{slug(heading)}"))
    return tuple(found)


def advice_on(message: str) -> str | None:
    """Place of the manual that tells what to do about a message, if it has one.

    `message`: as the job said it, in the words of commands.
    """
    places = (place for pattern, place in _troubles() if pattern.search(message))
    return next(places, None)


def manual_url(place: str) -> QUrl:
    """Address of ``page.md#heading``: built, drawn from the pages, or on the web."""
    page, _, heading = place.partition("#")
    built = manual_folder() / _BUILT / Path(page).with_suffix(".html")
    if not built.is_file() and (manual_folder() / page).is_file():
        built = _drawn() / Path(page).with_suffix(".html")
    url = QUrl.fromLocalFile(str(built))
    if not built.is_file():
        url = QUrl(f"{_ON_THE_WEB}/{page}")
    url.setFragment(heading)
    return url


@cache
def _drawn() -> Path:
    """Make HTML of all pages, which napari takes away as it ends; give its folder."""
    folder, made = manual_folder(), make_temporary(None)
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    for path in sorted(folder.rglob("*.md")):
        page = made / path.relative_to(folder).with_suffix(".html")
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(_html_of(path), "utf-8")
    return made


def _html_of(path: Path) -> str:
    """Write a page as HTML; headings have the anchors of the built manual."""
    text = path.read_text("utf-8")
    text = _IMAGE.sub(r"![](\1)", text)
    text = _NOTE.sub(lambda note: re.sub("^", "> ", note[1], flags=re.MULTILINE), text)
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(_TOCTREE.sub("", text))
    for number, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", slug(tokens[number + 1].content))
        for part in token.children or ():
            if part.type == "image":
                source = (path.parent / str(part.attrGet("src"))).resolve()
                part.attrSet("src", source.as_uri())
            elif part.type == "link_open":
                target = str(part.attrGet("href"))
                part.attrSet("href", _PAGE.sub(r"\1.html", target))
    body = parser.renderer.render(tokens, parser.options, {})
    heading = re.search(r"^# (.+)$", text, re.MULTILINE)
    title = path.stem if heading is None else heading[1]
    return f"{_HEAD}<title>{escape(title)}</title>\n{body}"


def show_file(path: str | Path) -> None:
    """Show a page or a folder in the program that the system has for it."""
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(path)))


def open_manual(place: str) -> None:
    """Open the manual in the web browser, or say where it is."""
    url = manual_url(place)
    if not QDesktopServices.openUrl(url):
        show_info(f"The manual tells of it at {url.toString()}")
