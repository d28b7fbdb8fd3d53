"""Laws of the levels of a pyramid."""

import itertools

import numpy as np
import pytest
from hypothesis import given

from napari_semsr.io import read
from napari_semsr.io.zarr.store import (
    compute_pyramid_shapes,
    create_store,
    downsample_block,
)
from tests.strategies import images, shapes


@given(shapes(1, 5000))
def test_level_shapes_halve_until_small(shape):
    found = compute_pyramid_shapes(shape, smallest=256)
    assert found[0] == shape
    assert max(found[-1]) <= 256
    for (rows, columns), (fewer, narrower) in itertools.pairwise(found):
        assert fewer == -(-rows // 2)
        assert narrower == -(-columns // 2)


@given(images())
def test_halve_keeps_type_and_range(image):
    small = downsample_block(image)
    assert small.dtype == image.dtype
    assert small.shape == tuple(-(-n // 2) for n in image.shape)
    assert small.min() >= image.min() - 1e-3
    assert small.max() <= image.max() + 1e-3


def test_halve_averages_two_by_two():
    image = np.arange(16, dtype=np.float32).reshape(4, 4)
    assert np.array_equal(downsample_block(image), [[2.5, 4.5], [10.5, 12.5]])


def test_halve_leaves_nan_out_of_the_mean():
    image = np.array([[1, np.nan, np.nan, np.nan], [3, 2, np.nan, np.nan]], "f4")
    small = downsample_block(image)
    assert small[0, 0] == 2
    assert np.isnan(small[0, 1])


def test_halve_decides_booleans_by_majority():
    image = np.array([[True, True, False, False], [True, False, False, True]])
    assert np.array_equal(downsample_block(image), [[True, False]])


def test_halve_is_exact_for_large_integers():
    image = np.full((2, 2), 2**31 - 1, dtype=np.int32)
    assert downsample_block(image)[0, 0] == 2**31 - 1


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_a_level_begins_at_the_centre_of_what_is_averaged(level, tmp_path):
    path, place = tmp_path / "image.ome.zarr", {"origin": (7.0, 0.0)}
    store = create_store(
        path, shape=(64, 8), dtype="u1", chunk=8, pixel_size_nm=(5.0, 1.0), **place
    )
    list(store.fill((np.zeros((8, 8), "u1") for _ in store.pending_units()), "filling"))
    list(store.finish())
    rows = np.arange(2**level) * 5.0 + 7.0
    assert read(path, level=level).origin[0] == rows.mean()
