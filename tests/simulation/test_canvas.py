"""Laws of drawing in nanometres."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from napari_semsr.simulation.canvas import (
    Canvas,
    compute_box_distance,
    compute_coverage,
)


@given(at=st.floats(-40, 40), sidewall=st.floats(0, 30), pixel=st.floats(1, 30))
def test_cover_is_the_mean_over_the_pixel(at, sidewall, pixel):
    parts = 8
    inner = at + ((np.arange(parts) + 0.5) / parts - 0.5) * pixel
    fine = compute_coverage(inner, sidewall, pixel / parts).mean()
    assert compute_coverage(np.array(at), sidewall, pixel) == pytest.approx(
        fine, abs=1e-5
    )


def test_cover_falls_over_the_edge_and_box_distance_is_round_at_corners():
    assert compute_coverage(np.array([-50.0, 0.0, 50.0]), 10, 8) == pytest.approx(
        [1, 0.5, 0]
    )
    found = compute_box_distance(
        np.array([0.0, 0.0, 13.0]), np.array([0.0, 9.0, 9.0]), (10, 5)
    )
    assert found == pytest.approx([-5, 4, 5])


def test_what_lies_around_holds_the_shape_and_is_nothing_off_the_canvas():
    canvas = Canvas((50, 40), 10.0, 12.0)
    ((box, dy, dx),) = canvas.iterate_window((100.0, 200.0), 30.0, 30.0)
    y, x = canvas.get_pixel_centres()
    assert np.array_equal(dy, y[box[0]] - 100)
    assert np.array_equal(dx, x[:, box[1]] - 200)
    assert dy.min() < -30
    assert dy.max() > 30
    assert list(canvas.iterate_window((-200.0, 0.0), 30.0)) == []


def test_rough_relief_is_the_same_at_any_pixel_size_and_has_unit_variance():
    coarse = Canvas((24, 30), 20.0, 0.0).create_relief(80.0, np.random.default_rng(1))
    fine = Canvas((120, 150), 4.0, 0.0).create_relief(80.0, np.random.default_rng(1))
    binned = fine.reshape(24, 5, 30, 5).mean(axis=(1, 3))
    assert np.abs(binned - coarse).max() < 0.02
    relief = Canvas((200, 200), 10.0, 0.0).create_relief(20.0, np.random.default_rng(0))
    assert relief.std() == pytest.approx(1, abs=0.05)
    assert abs(relief.mean()) < 0.1
