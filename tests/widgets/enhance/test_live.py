"""The layer of a run: there at once, drawn as tiles land, stopped and gone on with."""

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_semsr.core import Box, ShapeError
from napari_semsr.io import LIVE_KEY
from napari_semsr.widgets import layers
from napari_semsr.widgets.base import results
from napari_semsr.widgets.enhance.panel import EnhancePanel
from napari_semsr.widgets.layers import (
    get_visible_box,
    is_made_from,
    micrograph_from_layer,
)
from napari_semsr.widgets.project import SavePanel
from tests.children import LIMIT_MS
from tests.refusals import refused


@pytest.fixture(autouse=True)
def _own_cache():
    results.remove_cache()
    yield
    results.remove_cache()


@pytest.fixture
def panel(model, hold, add, exposures) -> EnhancePanel:
    add(model, exposures[0].replace(name="field"))
    made = hold(EnhancePanel(model))
    made.form.set_values(tile=64, precision="fp32")
    return made


def start(panel, qtbot, computed, tiles):
    """Press Enhance and wait for so many tiles; the next one stays under way."""
    computed.allow(tiles)
    panel.run_button.click()
    assert panel.runner.is_busy
    qtbot.waitUntil(lambda: panel.live.live.tiles_done >= tiles, timeout=LIMIT_MS)


def assert_no_more_than_the_stopped_tile_was_begun_again(computed):
    """The third was under way: it was finished, or stopped between two layers."""
    assert len(set(computed)) == 9
    again = [place for place in set(computed) if computed.count(place) > 1]
    assert again in ([], [computed[2]])


def test_the_layer_is_there_at_once_and_steady(panel, model, finish, computed):
    source = model.layers["field"]
    panel.run_button.click()
    layer = model.layers["field · sem-restore"]
    assert panel.live.live.tiles_done == 0
    assert layer.metadata[LIVE_KEY]
    assert is_made_from(layer, source)
    np.testing.assert_array_equal(np.asarray(layer.data), source.data)
    assert layer.contrast_limits == source.contrast_limits
    assert [str(unit) for unit in model.layers.units] == ["nanometer", "nanometer"]
    np.testing.assert_array_equal(layer.scale, source.scale)
    finish(panel)
    assert model.layers["field · sem-restore"] is layer
    assert layer.contrast_limits == source.contrast_limits
    assert LIVE_KEY not in layer.metadata
    assert len(computed) == len(set(computed)) == 9


@pytest.mark.broad
def test_what_napari_left_half_done_in_a_project_is_gone_on_with(
    panel, model, hold, qtbot, finish, computed, choose, no_project, tmp_path
):
    save = hold(SavePanel(model))
    choose(tmp_path / "mine.semsr")
    save.run_button.click()
    qtbot.waitUntil(lambda: not save.is_busy, timeout=LIMIT_MS)
    start(panel, qtbot, computed, 2)
    panel.cancel_all_jobs()  # as when the window is closed
    computed.allow()
    finish(panel)

    other = ViewerModel()
    save = hold(SavePanel(other))
    save.open_button.click()
    qtbot.waitUntil(lambda: not save.is_busy, timeout=LIMIT_MS)
    panel = hold(EnhancePanel(other))
    panel.show()
    assert "field_sem-restore.ome.zarr is unfinished" in panel.status.text()
    assert panel.form.values()["tile"] == 64
    panel.run_button.click()
    finish(panel)
    assert [item.name for item in other.layers] == ["field", "field · sem-restore"]
    assert_no_more_than_the_stopped_tile_was_begun_again(computed)


@pytest.mark.broad
def test_what_was_left_half_done_is_replaced_where_asked(
    panel, model, qtbot, finish, computed
):
    start(panel, qtbot, computed, 2)
    panel.cancel_button.click()
    computed.allow()
    finish(panel)
    with refused(ShapeError, "incomplete"):
        micrograph_from_layer(panel.live.layer)
    old, left = panel.live.store, len(computed)
    source = model.layers["field"]
    source.data = 1 - source.data
    panel.run_button.click()
    finish(panel)
    assert "use 'If it exists: replace it' to start again" in panel.status.text()
    panel.existing.value = "replace"
    panel.run_button.click()
    finish(panel)
    assert "sem-restore removed" in panel.status.text()
    assert len(computed) == left + 9
    assert [item.name for item in model.layers] == ["field", "field · sem-restore"]
    assert not old.exists()


@pytest.mark.broad
def test_only_what_is_in_view_until_the_whole_is_ticked(
    panel, model, qtbot, finish, computed, monkeypatch
):
    monkeypatch.setattr(layers, "get_visible_box", lambda *_: Box(0, 60, 70, 100))
    panel.whole.value = False
    panel.run_button.click()
    qtbot.waitUntil(lambda: "Waiting" in panel.status.text(), timeout=LIMIT_MS)
    assert computed == [(0, 1)]
    panel.whole.value = True
    finish(panel)
    assert len(computed) == 9


def test_what_is_in_view_is_in_pixels_of_the_finest_level(model, look_at):
    image = np.zeros((400, 600), np.float32)
    levels = [image, image[::2, ::2]]
    keywords = {"multiscale": True, "contrast_limits": (0, 1), "units": ("nm", "nm")}
    layer = model.add_image(levels, **keywords)
    other = model.add_image(
        image, scale=(0.001, 0.001), units="µm", translate=(0.01, 0)
    )
    look_at(layer, 20, 42, -5, 610)
    assert get_visible_box(model, layer) == Box(20, 42, 0, 600)
    assert get_visible_box(model, other) == Box(10, 32, 0, 600)
    look_at(layer, 20, 42, 600, 700)
    assert get_visible_box(model, layer) is None


@pytest.mark.broad
def test_removing_the_layer_stops_the_run_and_clears_up(
    panel, model, qtbot, finish, computed
):
    start(panel, qtbot, computed, 1)
    path = panel.live.store
    assert path.exists()
    model.layers.remove("field · sem-restore")
    computed.allow()
    finish(panel)
    assert len(computed) < 9
    assert "no layer was added" in panel.status.text()
    assert not path.exists()
    assert len(model.layers) == 1
