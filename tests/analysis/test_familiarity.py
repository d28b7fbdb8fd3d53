import json

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.analysis import (
    FAMILIARITY,
    BlockFeatures,
    compute_unfamiliar_percentage,
)
from napari_semsr.core import CheckpointError, run
from tests.refusals import refused


def texture(pitch_px, seed, side=400):
    """Random lines of a pitch, blurred, with noise; 0 to 1 about."""
    rng = np.random.default_rng(seed)
    cells = rng.random((side // pitch_px + 1,) * 2) > 0.5
    image = np.kron(cells, np.ones((pitch_px, pitch_px)))[:side, :side]
    return ndimage.gaussian_filter(image, 2.0) + rng.normal(0, 0.01, image.shape)


@pytest.fixture(scope="module")
def place():
    return BlockFeatures.from_parts([texture(8, 0)])


def share(place, image):
    return float((run(place.compare(image, (0, 1))) > 1).mean())


def test_another_place_of_the_sample_is_familiar_and_another_pitch_is_not(place):
    assert share(place, texture(8, 1)) < 0.2
    assert share(place, texture(5, 1)) > 0.8


def test_a_card_holds_it(place):
    gaps = np.pad(texture(8, 0), 96, constant_values=np.nan)  # not trained on
    training = {FAMILIARITY: BlockFeatures.from_parts([gaps]).to_json()}
    again = BlockFeatures.from_model_card(json.loads(json.dumps(training)))
    image = texture(8, 1)
    far = run(place.compare(image, (0, 1)))
    assert run(again.compare(image, (0, 1))) == pytest.approx(far, rel=0.01)


@pytest.mark.parametrize(
    "wrong", [{"limit": "a"}, {"looks": [[1.0, 2.0]]}, {"spread": [0.0] * 16}]
)
def test_a_damaged_card_is_refused(place, wrong):
    with refused(CheckpointError, "model-damaged"):
        BlockFeatures.from_model_card({FAMILIARITY: {**place.to_json(), **wrong}})


def test_an_image_is_compared_block_by_block_on_the_scale_of_the_model(place):
    image = texture(8, 1, side=400)
    image[:, 200:] = texture(14, 1, side=400)[:, 200:]
    far = run(place.compare(100 + 50 * image, (100, 150)))
    assert far.shape == (4, 4)
    assert (far[:, :2] > 1).mean() < 0.3 < 0.7 < (far[:, 2:] > 1).mean()
    image[:96] = np.nan
    known = run(place.compare(image, (0, 1)))
    assert np.isnan(known[0]).all()
    assert compute_unfamiliar_percentage(known) == 100 * (known[1:] > 1).mean()
    assert compute_unfamiliar_percentage(run(place.compare(image[:90], (0, 1)))) is None


def test_of_many_blocks_some_are_compared_unless_they_are_mapped(place):
    image = np.tile(texture(8, 1, side=96), (21, 30))
    assert 100 < run(place.compare(image, (0, 1))).size <= 400
    assert run(place.compare(image, (0, 1), as_map=True)).shape == (21, 30)
