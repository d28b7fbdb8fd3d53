import json

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.analysis import Familiarity


def texture(pitch_px, seed, side=400):
    """Random lines of a pitch, blurred, with noise; 0 to 1 about."""
    rng = np.random.default_rng(seed)
    cells = rng.random((side // pitch_px + 1,) * 2) > 0.5
    image = np.kron(cells, np.ones((pitch_px, pitch_px)))[:side, :side]
    return ndimage.gaussian_filter(image, 2.0) + rng.normal(0, 0.01, image.shape)


@pytest.fixture(scope="module")
def place():
    return Familiarity.of([texture(8, 0)])


def share(place, image):
    return float((place.distances(image)[1] > 1).mean())


def test_another_place_of_the_sample_is_familiar(place):
    assert share(place, texture(8, 1)) < 0.2


@pytest.mark.parametrize("pitch_px", [5, 14])
def test_another_pitch_is_unlike_the_place(place, pitch_px):
    assert share(place, texture(pitch_px, 1)) > 0.8


def test_another_focus_is_unlike_the_place(place):
    assert share(place, ndimage.gaussian_filter(texture(8, 1), 3)) > 0.8


def test_a_card_holds_it(place):
    again = Familiarity.from_json(json.loads(json.dumps(place.to_json())))
    image = texture(8, 1)
    assert again.distances(image)[1] == pytest.approx(
        place.distances(image)[1], rel=0.01
    )


def test_blocks_with_gaps_are_left_out(place):
    image = texture(8, 1)
    whole = len(place.distances(image)[0])
    image[:96] = np.nan
    assert 0 < len(place.distances(image)[0]) < whole


def test_a_place_of_few_blocks_has_none():
    assert Familiarity.of([texture(8, 0)[:100, :100]]) is None
