"""Messages take the height that they need; an error leaves with its cause."""

import numpy as np
import pytest
from qtpy.QtCore import QPoint
from qtpy.QtWidgets import QAbstractButton, QApplication

from napari_semsr.core.progress import Progress
from napari_semsr.widgets.base import create_panel
from tests.children import LIMIT_MS
from tests.widgets.test_panels import PANELS

LONG = (
    "The folder is missing, or it cannot be read by who runs napari; look at it. " * 9
)


def shown_buttons(panel):
    """Where every button is that can be seen, by its text; in the panel's pixels."""
    for _ in range(10):  # a bar that comes takes the place that is kept for it
        QApplication.processEvents()
    return {
        item: (item.mapTo(panel, QPoint()), item.size())
        for item in panel.findChildren(QAbstractButton)
        if item.isVisible()
    }


@pytest.fixture
def panel(request, model, qtbot):
    name = request.param
    model.add_image(np.zeros((8, 8), np.float32), name="field")
    made = create_panel(model, f"{PANELS[name]}:{name}")
    qtbot.addWidget(made)
    made.resize(360, 700)
    made.show()
    qtbot.waitUntil(lambda: not made.is_busy, timeout=LIMIT_MS)
    for _ in range(20):  # texts take their height after they are laid out
        QApplication.processEvents()
    return made


@pytest.mark.parametrize(
    "panel",
    ["EnhancePanel", pytest.param("StitchMosaicPanel", marks=pytest.mark.broad)],
    indirect=True,
)
def test_no_button_moves_when_a_message_comes_or_goes(panel):
    before = shown_buttons(panel)
    run, question = (before[one][0] for one in (panel.run_button, panel.help_button))
    assert run.y() == question.y()
    parts = panel.messages
    for show in (parts.show_status, parts.notify, parts.show_problem):
        for text in ("short", LONG):
            show(text)
            assert shown_buttons(panel) == before, (show, text)
    panel.messages.show_warning(LONG)
    assert shown_buttons(panel) == before
    panel.messages.unsaved_label.setText(LONG)
    panel.messages.plane.setText(LONG)
    panel.runner.stepped.emit(Progress(1, 3, LONG))
    for other in (Progress(0, 0, "not counted"), Progress(2, 9, "another count")):
        panel.runner.stepped.emit(other)
    assert not panel.progress_bar.isHidden()
    assert panel.progress_bar.value() == 1
    assert shown_buttons(panel) == before
    panel.runner.cancelled.emit()
    assert panel.progress_bar.value() == 0
    foot = panel.run_button, panel.cancel_button, panel.help_button
    for label in (parts.status, parts.warning_label, parts.unsaved_label, parts.plane):
        label.setText("")
    panel.messages.set_updates_enabled(on=False)  # as between two steps
    panel.controls.update_buttons()
    assert panel.progress_bar.isHidden()
    assert panel.progress_bar.updatesEnabled()
    assert all(shown_buttons(panel)[item] == before[item] for item in foot)
