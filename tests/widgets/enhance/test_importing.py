import pytest

import napari_semsr as semsr
from napari_semsr.widgets.enhance.panel import EnhancePanel
from tests.tiny_models import write_tiny_model


@pytest.fixture(autouse=True)
def own_shelf(tmp_path, monkeypatch):
    folder = tmp_path / "shelf"
    monkeypatch.setenv("SEMSR_MODELS", str(folder))
    return folder


@pytest.fixture
def network(tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    path = tmp_path / "their-net.onnx"
    semsr.export_model(write_tiny_model(tmp_path), path)
    return path


@pytest.fixture
def panel(model, hold):
    return hold(EnhancePanel(model))


def test_an_onnx_file_becomes_a_model_that_open_panels_choose(
    panel, model, hold, finish, network, own_shelf
):
    other = hold(EnhancePanel(model))
    panel.model.import_file(network)
    finish(panel)
    (path,) = own_shelf.iterdir()
    card = semsr.model_info(str(path)).card
    assert card["architecture"] == "onnx"
    assert panel.model.value == other.model.value == card["name"]
    assert panel.status.text() == f"{card['name']} is installed and listed in Enhance."


def test_a_model_with_a_card_is_imported_and_exported_as_it_is(
    panel, finish, tmp_path, own_shelf
):
    (tmp_path / "elsewhere").mkdir()
    path = write_tiny_model(tmp_path / "elsewhere", name="carded")
    panel.model.import_file(path)
    finish(panel)
    assert panel.model.card["name"] == "carded"
    assert (own_shelf / "carded.safetensors").read_bytes() == path.read_bytes()
    panel.model.export_file(tmp_path / "out.safetensors")
    finish(panel)
    assert (tmp_path / "out.safetensors").read_bytes() == path.read_bytes()
