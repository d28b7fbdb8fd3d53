"""Comparing: the box at the mouse, the line, the two views."""

import numpy as np
import pytest

from napari_semsr.core import run
from napari_semsr.inference import EnhanceOptions
from napari_semsr.jobs import ENHANCE
from napari_semsr.widgets.enhance.panel import EnhancePanel
from napari_semsr.widgets.layers import list_grey_layers, micrograph_from_layer
from tests.children import LIMIT_MS


@pytest.fixture
def panel(model, hold, add, exposures) -> EnhancePanel:
    add(model, exposures[0].replace(name="field", origin=(500.0, -300.0)))
    made = hold(EnhancePanel(model))
    made.form.set_values(tile=64, precision="fp32")
    return made


def point(model, y, x):
    model.cursor.position = (500 + 10.0 * y, -300 + 10.0 * x)


def test_a_box_follows_the_mouse_and_shows_what_the_run_will(panel, model, qtbot):
    image = micrograph_from_layer(model.layers["field"])
    options = EnhanceOptions(tile=64, precision="fp32")
    whole = run(ENHANCE.job(image, options=options)).array()
    point(model, 90, 100)
    panel.pointing.value = True
    qtbot.waitUntil(lambda: panel.preview.layer is not None, timeout=LIMIT_MS)
    layer = panel.preview.layer
    assert layer not in list_grey_layers(model)
    assert [str(unit) for unit in model.layers.units] == ["nanometer", "nanometer"]
    np.testing.assert_allclose(layer.data, whole, atol=1e-4)
    panel.preview.side_px = 64
    point(model, 60, 130)
    qtbot.waitUntil(lambda: layer.data.shape == (64, 64), timeout=LIMIT_MS)
    y, x = (int(v) for v in (layer.translate - (500.0, -300.0)) / 10.0)
    assert abs(y + 32 - 60) <= 16
    assert abs(x + 32 - 130) <= 16
    np.testing.assert_allclose(layer.data, whole[y : y + 64, x : x + 64], atol=1e-4)
    panel.cancel_all_jobs()
    qtbot.waitUntil(lambda: not panel.preview.runner.is_busy, timeout=LIMIT_MS)
    assert [item.name for item in model.layers] == ["field"]


def test_the_blur_to_remove_is_the_models_none_or_a_width(panel):
    panel.model.show_model("sem-restore")
    for blur in (None, 0.0, 1.5):
        panel.weights.set_values(blur_px=blur)
        assert panel.read_values().get("blur_px") == blur


def test_a_preview_of_nothing_is_refused_in_a_sentence(panel, model):
    model.layers.clear()
    panel.pointing.value = True
    assert "Choose an image layer" in panel.status.text()
    assert not panel.preview.runner.is_busy
