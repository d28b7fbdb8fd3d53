"""The manual: which page tells of what, opened in the web browser."""

import re
from functools import cache
from pathlib import Path

from napari.utils.notifications import show_info
from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices

_PACKAGE = Path(__file__).parents[2]
_TROUBLES = "troubleshooting.md"
_BUILT = "_build/html"  # where `make docs` puts it
_ON_THE_WEB = "https://github.com/napari-semsr/napari-semsr/blob/main/docs"


def manual_folder() -> Path:
    """Folder of the pages: in the package, or beside the source that it is run from."""
    package_docs = _PACKAGE / "docs"
    return package_docs if package_docs.is_dir() else _PACKAGE.parents[1] / "docs"


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
    troubles = []
    for heading in re.findall(r"^### +(.+)$", text, re.MULTILINE):
        parts = map(re.escape, heading.split("…"))
        pattern = re.compile(".+?".join(parts), re.DOTALL)
        troubles.append((pattern, f"{_TROUBLES}#{slug(heading)}"))
    return tuple(troubles)


def advice_on(message: str) -> str | None:
    """Place of the manual that tells what to do about a message, if it has one.

    `message`: as the job said it, in the words of commands.
    """
    places = (place for pattern, place in _troubles() if pattern.search(message))
    return next(places, None)


def manual_url(place: str) -> QUrl:
    """Address of ``page.md#heading``: in the manual that was built, or on the web."""
    page, _, heading = place.partition("#")
    built_page = manual_folder() / _BUILT / Path(page).with_suffix(".html")
    url = QUrl.fromLocalFile(str(built_page))
    if not built_page.is_file():
        url = QUrl(f"{_ON_THE_WEB}/{page}")
    url.setFragment(heading)
    return url


def show_file(path: str | Path) -> None:
    """Show a page or a folder in the program that the system has for it."""
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(path)))


def open_manual(place: str) -> None:
    """Open the manual in the web browser, or say where it is."""
    url = manual_url(place)
    if not QDesktopServices.openUrl(url):
        show_info(f"The manual tells of it at {url.toString()}")
