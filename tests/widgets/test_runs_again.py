"""Layers of an earlier run are replaced, and helper layers stay out of the way."""

import numpy as np
import pytest

from napari_semsr.io import SAVED_KEY
from napari_semsr.widgets import host
from napari_semsr.widgets.layers import micrograph_from_layer
from napari_semsr.widgets.measure.resolution import ResolutionPanel

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
    panel = hold(ResolutionPanel(model))
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


@pytest.mark.broad
def test_a_map_of_another_image_of_the_same_name_stays(frc, model, run_panel, add):
    run_panel(frc)
    first, second, earlier, _ = model.layers
    again = [micrograph_from_layer(layer) for layer in (first, second)]
    first.name, second.name = "a", "b"
    frc.second.value, frc.first.value = (add(model, image) for image in again)
    run_panel(frc)
    assert earlier in model.layers
    assert names(model).count(f"{MAP} 2") == 1
