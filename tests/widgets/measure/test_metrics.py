import numpy as np
import pytest

from napari_semsr.core import InputRecord, Provenance
from napari_semsr.widgets.measure.metrics import MetricsPanel
from tests.widgets.scenes import outlined, with_gaps


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


@pytest.mark.broad
def test_mosaic_is_measured_where_both_are_whole(panel, model, exposures, run_panel):
    panel.image.value, panel.reference.value = model.layers[1], model.layers[0]
    panel.form.set_values(data_range=1.0)
    run_panel(panel)
    before = panel.findings().numbers["PSNR"].value
    model.layers["first"].data = with_gaps(exposures[0]).data
    for _ in range(2):
        run_panel(panel)
        found = panel.findings().numbers["PSNR"].value
        assert found == pytest.approx(before, abs=0.1)
        said = "in the largest gap-free rectangle, 170 × 172 px"  # noqa: RUF001
        assert said in panel.figures.text()
        ((low, high),) = outlined(model, "Metrics")
        np.testing.assert_allclose((low, high), [(115, 195), (1815, 1915)])
    panel.reference.value = None
    run_panel(panel)
    assert "PSNR" not in panel.figures.text()
    assert not [layer for layer in model.layers if "measured part" in layer.name]


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


def test_a_better_reference_that_comes_later_is_taken(model, hold):
    blank = np.zeros((8, 8), np.float32)
    model.add_image(blank, name="light")
    source = InputRecord(role="image", name="light")
    made = Provenance(job="enhance", inputs=(source,)).model_dump(mode="json")
    record = {"micrograph": {"provenance": made}}
    model.add_image(blank, name="enhanced", metadata=record)
    panel = hold(MetricsPanel(model))
    assert panel.image.value.name == "enhanced"
    assert panel.reference.value is None  # nor what it was made of
    sem = {"micrograph": {"vendor": "FEI"}}
    model.add_image(blank, name="electrons", metadata=sem)
    panel.image.value = model.layers["enhanced"]
    assert panel.reference.value is model.layers["electrons"]
    model.layers.selection.active = panel.reference.value  # to look at it, say
    assert panel.image.value is model.layers["enhanced"]
    panel.reference.value = None
    model.add_image(blank, name="more", metadata=sem)
    assert panel.reference.value is None  # as it was set by hand
