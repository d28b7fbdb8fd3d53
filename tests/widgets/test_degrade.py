import numpy as np
import pytest

from napari_semsr.widgets.degrade import DegradePanel
from napari_semsr.widgets.layers import micrograph_from_layer


def test_degraded_image_is_a_calibrated_layer(model, hold, add, exposures, run_panel):
    add(model, exposures[0])
    panel = hold(DegradePanel(model))
    panel.form.set_values(kind="none")
    panel.effects.set_values(photons=50.0)
    assert run_panel(panel) == "Degraded first."
    found = micrograph_from_layer(model.layers["first · degraded"])
    assert found.pixel_size_nm == (10, 10)
    assert found.provenance.job == "degrade"
    assert not np.array_equal(found.array(), exposures[0].data)
    assert panel.findings().numbers["Photons"].value == 50


def test_haze_alone_has_a_strength(model, hold):
    panel = hold(DegradePanel(model))
    panel.show()
    for kind, shown in (("fog", True), ("blur", False)):
        panel.form.set_values(kind=kind)
        for name in ("uniform_fog", "airlight", "stretch"):
            assert panel.form.get_widget(name).native.isVisibleTo(panel) == shown


@pytest.mark.broad
def test_haze_draws_to_the_grey_that_is_asked_for(
    model, hold, add, exposures, run_panel
):
    add(model, exposures[0])
    panel = hold(DegradePanel(model))
    panel.form.set_values(kind="fog", airlight=255.0, stretch=False)
    run_panel(panel)
    assert panel.findings().numbers["Airlight"].value == 255
    values = exposures[0].array()
    hazed = model.layers["first · fog"].data
    assert np.mean(hazed) > values.min() + 0.8 * np.ptp(values)
    panel.form.set_values(kind="blur")
    run_panel(panel)
    assert "Airlight" not in panel.findings().numbers
