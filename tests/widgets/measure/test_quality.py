import numpy as np
import pytest

from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.widgets.measure.quality import QualityPanel

ROWS, COLUMNS = np.indices((128, 160))


@pytest.fixture
def grating() -> Micrograph:
    """Period of 8 px along x, 10 nm pixels."""
    image = 100 + 50 * np.sin(2 * np.pi * COLUMNS / 8)
    return Micrograph(image.astype(np.float32), parse_pixel_size(10.0), "grating")


@pytest.fixture
def panel(model, hold, add, exposures) -> QualityPanel:
    for exposure in exposures:
        add(model, exposure)
    return hold(QualityPanel(model))


def test_metrics_and_spectra_against_a_reference(panel, model, run_panel):
    panel.image.value, panel.reference.value = model.layers[1], model.layers[0]
    said = run_panel(panel)
    assert said.startswith("PSNR ")
    assert said.endswith(": second against first.")
    text = panel.figures.text()
    for name in ("PSNR", "SSIM", "Average gradient", "Distance of grey levels"):
        assert name in text
    grey, radial = panel.plot.axes
    assert grey.get_xlabel() == "Grey level"
    assert len(grey.get_lines()) == len(radial.get_lines()) == 2
    assert {"second", "spectrum of second"} <= panel.findings().curves.keys()
    assert len(model.layers) == 2


@pytest.mark.quick(1)
@pytest.mark.parametrize("last", ["light", "electrons"])
def test_an_electron_image_is_the_reference_of_one_by_light(model, hold, last):
    for name in sorted(["light", "electrons"], key=last.__eq__):
        about = {"micrograph": {"vendor": "FEI"}} if name == "electrons" else {}
        model.add_image(np.zeros((8, 8), np.float32), name=name, metadata=about)
    panel = hold(QualityPanel(model))
    assert panel.image.value is model.layers["light"]
    assert panel.reference.value is model.layers["electrons"]
    panel.image.value = model.layers["electrons"]
    assert panel.reference.value is not model.layers["electrons"]


def test_peak_and_rings_lie_at_the_period_and_the_viewer_stays_in_nm(
    model, hold, add, run_panel, grating
):
    image = add(model, grating)
    panel = hold(QualityPanel(model))
    panel.planes.value = True
    run_panel(panel)
    line = panel.findings().curves["spectrum of grating"]
    x, y = line["spatial frequency (µm⁻¹)"], line["power (grey levels² px²)"]
    assert 1000 / x[np.argmax(y)] == pytest.approx(80, rel=0.05)
    assert x.max() <= 50 + 1e-9
    layer = model.layers["grating · spectrum"]
    assert [str(unit) for unit in model.layers.units] == ["nanometer", "nanometer"]
    assert layer.translate[1] > image.extent.world[1, 1]
    y, x = np.unravel_index(np.argmax(layer.data), layer.data.shape)
    step = layer.metadata["spectrum"]["frequency_step_per_nm"]
    assert y == 64
    assert abs(x - 80) * step[1] == pytest.approx(1 / 80, rel=1e-6)
    rings = model.layers["grating · periods"]
    periods = [float(t.split()[0]) for t in rings.features["period"]]
    assert len(periods) >= 2
    for corners, period in zip(rings.data, periods, strict=True):
        radius = np.ptp(corners, axis=0) / 2
        np.testing.assert_allclose(radius, np.array([1280, 1600]) / period)
