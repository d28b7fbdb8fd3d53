import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.widgets.measure.panel import ErrorMapPanel
from napari_semsr.widgets.measure.spectrum import SpectrumPanel


@pytest.fixture
def panel(model, hold, rng, add) -> ErrorMapPanel:
    sharp = 40 * ndimage.gaussian_filter(rng.normal(size=(160, 200)), 1.2)
    seen = 90 + 2 * ndimage.gaussian_filter(sharp, 2.2)
    place = {"pixel_size_nm": (20.0, 20.0), "origin": (500.0, -100.0)}
    add(model, Micrograph(rng.normal(size=(90, 90)), (5.0, 5.0), "elsewhere"))
    add(model, Micrograph(seen, name="seen", **place))
    add(model, Micrograph(sharp, name="sharp", **place))
    made = hold(ErrorMapPanel(model))
    made.boxes["enhanced"].value = model.layers["sharp"]
    return made


def test_map_lies_exactly_on_the_reference(panel, model, run_panel):
    assert panel.boxes["reference"].value is model.layers["seen"]
    assert "Compared sharp with seen" in run_panel(panel)
    layer, seen = model.layers["sharp · error map (grey levels)"], model.layers["seen"]
    np.testing.assert_allclose(layer.extent.world, seen.extent.world)
    np.testing.assert_allclose(layer.scale, seen.scale)
    assert layer.colorbar.visible
    for name in ("RSE", "RSP", "Blur", "Gain", "Moved by"):
        assert name in panel.figures.text()


def test_a_map_is_read_through_no_other(panel, model, hold, run_panel):
    spectrum = hold(SpectrumPanel(model))
    spectrum.layers.value = [model.layers["seen"]]
    run_panel(spectrum)
    run_panel(panel)
    errors = model.layers["sharp · error map (grey levels)"]
    panel.boxes["enhanced"].value = model.layers["seen"]
    panel.boxes["reference"].value = model.layers["sharp"]
    run_panel(panel)
    other = model.layers[-1]
    assert other is not errors
    assert (errors.visible, other.visible) == (False, True)
    assert model.layers["seen · spectrum"].visible  # which lies beside them


def test_a_layer_is_not_compared_with_itself(panel, run_panel):
    panel.boxes["reference"].value = panel.boxes["enhanced"].value
    assert "is chosen as both" in run_panel(panel)
