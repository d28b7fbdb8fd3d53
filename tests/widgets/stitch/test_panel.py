"""A folder of frames in the panel: mosaic, outlines, joints, and what is said."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import napari_semsr
from napari_semsr.widgets import host
from napari_semsr.widgets.base import results
from napari_semsr.widgets.layers import list_grey_layers
from napari_semsr.widgets.stitch.panel import StitchMosaicPanel
from tests.children import LIMIT_MS

NM = ["nanometer", "nanometer"]


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans") / "scan"
    napari_semsr.simulate(
        folder, phantom="particles", frames_grid=(2, 2), frame_px=96,
        field="square", seed=5,
    )  # fmt: skip
    return folder


@pytest.fixture
def make(model, qtbot, finish):
    """Make a panel that has looked into a folder."""

    def panel_for(folder=None):
        panel = StitchMosaicPanel(model)
        qtbot.addWidget(panel)
        if folder is not None:
            panel.folder.value = folder
        finish(panel)
        return panel

    return panel_for


def units(viewer):
    return [str(unit) for unit in viewer.layers.units]


def test_folder_says_what_it_holds(make, scan):
    assert not make().pixel_size.note.text()  # which no folder states yet
    panel = make(scan)
    assert "4 frames of 96" in panel.about.text()
    assert "Nominal positions are known" in panel.about.text()
    assert panel.pixel_size.value == pytest.approx((20, 20))
    assert panel.status.text() == "scan can be stitched."
    panel.pixel_size.value = None
    assert "the stated one is used, 20 nm" in panel.pixel_size.note.text()


def test_outlines_hide_show_and_go_with_their_mosaic(
    make, model, scan, run_panel, qtbot
):
    panel, camera = make(scan), host.get_camera(model)
    run_panel(panel)
    camera.center, camera.zoom = (0, 500, 700), 0.5
    run_panel(panel)  # made again it leaves the view as it is
    assert (camera.center[-2:], camera.zoom) == ((500, 700), 0.5)
    mosaic = model.layers["scan mosaic"]
    drawn = [item for item in model.layers if item is not mosaic]
    assert len(drawn) == 3
    panel.helpers.value = True
    for shown in (False, True):
        mosaic.visible = shown
        assert [item.visible for item in drawn] == [shown] * 3
    before = list(model.layers)
    model.layers.selection = {mosaic}
    model.layers.remove_selected()
    qtbot.waitUntil(lambda: not model.layers)
    panel.history.undo()
    assert list(model.layers) == before


@pytest.mark.broad
def test_heights_are_offered_where_there_are_any(
    make, model, scan, tmp_path, finish, run_panel
):
    napari_semsr.simulate(
        tmp_path / "series", phantom="particles", frames_grid=(1, 2), frame_px=96,
        field="square", focal_series=3, seed=5, overlap=0.4,
    )  # fmt: skip
    for frame in (tmp_path / "series").glob("*.tif"):
        frame.unlink()  # as a user has it: frames in the folders alone
    panel = make(scan)
    assert panel.focus.native.isHidden()
    panel.folder.value = tmp_path / "series"
    finish(panel)
    assert not panel.focus.native.isHidden()
    assert "There are 3 heights" in panel.about.text()
    assert panel.focus.value == "max"
    run_panel(panel)
    mosaic, height = model.layers["series mosaic"], model.layers["series height"]
    assert model.layers.selection.active is mosaic
    assert not height.visible
    np.testing.assert_allclose(height.scale, mosaic.scale)
    panel.focus.value = "none"
    assert "set 'Heights: all, where sharpest'" in run_panel(panel)


def test_layers_lie_together_in_nm(make, model, scan, finish, run_panel):
    panel = make(scan)
    camera = host.get_camera(model)
    camera.center, camera.zoom = (0, -1e6, 1e6), 1e-3
    panel.show_button.click()
    finish(panel)
    assert "Stitched 4 of 4 frames" in run_panel(panel)
    assert units(model) == NM
    mosaic = model.layers["scan mosaic"]
    middle = np.mean(mosaic.extent.world, axis=0)
    np.testing.assert_allclose(camera.center[-2:], middle)
    assert model.layers.selection.active is mosaic
    low, high = mosaic.contrast_limits
    assert np.nanmin(mosaic.data) <= low < high <= np.nanmax(mosaic.data)
    drawn = [
        model.layers[f"scan · {name}"]
        for name in ("nominal outlines", "outlines", "overlaps")
    ]
    for layer in (mosaic, *drawn):
        np.testing.assert_allclose(layer.scale, 20)
    assert not model.layers["scan frames, nominal"].visible
    _, solved, joints = drawn
    found = np.array([box.min(axis=0) + 0.5 for box in solved.data])
    table = solved.features[["y_px", "x_px"]].to_numpy()
    np.testing.assert_allclose(found, table, atol=1e-4)
    assert list(solved.features["frame"]) == [f"frame_00{n}.tif" for n in range(4)]
    assert joints.features["used"].sum() >= 3
    assert all(len(line) == 2 for line in joints.data)
    told = panel.findings()
    assert told.numbers["RMS residual"].unit == "px"
    (residuals, *_) = panel.plot.axes[0].get_lines()
    panel.plot.canvas.draw()
    assert all(axes.get_position().height > 0.2 for axes in panel.plot.axes)
    residual = told.curves["joints"]["residual (px)"]
    assert np.isfinite(residual).sum() >= len(residuals.get_xdata()) > 0
    assert len(told.curves["frames"]["frame"]) == 4


@pytest.mark.broad
def test_coverage_is_laid_over_the_mosaic(make, model, scan, run_panel, qtbot):
    panel = make(scan)
    run_panel(panel)
    before = list(model.layers)
    assert not panel.coverage.value

    def tick(shown: bool) -> list:
        panel.coverage.native.setChecked(shown)
        count = len(before) + shown
        qtbot.waitUntil(lambda: len(model.layers) == count, timeout=LIMIT_MS)
        return [layer for layer in model.layers if layer.name.endswith("coverage")]

    [layer] = tick(True)
    mosaic = model.layers["scan mosaic"]
    counts = np.asarray(layer.data)
    np.testing.assert_array_equal(counts == 0, np.isnan(mosaic.data))
    assert counts.max() == layer.contrast_limits[1] == 4
    colours = layer.colormap.map(np.arange(5) / 4)
    assert (layer.opacity, colours[0, 3]) == (0.5, 0)  # transparent without a frame
    assert len(np.unique(colours[1:].round(3), axis=0)) == 4
    np.testing.assert_allclose(layer.extent.world, mosaic.extent.world)
    assert "Stitched" in panel.status.text()
    assert layer not in list_grey_layers(model)
    run_panel(panel)  # a coverage of the new mosaic takes its place
    qtbot.waitUntil(lambda: layer not in model.layers, timeout=LIMIT_MS)
    assert tick(False) == []
    model.layers.remove("scan mosaic")
    panel.coverage.native.setChecked(True)
    assert "stitch it again" in panel.status.text()
    assert not panel.coverage.value


def test_frame_that_is_left_out_is_listed(make, model, scan, tmp_path, run_panel):
    shutil.copytree(scan, tmp_path / "bad")
    path = tmp_path / "bad" / "frame_003.tif"
    path.write_bytes(path.read_bytes()[:3000])
    panel = make(path.parent)
    assert "frame_003.tif" in panel.about.text()
    assert "3 of 4" in run_panel(panel)
    assert "frame_003.tif" in panel.trouble.text()
    assert len(model.layers["bad · outlines"].data) == 3


@pytest.mark.broad
def test_a_calibration_gives_pixel_size_and_distortion(
    make, scan, run_panel, finish, tmp_path
):
    panel = make(scan)
    path = tmp_path / "c.json"
    told = {
        "pixel_size_nm": [25, 25], "pixel_size_sd_nm": [0.1, 0.1],
        "distortion": 0.004, "distortion_sd": 0.001, "shape": [192, 192],
    }  # fmt: skip
    path.write_text(json.dumps(told))
    panel.calibration.value = path
    assert panel.pixel_size.value == (25, 25)
    assert not panel.pixel_size.isEnabled()
    said = "0.4 \N{PLUS-MINUS SIGN} 0.1 % at the edge of the field"
    assert said in panel.calibration_label.text()
    run_panel(panel)
    bent = str(panel.findings().numbers["Distortion"])
    assert bent.startswith("0.1 \N{PLUS-MINUS SIGN} 0.025 %")
    panel.look()  # what the scan says does not come back
    finish(panel)
    assert panel.pixel_size.value == (25, 25)
    path.write_text("{}")
    panel.calibration.line_edit.value = ""
    assert panel.pixel_size.isEnabled()
    assert panel.options().known_distortion is None
    panel.calibration.value = path
    assert "must contain pixel_size_nm" in panel.status.text()
    assert "must contain pixel_size_nm" in run_panel(panel)


def test_frames_in_colour_are_looked_into_again_when_asked(make, rng, finish, tmp_path):
    for index, frame in enumerate(rng.integers(0, 256, (2, 64, 64, 3), np.uint8)):
        Image.fromarray(frame).save(tmp_path / f"f{index}.png")
    panel = make(tmp_path)
    assert "Colour image" in panel.status.text()
    panel.form.set_values(colour="luminance")
    finish(panel)
    assert "2 frames" in panel.about.text()
    assert panel.options().colour == "luminance"


def test_bad_requests_are_one_sentence(make, scan, finish, run_panel):
    panel = make()
    assert "Choose a folder of frames under" in run_panel(panel)
    panel.folder.value = scan
    finish(panel)
    panel.grid.value = "3x3"
    assert "needs 9 frames, got 4" in run_panel(panel)
    panel.grid.value = ""
    panel.flat.value = "file"
    assert "Choose a file under File" in run_panel(panel)


@pytest.mark.broad
def test_positions_that_are_damaged_need_not_be_used(make, scan, tmp_path, run_panel):
    folder = shutil.copytree(scan, tmp_path / "scan")
    (folder / "positions.csv").unlink()
    (folder / "scan.json").unlink()  # its grid gives positions, too
    (folder / "TileConfiguration.txt").write_text("dim = 9")
    panel = make(folder)
    assert "'Positions: none: not used'" in run_panel(panel)
    panel.position_source.value = "none"
    assert "Stitched 4 of 4 frames" in run_panel(panel)
    assert "stage error" not in panel.figures.text()


def test_cancel_leaves_nothing(make, model, scan, finish):
    panel = make(scan)
    before = set(results.get_cache_folder().iterdir())
    panel.run_button.click()
    panel.cancel_button.click()
    finish(panel)
    assert "cancelled" in panel.status.text()
    assert len(model.layers) == 0
    assert set(results.get_cache_folder().iterdir()) == before
