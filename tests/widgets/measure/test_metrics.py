import numpy as np
import pytest

from napari_semsr.widgets.measure.metrics import MetricsPanel


@pytest.fixture
def panel(model, hold, exposures, add) -> MetricsPanel:
    for exposure in exposures:
        add(model, exposure)
    return hold(MetricsPanel(model))


def test_metrics_against_a_reference(panel, model, run_panel):
    panel.image.value, panel.reference.value = model.layers[1], model.layers[0]
    assert "Measured second against first" in run_panel(panel)
    text = panel.figures.text()
    for name in ("PSNR", "SSIM", "Average gradient", "Distance of grey levels"):
        assert name in text
    axes = panel.plot.axes[0]
    assert axes.get_xlabel() == "Grey level"
    assert len(axes.get_lines()) == 2


@pytest.mark.quick(1)
@pytest.mark.parametrize("last", ["light", "electrons"])
def test_an_electron_image_is_the_reference_of_one_by_light(model, hold, last):
    for name in sorted(["light", "electrons"], key=last.__eq__):
        about = {"micrograph": {"vendor": "FEI"}} if name == "electrons" else {}
        model.add_image(np.zeros((8, 8), np.float32), name=name, metadata=about)
    panel = hold(MetricsPanel(model))
    assert panel.image.value is model.layers["light"]
    assert panel.reference.value is model.layers["electrons"]
    panel.image.value = model.layers["electrons"]
    assert panel.reference.value is not model.layers["electrons"]
