"""Projects: saved as one goes, moved, reopened with every layer that we make."""

import json
import shutil

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels, Shapes
from qtpy.QtWidgets import QFileDialog

from napari_semsr.core.progress import run
from napari_semsr.io.napari_hooks import get_reader
from napari_semsr.jobs import SimulateOptions, simulate_job
from napari_semsr.widgets.base.results import keep_results_in
from napari_semsr.widgets.crop import CropPanel
from napari_semsr.widgets.measure.frc_map import FrcMapPanel
from napari_semsr.widgets.measure.spectrum import SpectrumPanel
from napari_semsr.widgets.project import SavePanel
from napari_semsr.widgets.restore import RestorePanel
from napari_semsr.widgets.stitch.panel import StitchMosaicPanel
from tests.children import LIMIT_MS


@pytest.fixture(autouse=True)
def _no_project_left():
    yield
    keep_results_in(None)


@pytest.fixture
def choose(monkeypatch):
    """Answer the dialogs for files and folders."""

    def answer(path):
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
        monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(path))

    return answer


@pytest.fixture
def save_panel(qtbot):
    """Make a Save panel for a viewer."""

    def make(viewer):
        panel = SavePanel(viewer)
        qtbot.addWidget(panel)
        return panel

    return make


def wait(panel, qtbot):
    session = panel.session
    qtbot.waitUntil(lambda: not session.runner.busy, timeout=LIMIT_MS)


def save_into(panel, qtbot, choose, path):
    """Press the button that saves all into a new project."""
    choose(path)
    panel.run_button.click()
    wait(panel, qtbot)
    assert panel.session.folder == path, panel.status.text()
    assert "All is kept" in panel.status.text()


def reopen(save_panel, qtbot, choose, path):
    """Open a project in a viewer of its own by the panel's button."""
    viewer = ViewerModel()
    panel = save_panel(viewer)
    choose(path)
    panel.open_button.click()
    wait(panel, qtbot)
    assert not panel.status.styleSheet(), panel.status.text()
    return viewer, panel


def assert_alike(one, other):
    """Compare what a user sees of two layers, and what jobs read of them."""
    assert type(one) is type(other)
    assert one.name == other.name
    for name in ("visible", "opacity", "blending", "units", "axis_labels"):
        assert getattr(one, name) == getattr(other, name), name
    np.testing.assert_allclose(one.extent.world, other.extent.world)
    np.testing.assert_allclose(one.affine.affine_matrix, other.affine.affine_matrix)
    if isinstance(one, Shapes):
        assert one.shape_type == other.shape_type
        for a, b in zip(one.data, other.data, strict=True):
            np.testing.assert_allclose(a, b)
        np.testing.assert_allclose(one.edge_color, other.edge_color)
        np.testing.assert_allclose(one.edge_width, other.edge_width)
        assert one.text.values.tolist() == other.text.values.tolist()
    else:
        one_data, other_data = (
            item.data[0] if item.multiscale else item.data for item in (one, other)
        )
        assert one_data.dtype == other_data.dtype
        np.testing.assert_array_equal(np.asarray(one_data), np.asarray(other_data))
    if isinstance(one, Image):
        np.testing.assert_allclose(one.contrast_limits, other.contrast_limits)
        np.testing.assert_allclose(one.colormap.colors, other.colormap.colors)
        assert one.gamma == other.gamma
    if isinstance(one, Labels):
        for value in np.unique(one.data[one.data > 0]):
            np.testing.assert_allclose(one.get_color(value), other.get_color(value))
    if hasattr(one, "features"):
        assert one.features.astype(str).equals(other.features.astype(str))
    kept = json.loads(json.dumps(one.metadata.get("micrograph")))
    assert kept == json.loads(json.dumps(other.metadata.get("micrograph")))


@pytest.fixture
def story(model, qtbot, tmp_path, run_panel):
    """Frames, their mosaic, and what the panels make of it; the folder of the scan."""
    scan = tmp_path / "work" / "scan"
    scan.parent.mkdir()
    options = SimulateOptions(phantom="particles", frames_grid=(2, 2), frame_px=96)
    run(simulate_job(scan, options=options))
    for data, attributes, kind in get_reader(str(scan))(str(scan)):
        getattr(model, f"add_{kind}")(data, **attributes)

    panels = []

    def press(kind, **values):
        panel = kind(model)
        panels.append(panel)
        qtbot.addWidget(panel)
        panel.show()
        for name, value in values.items():
            getattr(panel, name).value = value
        qtbot.waitUntil(lambda: not panel.busy, timeout=LIMIT_MS)
        run_panel(panel)
        assert not panel.status.styleSheet(), panel.status.text()

    press(StitchMosaicPanel)
    mosaic = next(item for item in model.layers if item.name.endswith("mosaic"))
    press(RestorePanel, layer=mosaic)
    press(CropPanel, layer=mosaic, like=None)
    press(FrcMapPanel, first=mosaic)
    press(SpectrumPanel, layers=[mosaic])
    mosaic.contrast_limits, mosaic.gamma, mosaic.colormap = (3, 99), 0.8, "magma"
    model.add_points([[3, 4], [5, 6.5]], size=[4, 5], name="marks")
    model.add_labels(np.arange(64, dtype=np.uint8).reshape(8, 8), name="painted")
    model.add_image(np.arange(96.0).reshape(2, 6, 8), name="stack", scale=(1, 2, 2))
    model.add_shapes(None, ndim=2, edge_color="#ffd400", name="nothing yet")
    yield scan
    panels.clear()


@pytest.mark.parametrize("moved", [False, True], ids=["stays", "moved"])
def test_every_layer_that_we_make_comes_back(
    story, model, save_panel, qtbot, choose, tmp_path, moved
):
    path = tmp_path / "work" / "first.semsr"
    panel = save_panel(model)
    save_into(panel, qtbot, choose, path)
    assert panel.session.unsaved() == []
    assert "not saved" not in panel.made_list.item(0).text()
    if moved:
        shutil.copytree(tmp_path / "work", tmp_path / "elsewhere")
        shutil.rmtree(tmp_path / "work")
        path = tmp_path / "elsewhere" / "first.semsr"
    viewer, again = reopen(save_panel, qtbot, choose, path)
    assert [item.name for item in viewer.layers] == [item.name for item in model.layers]
    for one, other in zip(model.layers, viewer.layers, strict=True):
        assert_alike(one, other)
    assert again.session.unsaved() == []
    assert "missing" not in again.status.text()
    written = (path / "project.json").read_text()
    inputs = json.loads(written)["inputs"]
    assert [item["path"] for item in inputs.values()] == ["../scan"]
