import numpy as np
import pytest

from napari_semsr.analysis.frc.validity import REASON_TEXTS, REASONS
from napari_semsr.core.micrograph import Micrograph, Provenance
from napari_semsr.widgets.layers import get_network_name
from napari_semsr.widgets.measure.frc_map import (
    REASON_COLOURS,
    FrcMapPanel,
    add_failed_blocks_layer,
)
from napari_semsr.widgets.open_mosaic import OpenMosaicPanel
from tests.widgets.scenes import outlined, with_gaps


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


@pytest.mark.broad
def test_resolution_beyond_what_light_carries_is_told(panel, run_panel):
    panel.form.set_values(cut_off_nm=1000)
    run_panel(panel)
    text = panel.figures.text() + panel.results.remarks.text()
    for said in ("finer than the optical cut-off", "resolution is finer than the opt"):
        assert said in text
    panel.form.set_values(reference=True)
    run_panel(panel)
    text = panel.figures.text() + panel.results.remarks.text()
    for said in ("Mean FRC below it", "Mean FRC above it", "finer than the optical"):
        assert said in text
    panel.form.set_values(cut_off_nm=None)
    run_panel(panel)
    assert "cut-off" not in panel.figures.text()


def test_map_lies_over_the_image_in_nm(panel, model, run_panel):
    said = run_panel(panel)
    layer = model.layers["second · FRC map (nm)"]
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
    assert "Whole field" in panel.figures.text()
    assert panel.results.isVisibleTo(panel)


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


@pytest.mark.broad
def test_plots_hold_histogram_curve_and_threshold(panel, run_panel):
    run_panel(panel)
    histogram, curve = panel.plot.axes
    assert histogram.get_xlabel() == "Resolution (nm)"
    assert len(histogram.patches) > 5
    assert "µm⁻¹" in curve.get_xlabel()
    assert len(curve.get_lines()) >= 2
    assert [axis.get_xlabel() for axis in curve.child_axes] == ["Period (nm)"]


def test_identical_images_fail_with_their_reason(panel, model, run_panel):
    model.layers["second"].data = model.layers["first"].data.copy()
    panel.first.value, panel.second.value = panel.second.value, panel.first.value
    said = run_panel(panel)
    assert "None of the 25 blocks has a resolution" in said
    assert "so no map is shown" in said
    assert "identical" in panel.figures.text()
    assert [layer.name for layer in model.layers] == ["first", "second"]
    assert panel.asks_question
    assert not panel.plot.axes[0].get_visible()


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


@pytest.fixture
def mosaics(panel, model, exposures) -> None:
    """Give both layers gaps."""
    for exposure in exposures:
        model.layers[exposure.name].data = with_gaps(exposure).data


@pytest.mark.broad
@pytest.mark.usefixtures("mosaics")
def test_mosaic_has_its_map_and_the_curve_of_its_largest_whole_part(
    panel, model, run_panel
):
    assert "the map is shown over the image" in run_panel(panel)
    layer = model.layers["second · FRC map (nm)"]
    assert np.isfinite(layer.data).any()
    np.testing.assert_allclose(layer.translate, 315.0)
    text = panel.figures.text()
    assert "gap-free rectangle, 170 × 172 px" in text  # noqa: RUF001
    assert "left out" not in text
    assert len(panel.plot.axes[1].get_lines()) >= 2
    ((low, high),) = outlined(model, "FRC map")
    np.testing.assert_allclose(low, (115, 195))
    np.testing.assert_allclose(high, (1815, 1915))


@pytest.mark.broad
def test_map_is_made_where_no_part_is_whole(panel, model, exposures, run_panel):
    for exposure, half in zip(exposures, ((0, 96), (96, 192)), strict=True):
        data = exposure.array().copy()
        data[slice(*half)] = np.nan
        model.layers[exposure.name].data = data
    assert "blocks" in run_panel(panel)
    assert "left out: No area of second and first" in panel.figures.text()
    assert not panel.plot.axes[1].get_visible()


def test_a_gap_free_part_of_one_pixel_has_no_curve(panel, model, run_panel):
    for layer in model.layers:
        layer.data = np.full(layer.data.shape, np.nan, np.float32)
        layer.data[5, 5] = 1
    assert run_panel(panel).startswith("None of the ")
    assert not panel.plot.axes[1].get_visible()


def test_only_a_single_mosaic_may_be_split_anyway(panel, model, run_panel):
    for layer in model.layers:
        layer.data = np.full(layer.data.shape, 7, np.uint16)
    said = run_panel(panel)
    assert "blocks has a resolution (most: " in said
    assert "Split the mosaic" not in said
    assert "The images were not registered." in panel.results.remarks.text()


@pytest.mark.broad
def test_map_is_not_laid_over_other_images(panel, model, finish):
    panel.run_button.click()
    model.layers.remove("second")
    finish(panel)
    assert "'second' was removed" in panel.status.text()
    assert "Median" in panel.figures.text()
    assert [layer.name for layer in model.layers] == ["first"]


def test_one_image_is_split(panel, model, run_panel):
    panel.second.value = None
    panel.form.set_values(block=None)
    said = run_panel(panel)
    assert said.startswith("None of the 9 blocks has a")


def test_an_image_that_covers_the_map_has_not_its_colour_bar(panel, model, run_panel):
    run_panel(panel)
    (found,) = (item for item in model.layers if item.name.endswith("FRC map (nm)"))
    assert found.colorbar.visible
    below = model.layers["second"]
    above = model.add_image(
        below.data, scale=below.scale, translate=below.translate, units=below.units
    )
    assert not found.colorbar.visible
    above.visible = False
    assert found.colorbar.visible


def test_bad_option_is_one_sentence(panel, run_panel):
    panel.form.set_values(block=3)
    assert "'Block (px)' must be at least 16" in run_panel(panel)


def test_every_reason_has_a_colour_and_a_text():
    assert set(REASON_COLOURS) == set(REASON_TEXTS) == set(REASONS)
    assert len(set(REASON_COLOURS.values())) == len(REASONS)


def test_no_failed_block_adds_no_layer(model):
    grid = Micrograph(np.ones((3, 3), np.float32))
    assert add_failed_blocks_layer(model, grid, np.zeros((3, 3), np.uint8), "x") is None
    assert len(model.layers) == 0


@pytest.mark.broad
def test_a_map_of_what_a_network_made_says_so(panel, model, run_panel):
    made = Provenance(job="enhance", model_name="ssum-sem", model_digest="sha256:1")
    layer = model.layers["second"]
    layer.metadata["micrograph"]["provenance"] = made.model_dump(mode="json")
    run_panel(panel)
    assert "Made by a network: <b>ssum-sem</b>" in panel.results.remarks.text()
    assert get_network_name(model.layers["second · FRC map (nm)"]) == "ssum-sem"


@pytest.mark.broad
def test_all_criteria_are_drawn_and_the_chosen_one_is_told(panel, run_panel):
    panel.form.set_values(criterion="half-bit")
    run_panel(panel)
    labels = [line.get_label() for line in panel.plot.axes[1].get_lines()]
    assert {"1/7", "half-bit (chosen)", "3\N{GREEK SMALL LETTER SIGMA}"} <= set(labels)
    assert {"threshold 1/7", "threshold half-bit", "threshold 3-sigma"} <= set(
        panel.findings().curves["whole field"]
    )


@pytest.mark.broad
def test_second_image_is_registered_unless_it_is_switched_off(panel, model, run_panel):
    model.layers["first"].data = np.roll(model.layers["first"].data, 2, axis=0)
    run_panel(panel)
    assert "corrected" in panel.figures.text()
    median = panel.findings().numbers["Median"].value
    panel.form.set_values(register=False)
    run_panel(panel)
    assert "Shift of second image" not in panel.findings().numbers
    assert panel.findings().numbers["Median"].value > 1.1 * median


@pytest.mark.quick(1)
@pytest.mark.parametrize("kind", ["shapes", "labels"])
def test_regions_have_their_own_figures_in_a_table(panel, model, run_panel, kind):
    if kind == "shapes":
        left = np.array([[0, 0], [0, 80], [191, 80], [191, 0]])
        disc = np.array([[55.5, 87.5], [55.5, 167.5], [135.5, 167.5], [135.5, 87.5]])
        layer = model.add_shapes(
            [left, disc, [[0, 0], [10, 10]]],
            shape_type=["rectangle", "ellipse", "line"],
            scale=(10, 10),
            units=("nm", "nm"),
        )
        names = ["rectangle 1", "ellipse 2"]
    else:
        labels = np.zeros((192, 192), np.uint8)
        labels[:, :80], labels[:, 80:] = 3, 7
        layer = model.add_labels(labels, scale=(10, 10), units=("nm", "nm"))
        names = ["label 3", "label 7"]
    panel.regions.value = layer
    run_panel(panel)
    found = panel.findings()
    table = found.tables["Regions"]
    assert table["region"] == names
    measured = model.layers["second · FRC map (nm)"].data
    # centres of the blocks lie at 32, 64, 96, 128 and 160 px less a half
    part = measured[:, :2]
    assert table["blocks"][0] == part.size
    assert table["failed"][0] == np.isnan(part).sum()
    assert table["median (nm)"][0] == pytest.approx(np.nanmedian(part), rel=1e-5)
    # a disc of 40 px around a centre holds its four neighbours, 32 px away
    assert table["blocks"][1] == (5 if kind == "shapes" else 15)
    assert found.to_text().splitlines()[-2].split("\t")[0] == names[0]
    counts = found.curves["histogram"]
    assert np.sum(counts[names[0]]) <= np.sum(counts["whole field"])
    assert "median (nm)" in panel.results.remarks.text()


@pytest.mark.broad
def test_two_maps_are_compared_on_one_scale(panel, model, run_panel):
    run_panel(panel)
    panel.compare_maps()
    assert "Choose two" in panel.status.text()
    panel.first.value, panel.second.value = model.layers["first"], None
    panel.second.value = model.layers["second"]
    panel.form.set_values(criterion="half-bit")
    run_panel(panel)
    before, after = (
        model.layers[f"{name} · FRC map (nm)"] for name in ("second", "first")
    )
    panel.before.value, panel.after.value = before, after
    panel.compare_maps()
    assert "median" in panel.status.text()
    assert before.contrast_limits == after.contrast_limits
    made = model.layers[f"{after.name} − {before.name}"]  # noqa: RUF001
    np.testing.assert_array_equal(made.data, after.data - before.data)
    np.testing.assert_allclose(made.translate, before.translate)
    low, high = made.contrast_limits
    assert low == -high
    assert made.visible
    assert made not in panel.before.choices
    assert made not in panel.first.choices
    panel.compare_maps()  # in place of the earlier one
    assert len([item for item in model.layers if "−" in item.name]) == 1  # noqa: RUF001
    panel.form.set_values(step=16)
    run_panel(panel)
    panel.after.value = model.layers["first · FRC map (nm)"]
    panel.before.value = before
    panel.compare_maps()
    assert "with the same block" in panel.status.text()


@pytest.mark.broad
def test_map_is_shown_over_its_image_and_not_over_what_a_network_made(
    panel, model, exposures, add, run_panel
):
    made = Provenance(job="enhance", model_name="net", model_digest="0" * 64)
    add(model, exposures[0].replace(name="enhanced", provenance=made))
    model.layers["second"].visible = False
    said = run_panel(panel)
    assert model.layers["second"].visible
    assert model.layers["first"].visible
    assert not model.layers["enhanced"].visible
    assert said.endswith("is shown over the image; hidden: enhanced.")
    run_panel(panel)
    assert panel.status.text().endswith("is shown over the image.")


@pytest.mark.broad
def test_mosaic_without_halves_is_split_only_when_asked(
    panel, model, exposures, run_panel
):
    blended = Provenance(job="stitch")
    alone = model.layers["first"]
    alone.metadata["micrograph"]["provenance"] = blended.model_dump(mode="json")
    model.layers.remove("second")
    panel.show()
    said = run_panel(panel)
    assert "A stitched mosaic needs two exposures" in said
    assert len(model.layers) == 1
    assert panel.split_mosaic.native.isVisible()
    panel.split_mosaic.value = True
    assert " blocks" in run_panel(panel)
    assert not panel.advice.text()


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
