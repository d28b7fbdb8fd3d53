"""The button that makes the saved file of a layer again."""

import numpy as np
import pytest

import napari_semsr as semsr
from napari_semsr.core import run
from napari_semsr.widgets.base.results import add_opened_image, open_store
from napari_semsr.widgets.project import SavePanel
from tests.children import LIMIT_MS

pytestmark = pytest.mark.usefixtures("display")


@pytest.fixture
def panel(model, hold):
    made = hold(SavePanel(model))
    yield made
    made.close()


def test_saved_layer_is_made_again_and_compared(panel, model, tmp_path, rng, qtbot):
    grey = rng.integers(0, 255, (60, 70), dtype=np.uint8)
    semsr.write(semsr.Micrograph(grey, (5, 5), "a"), tmp_path / "a.tif")
    semsr.crop(tmp_path / "a.tif", tmp_path / "b.ome.zarr", box=(2, 3, 40, 50))
    layer = add_opened_image(model, run(open_store(tmp_path / "b.ome.zarr")))
    layer.metadata["semsr saved"] = str(tmp_path / "b.ome.zarr")
    model.layers.selection.active = layer
    panel.replay()
    qtbot.waitUntil(
        lambda: "b.ome.zarr is identical" in panel.status.text(), timeout=LIMIT_MS
    )


def test_layer_that_is_not_saved_says_so(panel, model):
    model.layers.selection.active = model.add_image(np.zeros((8, 8)))
    panel.replay()
    assert "Only a saved layer" in panel.status.text()
