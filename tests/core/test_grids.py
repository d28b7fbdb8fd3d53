import itertools

import numpy as np
import pytest
from hypothesis import example, given, strategies as st
from hypothesis.extra import numpy as hnp

from napari_semsr.core import (
    Grid,
    GridImage,
    Micrograph,
    find_gap_free_box,
    parse_pixel_size,
)
from napari_semsr.core.grids import Box


def test_grid_of_an_image_starts_half_a_pixel_before_its_origin():
    image = Micrograph(np.zeros((4, 6)), parse_pixel_size((10, 20)), origin=(5, -30))
    grid = Grid.from_image(image)
    assert grid.corner == (0, -40)
    assert grid.end == (40, 80)
    assert grid.box_origin(Box(1, 2, 3, 4)) == (15, 30)
    assert grid.nearest_box((-21, 1), (38, 41)) == Box(-2, 4, 2, 4)
    assert grid.move((1, 2)).corner == (1, -38)


@given(
    target=st.integers(1, 40),
    source=st.integers(1, 40),
    pitches=st.tuples(*[st.sampled_from([1.0, 1.5, 2.0, 7.7])] * 2),
    corner=st.floats(-60, 60),
)
def test_common_pixels_lie_in_both_and_no_more_do(target, source, pitches, corner):
    one, other = pitches
    ours = Grid((target, 9), (one, one), (0.0, 0.0))
    theirs = Grid((source, 9 * 8), (other, other), (corner, 0.0))
    box = ours.covered_box(theirs)
    slack = 0.011 * one
    first = np.arange(target) * one
    inside = first >= corner - slack
    inside &= first + one <= corner + source * other + slack
    if box is None:
        assert inside.sum() <= 2
    else:
        assert inside[box.y0 : box.y1].all()
        assert box.y1 - box.y0 >= inside.sum() - 2
    assert ours.to_box(ours) == Box(0, target, 0, 9)


@pytest.mark.parametrize("pitch", [5.0, 10.0, 23.0])
def test_resampling_shows_every_place_where_it_is(pitch):
    source = Grid((120, 100), (10.0, 10.0), (100.0, -200.0))
    first, second = np.indices(source.shape, dtype=np.float64)
    target = Grid((9, 8), (pitch, pitch), (433.3, 71.7))
    laid = target.create_resampling(source)
    box = Box(0, 9, 0, 8)
    place = laid.source_region(box)
    made = [laid.resample(plane[place.slices], place, box) for plane in (first, second)]
    for axis, plane in enumerate(made):
        at = target.corner[axis] + (np.arange(target.shape[axis]) + 0.5) * pitch
        expected = (at - source.corner[axis]) / 10 - 0.5
        shown = plane[:, 0] if axis == 0 else plane[0]
        np.testing.assert_allclose(shown, expected, atol=0.02)


@given(
    hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)),
    st.integers(1, 3),
)
@example(np.array([[0, 1, 1, 0], [1] * 4, [1] * 4], bool), 1)
@example(np.array([[1] * 6, [0] * 6, *[[1] * 3 + [0] * 3] * 3], bool), 1)
def test_gap_free_box_is_the_largest_of_all_rectangles(covered, least):
    rows, columns = covered.shape
    areas = [
        (y1 - y0) * (x1 - x0)
        for y0, y1 in itertools.combinations(range(rows + 1), 2)
        for x0, x1 in itertools.combinations(range(columns + 1), 2)
        if min(y1 - y0, x1 - x0) >= least and covered[y0:y1, x0:x1].all()
    ]
    box = find_gap_free_box(covered, least=least)
    if box is None:
        assert not areas
    else:
        assert covered[box.slices].all()
        assert min(box.shape) >= least
        assert box.shape[0] * box.shape[1] == max(areas)


@pytest.mark.parametrize("pitch", [10.0, 13.7], ids=["own", "resampled"])
def test_a_part_of_an_area_lies_and_reads_as_it_does_in_the_whole(pitch, rng):
    image = Micrograph(rng.normal(size=(40, 50)), parse_pixel_size(10.0))
    area = GridImage.from_image(image, Grid((20, 24), (pitch, pitch), (25.0, 35.0)))
    assert area.is_resampled == (pitch != 10.0)
    box = Box(3, 11, 5, 19)
    part = area.crop(box)
    np.testing.assert_allclose(part.read(), area.read()[box.slices])
    assert part.grid.shape == box.shape
    assert part.grid.corner == pytest.approx((25 + 3 * pitch, 35 + 5 * pitch))
    inner = Box(1, 3, 2, 4)
    np.testing.assert_allclose(part.crop(inner).read(), part.read()[inner.slices])


def test_pixels_made_of_what_is_missing_are_missing(rng):
    grid = Grid((20, 24), (13.7, 13.7), (25.0, 35.0))

    def read(image):
        return GridImage.from_image(Micrograph(image, (10.0, 10.0)), grid).read()

    image = rng.normal(10, 1, (40, 50))
    whole = read(image)
    image[20, 25] = np.nan
    made = read(image)
    lost = np.isnan(made)
    assert 4 <= lost.sum() < 40
    rows, columns = np.nonzero(lost)
    y, x = (25 + 13.7 * (rows + 0.5)) / 10, (35 + 13.7 * (columns + 0.5)) / 10
    assert np.hypot(y - 21, x - 26).max() < 6  # the corner counts from pixel -0.5
    np.testing.assert_allclose(made[~lost], whole[~lost], atol=0.15)
    assert np.isnan(read(np.full((40, 50), np.nan))).all()
