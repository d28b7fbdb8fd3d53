import numpy as np
import pytest

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


def test_metrics_without_a_reference(panel, run_panel):
    run_panel(panel)
    assert "PSNR" not in panel.figures.text()
    assert "Contrast" in panel.figures.text()


@pytest.mark.broad
def test_affine_match_raises_psnr(panel, model, run_panel):
    model.layers[1].data = np.asarray(model.layers[1].data) * 0.5 + 0.1
    panel.image.value, panel.reference.value = model.layers[1], model.layers[0]
    panel.form.set_values(data_range=1.0)
    run_panel(panel)
    before = panel.figures.text()
    panel.form.set_values(match="affine")
    run_panel(panel)
    assert psnr(panel.figures.text()) > psnr(before) + 3


@pytest.mark.broad
def test_mosaic_is_measured_where_both_are_whole(panel, model, exposures, run_panel):
    panel.image.value, panel.reference.value = model.layers[1], model.layers[0]
    panel.form.set_values(data_range=1.0)
    run_panel(panel)
    before = psnr(panel.figures.text())
    model.layers["first"].data = with_gaps(exposures[0]).data
    for _ in range(2):
        run_panel(panel)
        assert psnr(panel.figures.text()) == pytest.approx(before, abs=0.1)
        said = "in the largest gap-free rectangle, 170 × 172 px"  # noqa: RUF001
        assert said in panel.figures.text()
        ((low, high),) = outlined(model, "Metrics")
        np.testing.assert_allclose((low, high), [(115, 195), (1815, 1915)])
    panel.reference.value = None
    run_panel(panel)
    assert not [layer for layer in model.layers if "measured part" in layer.name]


def psnr(text: str) -> float:
    return float(text.split("PSNR")[1].split("<b>")[1].split(" dB")[0])
