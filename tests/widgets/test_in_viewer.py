"""The panels in a real window: opened by name, run, photographed, closed."""

import numpy as np
import pytest

from napari_semsr.widgets import host
from napari_semsr.widgets.base import open_panel
from tests.children import LIMIT_MS, LIMIT_S
from tests.widgets.scenes import Endless, exposures_of

pytestmark = pytest.mark.usefixtures("display")


def dock(viewer, name):
    """Open a panel as the Plugins menu does, in a dock of 400 pixels."""
    panel = open_panel(viewer, name)
    panel.setFixedWidth(400)
    return panel


@pytest.fixture
def viewer(make_napari_viewer_proxy, qtbot):
    made = make_napari_viewer_proxy(show=True)
    made.window.resize(1200, 850)
    qtbot.wait(50)
    return made


@pytest.mark.quick(1)
@pytest.mark.parametrize("how", ["panel", "viewer"])
def test_closing_stops_the_job(viewer, qtbot, how):
    panel = dock(viewer, "Metrics")
    endless = Endless()
    panel.controls.start(endless, lambda _: None)
    assert endless.begun.wait(LIMIT_S)
    if how == "panel":
        viewer.window.remove_dock_widget(panel)
    else:
        viewer.close()
    qtbot.waitUntil(endless.closed.is_set, timeout=LIMIT_MS)


@pytest.mark.broad
def test_tiles_appear_in_the_window_and_closing_it_stops_the_run(
    viewer, qtbot, add, computed
):
    from superqt.utils import WorkerBase

    from napari_semsr.widgets.base.runner import is_alive

    add(viewer, exposures_of((256, 256))[0])
    panel = dock(viewer, "Enhance")
    panel.form.set_values(tile=64, precision="fp32")
    camera = host.get_camera(viewer)
    camera.zoom *= 3
    camera.center = (0, 2560 * 0.2, 2560 * 0.8)
    qtbot.wait(200)
    computed.allow(0)
    panel.run_button.click()
    qtbot.waitUntil(lambda: len(computed) == 1, timeout=LIMIT_MS)
    qtbot.wait(200)
    before = picture_of(viewer)
    computed.allow(3)
    qtbot.waitUntil(lambda: panel.live.live.tiles_done == 3, timeout=LIMIT_MS)
    assert all(row < 2 and column > 1 for row, column in computed[:3])

    def drawn() -> bool:
        now = picture_of(viewer)
        # a line that appears below the canvas may take a row of it
        both = tuple(
            slice(min(n, m)) for n, m in zip(now.shape, before.shape, strict=True)
        )
        changed = np.abs(now[both] - before[both]).max(axis=-1) > 2
        return changed.mean() > 0.05

    qtbot.waitUntil(drawn, timeout=LIMIT_MS)
    runner = panel.runner
    viewer.close()
    qtbot.waitUntil(
        lambda: not is_alive(runner) or runner.is_cancelling, timeout=LIMIT_MS
    )
    computed.allow()
    WorkerBase.await_workers(msecs=LIMIT_MS)
    assert len(computed) == 4


def picture_of(viewer) -> np.ndarray:
    shot = viewer.window.screenshot(canvas_only=True, flash=False)
    return shot.astype(int)
