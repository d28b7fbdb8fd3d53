import numpy as np
import pytest
import tifffile
from PIL import Image
from qtpy.QtCore import QPoint, Qt

from napari_semsr.core import Micrograph, parse_pixel_size
from napari_semsr.io import READ_KEY, crop_bottom_rows, write
from napari_semsr.widgets import host
from napari_semsr.widgets.base.results import get_databar_row_count
from napari_semsr.widgets.layers import micrograph_from_layer
from napari_semsr.widgets.open_mosaic import OpenMosaicPanel

GRAIN = np.random.default_rng(0).integers(0, 255, (90, 120), dtype=np.uint8)


@pytest.fixture
def panel(model, hold) -> OpenMosaicPanel:
    return hold(OpenMosaicPanel(model))


@pytest.fixture
def sized(tmp_path):
    path = tmp_path / "sized.tif"
    write(Micrograph(GRAIN, parse_pixel_size(12.5), "sized"), path)
    return path


def choose(panel, path, finish):
    panel.path.value = path
    finish(panel)


def test_file_is_shown_and_opened_calibrated(panel, model, sized, finish, run_panel):
    choose(panel, sized, finish)
    assert panel.pixel_size.value == (12.5, 12.5)
    assert "12.5 nm" in panel.about.text()
    said = run_panel(panel)
    layer = model.layers[0]
    assert "12.5 nm" in said
    assert micrograph_from_layer(layer).pixel_size_nm == pytest.approx((12.5, 12.5))
    np.testing.assert_array_equal(layer.data, GRAIN)
    assert not layer.rgb
    assert layer.axis_labels == ("y", "x")
    assert host.get_scale_bar(model).visible


def test_corrected_pixel_size_and_typed_rows_reach_the_layer(
    panel, model, sized, finish, run_panel
):
    choose(panel, sized, finish)
    panel.pixel_size.height_box.value = 20.0
    panel.bar.value = 30
    run_panel(panel)
    assert micrograph_from_layer(model.layers[0]).pixel_size_nm == (20.0, 20.0)
    np.testing.assert_array_equal(model.layers[0].data, GRAIN[:60])


def test_an_image_without_a_pixel_size_is_fitted_to_the_field_in_view(
    panel, model, sized, tmp_path, finish, run_panel
):
    choose(panel, sized, finish)
    run_panel(panel)
    first = model.layers[0]
    first.scale = (5000, 5000)
    model.reset_view()
    camera = host.get_camera(model)
    camera.zoom *= 2  # of 90 rows, 45 are in view or fewer
    before = camera.center, camera.zoom
    write(Micrograph(GRAIN, None, "bare"), tmp_path / "bare.png")
    choose(panel, tmp_path / "bare.png", finish)
    said = run_panel(panel)
    assert "shown at the size of the field in view" in said
    bare = model.layers[1]
    assert [layer.visible for layer in model.layers] == [True, True]
    assert (camera.center, camera.zoom) == before
    high, wide = host.get_viewbox_size(model) / camera.zoom
    shown = np.ptp(bare.extent.world[:, -2:], axis=0)
    assert shown[0] <= high * 1.01
    assert shown[1] <= wide * 1.01
    assert max(shown[0] / high, shown[1] / wide) > 0.9
    # nothing that is measured or saved has changed
    image = micrograph_from_layer(bare)
    assert (image.pixel_size_nm, image.spacing_px) == (None, (1.0, 1.0))
    assert image.origin == (0.0, 0.0)
    panel.focus_pixel_size(bare)
    assert panel.calibrate.layer.value is bare
    panel.calibrate.pixel_size.value = (7.0, 7.0)
    panel.calibrate.apply_typed_size()
    assert micrograph_from_layer(bare).pixel_size_nm == (7.0, 7.0)
    np.testing.assert_array_equal(bare.affine.affine_matrix, np.eye(3))


def test_dataset_of_an_hdf5_file_is_chosen(panel, model, tmp_path, finish, run_panel):
    h5py = pytest.importorskip("h5py", reason="needs h5py, the extra [hdf5]")
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["low"] = GRAIN[:40]
        file["high"] = np.stack([GRAIN, GRAIN // 2])
        file["low"].attrs["element_size_um"] = [1, 0.05, 0.05]
    choose(panel, path, finish)
    assert panel.dataset.choices == ("/high", "/low")
    assert panel.dataset.value == "/high"
    assert not panel.form.get_widget("plane").native.isHidden()
    panel.dataset.value = "/low"
    finish(panel)
    assert panel.form.get_widget("plane").native.isHidden()
    assert panel.pixel_size.value == (50.0, 50.0)
    run_panel(panel)
    np.testing.assert_array_equal(model.layers[0].data, GRAIN[:40])
    assert model.layers[0].metadata["semsr read"] == {"dataset": "/low"}


def test_an_image_in_colour_opens_by_one_tick(
    panel, model, tmp_path, finish, run_panel, qtbot
):
    colour = np.zeros((96, 128, 3), np.uint8)
    colour[..., 0] = np.arange(128)
    Image.fromarray(colour).save(tmp_path / "photo.png")
    choose(panel, tmp_path / "photo.png", finish)
    panel.show()
    assert "is a colour image; tick 'Use its luminance'" in panel.status.text()
    assert "tick 'Use its luminance'" in run_panel(panel)
    assert not model.layers
    tick = panel.luminance.native
    place = QPoint(8, tick.height() // 2)
    qtbot.mouseClick(tick, Qt.MouseButton.LeftButton, pos=place)
    assert "can be opened" in panel.status.text()
    run_panel(panel)
    assert (model.layers[0].rgb, model.layers[0].ndim) == (False, 2)
    Image.fromarray(colour[..., 0]).save(tmp_path / "grey.png")
    choose(panel, tmp_path / "grey.png", finish)
    assert tick.isHidden()
    assert "grey.png can be opened" in panel.status.text()


def test_rows_and_pixel_size_are_those_of_level_0(
    panel, model, tmp_path, finish, run_panel
):
    image = np.random.default_rng(2).integers(60, 200, (400, 300), dtype=np.uint8)
    image[-60:] = 0
    image[-40:-30, 20:200:7] = 255
    with tifffile.TiffWriter(tmp_path / "bar.tif") as file:
        how = {"tile": (64, 64), "metadata": None, "photometric": "minisblack"}
        file.write(image, subifds=1, **how)
        file.write(image[::2, ::2], subfiletype=1, **how)
    choose(panel, tmp_path / "bar.tif", finish)
    assert "60 rows look like a data bar" in panel.bar_note.text()
    panel.form.set_values(level=1)
    panel.pixel_size.value = (10.0, 10.0)
    run_panel(panel)
    (layer,) = model.layers
    rows = get_databar_row_count(layer)
    cropped = crop_bottom_rows(layer.as_layer_data_tuple(), rows)
    assert cropped[1]["metadata"][READ_KEY]["databar_rows"] == 60
    panel.bar_button.click()
    finish(panel)
    (layer,) = model.layers
    np.testing.assert_array_equal(layer.data, image[:-60:2, ::2])
    assert tuple(layer.scale) == (20, 20)
