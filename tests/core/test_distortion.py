import numpy as np
import pytest

from napari_semsr import core


@pytest.mark.parametrize("amount", [0.2, 0.03, -0.01, -0.1])
def test_undistort_is_the_inverse(amount):
    places = np.indices((48, 64), float)
    back = core.undistort_positions(
        *core.distort_positions(*places, (48, 64), amount), (48, 64), amount
    )
    assert np.allclose(back, places, atol=1e-7)


def test_what_no_pixel_shows_is_told():
    y, x = core.undistort_positions(
        23.5, np.array([31.5, 63.0, 90.0]), (48, 64), -core.MAX_DISTORTION
    )
    assert np.isfinite(x).tolist() == np.isfinite(y).tolist() == [True, False, False]


def test_rim_displacement_is_the_slope_of_the_distortion():
    places, small = np.indices((48, 64), float), 1e-4 / 24
    more = core.distort_positions(*places, (48, 64), small)
    less = core.distort_positions(*places, (48, 64), -small)
    slope = (np.array(more) - np.array(less)) / 2e-4
    assert np.allclose(
        core.compute_radial_displacement(*places, (48, 64)), slope, atol=1e-6
    )


def test_a_distortion_is_that_of_the_same_pixels_in_a_frame_of_another_size():
    whole = core.FieldDistortion(amount=0.04, sd=0.002, shape=(100, 200))
    assert whole.centre_px == (0, 0)
    part = whole.adapt_to_shape((80, 50))
    assert (part.amount, part.sd, part.shape) == (0.01, 0.0005, (80, 50))
    for one, (y, x) in ((whole, (49.5, 99.5)), (part, (39.5, 24.5))):
        there = core.distort_positions(y - 20, x - 10, one.shape, one.amount)
        assert np.subtract(there, (y, x)) == pytest.approx([-20.16, -10.08])
    unknown = core.FieldDistortion(amount=0.04, sd=0.002)
    assert unknown.adapt_to_shape((80, 50)) is unknown
