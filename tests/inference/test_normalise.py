import dask.array as da
import numpy as np
import pytest

from napari_semsr.core import Box, ReadError
from napari_semsr.inference.network_input import measure_scaling, read_window
from tests.refusals import refused


def test_constant_fields_rare_values_and_large_offsets_are_scaled():
    image = 1e9 + np.linspace(0, 1, 20).reshape(4, 5)
    seen = measure_scaling(image, (0, 100)).normalise(image)
    np.testing.assert_allclose(seen.ravel(), np.linspace(0, 1, 20), atol=0.2)
    scaling = measure_scaling(np.full((5, 5), 7, np.uint8), (0.1, 99.9))
    noise = np.random.default_rng(0).random((5, 5), dtype=np.float32)
    np.testing.assert_array_equal(scaling.restore(noise), 7)
    image = np.zeros((40, 40), np.uint8)
    image[3, 3] = 200
    scaling = measure_scaling(image, (1, 99))
    assert (scaling.low, scaling.high) == (0, 200)
    with refused(ReadError, "values-too-large"):
        measure_scaling(np.linspace(0, 1e300, 12).reshape(3, 4), (0.1, 99.9))


def test_missing_pixels_are_filled_alike_however_the_field_is_cut(rng):
    field = rng.random((90, 86)).astype(np.float32)
    field[rng.random(field.shape) < 0.2] = np.nan
    field[10:84, 8:82] = np.inf
    full, missing = read_window(field, Box(0, 92, 0, 88), 0.5)
    assert np.isfinite(full).all()
    assert full[47, 45] == np.float32(0.5)
    known = np.isfinite(field)
    np.testing.assert_array_equal(full[:90, :86][known], field[known])
    for part in (Box(4, 12, 0, 8), Box(80, 92, 76, 88), Box(20, 70, 20, 60)):
        filled, gone = read_window(da.from_array(field, chunks=7), part, 0.5)
        np.testing.assert_array_equal(filled, full[part.slices])
        np.testing.assert_array_equal(gone, missing[part.slices])


@pytest.mark.parametrize("grey", [10, -10])
def test_a_wide_gap_goes_on_with_what_lies_beside_it(grey):
    field = np.full((8, 120), grey, np.float32)
    field[:, 80:] = 200
    field[:, 30:80] = np.nan
    filled, _ = read_window(field, Box(0, 8, 0, 120), 90.0)
    np.testing.assert_array_equal(filled[:, :54], grey)
    np.testing.assert_array_equal(filled[:, 54:56], 90)
    np.testing.assert_array_equal(filled[:, 56:], 200)
