"""The picture of a held-out patch that a run leaves at each validation."""

import numpy as np
from torch import nn

from napari_semsr.training.recipe import Recipe
from napari_semsr.training.validation import ValidationPair, create_preview

RECIPE = Recipe(name="tiny", kind="supervised")


class Twice(nn.Module):
    """Enlarges by two, and says so."""

    scale = 2

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=2)

    def forward(self, x):
        return self.up(x)


def pair(low: np.ndarray, high: np.ndarray) -> ValidationPair:
    return ValidationPair("pairs", low, high)


def test_parts_stand_side_by_side(rng: np.random.Generator) -> None:
    dull = pair(np.ones((8, 8)), np.ones((16, 16)))
    low, high = rng.uniform(0, 255, (8, 10)), rng.uniform(0, 255, (16, 20))
    made = create_preview(Twice(), RECIPE, [dull, pair(low, high)])
    assert made is not None
    data = made.array()
    assert data.shape == (16, 3 * 20 + 2 * 2)
    np.testing.assert_allclose(data[::2, :20:2], low, rtol=1e-6)
    np.testing.assert_allclose(data[::2, 22:42:2], low, rtol=1e-4)
    np.testing.assert_allclose(data[:, 44:], high, rtol=1e-6)
