"""Laws of discs that are put in and taken out."""

import numpy as np
import pytest

from napari_semsr.analysis.hallucination.discs import (
    MARGIN_PX,
    RADII_PX,
    Discs,
    choose_places,
    disc_contrast,
    disc_steps,
    erase_discs,
    insert_discs,
    local_contrast,
)

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


def test_insert_discs_adds_its_step_to_the_contrast(rng):
    image = rng.uniform(0, 255, (128, 128))
    steps = np.array([20.0, -15.0, 7.0])
    made = insert_discs(image, PLACES, steps)
    gained = disc_contrast(made, PLACES) - disc_contrast(image, PLACES)
    assert gained == pytest.approx(steps)


def test_erase_discs_undoes_an_insertion_on_a_plane():
    y, x = np.mgrid[:128, :128]
    plane = 0.3 * y - 0.2 * x + 50
    made = insert_discs(plane, PLACES, np.array([20.0, -15.0, 7.0]))
    assert erase_discs(made, PLACES) == pytest.approx(plane)


def test_erase_discs_stays_between_the_values_of_the_rim(rng):
    image = rng.uniform(0, 255, (128, 128))
    made = erase_discs(image, PLACES)
    y, x = np.mgrid[:128, :128]
    for (cy, cx), radius in zip(PLACES.centres, PLACES.radii, strict=True):
        away = np.hypot(y - cy, x - cx)
        rim = image[(away > radius + 0.5) & (away <= radius + 2)]
        inside = made[away <= radius + 0.5]
        assert rim.min() <= inside.min() <= inside.max() <= rim.max()


def test_discs_on_a_finer_grid_cover_the_same_place():
    fine = np.zeros((256 + 20, 256 + 20))
    made = insert_discs(fine, PLACES.on_grid(2, 10), np.ones(3))
    inner = made[10:-10, 10:-10].reshape(128, 2, 128, 2).mean((1, 3))
    coarse = insert_discs(np.zeros((128, 128)), PLACES, np.ones(3))
    assert disc_contrast(inner, PLACES) == pytest.approx(1, abs=0.01)
    assert inner == pytest.approx(coarse, abs=0.35)
    assert inner.sum() == pytest.approx(coarse.sum(), rel=0.02)


def test_local_contrast_of_two_levels_is_their_distance():
    image = np.zeros((96, 96))
    image[::2] = 40
    assert local_contrast(image) == pytest.approx(40)


def test_choose_places_finds_plain_ground_and_blobs(blobs, rng):
    places = choose_places(blobs, (8, 8), rng)
    assert len(places.inserted) == len(places.erased) == 8
    contrast = local_contrast(blobs)

    def half(discs):
        return 0.5 * contrast[tuple(discs.centres.astype(int).T)]

    away = disc_contrast(blobs, places.inserted) / half(places.inserted)
    assert np.abs(away).max() < 0.3
    gone = erase_discs(blobs, places.erased)
    lost = disc_contrast(blobs, places.erased) - disc_contrast(gone, places.erased)
    assert np.all(np.abs(lost) > 0.8 * half(places.erased))


def test_choose_places_keeps_discs_apart_and_off_the_border(blobs, rng):
    places = choose_places(blobs, (20, 20), rng)
    centres = np.vstack([places.inserted.centres, places.erased.centres])
    radii = np.concatenate([places.inserted.radii, places.erased.radii])
    assert set(radii) <= set(RADII_PX)
    assert centres.min() >= MARGIN_PX
    assert centres.max() < 192 - MARGIN_PX
    away = np.hypot(*(centres[:, None] - centres[None]).transpose(2, 0, 1))
    reach = 2 * radii + 1
    np.fill_diagonal(away, np.inf)
    assert np.all(away > reach[:, None] + reach[None])


def test_choose_places_repeats_by_seed(blobs):
    first, again, other = (
        choose_places(blobs, (5, 5), np.random.default_rng(seed)).inserted.centres
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("shape", [(192, 192), (40, 300)])
def test_choose_places_finds_none_without_contrast_or_room(shape, rng):
    image = np.zeros(shape) if shape[0] > 48 else rng.uniform(0, 255, shape)
    places = choose_places(image, (5, 5), rng)
    assert len(places.inserted) == len(places.erased) == 0


def test_disc_steps_keep_within_bounds(blobs, rng):
    places = choose_places(blobs, (8, 0), rng)
    steps = disc_steps(blobs, places.inserted, rng, bounds=(0, 101))
    assert np.all(steps < 0)
    either = disc_steps(blobs, places.inserted, rng)
    assert np.abs(either) == pytest.approx(np.abs(steps))
