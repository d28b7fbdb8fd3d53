"""Landmarks give the transform that they were made with, and tell how sure it is."""

import numpy as np
import pytest

from napari_semsr.core import Affine, Grid, RegistrationError
from napari_semsr.registration import Landmarks, fit_landmarks
from tests.refusals import refused

SIMILAR = Affine.create_similarity(25, scale=1.3, shift=(400, -90), about=(5e5, 5e5))
SHEARED = Affine(((1.1, 0.2), (-0.1, 0.9)), (3e5, -40.0))
MIRRORED = Affine.create_similarity(140, scale=0.8, is_mirrored=True, shift=(1e4, 0))


def _places(count=8, seed=0):
    return np.random.default_rng(seed).uniform(0, 1e5, (count, 2)) + 4e5


def _pairs(transform, count=8, noise=0.0, seed=0):
    moving = _places(count, seed)
    error = np.random.default_rng(seed + 1).normal(0, noise, moving.shape)
    return Landmarks(moving, transform(moving) + error)


@pytest.mark.parametrize(
    ("transform", "model", "count"),
    [(SIMILAR, "similarity", 3), (MIRRORED, "similarity", 20), (SHEARED, "affine", 3)],
)
def test_exact_landmarks_give_back_their_transform(transform, model, count):
    fit = fit_landmarks(_pairs(transform, count), model)
    np.testing.assert_allclose(fit.transform.linear, transform.linear, atol=1e-9)
    found, true = fit.transform(_places()), transform(_places())
    np.testing.assert_allclose(found, true, atol=1e-4)
    assert fit.distances.max() < 1e-4
    assert fit.transform.is_mirrored is transform.is_mirrored


def test_a_similarity_of_sheared_landmarks_stays_one():
    fit = fit_landmarks(_pairs(SHEARED), "similarity")
    assert fit.transform.is_similarity
    assert fit.distances.max() > 100


def test_a_landmark_set_wrongly_stands_out_when_left_out():
    landmarks = _pairs(SIMILAR, 12, noise=5)
    landmarks.fixed[2] += (3000, -2000)
    fit = fit_landmarks(landmarks, "affine")
    assert np.argmax(fit.held_out_distances) == 2
    assert fit.held_out_distances[2] > 3000
    good = fit_landmarks(landmarks.remove_pair(2), "affine")
    missed = good.transform(landmarks.moving[2]) - landmarks.fixed[2]
    assert fit.held_out_distances[2] == pytest.approx(np.hypot(*missed))


@pytest.mark.parametrize(("model", "spare"), [("similarity", 4), ("affine", 2)])
def test_scatter_and_error_at_the_middle_follow_from_the_residuals(model, spare):
    square = np.array([[0.0, 0], [0, 100], [100, 0], [100, 100]])
    # what no map of a square can follow: opposite corners pulled to the same side
    pulled = square + np.array([[6.0, 0], [-6, 0], [-6, 0], [6, 0]])
    fit = fit_landmarks(Landmarks(square, pulled), model)
    assert fit.distances == pytest.approx([6, 6, 6, 6])
    scatter = np.sqrt(4 * 36 / spare)
    assert fit.scatter == pytest.approx(scatter)
    places = np.array([[50.0, 50.0], [50.0, 150.0], [110.0, 50.0]])
    # shift by the mean of four; turn and scale by both axes, or shear by one of them
    far = np.hypot(*(places - 50).T) / 50
    squares = 2 / 4 + 2 * far**2 / (8 if model == "similarity" else 4)
    assert fit.estimate_error(places) == pytest.approx(scatter * np.sqrt(squares))


def test_too_few_and_collinear_landmarks_are_refused():
    with refused(RegistrationError, "too-few-landmarks", match=" 3 .* 2"):
        fit_landmarks(_pairs(SIMILAR, 2), "similarity")
    along = np.linspace(0, 1e5, 5)
    moving = np.stack([2 * along, along + 7], axis=1)
    moving[1] += (200, -400)
    with refused(RegistrationError, "landmarks-on-line", match="5 landmarks"):
        fit_landmarks(Landmarks(moving, SIMILAR(moving)), "affine")


def test_landmarks_outside_their_image_are_refused():
    moving = Grid((100, 200), (10.0, 10.0), (0.0, 0.0))
    fixed = Grid((50, 50), (20.0, 20.0), (500.0, 0.0))
    places = np.array([[0.0, 0.0], [999.0, 1999.0], [500.0, 30.0]])
    there = np.array([[500.0, 0.0], [1499.0, 999.0], [700.0, 3.0]])
    Landmarks(places, there).check_bounds(moving, fixed)
    with refused(RegistrationError, "landmark-outside", match="Landmark 1 .* fixed"):
        Landmarks(places, there - 1).check_bounds(moving, fixed)


@pytest.mark.parametrize(
    ("moving", "fixed", "code"),
    [
        (np.zeros((3, 2)), np.zeros((4, 2)), "landmarks-unpaired"),
        (np.full((3, 2), np.nan), np.zeros((3, 2)), "landmarks-invalid"),
    ],
)
def test_what_are_no_pairs_are_refused(moving, fixed, code):
    with refused(RegistrationError, code):
        Landmarks(moving, fixed)


def test_a_place_that_was_set_twice_is_refused():
    landmarks = _pairs(SIMILAR, 6)
    landmarks.fixed[4] = landmarks.fixed[1] + 1
    with refused(RegistrationError, "landmarks-alike", match=" 2 and 5 .* fixed "):
        fit_landmarks(landmarks)
