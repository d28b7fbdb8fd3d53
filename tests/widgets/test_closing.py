"""Closing napari: it asks for what is not saved, but only the user."""

import sys
from pathlib import Path

import pytest
from napari.utils.notifications import notification_manager
from PIL import Image
from qtpy.QtCore import QEvent, QObject

from napari_semsr.widgets import host
from napari_semsr.widgets.figure import FigurePanel
from napari_semsr.widgets.layers import create_layer_keywords
from napari_semsr.widgets.project import SavePanel
from tests.children import LIMIT_MS, run
from tests.widgets.scenes import create_classical, exposures_of

pytestmark = pytest.mark.usefixtures("display")


@pytest.fixture
def opened(make_napari_viewer, qtbot, run_panel, no_project):
    """A viewer whose panel has made a layer that is not saved; the questions asked."""
    viewer = make_napari_viewer(show=True)
    image = exposures_of((64, 64), sharp=True)[0]
    viewer.add_image(image.data, **create_layer_keywords(image))
    panel = create_classical(viewer)
    viewer.window.add_dock_widget(panel, name="Enhance")
    run_panel(panel)
    asked = []

    def answer(what):
        panel.session.ask = lambda _, names: asked.append(names) or what

    answer("cancel")
    return viewer, panel, answer, asked


# Handlers run last first: this one after ours, and before PyQt destroys what is left.
ENDING = """
import atexit, inspect, os, sys
import napari
from qtpy.QtWidgets import QApplication

def note(frame, event, _):
    code = frame.f_code  # a generator that was never begun is closed at the end
    if code.co_flags & inspect.CO_GENERATOR:
        return
    if event == "call" and "napari_semsr" in code.co_filename:
        os.write(1, f"{code.co_name} was called\\n".encode())

atexit.register(sys.setprofile, note)
from napari_semsr.widgets.enhance.panel import EnhancePanel
from napari_semsr.widgets.project import SavePanel
viewer = napari.Viewer(show=True)
napari.Viewer.close, close = lambda _: print("closed"), napari.Viewer.close
for kind in (SavePanel, EnhancePanel):
    viewer.window.add_dock_widget(kind(viewer), name=kind.__name__)
for name in ("one", "two"):
    viewer.add_shapes(metadata={"semsr made": "Restore"}, name=name)
for _ in range(20):
    QApplication.processEvents()
"""
CLOSE = {
    "left open": "",
    "by the user": "viewer.window._qt_window.close()",
    "by its viewer": "close(viewer)",
}


@pytest.mark.broad
@pytest.mark.parametrize("way", CLOSE)
def test_python_ends_quietly_and_closes_no_viewer(way):
    code = f"{ENDING}\n{CLOSE[way]}\nQApplication.processEvents()\nprint('ended')"
    done = run([sys.executable, "-X", "faulthandler", "-c", code])
    assert done.stdout == "ended\n"
    assert "Traceback" not in done.stderr
    # PyQt may die of a window of napari that is left to it, with no panel of ours, too
    assert done.returncode == 0 or way == "left open"


class Closings(QObject):
    """Stands for the window's own closing, behind the question."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def eventFilter(self, watched, event):  # noqa: N802 - Qt's name
        if event.type() != QEvent.Type.Close:
            return False
        self.count += 1
        event.ignore()
        return True


@pytest.fixture
def closings(opened):
    """Count how often the window would be closed, and keep it."""
    _, panel, _, _ = opened
    window = panel.window()
    seen = Closings()
    window.installEventFilter(seen)
    window.installEventFilter(panel.session)  # asks first, since it comes last
    yield seen
    window.removeEventFilter(seen)


@pytest.fixture
def keep(qtbot, tmp_path):
    def save(panel):
        session = panel.session
        session.create_project(tmp_path / "kept.semsr")
        qtbot.waitUntil(lambda: not session.list_unsaved_names(), timeout=LIMIT_MS)
        qtbot.waitUntil(lambda: not session.runner.is_busy, timeout=LIMIT_MS)
        return tmp_path / "kept.semsr"

    return save


def test_what_is_not_saved_is_asked_for(opened, closings, tmp_path):
    viewer, panel, answer, asked = opened
    panel.window().close()
    assert asked == [[viewer.layers[-1].name]]
    assert closings.count == 0
    assert len(viewer.layers) == 2
    answer("discard")
    panel.window().close()
    assert len(asked) == 2
    assert closings.count == 1
    viewer.layers[-1].metadata["semsr saved"] = str(tmp_path / "somewhere.ome.zarr")
    panel.window().close()
    assert len(asked) == 2
    assert closings.count == 2


def test_what_is_being_made_is_asked_for_and_discarded(
    opened, closings, finish, tmp_path
):
    viewer, panel, answer, asked = opened
    viewer.layers[-1].metadata["semsr saved"] = str(tmp_path / "somewhere.ome.zarr")
    panel.run()
    panel.window().close()
    assert asked == [["the unfinished result of Enhance"]]
    assert closings.count == 0
    answer("discard")
    panel.window().close()
    assert closings.count == 1  # napari itself may still ask: nothing is added then
    finish(panel)
    assert len(viewer.layers) == 2
    panel.window().close()
    assert (len(asked), closings.count) == (2, 2)


@pytest.mark.broad
def test_save_closes_when_all_is_in_a_project(
    opened, closings, qtbot, tmp_path, choose
):
    viewer, panel, answer, asked = opened
    answer("save")
    (tmp_path / "file").write_text("no folder")
    choose(tmp_path / "file" / "kept.semsr")
    panel.window().close()
    assert "could not be written" in notification_manager.records[-1].message
    asked.clear()
    path = choose(tmp_path / "kept.semsr")
    panel.window().close()
    assert closings.count == 0  # until it is saved
    qtbot.waitUntil(lambda: closings.count == 1, timeout=LIMIT_MS)
    assert len(asked) == 1
    assert (path / "project.json").is_file()
    store = Path(viewer.layers[-1].metadata["semsr store"])
    assert store.is_dir()
    assert store.parent == path


@pytest.mark.broad
def test_closing_by_a_script_leaves_the_project_as_it_was(opened, keep):
    viewer, panel, _, _ = opened
    path, session = keep(panel), panel.session
    store = Path(viewer.layers[-1].metadata["semsr store"])
    before = (path / "project.json").read_text()
    viewer.close()
    session._save_changes()  # noqa: SLF001 - as its clock does two seconds later
    assert (path / "project.json").read_text() == before
    assert store.is_dir()
    assert store.parent == path


@pytest.mark.broad
def test_a_project_that_napari_opens_is_gone_on_with(
    opened, keep, make_napari_viewer, qtbot
):
    viewer, panel, _, _ = opened
    host.get_camera(viewer).zoom = 7.5
    path = keep(panel)
    other = make_napari_viewer(show=True)
    again = SavePanel(other)
    other.window.add_dock_widget(again, name="Save")
    other.open(path, plugin="napari-semsr")
    qtbot.waitUntil(lambda: again.session.folder == path, timeout=LIMIT_MS)
    assert [item.name for item in other.layers] == [item.name for item in viewer.layers]
    assert host.get_camera(other).zoom == pytest.approx(7.5, rel=0.01)
    assert "saved automatically" in again.about.text()


@pytest.mark.broad
def test_figures_say_what_a_network_made(opened, tmp_path, choose):
    layer, sizes, saver = opened[0].layers[-1], {}, FigurePanel(opened[0])
    opened[0].window.add_dock_widget(saver, name="Figure")
    for extent in ("canvas", "full"):
        saver.extent.value = extent
        for name in ("", "some-model"):
            path = choose(tmp_path / f"{extent}{name}.png", ".png")
            layer.metadata["semsr network"] = {"model": name, "digest": None}
            if not name:
                layer.metadata.pop("semsr network")
            saver.run_button.click()
            with Image.open(path) as picture:
                sizes[extent, name] = picture.size
                said = picture.text.get("Description", "")
            assert said == (f"{layer.name}: output of network {name}" if name else "")
        plain, marked = sizes[extent, ""], sizes[extent, "some-model"]
        assert plain[0] == marked[0]
        assert plain[1] < marked[1]
    assert sizes["full", ""] == (64, 64)


@pytest.mark.broad
def test_a_removal_offers_to_be_taken_back(opened, qtbot):
    viewer, _, _, _ = opened
    made, said = viewer.layers[-1], []
    notification_manager.notification_ready.connect(said.append)
    viewer.layers.remove(made)

    def offered():
        return [item for item in said if item.message == f"Removed {made.name}."]

    qtbot.waitUntil(lambda: bool(offered()), timeout=LIMIT_MS)
    (offer,) = offered()
    assert offer.source == "Superlens SEM"  # napari's own is an address in memory
    ((text, undo),) = offer.actions
    assert text == "Undo"
    undo(None)
    assert viewer.layers[-1] is made
    assert made.data.shape == (64, 64)
