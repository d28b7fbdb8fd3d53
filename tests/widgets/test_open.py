"""What napari's Open, a drop and a script get from our reader, once it is chosen."""

import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from napari._qt.dialogs import qt_reader_dialog
from napari.settings import get_settings
from napari.utils.notifications import ErrorNotification, notification_manager
from npe2 import PluginManifest

from napari_semsr.core import ReadError
from napari_semsr.io import FOLDER_KEY, layers
from napari_semsr.widgets.stitch.panel import StitchMosaicPanel
from tests.refusals import refused, warned

PLUGIN = "napari-semsr"
GREY = np.random.default_rng(0).integers(0, 255, (270, 300), dtype=np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], GREY], axis=-1)
HEADER = "[Scan]\r\nPixelWidth=5e-9\r\nPixelHeight=5e-9\r\n"


@pytest.fixture(autouse=True)
def builtins(registered, npe2pm):
    """Let napari's own reader be found beside ours."""
    npe2pm.register(PluginManifest.from_distribution("napari"))


def write_framed_fei(path):
    """Write what FEI's software exports: grey as RGB, with a coloured frame of 1 px."""
    samples = np.stack([GREY] * 3, axis=-1)
    samples[[0, -1]] = samples[:, [0, -1]] = 255, 0, 0
    about = [(34682, "s", 0, HEADER, False)]
    tifffile.imwrite(path, samples, photometric="rgb", metadata=None, extratags=about)


def write_cut(path):
    tifffile.imwrite(path, GREY)
    path.write_bytes(path.read_bytes()[:2000])


def write_headless(path):
    """Write what is left of a copied file whose page directory was at its end."""
    path.write_bytes(b"II*\0" + (90_000).to_bytes(4, "little") + GREY.tobytes()[:500])


def write_frames(folder, pixels=GREY):
    folder.mkdir()
    for index in range(4):
        frame = np.roll(pixels, 7 * index, axis=0)
        kind = "minisblack" if pixels.ndim == 2 else "rgb"
        tifffile.imwrite(folder / f"f{index}.tif", frame, photometric=kind)


def write_pile(folder):
    """Write what looks like slices of DICOM, of which nothing can be read."""
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.dcm").write_bytes(bytes(128) + b"DICM" + bytes(200))


def write_mixed(folder):
    folder.mkdir()
    (folder / "a.txt").write_text("raise SystemExit", encoding="utf-8")
    np.save(folder / "a.npy", GREY)


READ = {
    "framed.tif": (write_framed_fei, "border-coloured", (270, 300), 5.0),
    "photo.tif": (
        lambda path: tifffile.imwrite(path, COLOUR, photometric="rgb"),
        "colour-image",
        (270, 300, 3),
        1.0,
    ),
}
REFUSED = {
    "text.tif": (lambda path: path.write_text("hello, world"), "format-unknown"),
    "empty.tif": (lambda path: path.write_bytes(b""), "file-empty"),
    "cut.tif": (write_cut, "file-truncated"),
    "headless.tif": (write_headless, "file-damaged"),
    "empty": (Path.mkdir, "too-few-frames"),
    "pile": (write_pile, "too-few-frames"),
    "mixed": (write_mixed, "too-few-frames"),
    "below": (lambda path: (path / "deeper").mkdir(parents=True), "too-few-frames"),
}


@pytest.mark.parametrize("name", READ)
def test_what_a_panel_takes_is_read_as_there(tmp_path, model, name):
    write, code, shape, size = READ[name]
    write(tmp_path / name)
    with warned(code):
        [layer] = model.open(tmp_path / name, plugin=PLUGIN)
    assert layer.data.shape == shape
    assert layer.scale[-1] == size
    assert layer.rgb == (len(shape) > 2)


@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_a_folder_of_frames_opens_for_stitch(
    tmp_path, model, hold, monkeypatch, pixels
):
    write_frames(tmp_path / "scan", pixels)
    huge = pixels is GREY
    if huge:
        monkeypatch.setattr(layers, "_LARGEST", 1)
    with warned("colour-image") if pixels.ndim > 2 else nullcontext():
        [layer] = model.open(tmp_path / "scan", plugin=PLUGIN)
    assert layer.data.shape == (4, *GREY.shape)
    assert hasattr(layer.data, "dask") == huge, "too large for memory: read when shown"
    assert layer.metadata[FOLDER_KEY] == str(tmp_path / "scan")
    assert hold(StitchMosaicPanel(model)).folder.value == tmp_path / "scan"


def test_of_many_images_in_a_folder_some_are_shown(tmp_path, model):
    for rows in range(20, 40):
        tifffile.imwrite(tmp_path / f"{rows}.tif", GREY[:rows])
    with warned("several-images", match=" 20 images"):
        shown = model.open(tmp_path, plugin=PLUGIN)
    assert [layer.data.shape[0] for layer in shown] == list(range(20, 32))


def test_what_is_nothing_of_ours_is_read_by_napari(tmp_path, model):
    data = np.arange(72, dtype=np.float32).reshape(8, 9)
    zarr.open_group(tmp_path / "a.zarr", mode="w").create_array("0", data=data)
    (tmp_path / "arrays").mkdir()
    for name in "ab":
        np.save(tmp_path / "arrays" / f"{name}.npy", data)
    for name, shape in (("a.zarr", (8, 9)), ("arrays", (2, 8, 9))):
        [layer] = model.open(tmp_path / name, plugin=PLUGIN)
        assert layer.data.shape == shape
        assert np.array_equal(np.asarray(layer.data).reshape(-1, 8, 9)[0], data)


@pytest.mark.parametrize("name", REFUSED)
def test_a_script_gets_the_refusal_as_an_exception(tmp_path, model, name):
    write, code = REFUSED[name]
    write(tmp_path / name)
    with refused(ReadError, code, match=name):
        model.open(tmp_path / name, plugin=PLUGIN)


def test_a_folder_that_may_not_be_read_is_named(tmp_path, model, monkeypatch):
    def forbid(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", forbid)
    with refused(ReadError, "no-permission", match=tmp_path.name):
        model.open(tmp_path, plugin=PLUGIN)


@pytest.fixture
def window(make_napari_viewer, monkeypatch):
    """A window whose user chose our reader once and for all; no dialog may appear."""
    viewer = make_napari_viewer()
    names = {"*.tif": PLUGIN, f"*{os.sep}": PLUGIN}
    monkeypatch.setattr(get_settings().plugins, "extension2reader", names)

    def fail(*about, **more):
        pytest.fail(f"a dialog appeared: {about} {more}")

    monkeypatch.setattr(qt_reader_dialog, "QtReaderDialog", fail)
    return viewer


def open_by_menu(viewer, path):
    """Open a path as *File > Open*, a drop, and the command line do."""
    viewer.window._qt_viewer._qt_open([str(path)], stack=False)  # noqa: SLF001


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", ["text.tif", "mixed"])
def test_the_window_gets_one_sentence(tmp_path, window, name):
    REFUSED[name][0](tmp_path / name)
    before = len(notification_manager.records)
    open_by_menu(window, tmp_path / name)
    [told] = notification_manager.records[before:]
    assert told.severity.value == "error"
    assert not isinstance(told, ErrorNotification), "which has a traceback"
    assert str(tmp_path / name) in told.message
    assert "\n" not in told.message
    assert not window.layers
