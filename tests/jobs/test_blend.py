"""What lies between two images: blends and differences, in memory and lazy."""

import dask.array as da
import numpy as np
import pytest

from napari_semsr.core import Micrograph, ShapeError, parse_pixel_size, run
from napari_semsr.io import downsample_block
from napari_semsr.jobs import blend_levels, resample_levels, subtract_images
from tests.refusals import refused

TEN = parse_pixel_size(10.0)


@pytest.fixture
def before(rng):
    return Micrograph(rng.integers(0, 200, (60, 80)).astype(np.uint8), TEN, "before")


def drawn(shape, size):
    """A smooth scene whose first corner is the same at every pixel size."""
    y, x = ((np.indices(shape) + 0.5) * size).astype(np.float32)
    data = 100 + 50 * np.sin(y / 70) * np.cos(x / 90)
    origin = ((size - 10) / 2,) * 2
    return Micrograph(data, parse_pixel_size(size), f"{size} nm", origin=origin)


def levels_of(image):
    return [image.data, downsample_block(image.data)]


@pytest.mark.parametrize("lazy", ["neither", "first", "second"])
def test_a_blend_mixes_level_by_level(before, rng, lazy):
    after = before.replace(data=rng.normal(100, 20, before.shape).astype(np.float32))
    first, second = levels_of(before), levels_of(after)
    expected = [
        0.75 * one.astype(float) + 0.25 * two
        for one, two in zip(first, second, strict=True)
    ]
    if lazy == "first":
        first = [da.from_array(level, 16) for level in first]
    if lazy == "second":
        second = [da.from_array(level, 25) for level in second]
    mixed = blend_levels(first, second, 0.25)
    assert all(hasattr(level, "dask") == (lazy != "neither") for level in mixed)
    for made, wanted in zip(mixed, expected, strict=True):
        np.testing.assert_allclose(np.asarray(made), wanted, rtol=1e-5)


def test_a_whole_blend_is_the_second_image_and_integers_are_rounded(before):
    brighter = [level + np.uint8(5) for level in levels_of(before)]
    assert blend_levels(levels_of(before), brighter, 1.0)[0] is brighter[0]
    half = blend_levels(levels_of(before), brighter, 0.5)[0]
    assert half.dtype == np.uint8
    assert set(np.unique(half.astype(int) - before.data)) <= {2, 3}


def test_an_image_is_drawn_in_the_pixels_of_what_was_made_of_it():
    coarse, fine = drawn((60, 80), 10.0), drawn((120, 160), 5.0)
    first, second = run(resample_levels(coarse, (), fine, levels_of(fine)))
    inner = np.s_[4:-4, 4:-4]
    np.testing.assert_allclose(first[inner], fine.data[inner], atol=0.5)
    np.testing.assert_allclose(second[inner], coarse.data[inner], atol=0.5)
    assert second.shape == coarse.shape


@pytest.mark.parametrize("lazy", [False, True])
def test_a_difference_is_taken_where_both_lie(before, lazy):
    shifted = before.replace(
        data=before.data[10:, 20:].astype(np.int16) + 7, origin=(100.0, 200.0)
    )
    if lazy:
        shifted = shifted.replace(data=da.from_array(shifted.data, 16))
    found = subtract_images(before, shifted)
    assert found.shape == (50, 60)
    assert found.origin == (100.0, 200.0)
    assert found.data.dtype == np.float32
    np.testing.assert_allclose(np.asarray(found.data), 7)
    assert found.provenance.job == "difference"
    assert {item.role for item in found.provenance.inputs} == {"minuend", "subtrahend"}


def test_a_difference_lies_on_the_coarser_pixels():
    coarse, fine = drawn((60, 80), 10.0), drawn((120, 160), 5.0)
    brighter = fine.replace(data=fine.data + 3)
    for pair, rest in (((coarse, brighter), 3), ((brighter, coarse), -3)):
        found = subtract_images(*pair)
        assert found.pixel_size_nm == TEN
        assert (found.shape, found.origin) == ((60, 80), (0.0, 0.0))
        inner = np.asarray(found.data)[2:-2, 2:-2]
        np.testing.assert_allclose(inner, rest, atol=0.5)


def test_images_of_two_places_or_of_no_size_have_no_difference(before):
    with refused(ShapeError, "no-overlap"):
        subtract_images(before, before.replace(origin=(5000.0, 0.0)))
    bare = before.replace(pixel_size_nm=None, name="bare")
    with refused(ShapeError, "pixel-size-missing", match="'bare'"):
        subtract_images(bare, before)
