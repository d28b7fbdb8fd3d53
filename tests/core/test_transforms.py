import dataclasses

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import interpolate

from napari_semsr.core import Affine, BSplineDisplacement, Elastic, OptionError
from tests.refusals import refused

ALL = [
    Affine.create_similarity(
        33, scale=1.7, is_mirrored=True, shift=(5, -8), about=(40, 90)
    ),
    Affine(((1.1, 0.3), (-0.1, 0.8)), (-3.0, 70.0)),
]


def _places(count=50, extent=400.0, seed=0):
    return np.random.default_rng(seed).uniform(-extent / 4, extent, (count, 2))


def _bending(strength=4.0, shape=(7, 9), spacing=(50.0, 40.0), seed=3):
    rng = np.random.default_rng(seed)
    return BSplineDisplacement(
        (-10.0, 20.0), spacing, rng.normal(0, strength, (2, *shape))
    )


def affines():
    return st.builds(
        Affine.create_similarity,
        st.floats(-179, 179),
        scale=st.floats(0.2, 5),
        is_mirrored=st.booleans(),
        shift=st.tuples(*[st.floats(-1e4, 1e4)] * 2),
        about=st.tuples(*[st.floats(-1e3, 1e3)] * 2),
    )


@given(one=affines(), two=affines(), three=affines())
def test_affine_maps_are_a_group(one, two, three):
    places = _places()
    np.testing.assert_allclose(one.inverse()(one(places)), places, atol=1e-6)
    np.testing.assert_allclose(one.compose(two)(places), two(one(places)), atol=1e-5)
    left, right = one.compose(two).compose(three), one.compose(two.compose(three))
    np.testing.assert_allclose(left(places), right(places), atol=1e-4)
    back = one.compose(two).inverse()
    other = two.inverse().compose(one.inverse())
    np.testing.assert_allclose(back(places), other(places), atol=1e-4)


@given(degrees=st.floats(-179, 179), scale=st.floats(0.1, 10), mirrored=st.booleans())
def test_turn_scale_and_mirror_are_read_as_they_were_set(degrees, scale, mirrored):
    made = Affine.create_similarity(
        degrees, scale=scale, is_mirrored=mirrored, about=(7, 3)
    )
    assert made.degrees == pytest.approx(degrees, abs=1e-9)
    assert made.scale == pytest.approx(scale)
    assert made.is_mirrored is mirrored
    assert made.is_similarity
    np.testing.assert_allclose(made(np.array([7.0, 3.0])), [7, 3], atol=1e-9)


def test_an_affine_map_that_cannot_be_inverted_is_refused():
    for matrix, shift in (
        (((1.0, 2.0), (2.0, 4.0)), (0.0, 0.0)),
        (((1.0, np.nan), (0.0, 1.0)), (0.0, 0.0)),
        (((1.0, 0.0), (0.0, 1.0)), (np.inf, 0.0)),
    ):
        with refused(OptionError, "transform-invalid"):
            Affine(matrix, shift)


def test_a_bending_is_the_b_spline_of_its_coefficients():
    bending = _bending()
    rows, columns = bending.coefficients.shape[1:]
    # knots (0, 0) to (6, 8) need one more coefficient on each side: those mirrored
    padded = np.pad(bending.coefficients, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    knots = tuple(np.arange(-3.0, n + 3) for n in (rows, columns))
    at = np.random.default_rng(5).uniform(0, [rows - 1, columns - 1], (200, 2))
    places = at * bending.spacing + bending.origin
    expected = [interpolate.NdBSpline(knots, plane, 3)(at) for plane in padded]
    np.testing.assert_allclose(
        bending.displacement(places), np.stack(expected, axis=-1), atol=1e-10
    )
    np.testing.assert_allclose(bending(places) - places, np.stack(expected, axis=-1))


@pytest.mark.parametrize("strength", [0.5, 4.0, 12.0])
@pytest.mark.parametrize("affine", ALL, ids=["similarity", "affine"])
def test_a_bend_that_does_not_fold_is_inverted(affine, strength):
    elastic = Elastic(affine, _bending(strength))
    assert elastic.bending.min_jacobian() > 0.05
    places = _places(400)
    back = elastic.inverse()
    np.testing.assert_allclose(back(elastic(places)), places, atol=2e-5)
    np.testing.assert_allclose(elastic(back(places)), places, atol=2e-5)
    assert back.inverse() is elastic


def test_a_bend_that_folds_is_not_inverted():
    folded = _bending(40.0)
    assert folded.min_jacobian() < 0
    assert folded.has_folds
    for places in (_places(), np.array([-1e4, -1e4])):
        with refused(OptionError, "transform-folds"):
            folded.apply_inverse(places)


def test_a_bending_that_is_none_is_refused():
    for changes in (
        {"coefficients": np.zeros((3, 4, 4))},
        {"coefficients": np.zeros((2, 1, 4))},
        {"coefficients": np.full((2, 4, 4), np.nan)},
        {"spacing": (0.0, 1.0)},
        {"origin": (np.nan, 0.0)},
    ):
        with refused(OptionError, "transform-invalid"):
            dataclasses.replace(_bending(), **changes)
