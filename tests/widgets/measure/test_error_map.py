import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core import Micrograph, Provenance
from napari_semsr.widgets.measure.quality import ComparePanel, QualityPanel


@pytest.fixture
def panel(model, hold, rng, add) -> ComparePanel:
    sharp = 40 * ndimage.gaussian_filter(rng.normal(size=(160, 200)), 1.2)
    seen = 90 + 2 * ndimage.gaussian_filter(sharp, 2.2)
    place = {"pixel_size_nm": (20.0, 20.0), "origin": (500.0, -100.0)}
    add(model, Micrograph(rng.normal(size=(90, 90)), (5.0, 5.0), "elsewhere"))
    add(model, Micrograph(seen, name="seen", **place))
    add(model, Micrograph(sharp, name="sharp", **place))
    made = hold(ComparePanel(model))
    made.boxes["enhanced"].value = model.layers["sharp"]
    return made


def test_map_lies_exactly_on_the_reference(panel, model, run_panel):
    assert panel.boxes["reference"].value is model.layers["seen"]
    said = run_panel(panel)
    assert said.startswith("RSE ")
    assert said.endswith(": sharp against seen.")
    layer, seen = model.layers["sharp · error map (grey levels)"], model.layers["seen"]
    np.testing.assert_allclose(layer.extent.world, seen.extent.world)
    np.testing.assert_allclose(layer.scale, seen.scale)
    assert layer.colorbar.visible


def test_a_map_is_read_through_no_other(panel, model, hold, run_panel):
    spectrum = hold(QualityPanel(model))
    spectrum.image.value, spectrum.planes.value = model.layers["seen"], True
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


def test_the_difference_of_two_maps_is_in_their_unit(panel, model, add, finish):
    values = np.arange(20.0, dtype=np.float32).reshape(4, 5)
    for name, more in (("before", 0), ("after", 7)):
        made = Provenance(job="frc-map")
        add(model, Micrograph(values + more, (320.0, 320.0), name, made))
    first, second = panel.boxes.values()
    first.value, second.value = model.layers["before"], model.layers["after"]
    panel.look.difference_button.click()
    finish(panel)
    assert "median +7, at most 7 nm" in panel.status.text()
    np.testing.assert_array_equal(model.layers[-1].data, 7)
