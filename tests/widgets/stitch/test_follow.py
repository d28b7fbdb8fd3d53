"""A folder that grows is followed in a real window: one layer, view and contrast."""

import shutil

import numpy as np
import pytest
from qtpy.QtCore import Qt

import napari_semsr
from napari_semsr.core import Box, Micrograph, ShapeError
from napari_semsr.io import GrowingMosaic
from napari_semsr.widgets import host
from napari_semsr.widgets.base import get_session
from napari_semsr.widgets.layers import micrograph_from_layer
from napari_semsr.widgets.stitch.follow import GrowingLayer, GrowingLevels
from napari_semsr.widgets.stitch.panel import StitchMosaicPanel
from tests.children import LIMIT_MS
from tests.refusals import refused

pytestmark = pytest.mark.usefixtures("display")


LEFT = Qt.MouseButton.LeftButton
SIDE = 96
SCAN = {
    "phantom": "particles", "frames_grid": (2, 3), "frame_px": SIDE, "overlap": 0.4,
    "jitter_px": 3, "seed": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans") / "scan"
    napari_semsr.simulate(folder, **SCAN)
    return folder


def test_levels_show_what_the_store_holds(tmp_path):
    about = Micrograph(np.zeros((1, 1), np.float32), None, "m")
    mosaic = GrowingMosaic.create(tmp_path / "m.ome.zarr", about, 32)
    levels = GrowingLevels()
    scene = np.random.default_rng(0).random((1000, 1000), np.float32)
    for y, x in ((0, 0), (5, 40), (-70, -3), (60, -90)):
        box = Box.from_shape((48, 56), (y, x))
        mosaic.write(box, scene[box.move((500, 500)).slices])
        levels.show_block(mosaic, box)
    data, box = levels.levels()
    whole = np.asarray(data[0])
    assert whole.shape == box.shape == mosaic.shape
    np.testing.assert_array_equal(whole, np.asarray(mosaic.level0))
    known = np.isfinite(whole)
    assert known.any()
    assert np.array_equal(whole[known], scene[box.move((500, 500)).slices][known])
    for level in data[1:]:
        rows, columns = whole.shape
        whole = whole.reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3))
        np.testing.assert_allclose(level, whole, rtol=1e-5)


def test_contrast_follows_the_grey_values_until_the_user_changes_it(
    model, hold, tmp_path
):
    panel = hold(StitchMosaicPanel(model))
    about = Micrograph(np.zeros((1, 1), np.float32), None, "m")
    mosaic = GrowingMosaic.create(tmp_path / "m.ome.zarr", about, 32)
    growing, rng = GrowingLayer(panel), np.random.default_rng(0)

    def grow(row, level):
        box = Box.from_shape((64, 64), (64 * row, 0))
        mosaic.write(box, level * rng.random((64, 64), np.float32))
        growing.levels.show_block(mosaic, box)
        assert growing.update()
        return growing.layer.contrast_limits[1]

    first = grow(0, 100)
    assert grow(1, 1000) > 3 * first
    growing.layer.contrast_limits = (0, 50)
    assert grow(2, 9000) == 50
    mosaic.store.lock.release()


@pytest.mark.broad
def test_frames_appear_in_one_layer_as_they_come(
    make_napari_viewer_proxy, qtbot, finish, scan, tmp_path, keep_picture
):
    folder, blank = tmp_path / "scan", np.full((SIDE, SIDE), 9, np.uint16)
    viewer = make_napari_viewer_proxy(show=True)
    viewer.window.resize(1300, 900)
    panel = StitchMosaicPanel(viewer)
    viewer.window.add_dock_widget(panel, name="Stitch mosaic")
    panel.halves.value = False
    panel.output.value = tmp_path / "mosaic.ome.zarr"
    panel.folder.value = folder  # which is not there yet
    follower = panel.follower
    qtbot.mouseClick(follower.button, LEFT)
    assert follower.is_following
    assert "scan does not exist" in panel.about.text()
    folder.mkdir()
    shutil.copy(scan / "positions.csv", folder)
    kind = napari_semsr.read(scan / "frame_000.tif").array().dtype

    def bring(*numbers):
        for number in numbers:
            shutil.copy(scan / f"frame_{number:03d}.tif", folder)

    bring(0, 1)
    qtbot.waitUntil(lambda: follower.layer is not None, timeout=LIMIT_MS)
    layer = follower.layer
    low, high = layer.contrast_limits
    layer.contrast_limits = limits = (low, (low + high) / 2)
    camera = host.get_camera(viewer)

    def shares():
        """Return how large the mosaic is, of the canvas, and where its centre is."""
        low, high = layer.extent.world[:, -2:]
        size = (high - low) * camera.zoom / host.get_viewbox_size(viewer)
        return size.max(), np.abs((low + high) / 2 - camera.center[-2:]).max()

    bring(3)
    frames = panel.status
    qtbot.waitUntil(lambda: "3 frames processed" in frames.text(), timeout=LIMIT_MS)
    assert 0.8 < shares()[0] <= 1.0
    assert shares()[1] < 2 * layer.scale[0]
    camera.zoom *= 0.7
    view = camera.zoom, camera.center
    bring(4)
    dead = Micrograph(blank.astype(kind), None, "dead")
    napari_semsr.write(dead, folder / "frame_002.tif")
    qtbot.waitUntil(lambda: "frame_002" in follower.doubts.text(), timeout=LIMIT_MS)
    keep_picture(viewer, "stitch-follow")
    with refused(ShapeError, "incomplete"):
        micrograph_from_layer(layer)
    project = get_session(viewer)
    project.create_project(tmp_path / "p.semsr")
    qtbot.waitUntil(lambda: not project.runner.is_busy, timeout=LIMIT_MS)
    assert project.list_excluded_names() == [layer.name]
    assert (camera.zoom, camera.center) == view
    assert tuple(layer.contrast_limits) == limits
    bring(2, 5)
    qtbot.waitUntil(lambda: "6 frames processed" in frames.text(), timeout=LIMIT_MS)
    qtbot.mouseClick(follower.button, LEFT)
    finish(panel)
    assert "Stitched 6 of 6 frames" in panel.status.text()
    assert layer.name not in viewer.layers
    final = viewer.layers["scan mosaic"]
    assert tuple(final.contrast_limits) == limits
    assert not follower.is_following
    offline = napari_semsr.stitch(folder, tmp_path / "offline.ome.zarr")
    made = panel._last_corrected[0]  # noqa: SLF001
    assert made.positions == offline.positions
    assert not list(tmp_path.glob("*growing*"))


def test_nothing_is_shown_while_the_canvas_is_hidden_and_cancel_removes_it(
    model, hold, qtbot, finish, scan, monkeypatch
):
    panel, seen = hold(StitchMosaicPanel(model)), []
    monkeypatch.setattr(host, "is_on_screen", lambda _: bool(seen))
    panel.folder.value = scan
    finish(panel)
    follower = panel.follower
    follower.press()
    status = panel.status
    qtbot.waitUntil(lambda: "6 frames processed" in status.text(), timeout=LIMIT_MS)
    assert follower.layer is None
    seen.append(True)
    qtbot.waitUntil(lambda: follower.layer is not None, timeout=LIMIT_MS)
    panel.controls.cancel()
    finish(panel)
    qtbot.waitUntil(lambda: not follower.is_following, timeout=LIMIT_MS)
    assert follower.layer is None
