"""One number of a result stands large, with its unit and what to think of it."""

import pytest

from napari_semsr.analysis import Misfit
from tests.widgets.scenes import exposures_of
from tests.widgets.test_panels import make


@pytest.fixture
def scene(model, add):
    """Two exposures of one place, 96 px a side."""
    for image in exposures_of((96, 96)):
        add(model, image)
    return model


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("FrcMapPanel", ("Median", "nm", "that these pixels can show")),
        ("MetricsPanel", ("PSNR", "dB", "% of the data range")),
    ],
)
def test_one_number_is_large_and_the_others_stay_unfolded(
    scene, qtbot, run_panel, module, said
):
    panel = make(module, scene, qtbot)
    if module == "MetricsPanel":
        panel.reference.value = scene.layers["first"]
    else:
        panel.form.set_values(block=32)
    run_panel(panel)
    told = panel.headline.text()
    assert told.count("font-size") == 1
    assert all(part in told for part in said)
    assert not panel.figures.isVisibleTo(panel)
    panel.results.all_figures.header.click()
    assert panel.figures.text().count("<tr>") > 3
    run_panel(panel)
    assert panel.figures.isVisibleTo(panel)


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.3, "consistent"), (0.43, "consistent"), (0.8, "inconsistent")],
)
def test_misfit_says_what_to_think_of_it(share, said):
    misfit = Misfit(share, 1.0, 0.0, (0.0, 1.0), None)
    assert misfit.verdict.startswith(f"{said} with the input: ")
    assert "42 ± 19 %" in misfit.verdict
