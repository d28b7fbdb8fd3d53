"""A session that goes on: nothing is left of layers that were made and removed."""

import gc
import tempfile
import threading

import psutil
import pytest
from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QApplication

from napari_semsr.widgets.base import results
from napari_semsr.widgets.base.runner import has_active_jobs
from napari_semsr.widgets.enhance.panel import EnhancePanel
from napari_semsr.widgets.measure.quality import QualityPanel
from tests.children import LIMIT_MS
from tests.tiny_models import write_tiny_model
from tests.widgets.scenes import exposures_of

pytestmark = pytest.mark.usefixtures("display")


ROUNDS = 5
WINDOW = (640, 400)  # drawn without a graphics card: the larger, the slower


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where temporary files go meanwhile."""
    results.remove_cache()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    results.remove_cache()


def counted(window: QObject, folder) -> dict[str, int]:
    """Count what may not grow."""
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    QApplication.processEvents()
    gc.collect()
    process = psutil.Process()
    # Qt's pool has as many threads as cores, begun when they are needed: "Dummy"
    threads = [t for t in threading.enumerate() if not t.name.startswith("Dummy")]
    return {
        "threads": len(threads),
        "open files": process.num_fds() if hasattr(process, "num_fds") else 0,
        "temporary files": sum(1 for _ in folder.rglob("*")),
        "objects": len(window.findChildren(QObject)),
        "jobs": int(has_active_jobs()),
    }


@pytest.mark.slow
def test_rounds_leave_nothing(make_napari_viewer_proxy, qtbot, folder, add):
    viewer = make_napari_viewer_proxy(show=True)
    viewer.window.resize(*WINDOW)
    panels = [kind(viewer) for kind in (EnhancePanel, QualityPanel)]
    for panel in panels:
        viewer.window.add_dock_widget(panel, name=panel.title)
    (folder / "models").mkdir()
    panels[0].model.add_file(write_tiny_model(folder / "models"))
    image = exposures_of((96, 96))[0]
    counts = []
    for _ in range(ROUNDS):
        add(viewer, image)
        for panel in panels:
            panel.run_button.click()
            qtbot.waitUntil(lambda panel=panel: not panel.is_busy, timeout=LIMIT_MS)
        assert len(viewer.layers) > 1
        # what can be put back is kept for that
        with panels[0].history.make_removals_final():
            viewer.layers.clear()
        counts.append(counted(panels[0].window(), folder))
    # what is left of each round adds up to two from the second to the fourth, and more;
    # a tooltip comes and goes, and a pool may begin another of its threads
    for key in counts[0]:
        column = [count[key] for count in counts]
        assert min(column[-2:]) - max(column[:2]) < 2, (key, column)
