"""Comparing any two layers, and a result at any strength, by the real controls."""

import numpy as np
import pytest

from napari_semsr.io import STORE_KEY, read
from napari_semsr.widgets.base.results import is_unsaved
from napari_semsr.widgets.enhance.panel import EnhancePanel
from napari_semsr.widgets.layers import list_grey_layers, micrograph_from_layer
from tests.children import LIMIT_MS
from tests.tiny_models import write_tiny_model
from tests.widgets.scenes import create_classical


@pytest.fixture
def panel(model, hold, add, exposures, run_panel) -> EnhancePanel:
    """A classical method after a run, with another layer open."""
    add(model, exposures[0].replace(name="field", origin=(500.0, -300.0)))
    add(model, exposures[1].replace(name="other"))
    made = hold(create_classical(model, psf="1px"))
    made.layer.value = model.layers["field"]
    assert "Wiener removed a blur" in run_panel(made)
    return made


@pytest.fixture
def set_strength(qtbot):
    """Move the slider, and wait until the mixture is shown."""

    def move(panel, percent: int) -> None:
        panel.look.strength.value = percent
        qtbot.waitUntil(lambda: not panel.is_busy, timeout=LIMIT_MS)

    return move


def visible(model) -> list[str]:
    return [item.name for item in model.layers if item.visible]


def test_before_and_after_shows_these_two_alone(panel, model, look_at, add, exposures):
    model.layers["other"].visible = False
    model.add_points(np.zeros((1, 2)), name="mark", scale=(10, 10), units="nm")
    source = model.layers["field"]
    look_at(source, 20, 120, 40, 140)
    panel.look.split.value = 50
    assert visible(model) == ["field · wiener", "before"]
    np.testing.assert_array_equal(
        model.layers["before"].data, source.data[20:120, 40:90]
    )
    other = panel.look.left.value = model.layers["other"]
    look_at(other, 0, 100, 0, 100)
    panel.look.split.value = 60
    np.testing.assert_array_equal(model.layers["before"].data, other.data[0:100, 0:60])
    panel.look.split.value = 0
    assert visible(model) == ["field", "field · wiener", "mark"]
    model.layers.remove("other")
    assert panel.look.left.value is None  # and no other image
    add(model, exposures[0].replace(name="later"))
    model.layers.remove("field")
    assert (panel.look.left.value.name, panel.look.right.value) == ("later", None)


def test_strength_mixes_shows_and_saves(panel, model, set_strength, tmp_path):
    layer, source = model.layers["field · wiener"], model.layers["field"]
    whole, store = np.array(layer.data), layer.metadata[STORE_KEY]
    made = micrograph_from_layer(layer).provenance
    set_strength(panel, 25)
    np.testing.assert_allclose(layer.data, 0.75 * source.data + 0.25 * whole, 1e-5)
    assert "is shown, measured and saved at 25 %" in panel.look.note.text()
    image = micrograph_from_layer(layer)
    assert image.provenance.job == "blend"
    assert image.provenance.options == {"strength": 0.25}
    parts = {item.role: item.provenance for item in image.provenance.inputs}
    assert parts["result"] == made
    panel.look.right.value = model.layers["other"]
    assert panel.look.note.text() == ""
    assert not panel.look.strength.enabled
    panel.look.right.value = layer
    assert panel.look.strength.value == 25
    set_strength(panel, 0)
    np.testing.assert_allclose(layer.data, source.data, 1e-6)
    set_strength(panel, 100)
    np.testing.assert_array_equal(layer.data, whole)
    assert layer.metadata[STORE_KEY] == store
    assert micrograph_from_layer(layer).provenance == made
    assert panel.look.note.text() == ""


@pytest.mark.broad
def test_a_mixture_is_not_saved_by_the_store_of_its_result(
    panel, model, run_panel, set_strength, tmp_path, monkeypatch, qtbot
):
    panel.output.value = tmp_path / "kept"
    panel.layer.value = model.layers["field"]
    run_panel(panel)
    layer = panel.look.right.value
    assert not is_unsaved(layer)
    set_strength(panel, 40)
    assert is_unsaved(layer)
    saved = tmp_path / "mixed.ome.tif"
    model.layers.selection.active = layer
    monkeypatch.setattr(
        "napari_semsr.widgets.base.saving.ask_save_path", lambda *_: saved
    )
    panel.save_button.click()
    qtbot.waitUntil(lambda: not panel.is_busy, timeout=LIMIT_MS)
    assert not is_unsaved(layer)
    found = read(saved)
    np.testing.assert_allclose(found.array(), layer.data, 1e-6)
    assert found.provenance.options == {"strength": 0.4}
    set_strength(panel, 41)
    assert is_unsaved(layer)
    set_strength(panel, 100)
    assert not is_unsaved(layer)


def test_difference_is_a_signed_layer_of_its_own(panel, model, run_panel):
    run_panel(panel, panel.look.difference_button)
    layer = model.layers["field · wiener \N{MINUS SIGN} field difference"]
    low, high = layer.contrast_limits
    assert low == -high < 0
    wanted = model.layers["field · wiener"].data - model.layers["field"].data
    np.testing.assert_allclose(layer.data, wanted, atol=1e-6)
    assert layer not in list_grey_layers(model)
    assert layer not in panel.layer.choices
    assert layer in panel.result_layers.own
    image = micrograph_from_layer(layer)
    assert image.provenance.job == "difference"
    assert (image.pixel_size_nm, image.origin) == ((10, 10), (500, -300))
    assert layer.colorbar.visible
    panel.look.left.value = panel.look.right.value
    panel.look.difference_button.click()
    assert "two different layers" in panel.status.text()


@pytest.mark.broad
def test_grey_levels_of_another_kind_are_not_mixed(
    model, hold, add, exposures, run_panel, tmp_path
):
    add(model, exposures[0].replace(name="field"))
    panel = hold(EnhancePanel(model))
    panel.model.add_file(write_tiny_model(tmp_path, grey="unit"))
    run_panel(panel)
    look = panel.look
    assert look.right.value.name == "field · tiny"
    assert not look.strength.enabled
    assert "grey levels differ from the input's" in look.note.text()
    look.right.value = model.layers["field"]
    assert look.note.text() == ""
