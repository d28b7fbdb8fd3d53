"""The text files that JEOL, Hitachi and TESCAN write beside an image, or into it."""

import codecs
import re

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings, strategies as st

from napari_semsr.io import formats as registry
from tests.refusals import warned

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


def _encoded(grey, kind):
    if kind == "png":
        return imagecodecs.png_encode(grey)
    return imagecodecs.bmp_encode(grey)


@pytest.fixture
def write(tmp_path, grey):
    """Write an image with a text beside it, whole but for what is given."""

    def write(
        vendor,
        *,
        image="a.png",
        name=None,
        encoding="ascii",
        text=None,
        own=None,
        **what,
    ):
        path = tmp_path / image
        kind = image.rpartition(".")[2]
        if kind.lower().startswith("tif"):
            stated = {"imagej": True, "metadata": {"unit": "nm"}}
            stated |= {"resolution": own and (1 / own, 1 / own)}
            tifffile.imwrite(path, grey, **(stated if own else {"metadata": None}))
        else:
            path.write_bytes(_encoded(grey, kind))
        form, whole, _ = KINDS[vendor]
        said = form.format(**{**whole, **what}) if text is None else text
        mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
        beside = tmp_path / (name or BESIDE[vendor].format(kind))
        beside.write_bytes(mark + said.encode(encoding))
        return path

    return write


@pytest.fixture
def tagged(tmp_path, grey):
    """Write a TIFF whose tag begins with bytes that are no text, as TESCAN's does."""

    def write(**what):
        form, whole, _ = KINDS["TESCAN"]
        text = form.format(**{**whole, **what})
        data = b"\x00\x07\xff\x01\x00" + text.encode("cp1252") + b"\0"
        tags = [(50431, 7, len(data), data, True)]
        path = tmp_path / "tagged.tif"
        tifffile.imwrite(path, grey, extratags=tags, metadata=None)
        return path

    return write


def _is_calibrated(path, grey, vendor):
    info = registry.describe(path)
    assert info.vendor == vendor
    assert info.pixel_size_nm == KINDS[vendor][2]
    assert (info.databar_rows, info.shape) == (7, (30, 53))
    assert np.array_equal(registry.read(path).array(), grey[:30])
    assert np.array_equal(registry.read(path, crop_databar=False).array(), grey)


@pytest.mark.parametrize(
    ("vendor", "how"),
    [
        ("JEOL", {"image": "a.bmp"}),
        ("JEOL", {"name": "a.TXT", "pixel": "1 \u00b5m", "encoding": "latin-1"}),
        ("Hitachi", {"image": "a.tif"}),
        ("Hitachi", {"encoding": "utf-16"}),
        ("Hitachi", {"encoding": "utf-16-le"}),
        ("Hitachi", {"encoding": "utf-16-be"}),
        ("TESCAN", {}),
        ("TESCAN", {"image": "a.TIF", "name": "a-tif.hdr"}),
        ("TESCAN", {"image": "a.tiff"}),
        ("TESCAN", {"name": "a.hdr"}),
    ],
)
def test_sidecar_gives_pixel_size_and_data_bar(write, grey, vendor, how):
    path = write(vendor, **how)
    _is_calibrated(path, grey, vendor)
    assert registry.read(path).metadata[vendor.lower()]


_ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]
_GREEK, _SIGN = "\u03bcm", "\u00b5m"
_EAST, _WEST = "\u8a66\u6599", "f\u00fcr"
_PITCHES = {"JEOL": "1{}", "Hitachi": "0.001984375 {}", "TESCAN": "0.0074 {}"}


@pytest.mark.parametrize("vendor", KINDS)
@pytest.mark.parametrize(
    ("encoding", "micro", "title"),
    [
        *((encoding, _GREEK, _EAST) for encoding in _ENCODINGS),
        *((encoding, _SIGN, _WEST) for encoding in _ENCODINGS),
        ("shift_jis", _GREEK, _EAST),
        ("cp932", _GREEK, f"{_EAST} \uff71"),  # with katakana of half the width
        ("gb18030", _GREEK, _EAST),
        ("euc_jp", _GREEK, _EAST),
        ("cp1252", _SIGN, _WEST),
        ("latin-1", _SIGN, "\u00e9l\u00e8ve"),
    ],
)
def test_sidecar_may_have_any_encoding(write, vendor, encoding, micro, title):
    form, whole, size = KINDS[vendor]
    first, rest = form.format(
        **whole | {"pixel": _PITCHES[vendor].format(micro)}
    ).split("\r\n", maxsplit=1)
    line = f"$CM_TITLE {title}" if vendor == "JEOL" else f"Detector={title}"
    text = f"{first}\r\n{line}\r\n{rest}"
    for mark in (b"", codecs.BOM_UTF16_BE) if encoding == "utf-16-be" else (b"",):
        path = write(vendor)
        (path.parent / BESIDE[vendor].format("png")).write_bytes(
            mark + text.encode(encoding)
        )
        info = registry.describe(path)
        assert (info.vendor, info.databar_rows) == (vendor, 7)
        assert info.pixel_size_nm == pytest.approx(size)
        if encoding in (*_ENCODINGS, "shift_jis", "cp1252"):
            told = info.metadata[vendor.lower()]
            assert title in (told.get("$CM_TITLE"), told.get("Detector"))


_NEW_JEOL = "$CM_FORMAT JEOL\r\n$CM_IMAGE_SIZE 53 30\r\n{}\r\n"
_BAR = "$SM_MICRON_BAR 100\r\n$SM_MICRON_MARKER 1um"


@pytest.mark.parametrize(
    ("lines", "size"),
    [
        (f"$CM_PIXEL_SIZE 10.0nm\r\n{_BAR}", (10, 10)),
        ("$CM_PIXEL_SIZE 10.0nm", (10, 10)),
        ("$CM_PIXEL_SIZE 10.0 nm 12.5 nm", (12.5, 10)),  # of columns, then of rows
        ("$CM_PIXEL_SIZE 0.0125 um", (12.5, 12.5)),
        ("$CM_PIXEL_SIZE 910.5pm", (0.9105, 0.9105)),
        ("$CM_PIXEL_SIZE\t1.25e-8 m", (12.5, 12.5)),
        (_BAR, (10, 10)),
        (_BAR.replace("$SM_MICRON_BAR", "$$SM_MICRON_BAR"), (10, 10)),
        (f"$CM_PIXEL_SIZE 10.0\r\n{_BAR}", (10, 10)),  # of an unknown unit
        (
            f"$CM_PIXEL_SIZE 10nm\r\n{_BAR.replace('100', '98')}",
            (1000 / 98,) * 2,
        ),  # rounded more than the bar
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
        (
            "$CM_PIXEL_SIZE 10.0",
            7,
            "contains no pixel size with its unit \\(CM_PIXEL_SIZE '10.0'\\)",
        ),
        ("$CM_PIXEL_SIZE wide", 7, "contains .*left unknown"),
        (
            f"$CM_PIXEL_SIZE 20.0nm\r\n{_BAR}",
            7,
            "contains pixel sizes that differ.*'20.0nm'.*'1um'",
        ),
        (
            "$CM_PIXEL_SIZE 20nm\r\n$CM_PIXEL_SIZE 10nm",
            7,
            "contains pixel sizes that differ",
        ),
        (
            f"{_BAR}\r\n$$SM_MICRON_BAR 50",
            7,
            "contains .* differ \\(SM_MICRON_BAR '100'.*'50'",
        ),
        ("$CM_FULL_SIZE 53 25", 0, "states.*30 x 53 px and a full size of 25 x 53 px"),
        ("$CM_FULL_SIZE 80 30", 0, "states.*no data bar is cropped"),
    ],
)
def test_what_a_jeol_contradicts_is_unknown_and_said(write, lines, rows, said):
    info = registry.describe(write("JEOL", text=_NEW_JEOL.format(lines)))
    assert (info.pixel_size_nm, info.databar_rows) == (None, rows)
    (warning,) = info.metadata["warnings"]
    assert re.search(f"a.txt {said}", warning)


def test_full_size_of_a_jeol_may_include_the_bar(write):
    text = _NEW_JEOL.format("$CM_FULL_SIZE 53 37")
    assert registry.describe(write("JEOL", text=text)).databar_rows == 7


def test_tag_of_a_tescan_gives_the_same(tagged, grey):
    _is_calibrated(tagged(), grey, "TESCAN")
    assert registry.describe(tagged()).metadata["Device"] == "MIRA3"


@pytest.mark.parametrize(
    ("vendor", "how", "pitch"),
    [
        ("JEOL", {"frame": "106 70"}, 100.0),
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
        ("JEOL", {"frame": "106 60"}, 50, 37, _CUT, "60 x 106 px, .* 37 x 53 px"),
        ("JEOL", {"frame": "106 90"}, 50, 37, _CUT, "90 x 106 px"),
        ("Hitachi", {"frame": "106x60", "pixel": "2 nm"}, 2, 37, _CUT, " 2 nm"),
        ("JEOL", {"frame": "106 60", "own": 50}, 50, 37, _CUT, " 50 nm; "),
        ("JEOL", {"frame": "106 60", "own": 30}, 30, 37, _CUT, "30 nm .*a.txt: 50 nm"),
        ("JEOL", {"frame": "106 74", "own": 50}, 50, 37, _CUT, "74 x 106 px"),
        (
            "JEOL",
            {"own": 30},
            50,
            30,
            "pixel-size-contradicts",
            "30 nm, .*a.txt .*50 nm",
        ),
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
    assert registry.describe(path).metadata["warnings"] == [str(told[0].message)]
    assert registry.read(path, pixel_size_nm=5).shape == (rows, 53)  # nothing to tell


@pytest.mark.parametrize("vendor", KINDS)
@pytest.mark.parametrize("value", ["0", "nan", "-1e-9", "wide", "1e400"])
def test_a_bad_pixel_size_is_left_unknown_and_said(write, tagged, vendor, value):
    stated = NUMBERS[vendor].format(value)
    paths = [write(vendor, pixel=stated)]
    paths += [tagged(pixel=stated)] if vendor == "TESCAN" else []
    paths += [write(vendor, image="b.png", name="b.txt", bar=value)] * (
        vendor == "JEOL"
    )
    for path in paths:
        with warned("pixel-size-invalid"):
            found = registry.read(path)
        assert found.pixel_size_nm is None
        assert found.shape == (30, 53)
        assert "left unknown" in found.metadata["warnings"][0]


@pytest.mark.parametrize(
    ("vendor", "frames"),
    [
        ("JEOL", ["", "53", "53 99", "a b", "0 0", "53 -1"]),
        ("Hitachi", ["", "53", "53x99", "axb", "0x0", "53x-1"]),
        ("TESCAN", ["37", "900", "-3", "many", "", "1e1", "\u00b2"]),
    ],
)
def test_nothing_is_cropped_without_a_plausible_frame(write, vendor, frames):
    for frame in frames:
        path = write(vendor, frame=frame, encoding="utf-8")
        assert registry.describe(path).databar_rows == 0, frame


@pytest.mark.parametrize(
    ("vendor", "texts"),
    [
        ("JEOL", ["Shopping list\n- pizza\n", "$PRICE 5\n", "\0\xff"]),
        ("Hitachi", ["[TemImageFile]\nPixelSize=1\n", "PixelSize=1", ""]),
        ("TESCAN", ["ENVI\nsamples = 53\n", "", "PixelSize=3"]),
    ],
)
def test_texts_of_others_are_left_alone(write, vendor, texts):
    for text in texts:
        info = registry.describe(write(vendor, text=text, encoding="latin-1"))
        assert (info.vendor, info.pixel_size_nm) == (None, None), text


_LINES = st.builds(
    "{}{} {}".format,
    st.sampled_from(["$CM_PIXEL_SIZE", "$SM_MICRON_BAR", "$$SM_MICRON_MARKER"]),
    st.sampled_from(["", "\t", "X"]),
    st.text(max_size=12)
    | st.from_regex(r"[-+0-9.,e]{1,6} ?[nu\u00b5p]?m?", fullmatch=True),
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.binary(max_size=60) | st.lists(_LINES).map("\n".join).map(str.encode))
def test_no_text_beside_an_image_is_a_fault(write, text):
    path = write("JEOL")
    path.with_suffix(".txt").write_bytes(text)
    size = registry.describe(path).pixel_size_nm
    assert size is None or min(size) > 0
