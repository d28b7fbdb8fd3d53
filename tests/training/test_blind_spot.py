"""Blind-spot training: what is hidden is never seen, and noise is not learnt."""

import numpy as np
import pytest
import torch
from scipy import ndimage, signal
from torch.nn import functional

from napari_semsr.models.checkpoint import build_network
from napari_semsr.training.learner import (
    BlindSpotLearner,
    mask_pixels,
    measure_correlation_range,
)
from napari_semsr.training.patches import Patches
from napari_semsr.training.recipe import MaskingOptions, Recipe
from napari_semsr.training.validation import ValidationPair

SIDE = 64


def _seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def _scene(side: int = SIDE) -> np.ndarray:
    """Smooth structure of deviation 1."""
    noise = np.random.default_rng(1).normal(size=(side, side))
    scene = ndimage.gaussian_filter(noise, 6)
    return scene / scene.std()


def _lagging(noise: np.ndarray) -> np.ndarray:
    """What a slow detector makes of white noise: alike along the lines."""
    made = signal.lfilter([1.0], [1, -0.6], noise, axis=1)
    return made / made.std()


@pytest.mark.parametrize("reach", [(0, 0), (0, 3), (2, 0)])
def test_network_sees_nothing_of_a_hidden_pixel_and_its_line(reach) -> None:
    images = torch.randn(2, 1, SIDE, SIDE)
    hidden = mask_pixels(images, 6, reach, _seed(0))
    size = [2 * px + 1 for px in reach]
    gone = functional.max_pool2d(hidden.mask.float(), size, 1, list(reach)) > 0
    other = torch.where(gone, torch.randn(images.shape), images)
    again = mask_pixels(other, 6, reach, _seed(0))
    torch.testing.assert_close(again.image, hidden.image)
    torch.testing.assert_close(hidden.image[~gone], images[~gone])
    share = float(hidden.mask.float().mean())
    cell = (6 + 2 * reach[0]) * (6 + 2 * reach[1])
    assert share == pytest.approx(1 / cell, rel=0.25)


def test_reach_is_that_of_the_noise_and_not_of_the_sample() -> None:
    scene = _scene(256)
    white = np.random.default_rng(2).normal(size=scene.shape)
    assert measure_correlation_range([scene + 0.3 * white]) == (0, 0)
    lines = scene + 0.3 * _lagging(white)
    rows, columns = measure_correlation_range([lines])
    assert rows == 0
    assert 2 <= columns <= 6  # 0.6 to the fifth is below a tenth
    assert measure_correlation_range([lines.T]) == (columns, 0)
    soft = scene + 0.3 * ndimage.gaussian_filter(white, 1)  # may be texture
    assert measure_correlation_range([soft]) == (0, 0)
    learner = _learner(_scene(), hidden=MaskingOptions(reach=(1, 4)))  # or it is said
    found = learner.validate_pairs()
    assert (found["alike_rows_px"], found["alike_columns_px"]) == (1, 4)


def _learner(noisy: np.ndarray, **changes) -> BlindSpotLearner:
    recipe = Recipe(
        name="own", kind="blind-spot", measure="hidden_db", ema=0.9, **changes
    )
    torch.manual_seed(0)
    network = build_network(
        "two-scale", {"width": 8, "fine_blocks": 1, "dilations": [1]}
    )
    grey = 128 + 32 * noisy
    return BlindSpotLearner(network, recipe, [ValidationPair("pairs", grey, grey)])


def test_noise_is_taken_out_that_was_never_told_apart() -> None:
    clean = _scene()
    noise = 0.7 * _lagging(np.random.default_rng(3).normal(size=clean.shape))
    learner = _learner(clean + noise)
    assert learner.reach[1] > 0
    image = torch.from_numpy(0.5 + (clean + noise) / 8).float()[None, None]
    batch = Patches(image.expand(2, 1, 1, -1, -1), image.expand(2, 1, 1, -1, -1))
    optimiser = learner.create_adam(learner.network, 3.0)
    before = learner.validate_pairs()["hidden_db"]
    for _ in range(100):
        loss = learner.training_step(batch, 0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    learner.averaged = None
    assert learner.validate_pairs()["hidden_db"] > before
    with torch.inference_mode():
        made = learner.network(image)[0, 0].numpy()
    left = float(np.std(8 * (made - 0.5) - clean))
    assert left < 0.8 * noise.std()
