"""Laws of the calibrated image."""

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, strategies as st

from napari_semsr.core.errors import OptionError, ReadError, ShapeError
from napari_semsr.core.micrograph import (
    DisplaySettings,
    InputRecord,
    Micrograph,
    Provenance,
    parse_pixel_size,
)
from tests.strategies import micrographs, pixel_sizes


@given(pixel_sizes(), st.floats(0.001, 1e6))
def test_parse_pixel_size_keeps_pairs_and_takes_one_number_for_both_axes(size, side):
    once = parse_pixel_size(size)
    assert once == size
    assert parse_pixel_size(once) == once
    assert parse_pixel_size(side) == (side, side)
    assert parse_pixel_size(None) is None


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    "value",
    [0, -1.0, NAN, (1.0, INF), (1.0, 2.0, 3.0), (), "wide", [[1.0, 2.0]]],
    ids=str,
)
def test_parse_pixel_size_refuses_what_is_no_length(value):
    with pytest.raises(OptionError, match="pixel size"):
        parse_pixel_size(value)


@pytest.mark.parametrize("shape", [(4,), (2, 4, 4), (0, 4), (4, 0)], ids=str)
def test_micrograph_refuses_what_is_no_image(shape):
    with pytest.raises(ShapeError, match="shape"):
        Micrograph(np.zeros(shape))


@given(micrographs())
def test_shape_type_scale_and_unit_are_those_of_data_and_calibration(micrograph):
    assert micrograph.shape == micrograph.data.shape
    assert micrograph.dtype == micrograph.data.dtype
    if micrograph.pixel_size_nm is None:
        assert micrograph.unit == "pixel"
        assert micrograph.scale == micrograph.spacing_px
        assert micrograph.mean_pixel_size_nm is None
    else:
        low, high = sorted(micrograph.pixel_size_nm)
        assert micrograph.unit == "nm"
        assert micrograph.scale == micrograph.pixel_size_nm
        assert low * (1 - 1e-9) <= micrograph.mean_pixel_size_nm <= high * (1 + 1e-9)


def test_lazy_data_stay_lazy_until_asked_for():
    values = np.arange(12, dtype=np.uint16).reshape(3, 4)
    lazy = Micrograph(da.from_array(values, chunks=2))
    assert lazy.is_lazy
    assert not Micrograph(values).is_lazy
    np.testing.assert_array_equal(lazy.array(), values)


def test_replace_leaves_the_original_alone_and_checks_the_pixel_size():
    before = Micrograph(np.zeros((3, 4)), parse_pixel_size(2), "a")
    after = before.replace(name="b", pixel_size_nm=5)
    assert (before.name, before.pixel_size_nm) == ("a", (2.0, 2.0))
    assert (after.name, after.pixel_size_nm) == ("b", (5.0, 5.0))
    assert after.data is before.data
    with pytest.raises(OptionError, match="pixel size"):
        Micrograph(np.zeros((3, 4))).replace(pixel_size_nm=-1)


@pytest.mark.parametrize(
    ("how", "origin"),
    [
        ({"pixel_size_nm": (4.0, 5.0)}, (20.0, 60.0)),
        ({"spacing_px": (2.0, 0.5)}, (40.0, 600.0)),
        ({}, (80.0, 300.0)),
    ],
    ids=["calibrated", "of a block map", "in pixels"],
)
def test_with_pixel_size_keeps_the_place_in_pixels(how, origin):
    image = Micrograph(np.zeros((3, 4)), origin=(8.0, 30.0), **how)
    found = image.with_pixel_size((10.0, 10.0))
    assert (found.pixel_size_nm, found.origin) == ((10.0, 10.0), pytest.approx(origin))
    assert image.with_pixel_size(None) is image


def test_the_error_of_a_pixel_size_is_kept_as_a_share():
    image = Micrograph(np.zeros((2, 2)), parse_pixel_size((10.0, 20.0)))
    assert image.pixel_size_sd_nm is None
    assert image.with_size_error(None) is image
    sure = image.with_size_error((0.1, 0.4))
    assert sure.pixel_size_sd_nm == pytest.approx((0.1, 0.4))
    finer = sure.replace(pixel_size_nm=parse_pixel_size((5.0, 5.0)))
    assert finer.pixel_size_sd_nm == pytest.approx((0.05, 0.1))
    assert sure.with_size_error(None).pixel_size_sd_nm is None
    bare = Micrograph(np.zeros((2, 2)))
    assert bare.pixel_size_sd_nm is None
    assert bare.with_size_error((0.1, 0.1)) is bare


def test_the_error_of_a_pixel_size_comes_from_the_step_that_stated_it():
    def step(inputs=(), **options):
        return Provenance(job="convert", inputs=inputs, options=options)

    def after(before, **options):
        source = InputRecord(role="image", name="a", provenance=before)
        other = InputRecord(role="image", name="b")
        return step((other, source), **options)

    def error(history):
        size = parse_pixel_size((10.0, 10.0))
        return Micrograph(np.zeros((2, 2)), size, provenance=history).pixel_size_sd_nm

    told = {"pixel_size_nm": (20.0, 20.0), "pixel_size_sd_nm": (0.2, 0.4)}
    assert error(step(**told)) == pytest.approx((0.1, 0.2))
    assert error(after(step(**told))) == pytest.approx((0.1, 0.2))
    assert error(after(step(reading=told), sigma=2)) == pytest.approx((0.1, 0.2))
    assert error(after(step(**told), pixel_size_nm=(10.0, 10.0))) is None
    assert error(step()) is None


@pytest.mark.parametrize("limits", [(1.0, 1.0), (2.0, 1.0), (0.0, np.inf)])
def test_contrast_limits_of_a_look_rise(limits):
    assert DisplaySettings(limits=(-1.0, 2.0)).limits == (-1.0, 2.0)
    with pytest.raises(ValueError, match="Contrast limits"):
        DisplaySettings(limits=limits)


MASK = np.eye(3, 4, dtype=bool)


@pytest.mark.parametrize("lazy", [False, True], ids=["numpy", "dask"])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float32", "float64"])
def test_what_a_mask_hides_is_unknown(dtype, lazy):
    values = np.ones((3, 4), dtype)
    masked = np.ma.array(values, mask=MASK, fill_value=values.dtype.type(0))
    image = Micrograph(da.from_array(masked) if lazy else masked)
    assert image.dtype.kind == "f"
    assert not isinstance(image.array(), np.ma.MaskedArray)
    np.testing.assert_array_equal(np.isnan(image.array()), MASK)
    np.testing.assert_array_equal(image.array()[~MASK], 1)


def test_a_mask_that_hides_nothing_leaves_values():
    masked = np.ma.array(np.ones((3, 4), np.uint8), mask=False)
    assert Micrograph(masked).dtype == np.uint8


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "S3", "object"])
@pytest.mark.parametrize("made", [np.ones, da.ones], ids=["numpy", "dask"])
def test_values_that_are_no_grey_values_are_refused(made, dtype):
    with pytest.raises(ReadError, match=r"real grey values, got .* in field"):
        Micrograph(made((3, 4)).astype(dtype), name="field")
