"""The text file beside a Hitachi image, on files made after its published keys."""

import codecs

import imagecodecs
import numpy as np
import pytest
import tifffile

from napari_semsr.io import formats as registry

_TEXT = (
    "[SemImageFile]\r\nInstructName=SU8000\r\nFormat={kind}\r\nImageName=a.{kind}\r\n"
    "DataSize={size}\r\nPixelSize={pixel}\r\nMagnification=50000\r\n"
    "AcceleratingVoltage=5000 Volt\r\nMicronMarker=1000\r\n"
)


@pytest.fixture
def hitachi(tmp_path, grey):
    def write(pixel="1.984375", size="53x30", kind="tif", encoding="ascii", text=None):
        path = tmp_path / f"a.{kind}"
        if kind == "tif":
            tifffile.imwrite(path, grey, metadata=None)
        elif kind == "bmp":
            path.write_bytes(imagecodecs.bmp_encode(grey))
        else:
            path.write_bytes(imagecodecs.jpeg8_encode(grey))
        filled = _TEXT.format(kind=kind, size=size, pixel=pixel)
        data = (text if text is not None else filled).encode(encoding)
        mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
        path.with_suffix(".txt").write_bytes(mark + data)
        return path

    return write


@pytest.mark.parametrize("kind", ["tif", "bmp", "jpg"])
@pytest.mark.parametrize("encoding", ["ascii", "utf-16", "utf-16-le", "utf-16-be"])
def test_sidecar_gives_pixel_size_and_data_bar(hitachi, kind, encoding):
    path = hitachi(kind=kind, encoding=encoding)
    info = registry.describe(path)
    assert info.vendor == "Hitachi"
    assert info.pixel_size_nm == (1.984375, 1.984375)
    assert info.databar_rows == 7
    found = registry.read(path)
    assert found.shape == (30, 53)
    assert found.metadata["hitachi"]["AcceleratingVoltage"] == "5000 Volt"


def test_sidecar_follows_a_resampled_image(hitachi):
    info = registry.describe(hitachi(size="106x60", pixel="2 nm"))
    assert info.pixel_size_nm == (4.0, 4.0)
    assert info.databar_rows == 7


@pytest.mark.parametrize("pixel", ["", "0", "-1", "nan", "wide", "1e400"])
def test_a_bad_pixel_size_is_left_unknown_and_said(hitachi, pixel):
    found = registry.read(hitachi(pixel=pixel))
    assert found.pixel_size_nm is None
    assert found.shape == (30, 53)
    assert "left unknown" in found.metadata["warnings"][0]


@pytest.mark.parametrize("size", ["", "53", "53x99", "axb", "0x0", "53x-1"])
def test_nothing_is_cropped_without_a_plausible_size(hitachi, size):
    assert registry.describe(hitachi(size=size)).databar_rows == 0


@pytest.mark.parametrize("text", ["[TemImageFile]\nPixelSize=1\n", "PixelSize=1", ""])
def test_texts_of_others_are_left_alone(hitachi, text):
    info = registry.describe(hitachi(text=text))
    assert info.vendor is None
    assert info.pixel_size_nm is None


def test_keys_of_a_later_section_are_not_taken(hitachi):
    text = "[SemImageFile]\nPixelSize=2\n[Other]\nPixelSize=9\n"
    assert registry.describe(hitachi(text=text)).pixel_size_nm == (2.0, 2.0)


def test_grey_values_are_left_alone(hitachi, grey):
    assert np.array_equal(registry.read(hitachi()).array(), grey[:30])
