"""One number of a result stands large, with its unit and what to think of it."""

import pytest

from napari_semsr.analysis import Misfit
from napari_semsr.core import Figure
from napari_semsr.widgets.measure.quality import QualityPanel
from tests.widgets.scenes import exposures_of


def test_one_number_is_large_and_the_others_stay_unfolded(model, hold, add, run_panel):
    first, second = (add(model, image) for image in exposures_of((96, 96)))
    panel = hold(QualityPanel(model))
    panel.image.value, panel.reference.value = second, first
    run_panel(panel)
    told = panel.headline.text()
    assert told.count("font-size") == 1
    assert all(part in told for part in ("PSNR", "dB", "% of the data range"))
    assert not panel.figures.isVisibleTo(panel)
    panel.results.all_figures.header.click()
    assert panel.figures.text().count("<tr>") > 3
    run_panel(panel)
    assert panel.figures.isVisibleTo(panel)
    panel.results.show_result({"Median": Figure(None, large=True)}, "No median.")
    assert panel.headline.text() == "No median."


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.3, "consistent"), (0.43, "consistent"), (0.8, "inconsistent")],
)
def test_misfit_says_what_to_think_of_it(share, said):
    misfit = Misfit(share, 1.0, 0.0, (0.0, 1.0), None)
    assert misfit.verdict.startswith(f"{said} with the input: ")
    assert "42 ± 19 %" in misfit.verdict
