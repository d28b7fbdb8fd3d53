"""What a panel needs in a narrow dock, and a window that tries all of them there."""

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from napari.settings import get_settings
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QComboBox,
    QDockWidget,
    QGroupBox,
    QLabel,
    QLineEdit,
    QScrollArea,
    QStyle,
    QStyleOptionComboBox,
    QWidget,
)

from napari_semsr.widgets.base import PANELS, RichTextLabel, VerbPanel

Wait = Callable[[Callable[[], Any]], None]
"""Lets Qt work until a check says yes or, where it says nothing, does not fail."""

WINDOW, DOCK_PX = (1360, 860), 320
LETTERS = 6  # of an entry that is elided, or of a field, that must be seen
LONG_NAME = "sample 7, after the second etch, 15 kV, mag 50 k, line by line, tile 031"
LONG_TEXT = (
    "The file /home/microscope/2026-11-21/a_folder_whose_name_has_no_place_to_break/"
    "mosaic_of_all_frames_after_the_second_etch.ome.zarr cannot be written: "
) + "the disk is full; choose another place, or make room and go on. " * 12


def panels() -> Iterator[Any]:
    """All panels: title, module and class."""
    for title, (place, *_) in PANELS.items():
        module, name = place.split(":")
        yield (title, f"napari_semsr.widgets.{module}", name)


def choose_letters(size: int) -> None:
    get_settings().appearance.font_size = size


def shown(root: QWidget) -> Iterator[QWidget]:
    """Everything below a widget that can be seen, or scrolled to."""
    for item in root.findChildren(QWidget):
        if item.isVisible():
            yield item


def entry_width(box: QComboBox) -> int:
    """Width that a list has for the text of its entry."""
    option = QStyleOptionComboBox()
    option.initFrom(box)
    control = QStyle.ComplexControl.CC_ComboBox
    part = QStyle.SubControl.SC_ComboBoxEditField
    return box.style().subControlRect(control, option, part, box).width()


def _needs(item: QWidget) -> tuple[int, int]:
    """Give the width and the height that a control needs for its text."""
    metrics = item.fontMetrics()
    few = LETTERS * metrics.averageCharWidth()
    if isinstance(item, QAbstractButton):
        hint = item.minimumSizeHint()
        return hint.width(), hint.height()
    if isinstance(item, QLabel):
        if item.wordWrap():
            return 0, item.heightForWidth(item.width())
        return item.sizeHint().width(), item.sizeHint().height()
    if isinstance(item, RichTextLabel):
        page = item.document().size()
        return int(item.document().idealWidth()), int(page.height())
    if isinstance(item, QGroupBox):
        return metrics.horizontalAdvance(item.title()), 0
    if isinstance(item, QComboBox):
        most = metrics.horizontalAdvance(item.currentText())
        chrome = item.width() - entry_width(item)
        return min(few, most) + chrome, metrics.height()
    if isinstance(item, QLineEdit):
        owner = item.parentWidget()
        if isinstance(owner, QAbstractSpinBox):
            few = metrics.horizontalAdvance(owner.text())
        return few, metrics.height() - 2  # of which no letter makes use
    return 0, 0


def _place(item: QWidget) -> str:
    said = getattr(item, "text", getattr(item, "currentText", ""))
    return f"{type(item).__name__} {said()[:40] if callable(said) else ''!r}"


def too_small(root: QWidget) -> Iterator[str]:
    """Controls that are smaller than their text."""
    for item in shown(root):
        width, height = _needs(item)
        if item.width() < width or item.height() < height:
            yield (
                f"{_place(item)} is {item.width()} x {item.height()} px and needs "
                f"{width} x {height}"
            )


def cut_off(root: QWidget) -> Iterator[str]:
    """Controls that reach beyond what they lie in; what scrolls may do so down."""
    for item in shown(root):
        outer = item.parentWidget()
        scrolls = isinstance(outer.parentWidget(), QScrollArea)
        inner, room = item.geometry(), outer.rect()
        if not inner.height():
            continue
        wide = inner.left() < 0 or inner.right() > room.right()
        high = inner.top() < 0 or inner.bottom() > room.bottom()
        if wide or (high and not scrolls):
            yield f"{_place(item)} at {inner} of {room} in {_place(outer)}"


def faults(root: QWidget) -> list[str]:
    return [*too_small(root), *cut_off(root)]


class Dock:
    """A narrow dock of a real window, where one panel takes the place of another."""

    def __init__(self, viewer: Any, wait: Wait) -> None:
        self.viewer, self.wait = viewer, wait
        self._panel: QWidget | None = None
        viewer.window.resize(*WINDOW)
        for number in range(2):
            viewer.add_image(np.eye(32), name=f"{LONG_NAME} {number}")

    def show(self, title: str, module: str, name: str) -> QWidget:
        window = self.viewer.window
        if self._panel is not None:
            window.remove_dock_widget(self._panel)
        panel = getattr(importlib.import_module(module), name)(self.viewer)
        self._panel = panel
        window.add_dock_widget(panel, name=title)
        place = panel
        while not isinstance(place, QDockWidget):
            place = place.parentWidget()
        window_of_napari = place.parentWidget()
        window_of_napari.resizeDocks([place], [DOCK_PX], Qt.Orientation.Horizontal)
        self.wait(lambda: place.width() == DOCK_PX)
        return panel

    def check(self, panel: QWidget) -> None:
        """Wait until a panel is laid out; fail with what is wrong with it."""

        def see() -> None:
            assert panel.width() <= DOCK_PX
            assert not faults(panel), (type(panel).__name__, faults(panel))

        self.wait(see)

    def check_panels(self, size: int) -> None:
        """Open all of the manifest in letters of one size."""
        # One window for all: letters of another size make its whole look anew.
        choose_letters(size)
        for title, module, name in panels():
            panel = self.show(title, module, name)
            self.check(panel)
            if isinstance(panel, VerbPanel):
                self._check_used(panel)

    def _check_used(self, panel: VerbPanel) -> None:
        """Check a panel that works, shows a result, and says what went wrong."""
        panel.runner.busy_changed.emit(True)
        self.check(panel)
        panel.runner.busy_changed.emit(False)
        if hasattr(panel, "results"):
            panel.results.clear_plot()
            figures = {"Store": LONG_TEXT, "Frames": "25 of 25"}
            panel.results.show_result(figures, "Done.")
            self.check(panel)
        panel.messages.show_problem(LONG_TEXT)
        self.check(panel)
        assert panel.status.isVisible()
