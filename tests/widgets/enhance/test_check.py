import pytest

from napari_semsr.widgets.enhance.models import CheckPanel


@pytest.mark.broad
def test_check_says_how_many_discs_are_shown(model, hold, run_panel):
    panel = hold(CheckPanel(model))
    panel.model.show_model("sem-restore")
    panel.form.set_values(discs=4, size_px=256, task="images")
    said = run_panel(panel)
    assert said.startswith("Discs reproduced correctly by sem-restore: ")
    assert "blur, inserted" in panel.figures.text()
    for told in ("Shown correctly", "% of the discs", "than its input"):
        assert told in panel.headline.text()
    assert {"condition", "radius"} <= set(panel.findings().curves["discs"])
