"""Docking of the plugin's panels as tabs, since stacked docks would be too small."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QDockWidget, QLabel, QMainWindow, QSizePolicy, QWidget

from napari_semsr.widgets.base.runner import is_alive
from napari_semsr.widgets.base.titles import find_title

if TYPE_CHECKING:
    from napari.viewer import Viewer

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
    return next((panel for panel in steps if panel is not None), None) or open_panel(
        viewer, name
    )


def create_panel(viewer: "Viewer", place: str) -> Any:
    """Import a panel from a module below ``napari_semsr.widgets``, and create it."""
    module, name = place.split(":")
    return getattr(import_module(f"napari_semsr.widgets.{module}"), name)(viewer)


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
