"""What napari leaves to us, and what it keeps."""

import sys
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

pytest.importorskip("npe2")

from npe2 import PluginManifest

from napari_semsr.core import Micrograph, ReadError
from napari_semsr.io import write
from napari_semsr.widgets.hooks import get_reader
from tests.refusals import refused

MANIFEST = Path(__file__).resolve().parents[2] / "src" / "napari_semsr" / "napari.yaml"


def test_what_napari_reads_as_well_brings_up_no_choice_of_readers():
    (reader,) = PluginManifest.from_file(MANIFEST).contributions.readers

    def is_offered(name):
        return any(fnmatch(name, pattern) for pattern in reader.filename_patterns)

    for name in ("a.png", "a.jpg", "a.json", "project.json", "a.h5", "a.zarr", "a.npy"):
        assert not is_offered(name), name
    for name in ("a.tif", "a.ome.tiff", "a.ome.zarr", "a.czi", "a.dm4", "a.semsr"):
        assert is_offered(name), name


def tiff(shape, dtype, **how):
    return lambda folder: tifffile.imwrite(
        folder / "a.tif", np.zeros(shape, dtype), **how
    )


def complex_store(folder):
    group = zarr.open_group(folder / "a.ome.zarr", mode="w")
    group.create_array("0", data=np.ones((8, 9), np.complex64))
    scale = [{"type": "scale", "scale": [1.0, 1.0]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    axes = [{"name": name, "type": "space"} for name in "yx"]
    image = {"axes": axes, "datasets": datasets}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}


def foreign_store(folder):
    zarr.open_group(folder / "a.zarr", mode="w").create_array(
        "0", shape=(8, 9), dtype="float32"
    )


def pictures(folder):
    place = folder / "holiday"
    place.mkdir()
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(place / name, np.zeros((8, 9), np.uint8))


@pytest.mark.parametrize(
    "make",
    [
        tiff((8, 9, 3), "u1", photometric="rgb"),
        tiff((2, 3, 8, 9), "u2", imagej=True, metadata={"axes": "ZCYX"}),
        tiff((2, 3, 8, 9), "f4", photometric="minisblack"),
        *(tiff((8, 9), "c8"), complex_store, foreign_store, pictures),
    ],
)
def test_other_programs_are_left_what_other_readers_read_better(
    tmp_path, make, monkeypatch
):
    monkeypatch.setitem(sys.modules, "napari", None)
    make(tmp_path)
    (path,) = tmp_path.iterdir()
    assert get_reader(str(path)) is None
    assert get_reader([str(path)]) is None


def test_what_is_ours_is_taken(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "napari", None)
    grey = np.zeros((8, 9), np.float32)
    for name in ("a.tif", "a.ome.tif", "a.ome.zarr"):
        write(Micrograph(grey, (5.0, 5.0)), tmp_path / name)
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((5, 8, 9), np.uint16))
    for path in [*tmp_path.iterdir()]:
        assert get_reader(str(path)) is not None, path
    (tmp_path / "positions.csv").write_text("frame,y_px,x_px\na.tif,0,0\n", "utf-8")
    assert get_reader(str(tmp_path)) is not None


@pytest.mark.parametrize("content", [b"", b"II*\0"], ids=repr)
def test_damaged_files_are_left_alone(tmp_path, content, monkeypatch):
    monkeypatch.setitem(sys.modules, "napari", None)
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    get_reader(str(path))  # whatever it says, it ends
    assert get_reader(str(tmp_path / "gone.tif")) is None


@pytest.mark.parametrize(("name", "content"), [("a.dm4", b"abc"), ("a.mrc", b"")])
def test_a_file_too_short_for_an_image_is_refused_in_our_words(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with refused(ReadError, "format-unknown" if content else "file-empty"):
        get_reader(str(path))(str(path))
