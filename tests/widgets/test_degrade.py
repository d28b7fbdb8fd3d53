import numpy as np

from napari_semsr.widgets.degrade import DegradePanel
from napari_semsr.widgets.layers import micrograph_from_layer


def test_degraded_image_is_a_calibrated_layer(model, qtbot, add, exposures, run_panel):
    add(model, exposures[0])
    panel = DegradePanel(model)
    qtbot.addWidget(panel)
    panel.form.set_values(kind="none")
    panel.effects.set_values(photons=50.0)
    assert run_panel(panel) == "Degraded first."
    found = micrograph_from_layer(model.layers["first · degraded"])
    assert found.pixel_size_nm == (10, 10)
    assert found.provenance.job == "degrade"
    assert not np.array_equal(found.array(), exposures[0].data)
    assert panel.findings().numbers["Photons"].value == 50


def test_haze_alone_has_a_strength(model, qtbot):
    panel = DegradePanel(model)
    qtbot.addWidget(panel)
    panel.show()
    for kind, shown in (("fog", True), ("blur", False)):
        panel.form.set_values(kind=kind)
        assert panel.form.widget("uniform_fog").native.isVisibleTo(panel) == shown
