"""What is said of a network where no truth is known."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.simulation import draw_phantom
from napari_semsr.training.cycle_gan import EXPECTED_GAIN, UnpairedValidator
from napari_semsr.training.validation import ValidationPair, Validator

SIGMA_PX = 1.3
SIDE = 128


class Sharpened(nn.Module):
    """Adds a multiple of what a mean takes away, and texture of its own."""

    def __init__(self, amount: float, texture: float = 0.0) -> None:
        super().__init__()
        self.amount = amount
        drawn = np.random.default_rng(5).normal(size=(1, 1, SIDE, SIDE))
        self.texture = texture * torch.from_numpy(drawn.astype(np.float32))

    def forward(self, x: Tensor) -> Tensor:
        padded = functional.pad(x, (2, 2, 2, 2), mode="reflect")
        mean = functional.avg_pool2d(padded, 5, 1)
        return x + self.amount * (x - mean) + self.texture


@pytest.fixture(scope="module")
def pairs() -> list[ValidationPair]:
    made = []
    for seed in range(12):
        clear = 255 * draw_phantom(
            ("particles", "fracture")[seed % 2], (SIDE, SIDE), seed=seed
        )
        soft = ndimage.gaussian_filter(clear, SIGMA_PX)
        made.append(ValidationPair("blur", soft.astype(np.float32), clear))
    return made


@pytest.fixture(scope="module")
def blind(pairs) -> UnpairedValidator:
    low = [pair.low.astype(float) for pair in pairs[::2]]
    return UnpairedValidator(low, [pair.high.astype(float) for pair in pairs[1::2]])


@pytest.mark.slow
def test_it_ranks_as_the_truth_does(pairs, blind):
    truth = Validator(pairs[::2])
    networks = [Sharpened(amount) for amount in (0, 0.3, 1, 4)]
    networks += [Sharpened(0.3, texture) for texture in (0.02, 0.1)]
    known = [truth.evaluate(network)["gain_db"] for network in networks]
    told = [blind.evaluate(network)[EXPECTED_GAIN] for network in networks]
    assert spearmanr(known, told)[0] > 0.8


def test_texture_that_is_made_up_brings_spectra_nearer_and_counts_as_a_loss(blind):
    plain, drawn = (blind.evaluate(Sharpened(0, texture)) for texture in (0, 0.02))
    assert drawn["spectrum_db"] < plain["spectrum_db"]
    assert drawn[EXPECTED_GAIN] < plain[EXPECTED_GAIN]
