"""Laws of discs that are put in and taken out, and of the judgement on them."""

import numpy as np
import pytest
from _discs import DiscPositions, Discs, DiscTrial, measure_local_contrast
from scipy import ndimage

PLACES = Discs(
    np.array([[30.0, 30.0], [40.5, 80.5], [90.0, 60.0]]), np.array([3.0, 4.0, 6.0])
)


@pytest.fixture
def blobs(rng):
    """A smooth ground with many round blobs of 3 to 6 px."""
    image = 100 + 3 * rng.standard_normal((192, 192))
    y, x = np.mgrid[:192, :192]
    for number in range(64):
        cy, cx = 14 + 23 * (number // 8), 14 + 23 * (number % 8)
        radius = 3 + number % 4
        image += 60 * np.clip(radius + 0.5 - np.hypot(y - cy, x - cx), 0, 1)
    return image


def test_an_insertion_adds_its_step_to_the_contrast(rng):
    image = rng.uniform(0, 255, (128, 128))
    steps = np.array([20.0, -15.0, 7.0])
    made = PLACES.insert_into(image, steps)
    gained = PLACES.measure_contrast(made) - PLACES.measure_contrast(image)
    assert gained == pytest.approx(steps)


def test_choose_places_finds_plain_ground_and_blobs(blobs, rng):
    places = DiscPositions.choose(blobs, (8, 8), rng)
    assert len(places.inserted_discs) == len(places.erased_discs) == 8
    contrast = measure_local_contrast(blobs)

    def half(discs):
        return 0.5 * contrast[tuple(discs.centres.astype(int).T)]

    away = places.inserted_discs.measure_contrast(blobs) / half(places.inserted_discs)
    assert np.abs(away).max() < 0.3
    gone = places.erased_discs.erase_from(blobs)
    lost = places.erased_discs.measure_contrast(
        blobs
    ) - places.erased_discs.measure_contrast(gone)
    assert np.all(np.abs(lost) > 0.8 * half(places.erased_discs))


@pytest.fixture(scope="module")
def trial():
    """A textured truth in which discs were put in and taken out."""
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.standard_normal((256, 256)), 2.2)
    image = 128 + 40 * image / image.std()
    places = DiscPositions.choose(image, (10, 10), rng)
    made = DiscTrial.from_truths(image, places.apply_changes(image, rng), places)
    assert len(made.places.inserted_discs) >= 8
    assert len(made.places.erased_discs) >= 4
    return made


def shares(trial, image):
    found = trial.find_shown_discs(image)
    return found["inserted"].mean(), found["erased"].mean()


@pytest.mark.parametrize(("gain", "offset"), [(1, 0), (-3, 7)])
def test_the_truth_is_right_and_the_original_wrong_in_any_grey_scale(
    trial, gain, offset
):
    assert shares(trial, gain * trial.with_changes + offset) == (1, 1)
    assert shares(trial, gain * trial.original + offset) == (0, 0)
    flat = np.full_like(trial.with_changes, 3.0 + offset)  # which shows nothing
    assert shares(trial, flat) == (0, 1)
    assert shares(trial, np.nextafter(flat, trial.with_changes)) == (0, 1)


def test_false_texture_does_not_pass_for_showing_nothing(trial, rng):
    false = ndimage.gaussian_filter(rng.standard_normal(trial.with_changes.shape), 2.2)
    false *= trial.original.std() / false.std()
    assert shares(trial, trial.original + false)[1] < 0.6


@pytest.mark.parametrize(("share", "told"), [(0.3, False), (0.37, True)])
def test_a_disc_is_told_from_a_third_of_the_local_contrast(trial, share, told):
    inserted, original = trial.places.inserted_discs, trial.original
    local = measure_local_contrast(original)[inserted.pixel_indices]
    plain = np.abs(inserted.measure_contrast(original)) < 0.1 * local
    assert plain.sum() >= 4
    discs, none = inserted.select(plain), inserted.select(np.zeros_like(plain))
    changed = discs.insert_into(original, share * local[plain])
    kept = DiscTrial.from_truths(original, changed, DiscPositions(discs, none))
    assert len(kept.places.inserted_discs) == (len(discs) if told else 0)
