"""Layers of an earlier run are replaced, and helper layers stay out of the way."""

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QTimer

import napari_semsr
from napari_semsr.core.micrograph import InputRecord, Provenance
from napari_semsr.io import SAVED_KEY
from napari_semsr.widgets import host
from napari_semsr.widgets.crop import CropPanel
from napari_semsr.widgets.layers import micrograph_from_layer
from napari_semsr.widgets.measure.frc_map import FrcMapPanel
from napari_semsr.widgets.measure.spectrum import SpectrumPanel
from napari_semsr.widgets.stitch.panel import StitchMosaicPanel
from tests.children import LIMIT_MS
from tests.widgets.scenes import with_gaps

MAP = "second · FRC map (nm)"
FAILED = "second · failed blocks"


def names(viewer):
    return [layer.name for layer in viewer.layers]


@pytest.fixture
def frc(model, hold, add, exposures):
    """Two exposures, with a field in both that has noise alone."""
    rng = np.random.default_rng(3)
    for image in exposures:
        data = image.array().copy()
        data[:96, :96] = rng.normal(0.5, 0.05, (96, 96))
        add(model, image.replace(data=data))
    panel = hold(FrcMapPanel(model))
    panel.first.value, panel.second.value = model.layers[1], model.layers[0]
    return panel


def test_an_earlier_map_is_replaced_where_it_lies(frc, model, run_panel):
    run_panel(frc)
    assert names(model) == ["first", "second", MAP, FAILED]
    assert model.layers.selection.active.name == MAP
    model.layers.move(2, 0)
    camera = host.get_camera(model)
    camera.center, camera.zoom = (0, 300.0, 400.0), 0.07
    first = model.layers[MAP]
    run_panel(frc)
    assert names(model) == [MAP, "first", "second", FAILED]
    assert model.layers[MAP] is not first
    assert camera.zoom == 0.07
    assert tuple(camera.center) == (0, 300.0, 400.0)
    frc.history.undo()  # it was not saved
    assert first in model.layers


@pytest.mark.quick(1)
@pytest.mark.parametrize("how", ["renamed", "saved"])
def test_a_map_that_the_user_kept_stays(frc, model, run_panel, how):
    run_panel(frc)
    kept = model.layers[MAP]
    if how == "renamed":
        kept.name = "mine"
    else:
        kept.metadata[SAVED_KEY] = "/somewhere/map.ome.zarr"
    run_panel(frc)
    assert kept in model.layers
    new = MAP if how == "renamed" else f"{MAP} 2"
    assert set(names(model)) == {"first", "second", kept.name, new, FAILED}


def test_a_map_of_another_image_of_the_same_name_stays(frc, model, run_panel, add):
    run_panel(frc)
    first, second, earlier, _ = model.layers
    again = [micrograph_from_layer(layer) for layer in (first, second)]
    first.name, second.name = "a", "b"
    frc.second.value, frc.first.value = (add(model, image) for image in again)
    run_panel(frc)
    assert earlier in model.layers
    assert names(model).count(f"{MAP} 2") == 1


def test_failed_blocks_are_shown_by_a_tick(frc, model, run_panel):
    run_panel(frc)
    assert not model.layers[FAILED].visible
    assert model.layers[MAP].visible
    assert frc.helpers.native.isVisibleTo(frc)
    frc.helpers.native.click()
    assert model.layers[FAILED].visible
    run_panel(frc)
    assert model.layers[FAILED].visible


@pytest.mark.broad
def test_layers_are_added_and_taken_away_one_at_a_time(frc, model, run_panel):
    seen: list[str] = []

    def note(event: Any) -> None:
        seen.append(f"{event.type} {event.value.name}")
        QTimer.singleShot(0, lambda: seen.append("turn"))

    for kind in ("inserted", "removed"):
        getattr(model.layers.events, kind).connect(note)
    run_panel(frc)
    added = [f"inserted {MAP}", "turn", f"inserted {FAILED}", "turn"]
    assert seen == added
    seen.clear()
    run_panel(frc)
    assert seen == [f"removed {MAP}", "turn", f"removed {FAILED}", "turn", *added]


@pytest.mark.broad
def test_what_the_user_adds_meanwhile_is_not_of_the_run(frc, model, run_panel):
    def add_once(event: Any) -> None:
        if event.value.name == MAP:
            QTimer.singleShot(0, lambda: model.add_image(np.zeros((8, 8)), name="own"))

    model.layers.events.inserted.connect(add_once)
    run_panel(frc)
    run_panel(frc)
    assert set(names(model)) == {"first", "second", MAP, FAILED, "own", "own [1]"}
    assert model.layers["own"] not in frc.result_layers.own
    assert model.layers.selection.active.name == MAP


@pytest.mark.broad
def test_a_spectrum_is_replaced_with_its_rings(model, hold, add, exposures, run_panel):
    add(model, exposures[0])
    panel = hold(SpectrumPanel(model))
    run_panel(panel)
    made = names(model)
    assert made == ["first", "first · spectrum", "first · periods"]
    assert model.layers["first · periods"].visible
    run_panel(panel)
    assert names(model) == made
    assert list(panel.layers.choices) == [model.layers["first"]]


@pytest.mark.broad
def test_outlines_and_joints_are_shown_by_a_tick(
    model, qtbot, hold, tmp_path, run_panel
):
    scan = tmp_path / "scan"
    napari_semsr.simulate(
        scan, phantom="particles", frames_grid=(1, 2), frame_px=96, field="square"
    )
    panel = hold(StitchMosaicPanel(model))
    panel.folder.value = scan
    qtbot.waitUntil(lambda: not panel.is_busy, timeout=LIMIT_MS)
    run_panel(panel)
    helpers = {
        f"scan · {name}" for name in ("nominal outlines", "outlines", "overlaps")
    }
    assert set(names(model)) == {"scan mosaic", *helpers}
    assert not any(model.layers[name].visible for name in helpers)
    assert model.layers.selection.active.name == "scan mosaic"
    panel.helpers.native.click()
    assert all(model.layers[name].visible for name in helpers)
    panel.helpers.native.click()
    assert not any(model.layers[name].visible for name in helpers)
    crop = hold(CropPanel(model))
    assert {str(item) for item in crop.like.choices} == {"None", "scan mosaic"}


@pytest.mark.broad
def test_what_was_measured_of_a_mosaic_is_shown_by_a_tick(
    model, hold, add, exposures, run_panel
):
    add(model, with_gaps(exposures[0]))
    panel = hold(SpectrumPanel(model))
    run_panel(panel)
    outline = model.layers["Spectrum: measured part"]
    assert not outline.visible
    panel.helpers.native.click()
    assert outline.visible


@pytest.mark.broad
def test_one_mosaic_is_told_to_need_two_exposures(model, hold, add, exposures):
    blended = Provenance(job="stitch")
    cut = Provenance(
        job="crop", inputs=(InputRecord(role="image", name="a", provenance=blended),)
    )
    first, second = exposures
    add(model, first)
    panel = hold(FrcMapPanel(model))
    assert not panel.advice.isVisibleTo(panel)
    for name, made in (("mosaic", blended), ("part", cut)):
        panel.first.value = add(model, first.replace(name=name, provenance=made))
        panel.second.value = None
        assert panel.advice.isVisibleTo(panel)
        assert "needs two exposures" in panel.advice.text()
    panel.second.value = add(model, second)
    assert not panel.advice.isVisibleTo(panel)
