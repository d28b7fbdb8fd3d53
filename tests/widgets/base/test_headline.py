"""One number of a result stands large, with its unit and what to think of it."""

import pytest

from napari_semsr.analysis import Misfit
from napari_semsr.widgets.crop import CropPanel
from tests.widgets.scenes import exposures_of
from tests.widgets.test_panels import make

LARGE = {  # by the panel: the number, its unit, and words of the verdict
    "FrcMapPanel": ("Median", "nm", "that these pixels can show"),
    "ErrorMapPanel": ("RSE", "grey levels", "of the reference"),
    "MetricsPanel": ("PSNR", "dB", "% of the data range"),
}


@pytest.fixture
def scene(model, add):
    """Two exposures of one place, 96 px a side."""
    for image in exposures_of((96, 96)):
        add(model, image)
    return model


def measured(scene, qtbot, module):
    """Make a panel, and choose both exposures where it takes two layers."""
    panel = make(module, scene, qtbot)
    if module == "ErrorMapPanel":
        panel.boxes["reference"].value = scene.layers["first"]
        panel.boxes["enhanced"].value = scene.layers["second"]
    if module == "MetricsPanel":
        panel.reference.value = scene.layers["first"]
    if module == "FrcMapPanel":
        panel.form.set_values(block=32)
    return panel


@pytest.mark.parametrize("module", LARGE)
def test_one_number_is_large_and_the_others_are_folded(scene, qtbot, run_panel, module):
    panel = measured(scene, qtbot, module)
    run_panel(panel)
    name, unit, verdict = LARGE[module]
    told = panel.headline.text()
    assert told.count("font-size") == 1
    for part in (name, unit, verdict):
        assert part in told
    assert not panel.figures.isVisibleTo(panel)
    panel.results.all_figures.header.click()
    assert panel.figures.isVisibleTo(panel)
    assert panel.figures.text().count("<tr>") > 3


def test_numbers_that_were_unfolded_stay_so(scene, qtbot, run_panel):
    panel = measured(scene, qtbot, "FrcMapPanel")
    run_panel(panel)
    panel.results.all_figures.header.click()
    panel.form.set_values(step=8)
    run_panel(panel)
    assert panel.figures.isVisibleTo(panel)


def test_without_a_number_to_judge_by_all_are_shown(scene, hold, run_panel):
    panel = hold(CropPanel(scene))
    run_panel(panel)
    assert panel.figures.text()
    assert panel.figures.isVisibleTo(panel)
    assert not panel.results.all_figures.header.isVisibleTo(panel)
    assert not panel.headline.text()


def test_copied_numbers_have_the_verdict(scene, qtbot, run_panel):
    panel = measured(scene, qtbot, "ErrorMapPanel")
    run_panel(panel)
    (row,) = (
        line
        for line in panel.findings().to_text().splitlines()
        if line.startswith("RSE")
    )
    assert row.split("\t")[2] == "grey levels"
    assert "of the reference" in row.split("\t")[3]


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.3, "consistent"), (0.43, "consistent"), (0.8, "inconsistent")],
)
def test_misfit_says_what_to_think_of_it(share, said):
    misfit = Misfit(share, 1.0, 0.0, (0.0, 1.0), None)
    assert misfit.verdict.startswith(f"{said} with the input: ")
    assert "42 ± 19 %" in misfit.verdict
