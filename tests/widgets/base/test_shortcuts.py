"""Keys of the panels, in a real window with napari's own keys."""

import re

import numpy as np
import pytest
from napari.utils.shortcuts import default_shortcuts
from qtpy.QtCore import Qt
from qtpy.QtGui import QAction, QKeySequence

from napari_semsr.widgets.base.controls import CANCEL, RUN
from napari_semsr.widgets.base.navigation import get_manual_folder, get_manual_url
from napari_semsr.widgets.base.panel import FLIP, HELP, HIDE
from tests.children import LIMIT_MS
from tests.widgets.scenes import Endless, create_classical, exposures_of

pytestmark = pytest.mark.usefixtures("display")


CTRL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
KEYS = [RUN, CANCEL, HELP, HIDE, FLIP]


@pytest.fixture
def viewer(make_napari_viewer_proxy):
    return make_napari_viewer_proxy(show=True)


@pytest.fixture
def panel(viewer, qtbot, add):
    add(viewer, exposures_of((64, 64), sharp=True)[0].replace(name="field"))
    panel = create_classical(viewer)
    viewer.window.add_dock_widget(panel, name="Enhance")
    panel.window().activateWindow()
    qtbot.waitActive(panel.window())
    qtbot.mouseClick(panel.scroll_area.viewport(), Qt.MouseButton.LeftButton)
    qtbot.waitUntil(
        lambda: panel.isAncestorOf(panel.window().focusWidget()), timeout=LIMIT_MS
    )
    return panel


def test_keys_run_cancel_hide_and_show_and_open_the_manual(
    panel, viewer, qtbot, finish, opened
):
    def press(key, modifier=Qt.KeyboardModifier.NoModifier):
        qtbot.keyClick(panel.window().focusWidget(), key, modifier)

    press(Qt.Key.Key_F1)
    assert opened == [get_manual_url(panel.help_place)]
    panel.controls.start(Endless(), lambda _: None)
    qtbot.waitUntil(lambda: panel.status.text() == "Working", timeout=LIMIT_MS)
    press(Qt.Key.Key_Escape)
    finish(panel)
    assert "was cancelled" in panel.status.text()
    source = panel.layer.value
    press(Qt.Key.Key_Return, CTRL)
    finish(panel)
    assert "Wiener removed a blur" in panel.status.text()
    made = next(layer for layer in viewer.layers if layer is not source)
    other = viewer.add_image(np.zeros((8, 8)), name="other")
    source.visible = False
    for key in (Qt.Key.Key_H, Qt.Key.Key_B):
        press(key, CTRL | SHIFT)
        assert not made.visible
        assert other.visible
        assert source.visible == (key == Qt.Key.Key_B)
        press(key, CTRL | SHIFT)
        assert made.visible
        assert not source.visible
    viewer.layers.remove(made)
    press(Qt.Key.Key_H, CTRL | SHIFT)  # there is nothing to hide
    assert other.visible


@pytest.mark.broad
def test_no_key_of_napari_is_taken_and_the_manual_lists_ours(panel):
    ours = {QKeySequence(key).toString() for key in KEYS} - {"Esc"}
    assert len(ours) == len(KEYS) - 1
    bound = {str(key) for keys in default_shortcuts.values() for key in keys}
    theirs = {QKeySequence(key.replace("Enter", "Return")).toString() for key in bound}
    for action in panel.window().findChildren(QAction):
        theirs |= {keys.toString() for keys in action.shortcuts()}
    assert not ours & theirs
    page = (get_manual_folder() / "panels.md").read_text("utf-8")
    table = page.partition("## Keys")[2].partition("##")[0]
    assert set(re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)) == set(KEYS)
    tips = f"{panel.run_button.toolTip()} {panel.cancel_button.toolTip()}"
    tips += panel.help_button.toolTip()
    assert all(key in tips for key in KEYS)
