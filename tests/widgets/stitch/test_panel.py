"""A folder of frames in the panel: mosaic, outlines, joints, and what is said."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from magicgui.types import FileDialogMode
from matplotlib import colormaps
from napari.utils.notifications import notification_manager
from PIL import Image

import napari_semsr
from napari_semsr.stitching.solution import PairReport
from napari_semsr.widgets import host
from napari_semsr.widgets.base import results
from napari_semsr.widgets.base.places import is_temporary
from napari_semsr.widgets.layers import list_grey_layers
from napari_semsr.widgets.measure.frc_map import FrcMapPanel
from napari_semsr.widgets.open_mosaic import OpenMosaicPanel
from napari_semsr.widgets.stitch.panel import (
    StitchMosaicPanel,
    get_overlap_colour,
)
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
def bad_scan(scan, tmp_path):
    """The scan with its last frame cut short."""
    folder = tmp_path / "bad"
    shutil.copytree(scan, folder)
    path = folder / "frame_003.tif"
    path.write_bytes(path.read_bytes()[:3000])
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


@pytest.mark.parametrize(
    "names",
    [
        ["frame_000.tif"],
        ["positions.csv"],
        ["frame_000.tif", "positions.csv"],
        ["frame_000.tif", "frame_001.tif", "scan.json"],
    ],
)
def test_a_folder_without_all_frames_is_no_error_before_it_is_stitched(
    make, scan, tmp_path, run_panel, names
):
    for name in names:
        shutil.copy(scan / name, tmp_path)
    shown = len(notification_manager.records)
    panel = make(tmp_path)
    assert "Follow this folder" in panel.about.text()
    assert not panel.status.text()
    assert len(notification_manager.records) == shown
    run_panel(panel)
    assert len(notification_manager.records) == shown + 1


def test_folder_says_what_it_holds(make, scan):
    panel = make(scan)
    assert "4 frames of 96" in panel.about.text()
    assert "Nominal positions are known" in panel.about.text()
    assert panel.pixel_size.value == pytest.approx((20, 20))
    assert panel.status.text() == "scan can be stitched."
    panel.pixel_size.value = None
    assert "the stated one is used, 20 nm" in panel.pixel_size.note.text()


@pytest.mark.broad
def test_no_residuals_are_drawn_of_joints_without_a_loop(make, tmp_path, run_panel):
    napari_semsr.simulate(
        tmp_path / "two", phantom="particles", frames_grid=(1, 2), frame_px=96,
        field="square", overlap=0.4, seed=5,
    )  # fmt: skip
    panel = make(tmp_path / "two")
    panel.halves.value = False
    assert "Stitched 2 of 2 frames" in run_panel(panel)
    assert not panel.plot.axes[0].get_lines()


def test_outlines_hide_show_and_go_with_their_mosaic(
    make, model, scan, run_panel, qtbot
):
    panel = make(scan)
    run_panel(panel)
    mosaic = model.layers["scan mosaic"]
    drawn = [item for item in model.layers if item is not mosaic]
    assert len(drawn) == 3
    panel.helpers.value = True
    mosaic.visible = False
    assert not any(item.visible for item in drawn)
    mosaic.visible = True
    assert all(item.visible for item in drawn)
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
        tmp_path / "series", phantom="particles", frames_grid=(2, 2), frame_px=96,
        field="square", focal_series=3, seed=5,
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
    assert height.colormap.name == "viridis"
    np.testing.assert_allclose(height.scale, mosaic.scale)
    assert is_temporary(height.metadata["semsr store"])
    run_panel(panel)
    assert [layer.name for layer in model.layers].count("series height") == 1
    panel.focus.value = "none"
    assert "set 'Heights: all, where sharpest'" in run_panel(panel)
    panel.folder.value = scan
    finish(panel)
    assert panel.focus.native.isHidden()
    assert panel.options().focus == "none"


def test_layers_lie_together_in_nm(make, model, scan, finish, run_panel):
    panel = make(scan)
    panel.show_button.click()
    finish(panel)
    said = run_panel(panel)
    assert "Stitched 4 of 4 frames" in said
    assert units(model) == NM
    mosaic = model.layers["scan mosaic"]
    assert model.layers.selection.active is mosaic
    np.testing.assert_allclose(mosaic.scale, 20)
    assert np.isnan(mosaic.data).any()
    low, high = mosaic.contrast_limits
    assert np.nanmin(mosaic.data) <= low < high <= np.nanmax(mosaic.data)
    for name in ("nominal outlines", "outlines", "overlaps"):
        np.testing.assert_allclose(model.layers[f"scan · {name}"].scale, 20)
    assert not model.layers["scan frames, nominal"].visible

    solved = model.layers["scan · outlines"]
    found = np.array([box.min(axis=0) + 0.5 for box in solved.data])
    table = solved.features[["y_px", "x_px"]].to_numpy()
    np.testing.assert_allclose(found, table, atol=1e-4)
    assert list(solved.features["frame"]) == [f"frame_00{n}.tif" for n in range(4)]
    joints = model.layers["scan · overlaps"]
    assert joints.features["used"].sum() >= 3
    assert all(len(line) == 2 for line in joints.data)


@pytest.mark.broad
def test_figures_and_plots_say_how_far_to_trust_it(make, scan, run_panel):
    panel = make(scan)
    run_panel(panel)
    text = panel.figures.text()
    for word in (
        "residual",
        "px (",
        "nm)",
        "Overlaps",
        "stage error",
        "Remaining shading",
    ):
        assert word in text
    residuals, stage = panel.plot.axes
    assert residuals.get_ylabel() == "Residual (px)"
    assert sum(len(line.get_xdata()) for line in residuals.get_lines()) >= 5
    assert "nominal" in stage.get_xlabel()
    assert panel.results.isVisibleTo(panel)
    assert panel.trouble.text() == ""
    found = panel.findings()
    assert found.numbers["RMS residual"].unit == "px"
    joints, frames = found.curves["joints"], found.curves["frames"]
    drawn = sum(len(line.get_xdata()) for line in residuals.get_lines()[:1])
    assert np.isfinite(joints["residual (px)"]).sum() >= drawn
    assert joints["first frame"][0] == "frame_000.tif"
    assert {"y (px)", "x minus nominal (px)"} <= set(frames)
    assert len(frames["frame"]) == 4


@pytest.mark.broad
def test_coverage_is_laid_over_the_mosaic(make, model, scan, run_panel, qtbot):
    panel = make(scan)
    run_panel(panel)
    before = list(model.layers)
    assert not panel.coverage.value

    def tick(shown: bool) -> list:
        panel.coverage.native.setChecked(shown)
        qtbot.waitUntil(
            lambda: len(model.layers) == len(before) + shown, timeout=LIMIT_MS
        )
        return [layer for layer in model.layers if layer.name.endswith("coverage")]

    [layer] = tick(True)
    mosaic = model.layers["scan mosaic"]
    counts = np.asarray(layer.data)
    np.testing.assert_array_equal(counts == 0, np.isnan(mosaic.data))
    assert counts.max() == 4
    assert tuple(layer.contrast_limits) == (0, 4)
    assert layer.colorbar.visible
    colours = layer.colormap.map(np.arange(5) / 4)
    assert colours[0, 3] == 0  # where no frame lies
    assert len(np.unique(colours[1:].round(3), axis=0)) == 4
    np.testing.assert_allclose(layer.scale, mosaic.scale)
    np.testing.assert_allclose(layer.translate, mosaic.translate)
    assert units(model) == NM
    assert "covered by up to 4 frames" in panel.status.text()
    assert layer not in list_grey_layers(model)
    assert layer not in panel.result_layers.own
    assert model.layers.selection.active is mosaic
    assert tick(False) == []
    [layer] = tick(True)
    run_panel(panel)  # a coverage of the new mosaic takes its place
    qtbot.waitUntil(lambda: len(model.layers) == len(before) + 1, timeout=LIMIT_MS)
    assert layer not in model.layers
    model.layers.remove("scan mosaic")
    before = [item for item in model.layers if not item.name.endswith("coverage")]
    assert tick(False) == []
    panel.coverage.native.setChecked(True)
    assert "stitch it again" in panel.status.text()
    assert not panel.coverage.value


def test_frame_that_is_left_out_is_listed(make, model, bad_scan, run_panel):
    panel = make(bad_scan)
    assert "frame_003.tif" in panel.about.text()
    assert "3 of 4" in run_panel(panel)
    assert "frame_003.tif" in panel.trouble.text()
    assert len(model.layers["bad · outlines"].data) == 3


@pytest.mark.broad
def test_mosaic_is_saved_where_it_is_wanted(make, scan, tmp_path, run_panel):
    panel = make(scan)
    panel.output.value = tmp_path / "wanted"
    run_panel(panel)
    store = tmp_path / "wanted.ome.zarr"
    assert napari_semsr.read(store).pixel_size_nm == (20, 20)
    assert (store / "labels" / "coverage" / "0").is_dir()
    assert "exists" in run_panel(panel)
    panel.existing.value = True
    assert "Stitched " in run_panel(panel)


@pytest.mark.broad
def test_halves_are_written_beside_and_tell_the_resolution(
    make, model, scan, tmp_path, run_panel, qtbot
):
    panel = make(scan)
    panel.output.value = tmp_path / "m.ome.zarr"
    assert panel.halves.value  # else the next step has nothing to measure
    run_panel(panel)
    assert (tmp_path / "m.half-a.ome.zarr").is_dir()
    assert "(2 frames)" in panel.figures.text()
    resolution = FrcMapPanel(model)
    qtbot.addWidget(resolution)
    resolution.first.value = model.layers["scan mosaic"]
    resolution.second.value = None
    assert "halves of this mosaic" in resolution.advice.text()
    resolution.form.set_values(block=32, step=16)
    run_panel(resolution)
    assert "mosaic-halves" in resolution.figures.text()
    resolution.split_mosaic.value = True
    assert not resolution.advice.text()
    run_panel(resolution)
    assert "single-image" in resolution.figures.text()
    resolution.split_mosaic.value = False
    shutil.rmtree(tmp_path / "m.half-b.ome.zarr")
    assert "but not the other half" in run_panel(resolution)
    resolution.split_mosaic.value = True
    run_panel(resolution)
    assert "single-image" in resolution.figures.text()


@pytest.mark.broad
def test_distortion_is_a_number_with_its_deviation(make, scan, run_panel):
    panel = make(scan)
    assert panel.options().distortion == "auto"
    run_panel(panel)
    found = panel.findings().numbers["Distortion"]
    assert (found.value, found.unit) == (0, "%")
    assert str(found).startswith("0 \N{PLUS-MINUS SIGN} 0.")
    panel.distortion.value = "none"
    run_panel(panel)
    assert panel.findings().numbers["Distortion"].value == "not measured"
    panel.distortion.value = "number"
    assert not panel.distortion_amount.native.isHidden()
    panel.distortion_amount.value = 0.02
    assert panel.options().distortion == 0.02
    run_panel(panel)
    assert str(panel.findings().numbers["Distortion"]) == "2 % at the rim"


@pytest.mark.parametrize("name", ["calibration", "positions", "flat_file"])
def test_input_files_are_chosen_in_a_dialog_for_existing_files(make, name):
    assert getattr(make(), name).mode is FileDialogMode.EXISTING_FILE


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
    assert (
        "0.4 \N{PLUS-MINUS SIGN} 0.1 % at the edge of the field"
        in panel.calibration_label.text()
    )
    assert panel.distortion.current_choice == "from the calibration"
    run_panel(panel)
    bent = str(panel.findings().numbers["Distortion"])
    assert bent.startswith("0.1 \N{PLUS-MINUS SIGN} 0.025 %")
    assert "by calibration" in bent
    panel.look()  # what the scan says does not come back
    finish(panel)
    assert panel.pixel_size.value == (25, 25)
    path.write_text("{}")
    panel.calibration.line_edit.value = ""
    assert panel.pixel_size.isEnabled()
    assert panel.options().known_distortion is None
    assert panel.distortion.value == "auto"
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


def test_cancel_leaves_nothing(make, model, scan, finish):
    panel = make(scan)
    before = set(results.get_cache_folder().iterdir())
    panel.run_button.click()
    panel.cancel_button.click()
    finish(panel)
    assert "cancelled" in panel.status.text()
    assert len(model.layers) == 0
    assert set(results.get_cache_folder().iterdir()) == before


def test_bad_requests_are_one_sentence(make, scan, finish, run_panel):
    panel = make()
    assert "Choose a folder of frames first" in run_panel(panel)
    panel.show_button.click()
    assert "Choose a folder of frames first" in panel.status.text()
    panel.folder.value = scan
    finish(panel)
    panel.grid.value = "3x3"
    assert "needs 9 frames, got 4" in run_panel(panel)
    panel.grid.value = ""
    panel.flat.value = "file"
    assert panel.flat_file.native.isVisibleTo(panel)
    assert "Choose a flat-field file" in run_panel(panel)


@pytest.mark.broad
def test_uncalibrated_frames_stay_in_pixels_until_their_size_is_typed(
    make, model, hold, tmp_path, run_panel
):
    rng = np.random.default_rng(1)
    image = rng.random((170, 170)).repeat(2, axis=0).repeat(2, axis=1)
    napari_semsr.simulate(
        tmp_path / "bare", image, frames_grid=(1, 2), frame_px=128, overlap=0.4,
        field="square",
    )  # fmt: skip
    panel = make(tmp_path / "bare")
    assert "2 of 2" in run_panel(panel)
    assert units(model) == ["pixel", "pixel"]
    assert "not calibrated" in panel.trouble.text()
    assert "nm)" not in panel.figures.text()
    opened = hold(OpenMosaicPanel(model))
    opened.focus_pixel_size(model.layers["bare mosaic"])
    opened.calibrate.pixel_size.height_box.value = 20.0
    opened.calibrate.apply_button.click()
    drawn = [item for item in model.layers if "bare" in item.name]
    assert len(drawn) > 2
    for item in drawn:  # outlines and joints, too
        assert tuple(item.scale) == (20, 20)
    assert units(model) == NM
    opened.calibrate.undo_button.click()
    assert units(model) == ["pixel", "pixel"]


@pytest.mark.broad
def test_sample_is_a_folder_that_can_be_stitched(make, model, monkeypatch):
    from napari_semsr import jobs
    from napari_semsr.jobs.simulate import SIMULATE, SimulateOptions
    from napari_semsr.widgets.samples import superlens_scan

    small = SimulateOptions(frames_grid=(1, 2), frame_px=48)
    made = SimpleNamespace(
        job=lambda out_dir, options: SIMULATE.job(out_dir=out_dir, options=small)
    )
    monkeypatch.setattr(jobs, "SIMULATE", made)
    for data, attributes, kind in superlens_scan():
        getattr(model, f"add_{kind}")(data, **attributes)
    assert [type(layer).__name__ for layer in model.layers] == ["Image", "Shapes"]
    panel = make()
    assert "2 frames" in panel.about.text()
    assert (panel.folder.value / "truth" / "positions.csv").is_file()


def test_colours_tell_used_from_doubtful():
    used = PairReport(0, 1, (0, 0), 0.8, 9, used=True)
    unsure = PairReport(0, 1, (0, 0), 0.8, 9, used=True, ambiguous=True)
    refused = PairReport(0, 1, (0, 0), 0.8, 9, used=False)
    colours = [get_overlap_colour(pair) for pair in (used, unsure, refused)]
    assert colours[0] == colormaps["viridis"](0.8)
    assert len(set(colours)) == 3
    assert colours[2][3] < 1


@pytest.mark.broad
def test_no_error_of_a_stage_is_told_of_frames_without_positions(
    make, scan, tmp_path, run_panel
):
    folder = tmp_path / "bare"
    folder.mkdir()
    for frame in scan.glob("*.tif"):
        with Image.open(frame) as opened:
            grey = np.asarray(opened, float)
        Image.fromarray((255 * grey / grey.max()).astype(np.uint8)).save(
            folder / f"{frame.stem}.png"
        )
    panel = make(folder)
    assert "Stitched 4 of 4 frames" in run_panel(panel)
    assert "stage error" not in panel.figures.text()


@pytest.mark.broad
def test_mosaic_fills_the_view_but_when_it_is_made_again(make, model, scan, run_panel):
    panel = make(scan)
    camera = host.get_camera(model)
    camera.center, camera.zoom = (0, -1e6, 1e6), 1e-3
    run_panel(panel)
    middle = np.mean(model.layers["scan mosaic"].extent.world, axis=0)
    np.testing.assert_allclose(camera.center[-2:], middle)
    camera.center, camera.zoom = (0, 500, 700), 0.5
    run_panel(panel)
    assert (camera.center[-2:], camera.zoom) == ((500, 700), 0.5)
