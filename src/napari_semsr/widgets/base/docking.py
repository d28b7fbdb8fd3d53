"""Docking of the plugin's panels as tabs, since stacked docks would be too small."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QDockWidget, QLabel, QMainWindow, QSizePolicy, QWidget

from napari_semsr.widgets.base.runner import is_alive

if TYPE_CHECKING:
    from napari.viewer import Viewer

_OURS = "semsr dock"
_PLUGIN, _MENU = "napari-semsr", "Superlens SEM"
ASIDE = {
    "Error map": "measure.panel:ErrorMapPanel",
    "Gaps": "measure.gaps:GapsPanel",
    "Spectrum": "measure.spectrum:SpectrumPanel",
    "Train": "train.panel:TrainPanel",
}
"""Panels that are not in the plugin menu, as ``module:class`` below
``napari_semsr.widgets``: opened by the window, other panels or the command palette.
"""


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
        panel_shown: QWidget | None = getattr(holder, "show_panel", lambda _: None)(
            name
        )
        if panel_shown is not None:
            return panel_shown
        holder = holder.parentWidget()
    return open_panel(viewer, name)


def show_panel_by_title(viewer: "Viewer", name: str, title: str) -> Any:
    """Show a panel by its title in the window of all steps, or by its name."""
    for widget in viewer.window.dock_widgets.values():
        panel = getattr(widget, "show_panel", lambda _: None)(title)
        if panel is not None:
            return panel
    return open_panel(viewer, name)


def create_panel(viewer: "Viewer", place: str) -> Any:
    """Import a panel from a module below ``napari_semsr.widgets``, and create it."""
    module, name = place.split(":")
    return getattr(import_module(f"napari_semsr.widgets.{module}"), name)(viewer)


def open_panel(viewer: "Viewer", name: str) -> QWidget:
    """Show a panel by its menu name, in its dock or a new one."""
    widgets = viewer.window.dock_widgets
    # the text after the name depends on how it was opened
    titles = [title for title in widgets if title.startswith(f"{name} (")]
    panel: QWidget
    if titles:
        panel = widgets[titles[0]]
    elif name in ASIDE:
        panel = create_panel(viewer, ASIDE[name])
        viewer.window.add_dock_widget(panel, name=f"{name} ({_MENU})")
    else:
        _, panel = viewer.window.add_plugin_dock_widget(_PLUGIN, name)
    dock = panel.parentWidget()
    if dock is not None:
        dock.show()
        dock.raise_()
    return panel
