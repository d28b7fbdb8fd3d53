"""Every kind of layer that we make, saved and opened again by napari."""

import json

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels

import napari_semsr
from napari_semsr.core import Micrograph, Provenance, run
from napari_semsr.io import get_reader, write
from napari_semsr.jobs import FRC_MAP
from napari_semsr.widgets.layers import create_layer_keywords, get_nm_per_unit
from napari_semsr.widgets.measure.resolution import ResolutionPanel
from napari_semsr.widgets.open_mosaic import OpenMosaicPanel
from tests.refusals import refused
from tests.widgets.scenes import one_per_axis

LOSSLESS = [".ome.zarr", ".ome.tif", ".tif"]
PLUGIN = "napari-semsr"


pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture
def press(model, qtbot, finish):
    """Run a panel on the layers that are open; give it."""

    def build(kind, path=None):
        panel = kind(model)
        qtbot.addWidget(panel)
        if path is not None:
            panel.path.value = path
        finish(panel)
        panel.run_button.click()
        finish(panel)
        return panel

    return build


class Maker:
    """Makes a layer of each kind: gives its panel, if it has one, and its name."""

    def __init__(self, model, press, exposures, folder):
        self.model, self.press, self.folder = model, press, folder
        self.exposures = exposures

    def field(self, name):
        rng = np.random.default_rng(3)
        for image in self.exposures:
            data = image.array().copy()
            data[:96, :96] = rng.normal(0.5, 0.05, (96, 96))
            self.model.add_image(data, **create_layer_keywords(image))
        self.model.layers.selection.active = self.model.layers["second"]
        return self.press(ResolutionPanel), f"second · {name}"

    def map(self):
        return self.field("FRC map (nm)")

    def status(self):
        return self.field("failed blocks")

    def pyramid(self):
        data = np.random.default_rng(2).random((2100, 400)).astype(np.float32)
        made = Provenance(job="x")
        path = self.folder / "a wide one.ome.zarr"
        write(Micrograph(data, (5.0, 6.0), "wide", made, (25.0, -3.0)), path)
        return self.press(OpenMosaicPanel, path=path), "a wide one"

    def frames(self):
        folder = self.folder / "frames"
        folder.mkdir()
        for number in range(3):
            data = self.exposures[0].data + number
            frame = self.exposures[0].replace(data=data, name=str(number))
            write(frame, folder / f"{number}.tif")
        return None, read_into(self.model, folder).name


def read_into(viewer, path):
    """Read one layer of what napari does not leave to us."""
    [(data, attributes, kind)] = get_reader(str(path))(str(path))
    return getattr(viewer, f"add_{kind}")(data, **attributes)


@pytest.fixture
def maker(model, press, exposures, tmp_path):
    return Maker(model, press, exposures, tmp_path)


def save(panel, layer, path, choose, finish):
    """Save a layer by its panel's button, or by napari where it has none."""
    if panel is None or layer not in panel.result_layers.own:
        assert layer.save(str(path), plugin=PLUGIN) == [str(path)]
        return
    panel.viewer.layers.selection.active = layer
    choose(path)
    panel.save_button.click()
    finish(panel)
    assert path.exists(), panel.status.text()


def reopen(path):
    """Open a file alone, as *File > Open* does, or where napari keeps it by us."""
    viewer = ViewerModel()
    if path.suffix == ".png":
        return read_into(viewer, path)
    [layer] = viewer.open(str(path), plugin=PLUGIN)
    return layer


def finest(layer):
    return np.asarray(layer.data[0] if layer.multiscale else layer.data)


def world(layer):
    """Places of two corners in nm, or in pixels where there is no length."""
    ends = [[0.0] * layer.ndim, [n - 1.0 for n in finest(layer).shape]]
    k = [get_nm_per_unit(unit) or 1.0 for unit in layer.units]
    return np.array([layer.data_to_world(end) for end in ends]) * k


def look(layer):
    shared = {"opacity": layer.opacity, "blending": str(layer.blending)}
    if isinstance(layer, Labels):
        drawn = [layer.get_color(value) for value in range(8)]
        colours = [np.zeros(4) if colour is None else colour for colour in drawn]
        told = layer.features.drop(columns="index").to_numpy().ravel().tolist()
        return shared | {
            "colours": np.round(255 * np.array(colours, float)).tolist(),
            "meanings": told,
        }
    return shared | {
        "limits": [float(limit) for limit in layer.contrast_limits],
        "colormap": layer.colormap.name,
        "colours": layer.colormap.colors.tolist(),
        "gamma": layer.gamma,
        "interpolation": str(layer.interpolation2d),
    }


def assert_same(found, layer):
    assert type(found) is type(layer)
    np.testing.assert_array_equal(finest(found), finest(layer))
    assert finest(found).dtype == finest(layer).dtype
    np.testing.assert_allclose(world(found), world(layer), rtol=1e-12, atol=1e-9)
    assert [str(unit) for unit in found.units] == [str(unit) for unit in layer.units]
    named = ["z" if label == "plane" else label for label in layer.axis_labels]
    assert list(found.axis_labels) == named  # a TIFF has times and heights alone
    assert look(found) == look(layer)
    told, kept = (
        item.metadata["micrograph"].get("provenance") for item in (found, layer)
    )
    for recorded in filter(None, (told, kept)):
        recorded["options"].pop("instrument", None)  # a file states it for every layer
    assert told == kept


@pytest.mark.broad
@pytest.mark.parametrize("kind", ["map", "pyramid", "status", "frames"])
def test_what_was_saved_reopens_as_it_was(maker, kind, model, tmp_path, choose, finish):
    panel, name = getattr(maker, kind)()
    layer = model.layers[name]
    if isinstance(layer, Image) and kind != "map":
        low, high = layer.contrast_limits
        layer.contrast_limits = (low + 0.1 * (high - low), high - 0.2 * (high - low))
        layer.colormap, layer.gamma = "inferno", 0.8
    stack = kind == "frames"
    stem = name.replace(" · ", "_").replace(" ", "_").replace("(", "_").rstrip(")")
    stem = stem.replace("__", "_")
    for suffix in LOSSLESS[1:] if stack else LOSSLESS:
        path = tmp_path / f"{stem}{suffix}"
        save(panel, layer, path, choose, finish)
        found = reopen(path)
        assert_same(found, layer)
        assert found.name == name
        path.rename(other := tmp_path / f"mine{suffix}")
        assert reopen(other).name == "mine"


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    ("unit", "suffix"), one_per_axis(["nm", "um", "pixel"], [*LOSSLESS, ".png"])
)
def test_eight_bits_of_any_unit_reopen_at_their_place(model, tmp_path, unit, suffix):
    data = np.arange(600, dtype=np.uint8).reshape(20, 30)
    layer = model.add_image(
        data, scale=(0.7, 0.3), translate=(-5.0, 1000.125), units=(unit, unit),
        contrast_limits=(12, 200), colormap="#ff8800", name="field",
        metadata={"micrograph": {}},
    )  # fmt: skip
    path = tmp_path / f"field{suffix}"
    layer.save(str(path), plugin=PLUGIN)
    found = reopen(path)
    np.testing.assert_array_equal(found.data, data)
    np.testing.assert_allclose(world(found), world(layer), rtol=1e-9)
    assert str(found.units[0]) == ("pixel" if unit == "pixel" else "nanometer")
    assert look(found) == look(layer)


def test_colours_that_napari_does_not_know_are_kept(model, tmp_path, grey_ramp):
    colours = [[0, 0, 0, 1], [1, 0.25, 0, 1], [1, 1, 1, 1]]
    mine = {"name": "my colours", "colors": colours, "controls": [0, 0.2, 1]}
    layer = model.add_image(grey_ramp, colormap=mine, name="field")
    for suffix in LOSSLESS:
        path = tmp_path / f"field{suffix}"
        layer.save(str(path), plugin=PLUGIN)
        kept = napari_semsr.read(path).look
        assert (kept.colormap, len(kept.colours)) == ("my colours", 3)
        found = reopen(path)
        np.testing.assert_allclose(found.colormap.colors, colours)
        np.testing.assert_allclose(found.colormap.controls, [0, 0.2, 1])


@pytest.fixture
def grey_ramp():
    return np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)


@pytest.mark.broad
def test_a_map_of_the_command_looks_as_that_of_the_panel(maker, model, tmp_path):
    maker.map()
    shown = model.layers["second · FRC map (nm)"]
    images = [
        Micrograph(layer.data, (10.0, 10.0), layer.name) for layer in model.layers[:2]
    ]
    run(FRC_MAP.job(*images[1::-1], output=tmp_path / "map.ome.zarr"))
    found = reopen(tmp_path / "map.ome.zarr")
    assert look(found) == look(shown)
    np.testing.assert_array_equal(found.data, shown.data)
    np.testing.assert_allclose(world(found), world(shown))


@pytest.mark.broad
def test_other_viewers_find_window_and_colour_in_a_store(tmp_path, model, grey_ramp):
    layer = model.add_image(grey_ramp, name="field", contrast_limits=(0.25, 0.5))
    layer.colormap = "#ff8800"
    store = tmp_path / "field.ome.zarr"
    layer.save(str(store), plugin=PLUGIN)
    said = json.loads((store / "zarr.json").read_text())["attributes"]["ome"]["omero"]
    [channel] = said["channels"]
    assert channel["color"] == "FF8800"
    assert (channel["window"]["start"], channel["window"]["end"]) == (0.25, 0.5)


@pytest.mark.quick(1)
@pytest.mark.parametrize("turn", [{"rotate": 5}, {"shear": [0.1]}, {"scale": (-1, 1)}])
def test_turned_layers_are_refused_in_a_sentence(model, tmp_path, grey_ramp, turn):
    layer = model.add_image(grey_ramp, name="field", **turn)
    with refused(Exception, "layer-turned"):
        layer.save(str(tmp_path / "field.ome.zarr"), plugin=PLUGIN)
    assert list(tmp_path.iterdir()) == []
