"""The networks that the papers compare with: their published numbers of weights."""

import pytest
import torch

from napari_semsr.models.architectures.blocks import LanczosUpsampling
from napari_semsr.models.architectures.super_resolution import (
    EDSR,
    LocalAttention,
    RRDBNet,
    SRResNet,
)
from napari_semsr.models.architectures.translation import (
    PatchGAN,
    Pix2PixUNet,
    ResNetGenerator,
)
from tests.models.reach import count_weights

PLAIN = {"first_norm": False, "dropout": 0}


@pytest.mark.parametrize(
    ("factory", "options", "weights"),
    [
        (ResNetGenerator, {"channels": 3}, 11_378_179),
        (Pix2PixUNet, {"channels": 3}, 54_414_531),
        (SRResNet, {"channels": 3, "scale": 4}, 1_547_350),
        (RRDBNet, {"channels": 3, "scale": 4}, 16_697_987),
        (EDSR, {"channels": 3, "scale": 4}, 1_517_571),
        (PatchGAN, {"channels": 3, **PLAIN}, 2_764_737),
        (PatchGAN, {"channels": 6, "norm": "batch", **PLAIN}, 2_768_705),
    ],
)
def test_weights_are_the_published_ones(factory, options, weights) -> None:
    with torch.device("meta"):
        assert count_weights(factory(**options)) == weights


@pytest.mark.parametrize("scale", [2, 3])
def test_lanczos_keeps_a_constant_and_a_slope(scale: int) -> None:
    enlarge = LanczosUpsampling(scale)
    flat = torch.full((1, 1, 9, 11), 0.7)
    assert torch.allclose(enlarge(flat), torch.tensor(0.7), atol=1e-6)
    slope = torch.arange(24.0).expand(1, 1, 20, 24)
    inside = enlarge(slope)[0, 0, 10 * scale, 4 * scale : -4 * scale]
    centres = (torch.arange(24 * scale) + 0.5) / scale - 0.5
    assert torch.allclose(inside, centres[4 * scale : -4 * scale], atol=0.02)


def test_local_mean_at_an_edge_is_of_what_is_there() -> None:
    attention = LocalAttention(1, window=3)
    mean = attention.compute_local_mean(torch.arange(9.0).reshape(1, 1, 3, 3))
    assert mean[0, 0, 0, 0] == (0 + 1 + 3 + 4) / 4
    assert mean[0, 0, 1, 1] == 4
