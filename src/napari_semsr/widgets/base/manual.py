"""Access to the manual in the web browser."""

import re
from functools import cache
from pathlib import Path

from napari.utils.notifications import show_info
from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices

_PACKAGE = Path(__file__).parents[2]
_TROUBLES = "troubleshooting.md"
_HTML_FOLDER = "_build/html"  # output of `make docs`
_ON_THE_WEB = "https://github.com/napari-semsr/napari-semsr/blob/main/docs"


def get_manual_folder() -> Path:
    """Return the manual folder, in the package or in the source tree."""
    package_docs = _PACKAGE / "docs"
    return package_docs if package_docs.is_dir() else _PACKAGE.parents[1] / "docs"


def create_heading_anchor(heading: str) -> str:
    """Return the anchor of a heading, as in the built manual and on GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@cache
def _read_troubleshooting_entries() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Return the message pattern and section of each troubleshooting entry."""
    try:
        text = (get_manual_folder() / _TROUBLES).read_text("utf-8")
    except OSError:  # installed without the manual: messages have no links
        return ()
    troubles = []
    for heading in re.findall(r"^### +(.+)$", text, re.MULTILINE):
        parts = map(re.escape, heading.split("…"))
        pattern = re.compile(".+?".join(parts), re.DOTALL)
        troubles.append((pattern, f"{_TROUBLES}#{create_heading_anchor(heading)}"))
    return tuple(troubles)


def find_manual_section(message: str) -> str | None:
    """Return the manual section about a message, or None.

    `message`: as raised by the job, with the option names of commands.
    """
    places = (
        place
        for pattern, place in _read_troubleshooting_entries()
        if pattern.search(message)
    )
    return next(places, None)


def get_manual_url(place: str) -> QUrl:
    """Return the URL of ``page.md#heading``, in the built manual or on the web."""
    page, _, heading = place.partition("#")
    built_page = get_manual_folder() / _HTML_FOLDER / Path(page).with_suffix(".html")
    url = QUrl.fromLocalFile(str(built_page))
    if not built_page.is_file():
        url = QUrl(f"{_ON_THE_WEB}/{page}")
    url.setFragment(heading)
    return url


def show_file(path: str | Path) -> None:
    """Open a page or folder with the system's default program."""
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(path)))


def open_manual(place: str) -> None:
    """Open the manual in the web browser, or show its address."""
    url = get_manual_url(place)
    if not QDesktopServices.openUrl(url):
        show_info(f"See the manual at {url.toString()}")
