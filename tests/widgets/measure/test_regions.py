"""Regions of Shapes and Labels layers, in every panel that measures."""

import numpy as np
import pytest

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.widgets.base import TIMES
from napari_semsr.widgets.measure.particles import ParticlesPanel
from napari_semsr.widgets.measure.quality import ComparePanel, QualityPanel

SIZE = 10.0
LEFT = np.array([[4, 8], [4, 67], [83, 67], [83, 8]])
DISC = np.array([[20, 70], [20, 150], [100, 150], [100, 70]])


@pytest.fixture
def pair(rng) -> tuple[Micrograph, Micrograph]:
    """A truth, and the same with noise that is stronger on the right."""
    truth = rng.normal(100, 10, (128, 192)).astype(np.float32)
    noise = rng.normal(0, 1, truth.shape) * np.where(np.arange(192) < 68, 1, 5)
    made = (truth + noise).astype(np.float32)
    pixel = (SIZE, SIZE)
    return Micrograph(truth, pixel, "truth"), Micrograph(made, pixel, "made")


@pytest.fixture
def opened(model, hold, add, pair):
    """Make a panel on both images, with the regions of a kind chosen."""
    placed = {"scale": (SIZE, SIZE), "units": ("nm", "nm"), "name": "drawn"}

    def make(kind, regions="shapes"):
        for image in pair:
            add(model, image)
        panel = hold(kind(model))
        if regions == "shapes":
            types = ["rectangle", "ellipse"]
            layer = model.add_shapes([LEFT, DISC], shape_type=types, **placed)
        else:
            layer = model.add_labels(labels(), **placed)
        panel.regions.value = layer
        return panel

    return make


def labels():
    drawn = np.zeros((128, 192), np.uint8)
    drawn[4:84, 8:68] = 3
    y, x = np.mgrid[:128, :192]
    drawn[np.hypot(y - 60, x - 110) <= 40] = 7
    return drawn


@pytest.mark.quick(1)
@pytest.mark.parametrize("kind", ["shapes", "labels"])
def test_metrics_are_those_of_the_pixels_within(opened, model, run_panel, pair, kind):
    panel = opened(QualityPanel, kind)
    panel.image.value, panel.reference.value = (
        model.layers[name] for name in ("made", "truth")
    )
    run_panel(panel)
    table = panel.findings().tables["Regions"]
    names = ["rectangle 1", "ellipse 2"] if kind == "shapes" else ["label 3", "label 7"]
    assert table["region"] == names
    truth, made = (image.array().astype(float) for image in pair)
    for row, number in enumerate((3, 7)):
        inside = labels() == number
        assert table["pixels"][row] == inside.sum()
        mean = made[inside].mean()
        assert table["mean (grey levels)"][row] == pytest.approx(mean)
    part = (slice(4, 84), slice(8, 68))
    assert table["rectangle"][0] == f"80 {TIMES} 60 px"
    error = np.square(made[part] - truth[part]).mean()
    span = np.ptp(truth)  # of the whole field, for all regions
    psnr = 10 * np.log10(span**2 / error)
    assert table["PSNR (dB)"][0] == pytest.approx(psnr, rel=1e-6)
    assert table["PSNR (dB)"][1] < table["PSNR (dB)"][0] - 6


def test_a_region_outside_is_named_and_the_others_are_measured(
    opened, model, run_panel
):
    panel = opened(QualityPanel)
    panel.image.value, panel.reference.value = model.layers["made"], None
    panel.regions.value.add_rectangles([[500, 500], [600, 600]])
    run_panel(panel)
    found = panel.findings()
    notes = found.tables["Regions"]["note"]
    assert [note is None for note in notes] == [True, True, False]
    assert "spectrum of ellipse 2, made" in found.curves


def test_errors_are_those_of_the_map_within(opened, model, run_panel):
    panel = opened(ComparePanel)
    panel.boxes["enhanced"].value = model.layers["made"]
    panel.boxes["reference"].value = model.layers["truth"]
    run_panel(panel)
    table = panel.findings().tables["Regions"]
    shown = next(layer for layer in model.layers if "error map" in layer.name)
    values = np.asarray(shown.data, dtype=float)
    for row, number in enumerate((3, 7)):
        within = values[labels() == number]
        rse = np.sqrt(np.square(within).mean())
        assert table["RSE (grey levels)"][row] == pytest.approx(rse)
        assert table["pixels"][row] == within.size


def test_layer_without_an_area_is_refused_in_a_sentence(opened, model, run_panel):
    for kind in (QualityPanel, ComparePanel, ParticlesPanel):
        model.layers.clear()
        panel = opened(kind)
        panel.regions.value = model.add_shapes(name="empty", ndim=2)
        if kind is ComparePanel:
            panel.boxes["enhanced"].value = model.layers["made"]
            panel.boxes["reference"].value = model.layers["truth"]
        assert "Regions must be 1 to 200 rectangles" in run_panel(panel)
