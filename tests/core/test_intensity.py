import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from napari_semsr.core.errors import OptionError
from napari_semsr.core.intensity import (
    contrast_limits,
    convert_dtype,
    estimate_noise_level,
    mark_clipped_pixels,
    measure_percentiles,
)
from tests.refusals import refused

TYPES = ["bool", "uint8", ">u2", "int32", ">f4", "float64"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("lazy", [False, True], ids=["numpy", "dask"])
def test_field_range_equals_numpy_percentiles(dtype, lazy):
    rng = np.random.default_rng(3)
    image = (rng.standard_normal((83, 61)) * 40 + 20).astype(dtype)
    data = da.from_array(image, chunks=(30, 17)) if lazy else image
    expected = np.percentile(image.astype(np.float64), [0.7, 98.3])
    np.testing.assert_allclose(
        measure_percentiles(data, 0.7, 98.3), expected, rtol=1e-6
    )


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, (7, 9), elements=st.floats(width=32)))
def test_field_range_ignores_what_is_not_finite(image):
    finite = image[np.isfinite(image)].astype(np.float64)
    found = measure_percentiles(image, 13, 82)
    if finite.size == 0:
        assert found == (0.0, 0.0)
        return
    slack = 1e-9 * float(np.abs(finite).max()) + 1e-45
    expected = np.percentile(finite, [13, 82])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=slack)


def test_field_range_is_not_misled_by_one_hot_pixel(rng):
    image = rng.random((64, 64)).astype(np.float32)
    image[5, 5] = 1e30
    expected = np.percentile(image, [1, 99])
    np.testing.assert_allclose(measure_percentiles(image, 1, 99), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float16"])
def test_to_dtype_round_trips_what_fits(dtype):
    image = np.arange(100).reshape(10, 10).astype(dtype)
    back, clipped = convert_dtype(image.astype(np.float32), dtype)
    assert back.dtype == dtype
    assert clipped == 0
    np.testing.assert_array_equal(back, image)


def test_to_dtype_rounds_clips_and_counts():
    image = np.array([-3.0, 0.5, 1.5, 254.6, 256.0, np.nan, np.inf], np.float32)
    result, clipped = convert_dtype(image, np.uint8)
    assert result.tolist() == [0, 0, 2, 255, 255, 0, 255]
    assert clipped == 4
    assert convert_dtype(np.array([-1, 300]), np.uint8)[0].tolist() == [0, 255]
    assert convert_dtype(np.array([1e9]), np.float16)[1] == 1
    assert convert_dtype(np.array([1e30]), np.int64)[0][0] > 9e18
    with refused(OptionError, "wrong-type", match="complex64"):
        convert_dtype(image, np.complex64)


def test_noise_level_is_that_of_white_noise_on_a_slope(rng):
    y, x = np.mgrid[:200, :300]
    image = 3.0 * y - 2.0 * x + rng.normal(0, 7, y.shape)
    image[50:60] = np.nan
    assert estimate_noise_level(image) == pytest.approx(7, rel=0.03)
    assert estimate_noise_level(3.0 * y[:, :1]) == 0
    assert np.isnan(estimate_noise_level(np.full((3, 3), np.nan)))


def test_contrast_limits_are_never_one_value():
    for data, limits in (
        (np.full((4, 4), 7, np.uint8), (0, 255)),
        (np.zeros((4, 4), bool), (0, 1)),
        (np.full((4, 4), np.nan), (0, 1)),
        (np.full((4, 4), 7.0), (7, 8)),
        (np.eye(64), (0, 1)),  # percentiles of one value give way to all values
    ):
        assert contrast_limits(data, 5, 95) == limits


def test_contrast_limits_look_at_a_sample(rng):
    image = rng.normal(size=(3000, 1500))
    seen = image[::3, ::2]
    assert contrast_limits(image) == tuple(np.percentile(seen, (0.1, 99.9)))
    lazy = da.from_array(image, chunks=500)
    middle = image[988:2012, 238:1262]
    assert contrast_limits(lazy) == tuple(np.percentile(middle, (0.1, 99.9)))


@pytest.mark.parametrize("scale", [1.0, 1 / 255])
def test_clipped_pixels_are_those_at_either_end_but_for_rounding(scale, rng):
    grey = rng.normal(100, 60, (80, 80))
    image = (np.clip(grey, 0, 255) * scale).astype(np.float32)
    image *= 1 + 2e-7 * rng.choice([-1, 0, 1], image.shape)
    # few are above white
    np.testing.assert_array_equal(mark_clipped_pixels(image, 0.03), grey <= 0)
    both = (grey <= 0) | (grey >= 255)
    np.testing.assert_array_equal(mark_clipped_pixels(image, 1e-3), both)
    assert not mark_clipped_pixels(grey).any()


def test_noise_on_a_large_offset_is_not_clipped(rng):
    image = 1e6 + np.minimum(rng.normal(0, 0.3, (60, 70)), 1.0)
    assert not mark_clipped_pixels(image).any()
    image[:, :9] = image.max()
    np.testing.assert_array_equal(mark_clipped_pixels(image), image == image.max())
