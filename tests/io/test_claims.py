"""Files that say more of themselves than they hold."""

import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_semsr.core.errors import ReadError
from napari_semsr.io.formats import describe, read
from tests.hostile.images import packers, write_packed
from tests.refusals import refused


def test_pixels_that_a_file_cannot_hold_are_not_asked_for(tmp_path):
    Image.fromarray(np.zeros((40, 50), np.uint8)).save(tmp_path / "a.bmp")
    data = bytearray((tmp_path / "a.bmp").read_bytes())
    struct.pack_into("<ii", data, 18, 60000, 60000)
    (tmp_path / "a.bmp").write_bytes(data)
    data = bytearray(imagecodecs.png_encode(np.zeros((40, 50), np.uint8)))
    struct.pack_into(">II", data, 16, 60000, 60000)
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    (tmp_path / "a.png").write_bytes(data)
    for name in ("a.bmp", "a.png"):
        for door in (read, describe):
            with refused(ReadError, "file-damaged"):
                door(tmp_path / name)


@pytest.mark.parametrize("lazily", [False, True], ids=["at once", "by block"])
def test_palette_shorter_than_its_indices_is_refused(tmp_path, lazily, monkeypatch):
    if lazily:
        monkeypatch.setattr("napari_semsr.io.read_image.LAZY_BYTES", 0)
    path = tmp_path / "palette.tif"
    colours = np.random.default_rng(0).integers(0, 65535, (3, 256)).astype(np.uint16)
    how = {"photometric": "palette", "colormap": colours, "compression": "zlib"}
    tifffile.imwrite(path, np.full((40, 40), 200, np.uint8), metadata=None, **how)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tag = tif.pages[0].tags["ColorMap"]
        tag.overwrite(colours[:, :16].ravel().tolist(), dtype=3)
    with refused(ReadError, "file-damaged"):
        np.asarray(read(path, colour="luminance").data)


PACKERS = dict(packers())
SMOKE = ("shards/blosc lz4", "plain/0")


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", sorted(PACKERS, key=lambda name: name not in SMOKE))
def test_chunk_that_is_cut_short_is_refused_and_others_are_read(tmp_path, name):
    path = write_packed(tmp_path, name, PACKERS[name])
    whole = zarr.open_group(path, mode="r")["shards" if "shard" in name else "0"][...]
    assert np.array_equal(read(path).array(), whole)
    file = path / ("shards/c/1/1" if "shard" in name else "0/3.3")
    file.write_bytes(file.read_bytes()[:-100])  # of a shard, its index is gone
    assert np.array_equal(np.asarray(read(path).data[:32]), whole[:32])
    with refused(ReadError, "file-damaged", match=file.relative_to(path).as_posix()):
        read(path).array()


def test_shard_of_too_many_chunks_is_refused(tmp_path):
    path = tmp_path / "a.ome.zarr"
    group = zarr.create_group(path)
    group.create_array(
        "0", shape=(512, 512), shards=(512, 512), chunks=(1, 1), dtype="uint8"
    )
    axes = [{"name": name, "type": "space"} for name in "yx"]
    places = {"path": "0", "coordinateTransformations": []}
    said = {"axes": axes, "datasets": [places]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [said]}
    for door in (read, describe):
        with refused(ReadError, "file-damaged", match=" 262144 "):
            door(path)
