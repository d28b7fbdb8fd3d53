"""Keys of the panels, and how results are hidden and shown by them."""

from collections.abc import Callable, Sequence
from typing import Any

from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtCore import Qt
from qtpy.QtGui import (  # type: ignore[attr-defined]
    QKeySequence,
    QShortcut,
)
from qtpy.QtWidgets import QWidget

from napari_semsr.widgets.base.history import MADE_KEY

RUN, CANCEL, HELP = "Ctrl+Return", "Escape", "F1"
HIDE, FLIP = "Ctrl+Shift+H", "Ctrl+Shift+B"


def bind_key(
    widget: QWidget, key: str, call: Callable[[], object], *, anywhere: bool = False
) -> QShortcut:
    """Call something by a key: where a widget has the focus, or while it is in view."""
    context = Qt.ShortcutContext.WidgetWithChildrenShortcut
    if anywhere:  # the canvas has the focus of those who look at a result
        context = Qt.ShortcutContext.WindowShortcut
    shortcut = QShortcut(QKeySequence(key), widget)
    shortcut.setContext(context)
    shortcut.activated.connect(call)
    shortcut.activatedAmbiguously.connect(call)  # two panels are in view
    return shortcut


class ResultSwitch:
    """Hides what a panel added, and shows it again as it was."""

    def __init__(self, viewer: ViewerModel, panel: str) -> None:
        self._viewer, self._panel = viewer, panel
        self.under: Any = None  # the layer that they were made of, or layers
        self._before: dict[Layer, bool] = {}

    def flip(self) -> None:
        """Show in its place what it was made of, though hidden before, or go back."""
        self.toggle(self.under if isinstance(self.under, Layer) else None)

    def toggle(self, under: Layer | None = None) -> None:
        """Hide or show."""
        layers = self._viewer.layers
        if self._before:
            self._show(layers)
            return
        made = (item for item in layers if item.metadata.get(MADE_KEY) == self._panel)
        shown = [item for item in made if item.visible]
        if not shown:
            return
        self._before = dict.fromkeys(shown, True)
        if under is not None and under in layers:
            self._before[under] = under.visible
            under.visible = True
        for item in shown:
            item.visible = False

    def _show(self, layers: Sequence[Layer]) -> None:
        before, self._before = self._before, {}
        for item, visible in before.items():
            if item in layers:
                item.visible = visible
