import re

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_semsr.analysis import REASON_TEXTS, REASONS
from napari_semsr.core import Provenance, run
from napari_semsr.widgets.measure.resolution import ResolutionPanel
from napari_semsr.widgets.open_mosaic import OpenMosaicPanel


@pytest.fixture
def panel(model, qtbot, exposures, add) -> ResolutionPanel:
    for exposure in exposures:
        add(model, exposure)
    made = ResolutionPanel(model)
    qtbot.addWidget(made)
    made.second.value = model.layers["first"]
    made.first.value = model.layers["second"]
    made.form.set_values(block=64, step=32)
    return made


def test_map_lies_over_the_image_in_nm(panel, model, run_panel):
    assert panel.sizeHint().width() <= 400
    steps = []
    run(panel.create_request().make(), steps.append)
    counts = [step.fraction for step in steps if step.total]
    assert counts == sorted(counts)
    said = run_panel(panel)
    layer = model.layers["second · FRC map (nm)"]
    median = panel.findings().numbers["Median"]
    low, high = re.search(r"95 %: (\S+) to (\S+) nm", median.note).groups()
    assert said.startswith(
        f"{median.value_text} nm ({low} to {high}), {median.verdict}: the median of"
    )
    field = panel.findings().numbers["Whole field"]
    for text in (said, panel.headline.text()):
        assert f"whole field: {field.value_text} nm" in text
    assert layer.data.shape == (5, 5)
    np.testing.assert_allclose(layer.scale, 320.0)
    # centre of the first block of 64 px: 31.5 px from the first pixel's centre
    np.testing.assert_allclose(layer.translate, 315.0)
    assert [str(unit) for unit in model.layers.units] == ["nanometer", "nanometer"]
    low, high = np.nanpercentile(layer.data, (1, 99))
    assert layer.contrast_limits == pytest.approx([low, high])
    assert layer.opacity == 1  # its colours are those of the colour bar
    assert 20 < np.nanmedian(layer.data) < 200


def test_blocks_that_fail_tell_why(panel, model, run_panel):
    first, second = (model.layers[name] for name in ("first", "second"))
    second.data[:, 96:] = first.data[:, 96:]
    run_panel(panel)
    failed = next(item for item in model.layers if "failed blocks" in item.name)
    code = REASONS.index("identical") + 1
    assert np.all(failed.data[:, -1] == code)
    assert failed.features["meaning"].iloc[code] == REASON_TEXTS["identical"]
    np.testing.assert_allclose(failed.scale, model.layers[-2].scale)
    assert [str(unit) for unit in model.layers.units] == ["nanometer", "nanometer"]
    assert model.layers[-2].colorbar.visible
    assert not panel.asks_question
    second.data = first.data.copy()
    assert "choose another exposure as Second image" in run_panel(panel)


def test_regions_have_their_own_figures_in_a_table(panel, model, run_panel):
    placed = {"scale": (10, 10), "units": ("nm", "nm")}
    left = np.array([[0, 0], [0, 80], [191, 80], [191, 0]])
    disc = np.array([[55.5, 87.5], [55.5, 167.5], [135.5, 167.5], [135.5, 87.5]])
    shapes, types = [left, disc, left[:2]], ["rectangle", "ellipse", "line"]
    panel.regions.value = model.add_shapes(shapes, shape_type=types, **placed)
    names = ["rectangle 1", "ellipse 2"]
    run_panel(panel)
    found = panel.findings()
    table = found.tables["Regions"]
    assert table["region"] == names
    # centres of the blocks lie at 32, 64, 96, 128 and 160 px less a half
    part = model.layers["second · FRC map (nm)"].data[:, :2]
    assert table["failed"][0] == np.isnan(part).sum()
    assert table["median (nm)"][0] == pytest.approx(np.nanmedian(part), rel=1e-5)
    # a disc of 40 px around a centre holds its four neighbours, 32 px away
    assert table["blocks"] == [part.size, 5]
    assert found.to_text().splitlines()[-2].split("\t")[0] == names[0]
    whole, part = (found.curves[n]["blocks"] for n in ("all blocks", names[0]))
    assert 0 < np.sum(part) < np.sum(whole)


def test_one_image_is_measured_by_decorrelation(panel, model, run_panel):
    panel.method.value = panel.method.choices[1]
    assert panel.second.native.isHidden()
    assert panel.form.isHidden()
    said = run_panel(panel)
    numbers = panel.findings().numbers
    assert said.startswith(f"{numbers['Cut-off'].value_text} nm (")
    assert len(model.layers) == 2
    assert len(panel.plot.axes[0].get_lines()) >= 2


def test_an_image_finer_than_its_pixels_can_tell_says_their_limit(
    panel, model, run_panel, rng
):
    sharp = gaussian_filter(rng.normal(size=(192, 192)), 1)
    model.layers["second"].data = sharp.astype(np.float32)
    panel.second.value = None
    said = run_panel(panel)
    # of a split image: pixels of 10 nm, halves of every second pixel, 70 % of Nyquist
    assert said.startswith(f"Finer than {2 * 2 * 10 / 0.7:.3g} nm")


def test_images_that_were_treated_alike_are_proposed(panel, model, exposures, add):
    first, second = (model.layers[name] for name in ("first", "second"))
    made = Provenance(job="restore")
    add(model, exposures[0].replace(name="restored", provenance=made))
    moved = Provenance(job="register")
    add(model, exposures[0].replace(name="moved", provenance=moved))
    panel.second.value = None
    panel.first.value = first
    assert panel.second.value is second
    for name in ("restored", "moved"):
        panel.first.value = model.layers[name]
        assert panel.second.value is None
    panel.form.set_values(reference=True)
    panel.second.value = second
    panel.first.value = model.layers["restored"]
    assert panel.second.value is second  # to be compared with a reference


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["first", "second"])
def test_map_is_called_outdated_by_a_new_pixel_size(
    panel, model, hold, run_panel, name
):
    run_panel(panel)
    layer, opener = model.layers["second · FRC map (nm)"], hold(OpenMosaicPanel(model))
    opener.calibrate.layer.value = model.layers[name]
    opener.calibrate.pixel_size.value = (12.0, 12.0)
    opener.calibrate.apply_button.click()
    assert not layer.visible
    assert f"Outdated and hidden, compute again: {layer.name}." in opener.status.text()
    opener.calibrate.undo_button.click()
    assert layer.visible
    assert "Outdated" not in opener.status.text()
