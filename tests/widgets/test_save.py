"""Saving: by napari's dialog with our formats, and by the button of every panel."""

from importlib import import_module
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from napari.layers import Image, Labels, Layer
from napari.utils.notifications import notification_manager
from npe2 import PluginManager, PluginManifest
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_semsr.core.errors import OptionError, ShapeError, WriteError
from napari_semsr.core.micrograph import InputRecord, Micrograph, Provenance
from napari_semsr.core.progress import run
from napari_semsr.io.formats import read, write
from napari_semsr.io.layers import LIVE_KEY, SAVED_KEY, read_layers
from napari_semsr.jobs import FRC_MAP, FrcMapJobOptions
from napari_semsr.widgets.base import results, saving
from napari_semsr.widgets.layers import get_file_path, get_provenance, is_acquired
from tests.refusals import refused
from tests.widgets.scenes import create_classical, exposures_of

MANIFEST = Path(__file__).parents[2] / "src" / "napari_semsr" / "napari.yaml"


def writer_of(suffix):
    """Find what napari calls when the filter with a suffix is chosen."""
    contributions = yaml.safe_load(MANIFEST.read_text("utf-8"))["contributions"]
    [name] = {
        item["command"]
        for item in contributions["writers"]
        if suffix in item["filename_extensions"]
    }
    names = {item["id"]: item["python_name"] for item in contributions["commands"]}
    module, function = names[name].split(":")
    return getattr(import_module(module), function)


def save_all(layers, path):
    """Save layers as one store, by the writer that napari offers for their kinds."""
    items = [layer.as_layer_data_tuple() for layer in layers]
    manager = PluginManager(disable=[])
    manager.register(PluginManifest.from_file(MANIFEST))
    writer, _ = manager.get_writer("a.ome.zarr", [kind for *_, kind in items])
    assert writer.display_name == "OME-Zarr, calibrated"
    return writer_of(".ome.zarr")(str(path), items)


def save(layer, path, suffix):
    if suffix == ".ome.zarr":
        return save_all([layer], path)
    data, attributes, _ = layer.as_layer_data_tuple()
    return writer_of(suffix)(str(path), data, attributes)


@pytest.fixture
def layer(model, tmp_path, rng):
    """Show an image as the panels do; give both."""
    data = rng.random((90, 70)).astype(np.float32) * 200
    image = Micrograph(data, (5.0, 6.0), "field", Provenance(job="x"), (25.0, -3.0))
    store = tmp_path / "source" / "a.ome.zarr"
    store.parent.mkdir()
    write(image, store)
    steps = []
    opened = run(results.open_store(store), steps.append)
    assert not any(store.name in one.message for one in steps)
    return image, results.add_opened_image(model, opened)


@pytest.mark.usefixtures("qapp")
def test_a_store_is_replaced_after_a_question(layer, tmp_path, monkeypatch):
    image, shown = layer
    button, asked = QMessageBox.StandardButton, []
    answers = iter([button.No, button.Yes])

    def ask(*said):
        asked.append(said[-1])
        return next(answers)

    monkeypatch.setattr(QMessageBox, "question", ask)
    store = tmp_path / "b.ome.zarr"
    write(image.replace(data=image.data[:50]), store)
    with refused(WriteError, "output-exists"):
        save(shown, tmp_path / "b", ".ome.zarr")
    assert read(store).shape == (50, 70)
    save(shown, tmp_path / "b", ".ome.zarr")
    found = read(store)
    np.testing.assert_array_equal(found.array(), image.data)
    for name in ("dtype", "pixel_size_nm", "origin", "provenance"):
        assert getattr(found, name) == getattr(image, name)
    assert len(asked) == 2
    assert str(store) in asked[0]
    save(shown, store, ".ome.zarr")  # napari asks about what is typed
    assert len(asked) == 2


@pytest.mark.usefixtures("registered")
def test_pixels_that_another_program_replaced_have_no_more_the_history_of_the_file(
    model, tmp_path, rng
):
    image = Micrograph(rng.random((64, 64)), (5, 5), "m", Provenance(job="stitch"))
    for end in ("", ".half-a", ".half-b"):
        write(image, tmp_path / f"m{end}.ome.zarr")
    results.watch_images(model)  # as our reader does for a viewer with a window
    layer, copy = (
        model.open(tmp_path / "m.ome.zarr", plugin="napari-semsr")[0] for _ in range(2)
    )
    for _ in range(2):
        layer.data = layer.data / 2
    assert get_file_path(layer) is None
    (saved,) = save(layer, tmp_path / "new.ome.zarr", ".ome.zarr")
    assert not list(tmp_path.glob("new.half-*"))
    made = read(saved).provenance
    assert [step.job for step in made.steps()] == ["edit", "stitch"]
    assert made.inputs[0].path == (tmp_path / "m.ome.zarr").as_posix()
    assert not is_acquired(layer)
    assert get_provenance(copy) == image.provenance
    assert is_acquired(copy)


@pytest.mark.parametrize("suffix", [".ome.zarr", ".png"])
def test_partly_enhanced_layers_are_not_saved(layer, tmp_path, suffix):
    _, shown = layer
    shown.metadata[LIVE_KEY] = True
    with refused(ShapeError, "incomplete"):
        save(shown, tmp_path / "b", suffix)
    assert [item.name for item in tmp_path.iterdir()] == ["source"]


# -- by the button of a panel --------------------------------------------------------


@pytest.fixture
def panel(model, qtbot, add, run_panel):
    """A panel that has made a layer, into a temporary store."""
    image = exposures_of((96, 96), sharp=True)[0].replace(name="field")
    add(model, image)
    panel = create_classical(model)
    qtbot.addWidget(panel)
    assert not panel.save_button.isVisibleTo(panel)
    assert "Wiener removed" in run_panel(panel)
    return panel


@pytest.mark.quick(1)
@pytest.mark.parametrize("suffix", [".ome.tif", ".png"])
def test_the_button_saves_what_the_panel_made(
    panel, model, run_panel, choose, tmp_path, suffix
):
    made = model.layers["field · wiener"]
    assert "field · wiener" in panel.messages.unsaved_label.text()
    choose(tmp_path / "kept", suffix)
    path = tmp_path / f"kept{suffix}"
    said = run_panel(panel, panel.save_button)
    assert said == f"field · wiener was saved as {path}."
    found = read(path)
    assert found.pixel_size_nm == (10, 10)
    assert found.provenance.job == "restore"
    if suffix == ".png":  # which has not all of it
        assert "Not saved" in panel.messages.unsaved_label.text()
    else:
        np.testing.assert_array_equal(found.array(), made.data)
        assert panel.messages.unsaved_label.text() == ""


def test_a_result_of_a_tiff_is_first_offered_as_tiff(choose, tmp_path):
    source = InputRecord(role="image", name="a", path="a.tif")
    history = Provenance(job="enhance", inputs=(source,))
    layer = Image(np.eye(8), metadata={"micrograph": {"provenance": history}})
    choose(tmp_path / "kept")
    assert saving.ask_save_path(None, layer) == tmp_path / "kept.ome.tif"


def test_temporary_stores_go_with_the_last_layer_that_shows_them_and_no_others(
    panel, model, layer, tmp_path
):
    model.layers.remove(layer[1])
    assert (tmp_path / "source" / "a.ome.zarr").is_dir()
    made = model.layers["field · wiener"]
    store = Path(made.metadata["semsr store"])
    assert store.is_dir()
    assert store.parent == results.get_cache_folder()
    twin = model.add_image(made.data, metadata=dict(made.metadata))
    model.layers.remove(made)
    model.layers.remove(twin)
    assert store.is_dir()  # for the removal can be undone
    panel.history.undo()
    assert twin in model.layers
    with panel.history.make_removals_final():
        model.layers.remove(twin)
    panel.history.undo()
    with panel.history.make_removals_final():
        model.layers.remove(made)
    assert not store.exists()


@pytest.mark.usefixtures("registered")
def test_napari_saves_several_layers_as_a_figure(model, tmp_path, add, exposures):
    first, _ = (add(model, image) for image in exposures)
    options = FrcMapJobOptions(block=64, step=32)
    output = tmp_path / "map.ome.tif"
    run(FRC_MAP.job(*exposures, output=output, options=options))
    [layer] = read_layers(str(output))
    model.add_layer(Layer.create(*layer))
    model.add_shapes(np.array([[0, 0], [9.0, 9.0]]), shape_type="line")
    first.visible = False
    written = model.layers.save(str(tmp_path / "map.pdf"))
    assert written == [str(tmp_path / "map.pdf")]
    assert (tmp_path / "map.pdf").read_bytes().startswith(b"%PDF")


@pytest.fixture
def mosaic_with_maps(model, rng):
    """Show a mosaic, an image on another grid, and particles found in the mosaic."""
    mosaic = rng.random((600, 130)).astype(np.float32)
    nm, um = {"units": ("nm", "nm")}, {"units": ("um", "um")}
    place = {"scale": (5.0, 6.0), "translate": (25.0, -3.0), "gamma": 0.8} | nm
    look = {"colormap": "magma", "contrast_limits": (0.1, 0.7)}
    model.add_image(mosaic, name="mosaic", **place, **look)
    kinds = rng.choice(np.array([0, 1, 3], np.int32), mosaic.shape)
    place = {"scale": (0.005, 0.006), "translate": (0.025, -0.003)} | um
    model.add_labels(kinds, name="particles", **place)
    coarse = rng.integers(0, 60000, (12, 9)).astype(np.uint16)
    place = {"scale": (40.0, 48.0), "translate": (42.5, 18.0)} | nm
    look = {"opacity": 0.6, "blending": "additive"}
    model.add_image(coarse, name="resolution map of mosaic", **place, **look)
    model.add_labels(np.eye(9, dtype=np.uint8), name="particles", scale=(2, 2), **nm)
    return model


def _seen(layers):
    return [
        (
            type(layer).__name__,
            layer.name,
            tuple(np.round(layer.extent.world.ravel() * nm, 9)),
            layer.opacity,
            str(layer.blending),
            getattr(layer, "gamma", None),
            tuple(getattr(layer, "contrast_limits", ())),
            layer.colormap.name if type(layer).__name__ == "Image" else None,
            np.asarray(layer.data).tolist(),
        )
        for layer in layers
        for nm in [1000.0 if str(layer.units[0]) == "micrometer" else 1.0]
    ]


def test_several_layers_are_one_store_and_open_as_they_were_without_drawings(
    mosaic_with_maps, tmp_path
):
    model = mosaic_with_maps
    before, images = _seen(model.layers), list(model.layers)
    drawing = model.add_points([[0, 0], [1, 1]], name="mine")
    [saved] = save_all(model.layers, tmp_path / "all.ome.zarr")
    assert saved == str(tmp_path / "all.ome.zarr")
    assert [item.name for item in tmp_path.iterdir()] == ["all.ome.zarr"]
    warning = notification_manager.records[-1]
    assert str(warning.severity) == "warning"
    assert "mine (points)" in warning.message
    assert SAVED_KEY not in drawing.metadata
    places = [Path(layer.metadata["semsr saved"]) for layer in images]
    assert [place.relative_to(saved).as_posix() for place in places] == [
        *("0", "0/labels/particles", "1", "2")
    ]
    model.layers.clear()
    for item in read_layers(saved):
        model.add_layer(Layer.create(*item))
    assert _seen(model.layers) == before


@pytest.mark.parametrize("dtype", [np.int64, np.int8])
@pytest.mark.parametrize("name", ["a.ome.tif", "a.tif"])
def test_labels_in_a_tiff_open_as_labels(tmp_path, name, dtype):
    labels = Labels(np.arange(12).reshape(3, 4).astype(dtype), name="a")
    data, attributes, _ = labels.as_layer_data_tuple()
    [saved] = saving.write_tiff(str(tmp_path / name), data, attributes)
    [opened] = read_layers(saved)
    layer = Layer.create(*opened)
    assert isinstance(layer, Labels)
    np.testing.assert_array_equal(layer.data, labels.data)


def test_others_read_a_store_of_several_layers(mosaic_with_maps, tmp_path):
    save_all(mosaic_with_maps.layers, tmp_path / "all.ome.zarr")
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader
    from yaozarrs import validate_zarr_store

    root = tmp_path / "all.ome.zarr"
    validate_zarr_store(str(root))
    # as napari-ome-zarr and Bio-Formats find the images
    xml = tifffile.xml2dict((root / "OME" / "METADATA.ome.xml").read_text("utf-8"))
    found = {each["ID"]: each["Name"] for each in xml["OME"]["Image"]}
    assert found == {
        "Image:0": "mosaic",
        "Image:1": "resolution map of mosaic",
        "Image:2": "particles [1]",
    }
    image, labels, particles = Reader(parse_url(str(root / "0")))()
    steps = image.metadata["coordinateTransformations"][0]
    assert [step[step["type"]] for step in steps] == [[5.0, 6.0], [25.0, -3.0]]
    assert len(image.data) == len(particles.data) == 2
    assert set(np.unique(np.asarray(particles.data[1]))) == {0, 1, 3}
    assert set(particles.metadata["color"]) >= {0, 1, 3}
    assert labels.zarr.root_attrs["labels"] == ["particles"]


def test_a_store_is_not_replaced_by_layers_that_are_drawn_from_it(model, tmp_path):
    for _ in range(2):
        model.add_image(np.ones((2100, 20), np.uint8))
    [saved] = save_all(model.layers, tmp_path / "all.ome.zarr")
    lazy = [Layer.create(*item) for item in read_layers(saved)]
    assert all(layer.multiscale for layer in lazy)
    with refused(OptionError, "output-is-input"):
        save_all(lazy, Path(saved))


def test_the_writers_of_napari_say_that_the_pixel_size_is_lost(
    make_napari_viewer, npe2pm, registered, monkeypatch, tmp_path
):
    npe2pm.register(PluginManifest.from_distribution("napari"))
    viewer = make_napari_viewer()
    results.watch_images(viewer)
    records, numbers = notification_manager.records, count()
    data = np.arange(99, dtype=np.uint8).reshape(9, 11)

    def save(suffix, **about):
        path = tmp_path / f"a{next(numbers)}.tif"

        def ask(*_, filter, **__):  # noqa: A002 - Qt's name
            return str(path), next(f for f in filter.split(";;") if suffix in f)

        monkeypatch.setattr(QFileDialog, "getSaveFileName", ask)
        layer = viewer.add_image(data, **about)
        viewer.layers.selection.active = layer
        before = len(records)
        viewer.window._qt_viewer._save_layers_dialog(selected=True)  # noqa: SLF001
        return path, [told.message for told in records[before:]]

    ours = {"scale": (5, 5), "units": ("nm", "nm"), "metadata": {"micrograph": {}}}
    path, [told] = save("lossless", **ours)
    assert path.name in told
    assert read(path).pixel_size_nm is None
    path, told = save("TIFF, calibrated", **ours)
    assert (read(path).pixel_size_nm, told) == ((5.0, 5.0), [])
    for about in (ours | {"metadata": {}}, ours | {"units": ("pixel", "pixel")}):
        path, told = save("lossless", **about)
        assert (path.is_file(), told) == (True, [])
