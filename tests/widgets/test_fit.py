"""Every panel of the manifest fits a narrow dock, in small and in large letters."""

import gc
import importlib
import os
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest
import yaml

if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
    pytest.skip("needs a display; run under xvfb-run", allow_module_level=True)

from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QHelpEvent
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QDockWidget,
    QDoubleSpinBox,
    QGroupBox,
    QLabel,
    QLineEdit,
    QScrollArea,
    QStyle,
    QStyleOptionComboBox,
    QToolTip,
    QWidget,
)

import napari_semsr
from napari_semsr.widgets.base import Note, shorten_number
from napari_semsr.widgets.base.panel import Panel
from tests.children import LIMIT_MS

WINDOW, DOCK_PX = (1360, 860), 320
LETTERS = 6  # of an entry that is elided, or of a field, that must be seen
LONG_NAME = "sample 7, after the second etch, 15 kV, mag 50 k, line by line, tile 031"
LONG_TEXT = (
    "The file /home/microscope/2026-11-21/a_folder_whose_name_has_no_place_to_break/"
    "mosaic_of_all_frames_after_the_second_etch.ome.zarr cannot be written: "
) + "the disk is full; choose another place, or make room and go on. " * 12


def panels() -> Iterator[Any]:
    """Widgets of the manifest: title, module and class."""
    place = Path(napari_semsr.__file__).with_name("napari.yaml")
    found = yaml.safe_load(place.read_text(encoding="utf-8"))["contributions"]
    names = {item["id"]: item["python_name"] for item in found["commands"]}
    for item in found["widgets"]:
        title = item["display_name"]
        yield (title, *names[item["command"]].split(":"))


@pytest.fixture
def letters() -> Iterator[Any]:
    """Set napari's font size."""
    from napari.settings import get_settings

    look = get_settings().appearance
    before = look.font_size

    def choose(size: int) -> None:
        look.font_size = size

    yield choose
    look.font_size = before


def shown(root: QWidget) -> Iterator[QWidget]:
    """Everything below a widget that can be seen, or scrolled to."""
    for item in root.findChildren(QWidget):
        if item.isVisible():
            yield item


def _entry_width(box: QComboBox) -> int:
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
    if isinstance(item, Note):
        page = item.document().size()
        return int(item.document().idealWidth()), int(page.height())
    if isinstance(item, QGroupBox):
        return metrics.horizontalAdvance(item.title()), 0
    if isinstance(item, QComboBox):
        most = metrics.horizontalAdvance(item.currentText())
        chrome = item.width() - _entry_width(item)
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


def overlapping(root: QWidget) -> Iterator[str]:
    """Controls that lie over each other."""
    kinds = (QAbstractButton, QLabel, QComboBox, QAbstractSpinBox, QLineEdit, Note)
    controls = [item for item in shown(root) if isinstance(item, kinds)]
    for one, other in combinations(controls, 2):
        beside = one.parentWidget() is other.parentWidget()
        if beside and one.geometry().intersects(other.geometry()):
            yield f"{_place(one)} and {_place(other)}"


def faults(root: QWidget) -> list[str]:
    return [*too_small(root), *cut_off(root), *overlapping(root)]


@pytest.fixture
def fits(qtbot) -> Any:
    """Wait until a panel is laid out; fail with what is wrong with it."""

    def check(panel: QWidget) -> None:
        def see() -> None:
            assert panel.width() <= DOCK_PX
            assert not faults(panel), type(panel).__name__

        qtbot.waitUntil(see, timeout=LIMIT_MS)

    return check


@pytest.fixture
def dock(make_napari_viewer_proxy, qtbot) -> Any:
    """Open a panel in a narrow dock of a real window, in place of the one before."""
    opened: list[Any] = []

    def window() -> Any:
        viewer = make_napari_viewer_proxy(show=True)
        viewer.window.resize(*WINDOW)
        for number in range(2):
            viewer.add_image(np.eye(32), name=f"{LONG_NAME} {number}")
        return viewer

    def show(title: str, module: str, name: str) -> QWidget:
        if opened:
            viewer, before = opened
            viewer.window.remove_dock_widget(before)
        else:
            viewer = window()
        panel = getattr(importlib.import_module(module), name)(viewer)
        opened[:] = viewer, panel
        viewer.window.add_dock_widget(panel, name=title)
        place = panel
        while not isinstance(place, QDockWidget):
            place = place.parentWidget()
        window_of_napari = place.parentWidget()
        window_of_napari.resizeDocks([place], [DOCK_PX], Qt.Orientation.Horizontal)
        qtbot.waitUntil(lambda: place.width() == DOCK_PX, timeout=LIMIT_MS)
        return panel

    return show


def test_every_panel_fits_a_narrow_dock(dock, letters, fits):
    # One window for all: letters of another size make its whole look anew.
    for size in (16, 9):
        letters(size)
        for title, module, name in panels():
            panel = dock(title, module, name)
            fits(panel)
            if not isinstance(panel, Panel):
                continue
            if size == 16:
                panel.runner.busy_changed.emit(True)
                fits(panel)
                panel.runner.busy_changed.emit(False)
                if hasattr(panel, "results"):
                    panel.clear_plot()
                    figures = {"Store": LONG_TEXT, "Frames": "25 of 25"}
                    panel.show_result(figures, "Done.")
                    fits(panel)
            panel.show_problem(LONG_TEXT)
            fits(panel)
            assert panel.status.isVisible()


def test_what_is_said_is_seen_in_letters_of_another_size(dock, letters, fits):
    panel = dock("Restore", "napari_semsr.widgets.restore", "RestorePanel")
    panel.show_problem(LONG_TEXT)
    for size in (16, 9):
        letters(size)
        fits(panel)
        assert panel.status.isVisible()


def test_long_name_in_a_list_is_told_by_its_tooltip(dock):
    panel = dock("Restore", "napari_semsr.widgets.restore", "RestorePanel")
    box = panel.layer.native

    def told() -> str:
        place = QPoint(3, 3)
        event = QHelpEvent(QHelpEvent.Type.ToolTip, place, box.mapToGlobal(place))
        QApplication.sendEvent(box, event)
        return QToolTip.text()

    assert _entry_width(box) < box.fontMetrics().horizontalAdvance(box.currentText())
    assert LONG_NAME in told()
    assert box.toolTip() in told()
    panel.layer.value.name = "b"
    assert told() == box.toolTip()


def test_labels_stand_beside_their_controls_where_there_is_room(dock, letters, qtbot):
    module = "napari_semsr.widgets.measure.metrics"
    panel = dock("Metrics", module, "MetricsPanel")
    control = panel.form.widget("data_range").native
    letters(9)
    qtbot.waitUntil(lambda: control.x() > 0, timeout=LIMIT_MS)
    letters(16)
    qtbot.waitUntil(lambda: control.x() == 0, timeout=LIMIT_MS)
    letters(9)
    qtbot.waitUntil(lambda: control.x() > 0, timeout=LIMIT_MS)


def test_pixel_size_of_many_digits_is_seen_whole(dock, letters, fits):
    panel = dock("Open", "napari_semsr.widgets.open_mosaic", "OpenMosaicPanel")
    for size in (9, 16):
        letters(size)
        panel.pixel_size.value = (123.456789, 123.456781)
        fits(panel)
        panel.pixel_size.value = None
        fits(panel)


def test_what_is_said_is_seen_down_to_its_last_pixel(dock, qtbot):
    panel = dock("Restore", "napari_semsr.widgets.restore", "RestorePanel")
    (area,) = (
        item
        for item in panel.findChildren(QScrollArea)
        if item.isAncestorOf(panel.status)
    )
    for text in ("grey, by hypothesis", "grey, by hypothesis " * 6):
        panel.show_status(text)
        qtbot.waitUntil(
            lambda: area.viewport().height() >= panel.status.height() > 0,
            timeout=LIMIT_MS,
        )


def test_pixel_size_and_its_unit_share_a_line(dock, letters, qtbot):
    panel = dock("Open", "napari_semsr.widgets.open_mosaic", "OpenMosaicPanel")
    letters(9)
    size = panel.pixel_size
    size.value = (55.82, 55.82)
    boxes = (size.height_box, size.width_box, size.unit_box)
    qtbot.waitUntil(
        lambda: len({box.native.y() for box in boxes}) == 1, timeout=LIMIT_MS
    )


def test_box_shortens_its_number_and_leaves_qt_no_function_to_call(qtbot):
    """What Python's collector may empty before Qt is done with it ends the process."""
    box = QDoubleSpinBox()
    box.setDecimals(6)
    qtbot.addWidget(box)
    gc.collect()
    before = _functions()
    shorten_number(box)
    assert _functions() <= before
    box.setValue(2.5)
    box.show()
    qtbot.waitUntil(
        lambda: box.text() == f"2{box.locale().decimalPoint()}5", timeout=LIMIT_MS
    )


def _functions() -> set[int]:
    return {id(o) for o in gc.get_objects() if isinstance(o, FunctionType)}
