"""Docks of ours lie over each other as tabs; stacked, each is a strip."""

from weakref import WeakSet

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

from napari_semsr.widgets.base.runner import is_alive

_PLACED = "semsr placed"
_docks: WeakSet[QDockWidget] = WeakSet()


def lay_as_tab(widget: QWidget, title: str) -> None:
    """Lay the dock of a widget that is shown first over one of ours, and name its tab.

    Later the user may put it where he likes.
    """
    dock = widget.parentWidget()
    if isinstance(dock, QDockWidget) and not dock.property(_PLACED):
        dock.setProperty(_PLACED, True)
        dock.setWindowTitle(title)
        # napari sets the sizes of the docks after it has shown this one
        QTimer.singleShot(0, lambda: _tabify(dock))


def _tabify(dock: QDockWidget) -> None:
    if not is_alive(dock):
        return
    window = dock.parentWidget()
    others = [item for item in _docks if is_alive(item) and item is not dock]
    _docks.add(dock)
    if not isinstance(window, QMainWindow) or dock.isFloating():
        return
    area = window.dockWidgetArea(dock)
    for other in others:
        beside = other.parentWidget() is window and not other.isHidden()
        if beside and not other.isFloating() and window.dockWidgetArea(other) == area:
            window.tabifyDockWidget(other, dock)
            dock.show()
            dock.raise_()
            return
