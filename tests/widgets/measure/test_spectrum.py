import numpy as np
import pytest

from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.widgets.measure.spectrum import SpectrumPanel

ROWS, COLUMNS = np.indices((128, 160))


@pytest.fixture
def grating() -> Micrograph:
    """Period of 8 px along x, 10 nm pixels."""
    image = 100 + 50 * np.sin(2 * np.pi * COLUMNS / 8)
    return Micrograph(image.astype(np.float32), parse_pixel_size(10.0), "grating")


@pytest.fixture
def panel(model, hold, add, grating) -> SpectrumPanel:
    add(model, grating)
    noise = np.random.default_rng(0).normal(size=(128, 160)).astype(np.float32)
    add(model, grating.replace(data=noise, name="noise"))
    return hold(SpectrumPanel(model))


def test_progress_counts_the_layers(panel, model):
    panel.layers.value = list(model.layers)
    steps = list(panel.create_request().make())
    transforms = [step for step in steps if step.message.startswith("transforming")]
    assert {step.total for step in transforms} == {2}
    assert {step.message for step in steps}.isdisjoint({"reading", "writing"})


def test_peak_and_rings_lie_at_the_period_and_the_viewer_stays_in_nm(
    panel, model, run_panel
):
    panel.layers.value = [model.layers["grating"]]
    run_panel(panel)
    (line,) = panel.spectra.radial.lines
    assert 1000 / line.x[np.argmax(line.y)] == pytest.approx(80, rel=0.05)
    assert line.x.max() <= 50 + 1e-9
    layer, image = model.layers["grating · spectrum"], model.layers["grating"]
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


def test_uncalibrated_layers_are_in_cycles_per_pixel(model, hold, run_panel, grating):
    model.add_image(grating.data, name="bare")
    panel = hold(SpectrumPanel(model))
    assert "cycles per pixel" in run_panel(panel)
    assert panel.plot.axes[0].get_xlabel() == "Frequency (cycles/px)"
    assert panel.plot.axes[0].child_axes[0].get_xlabel() == "Period (px)"
