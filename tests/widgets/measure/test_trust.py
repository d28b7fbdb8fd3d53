"""Trust is asked of results that are there."""

import numpy as np
import pytest
from napari.layers import Image

from napari_semsr.core import Micrograph
from napari_semsr.widgets.base import DASH
from napari_semsr.widgets.enhance.panel import EnhancePanel
from napari_semsr.widgets.measure.verb_panel import TrustPanel
from napari_semsr.widgets.window.dock import StepsWindow
from tests.tiny_models import write_trusted_model


@pytest.fixture
def ask(model, hold, run_panel, add, exposures, tmp_path):
    """Enhance a field, close the panel, and ask for the trust of the layer."""

    def press(**trust):
        field = exposures[0].replace(data=exposures[0].data[:96, :96], name="field")
        add(model, field)
        maker = hold(EnhancePanel(model))
        maker.model.add_file(write_trusted_model(tmp_path, **trust))
        maker.form.set_values(tile=64, precision="fp32")
        run_panel(maker)
        panel = hold(TrustPanel(model))
        return panel, run_panel(panel)

    return press


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("error", "word"), [(0.05, "as measured"), (0.2, "look twice"), (0.4, "doubtful")]
)
def test_answer_is_one_of_three_words_with_its_limit(model, ask, error, word):
    panel, said = ask(error=error)
    assert panel.boxes["image"].value is model.layers["field"]
    assert f"{100 * error:.1f} % of the range {DASH} {word}; one in ten" in said
    assert f"{word} (" in panel.remarks.text()
    assert "100 % of the places" in panel.remarks.text()
    shown = model.layers["field · tiny · likely error (%)"]
    assert isinstance(shown, Image)
    np.testing.assert_allclose(shown.data, 100 * error, rtol=1e-4)


@pytest.mark.broad
def test_asked_again_it_is_one_map_and_no_result_is_doubled(model, ask, run_panel):
    panel, _ = ask()
    count = len(model.layers)
    panel.form.set_values(show="spread")
    run_panel(panel)
    panel.form.set_values(show="bound")
    run_panel(panel)
    names = [layer.name for layer in model.layers]
    assert len(names) == count + 1
    assert sum("likely error" in name for name in names) == 1


@pytest.mark.broad
def test_button_below_a_result_asks_for_its_trust(make_napari_viewer, finish, tmp_path):
    viewer = make_napari_viewer()
    window = StepsWindow(viewer)
    viewer.window.add_dock_widget(window, name="Superlens SEM")
    for name in ("field", "other"):
        pixels = np.random.default_rng(0).random((96, 96), dtype=np.float32)
        viewer.add_image(pixels, name=name)
    maker = window.show_panel("Network")
    maker.layer.value = viewer.layers["field"]
    maker.model.add_file(write_trusted_model(tmp_path))
    maker.run_button.click()
    finish(maker)
    maker.ask_button.click()
    panel = window.page.panel
    assert isinstance(panel, TrustPanel)
    assert panel.boxes["enhanced"].value.name == "field · tiny"
    assert panel.boxes["image"].value.name == "field"
    panel.run_button.click()
    finish(panel)
    assert "look twice" in panel.figures.text()


def test_field_of_another_kind_is_doubtful(ask):
    panel, said = ask(error=0.05, familiar=1e-9)
    assert "is unlike the fields" in panel.warned.text()
    assert "doubtful, since the field is unlike those" in said


def test_without_a_result_it_says_what_is_missing(model, hold, run_panel, add):
    panel = hold(TrustPanel(model))
    add(model, Micrograph(np.zeros((64, 64)), (5.0, 5.0), "field"))
    assert "that a network made must be chosen" in run_panel(panel)
