"""Stacks: every panel says which plane it takes; two of them take all."""

import numpy as np
import pytest

from napari_semsr.core.errors import OptionError
from napari_semsr.widgets.enhance.panel import EnhancePanel
from napari_semsr.widgets.layers import get_network_name, micrograph_from_layer
from napari_semsr.widgets.measure.quality import QualityPanel
from napari_semsr.widgets.open_mosaic import OpenMosaicPanel
from napari_semsr.widgets.project import SavePanel
from tests.refusals import refused
from tests.widgets.scenes import create_classical
from tests.widgets.test_panels import make

PLANES = 3


@pytest.fixture
def stack(model, exposures):
    """A time series of three planes, 2 s apart, with the third in view."""
    data = exposures[0].data[:64, :64]
    layer = model.add_image(
        np.stack([data, 0.5 * data, 0.25 * data]),
        name="series",
        scale=(2, 10, 10),
        translate=(0, 100, 200),
        units=("s", "nm", "nm"),
        axis_labels=("t", "y", "x"),
    )
    model.dims.set_point(0, 4)
    return layer


@pytest.fixture(params=[create_classical, EnhancePanel])
def panel(request, model, hold, stack):
    panel = hold(request.param(model))
    panel.classical.set_values(psf="1px")
    panel.form.set_values(tile=64, precision="fp32")
    if request.param is EnhancePanel:
        panel.model.show_model("sem-restore")
    return panel


@pytest.mark.parametrize("module", ["QualityPanel", "RegisterPanel", "EnhancePanel"])
def test_panels_say_which_plane_is_taken(module, model, qtbot, stack):
    panel = make(module, model, qtbot)
    if isinstance(panel, QualityPanel):
        panel.image.value = stack
    assert "lane t = 3 of 3 of series is used" in panel.messages.plane.text()
    model.dims.set_point(0, 2)
    assert "lane t = 2 of 3 of series is used" in panel.messages.plane.text()
    model.layers.remove(stack)
    assert panel.messages.plane.text() == ""


def test_shapes_of_the_plane_in_view_are_taken(model, hold, stack, run_panel):
    square = np.array([[0, 0], [0, 16], [16, 16], [16, 0]]) - 0.5
    boxes = [
        np.insert(square + place, 0, plane, axis=1)
        for plane, place in ((2, 4), (0, 30))
    ]
    about = {"scale": stack.scale, "translate": stack.translate, "units": stack.units}
    drawn = model.add_shapes(boxes, name="drawn", **about)
    panel = hold(OpenMosaicPanel(model))
    panel.input_layers.choose(stack)
    panel.crop.like.value = drawn
    for seconds, place in ((4, [140, 240]), (0, [400, 500])):
        model.dims.set_point(0, seconds)
        run_panel(panel, panel.crop.crop_button)
        assert model.layers[-1].translate.tolist() == place
    model.dims.set_point(0, 2)
    assert "in the displayed plane" in run_panel(panel, panel.crop.crop_button)


@pytest.mark.quick(1)
def test_a_stack_is_done_plane_by_plane(panel, model, stack, run_panel, finish):
    panel.all_planes.value = True
    assert f"{PLANES} planes" in run_panel(panel)
    made = next(layer for layer in model.layers if layer is not stack)
    assert made.data.shape == stack.data.shape
    np.testing.assert_allclose(made.scale, stack.scale)
    np.testing.assert_allclose(made.translate, stack.translate)
    assert made.units == stack.units
    assert made.axis_labels == stack.axis_labels
    assert bool(get_network_name(made)) == (panel.model.method is None)
    found = micrograph_from_layer(made)
    assert len(found.provenance.inputs) == PLANES
    whole = np.array(made.data)
    panel.look.strength.value = 25
    finish(panel)
    np.testing.assert_allclose(made.data, (3 * stack.data + whole) / 4, atol=1e-5)
    model.layers.selection.active = stack
    panel.layer.value = stack
    panel.all_planes.value = False
    run_panel(panel)  # the third plane, alone
    alone = next(layer for layer in model.layers if layer.ndim == 2)
    np.testing.assert_allclose(whole[2], np.asarray(alone.data), atol=1e-5)


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("name", "shape", "code", "values"),
    [
        ("a.ome.zarr", (2, 8, 9), "suffix-unknown", ".ome.tif or .tif"),
        ("a.ome.tif", (2, 3, 8, 9), "too-many-axes", " 4 axes"),
    ],
    ids=["store", "four axes"],
)
def test_what_holds_no_stack_is_refused_by_all_doors(
    model, hold, choose, tmp_path, registered, name, shape, code, values
):
    layer = model.add_image(np.zeros(shape), name="series")
    panel = hold(SavePanel(model))
    path = choose(tmp_path / name)
    panel.layer_button.click()
    assert values in panel.status.text()
    assert "Split Stack" in panel.status.text()
    with refused(OptionError, code, match=values):
        layer.save(str(path), plugin="napari-semsr")
    assert not path.exists()
