"""Every panel of the manifest fits a narrow dock, in small and in large letters."""

import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType

import pytest

if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
    pytest.skip("needs a display; run under xvfb-run", allow_module_level=True)

from napari.settings import get_settings
from qtpy.QtCore import QPoint
from qtpy.QtGui import QHelpEvent
from qtpy.QtWidgets import QApplication, QDoubleSpinBox, QScrollArea, QToolTip

from napari_semsr.widgets.base import hide_trailing_zeros
from tests import children
from tests.children import LIMIT_MS, SLOW_LIMIT_S
from tests.widgets.fitting import (
    LONG_NAME,
    LONG_TEXT,
    Dock,
    choose_letters,
    entry_width,
)


@pytest.fixture
def letters() -> Iterator[Callable[[int], None]]:
    """Set napari's font size."""
    before = get_settings().appearance.font_size
    yield choose_letters
    choose_letters(before)


@pytest.fixture
def dock(make_napari_viewer_proxy, qtbot) -> Dock:
    """A narrow dock of a real window."""
    viewer = make_napari_viewer_proxy(show=True)
    return Dock(viewer, lambda see: qtbot.waitUntil(see, timeout=LIMIT_MS))


@pytest.mark.usefixtures("letters")
@pytest.mark.parametrize(
    "size",
    [
        pytest.param(16, marks=pytest.mark.broad),
        pytest.param(9, marks=pytest.mark.slow),
    ],
)
def test_every_panel_fits_a_narrow_dock(dock, size):
    dock.check_panels(size)


# The scale of a screen is read when Qt starts, once in a process.
AT_TWICE_THE_SCALE = """
import napari
from qtpy.QtWidgets import QApplication
from tests.widgets.fitting import Dock, wait_until
viewer = napari.Viewer()
assert QApplication.instance().devicePixelRatio() == 2
dock = Dock(viewer, wait_until)
for size in (16, 9):
    dock.check_panels(size)
viewer.close()
"""


@pytest.mark.slow
def test_every_panel_fits_a_narrow_dock_at_twice_the_scale():
    children.run_python(
        AT_TWICE_THE_SCALE,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "QT_SCALE_FACTOR": "2"},
        timeout=SLOW_LIMIT_S,
    )


@pytest.mark.broad
def test_long_name_in_a_list_is_told_by_its_tooltip(dock):
    panel = dock.show("Restore", "napari_semsr.widgets.restore", "RestorePanel")
    box = panel.layer.native

    def told() -> str:
        place = QPoint(3, 3)
        event = QHelpEvent(QHelpEvent.Type.ToolTip, place, box.mapToGlobal(place))
        QApplication.sendEvent(box, event)
        return QToolTip.text()

    assert entry_width(box) < box.fontMetrics().horizontalAdvance(box.currentText())
    assert LONG_NAME in told()
    assert box.toolTip() in told()
    panel.layer.value.name = "b"
    assert told() == box.toolTip()


@pytest.mark.broad
def test_labels_and_what_is_said_follow_the_letters(dock, letters, qtbot):
    module = "napari_semsr.widgets.measure.metrics"
    panel = dock.show("Metrics", module, "MetricsPanel")
    control = panel.form.get_widget("data_range").native
    panel.messages.show_problem(LONG_TEXT)
    for size in (7, 16, 7):
        letters(size)
        qtbot.waitUntil(lambda: (control.x() > 50) == (size == 7), timeout=LIMIT_MS)  # noqa: B023 - waits here
        dock.check(panel)
    (area,) = (
        item
        for item in panel.findChildren(QScrollArea)
        if item.isAncestorOf(panel.status)
    )
    for text in ("grey, by hypothesis", "grey, by hypothesis " * 6):
        panel.messages.show_status(text)
        qtbot.waitUntil(
            lambda: area.viewport().height() >= panel.status.height() > 0,
            timeout=LIMIT_MS,
        )


@pytest.mark.broad
def test_pixel_size_is_seen_whole_beside_its_unit(dock, letters, qtbot):
    panel = dock.show("Open", "napari_semsr.widgets.open_mosaic", "OpenMosaicPanel")
    size = panel.pixel_size
    for points in (16, 9):
        letters(points)
        for value in ((123.456789, 123.456781), None, (55.82, 55.82)):
            size.value = value
            dock.check(panel)
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
    hide_trailing_zeros(box)
    assert _functions() <= before
    box.setValue(2.5)
    box.show()
    qtbot.waitUntil(
        lambda: box.text() == f"2{box.locale().decimalPoint()}5", timeout=LIMIT_MS
    )


def _functions() -> set[int]:
    return {id(o) for o in gc.get_objects() if isinstance(o, FunctionType)}
