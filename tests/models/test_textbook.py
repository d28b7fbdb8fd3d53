"""The networks that the papers compare with: their published numbers of weights."""

import pytest
import torch

from napari_semsr.models.architectures.super_resolution import RRDBNet, SRResNet
from napari_semsr.models.architectures.translation import Pix2PixUNet, ResNetGenerator
from tests.models.reach import count_weights


@pytest.mark.parametrize(
    ("factory", "options", "weights"),
    [
        (ResNetGenerator, {"channels": 3}, 11_378_179),
        (ResNetGenerator, {}, 11_365_633),
        (Pix2PixUNet, {"channels": 3}, 54_414_531),
        (SRResNet, {"channels": 3, "scale": 4}, 1_547_350),
        (RRDBNet, {"channels": 3, "scale": 4}, 16_697_987),
    ],
)
def test_weights_are_the_published_ones(factory, options, weights) -> None:
    with torch.device("meta"):
        assert count_weights(factory(**options)) == weights
