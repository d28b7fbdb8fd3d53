import pytest

import napari_semsr as semsr
from napari_semsr.widgets.base import open_panel
from napari_semsr.widgets.enhance.models import CheckPanel, ImportPanel
from tests.tiny_models import write_tiny_model


@pytest.fixture(autouse=True)
def own_shelf(tmp_path, monkeypatch):
    folder = tmp_path / "shelf"
    monkeypatch.setenv("SEMSR_MODELS", str(folder))
    return folder


@pytest.fixture
def network(tmp_path):
    """Give an ONNX file."""
    pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    path = tmp_path / "network.onnx"
    semsr.export_model(write_tiny_model(tmp_path), path)
    return path


@pytest.fixture
def panel(model, hold):
    return hold(ImportPanel(model))


def test_an_onnx_file_becomes_a_model_that_open_panels_choose(
    panel, model, hold, run_panel, network, own_shelf
):
    check = hold(CheckPanel(model))
    panel.choose(network)
    panel.form.set_values(name="their-net", scaling="levels", pixel_size_nm=12.0)
    assert panel.range.isVisibleTo(panel)
    panel.ends[1].value = 255
    assert run_panel(panel) == "their-net is installed and listed in Enhance."
    card = semsr.model_info(str(own_shelf / "their-net.safetensors")).card
    assert card["input_scaling"] == "levels"
    assert tuple(card["input_levels"]) == (0, 255)
    assert tuple(card["pixel_size_nm"]) == (12, 12)
    assert check.model.value == "their-net"
    assert "12 nm" in panel.results.remarks.text()


@pytest.mark.broad
def test_a_model_with_a_card_is_imported_as_it_is(panel, run_panel, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    panel.choose(write_tiny_model(tmp_path / "elsewhere", name="carded"))
    assert not panel.form.isEnabled()
    assert run_panel(panel).startswith("carded is installed")


def test_what_runs_code_is_refused_in_a_sentence(panel, run_panel, tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(b"\x80\x04N.")
    panel.choose(path)
    assert "pickle" in run_panel(panel)
    panel.file.value = ""
    assert run_panel(panel) == "Choose a model file."


@pytest.mark.broad
def test_a_file_of_other_programs_opens_the_panel(
    network, make_napari_viewer_proxy, registered
):
    viewer = make_napari_viewer_proxy(show=True)
    check = open_panel(viewer, "Check model")
    before = check.model.value
    check.model.open_model_file(str(network))
    docks = viewer.window.dock_widgets
    found = docks[next(name for name in docks if name.startswith("Import model"))]
    assert found.file.value == network
    assert check.model.value == before
