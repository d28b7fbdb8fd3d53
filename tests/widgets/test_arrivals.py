"""What a viewer shows with the images that come in: bars, their unit, a place."""

import numpy as np
import pytest
from napari.utils.notifications import notification_manager

from napari_semsr.core import Micrograph
from napari_semsr.io import write

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
def notified():
    """List what the viewer says, but for what napari itself has to say of units."""
    texts = []

    def hear(notification):
        if "Inconsistent units" not in notification.message:
            texts.append(notification.message)

    notification_manager.notification_ready.connect(hear)
    yield texts
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


def test_what_has_no_pixel_size_is_no_speck_and_is_told(viewer, tmp_path, notified):
    opened(viewer, tmp_path, image("large", 500.0), "large.ome.tif")
    zoom = viewer.scene.camera.zoom
    opened(viewer, tmp_path, image("bare"), "bare.png")
    middle = np.asarray(viewer.scene.camera.center[-2:])
    np.testing.assert_allclose(middle, (SIDE - 1) / 2)
    assert viewer.scene.camera.zoom == pytest.approx(500 * zoom, rel=0.05)
    (text,) = notified
    assert text.startswith("bare has no pixel size, and others have")


def test_a_second_mosaic_is_fitted_into_view(viewer, tmp_path, notified):
    opened(viewer, tmp_path, image("small", 5.0), "small.ome.tif")
    zoom = viewer.scene.camera.zoom
    opened(viewer, tmp_path, image("large", 50.0), "large.ome.tif")
    assert viewer.scene.camera.zoom == pytest.approx(zoom / 10, rel=0.05)
    assert not notified
