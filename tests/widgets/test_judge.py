"""A layer is judged by the SEM image of its place, and its report kept."""

import json

import numpy as np
import pytest
from qtpy.QtGui import QDesktopServices

from napari_semsr.core import Micrograph, parse_pixel_size
from napari_semsr.io import ImageIdentity, StoredTransform, write_transform
from napari_semsr.widgets.register.judge import JudgePanel
from tests.two_views import draw_views


@pytest.fixture
def views():
    return draw_views(128)


@pytest.fixture
def opened(model, add, views):
    moving, fixed, _ = views
    add(model, moving)
    layer = add(model, fixed)
    layer.metadata["micrograph"]["vendor"] = "FEI"
    return model


@pytest.fixture
def panel(opened, hold) -> JudgePanel:
    return hold(JudgePanel(opened))


@pytest.fixture
def stored(views):
    """The true map."""
    moving, fixed, truth = views
    sides = ImageIdentity.from_image(moving), ImageIdentity.from_image(fixed)
    return StoredTransform(truth, *sides, {"error_nm": 3.0, "error_px": 0.125})


def test_layers_and_network_are_proposed(panel, opened):
    assert panel.optical.value.name == "moving"
    assert panel.sem.value.name == "fixed"
    assert panel.networks.value == ["ssum-sem"]
    panel.optical.value = opened.layers["fixed"]
    assert panel.networks.value == ["sem-restore"]


def test_no_layer_is_proposed_to_be_judged_by_itself(model, hold):
    for name in ("first", "second"):
        model.add_image(np.eye(70), name=name)  # of no known pixel size
    made = hold(JudgePanel(model))
    assert {made.optical.value.name, made.sem.value.name} == {"first", "second"}


def test_figures_are_shown_and_the_report_is_kept(
    panel, opened, stored, run_panel, monkeypatch, choose, tmp_path
):
    panel.take_registered(*opened.layers, stored)
    panel.networks.value = []
    said = run_panel(panel)
    assert "Evaluated moving against fixed" in said
    told = panel.figures.text()
    for words in ("3 nm", "PSNR, input", "PSNR, linear filter", "Agrees down to"):
        assert words in told
    shown = []
    monkeypatch.setattr(QDesktopServices, "openUrl", shown.append)
    panel.report_button.click()
    assert shown[0].toLocalFile() == str(panel.report)
    choose(tmp_path / "kept", ".html")
    panel.keep_button.click()
    assert "Comparison with SEM" in (tmp_path / "kept.html").read_text()
    record = json.loads((tmp_path / "kept.json").read_text())
    assert record["registration"]["error_nm"] == 3
    assert len(opened.layers) == 2
    curves = panel.findings().curves
    assert "input and SEM" in curves


@pytest.mark.broad
def test_saved_transform_is_taken(panel, stored, run_panel, tmp_path):
    panel.networks.value = []
    panel.placed.value = "stored"
    assert "Choose a transform" in run_panel(panel)
    write_transform(tmp_path / "map.json", stored)
    panel.transform.value = tmp_path / "map.json"
    assert not panel.form.isHidden()
    assert "Evaluated moving against fixed" in run_panel(panel)


@pytest.mark.broad
def test_a_layer_turned_on_the_screen_is_judged_as_registered(panel, stored, run_panel):
    panel.networks.value = []
    panel.optical.value.rotate = 30
    panel.take_registered(panel.optical.value, panel.sem.value, stored)
    assert "Evaluated moving against fixed" in run_panel(panel)


@pytest.mark.broad
def test_doubts_on_the_page_are_in_the_panels_words(panel, stored, run_panel, tmp_path):
    residuals = {
        "places_nm": [[500.0, 500.0], [900.0, 900.0]],
        "off_nm": [[0.0, 0.0], [90.0, 0.0]],
        "reliable": [True, False],
        "side_nm": 400.0,
    }
    told = StoredTransform(
        stored.transform, stored.moving, stored.fixed, {"residuals": residuals}
    )
    panel.networks.value = []
    panel.take_registered(panel.optical.value, panel.sem.value, told)
    run_panel(panel)
    said = " ".join(
        json.loads(panel.report.with_suffix(".json").read_text())["warnings"]
    )
    text = "is distorted (try 'Transform type: elastic: also smooth displacement')"
    assert text in said
    assert "--" not in said
    assert said.split(". ")[0] in panel.report.read_text().replace("&#39;", "'")


@pytest.mark.broad
def test_refusal_is_said_and_leaves_no_report(panel, opened, add, run_panel):
    flat = Micrograph(np.full((96, 96), 7, np.uint8), parse_pixel_size(20), "flat")
    panel.optical.value = add(opened, flat)
    panel.networks.value = []
    said = run_panel(panel)
    assert "'flat' has no structure above its noise" in said
    assert "mark points as landmarks in Register to SEM" in said
    assert "none: too little to compare" in panel.figures.text()
    assert panel.report is None
    assert not panel.keep_button.isEnabled()


def test_layer_is_not_judged_by_itself(panel, opened):
    panel.optical.value = opened.layers["fixed"]
    panel.run()
    assert "is chosen as both images" in panel.status.text()


@pytest.mark.broad
def test_register_goes_on_to_judge(
    make_napari_viewer_proxy, views, stored, add, finish, tmp_path
):
    viewer = make_napari_viewer_proxy(show=True)
    optical, sem = (add(viewer, image) for image in views[:2])
    _, window = viewer.window.add_plugin_dock_widget("napari-semsr", "Superlens SEM")
    register = window.show_panel("Register to SEM")
    register.moving.value, register.fixed.value = optical, sem
    register.judge_button.click()
    assert "Register two layers first" in register.status.text()
    write_transform(tmp_path / "map.json", stored)
    register.apply_file(tmp_path / "map.json")
    finish(register)
    register.judge_button.click()
    panel = window.page.panel
    assert (panel.optical.value, panel.sem.value) == (optical, sem)
    assert panel.placed.value == "found"
    panel.networks.value = []
    panel.run_button.click()
    finish(panel)
    assert "Evaluated moving against fixed" in panel.status.text()
    assert "Expected error of the map" in panel.figures.text()
