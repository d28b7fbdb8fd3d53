"""The picture of a held-out patch that a run leaves at each validation."""

import numpy as np
from torch import nn

from napari_semsr.training.recipe import Recipe
from napari_semsr.training.validation import ValidationPair, create_preview


def test_parts_stand_side_by_side(rng):
    network = nn.Upsample(scale_factor=2)
    network.scale = 2
    low, high = rng.uniform(0, 255, (8, 10)), rng.uniform(0, 255, (16, 20))
    dull = ValidationPair("pairs", np.ones((8, 8)), np.ones((16, 16)))
    pairs = [dull, ValidationPair("pairs", low, high)]
    recipe = Recipe(name="tiny", kind="supervised")
    data = create_preview(network, recipe, pairs).array()
    assert data.shape == (16, 3 * 20 + 2 * 2)
    np.testing.assert_allclose(data[::2, :20:2], low, rtol=1e-6)
    np.testing.assert_allclose(data[::2, 22:42:2], low, rtol=1e-4)
    np.testing.assert_allclose(data[:, 44:], high, rtol=1e-6)
