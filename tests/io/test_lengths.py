"""Laws of lengths as files state them."""

import pytest
from hypothesis import given, strategies as st

from napari_semsr.io.read_image import (
    convert_to_nm,
    create_pixel_size,
    get_nm_per_unit,
    parse_length_nm,
    parse_metadata_length_nm,
)


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        ("nanometer", 1.0),
        ("um", 1e3),
        ("\u00b5m", 1e3),
        ("\u03bcm", 1e3),
        ("\\u00B5m", 1e3),
        ("\u00c2\u00b5m", 1e3),
        ("\ufffdm", 1e3),
        ("Microns", 1e3),
        ("micrometre", 1e3),
        ("m", 1e9),
        ("\u00c5", 0.1),
        ("angstrom", 0.1),
        ("inch", 2.54e7),
    ],
)
def test_unit_nm_knows_every_usual_spelling(unit, size):
    assert get_nm_per_unit(unit) == size


@pytest.mark.parametrize("unit", ["", "pixel", "px", "furlong", "s", "m/s"])
def test_unit_nm_refuses_what_is_no_length(unit):
    assert get_nm_per_unit(unit) is None


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


def test_to_nm_is_decimal():
    assert convert_to_nm("7.70833e-09", "m") == 7.70833


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("55.82 nm", 55.82),
        ("2.615 \u00b5m", 2615.0),
        ("10um", 10_000.0),
        ("910.5 pm", 0.9105),
        ("1,5 nm", 1.5),
        ("1,5 \u00b5m", 1500.0),
        ("0,500 nm", 0.5),
        ("1234,567 nm", 1234.567),
        ("2,6145 um", 2614.5),
        ("1,000 nm", None),
        ("2,500nm", None),
        ("+12,500 um", None),
        ("5.5e-8 m", 55.0),
        ("-3 nm", None),
        ("nan nm", None),
        ("5", None),
        ("nm", None),
        ("", None),
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


def test_pixel_size_needs_both_lengths():
    assert create_pixel_size((1.0, None)) is None
    assert create_pixel_size((1.0, 2.0)) == (1.0, 2.0)
