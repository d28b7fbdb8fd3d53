"""Laws of laying a mosaic on its truth."""

import numpy as np
import pytest

from napari_semsr.core import crop_to_box
from napari_semsr.core.errors import ShapeError
from napari_semsr.core.grids import Box
from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.demonstration.runs import (
    compare_positions,
    find_measurable_box,
    resample_ground_truth,
)
from tests.refusals import refused


def test_place_truth_ignores_where_a_mosaic_starts(rng):
    true = rng.uniform(0, 300, (9, 2))
    nominal = true + rng.normal(0, 5, (9, 2))
    error = rng.normal(0, 0.02, (9, 2))
    start = np.array([7.5, -3.25])
    found = compare_positions(true + error + start, nominal + 40, true)
    np.testing.assert_allclose(found.solved_error_px, error - error.mean(0))
    stage = nominal - true
    np.testing.assert_allclose(found.nominal_error_px, stage - stage.mean(0))
    np.testing.assert_allclose(found.origin_px, -(error.mean(0) + start))


def test_place_truth_leaves_frames_without_a_place_out(rng):
    true = rng.uniform(0, 300, (5, 2))
    solved = true.copy()
    solved[2] = np.nan
    found = compare_positions(solved, true + 1, true)
    assert found.has_place.tolist() == [True, True, False, True, True]
    assert np.isnan(found.solved_error_px[2]).all()
    np.testing.assert_allclose(found.nominal_px, true)


@pytest.mark.parametrize("fine", [1, 2, 3])
def test_sample_truth_gives_the_mean_of_each_pixel(fine):
    """A tilted plane has the mean of a pixel in its centre, however it is cut."""
    origin = (3.4, -1.7)
    rows, columns = np.indices((60 * fine, 70 * fine)) / fine
    half = 0.5 - 0.5 / fine
    corner = np.array([-8.0, -9.0]) - half
    plane = 2.0 * (rows + corner[0]) + 0.5 * (columns + corner[1])
    drawn = Micrograph(
        plane.astype(np.float32),
        parse_pixel_size(20 / fine),
        origin=(corner[0] * 20, corner[1] * 20),
    )
    mosaic = Micrograph(np.zeros((40, 45), np.float32), parse_pixel_size(20))
    found = resample_ground_truth(drawn, mosaic, np.array(origin)).array()
    y, x = np.indices(mosaic.shape)
    expected = 2.0 * (y + origin[0]) + 0.5 * (x + origin[1])
    np.testing.assert_allclose(found[2:-2, 2:-2], expected[2:-2, 2:-2], atol=2e-3)


def test_gap_free_box_refuses_a_sieve():
    holes = np.ones((150, 150), bool)
    holes[::30, ::30] = False
    with refused(ShapeError, "gaps-everywhere", match="64 px"):
        find_measurable_box(holes)


def test_part_stays_where_it_is(rng):
    image = Micrograph(rng.random((40, 50)), parse_pixel_size((10, 20)), origin=(5, 7))
    box = Box(4, 20, 6, 30)
    part = crop_to_box(image, box)
    np.testing.assert_array_equal(part.array(), image.array()[box.slices])
    assert part.origin == (5 + 4 * 10, 7 + 6 * 20)
