"""Where a name leads: to a panel in its dock, or to a section of the manual."""

import re
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info
from qtpy.QtCore import QTimer, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QDockWidget, QLabel, QMainWindow, QSizePolicy, QWidget

from napari_semsr.core import use_background_priority
from napari_semsr.widgets.base.runner import is_alive

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_semsr.widgets.base.panel import VerbPanel

PANELS: dict[str, tuple[str, ...]] = {
    "Start here": ("window:StepsWindow", "Superlens SEM", "demo"),
    "Open": (
        *("open_mosaic:OpenMosaicPanel", "Open mosaic", "mosaic", "Image", "info"),
        *("calibrate", "Crop"),
    ),
    "Stitch": ("stitch.panel:StitchMosaicPanel", "Stitch mosaic", "Frames", "follow"),
    "Register": ("register.panel:RegisterPanel", "Register to SEM"),
    "Train": (
        *("train.panel:TrainPanel", "Train on SEM", "AdaptPanel", "adapt"),
        *("pairs", "denoise", "degrade"),
    ),
    "Enhance": (
        *("enhance.panel:EnhancePanel", "Network", "models", "models import"),
        *("models export", "Import model", "Check model", "sharpen", "batch"),
        *("Restore", "RestorePanel", "Classical"),
    ),
    "Resolution": (
        *("measure.resolution:ResolutionPanel", "FrcMapPanel", "FRC map", "frc"),
        "decorrelation",
    ),
    "Spectrum and quality": (
        *("measure.quality:QualityPanel", "MetricsPanel", "Metrics"),
        *("SpectrumPanel", "Spectrum"),
    ),
    "Compare": ("measure.quality:ComparePanel", "ErrorMapPanel", "Error map"),
    "Profile": ("measure.profile:ProfilePanel", "Line profile"),
    "Particles": (
        *("measure.particles:ParticlesPanel", "GapsPanel", "Gaps", "Particle sizes"),
    ),
    "Figure": ("figure:FigurePanel",),
    "Save": ("project:SavePanel", "save project", "convert", "replay"),
}
"""By title: module and class below `napari_semsr.widgets`, then former titles and
classes, and the commands and menu entries that this panel has.

All that leads to a panel by name, such as the menu, the command palette, projects and
messages, reads this table; words are separated by spaces, hyphens or underscores.
"""


def _fold_name(name: str) -> str:
    return name.lower().replace("_", " ").replace("-", " ")


_TITLES = {
    _fold_name(name): title
    for title, (place, *names) in PANELS.items()
    for name in (title, place.rpartition(":")[2], *names)
}


def find_title(name: str) -> str | None:
    """Return the title of the panel that a present or former name leads to."""
    return _TITLES.get(_fold_name(name))


# Docks: panels are tabs, since stacked docks would be too small.

_AHEAD_MS = 1000  # chosen: by then napari has drawn the panel
_OURS = "semsr dock"
_PLUGIN = "napari-semsr"


def tabify_widget(widget: QWidget, title: str) -> None:
    """Tabify the dock of a newly shown widget with the plugin's docks, and title it.

    The user may move it later.
    """
    dock = widget.parentWidget()
    if not isinstance(dock, QDockWidget):
        return
    # napari makes a new title bar, with the plugin's name, when a dock floats
    QTimer.singleShot(0, lambda: _label_title_bar(dock))
    if not dock.property(_OURS):
        dock.setProperty(_OURS, "shown")
        dock.setWindowTitle(title)
        if (entry := dock.toggleViewAction()) is not None:  # of napari's menu Window
            entry.setText(title)
        # napari 0.9.0 removes the expanding size policy of docked widgets
        policy = widget.sizePolicy()
        policy.setVerticalPolicy(QSizePolicy.Policy.Expanding)
        widget.setSizePolicy(policy)
        # napari resizes the docks after showing this one
        QTimer.singleShot(0, lambda: _tabify(dock))


def _label_title_bar(dock: QDockWidget) -> None:
    """Show the title of a dock in napari's title bar, without the plugin's name."""
    bar = dock.titleBarWidget() if is_alive(dock) else None
    label = getattr(bar, "title", None)
    if isinstance(label, QLabel):
        label.setText(dock.windowTitle())


def _tabify(dock: QDockWidget) -> None:
    window = dock.parentWidget() if is_alive(dock) else None
    if not isinstance(window, QMainWindow) or dock.isFloating():
        return
    dock.setProperty(_OURS, "placed")
    area = window.dockWidgetArea(dock)
    for other in window.findChildren(QDockWidget):
        ours = other is not dock and other.property(_OURS) == "placed"
        is_shown = ours and not other.isHidden()
        if is_shown and not other.isFloating() and window.dockWidgetArea(other) == area:
            window.tabifyDockWidget(other, dock)
            dock.show()
            dock.raise_()
            return


def switch_panel(panel: QWidget, viewer: "Viewer", name: str) -> QWidget:
    """Show another panel, in the window of all steps if this panel is in it."""
    holder = panel.parentWidget()
    while holder is not None:
        if (panel_shown := _show_step(holder, name)) is not None:
            return panel_shown
        holder = holder.parentWidget()
    return open_panel(viewer, name)


def _show_step(widget: QWidget, name: str) -> QWidget | None:
    """Show a panel of a window of all steps; None if it is no such window."""
    show: Any = getattr(widget, "show_panel", None)
    return None if show is None else show(find_title(name))


def show_panel(viewer: "Viewer", name: str) -> Any:
    """Show a panel in the window of all steps if it is open, otherwise in a dock."""
    steps = (_show_step(item, name) for item in viewer.window.dock_widgets.values())
    return next(filter(None, steps), None) or open_panel(viewer, name)


def create_panel(viewer: "Viewer", place: str) -> "VerbPanel":
    """Import a panel from a module below ``napari_semsr.widgets``, and create it."""
    module, name = place.split(":")
    home = import_module(f"napari_semsr.widgets.{module}")
    kind: type[VerbPanel] = getattr(home, name)
    return kind(viewer)


def preload_panels() -> None:
    """Import the modules of all panels in the background, when one has been drawn.

    Docking the next one would otherwise freeze the window for half a second.
    """
    QTimer.singleShot(_AHEAD_MS, _import_panels_in_background)


@cache
def _import_panels_in_background() -> None:
    def load_modules() -> None:
        # docking a panel reports the error
        with use_background_priority(), suppress(Exception):
            for place, *_ in PANELS.values():
                import_module(f"napari_semsr.widgets.{place.partition(':')[0]}")

    # not a daemon: Python must not exit during an import
    Thread(target=load_modules, name="semsr-panels").start()


def open_panel(viewer: "Viewer", name: str) -> QWidget:
    """Show a panel by one of its names, in its dock or a new one."""
    title, widgets = find_title(name) or name, viewer.window.dock_widgets
    # the text after the name depends on how it was opened
    docked = [one for one in widgets if one.startswith(f"{title} (")]
    panel: QWidget
    if docked:
        panel = widgets[docked[0]]
    else:
        _, panel = viewer.window.add_plugin_dock_widget(_PLUGIN, title)
    dock = panel.parentWidget()
    if dock is not None:
        dock.show()
        dock.raise_()
    return panel


# The manual.

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
    entries = _read_troubleshooting_entries()
    return next((place for one, place in entries if one.search(message)), None)


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
