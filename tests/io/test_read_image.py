"""Laws of lengths, grey values and data bars, as files state them."""

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, strategies as st

from napari_semsr.core import ReadError
from napari_semsr.io import detect_databar, parse_length_nm
from napari_semsr.io.read_image import (
    convert_to_grey,
    convert_to_nm,
    get_nm_per_unit,
    parse_metadata_length_nm,
)
from tests.refusals import refused, warned


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        *(("nanometer", 1.0), ("Microns", 1e3), ("micrometre", 1e3), ("m", 1e9)),
        *(("um", 1e3), ("\u00b5m", 1e3), ("\u03bcm", 1e3), ("\\u00B5m", 1e3)),
        *(("\u00c2\u00b5m", 1e3), ("\ufffdm", 1e3), ("\u00c5", 0.1), ("inch", 2.54e7)),
        *((other, None) for other in ("", "pixel", "px", "furlong", "s", "m/s")),
    ],
)
def test_unit_nm_knows_every_usual_spelling_of_lengths_alone(unit, size):
    assert get_nm_per_unit(unit) == size


@pytest.mark.parametrize(
    "value",
    ["nan", "-inf", "0", "-1", "text", "", "1e400", "1e999999999", None, b"", True],
)
def test_to_nm_turns_bad_numbers_into_none(value):
    assert convert_to_nm(value, "nm") is None


@given(st.floats(1e-3, 1e6))
def test_to_nm_keeps_every_digit_of_nanometres(value):
    assert convert_to_nm(value, "nm") == value
    assert convert_to_nm(repr(value), "nm") == value
    assert convert_to_nm("7.70833e-09", "m") == 7.70833


@pytest.mark.parametrize(
    ("text", "length"),
    [
        *(("55.82 nm", 55.82), ("2.615 \u00b5m", 2615.0), ("10um", 10_000.0)),
        *(("910.5 pm", 0.9105), ("5.5e-8 m", 55.0), ("1,5 \u00b5m", 1500.0)),
        *(("0,500 nm", 0.5), ("1234,567 nm", 1234.567), ("2,6145 um", 2614.5)),
        # a comma of thousands or of a fraction
        *(("1,000 nm", None), ("2,500nm", None), ("+12,500 um", None)),
        *(("-3 nm", None), ("nan nm", None), ("5", None), ("nm", None), ("", None)),
    ],
)
def test_parse_length_nm_reads_number_and_unit(text, length):
    assert parse_length_nm(text) == length


def test_parse_length_nm_takes_a_number_alone_where_its_unit_is_known():
    found = [parse_length_nm(text, "nm") for text in ("50", "1e3", "2 um", "nan")]
    assert found == [50.0, 1000.0, 2000.0, None]


@pytest.mark.parametrize(
    ("text", "length"), [("2,615 \u00b5m", 2615.0), ("55,82 nm", 55.82), ("1um", 1e3)]
)
def test_a_comma_of_a_microscope_is_that_of_a_fraction(text, length):
    assert parse_metadata_length_nm(text) == length


@pytest.fixture
def grey(rng):
    return rng.integers(0, 250, (12, 17)).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("lazy", [False, True])
def test_to_grey_of_equal_channels_is_the_channel(tmp_path, grey, channels, lazy):
    stored = np.stack([grey] * channels, axis=-1)
    if channels in (2, 4):
        stored[..., -1] = 255
    data = da.from_array(stored, chunks=(5, 6, -1)) if lazy else stored
    assert np.array_equal(
        np.asarray(convert_to_grey(tmp_path, data, colour="refuse")), grey
    )


def test_to_grey_tolerates_jpeg_rounding(tmp_path, grey):
    stored = np.stack([grey, grey + 1, grey + 2], axis=-1)
    found = convert_to_grey(tmp_path, stored, colour="refuse")
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - grey - 1).max() <= 1


def test_to_grey_refuses_colour_unless_asked(tmp_path, grey):
    stored = np.stack([grey, grey, 250 - grey], axis=-1)
    with refused(ReadError, "colour-image"):
        convert_to_grey(tmp_path, stored, colour="refuse")
    luma = convert_to_grey(tmp_path, stored, colour="luminance")
    wanted = 0.886 * grey.astype(float) + 0.114 * stored[..., 2]
    assert np.abs(luma - wanted).max() <= 0.51


def exported(rng, bar=0, frame=0, side=100):
    """Make a grey export in colour: a data bar with coloured letters, a frame."""
    stored = np.repeat(
        rng.integers(20, 230, (side, side, 1), dtype=np.uint8), 3, axis=2
    )
    if bar:
        stored[-bar:] = 0
        stored[6 - bar : 12 - bar, 8:90:4] = 255, 190, 0
    for edge in (np.s_[:frame], np.s_[:, :frame], np.s_[:, side - frame :]):
        stored[edge] = 0, 255, 0
    return stored


@pytest.mark.parametrize("frame", [1, 3])
def test_line_in_colour_along_the_border_is_told_and_read_as_grey(tmp_path, rng, frame):
    stored = exported(rng, frame=frame)
    with warned("border-coloured"):
        found = convert_to_grey(tmp_path / "a.png", stored, colour="refuse")
    inner = np.s_[frame:, frame:-frame]
    np.testing.assert_array_equal(found[inner], stored[..., 0][inner])
    with refused(ReadError, "colour-image"):
        convert_to_grey(tmp_path, exported(rng, frame=4), colour="refuse")


def test_bar_in_colour_below_a_grey_image_is_named(tmp_path, rng):
    stored = exported(rng, bar=18)
    with refused(ReadError, "databar-coloured", match=" 18 rows.*`databar_rows=18`"):
        convert_to_grey(tmp_path, stored, colour="refuse")
    found = convert_to_grey(tmp_path, stored[:-18], colour="refuse")
    np.testing.assert_array_equal(found, stored[:-18, :, 0])
    stored[40, 50] = 0, 0, 255  # colour in the image, too
    with refused(ReadError, "colour-image"):
        convert_to_grey(tmp_path, stored, colour="refuse")


def test_to_grey_compares_unsigned_channels_without_wrapping(tmp_path):
    stored = np.zeros((2, 2, 3), np.uint8)
    stored[..., 0] = 255
    with refused(ReadError, "colour-image", match="255 of 255"):
        convert_to_grey(tmp_path, stored, colour="refuse")


def _with_bar(image, rows, ground, letter):
    """Put a bar with letters below an image."""
    bar = np.full((rows, image.shape[1]), ground, image.dtype)
    bar[rows // 3 : rows // 3 + 8, 20:200:6] = letter
    return np.vstack([image, bar])


@pytest.fixture
def specimen(rng):
    rough = rng.normal(120, 30, (300, 320))
    return np.clip(rough, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("ground", "letter"), [(0, 255), (255, 0), (40, 240)])
@pytest.mark.parametrize("rows", [24, 60])
def test_suggest_databar_finds_the_first_row(specimen, rows, ground, letter):
    image = _with_bar(specimen, rows, ground, letter)
    found = detect_databar(image)
    assert abs(found - rows) <= 1
    floats = np.where(image == 7, np.nan, image)
    assert detect_databar(floats) == detect_databar(image.astype(">u2")) == found


def test_suggest_databar_takes_dark_lower_parts_and_slanted_edges_for_specimen(
    specimen,
):
    assert detect_databar(specimen) == 0
    rows, columns = np.indices(specimen.shape)
    slanted = np.where(rows > 250 + columns / 20, 0, specimen).astype(np.uint8)
    slanted[290:294, 20:200:6] = 255
    assert detect_databar(slanted) == 0
    specimen[250:] = 0
    assert detect_databar(specimen) == 0


@pytest.mark.parametrize("shape", [(1, 1), (200, 200)])
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_suggest_databar_is_calm_about_empty_images(shape, value):
    with np.errstate(all="ignore"):
        assert detect_databar(np.full(shape, value)) == 0
