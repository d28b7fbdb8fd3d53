"""De Haan's generator and discriminator, and SRGAN's: what is stated of them."""

import numpy as np
import pytest
import torch
from torch import nn

from napari_semsr.models.architectures.blocks import LanczosUpsampling
from napari_semsr.models.architectures.discriminators import (
    SRGANDiscriminator,
    VGGDiscriminator,
)
from napari_semsr.models.architectures.translation import DeHaanUNet


@pytest.mark.parametrize(
    "blocks",
    [
        lambda: [*DeHaanUNet(8).encoder, DeHaanUNet(8).bottom, *DeHaanUNet(8).decoder],
        lambda: list(VGGDiscriminator(8).blocks),
    ],
    ids=["generator", "discriminator"],
)
def test_second_convolution_of_a_block_changes_the_channels(blocks) -> None:
    for block in blocks():
        first, second = block[0], block[2]
        assert len(block) == 4
        assert isinstance(block[1], nn.LeakyReLU)
        assert isinstance(block[3], nn.LeakyReLU)
        assert first.in_channels == first.out_channels == second.in_channels
        assert second.out_channels != second.in_channels


def test_generator_doubles_128_px() -> None:
    network = DeHaanUNet(width=4)
    with torch.no_grad():
        assert network(torch.rand(1, 1, 128, 128)).shape == (1, 1, 256, 256)
    assert network.stride == 8  # the U-Net's 16, on the enlarged grid


@pytest.mark.parametrize("scale", [2, 3])
def test_lanczos_keeps_a_constant_and_a_slope(scale: int) -> None:
    enlarge = LanczosUpsampling(scale)
    flat = torch.full((1, 1, 9, 11), 0.7)
    assert torch.allclose(enlarge(flat), torch.tensor(0.7), atol=1e-6)
    slope = torch.arange(24.0).expand(1, 1, 20, 24)
    inside = enlarge(slope)[0, 0, 10 * scale, 4 * scale : -4 * scale]
    centres = (torch.arange(24 * scale) + 0.5) / scale - 0.5
    assert torch.allclose(inside, centres[4 * scale : -4 * scale], atol=0.02)


def test_lanczos_follows_a_sine_better_than_bilinear() -> None:
    x = np.arange(48)
    fine = (np.arange(96) + 0.5) / 2 - 0.5
    wave = torch.from_numpy(np.sin(2 * np.pi * x / 5)).float().expand(1, 1, 16, 48)
    true = torch.from_numpy(np.sin(2 * np.pi * fine / 5)).float()
    lanczos = LanczosUpsampling(2)(wave)[0, 0, 16]
    linear = nn.functional.interpolate(wave, scale_factor=2.0, mode="bilinear")
    errors = [(y - true)[12:-12].abs().max() for y in (lanczos, linear[0, 0, 16])]
    assert errors[0] < 0.3 * errors[1]


def test_srgan_discriminator_is_the_stated_one() -> None:
    with torch.device("meta"):
        network = SRGANDiscriminator(channels=3)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in layers] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [c.stride[0] for c in layers] == [1, 2] * 4
    dense = [m.out_features for m in network.modules() if isinstance(m, nn.Linear)]
    assert dense == [1024, 1]
    with torch.no_grad():  # 96 px leave the 6 x 6 places that the dense layer takes
        assert SRGANDiscriminator(4).features(torch.rand(1, 1, 96, 96)).shape[-1] == 6
