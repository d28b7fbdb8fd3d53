import numpy as np
import pytest

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.widgets.layers import micrograph_from_layer
from napari_semsr.widgets.restore import RestorePanel
from tests.widgets.scenes import exposures_of


@pytest.fixture
def field(model, add) -> Micrograph:
    first = exposures_of((96, 96), sharp=True)[0].replace(name="field")
    add(model, first)
    return first


@pytest.fixture
def panel(model, hold, field) -> RestorePanel:
    return hold(RestorePanel(model))


@pytest.mark.quick(1)
@pytest.mark.parametrize("method", ["wiener", "blind"])
def test_result_is_a_calibrated_layer(panel, model, run_panel, method):
    panel.form.set_values(method=method, psf="10nm")
    called = panel.form.get_widget("method").native.currentText()
    assert run_panel(panel) == f"Restored field ({called})."
    assert f"<b>{called}</b>" in panel.figures.text()
    found = micrograph_from_layer(model.layers[f"field · {method}"])
    assert found.pixel_size_nm == (10, 10)
    assert found.provenance.options["method"] == method
    assert np.isfinite(found.array()).all()
    text = panel.figures.text()
    assert "Tiles against whole" in text
    assert "network" not in text
    assert ("Iterations" in text) == (method == "blind")


def test_existing_store_is_kept_until_replacing_is_chosen(panel, run_panel, tmp_path):
    panel.form.set_values(psf="1px")
    panel.output.value = tmp_path / "made"
    assert "Restored" in run_panel(panel)
    assert "exists" in run_panel(panel)
    panel.replace.value = True
    assert "Restored" in run_panel(panel)
    assert [path.name for path in tmp_path.iterdir()] == ["made.ome.zarr"]
