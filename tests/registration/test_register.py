"""Images of other contrast come onto each other, and only where they belong."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core import Micrograph, RegistrationError, run
from napari_semsr.registration import (
    Landmarks,
    RegistrationOptions,
    RegistrationRefused,
    register,
    register_landmarks,
    register_uncalibrated_images,
    rescale_pixel_size,
)
from tests.refusals import refused
from tests.two_views import PIXEL_NM, draw_views


def distances(found, truth, moving, fixed):
    """Distances in px between two maps over what both images show."""
    axes = [np.linspace(0, n - 1, 21) for n in moving.shape]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    places = grid * moving.scale + np.array(moving.origin)
    mapped = truth(places)
    end = np.array(fixed.shape) * fixed.scale
    inside = ((mapped > 0) & (mapped < end)).all(axis=1)
    off = found(places[inside]) - mapped[inside]
    return np.hypot(*off.T) / max(*moving.scale, *fixed.scale)


@pytest.fixture(scope="module")
def near():
    views = draw_views(192, degrees=-9.0, shift_nm=(90.0, -150.0), seed=3)
    return *views, run(register(*views[:2]))


def test_the_map_is_found_and_its_stated_error_is_of_the_true_ones_size(near):
    moving, fixed, truth, found = near
    off = distances(found.transform, truth, moving, fixed)
    assert off.max() < 0.5
    assert found.search_name == "near"
    assert found.mutual_information_after > 2 * found.mutual_information_before
    assert np.sqrt(np.mean(off**2)) < 3 * found.error_px
    assert found.error_px < 0.5
    assert found.error_nm == pytest.approx(found.error_px * 1.2 * PIXEL_NM)


@pytest.mark.broad
def test_edges_that_all_lie_off_bend_no_map():
    """As where light dims at a step, and what is bright is smaller all around."""
    moving, fixed, truth = draw_views(192, seed=4, eroded_px=2)
    elastic = RegistrationOptions(model="elastic")
    found = run(register(moving, fixed, elastic, start=truth))
    miss = distances(found.transform, truth, moving, fixed)
    assert np.median(miss) < 0.35
    assert miss.max() < 1


@pytest.mark.broad
def test_near_goes_on_to_full():
    turned = {"degrees": 35.0, "shift_nm": (90.0, -150.0)}
    moving, fixed, truth = draw_views(128, seed=5, **turned)
    found = run(register(moving, fixed))
    assert found.search_name == "full"
    assert distances(found.transform, truth, moving, fixed).max() < 0.5


@pytest.mark.broad
def test_the_pixel_size_that_an_image_lacks_is_found():
    moving, fixed, truth = draw_views(128, degrees=5.0, seed=4)
    small = rescale_pixel_size(moving, 1 / 40)  # as if a pixel had about 0.5 nm
    job = register_uncalibrated_images(small, fixed, unsized_role="moving")
    factor, found = run(job)
    assert factor == pytest.approx(40 * truth.scale, rel=0.006)
    assert found.transform.scale == pytest.approx(1, abs=0.006)
    resized = rescale_pixel_size(small, factor)
    corners = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    at, sides = (image.shape * np.array(image.scale) for image in (moving, resized))
    miss = found.transform(corners * sides) - truth(corners * at)
    assert np.abs(miss).max() < max(*resized.scale, *fixed.scale)


def test_landmarks_alone_are_evaluated_by_each_other():
    moving, fixed, truth = draw_views(128, degrees=5.0, seed=4)
    places = np.array([[300, 400], [2000, 500], [500, 2100], [2100, 2000], [1200, 900]])
    there = truth(places.astype(float))
    exact = register_landmarks(moving, fixed, Landmarks(places, there))
    assert distances(exact.transform, truth, moving, fixed).max() < 1e-6
    assert exact.error_px < 1e-6
    assert exact.search_name == "landmarks"
    assert exact.mutual_information_after > 2 * exact.mutual_information_before > 0
    assert 0.8 < exact.overlap < 1
    off = there + np.array([[30.0, -20], [-10, 25], [20, 15], [-25, 5], [5, -30]])
    found = register_landmarks(moving, fixed, Landmarks(places, off), "similarity")
    assert found.transform.is_similarity
    miss = distances(found.transform, truth, moving, fixed)
    assert 0.3 < np.sqrt(np.mean(miss**2)) / found.error_px < 3
    left_out = np.hypot(*found.residuals.off_nm.T)
    assert (left_out > np.hypot(*(found.transform(places) - off).T)).all()
    with refused(RegistrationRefused, "no-overlap"):
        register_landmarks(moving, fixed, Landmarks(places, there + 4000))


def test_a_pattern_that_repeats_is_refused_with_its_rivals():
    y, x = np.mgrid[:192, :192] * PIXEL_NM
    rng = np.random.default_rng(1)

    def seen(grey):
        return (grey + rng.normal(0, 5, grey.shape)).astype(np.uint8)

    dots = (np.cos(y * 2 * np.pi / 400) + np.cos(x * 2 * np.pi / 400) > 0.8) * 1.0
    grey = 40 + 150 * ndimage.gaussian_filter(dots, 1)
    size = (PIXEL_NM, PIXEL_NM)
    fixed = Micrograph(seen(grey), size)
    moving = Micrograph(seen(255 - grey)[20:165, 30:175], size)
    with pytest.raises(RegistrationRefused) as caught:
        run(register(moving, fixed))
    assert caught.value.reason == "ambiguous"
    shift = np.abs(caught.value.rivals[0].shift_nm)
    away = np.minimum(shift % 400, 400 - shift % 400)
    assert away.max() < 2 * PIXEL_NM


@pytest.mark.broad
def test_images_of_different_places_are_refused():
    moving, _, _ = draw_views(78, seed=6)
    _, fixed, _ = draw_views(78, seed=7)
    steps = []
    with refused(RegistrationRefused, "no-overlap"):
        run(register(moving, fixed), steps.append)
    counted = [step for step in steps if step.total]
    for _, search in itertools.groupby(counted, lambda step: step.message):
        done = [step.done for step in search]
        assert done == sorted(done)
    assert len({step.message for step in counted}) == 2


def test_empty_images_and_those_without_pixel_size_or_sides_are_refused(near):
    moving, fixed, _, _ = near
    noise = np.random.default_rng(2).normal(0, 1, moving.shape).astype(np.float32)
    for image, code in (
        (moving.replace(data=np.full(moving.shape, 7, np.uint8)), "no-structure"),
        (moving.replace(data=noise), "no-structure"),
        (moving.replace(pixel_size_nm=None), "pixel-size-missing"),
        (moving.replace(data=np.asarray(moving.data)[:40]), "image-too-small"),
    ):
        with refused(RegistrationError, code):
            run(register(image, fixed))


def test_a_resized_image_lies_where_it_did_in_pixels(near):
    moving = near[0].replace(pixel_size_nm=(10.0, 20.0), origin=(30.0, -50.0))
    resized = rescale_pixel_size(moving, 2.5)
    assert (resized.pixel_size_nm, resized.origin) == ((25.0, 50.0), (75.0, -125.0))
    assert resized.data is moving.data


def test_a_start_does_not_join_images_of_different_places():
    moving, _, truth = draw_views(seed=3)
    _, fixed, _ = draw_views(seed=8)
    with refused(RegistrationRefused, "no-overlap"):
        run(register(moving, fixed, start=truth))
