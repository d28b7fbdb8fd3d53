"""The manual in a window of its own, offline: the pages of `docs`, with search."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import (
    QColor,
    QDesktopServices,
    QImage,
    QTextCharFormat,
    QTextCursor,
    QTextDocument,
)
from qtpy.QtWidgets import (
    QDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from napari_semsr.widgets.base.form import push_button

_PACKAGE = Path(__file__).parents[2]
_START = "index.md"
_TROUBLES = "troubleshooting.md"
_SIZE = (720, 760)
_MOST_HITS = 40
_MARGIN_PX = 24
_LINK = "#3d8fd1"
_HEADING = re.compile(r"^(#{1,4}) +(.+)$", re.MULTILINE)
_FENCE = re.compile(r"^```\{(\w+)\} *([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OPTIONS = re.compile(r"^:.*\n?", re.MULTILINE)


def manual_folder() -> Path:
    """Folder of the pages: in the package, or beside the source that it is run from."""
    shipped = _PACKAGE / "docs"
    return shipped if shipped.is_dir() else _PACKAGE.parents[1] / "docs"


def slug(heading: str) -> str:
    """Anchor of a heading, as the web manual and GitHub have it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@lru_cache
def _page(name: str) -> str:
    """Text of a page, in the markdown that Qt knows."""
    text = (manual_folder() / name).read_text("utf-8")
    text = _FENCE.sub(_without_directive, text)
    text = re.sub(r"\$\$(.+?)\$\$", r"```\n\1\n```", text, flags=re.DOTALL)
    text = re.sub(r"\$([^$\n]+)\$", r"`\1`", text)
    return re.sub(r"\[\]\(([^)#]+)([^)]*)\)", _titled, text)


def _without_directive(found: re.Match[str]) -> str:
    """Write a directive of the web manual as plain markdown."""
    kind, argument, body = found.groups()
    body = _OPTIONS.sub("", body)
    if kind == "image":
        return f"![]({argument})"
    if kind == "toctree":
        names = [f"{line}.md" for line in body.split()]
        return "\n".join(f"- []({name})" for name in names if name in pages())
    return re.sub(r"^", "> ", body.strip(), flags=re.MULTILINE)


def _titled(link: re.Match[str]) -> str:
    name, anchor = link.groups()
    return f"[{_title(name) if name in pages() else name}]({name}{anchor})"


@lru_cache
def _title(name: str) -> str:
    return (manual_folder() / name).read_text("utf-8").partition("\n")[0].lstrip("# ")


@lru_cache
def pages() -> tuple[str, ...]:
    """Names of all pages, in the order of the contents."""
    names = sorted(path.name for path in manual_folder().glob("*.md"))
    contents = (manual_folder() / _START).read_text("utf-8").splitlines()
    listed = [f"{line}.md" for line in contents if f"{line}.md" in names]
    return tuple(dict.fromkeys([_START, *listed, *names]))


def find_in_manual(words: str) -> list[tuple[str, str, str]]:
    """Sections that hold all words: their place, title and first line with one."""
    wanted = words.lower().split()
    hits = []
    for name in pages():
        parts = _HEADING.split(_page(name))[1:]
        for heading, body in zip(parts[1::3], parts[2::3], strict=True):
            text = f"{heading}\n{body}".lower()
            if wanted and all(word in text for word in wanted):
                lines = (
                    line for line in body.splitlines() if wanted[0] in line.lower()
                )
                title = f"{_title(name)}: {heading}"
                place = f"{name}#{slug(heading)}"
                hits.append((place, title, next(lines, "").strip(" |>-*")))
    return hits


@lru_cache
def _troubles() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Pattern and place of each entry of the page on messages, from its headings."""
    text = (manual_folder() / _TROUBLES).read_text("utf-8")
    found = []
    for heading in re.findall(r"^### +(.+)$", text, re.MULTILINE):
        parts = map(re.escape, heading.split("\N{HORIZONTAL ELLIPSIS}"))
        pattern = re.compile(".+?".join(parts), re.DOTALL)
        found.append((pattern, f"{_TROUBLES}#{slug(heading)}"))
    return tuple(found)


def advice_on(message: str) -> str | None:
    """Place of the manual that tells what to do about a message, if it has one.

    `message`: as the job said it, in the words of commands.
    """
    places = (place for pattern, place in _troubles() if pattern.search(message))
    return next(places, None)


class _Browser(QTextBrowser):
    """Shows pictures no wider than itself."""

    def loadResource(self, kind: int, name: QUrl) -> Any:  # noqa: N802 - Qt's name
        """Load a picture of the manual."""
        if kind != QTextDocument.ResourceType.ImageResource.value:
            return super().loadResource(kind, name)
        image = QImage(str(manual_folder() / name.path()))
        viewport = self.viewport()
        width = (viewport or self).width() - _MARGIN_PX
        if image.isNull() or image.width() <= width:
            return image
        smooth = Qt.TransformationMode.SmoothTransformation
        return image.scaledToWidth(width, smooth)


class Manual(QDialog):
    """A window with the pages of the manual."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("napari-semsr: manual")
        self.setModal(False)
        self.resize(*_SIZE)
        self.place = ""
        self._before: list[str] = []
        self.back_button = push_button("Back", self.back, "The page before.")
        self.start_button = push_button(
            "Contents", self.show_contents, "The manual's first page."
        )
        self.search = QLineEdit()
        self.search.setPlaceholderText("Search the manual")
        self.search.setToolTip("Words that a section holds; Return finds them.")
        self.search.returnPressed.connect(self.list_found)
        for button in (self.back_button, self.start_button):
            button.setAutoDefault(False)  # Return in the field would press it
        self.browser = _Browser()
        self.browser.setOpenLinks(False)
        self.browser.anchorClicked.connect(self._follow)
        self.said = QLabel()
        row = QHBoxLayout()
        for widget in (self.back_button, self.start_button, self.search):
            row.addWidget(widget)
        column = QVBoxLayout(self)
        column.addLayout(row)
        column.addWidget(self.browser)
        column.addWidget(self.said)

    def show_place(self, place: str) -> None:
        """Show a page, ``page.md``, or a heading on it, ``page.md#anchor``."""
        name, _, anchor = place.partition("#")
        name = name or self.place.partition("#")[0]
        if name not in pages():
            self.said.setText(f"{name} is in the manual on the web only.")
            return
        if self.place:
            self._before.append(self.place)
        self.place = f"{name}#{anchor}"
        self._set(_page(name))
        self._go_to(anchor)

    def show_contents(self) -> None:
        """Show the first page."""
        self.show_place(_START)

    def list_found(self) -> None:
        """List the sections that hold the typed words."""
        words = self.search.text().strip()
        hits = find_in_manual(words)
        listed = "\n".join(
            f"- [{title}]({place})  \n  {line}"
            for place, title, line in hits[:_MOST_HITS]
        )
        self._set(f"# {words}\n\n{listed or 'No section holds all of these words.'}")
        self.said.setText(f"{len(hits)} sections.")

    def back(self) -> None:
        """Show the page before."""
        if self._before:
            place, self.place = self._before.pop(), ""
            self.show_place(place)

    def _set(self, text: str) -> None:
        self.said.setText("")
        self.browser.setMarkdown(text)
        self._colour_links()

    def _colour_links(self) -> None:
        """Let links be seen on dark and light; Qt gives them its own dark blue."""
        ink = QTextCharFormat()
        ink.setForeground(QColor(_LINK))
        cursor = QTextCursor(self.browser.document())
        while not cursor.atEnd():
            cursor.movePosition(
                QTextCursor.MoveOperation.NextCharacter, QTextCursor.MoveMode.KeepAnchor
            )
            if cursor.charFormat().isAnchor():
                cursor.mergeCharFormat(ink)
            cursor.clearSelection()

    def _go_to(self, anchor: str) -> None:
        """Bring a heading to the top."""
        document = self.browser.document()
        bar, layout = self.browser.verticalScrollBar(), None
        if document is not None:
            layout = document.documentLayout()
        if document is None or layout is None or bar is None:
            return
        block = document.begin()
        while anchor and block.isValid():
            if block.blockFormat().headingLevel() and slug(block.text()) == anchor:
                self.browser.setTextCursor(QTextCursor(block))
                bar.setValue(round(layout.blockBoundingRect(block).top()))
                return
            block = block.next()

    def _follow(self, link: QUrl) -> None:
        """Open a link: a page here, anything else in the web browser."""
        if link.scheme():
            QDesktopServices.openUrl(link)
        else:
            self.show_place(link.toString())


def open_manual(parent: QWidget, place: str) -> Manual:
    """Open the manual at a place, in the window that a panel's window has for it."""
    window = parent.window() or parent
    found: Manual | None = window.findChild(Manual)
    manual = Manual(window) if found is None else found
    manual.show()
    manual.show_place(place)
    manual.raise_()
    return manual
