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


@pytest.mark.parametrize("factory", [ResNetGenerator, Pix2PixUNet])
def test_bounded_output_stays_on_the_unit_scale(factory) -> None:
    image = 4 * torch.randn(1, 1, 256, 256)
    with torch.no_grad():
        output = factory(width=2)(image)
    assert output.min() >= 0
    assert output.max() <= 1


def test_pix2pix_drops_in_the_three_innermost_layers() -> None:
    network = Pix2PixUNet(width=2)
    kinds = [{type(m) for m in up} for up in network.decoder]
    assert [torch.nn.Dropout in one for one in kinds] == [True] * 3 + [False] * 4
