"""Laws of discs that are put in and taken out, and of the judgement on them."""

import numpy as np
import pytest
from _discs import (
    MARGIN_PX,
    RADII_PX,
    DiscPositions,
    DiscResult,
    Discs,
    DiscTrial,
    count_discs,
    measure_local_contrast,
)
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


def test_an_erasure_undoes_an_insertion_on_a_plane():
    y, x = np.mgrid[:128, :128]
    plane = 0.3 * y - 0.2 * x + 50
    made = PLACES.insert_into(plane, np.array([20.0, -15.0, 7.0]))
    assert PLACES.erase_from(made) == pytest.approx(plane)


def test_an_erasure_stays_between_the_values_of_the_rim(rng):
    image = rng.uniform(0, 255, (128, 128))
    made = PLACES.erase_from(image)
    y, x = np.mgrid[:128, :128]
    for (cy, cx), radius in zip(PLACES.centres, PLACES.radii, strict=True):
        away = np.hypot(y - cy, x - cx)
        rim = image[(away > radius + 0.5) & (away <= radius + 2)]
        inside = made[away <= radius + 0.5]
        assert rim.min() <= inside.min() <= inside.max() <= rim.max()


def test_discs_on_a_finer_grid_cover_the_same_place():
    fine = np.zeros((256 + 20, 256 + 20))
    made = PLACES.to_grid(2, 10).insert_into(fine, np.ones(3))
    inner = made[10:-10, 10:-10].reshape(128, 2, 128, 2).mean((1, 3))
    coarse = PLACES.insert_into(np.zeros((128, 128)), np.ones(3))
    assert PLACES.measure_contrast(inner) == pytest.approx(1, abs=0.01)
    assert inner == pytest.approx(coarse, abs=0.35)
    assert inner.sum() == pytest.approx(coarse.sum(), rel=0.02)


def test_local_contrast_of_two_levels_is_their_distance():
    image = np.zeros((96, 96))
    image[::2] = 40
    assert measure_local_contrast(image) == pytest.approx(40)


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


def test_choose_places_keeps_discs_apart_and_off_the_border(blobs, rng):
    places = DiscPositions.choose(blobs, (20, 20), rng)
    centres = np.vstack([places.inserted_discs.centres, places.erased_discs.centres])
    radii = np.concatenate([places.inserted_discs.radii, places.erased_discs.radii])
    assert set(radii) <= set(RADII_PX)
    assert centres.min() >= MARGIN_PX
    assert centres.max() < 192 - MARGIN_PX
    away = np.hypot(*(centres[:, None] - centres[None]).transpose(2, 0, 1))
    reach = 2 * radii + 1
    np.fill_diagonal(away, np.inf)
    assert np.all(away > reach[:, None] + reach[None])


def test_choose_places_does_so_in_any_grey_scale(blobs):
    plain, other = (
        DiscPositions.choose(image, (6, 6), np.random.default_rng(0))
        for image in (blobs, 0.01 * blobs - 3)
    )
    for change in ("inserted", "erased"):
        one, two = getattr(plain, f"{change}_discs"), getattr(other, f"{change}_discs")
        assert len(one) == 6
        np.testing.assert_array_equal(one.centres, two.centres)


@pytest.mark.parametrize("shape", [(192, 192), (40, 300)])
def test_choose_places_finds_none_without_contrast_or_room(shape, rng):
    image = np.zeros(shape) if shape[0] > 48 else rng.uniform(0, 255, shape)
    places = DiscPositions.choose(image, (5, 5), rng)
    assert len(places.inserted_discs) == len(places.erased_discs) == 0


def test_discs_keep_within_bounds(blobs, rng):
    places = DiscPositions.choose(blobs, (8, 0), rng)

    def steps(*bounds):
        changed = places.apply_changes(blobs, rng, *bounds)
        return places.inserted_discs.measure_contrast(
            changed
        ) - places.inserted_discs.measure_contrast(blobs)

    dark = steps((0, 101))
    assert np.all(dark < 0)
    assert np.abs(steps()) == pytest.approx(np.abs(dark))


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


def test_a_trial_drops_discs_that_made_no_difference(trial):
    centres = np.vstack([trial.places.inserted_discs.centres, [[40.0, 40.0]]])
    radii = np.append(trial.places.inserted_discs.radii, 3.0)
    changed = trial.with_changes.copy()
    changed[20:60, 20:60] = trial.original[20:60, 20:60]
    more = DiscPositions(Discs(centres, radii), trial.places.erased_discs)
    kept = DiscTrial.from_truths(trial.original, changed, more)
    assert [40.0, 40.0] not in kept.places.inserted_discs.centres.tolist()


def test_tally_counts_by_radius_and_change(trial):
    right, wrong = (
        trial.find_shown_discs(i) for i in (trial.with_changes, trial.original)
    )
    rows = count_discs([DiscResult(trial.places, right, wrong)] * 2)
    for change in ("inserted", "erased"):
        own = [row for row in rows if row.change == change]
        discs = sum(row.discs for row in own)
        assert discs == 2 * len(getattr(trial.places, f"{change}_discs"))
        assert sum(row.enhanced for row in own) == discs
        assert sum(row.degraded for row in own) == 0
    assert [row.radius_px for row in rows] == sorted(row.radius_px for row in rows)


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
