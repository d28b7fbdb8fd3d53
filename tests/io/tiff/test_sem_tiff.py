"""What microscopes write into private tags, and what becomes of damage in them."""

import re

import numpy as np
import pytest
import tifffile
from hypothesis import given, strategies as st

from napari_semsr.core import Micrograph, parse_pixel_size
from napari_semsr.io import formats as registry, write_fei_tiff
from napari_semsr.io.read_image import parse_tescan_header
from napari_semsr.io.tiff_read import parse_fei_header, parse_zeiss_header
from tests.refusals import warned


@pytest.mark.parametrize("tag", [34680, 34682])
def test_fei_gives_pixel_size_and_crops_the_bar(fei, grey, tag):
    path = fei(grey, rows=30, tag=tag)
    info = registry.describe(path)
    assert (info.vendor, info.databar_rows) == ("FEI", 7)
    assert info.pixel_size_nm == (7.70833, 7.70833)
    assert (info.shape, info.stored_shape) == ((30, 53), (37, 53))
    assert np.array_equal(registry.read(path).array(), grey[:30])
    whole = registry.read(path, crop_databar=False)
    assert np.array_equal(whole.array(), grey)
    assert np.array_equal(registry.read(path, databar_rows=2).array(), grey[:35])


@pytest.mark.parametrize("rows", [37, 38, 0, -3, "many", "nan"])
def test_fei_crops_nothing_without_a_plausible_height(fei, grey, rows):
    assert registry.describe(fei(grey, rows=rows)).databar_rows == 0


def test_fei_follows_a_resampled_page(fei, grey):
    half = fei(grey, rows=70, columns=106)
    info = registry.describe(half)
    assert info.pixel_size_nm == pytest.approx((2 * 7.70833, 2 * 7.70833))
    assert info.databar_rows == 2


@pytest.mark.parametrize("width", ["57.16 \u00b5m", None])
def test_zeiss_keeps_pixels_of_what_was_cut_out(zeiss, width):
    path = zeiss(np.zeros((96, 100), np.uint8), store="1024 * 768", width=width)
    with warned("header-of-other-size", match=" 768 x 1024 px"):
        assert registry.read(path).pixel_size_nm == (55.825, 55.825)


@pytest.mark.parametrize("pixel", ["nan", "0", "-1e-9", "wide", "1e400"])
def test_fei_leaves_a_bad_pixel_size_unknown_and_says_so(fei, grey, pixel):
    with warned("pixel-size-invalid", match=r"^a\.tif"):
        found = registry.read(fei(grey, pixel=pixel))
    assert found.pixel_size_nm is None
    assert found.shape == (30, 53)


@pytest.mark.parametrize(
    ("encoding", "micro", "kind"),  # bytes, text, undefined
    [
        ("cp1252", "\u00b5", 1),
        ("utf-8", "\u00b5", 2),
        ("utf-16", "\u00b5", 7),
        ("utf-16-be", "\u00b5", 1),
        ("cp932", "\u03bc", 7),
    ],
)
def test_a_header_may_have_any_encoding(tmp_path, grey, encoding, micro, kind):
    texts = {
        34118: f"0\r\nAP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 0.008 {micro}m\r\n",
        34682: f"[Scan]\nPixelWidth=8e-9\nPixelHeight=8e-9\n[User]\nUnit={micro}\n",
        50431: f"PixelSizeX=8e-9\r\nPixelSizeY=8e-9\r\nDevice={micro}\r\n",
    }
    for tag, text in texts.items():
        data = text.encode(encoding)
        extra = [(tag, kind, len(data), data, True)]
        tifffile.imwrite(tmp_path / "a.tif", grey, extratags=extra, metadata=None)
        assert registry.read(tmp_path / "a.tif").pixel_size_nm == (8, 8)


@pytest.mark.parametrize("pixel", [8.0, (3.3, 3.7), 1e-3 / 3])
def test_fei_reads_what_is_written_as_fei(tmp_path, grey, pixel):
    image = Micrograph(grey, parse_pixel_size(pixel))
    write_fei_tiff(image, tmp_path / "view.tif")
    found = registry.read(tmp_path / "view.tif")
    assert found.metadata["vendor"] == "FEI"
    assert found.pixel_size_nm == pytest.approx(image.pixel_size_nm, rel=1e-9)
    np.testing.assert_array_equal(found.array(), grey)


@pytest.mark.parametrize(
    ("pixel", "number", "size"),
    [
        ("55.82 nm", "5.5825e-08", 55.825),
        ("55.82 nm", "9.9e-08", 55.82),
        ("55.8 nm", "5.5849e-08", 55.849),
        ("55.8 nm", "5.5851e-08", 55.8),
        ("2.615 \u00b5m", "2.614514e-006", 2614.514),
        ("910.5 pm", "x", 0.9105),
        ("1.2 mm", "", 1.2e6),
        ("5e-8 m", "5e-8", 50.0),
    ],
)
def test_zeiss_reads_the_label_and_refines_it(zeiss, grey, pixel, number, size):
    info = registry.describe(zeiss(grey, pixel=pixel, number=number))
    assert info.vendor == "Zeiss"
    assert info.pixel_size_nm == (size, size)


@pytest.mark.parametrize("version", ["V05.07.00.00 : 08-Jul-14", "V06.03", ""])
@pytest.mark.parametrize("width", ["57.16 \u00b5m", None])
def test_zeiss_follows_a_resampled_page(zeiss, version, width):
    data = np.zeros((96, 128), np.uint8)
    path = zeiss(data, store="1024 * 768", width=width, version=version)
    assert registry.read(path).pixel_size_nm == pytest.approx((446.6, 446.6), rel=2e-3)


def test_zeiss_trusts_the_field_when_the_label_is_of_another_scan(zeiss):
    data = np.zeros((96, 128), np.uint8)
    path = zeiss(data, store="128 * 96", width="57.16 \u00b5m")
    assert registry.read(path).pixel_size_nm == pytest.approx((446.6, 446.6), rel=1e-3)


@pytest.mark.parametrize("pixel", ["nan nm", "0.0 fm", "-1 nm", "5 furlongs", ""])
def test_zeiss_leaves_a_bad_pixel_size_unknown_and_says_so(zeiss, grey, pixel):
    with warned("pixel-size-invalid", match=r"^a\.tif"):
        found = registry.read(zeiss(grey, pixel=pixel))
    assert found.pixel_size_nm is None
    assert np.array_equal(found.array(), grey)


def _field(width, height=None):
    """Text of a Zeiss that states its field alone, of a live scan of 1024 px."""
    lines = ["0", "0", "0", "5.825e-009", "DP_IMAGE_STORE"]
    lines += ["Store resolution = 1024 * 768", "AP_PIXEL_SIZE", "Pixel Size = 5.825 nm"]
    lines += ["AP_WIDTH", f"Width = {width}"]
    lines += [] if height is None else ["AP_HEIGHT", f"Height = {height}"]
    return {34118: "\r\n".join(lines)}


def test_zeiss_without_a_field_shows_no_empty_value(forge, grey):
    text = "AP_PIXEL_SIZE\r\nPixel Size = 5.825 nm"
    with warned("pixel-size-missing", match="^[^']*$"):
        assert registry.read(forge(grey, tags={34118: text})).pixel_size_nm is None


@pytest.mark.parametrize("height", [None, "4.474 \u00b5m"])
@pytest.mark.parametrize("columns", [512, 1024])
def test_zeiss_finds_the_pixel_size_by_the_field_where_that_is_all(
    forge, height, columns
):
    data = np.zeros((columns * 3 // 4, columns), np.uint8)
    found = registry.read(forge(data, tags=_field("5.965 \u00b5m", height)))
    pitch = 5965 / columns  # 11.65 nm of the 512-px page: twice the screen's
    assert found.pixel_size_nm == pytest.approx((pitch, pitch))
    said = f"AP_WIDTH, 5.965 \u00b5m, divided by {columns} px"
    assert found.metadata["pixel_size_from"] == said


@pytest.mark.parametrize(
    ("width", "height", "code", "value"),
    [
        ("nan \u00b5m", None, "pixel-size-missing", "('nan \u00b5m')"),
        ("5.965 \u00b5m", "5.965 \u00b5m", "pixel-size-contradicts", "384 x 512 px"),
    ],
)
def test_zeiss_leaves_a_field_that_does_not_fit_and_says_so(
    forge, width, height, code, value
):
    data = np.zeros((384, 512), np.uint8)
    with warned(code, match=re.escape(value)):
        found = registry.read(forge(data, tags=_field(width, height)))
    assert found.pixel_size_nm is None


def _tescan(text, shape):
    """Read a TESCAN's text as the tag of a TIFF."""
    return parse_tescan_header(f"PixelSizeX={text}", shape, "tag")


@given(st.text(max_size=200), st.integers(1, 5), st.integers(1, 5))
def test_parsers_never_fail_on_any_text(text, rows, columns):
    for parse in (parse_fei_header, parse_zeiss_header, _tescan):
        found = parse(text, (rows, columns))
        assert found.pixel_size_nm is None or min(found.pixel_size_nm) > 0
        assert 0 <= found.databar_rows < rows
