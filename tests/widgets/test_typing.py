"""Typing into the text fields of the panels, key by key."""

import pytest
from magicgui.widgets import FileEdit, LineEdit
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication

from napari_semsr.widgets.base import Form, create_panel
from napari_semsr.widgets.open_mosaic import OpenMosaicPanel
from tests.widgets.test_panels import PANELS


def text_fields(panel):
    """Text fields of a panel, with the line that is typed into."""
    for form in panel.findChildren(Form):
        for control in form._controls_by_name.values():  # noqa: SLF001
            if isinstance(control, FileEdit | LineEdit):
                yield control, getattr(control, "line_edit", control).native


@pytest.fixture
def panel(request, model, qtbot, tmp_path):
    place = f"{PANELS[request.param]}:{request.param}"
    panel = create_panel(model, place)
    qtbot.addWidget(panel)
    panel.show()
    return panel


def focus(panel, line):
    """Show a line, whichever group it is in, and put the focus into it."""
    part = line
    while part is not panel:
        part.show()
        part = part.parentWidget()
    line.setFocus()
    line.selectAll()
    assert panel.focusWidget() is line


@pytest.mark.parametrize("panel", ["OpenMosaicPanel", "TrainPanel"], indirect=True)
def test_a_text_typed_over_another_is_reported_once_and_whole(panel, qtbot, tmp_path):
    (tmp_path / "run 7").mkdir()
    typed = str(tmp_path / "run 7" / "second 2048.tif")
    for control, line in list(text_fields(panel)):
        line.setText(str(tmp_path))
        focus(panel, line)
        reported = []
        control.changed.connect(reported.append)
        for key in typed:
            qtbot.keyClick(panel.focusWidget(), key)  # wherever the focus is
        assert panel.focusWidget() is line
        assert line.text() == typed
        assert reported == []
        qtbot.keyClick(line, Qt.Key.Key_Return)
        assert list(map(str, reported)) == [typed]
        line.editingFinished.emit()  # as when the focus goes
        assert len(reported) == 1


@pytest.mark.parametrize("panel", ["OpenMosaicPanel"], indirect=True)
def test_what_is_chosen_dropped_or_run_is_reported_at_once(
    panel: OpenMosaicPanel, qtbot, finish, tmp_path
):
    line, reported = panel.path.line_edit.native, []
    panel.path.changed.connect(reported.append)
    panel.path.value = tmp_path / "chosen.tif"
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(tmp_path / "dropped.tif"))])
    buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    dropping = Qt.DropAction.CopyAction, data, buttons, keys
    QApplication.sendEvent(line, QDragEnterEvent(QPoint(), *dropping))
    QApplication.sendEvent(line, QDropEvent(QPointF(), *dropping))
    assert [path.name for path in reported] == ["chosen.tif", "dropped.tif"]
    focus(panel, line)
    qtbot.keyClicks(line, str(tmp_path / "typed.tif"))
    panel.run()
    finish(panel)
    assert [path.name for path in reported[2:]] == ["typed.tif"]
