"""Layers of napari's own readers: their pixel size and colour, by one click."""

import numpy as np
import pytest
import tifffile
from napari.layers import Image
from qtpy.QtCore import Qt

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.io.formats import write
from napari_semsr.widgets.layers import micrograph_from_layer
from napari_semsr.widgets.measure.quality import QualityPanel
from napari_semsr.widgets.register.panel import RegisterPanel

GRAIN = np.random.default_rng(0).integers(0, 255, (90, 120), dtype=np.uint8)


def open_by_napari(model, folder, name, size, pixels=GRAIN):
    """Open a file as napari's own reader does: its pixels, and where they are from."""
    path = folder / f"{name}.tif"
    write(Micrograph(pixels, size, name), path)
    layer = Image(tifffile.imread(path), name=name)
    layer._set_source(layer.source.model_copy(update={"path": str(path)}))  # noqa: SLF001
    return model.add_layer(layer)


def press(qtbot, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def test_a_stated_pixel_size_is_taken_by_one_click(model, tmp_path, hold, qtbot):
    first = open_by_napari(model, tmp_path, "first", (12.5, 12.5))
    second = open_by_napari(model, tmp_path, "second", (5.0, 5.0))
    open_by_napari(model, tmp_path, "without", None)
    panel = hold(RegisterPanel(model))
    panel.show()
    panel.moving.value, panel.fixed.value = first, second
    assert "The files of 2 layers state" in panel.input_layers.size_button.text()
    panel.resize(320, 800)
    assert panel.content.width() <= 320  # a long text breaks
    press(qtbot, panel.input_layers.size_button)
    sizes = [micrograph_from_layer(one).pixel_size_nm for one in (first, second)]
    assert sizes == [(12.5, 12.5), (5.0, 5.0)]
    origin = micrograph_from_layer(first).pixel_size_from
    assert origin == "by the file first.tif"
    assert panel.input_layers.size_button.isHidden()


def test_a_size_is_offered_of_the_very_image_alone(model, tmp_path, hold):
    layer = open_by_napari(model, tmp_path, "first", (12.5, 12.5))
    layer.data = GRAIN[:, :60]
    panel = hold(QualityPanel(model))
    panel.show()
    assert panel.image.value is layer
    assert panel.input_layers.size_button.isHidden()


@pytest.mark.parametrize("many", [False, True])
def test_a_layer_in_colour_is_taken_by_one_click(model, hold, qtbot, many):
    colour = np.stack([GRAIN, GRAIN[::-1], GRAIN], axis=-1)
    levels = [colour, colour[::2, ::2]] if many else colour
    photo = model.add_image(levels, rgb=True, multiscale=many, name="photo")
    panel = hold(QualityPanel(model))
    panel.show()
    assert "photo is a colour image" in panel.input_layers.grey_button.text()
    press(qtbot, panel.input_layers.grey_button)
    grey = panel.image.value
    assert (grey.name, grey.rgb, photo.visible) == (
        "photo \N{MIDDLE DOT} luminance",
        False,
        False,
    )
    image = micrograph_from_layer(grey)
    assert image.shape == GRAIN.shape
    assert image.provenance.inputs[0].name == "photo"
    assert panel.input_layers.grey_button.isHidden()
