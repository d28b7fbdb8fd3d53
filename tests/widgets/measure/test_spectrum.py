import numpy as np
import pytest

from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.widgets.measure.spectrum import SpectrumPanel, choose_ring_periods
from tests.widgets.scenes import outlined

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


def test_curves_of_all_layers_are_drawn_together(panel, model, run_panel):
    panel.layers.value = list(model.layers)
    assert "2 radial spectra" in run_panel(panel)
    axes = panel.plot.axes[0]
    assert len(axes.get_lines()) == 2
    assert "µm⁻¹" in axes.get_xlabel()
    names = {text.get_text() for text in axes.get_legend().get_texts()}
    assert names == {"grating", "noise"}
    assert axes.child_axes[0].get_xlabel() == "Period (nm)"


def test_progress_counts_the_layers(panel, model):
    panel.layers.value = list(model.layers)
    steps = list(panel.create_task().make())
    transforms = [step for step in steps if step.message.startswith("transforming")]
    assert {step.total for step in transforms} == {2}
    assert {step.message for step in steps}.isdisjoint({"reading", "writing"})


def test_flat_image_is_refused(panel, add, model, grating, run_panel):
    flat = grating.replace(data=np.full((64, 64), 7, np.float32), name="flat")
    panel.layers.value = [add(model, flat)]
    assert "needs contrast, but flat is constant" in run_panel(panel)


def test_fill_values_are_missing_in_the_panel_too(
    panel, add, model, grating, run_panel
):
    filled = grating.replace(data=grating.data.astype(float) * 1e300, name="filled")
    panel.layers.value = [add(model, filled)]
    assert "filled has no finite pixels" in run_panel(panel)


def test_peak_lies_at_the_period(panel, model, run_panel):
    panel.layers.value = [model.layers["grating"]]
    run_panel(panel)
    (line,) = panel.spectra.radial.lines
    frequency, power = line.x, line.y
    assert 1000 / frequency[np.argmax(power)] == pytest.approx(80, rel=0.05)
    assert frequency.max() <= 50 + 1e-9


@pytest.mark.broad
def test_centred_layer_keeps_the_viewer_in_nm(panel, model, run_panel):
    panel.layers.value = [model.layers["grating"]]
    run_panel(panel)
    layer, image = model.layers["grating · spectrum"], model.layers["grating"]
    assert [str(unit) for unit in model.layers.units] == ["nanometer", "nanometer"]
    assert layer.translate[1] > image.extent.world[1, 1]
    y, x = np.unravel_index(np.argmax(layer.data), layer.data.shape)
    step = layer.metadata["spectrum"]["frequency_step_per_nm"]
    assert y == 64
    assert abs(x - 80) * step[1] == pytest.approx(1 / 80, rel=1e-6)


@pytest.mark.broad
def test_rings_have_the_radius_of_their_period(panel, model, run_panel):
    panel.layers.value = [model.layers["grating"]]
    run_panel(panel)
    rings = model.layers["grating · periods"]
    periods = [float(t.split()[0]) for t in rings.features["period"]]
    assert len(periods) >= 2
    for corners, period in zip(rings.data, periods, strict=True):
        radius = np.ptp(corners, axis=0) / 2
        np.testing.assert_allclose(radius, np.array([1280, 1600]) / period)


@pytest.mark.broad
def test_mosaics_of_one_grid_are_cut_alike(panel, model, add, grating, run_panel):
    add(model, grating.replace(name="beside", origin=(0.0, 5000.0)))
    holed = grating.array().copy()
    holed[:, 140:] = holed[120:] = np.nan
    model.layers["grating"].data = holed
    panel.layers.value = list(model.layers)
    for _ in range(2):
        assert "3 radial spectra" in run_panel(panel)
        shapes = {part.name: part.shape for part in panel.spectra.parts}
        assert shapes.pop("beside") == (128, 160)
        assert set(shapes.values()) == {(120, 140)}
        text = panel.results.remarks.text()
        assert text.count("gap-free rectangle, 120 × 140 px") == 2  # noqa: RUF001
        boxes = outlined(model, "Spectrum")
        np.testing.assert_allclose(boxes, [[(-5, -5), (1195, 1395)]] * 2)


@pytest.mark.broad
def test_without_planes_no_layer_is_added(panel, model, run_panel):
    panel.planes.value = False
    before = len(model.layers)
    run_panel(panel)
    assert len(model.layers) == before


def test_uncalibrated_layers_are_in_cycles_per_pixel(model, hold, run_panel, grating):
    model.add_image(grating.data, name="bare")
    panel = hold(SpectrumPanel(model))
    assert "cycles per pixel" in run_panel(panel)
    assert panel.plot.axes[0].get_xlabel() == "Frequency (cycles/px)"
    assert panel.plot.axes[0].child_axes[0].get_xlabel() == "Period (px)"


def test_ring_periods_lie_between_nyquist_and_the_image(grating):
    periods = choose_ring_periods(grating)
    assert periods == sorted(periods)
    assert all(20 <= period <= 1280 for period in periods)
    tiny = Micrograph(np.zeros((4, 4)), parse_pixel_size(1.0))
    assert choose_ring_periods(tiny) == []
