"""Files that say more of themselves than they hold."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_semsr.core.errors import ReadError
from napari_semsr.io.formats import describe, read
from tests.hostile.czi import write_czi
from tests.hostile.images import packers, write_packed
from tests.refusals import refused


def png(columns: int, rows: int) -> bytes:
    """A PNG whose header says its size, and whose pixels are a few."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99))
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.jpg"])
def test_pixels_that_a_file_cannot_hold_are_not_asked_for(tmp_path, name):
    path = tmp_path / name
    if name == "a.png":
        path.write_bytes(png(60000, 60000))
    else:
        Image.fromarray(np.zeros((40, 50), np.uint8)).save(path)
        data, size = bytearray(path.read_bytes()), (60000, 60000)
        at = 18 if name == "a.bmp" else data.index(b"\xff\xc0") + 5
        data[at : at + struct.calcsize("<ii" if at == 18 else ">HH")] = (
            struct.pack("<ii", *size) if at == 18 else struct.pack(">HH", *size)
        )
        path.write_bytes(data)
    for door in (read, describe):
        with refused(ReadError, "file-damaged"):
            door(path)


@pytest.mark.broad
def test_large_bmp_is_no_bomb(tmp_path):
    path = tmp_path / "large.bmp"
    Image.fromarray(np.ones((10_000, 18_000), np.uint8)).save(path)
    assert read(path).shape == (10_000, 18_000)


@pytest.mark.parametrize(
    "lazily",
    [False, pytest.param(True, marks=pytest.mark.broad)],
    ids=["at once", "by block"],
)
def test_palette_shorter_than_its_indices_is_refused(tmp_path, lazily, monkeypatch):
    side = 9000 if lazily else 40  # beyond 64 MiB images are read by block
    data = np.full((side, side), 200, np.uint8)
    path = tmp_path / "palette.tif"
    colours = np.random.default_rng(0).integers(0, 65535, (3, 256)).astype(np.uint16)
    how = {"photometric": "palette", "colormap": colours, "compression": "zlib"}
    tifffile.imwrite(path, data, metadata=None, **how)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tag = tif.pages[0].tags["ColorMap"]
        tag.overwrite(colours[:, :16].ravel().tolist(), dtype=3)
    with refused(ReadError, "file-damaged"):
        np.asarray(read(path, colour="luminance").data[:40, :40])


def test_tile_of_a_czi_is_not_enlarged(tmp_path):
    from napari_semsr.io.czi import open_tiles

    pytest.importorskip("czifile")
    path = write_czi(tmp_path / "a.czi")
    whole = open_tiles(path)[0]
    data = bytearray(path.read_bytes())
    at = data.index(b"DV", data.index(b"ZISRAWSUBBLOCK")) + 32  # its first axis
    struct.pack_into("<i", data, at + 8, 2_000_000)
    path.write_bytes(data)
    assert np.array_equal(open_tiles(path)[0], whole)


PACKERS = dict(packers())
SMOKE = ("shards/blosc lz4", "plain/0")
NAMES = [
    pytest.param(n, marks=() if n in SMOKE else pytest.mark.broad) for n in PACKERS
]


@pytest.mark.parametrize("name", NAMES)
def test_packed_chunks_are_read_as_they_were_written(tmp_path, name):
    path = write_packed(tmp_path, name, PACKERS[name])
    whole = zarr.open_group(path, mode="r")["shards" if "shard" in name else "0"]
    assert np.array_equal(read(path).array(), whole[...])


@pytest.mark.parametrize("name", NAMES)
def test_chunk_that_is_cut_short_is_refused_and_others_are_read(tmp_path, name):
    path = write_packed(tmp_path, name, PACKERS[name])
    whole = read(path).array()
    file = path / ("shards/c/1/1" if "shard" in name else "0/3.3")
    file.write_bytes(file.read_bytes()[:-100])  # of a shard, its index is gone
    assert np.array_equal(np.asarray(read(path).data[:32]), whole[:32])
    block = file.relative_to(path).as_posix()
    with refused(ReadError, "file-damaged", match=rf" {block}:"):
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
