"""PNG, JPEG and BMP."""

import io
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from napari_semsr.core import Micrograph, Provenance, ReadError
from napari_semsr.io import formats as registry
from napari_semsr.io.files import RECORD_KEY
from napari_semsr.io.read_image import count_series
from tests.refusals import refused, warned


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_read_takes_grey_in_every_layout_of_png(tmp_path, rng, dtype, channels):
    grey = rng.integers(0, np.iinfo(dtype).max, (12, 17)).astype(dtype)
    path = tmp_path / "a.png"
    stored = np.stack([grey] * channels, axis=-1).squeeze()
    path.write_bytes(imagecodecs.png_encode(stored))
    found = registry.read(path)
    assert found.dtype == np.dtype(dtype)
    assert np.array_equal(found.array(), grey)


def test_read_refuses_cmyk(tmp_path, grey):
    Image.fromarray(grey).convert("CMYK").save(tmp_path / "a.jpg")
    with refused(ReadError, "format-unsupported"):
        registry.read(tmp_path / "a.jpg")


JPEGS = {
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 1},
    "preview": {
        "exif": b"Exif\0\0" + bytes(9) + imagecodecs.jpeg_encode(np.eye(8, dtype="u1"))
    },
    "comment": {"comment": b"\xff\xd9 no end"},
}


def jpeg_of(pixels, **how):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, **how)
    return stream.getvalue()


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_is_read_with_data_after_its_end_and_refused_if_cut(tmp_path, kind):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 48)).astype(np.uint8)
    data, path = jpeg_of(pixels, **JPEGS[kind]), tmp_path / "a.jpg"
    whole = imagecodecs.jpeg_decode(data)
    padded = data[:-2] + b"\xff\xff\xff\xd9"
    for more in (padded, data + bytes(70_000), data + b"\xff" * 9, data + data[:200]):
        path.write_bytes(more)
        assert np.array_equal(registry.read(path).array(), whole)
    for kept in (len(data) - 1, len(data) - 2, 2 * len(data) // 3):
        for more in (b"", bytes(70_000)):
            path.write_bytes(data[:kept] + more)
            with refused(ReadError, "file-damaged"):
                registry.read(path)


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_data_after_the_end_is_left_out_and_a_cut_is_refused(tmp_path, grey, suffix):
    Image.fromarray(grey).save(tmp_path / f"a{suffix}")
    data = (tmp_path / f"a{suffix}").read_bytes()
    for more in (bytes(70_000), data):
        (tmp_path / f"b{suffix}").write_bytes(data + more)
        assert np.array_equal(registry.read(tmp_path / f"b{suffix}").array(), grey)
    for lost in (13, len(data) // 2):
        (tmp_path / f"b{suffix}").write_bytes(data[:-lost])
        with refused(ReadError, "file-damaged"):
            registry.read(tmp_path / f"b{suffix}")


@pytest.mark.parametrize(("dpi", "size"), [(72, None), (300, None), (254_000, 100.0)])
def test_read_takes_physical_chunks_for_pixels_but_not_for_print(
    tmp_path, grey, dpi, size
):
    path = tmp_path / "a.png"
    Image.fromarray(grey).save(path, dpi=(dpi, dpi))
    found = registry.read(path).pixel_size_nm
    assert found == (None if size is None else pytest.approx((size, size), rel=1e-5))


def test_damage_in_a_text_leaves_the_pixels_alone(tmp_path, grey, capfd):
    path = tmp_path / "a.png"
    registry.write(Micrograph(grey, (5.0, 5.0)), path)
    data = bytearray(path.read_bytes())
    at = data.index(b"iTXt") + 30
    data[at : at + 8] = b"\xff" * 8
    path.write_bytes(bytes(data))
    found = registry.read(path)
    assert np.array_equal(found.array(), grey)
    assert found.pixel_size_nm == pytest.approx((5.0, 5.0))
    assert capfd.readouterr().err == ""


def test_damage_in_the_pixels_is_refused(tmp_path, grey):
    path = tmp_path / "a.png"
    registry.write(Micrograph(grey), path)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 40] ^= 0xFF
    path.write_bytes(bytes(data))
    with refused(ReadError, "file-damaged"):
        registry.read(path)


def test_a_text_that_swells_is_not_read_without_bound(tmp_path, grey):
    path = tmp_path / "a.png"
    bomb = b"bomb\0\0" + zlib.compress(bytes(1 << 26))
    plain = imagecodecs.png_encode(grey)
    body = b"zTXt" + bomb
    chunk = len(bomb).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    path.write_bytes(plain[:33] + chunk + plain[33:])
    found = registry.read(path)
    assert np.array_equal(found.array(), grey)
    assert len(found.metadata["texts"]["bomb"]) == 500


def test_keywords_of_texts_are_not_taken_for_entries_of_the_reader(tmp_path, grey):
    path, texts = tmp_path / "a.png", PngInfo()
    for keyword in ("images", "series", "series_of_file", "significant_bits"):
        texts.add_text(keyword, "x")
    Image.fromarray(grey).save(path, pnginfo=texts)
    info = registry.describe(path)
    assert count_series(info.metadata, info.series) == (1, "the first")
    assert "significant_bits" not in info.metadata
    assert info.metadata["texts"]["images"] == "x"


@pytest.mark.parametrize("size", [(0.1, 0.1), (1e300, 1e300)])
def test_pixels_per_metre_are_left_out_where_their_integers_end(tmp_path, grey, size):
    path = tmp_path / "a.png"
    registry.write(Micrograph(grey, size), path)
    with Image.open(path) as image:
        assert "dpi" not in image.info
    assert registry.read(path).pixel_size_nm == size


def test_written_png_is_read_by_others(tmp_path, grey):
    path = tmp_path / "a.png"
    registry.write(Micrograph(grey, (10.0, 5.0)), path)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), grey)
        x, y = image.info["dpi"]
        assert list(image.text) == [RECORD_KEY]
    assert (25.4e6 / y, 25.4e6 / x) == pytest.approx((10.0, 5.0), rel=1e-6)


def test_picture_of_a_map_has_no_quantity(tmp_path):
    path, made = tmp_path / "map.png", Provenance(job="frc-map")
    values = np.linspace(30, 60, 64, dtype=np.float32).reshape(8, 8)
    registry.write(Micrograph(values, (10, 10), provenance=made), path)
    with warned("values-stretched"):
        assert registry.read(path).quantity is None


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_an_image_is_turned_as_exif_says(tmp_path, suffix):
    grey = np.add.outer(np.arange(40), 2 * np.arange(64)).astype(np.uint8)
    said = Image.Exif()
    said[274] = 6
    path = tmp_path / f"a{suffix}"
    Image.fromarray(grey).save(path, exif=said, quality=95)
    found, shown = registry.read(path), np.rot90(grey, -1)
    assert found.shape == registry.describe(path).shape == (64, 40)
    assert np.allclose(found.array(), shown, atol=6)
