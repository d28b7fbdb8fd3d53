"""The panels in a real window: opened by name, run, photographed, closed."""

import os
import sys
import threading
import time

import numpy as np
import pytest

from napari_semsr.core.progress import Progress
from tests.widgets.scenes import exposures_of

if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
    pytest.skip("needs a display; run under xvfb-run", allow_module_level=True)

PLUGIN = "napari-semsr"


def dock(viewer, name):
    """Open a panel as the Plugins menu does, in a dock of 400 pixels."""
    _, panel = viewer.window.add_plugin_dock_widget(PLUGIN, name)
    panel.setFixedWidth(400)
    return panel


def labels_cut_off(panel) -> list[str]:
    """Texts of visible labels that are lower than what they have to show."""
    from qtpy.QtWidgets import QLabel

    return [
        label.text()
        for label in panel.findChildren(QLabel)
        if label.isVisible()
        and label.wordWrap()
        and label.height() < label.heightForWidth(label.width())
    ]


@pytest.fixture
def viewer(make_napari_viewer_proxy, qtbot):
    made = make_napari_viewer_proxy(show=True)
    made.window.resize(1200, 850)
    qtbot.wait(50)
    return made


def test_every_panel_opens_by_name(viewer, qtbot, keep_picture):
    from napari.utils.theme import get_theme

    viewer.open_sample(PLUGIN, "degraded")
    names = (
        "Open mosaic",
        "Stitch mosaic",
        "Enhance",
        "FRC map",
        "Spectrum",
        "Metrics and histogram",
        "Crop",
        "Train",
    )
    for name in names:
        panel = dock(viewer, name)
        qtbot.wait(100)
        assert not labels_cut_off(panel), name
        keep_picture(viewer, f"panel-{name.lower().replace(' ', '-')}")
        viewer.window.remove_dock_widget(panel)
    assert get_theme(viewer.theme)


def test_frc_map_lies_in_colour_over_the_image(
    viewer, qtbot, finish, keep_picture, add
):

    for item in exposures_of((256, 256)):
        add(viewer, item)
    panel = dock(viewer, "FRC map")
    panel.second.value = viewer.layers[0]
    before = viewer.window.screenshot(canvas_only=True, flash=False)
    panel.run_button.click()
    finish(panel)
    qtbot.wait(200)
    assert not labels_cut_off(panel)
    keep_picture(viewer, "frc-map")
    after = viewer.window.screenshot(canvas_only=True, flash=False)
    assert colourfulness(before) < 1
    assert colourfulness(after) > 5
    assert viewer.layers[-1].colorbar.visible
    viewer.theme = "light"
    qtbot.wait(100)
    face = panel.plots.figure.get_facecolor()
    assert np.mean(face[:3]) > 0.7


def colourfulness(picture: np.ndarray) -> float:
    """Mean span between the colour channels of a picture's middle."""
    rows, columns = picture.shape[:2]
    middle = picture[rows // 3 : -rows // 3, columns // 3 : -columns // 3, :3]
    return float(np.ptp(middle.astype(float), axis=-1).mean())


@pytest.mark.parametrize("how", ["panel", "viewer"])
def test_closing_stops_the_job(viewer, qtbot, how):
    panel = dock(viewer, "Metrics and histogram")
    begun, closed = threading.Event(), threading.Event()

    def endless():
        try:
            while True:
                time.sleep(0.01)
                begun.set()
                yield Progress(0, 0, "working")
        finally:
            closed.set()

    panel.start(endless, lambda _: None)
    assert begun.wait(5)
    if how == "panel":
        viewer.window.remove_dock_widget(panel)
    else:
        viewer.close()
    qtbot.waitUntil(closed.is_set, timeout=5000)


def test_tiles_appear_in_the_window_and_closing_it_stops_the_run(
    viewer, qtbot, add, monkeypatch
):
    from napari_semsr.inference.tiles.worker import TileWorker

    enhance, begun = TileWorker.enhance, []

    def slow(self, places):
        begun.extend(places)
        time.sleep(0.3)
        return enhance(self, places)

    monkeypatch.setattr(TileWorker, "enhance", slow)
    add(viewer, exposures_of((256, 256))[0])
    panel = dock(viewer, "Enhance")
    panel.form.set_values(tile=64, precision="fp32")
    scene = getattr(viewer, "scene", viewer)
    scene.camera.zoom *= 3
    scene.camera.center = (0, 2560 * 0.2, 2560 * 0.8)
    qtbot.wait(200)
    panel.run_button.click()
    pictures = []
    for tiles in (1, 3):
        qtbot.waitUntil(lambda n=tiles: panel.live.live.done >= n, timeout=60_000)
        qtbot.wait(200)
        shot = viewer.window.screenshot(canvas_only=True, flash=False)
        pictures.append(shot.astype(int))
    assert all(row < 2 and column > 1 for row, column in begun[:3])
    changed = np.abs(pictures[1] - pictures[0]).max(axis=-1) > 2
    assert changed.mean() > 0.05
    viewer.close()
    qtbot.wait(50)
    left = len(begun)
    assert left < 16
    qtbot.wait(700)
    assert len(begun) <= left + 1
