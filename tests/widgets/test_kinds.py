"""Every layer knows what it is, and no panel proposes a map for an image."""

import numpy as np
import pytest
from magicgui.widgets import Select

from napari_semsr.io import HELPER_KEY
from napari_semsr.widgets.base.session import get_form_values
from napari_semsr.widgets.enhance.panel import EnhancePanel
from napari_semsr.widgets.layers import (
    get_network_name,
    get_provenance,
    is_map,
    list_image_layers,
)
from napari_semsr.widgets.measure.frc_map import FrcMapPanel
from napari_semsr.widgets.measure.panel import ErrorMapPanel
from napari_semsr.widgets.measure.spectrum import SpectrumPanel
from napari_semsr.widgets.restore import RestorePanel
from tests.tiny_models import write_tiny_model
from tests.widgets.test_panels import PANELS, make


@pytest.fixture
def press(model, qtbot, run_panel):
    """Fill a panel in, press Run, and give the layers that it makes."""

    def run(kind, fill=lambda panel: None):
        panel, before = kind(model), list(model.layers)
        qtbot.addWidget(panel)
        panel.show()
        fill(panel)
        said = run_panel(panel)
        made = [item for item in model.layers if item not in before]
        assert made, said
        return panel, made

    return run


@pytest.fixture
def instrument(tmp_path):
    """A tiny network that learnt from an instrument."""
    learnt = {"recipe": {"data": {"sources": {"superlens": 1.0}}}}
    return write_tiny_model(tmp_path, training=learnt)


def show_every_map(model, press, finish, instrument):
    """Let every panel that makes a map make one of the layer ``second``."""

    def enhance(panel):
        panel.model.add_file(instrument)
        panel.form.set_values(tile=64, precision="fp32")
        panel.misfit.value = True

    def choose(panel):
        panel.boxes["reference"].value = model.layers["first"]
        panel.boxes["enhanced"].value = model.layers["second"]

    press(FrcMapPanel)
    press(ErrorMapPanel, choose)
    press(SpectrumPanel)
    restored, _ = press(RestorePanel)
    restored.look.difference_button.click()
    finish(restored)
    press(EnhancePanel, enhance)


@pytest.mark.broad
def test_no_default_input_is_a_map_after_every_panel_has_run(
    model, add, exposures, press, finish, instrument, qtbot, monkeypatch
):
    # the exposures are of soft grain, of which no blur is estimated
    monkeypatch.setattr("napari_semsr.restoration.method.has_structure", lambda _: True)
    for image in exposures:
        add(model, image.replace(data=image.data[:128, :128]))
    before = [make(module, model, qtbot) for module in PANELS]
    show_every_map(model, press, finish, instrument)
    jobs = {
        (made.job, made.part)
        for item in model.layers
        if is_map(item) and (made := get_provenance(item))
    }
    assert jobs == {
        ("frc-map", None), ("error-map", None),
        ("spectrum", None), ("difference", None), ("enhance", "misfit"),
    }  # fmt: skip
    maps = {item.name: is_map(item) for item in model.layers}
    assert (maps["first"], maps["second"]) == (False, False)
    by_networks = [item for item in model.layers if get_network_name(item)]
    assert any(not is_map(item) for item in by_networks)
    proposed = {}
    for panel in [*before, *(make(module, model, qtbot) for module in PANELS)]:
        for name, value in get_form_values(panel).items():
            if isinstance(value, str) and value in maps:
                proposed[panel.title, name] = maps[value]
        several = getattr(panel, "layers", None)
        for layer in several.value if isinstance(several, Select) else ():
            proposed[panel.title, layer.name] = is_map(layer)
    assert len(proposed) > 10
    assert [key for key, proposes_map in proposed.items() if proposes_map] == []


def test_no_other_layers_are_images_or_maps(model):
    model.add_labels(np.zeros((4, 4), int))
    model.add_points([[1, 2]])
    model.add_image(np.zeros((4, 4)), metadata={HELPER_KEY: "someone"})
    assert list_image_layers(model) == []
    assert not any(map(is_map, model.layers))
