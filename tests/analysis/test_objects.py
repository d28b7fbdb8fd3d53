"""Small objects of a picture, and how likely they are invented."""

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.analysis import (
    OBJECT_NUMBERS,
    OBJECT_REACH_PX,
    ObjectDoubt,
    find_objects,
)
from napari_semsr.analysis.objects import RADII_PX


def spots(places, shape=(160, 160), radius=4.0, size=0.5):
    """Discs with soft rims on a faint, coarse ground."""
    y, x = np.indices(shape)
    image = 0.3 + 0.02 * np.sin(y / 9) * np.cos(x / 11)
    for (row, column), sign in places:
        away = np.hypot(y - row, x - column)
        image += sign * size * np.clip(radius + 0.5 - away, 0, 1)
    return image


def blurred(image):
    return ndimage.gaussian_filter(image, 3)


PLACES = [((40, 40), 1), ((40, 100), 1), ((100, 44), 1), ((112, 108), -1)]


def found_in(after, truth, rng):
    before = blurred(truth) + rng.normal(0, 0.002, truth.shape)
    spread = np.full(truth.shape, 0.02)
    return find_objects(before, after, spread, np.full(truth.shape, 0.05))


def nearest(found, place):
    away = np.hypot(*(found.centres - place).T)
    assert away.min() <= 1
    return int(away.argmin())


def test_objects_are_found_where_they_are(rng):
    after = spots(PLACES)
    found = found_in(after, after, rng)
    for place, sign in PLACES:
        one = nearest(found, place)
        assert found.radii[one] == pytest.approx(4, abs=1)
        assert np.sign(found.contrast[one]) == sign
        assert abs(found.contrast[one]) == pytest.approx(0.5, rel=0.2)
    assert found.seen.shape == (len(found), OBJECT_NUMBERS)
    assert np.isfinite(found.seen).all()


@pytest.mark.parametrize("gain", [1.0, 40.0])
def test_object_that_the_sample_lacks_is_invented(rng, gain):
    truth, after = spots(PLACES[:3]), spots(PLACES)
    found = found_in(after, truth, rng)
    invented = found.invented(gain * truth + 7, after)
    here = [invented[nearest(found, place)] for place, _ in PLACES]
    assert here == [False, False, False, True]


def test_plain_picture_has_none(rng):
    flat = np.full((96, 96), 0.5)
    assert len(found_in(flat, flat, rng)) == 0
    assert len(find_objects(*np.zeros((4, 20, 20)))) == 0


def test_an_object_is_whole_if_its_ring_is_known(rng):
    after = spots(PLACES)
    found = found_in(after, after, rng)
    one = nearest(found, (100, 44))
    y, x = found.centres[one]
    ring = 2 * max(RADII_PX) + 1
    for way in ((1, 0), (0, 1), (-1, 0), (0, -1), (1, 1)):
        for more, whole in ((0, False), (1, True)):
            known = np.ones(after.shape, bool)
            known[y + (ring + more) * way[0], x + (ring + more) * way[1]] = False
            assert found.lies_in(known)[one] == whole


def test_what_is_fainter_than_rounding_is_no_object():
    after = 1e-7 * spots(PLACES)
    assert len(find_objects(blurred(after), after, *np.zeros((2, *after.shape)))) == 0


def test_object_beside_what_is_not_known_can_be_left_out(rng):
    after = spots(PLACES)
    found = found_in(after, after, rng)
    known = np.ones(after.shape, bool)
    known[45, 40] = False
    whole = found.lies_in(known)
    assert not whole[nearest(found, (40, 40))]
    assert whole[nearest(found, (112, 108))]


def test_objects_look_no_farther_than_they_say(rng):
    shape = (320, 320)
    places = [((y, x), 1) for y in range(30, 300, 40) for x in range(30, 300, 40)]
    after = spots(places, shape) + ndimage.gaussian_filter(rng.normal(size=shape), 2)
    before = blurred(after)
    parts = before, after, np.abs(before - after), np.abs(after) + 0.1
    deviation = float(after.std())
    whole = find_objects(*parts, deviation=deviation)
    cut = (slice(20, 300), slice(10, 310))
    part = find_objects(*(one[cut] for one in parts), deviation=deviation)

    def inner(found, corner):
        places = found.centres + corner
        low, high = np.array([20, 10]), np.array([300, 310])
        near = OBJECT_REACH_PX
        here = ((places >= low + near) & (places < high - near)).all(axis=1)
        return places[here], found.seen[here]

    for one, other in zip(inner(whole, 0), inner(part, (20, 10)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


def test_doubt_is_the_chance_of_a_law_that_it_learnt(rng):
    seen = rng.normal(size=(30_000, OBJECT_NUMBERS)).clip(-2, 2)
    score = seen[:, 0] - 0.7 * seen[:, 1] * seen[:, 2] - 1
    chance = 1 / (1 + np.exp(-score))
    doubt = ObjectDoubt.fitted(seen, rng.random(len(seen)) < chance)
    fresh = seen[rng.permutation(len(seen))[:2000]]
    wanted = 1 / (1 + np.exp(-(fresh[:, 0] - 0.7 * fresh[:, 1] * fresh[:, 2] - 1)))
    assert np.abs(doubt.of(fresh) - wanted).mean() < 0.03


def test_number_that_never_changes_has_no_say(rng):
    seen = np.ones((400, OBJECT_NUMBERS))
    invented = np.arange(400) < 100
    doubt = ObjectDoubt.fitted(seen, invented)
    assert doubt.of(seen[:1])[0] == pytest.approx(0.25, abs=0.01)
