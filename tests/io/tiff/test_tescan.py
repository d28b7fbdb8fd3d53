"""TESCAN's text in a tag and beside an image: files made after the published keys."""

import imagecodecs
import numpy as np
import pytest
import tifffile

from napari_semsr.io import formats as registry

_TEXT = (
    "[MAIN]\r\nAccFrames=1\r\nDevice=MIRA3\r\nImageStripSize={strip}\r\n"
    "Magnification=20000\r\nPixelSizeX={x}\r\nPixelSizeY={y}\r\n"
    "[SEM]\r\nHV=5000.0\r\nWD=0.00512\r\n"
)


def _text(x="7.4e-09", y="7.5e-9", strip="7"):
    return _TEXT.format(x=x, y=y, strip=strip)


@pytest.fixture
def tagged(tmp_path, grey):
    """Write a TIFF whose tag begins with bytes that are no text, as TESCAN's does."""

    def write(text):
        path = tmp_path / "a.tif"
        data = b"\x00\x07\xff\x01\x00" + text.encode("cp1252") + b"\0"
        tags = [(50431, 7, len(data), data, True)]
        tifffile.imwrite(path, grey, extratags=tags, metadata=None)
        return path

    return write


@pytest.fixture
def beside(tmp_path, grey):
    """Write an image with a text beside it."""

    def write(text, name="a-png.hdr", image="a.png"):
        path = tmp_path / image
        encode = imagecodecs.png_encode
        if image.lower().endswith(("tif", "tiff")):
            tifffile.imwrite(path, grey, metadata=None)
        else:
            path.write_bytes(encode(grey))
        (tmp_path / name).write_bytes(text.encode())
        return path

    return write


def _is_calibrated(path, grey):
    info = registry.describe(path)
    assert info.vendor == "TESCAN"
    assert info.pixel_size_nm == (7.5, 7.4)
    assert info.databar_rows == 7
    assert info.shape == (30, 53)
    assert np.array_equal(registry.read(path).array(), grey[:30])
    assert np.array_equal(registry.read(path, crop_databar=False).array(), grey)


@pytest.mark.parametrize("text", [_text(), _text().partition("\r\n")[2]])
def test_tag_gives_pixel_size_and_data_bar(tagged, grey, text):
    path = tagged(text)
    _is_calibrated(path, grey)
    assert registry.describe(path).metadata["Device"] == "MIRA3"


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("a.png", "a-png.hdr"),
        ("a.tif", "a-tif.hdr"),
        ("a.TIF", "a-tif.hdr"),
        ("a.tiff", "a-tiff.hdr"),
        ("a.png", "a.hdr"),
    ],
)
def test_sidecar_gives_the_same(beside, grey, image, name):
    path = beside(_text(), name, image)
    _is_calibrated(path, grey)
    assert registry.read(path).metadata["tescan"]["HV"] == "5000.0"


@pytest.mark.parametrize("value", ["nan", "0", "-1e-9", "wide", "", "1e400"])
def test_a_bad_pixel_size_is_left_unknown_and_said(tagged, beside, value):
    for path in (tagged(_text(x=value)), beside(_text(y=value))):
        found = registry.read(path)
        assert found.pixel_size_nm is None
        assert "left unknown" in found.metadata["warnings"][0]


@pytest.mark.parametrize("strip", ["37", "900", "-3", "many", "", "1e1", "\u00b2"])
def test_nothing_is_cropped_without_a_plausible_height(beside, strip):
    assert registry.describe(beside(_text(strip=strip))).databar_rows == 0


@pytest.mark.parametrize("text", ["ENVI\nsamples = 53\n", "", "PixelSize=3"])
def test_headers_of_others_are_left_alone(tagged, beside, text):
    for path in (tagged(text), beside(text)):
        info = registry.describe(path)
        assert info.vendor is None
        assert info.pixel_size_nm is None
