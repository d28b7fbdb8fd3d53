"""Stacks: every panel says which plane it takes; two of them take all."""

import numpy as np
import pytest

from napari_semsr.core.errors import OptionError
from napari_semsr.io.formats import read
from napari_semsr.widgets.crop import CropPanel
from napari_semsr.widgets.enhance.panel import EnhancePanel
from napari_semsr.widgets.layers import get_network_name, micrograph_from_layer
from napari_semsr.widgets.measure.frc_map import FrcMapPanel
from napari_semsr.widgets.measure.metrics import MetricsPanel
from napari_semsr.widgets.measure.profile import ProfilePanel
from napari_semsr.widgets.measure.spectrum import SpectrumPanel
from napari_semsr.widgets.project import SavePanel
from napari_semsr.widgets.restore import RestorePanel
from tests.refusals import refused
from tests.widgets.test_panels import MEASURING, make

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


@pytest.fixture(params=[RestorePanel, EnhancePanel])
def panel(request, model, hold, stack):
    panel = hold(request.param(model))
    if isinstance(panel, EnhancePanel):
        panel.model.show_model("sem-restore")
        panel.form.set_values(tile=64, precision="fp32")
    else:
        panel.form.set_values(psf="1px")
    return panel


@pytest.mark.quick(3)
@pytest.mark.parametrize("module", MEASURING)
def test_panels_say_which_plane_is_taken(module, model, qtbot, stack):
    panel = make(module, model, qtbot)
    if isinstance(panel, SpectrumPanel):
        panel.layers.value = [stack]
    assert "lane t = 3 of 3 of series is used" in panel.messages.plane.text()
    model.dims.set_point(0, 2)
    assert "lane t = 2 of 3 of series is used" in panel.messages.plane.text()
    model.layers.remove(stack)
    assert panel.messages.plane.text() == ""


def test_the_plane_in_view_is_measured(model, hold, stack, run_panel):
    panel = hold(FrcMapPanel(model))
    run_panel(panel)
    assert panel.messages.plane.text().startswith("Plane t = 3 of 3 of series")
    np.testing.assert_array_equal(
        panel.input_layers.read(stack).array(), np.asarray(stack.data[2])
    )


@pytest.mark.broad
def test_results_say_which_plane_was_measured(model, hold, stack, run_panel):
    panel = hold(MetricsPanel(model))
    panel.image.value, panel.reference.value = stack, None
    run_panel(panel)
    model.dims.set_point(0, 0)
    named = "series, plane t = 3 of 3"
    assert panel.results.title() == "Figures: plane t = 3 of 3"
    assert panel.findings().origin == (named,)
    shown = panel.findings().numbers["Mean grey level"].value
    assert shown == pytest.approx(np.mean(stack.data[2]))
    run_panel(panel)
    assert panel.results.title() == "Figures: plane t = 1 of 3"


@pytest.fixture
def drawn(model, stack):
    """A rectangle and a line on the third plane, then others on the first."""
    corners = np.array([[0, 0], [0, 16], [20, 16], [20, 0]]) - 0.5
    shapes = [
        np.insert(np.asarray(part) + place, 0, plane, axis=1)
        for plane, place in ((2, 4), (0, 30))
        for part in ([[0, 0], [0, place]], corners)
    ]
    return model.add_shapes(
        shapes,
        shape_type=["line", "rectangle"] * 2,
        name="drawn",
        scale=stack.scale,
        translate=stack.translate,
        units=stack.units,
    )


def _cut_at(panel, drawn):
    panel.like.value = drawn
    return lambda: panel.viewer.layers[-1].translate.tolist()


def _regions_of(panel, drawn):
    panel.reference.value, panel.regions.value = None, drawn
    return lambda: panel.findings().tables["Regions"]["region"]


def _length_on(panel, drawn):
    panel.line.value, panel.live.value = drawn, False
    return lambda: panel.status.text().partition(" along ")[2].partition(":")[0]


@pytest.mark.parametrize(
    ("kind", "choose_shapes", "third", "first"),
    [
        (CropPanel, _cut_at, [140, 240], [400, 500]),
        (MetricsPanel, _regions_of, ["rectangle 2"], ["rectangle 4"]),
        (ProfilePanel, _length_on, "40 nm", "300 nm"),
    ],
)
def test_shapes_of_the_plane_in_view_are_taken(
    model, hold, stack, drawn, run_panel, kind, choose_shapes, third, first
):
    panel = hold(kind(model))
    panel.input_layers.choose(stack)
    found = choose_shapes(panel, drawn)
    run_panel(panel)
    assert found() == third
    model.dims.set_point(0, 0)
    run_panel(panel)
    assert found() == first
    model.dims.set_point(0, 2)
    assert "in the displayed plane" in run_panel(panel)


@pytest.mark.quick(1)
def test_a_stack_is_done_plane_by_plane(panel, model, stack, run_panel):
    panel.all_planes.value = True
    assert f"{PLANES} planes" in run_panel(panel)
    made = next(layer for layer in model.layers if layer is not stack)
    assert made.data.shape == stack.data.shape
    np.testing.assert_allclose(made.scale, stack.scale)
    np.testing.assert_allclose(made.translate, stack.translate)
    assert made.units == stack.units
    assert made.axis_labels == stack.axis_labels
    assert bool(get_network_name(made)) == isinstance(panel, EnhancePanel)
    found = micrograph_from_layer(made)
    assert len(found.provenance.inputs) == PLANES
    model.layers.selection.active = stack
    panel.layer.value = stack
    panel.all_planes.value = False
    run_panel(panel)  # the third plane, alone
    alone = next(layer for layer in model.layers if layer.ndim == 2)
    np.testing.assert_allclose(made.data[2], np.asarray(alone.data), atol=1e-5)


@pytest.mark.broad
def test_a_stack_is_mixed_with_its_input(panel, model, stack, run_panel, finish):
    panel.all_planes.value = True
    run_panel(panel)
    made = panel.look.right.value
    assert panel.look.strength.enabled
    whole = np.array(made.data)
    for percent in (0, 25, 100):
        panel.look.strength.value = percent
        finish(panel)
        share = percent / 100
        mixed = (1 - share) * stack.data + share * whole
        np.testing.assert_allclose(np.asarray(made.data), mixed, atol=1e-5)
        about = micrograph_from_layer(made).provenance
        assert (about.job == "blend") == (percent < 100)
    assert panel.look.note.text() == ""


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


@pytest.mark.broad
def test_a_stack_goes_where_it_is_told(panel, model, run_panel, tmp_path):
    panel.all_planes.value = True
    panel.output.value = tmp_path / "kept.ome.zarr"
    assert "saved as .ome.tif, got kept.ome.zarr" in run_panel(panel)
    panel.output.value = tmp_path / "kept"
    run_panel(panel)
    assert read(tmp_path / "kept.ome.tif", plane=2).shape == (64, 64)
    assert [item.name for item in tmp_path.iterdir()] == ["kept.ome.tif"]
