import numpy as np
import pytest

from napari_semsr.analysis.frc.validity import REASONS
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.widgets.measure.frc_map import (
    REASON_COLOURS,
    REASON_TEXTS,
    FrcMapPanel,
    add_failed_layer,
)


@pytest.fixture
def panel(model, qtbot, exposures, add) -> FrcMapPanel:
    for exposure in exposures:
        add(model, exposure)
    made = FrcMapPanel(model)
    qtbot.addWidget(made)
    made.second.value = model.layers["first"]
    made.first.value = model.layers["second"]
    made.form.set_values(block=64, step=32)
    return made


def test_map_lies_over_the_image_in_nm(panel, model, run_panel):
    said = run_panel(panel)
    layer = model.layers["FRC map (nm) of second"]
    assert "median" in said
    assert layer.data.shape == (5, 5)
    np.testing.assert_allclose(layer.scale, 320.0)
    # centre of the first block of 64 px: 31.5 px from the first pixel's centre
    np.testing.assert_allclose(layer.translate, 315.0)
    assert [str(unit) for unit in model.layers.units] == ["nanometer", "nanometer"]
    low, high = np.nanpercentile(layer.data, (1, 99))
    assert layer.contrast_limits == pytest.approx([low, high])
    assert layer.interpolation2d == "nearest"
    assert layer.opacity < 1
    assert 20 < np.nanmedian(layer.data) < 200
    assert "whole field" in panel.figures.text()
    assert panel.results.isVisibleTo(panel)


def test_plots_hold_histogram_curve_and_threshold(panel, run_panel):
    run_panel(panel)
    histogram, curve = panel.plot.axes
    assert histogram.get_xlabel() == "Resolution (nm)"
    assert len(histogram.patches) > 5
    assert "µm⁻¹" in curve.get_xlabel()
    assert len(curve.get_lines()) >= 2
    assert [axis.get_xlabel() for axis in curve.child_axes] == ["Period (nm)"]


def test_identical_images_fail_with_their_reason(panel, model, run_panel):
    panel.first.value = panel.second.value
    said = run_panel(panel)
    failed = model.layers["Failed blocks of first"]
    code = REASONS.index("identical") + 1
    assert np.all(failed.data == code)
    assert failed.features["reason"].iloc[code] == "identical"
    np.testing.assert_allclose(failed.scale, model.layers[-2].scale)
    assert [str(unit) for unit in model.layers.units] == ["nanometer", "nanometer"]
    assert "no block has a resolution" in said
    assert "identical" in panel.figures.text()
    assert not model.layers[-2].colorbar.visible
    assert panel.plot.axes[0].texts[0].get_text() == "no block has a resolution"


def test_one_image_is_split(panel, model, run_panel):
    panel.second.value = None
    panel.form.set_values(block=None)
    said = run_panel(panel)
    assert "blocks" in said
    assert model.layers["FRC map (nm) of second"].data.shape == (3, 3)


def test_uncalibrated_images_give_pixels(panel, model, run_panel):
    for layer in model.layers:
        layer.units = ("pixel", "pixel")
        layer.scale = (1, 1)
    run_panel(panel)
    layer = model.layers["FRC map (pixel) of second"]
    np.testing.assert_allclose(layer.scale, 32)
    np.testing.assert_allclose(layer.translate, 31.5)
    assert panel.plot.axes[0].get_xlabel() == "Resolution (px)"


def test_bad_option_is_one_sentence(panel, run_panel):
    panel.form.set_values(block=3)
    assert "Option block" in run_panel(panel)


def test_cancel_leaves_no_layer(panel, model, finish, qtbot):
    panel.form.set_values(step=1)
    before = len(model.layers)
    panel.run_button.click()
    panel.cancel_button.click()
    finish(panel)
    assert "cancelled" in panel.status.text()
    assert len(model.layers) == before


def test_every_reason_has_a_colour_and_a_text():
    assert set(REASON_COLOURS) == set(REASON_TEXTS) == set(REASONS)
    assert len(set(REASON_COLOURS.values())) == len(REASONS)


def test_no_failed_block_adds_no_layer(model):
    grid = Micrograph(np.ones((3, 3), np.float32))
    assert add_failed_layer(model, grid, np.zeros((3, 3), np.uint8), "x") is None
    assert len(model.layers) == 0
