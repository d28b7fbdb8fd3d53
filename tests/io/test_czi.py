"""CZI of one tile or several, in colour, of channels and planes, and packed."""

from collections import Counter

import imagecodecs
import numpy as np
import pytest

from napari_semsr.core import ReadError, run
from napari_semsr.io import formats as registry, open_frames, project as hooks
from napari_semsr.io.czi import open_tiles
from napari_semsr.jobs import STITCH
from tests.hostile.czi import write_czi
from tests.refusals import refused, warned

pytest.importorskip("czifile", reason="needs czifile, the extra [czi]")


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 60_000, (24, 20)).astype(np.uint16)


def zstd(data):
    return bytes(imagecodecs.zstd_encode(data))


PACKINGS = {
    "none": (0, np.ndarray.tobytes),
    "lzw": (2, lambda p: bytes(imagecodecs.lzw_encode(p.tobytes()))),
    "jpeg xr": (4, lambda p: bytes(imagecodecs.jpegxr_encode(p, level=1.0))),
    "zstd0": (5, lambda p: zstd(p.tobytes())),
    "zstd1": (6, lambda p: b"\x01" + zstd(p.tobytes())),
    # the low bytes of all pixels before the high ones
    "zstd1 split": (
        6,
        lambda p: b"\x03\x01\x01" + zstd(p.view("u1").reshape(-1, 2).T.tobytes()),
    ),
    "zstd1 not packed": (6, np.ndarray.tobytes),
}


@pytest.mark.parametrize("name", PACKINGS)
def test_tiles_are_unpacked(tmp_path, pixels, name):
    how, pack = PACKINGS[name]
    path = write_czi(tmp_path / "a.czi", [pixels], how=how, pack=pack)
    assert np.array_equal(registry.read(path).array(), pixels)


def test_an_unknown_compression_is_named_and_no_damage(tmp_path, pixels):
    path = write_czi(tmp_path / "a.czi", [pixels], how=104, pack=lambda _: b"packed")
    with refused(ReadError, "format-unsupported", match=r"\(number 104\)") as caught:
        registry.read(path)
    assert "damaged" not in str(caught.value)


def test_one_tile_opens_by_every_way(tmp_path, pixels):
    path = write_czi(tmp_path / "one.czi", [pixels])
    info = registry.describe(path)
    assert (info.format, info.shape, info.planes) == ("CZI", (24, 20), 1)
    found = registry.read(path)
    assert found.pixel_size_nm == (5.0, 5.0)
    assert found.name == "one"
    [(data, attributes, kind)] = hooks.get_reader(str(path))(str(path))
    assert kind == "image"
    assert np.array_equal(data, pixels)
    assert tuple(attributes["scale"]) == (5.0, 5.0)
    with refused(ReadError, "too-few-frames"):
        run(open_frames(path))


def test_a_scene_is_chosen_as_a_series(tmp_path, pixels):
    tiles = [pixels + step for step in range(5)]
    starts = [
        {"X": 100 * scene, "Y": 20 * tile, "S": 2 * scene, "M": tile}
        for scene, tile in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    ]
    path = write_czi(tmp_path / "a.czi", tiles, starts=starts)
    assert registry.describe(path).series == 2
    found = registry.read(path, series=1, plane=2)
    assert np.array_equal(found.array(), tiles[4])
    assert found.metadata["series_read"] == 1
    scan = run(open_frames(path, series=1))
    assert scan.nominal_px.tolist() == [[0, 100], [20, 100], [40, 100]]
    assert np.array_equal(scan.read(2), tiles[4])
    with refused(ReadError, "plane-missing", match="series 2"):
        registry.read(path, series=2, plane=0)
    with refused(ReadError, "plane-missing", match="series 2"):
        run(open_frames(path, series=2))


def mosaics(path, pixels, places, **more):
    """Write tiles of scenes at places (scene, x), with `more` starts."""
    tiles = [pixels + 100 * number for number in range(len(places))]
    numbers = Counter[int]()
    starts = []
    for scene, x in places:
        starts.append({"X": x, "Y": 0, "S": scene, "M": numbers[scene], **more})
        numbers[scene] += 1
    return write_czi(path, tiles, starts=starts)


@pytest.mark.parametrize(
    ("places", "apart"),
    [
        ([(0, 0), (0, 16), (1, 100), (1, 116)], 2),
        ([(0, 0), (0, 16), (2, 60), (2, 76), (1, 32), (1, 48)], 0),
        ([(0, 0), (0, 16), (1, 36)], 2),  # their edges meet, but they share no pixel
        ([(0, 0), (1, 100)], 0),  # single positions: the overlap decides
    ],
)
def test_scenes_that_share_no_pixel_are_counted(tmp_path, pixels, places, apart):
    path = mosaics(tmp_path / "a.czi", pixels, places)
    assert open_tiles(path).scenes_apart == apart
    assert open_tiles(path, series=0).scenes_apart == 0


def test_scenes_apart_are_not_stitched_together(tmp_path, pixels):
    places = [(0, 0), (0, 16), (1, 100), (1, 116)]
    path = mosaics(tmp_path / "a.czi", pixels, places)
    given = {"folder": path, "output": tmp_path / "m.ome.zarr"}
    with refused(ReadError, "several-images", match=r"2 scenes .*`series`, 0 to 1"):
        run(STITCH.job(**given))
    assert not (tmp_path / "m.ome.zarr").exists()


def test_the_first_scene_is_shown_where_scenes_differ(tmp_path, pixels):
    starts = [{"X": 16 * m, "Y": 0, "S": s, "M": m} for s in (0, 1) for m in (0, 1)]
    tiles = [pixels, pixels + 1, pixels[:20], pixels[:20] + 1]
    path = write_czi(tmp_path / "a.czi", tiles, starts=starts)
    with refused(ReadError, "frames-differ", match="`series`, 0 to 1"):
        run(open_frames(path))
    with warned("several-images"):
        frames, outlines = hooks.get_reader(str(path))(str(path))
    assert frames[0].shape == (24, 36)
    assert len(outlines[0]) == 2
    assert frames[1]["metadata"]["semsr read"]["series"] == 0


@pytest.mark.parametrize("axis", "HRIVB")
def test_tiles_of_several_phases_are_refused(tmp_path, pixels, axis):
    starts = [{"X": 16 * m, "Y": 0, "M": m, axis: k} for k in (0, 1) for m in (0, 1)]
    path = write_czi(tmp_path / "a.czi", [pixels] * 4, starts=starts)
    with refused(ReadError, "several-images", match="has 2 .+: export the one"):
        run(open_frames(path))


def test_channels_and_planes_are_chosen(tmp_path, pixels):
    starts = [{"X": 0, "Y": 0, "C": c, "Z": z} for c in (0, 1) for z in (3, 4, 5)]
    tiles = [pixels + step for step in range(6)]
    path = write_czi(tmp_path / "a.czi", tiles, starts=starts)
    info = registry.describe(path)
    assert (info.channels, info.planes) == (2, 3)
    assert np.array_equal(registry.read(path, channel=1, plane=2).array(), tiles[5])
    for read in (registry.read, lambda path: run(open_frames(path))):
        with refused(ReadError, "several-images", match="2 channels"):
            read(path)
    layers = hooks.get_reader(str(path))(str(path))
    assert [layer[0].shape for layer in layers] == [(3, 24, 20)] * 2
    path = write_czi(tmp_path / "b.czi", tiles[:5], starts=starts[:5])
    with refused(ReadError, "plane-missing"):
        registry.read(path, channel=1, plane=2)


def test_colour_is_refused_or_its_luminance_taken(tmp_path, rng):
    colours = rng.integers(0, 255, (24, 20, 3)).astype(np.uint8)
    path = write_czi(tmp_path / "a.czi", [colours[..., ::-1]] * 2)
    with refused(ReadError, "colour-image"):
        registry.read(path, plane=0)
    with refused(ReadError, "colour-image"):
        run(open_frames(path)).read(0)
    luma = np.rint(colours @ [0.299, 0.587, 0.114])
    found = registry.read(path, plane=0, colour="luminance").array()
    assert np.abs(found - luma).max() <= 1
    one = write_czi(tmp_path / "one.czi", [colours[..., ::-1]])
    with warned("colour-image"):
        [(data, attributes, _)] = hooks.get_reader(str(one))(str(one))
    assert attributes["rgb"]
    assert np.array_equal(data, colours)


def test_damaged_metadata_leave_the_pixel_size_unknown(tmp_path, pixels):
    path = write_czi(tmp_path / "a.czi", [pixels], xml="<ImageDocument>")
    with warned("metadata-damaged"):
        found = registry.read(path)
    assert found.pixel_size_nm is None
    assert np.array_equal(found.array(), pixels)
    assert registry.read(path, pixel_size_nm=3).pixel_size_nm == (3.0, 3.0)


def test_tiles_of_jpeg_are_unpacked(tmp_path):
    smooth = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (40, 1))
    pack = imagecodecs.jpeg_encode
    path = write_czi(tmp_path / "a.czi", [smooth], how=1, pack=lambda p: bytes(pack(p)))
    found = registry.read(path).array()
    assert np.abs(found.astype(int) - smooth).max() <= 4


def test_a_damaged_tile_is_left_out_with_its_reason(tmp_path, pixels):
    starts = [{"X": 16 * tile, "Y": 0, "S": 0, "M": tile} for tile in range(3)]
    tiles, packed = [pixels + 100 * tile for tile in range(3)], iter("abc")

    def pack(tile):
        return zstd(tile.tobytes())[: 20 if next(packed) == "b" else None]

    path = write_czi(tmp_path / "a.czi", tiles, starts=starts, how=5, pack=pack)
    scan = run(open_frames(path))
    assert scan.names == ("tile-000", "tile-002")
    assert scan.nominal_px[:, 1].tolist() == [0, 32]
    assert np.array_equal(scan.read(1), tiles[2])
    assert [fault.frame for fault in scan.faults] == ["tile-001"]
    assert "damaged" in scan.faults[0].reason


@pytest.mark.parametrize("lost", [1000, 1800])
def test_a_file_that_is_cut_short_is_refused(tmp_path, pixels, lost):
    path = write_czi(tmp_path / "a.czi", [pixels] * 2)
    path.write_bytes(path.read_bytes()[:-lost])
    with refused(ReadError, "file-damaged"):
        registry.read(path, plane=0)
