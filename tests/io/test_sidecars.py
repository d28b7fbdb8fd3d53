"""The text files that JEOL, Hitachi and TESCAN write beside an image, or into it."""

import re

import imagecodecs
import numpy as np
import pytest
import tifffile

from napari_semsr import core
from napari_semsr.io import formats as registry
from tests.refusals import refused, warned

_JEOL = (
    "$CM_FORMAT JEOL-SEM\r\n$CM_MAG 5000\r\n$CM_FULL_SIZE {frame}\r\n"
    "$$SM_MICRON_BAR {bar}\r\n$$SM_MICRON_MARKER {pixel}\r\n"
)
_HITACHI = (
    "[SemImageFile]\r\nInstructName=SU8000\r\nDataSize={frame}\r\nPixelSize={pixel}\r\n"
    "AcceleratingVoltage=5000 Volt\r\n[Other]\r\nPixelSize=9\r\n"
)
_TESCAN = (
    "[MAIN]\r\nAccFrames=1\r\nDevice=MIRA3\r\nImageStripSize={frame}\r\n"
    "PixelSizeX={pixel}\r\nPixelSizeY=7.5e-9\r\n[SEM]\r\nHV=5000.0\r\n"
)
# text, what it says of an image whole, and what the pixel size is then
KINDS = {
    "JEOL": (_JEOL, {"frame": "53 30", "bar": "20", "pixel": "1um"}, (50.0, 50.0)),
    "Hitachi": (_HITACHI, {"frame": "53x30", "pixel": "1.984375"}, (1.984375,) * 2),
    "TESCAN": (_TESCAN, {"frame": "7", "pixel": "7.4e-09"}, (7.5, 7.4)),
}
BESIDE = {"JEOL": "a.txt", "Hitachi": "a.txt", "TESCAN": "a-{}.hdr"}
NUMBERS = {"JEOL": "{} um", "Hitachi": "{}", "TESCAN": "{}"}


@pytest.fixture
def write(tmp_path, grey):
    """Write an image with a text beside it, whole but for what is given."""

    def write(vendor, image="a.png", name=None, text=None, own=None, **what):
        path, (form, whole, _) = tmp_path / image, KINDS[vendor]
        kind = image.rpartition(".")[2]
        if kind.lower().startswith("tif"):
            stated = {"imagej": True, "metadata": {"unit": "nm"}}
            stated |= {"resolution": own and (1 / own, 1 / own)}
            tifffile.imwrite(path, grey, **(stated if own else {"metadata": None}))
        else:
            path.write_bytes(getattr(imagecodecs, f"{kind}_encode")(grey))
        beside = tmp_path / (name or BESIDE[vendor].format(kind))
        said = form.format(**{**whole, **what}) if text is None else text
        beside.write_bytes(said.encode("latin-1"))
        return path

    return write


@pytest.mark.parametrize(
    ("vendor", "how"),
    [
        ("JEOL", {"image": "a.bmp"}),
        ("JEOL", {"name": "a.TXT", "pixel": "1 \u00b5m"}),
        ("Hitachi", {"image": "a.tif"}),
        ("TESCAN", {}),
        ("TESCAN", {"image": "a.TIF", "name": "a-tif.hdr"}),
        ("TESCAN", {"name": "a.hdr"}),
    ],
)
def test_sidecar_gives_pixel_size_and_data_bar(write, grey, vendor, how):
    path = write(vendor, **how)
    info = registry.describe(path)
    assert (info.vendor, info.pixel_size_nm) == (vendor, KINDS[vendor][2])
    assert (info.databar_rows, info.shape) == (7, (30, 53))
    assert np.array_equal(registry.read(path).array(), grey[:30])
    assert np.array_equal(registry.read(path, crop_databar=False).array(), grey)


_NEW_JEOL = "$CM_FORMAT JEOL\r\n$CM_IMAGE_SIZE 53 30\r\n{}\r\n"
_BAR = "$SM_MICRON_BAR 100\r\n$SM_MICRON_MARKER 1um"


@pytest.mark.parametrize(
    ("lines", "size"),
    [
        ("$CM_PIXEL_SIZE 10.0 nm 12.5 nm", (12.5, 10)),  # of columns, then of rows
        ("$CM_PIXEL_SIZE 0.0125 um", (12.5, 12.5)),
        ("$CM_PIXEL_SIZE\t1.25e-8 m", (12.5, 12.5)),
        (_BAR, (10, 10)),
        (f"$CM_PIXEL_SIZE 10.0\r\n{_BAR}", (10, 10)),  # of an unknown unit
        # rounded more than the bar
        (f"$CM_PIXEL_SIZE 10nm\r\n{_BAR.replace('100', '98')}", (1000 / 98,) * 2),
        (f"$CM_PIXEL_SIZE 10.07nm\r\n{_BAR}", (10.07, 10.07)),
    ],
)
def test_newer_jeol_states_pixel_size_and_image(write, grey, lines, size):
    path = write("JEOL", text=_NEW_JEOL.format(lines))
    info = registry.describe(path)
    assert (info.vendor, info.databar_rows) == ("JEOL", 7)
    assert info.pixel_size_nm == pytest.approx(size)
    assert "warnings" not in info.metadata
    assert np.array_equal(registry.read(path).array(), grey[:30])


@pytest.mark.parametrize(
    ("lines", "rows", "said"),
    [
        ("$CM_PIXEL_SIZE 10.0", 7, "contains no pixel size with its unit"),
        ("$CM_PIXEL_SIZE wide", 7, "contains .*left unknown"),
        (f"$CM_PIXEL_SIZE 20.0nm\r\n{_BAR}", 7, "differ.*'20.0nm'.*'1um'"),
        (f"{_BAR}\r\n$$SM_MICRON_BAR 50", 7, r"differ \(SM_MICRON_BAR '100'.*'50'"),
        ("$CM_FULL_SIZE 53 25", 0, "states.*30 x 53 px and a full size of 25 x 53 px"),
    ],
)
def test_what_a_jeol_contradicts_is_unknown_and_said(write, lines, rows, said):
    info = registry.describe(write("JEOL", text=_NEW_JEOL.format(lines)))
    assert (info.pixel_size_nm, info.databar_rows) == (None, rows)
    (warning,) = info.metadata["warnings"]
    assert re.search(f"a.txt .*{said}", warning)


@pytest.mark.parametrize(
    ("vendor", "how", "pitch"),
    [
        ("JEOL", {"frame": "106 70", "image": "a.tif", "own": 100.4}, 100.0),
        ("Hitachi", {"frame": "106x70", "pixel": "2 nm"}, 4.0),
    ],
)
def test_sidecar_follows_a_resampled_image(write, vendor, how, pitch):
    found = registry.read(write(vendor, **how))
    assert found.pixel_size_nm == (pitch, pitch)
    assert found.shape == (35, 53)


_CUT = "header-of-other-size"


@pytest.mark.parametrize(
    ("vendor", "how", "pitch", "rows", "code", "values"),
    [
        ("JEOL", {"frame": "106 90"}, 50, 37, _CUT, "90 x 106 px, .* 37 x 53 px"),
        ("Hitachi", {"frame": "106x60", "pixel": "2 nm"}, 2, 37, _CUT, " 2 nm"),
        ("JEOL", {"frame": "106 60", "own": 50}, 50, 37, _CUT, " 50 nm; "),
        ("JEOL", {"frame": "106 60", "own": 30}, 30, 37, _CUT, "30 nm .*a.txt: 50 nm"),
        ("JEOL", {"own": 30}, 50, 30, "pixel-size-contradicts", "30 nm, .* 50 nm"),
    ],
)
def test_what_was_cut_out_keeps_pixels_and_rows(
    write, vendor, how, pitch, rows, code, values
):
    path = write(vendor, image="a.tif", **how)
    with warned(code, match=values) as told:
        found = registry.read(path)
    assert found.pixel_size_nm == pytest.approx((pitch, pitch))
    assert found.shape == (rows, 53)
    assert len(told) == 1
    assert registry.read(path, pixel_size_nm=5).shape == (rows, 53)  # nothing to tell


@pytest.mark.parametrize("vendor", KINDS)
@pytest.mark.parametrize("value", ["0", "nan", "-1e-9", "wide", "1e400"])
def test_a_bad_pixel_size_is_left_unknown_and_said(write, vendor, value):
    with warned("pixel-size-invalid"):
        found = registry.read(write(vendor, pixel=NUMBERS[vendor].format(value)))
    assert found.pixel_size_nm is None
    assert found.shape == (30, 53)


@pytest.mark.parametrize(
    ("vendor", "frames"),
    [
        ("JEOL", ["53", "53 99", "a b", "0 0", "53 -1"]),
        ("Hitachi", ["53", "53x99", "axb"]),
        ("TESCAN", ["37", "-3", "many", "\u00b2"]),
    ],
)
def test_nothing_is_cropped_without_a_plausible_frame(write, vendor, frames):
    for frame in frames:
        assert registry.describe(write(vendor, frame=frame)).databar_rows == 0, frame


@pytest.mark.parametrize(
    ("vendor", "text"),
    [
        ("JEOL", "Shopping list\n- pizza\n"),
        ("JEOL", "\0\xff"),
        ("Hitachi", "[TemImageFile]\nPixelSize=1\n"),
        ("TESCAN", "ENVI\nsamples = 53\n"),
    ],
)
def test_texts_of_others_are_left_alone(write, vendor, text):
    info = registry.describe(write(vendor, text=text))
    assert (info.vendor, info.pixel_size_nm) == (None, None)


def test_a_text_that_cannot_be_read_is_refused_and_not_left_out(write, monkeypatch):
    path = write("JEOL")

    def deny(place, open_file=core.open_file):
        if place.suffix == ".txt":
            raise PermissionError(13, "Permission denied", str(place))
        return open_file(place)

    monkeypatch.setattr(core, "open_file", deny)
    with refused(core.ReadError, "no-permission", match="a.txt"):
        registry.read(path)
