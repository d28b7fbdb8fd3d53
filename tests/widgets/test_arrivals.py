"""What a viewer shows with the images that come in: bars, their unit, a place."""

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from PIL import Image as Picture

from napari_semsr.core import Micrograph
from napari_semsr.io import write
from napari_semsr.widgets.open_mosaic import OpenMosaicPanel
from napari_semsr.widgets.window.dock import StepsWindow

SIDE = 64


def image(name, size_nm=None, side=SIDE):
    """Draw a ramp."""
    grey = np.add.outer(np.arange(side), np.arange(side)).astype(np.uint8)
    return Micrograph(grey, None if size_nm is None else (size_nm, size_nm), name)


def bar(viewer):
    """Give the scale bar."""
    return viewer.canvas.overlays.scale_bar


@pytest.fixture
def viewer(make_napari_viewer):
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


def opened(viewer, folder, one, name):
    """Write an image, and open it as napari does."""
    write(one, folder / name)
    viewer.open(folder / name, plugin="napari-semsr")
    return viewer.layers[-1]


def test_a_calibrated_file_switches_the_scale_bar_on(viewer, tmp_path):
    opened(viewer, tmp_path, image("a", 5.0), "a.ome.tif")
    assert bar(viewer).visible
    assert {str(unit) for unit in viewer.layers.units} == {"nanometer"}
    bar(viewer).visible = False  # as a person may wish
    opened(viewer, tmp_path, image("b", 5.0), "b.ome.tif")
    assert not bar(viewer).visible


def test_a_file_without_pixel_size_has_no_bar(viewer, tmp_path):
    opened(viewer, tmp_path, image("a"), "a.png")
    assert not bar(viewer).visible


def test_a_sample_switches_the_scale_bar_on(viewer):
    viewer.open_sample("napari-semsr", "exposures")
    assert bar(viewer).visible


def test_what_has_no_pixel_size_is_no_speck_and_is_told(viewer, tmp_path, said):
    opened(viewer, tmp_path, image("large", 500.0), "large.ome.tif")
    zoom = viewer.scene.camera.zoom
    opened(viewer, tmp_path, image("bare"), "bare.png")
    middle = np.asarray(viewer.scene.camera.center[-2:])
    np.testing.assert_allclose(middle, (SIDE - 1) / 2)
    assert viewer.scene.camera.zoom == pytest.approx(500 * zoom, rel=0.05)
    (notice,) = said
    assert bar(viewer).opacity == 0  # there is no unit that both have
    assert [layer.visible for layer in viewer.layers] == [False, True]
    opened(viewer, tmp_path, image("other", 50.0), "other.ome.tif")
    assert len(said) == 1  # it is asked for once
    assert notice.message.startswith("How large is a pixel of bare?")
    ((text, give),) = notice.actions
    assert text == "Give its pixel size"
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


def with_bar(folder, colour, side=128, rows=20):
    """Write a grey image stored as RGB, with a data bar below it; give its path."""
    rng = np.random.default_rng(5)
    grey = rng.integers(40, 200, (side - rows, side, 1), dtype=np.uint8)
    bar = np.zeros((rows, side, 3), np.uint8)
    bar[6:14, 8:100:4] = colour
    path = folder / "exported.png"
    picture = np.concatenate([np.repeat(grey, 3, axis=2), bar])
    Picture.fromarray(picture).save(path)
    return path, grey[..., 0]


@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 200, 0)])
def test_a_data_bar_is_found_and_one_press_crops_it(viewer, tmp_path, colour, said):
    path, grey = with_bar(tmp_path, colour)
    panel = OpenMosaicPanel(viewer)
    viewer.window.add_dock_widget(panel)
    viewer.open(path, plugin="napari-semsr")
    assert not viewer.layers[0].rgb
    assert [item.message for item in said] == ["Data bar below row 108, in exported."]
    said.clear()
    assert panel.databar_button.isVisibleTo(panel)
    assert panel.databar_button.text() == "Data bar below row 108: crop it"
    (kept,) = viewer.layers
    viewer.layers.clear()
    assert not panel.databar_button.isVisibleTo(panel)
    viewer.add_layer(kept)
    panel.databar_button.click()
    (layer,) = viewer.layers
    assert layer.name == "exported"
    np.testing.assert_array_equal(layer.data, grey)
    assert not panel.databar_button.isVisibleTo(panel)


@pytest.mark.broad
def test_a_bar_of_what_a_panel_opened_is_offered_in_the_next_step(
    make_napari_viewer, tmp_path, finish, run_panel
):
    viewer = make_napari_viewer(show=True)
    path, _ = with_bar(tmp_path, (255, 255, 255))
    window = StepsWindow(viewer)
    viewer.window.add_dock_widget(window)
    window.show_step(2)  # so that its panel is there before the image
    window.show_step(0)
    window.page.panel.path.value = path
    finish(window.page.panel)
    run_panel(window.page.panel)
    window.next_button.click()
    offer = window.page.panel.databar_button
    assert (offer.isVisibleTo(window), offer.text()[:24]) == (
        True,
        "Data bar below row 108: ",
    )


def test_the_notice_itself_crops(viewer, tmp_path, said):
    path, grey = with_bar(tmp_path, (0, 255, 0))
    viewer.open(path, plugin="napari-semsr")
    ((text, crop),) = said[0].actions
    assert text == "Crop it"
    crop(None)
    np.testing.assert_array_equal(viewer.layers[0].data, grey)


def test_a_second_mosaic_is_fitted_into_view(viewer, tmp_path, said):
    opened(viewer, tmp_path, image("small", 5.0), "small.ome.tif")
    zoom = viewer.scene.camera.zoom
    opened(viewer, tmp_path, image("large", 50.0), "large.ome.tif")
    assert viewer.scene.camera.zoom == pytest.approx(zoom / 10, rel=0.05)
    assert not said
