import numpy as np
import pytest

from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.widgets.crop import CropControls
from napari_semsr.widgets.layers import micrograph_from_layer
from napari_semsr.widgets.open_mosaic import OpenMosaicPanel
from tests.widgets.scenes import grain

WIDE = grain((320, 300), seed=3)


@pytest.fixture
def opener(model, hold, add) -> OpenMosaicPanel:
    size = parse_pixel_size(10)
    add(model, Micrograph(WIDE, size, "wide", origin=(0.0, 0.0)))
    # says that it lies 30 nm higher than it does
    add(model, Micrograph(WIDE[40:260, 50:270], size, "part", origin=(370.0, 500.0)))
    return hold(OpenMosaicPanel(model))


@pytest.fixture
def panel(opener) -> CropControls:
    return opener.crop


@pytest.fixture
def run_crop(run_panel):
    return lambda crop: run_panel(crop.panel, crop.crop_button)


def _shown(model, name) -> Micrograph:
    return micrograph_from_layer(model.layers[name])


def test_two_layers_are_cut_alike(panel, model, run_crop):
    assert (panel.layer.value.name, panel.like.value.name) == ("part", "wide")
    assert "Cropped part to 220 × 220 px." in run_crop(panel)  # noqa: RUF001
    one, two = (_shown(model, f"{name} · crop") for name in ("part", "wide"))
    assert one.origin == two.origin == (370, 500)
    np.testing.assert_array_equal(two.array(), WIDE[37:257, 50:270])
    assert "rows 37 to 257" in panel.panel.figures.text()
    assert model.layers["part"].visible


def test_what_cannot_be_cut_is_told_in_panel_words(panel, model, add, run_crop):
    panel.like.value = panel.layer.value
    assert "choose another image" in run_crop(panel)
    panel.like.value = model.add_shapes(name="empty")
    assert "draw one first" in run_crop(panel)
    panel.layer.value = add(model, Micrograph(WIDE, name="bare"))
    panel.like.value = model.layers[0]
    said = run_crop(panel)
    assert said.endswith("but bare has none: set it ('Pixel size').")


@pytest.mark.quick(1)
@pytest.mark.parametrize("size", [parse_pixel_size(10), None])
def test_a_rectangle_is_drawn_at_the_press_of_a_button(
    model, hold, add, run_crop, size
):
    image = add(model, Micrograph(WIDE, size, "wide"))
    panel = hold(OpenMosaicPanel(model)).crop
    panel.draw_button.click()
    drawn = panel.like.value
    assert drawn is model.layers.selection.active
    assert drawn.mode == "add_rectangle"
    assert panel.layer.value is image
    panel.draw_button.click()  # takes the same layer
    assert len(model.layers) == 2
    corners = [[10.4, 20.4], [10.4, 40.4], [30.4, 40.4], [30.4, 20.4]]
    drawn.add_rectangles(np.array(corners))  # in pixels of the image
    run_crop(panel)
    found = _shown(model, "wide · crop")
    np.testing.assert_array_equal(found.array(), WIDE[11:31, 21:41])
