"""The contract that every format keeps, and the door that they share."""

import json
from importlib.util import find_spec

import dask.array as da
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings

import napari_semsr as semsr
from napari_semsr import core
from napari_semsr.io import formats as registry
from napari_semsr.io.files import Record, create_image_record
from tests.refusals import refused, warned
from tests.strategies import images, pixel_sizes

_OF_CZI = "file-damaged" if find_spec("czifile") else "extra-missing"
_EXACT = (".ome.zarr", ".ome.tif", ".tif")
_WRITABLE = (*_EXACT, ".png")
_DTYPES = ("bool", "uint8", "uint16", "int8", "int16", "uint32", "int32")
_DTYPES = (*_DTYPES, "float16", "float32", "float64")
# PNG is written in 8 bits, for looking
_CASES = [*((suffix, "float32") for suffix in _EXACT), (".png", "uint8")]
_CASES += [(".ome.zarr", dtype) for dtype in _DTYPES if dtype != "float32"]
_CASES += [(".ome.tif", "int8"), (".ome.tif", "int32"), (".tif", "float64")]


def _draw(dtype: str) -> np.ndarray:
    values = np.random.default_rng(3).normal(90, 30, (37, 53))
    return (values > 90) if dtype == "bool" else np.abs(values).astype(dtype)


@pytest.mark.parametrize(("suffix", "dtype"), _CASES)
def test_read_returns_what_write_was_given(tmp_path, suffix, dtype):
    made = core.Provenance(
        job="test", options={"tile": 64}, model_name="net", model_digest="sha256:1"
    )
    image = core.Micrograph(
        _draw(dtype), (7.70833, 1 / 3), "caf\u00e9", made, origin=(3.25, -17.1)
    )
    path = tmp_path / f"written{suffix}"
    registry.write(image, path)
    found, info = registry.read(path), registry.describe(path)
    assert np.array_equal(found.array(), image.data)
    for name in ("dtype", "pixel_size_nm", "origin", "name", "provenance"):
        assert getattr(found, name) == getattr(image, name)
    assert (info.shape, info.dtype, info.network) == (image.shape, dtype, "net")
    assert info.pixel_size_nm == image.pixel_size_nm
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", _WRITABLE)
def test_write_keeps_the_unknown_unknown(tmp_path, suffix, grey):
    image = core.Micrograph(grey, origin=(31.5, 31.5), spacing_px=(16.0, 16.0))
    path = tmp_path / f"a{suffix}"
    registry.write(image, path)
    found = registry.read(path)
    assert found.pixel_size_nm is None
    assert found.unit == "pixel"
    assert found.origin == image.origin
    assert found.spacing_px == image.spacing_px


@pytest.mark.parametrize("suffix", _EXACT)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=6,
)
@given(data=images(high=20), size=pixel_sizes())
def test_read_inverts_write_for_any_image(tmp_path, suffix, data, size):
    path = tmp_path / f"any{suffix}"
    registry.write(core.Micrograph(data, size), path, overwrite=True)
    found = registry.read(path)
    assert suffix == ".tif" or found.dtype == data.dtype  # ImageJ has fewer types
    assert np.array_equal(found.array(), data)
    assert found.pixel_size_nm == size


@pytest.mark.parametrize("suffix", _EXACT)
def test_nan_and_infinity_are_kept_and_counted(tmp_path, suffix, rng):
    data = rng.random((20, 30)).astype(np.float32)
    data[3, 4], data[5, 6], data[7, 8] = np.nan, np.inf, -np.inf
    registry.write(core.Micrograph(data), tmp_path / f"a{suffix}")
    found = registry.read(tmp_path / f"a{suffix}")
    assert np.array_equal(found.array(), data, equal_nan=True)
    if not found.is_lazy:
        assert found.metadata["nonfinite_pixels"] == 3


@pytest.mark.parametrize("suffix", _WRITABLE)
def test_write_streams_lazy_data(tmp_path, suffix):
    data = (np.indices((70, 90)).sum(axis=0) % 251).astype(np.uint8)
    lazy = core.Micrograph(da.from_array(data, chunks=(32, 40)), (5.0, 5.0))
    registry.write(lazy, tmp_path / f"a{suffix}")
    assert np.array_equal(registry.read(tmp_path / f"a{suffix}").array(), data)


def test_a_tiff_of_any_size_is_read(tmp_path, monkeypatch, grey):
    registry.write(core.Micrograph(grey), tmp_path / "a.tif")
    monkeypatch.setattr(registry, "_LARGEST_FILE", 8)  # bytes
    assert np.array_equal(registry.read(tmp_path / "a.tif").array(), grey)


@pytest.mark.parametrize("suffix", _EXACT)
def test_write_converts_with_rounding_and_clipping(tmp_path, suffix):
    data = np.array([[-3.0, 0.4, 0.6, 254.7, 300.0]], np.float32)
    for kind in (data, da.from_array(data)):
        path = tmp_path / f"a{suffix}"
        registry.write(core.Micrograph(kind), path, dtype="uint8", overwrite=True)
        assert registry.read(path).array().tolist() == [[0, 0, 1, 255, 255]]


def test_write_png_stretches_other_types_over_8_bits(tmp_path):
    data = np.array([[10.0, 20.0, np.nan, np.inf]], np.float32)
    registry.write(core.Micrograph(data), tmp_path / "a.png")
    assert registry.read(tmp_path / "a.png").array().tolist() == [[0, 255, 0, 255]]


@pytest.mark.parametrize("suffix", _WRITABLE)
def test_write_never_replaces_unasked(tmp_path, suffix, grey):
    path = tmp_path / f"a{suffix}"
    registry.write(core.Micrograph(grey), path)
    with refused(core.WriteError, "output-exists"):
        registry.write(core.Micrograph(grey + 1), path)
    registry.write(registry.read(path), path, overwrite=True)
    assert np.array_equal(registry.read(path).array(), grey)


@pytest.mark.parametrize("suffix", _WRITABLE)
def test_write_leaves_nothing_when_the_data_fail(tmp_path, suffix):
    def fail(block: np.ndarray) -> np.ndarray:
        raise KeyError(block.shape)

    data = da.zeros((40, 40), dtype="u1").map_blocks(fail, dtype="u1", meta=np.empty(0))
    with pytest.raises(KeyError):
        registry.write(core.Micrograph(data), tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "code", "value"),
    [
        ("missing.tif", None, "file-missing", None),
        ("empty.tif", b"", "file-empty", None),
        ("text.tif", b"once upon a time", "format-unknown", "'once upo'"),
        ("bytes.tif", b"\x00\xff ab\ncd", "format-unknown", "00 ff 20 61 62 0a"),
        ("a.czi", b"ZISRAWFILE", _OF_CZI, None),
        ("head.tif", b"II*\0", "file-damaged", "TIFF"),
        ("head.png", b"\x89PNG\r\n\x1a\n", "file-damaged", "PNG"),
        ("head.jpg", b"\xff\xd8\xff\xe0", "file-damaged", "JPEG"),
        ("head.bmp", b"BM12", "file-damaged", "BMP"),
    ],
)
def test_read_refuses_in_one_sentence(tmp_path, name, content, code, value):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    for verb in (registry.read, registry.describe):
        with refused(core.ReadError, code, match=value) as caught:
            verb(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("suffix", "what"),
    [*zip(_WRITABLE, ["series", "level", "channel", "plane"], strict=True)],
)
def test_read_refuses_choices_that_do_not_exist(tmp_path, suffix, what, grey):
    path = tmp_path / f"a{suffix}"
    registry.write(core.Micrograph(grey), path)
    with refused(core.ReadError, "plane-missing", match=f"{what} 7"):
        registry.read(path, **{what: 7})


def test_read_takes_a_pixel_size_and_a_crop_from_the_user(tmp_path, grey):
    registry.write(core.Micrograph(grey, (5.0, 5.0)), tmp_path / "a.tif")
    found = registry.read(tmp_path / "a.tif", pixel_size_nm=8, databar_rows=7)
    assert found.pixel_size_nm == (8.0, 8.0)
    assert np.array_equal(found.array(), grey[:-7])
    with refused(core.ReadError, "out-of-range", match="37 rows"):
        registry.read(tmp_path / "a.tif", databar_rows=37)


@pytest.mark.parametrize("suffix", [".ome.tif", ".tif"])
@pytest.mark.parametrize("value", [2**53 + 1, -(2**60)])
def test_write_tiff_refuses_whole_numbers_that_no_type_holds(tmp_path, suffix, value):
    image = core.Micrograph(np.full((4, 4), value, np.int64))
    with refused(core.WriteError, "out-of-range", match=str(value)):
        registry.write(image, tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


RECORD = create_image_record(core.Micrograph(np.zeros((2, 3)), name="a")).to_dict()
DAMAGED = {"pixel_size_nm": [0, 1], "origin": [1], "provenance": {"job": 1}}


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", '{"record": 99}', '{"record": 1, "name": "a"}'),
        *(json.dumps({**RECORD, key: value}) for key, value in DAMAGED.items()),
    ],
)
def test_a_damaged_record_is_reported_and_not_used(text, tmp_path, grey):
    assert Record.from_json(text, warnings := []) is None
    assert [*map(core.get_error_code, warnings)] == ["metadata-damaged"]
    assert Record.from_json("null", []) is None
    assert Record.from_json(json.dumps(RECORD), []).name == "a"


@pytest.mark.parametrize("name", ["a.ome.tif", "a.tif", "a.png", "a.ome.zarr"])
def test_files_with_a_damaged_record_say_so(name, tmp_path, grey, monkeypatch):
    image = core.Micrograph(grey, name="b", provenance=core.Provenance(job="crop"))
    path = tmp_path / name
    registry.write(image, path)
    assert registry.read(path).provenance is not None
    monkeypatch.setattr("napari_semsr.io.files._FORMAT", 2)
    for size in (None, 7):  # a typed size does not replace name and history
        with warned("metadata-damaged", match=f"{name}: The record"):
            assert registry.read(path, pixel_size_nm=size).provenance is None


def write_ome(path, grey):
    sizes = {f"PhysicalSize{axis}": 5 for axis in "XY"}
    sizes |= {f"PhysicalSize{axis}Unit": "nm" for axis in "XY"}
    tifffile.imwrite(path, grey, ome=True, metadata={"axes": "YX", **sizes})


def test_it_is_known_what_stated_a_pixel_size(tmp_path, grey):
    path = tmp_path / "a.ome.tif"
    write_ome(path, grey)
    assert registry.read(path).pixel_size_from == "from the OME-TIFF metadata"
    assert registry.describe(path).pixel_size_from == "from the OME-TIFF metadata"
    known = registry.read(path, pixel_size_nm=7, pixel_size_sd_nm=0.1)
    assert known.pixel_size_from == "from a calibration"
    assert core.Micrograph(grey).pixel_size_from is None
    assert core.Micrograph(grey, (5, 5)).pixel_size_from == "given with its array"


@pytest.mark.parametrize("name", ["b.ome.tif", "b.tif", "b.ome.zarr"])
def test_what_was_typed_is_known_in_copies_of_copies(tmp_path, grey, name):
    path, last = tmp_path / "a.ome.tif", tmp_path / "c.tif"
    write_ome(path, grey)
    registry.write(registry.read(path, pixel_size_nm=7), tmp_path / name)
    for source, told in (
        (tmp_path / name, "typed by the user"),
        (path, "from the OME-TIFF metadata"),
    ):
        semsr.crop(source, output=last, box=(0, 0, 20, 20), overwrite=True)
        assert registry.read(last).pixel_size_from == told
