"""What a viewer shows with the images that come in: bars, their unit, a place."""

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from PIL import Image as Picture

from napari_semsr.core import Micrograph
from napari_semsr.io import get_reader, write
from napari_semsr.widgets import host
from napari_semsr.widgets.base import watch_images
from napari_semsr.widgets.base.results import crop_databar, get_databar_row_count
from napari_semsr.widgets.hooks import watch_viewer
from napari_semsr.widgets.open_mosaic import OpenMosaicPanel
from napari_semsr.widgets.window import StepsWindow

SIDE = 64


def image(name, size_nm=None):
    """Draw a ramp."""
    grey = np.add.outer(np.arange(SIDE), np.arange(SIDE)).astype(np.uint8)
    return Micrograph(grey, None if size_nm is None else (size_nm, size_nm), name)


def bar(viewer):
    return host.get_scale_bar(viewer)


@pytest.fixture
def viewer(display, make_napari_viewer):
    """Give a viewer that none of our panels has seen."""
    return make_napari_viewer()


@pytest.fixture
def said():
    """List what the viewer says, but for what napari itself has to say of units."""
    found = []

    def hear(notification):
        if "Inconsistent units" not in notification.message:
            found.append(notification)

    notification_manager.notification_ready.connect(hear)
    yield found
    notification_manager.notification_ready.disconnect(hear)


def open_in(viewer, path):
    """Open a picture that napari does not leave to us, as *Open mosaic* does."""
    watch_viewer()
    for data, attributes, kind in get_reader(str(path))(str(path)):
        getattr(viewer, f"add_{kind}")(data, **attributes)


def opened(viewer, folder, one, name):
    """Write an image, and open it as napari does."""
    write(one, folder / name)
    viewer.open(folder / name, plugin="napari-semsr")
    return viewer.layers[-1]


def test_a_sample_switches_the_scale_bar_on(viewer):
    viewer.open_sample("napari-semsr", "exposures")
    assert bar(viewer).visible


def test_what_has_no_pixel_size_is_no_speck_and_is_told(viewer, tmp_path, said):
    opened(viewer, tmp_path, image("large", 500.0), "large.ome.tif")
    zoom = host.get_camera(viewer).zoom
    opened(viewer, tmp_path, image("bare"), "bare.tif")
    middle = np.asarray(host.get_camera(viewer).center[-2:])
    np.testing.assert_allclose(middle, 500 * (SIDE - 1) / 2)  # the view is kept
    assert host.get_camera(viewer).zoom == zoom
    large, bare = (layer.extent.world for layer in viewer.layers)
    np.testing.assert_allclose(bare, large, atol=500)  # and filled by both
    (notice,) = said
    assert bar(viewer).opacity == 0  # there is no unit that both have
    assert [layer.visible for layer in viewer.layers] == [True, True]
    opened(viewer, tmp_path, image("other", 50.0), "other.ome.tif")
    assert len(said) == 1  # it is asked for once
    assert notice.message.startswith("Not to scale: bare has no pixel size")
    ((text, give),) = notice.actions
    assert text == "Set its pixel size"
    window = StepsWindow(viewer)
    viewer.window.add_dock_widget(window)
    window.show_step(2)
    give(None)
    panel = window.page.panel
    assert isinstance(panel, OpenMosaicPanel)
    assert panel.calibrate.layer.value is viewer.layers["bare"]
    panel.calibrate.pixel_size.height_box.value = 50.0
    panel.calibrate.apply_button.click()
    assert bar(viewer).opacity == 1


def with_bar(folder, colour):
    """Write a grey image stored as RGB, with a data bar below it; give its path."""
    rng = np.random.default_rng(5)
    grey = rng.integers(40, 200, (108, 128, 1), dtype=np.uint8)
    bar = np.zeros((20, 128, 3), np.uint8)
    bar[6:14, 8:100:4] = colour
    path = folder / "exported.png"
    picture = np.concatenate([np.repeat(grey, 3, axis=2), bar])
    Picture.fromarray(picture).save(path)
    return path, grey[..., 0]


@pytest.mark.quick(1)
@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 200, 0)])
def test_a_data_bar_is_found_and_one_press_crops_it(viewer, tmp_path, colour, said):
    path, grey = with_bar(tmp_path, colour)
    panel = OpenMosaicPanel(viewer)
    viewer.window.add_dock_widget(panel)
    open_in(viewer, path)
    assert not viewer.layers[0].rgb
    assert [item.message for item in said] == ["Data bar below row 108, in exported."]
    said.clear()
    assert panel.input_layers.databar_button.isVisibleTo(panel)
    assert panel.input_layers.databar_button.text() == "Data bar below row 108: crop it"
    (kept,) = viewer.layers
    viewer.layers.clear()
    assert not panel.input_layers.databar_button.isVisibleTo(panel)
    viewer.add_layer(kept)
    panel.input_layers.databar_button.click()
    (layer,) = viewer.layers
    assert layer.name == "exported"
    np.testing.assert_array_equal(layer.data, grey)
    assert not panel.input_layers.databar_button.isVisibleTo(panel)


def test_a_crop_keeps_calibration_and_look(viewer, tmp_path):
    path, grey = with_bar(tmp_path, (255, 255, 255))
    open_in(viewer, path)
    (layer,) = viewer.layers
    layer.scale, layer.translate, layer.units = (7, 5), (30, 40), ("nm", "nm")
    layer.contrast_limits, layer.colormap = (3, 99), "magma"
    crop_databar(viewer, layer)
    (cut,) = viewer.layers
    assert not get_databar_row_count(cut)
    np.testing.assert_array_equal(cut.data, grey)
    assert (cut.scale.tolist(), cut.translate.tolist()) == ([7, 5], [30, 40])
    assert (cut.units, cut.contrast_limits) == (layer.units, [3, 99])
    assert cut.colormap.name == "magma"
    assert cut.metadata["micrograph"]["databar_rows_cropped"] == 20


def test_the_field_in_view_stays_when_a_dock_narrows_the_canvas(model):
    if not hasattr(model, "canvas"):
        pytest.skip("before napari 0.9 the canvas is private")
    watch_images(model)
    model.add_image(np.zeros((60, 80)))
    camera, size = host.get_camera(model), tuple(model.canvas.size)
    camera.zoom = before = 3.0
    model.canvas.size = (size[0], size[1] // 2)
    assert camera.zoom == pytest.approx(before / 2)
    model.canvas.size = size
    assert camera.zoom == pytest.approx(before)
