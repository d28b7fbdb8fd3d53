"""ESPCN, VDSR and EDSR: what is stated of each, and that a step of training learns."""

import pytest
import torch
from torch import nn

from napari_semsr.models.architectures.blocks import upsample_bicubic
from napari_semsr.models.architectures.super_resolution import EDSR, ESPCN, VDSR
from tests.models.reach import measure


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [m for m in network.modules() if isinstance(m, nn.Conv2d)]


def kinds(network: nn.Module) -> set[type[nn.Module]]:
    return {type(m) for m in network.modules() if not list(m.children())}


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_espcn_has_the_published_layers(scale):
    network = ESPCN(scale=scale)
    layers = [(c.kernel_size[0], c.out_channels) for c in convolutions(network)]
    assert layers == [(5, 64), (3, 32), (3, scale**2)]
    # rectifiers are what the paper found tanh to be better than
    assert kinds(network) - {nn.PixelShuffle, nn.Identity} == {nn.Conv2d, nn.Tanh}
    assert measure(network, stride=1) == 2 + 1 + 1


def test_espcn_shuffles_only_where_it_enlarges() -> None:
    assert nn.PixelShuffle not in kinds(ESPCN(scale=1))
    network = ESPCN((2, 2), scale=2)
    image = torch.rand(1, 1, 8, 8)
    # each output pixel is one map of the last layer, at the place that it comes from
    assert torch.equal(network(image)[..., 0::2, 1::2], network.body(image)[:, 1:2])


def test_vdsr_has_the_published_layers_each_of_which_sees_one_pixel_further():
    layers = convolutions(VDSR())
    assert len(layers) == 20
    assert [c.out_channels for c in layers] == [*19 * [64], 1]
    assert {(c.kernel_size, c.padding_mode) for c in layers} == {((3, 3), "zeros")}
    for depth in (5, 20):
        assert measure(VDSR(4, depth), stride=1) == depth


@pytest.mark.parametrize("scale", [1, 3])
def test_vdsr_adds_to_the_enlarged_image(scale: int) -> None:
    network = VDSR(4, 3, scale)
    nn.init.zeros_(convolutions(network)[-1].weight)
    image = torch.rand(1, 1, 8, 8)
    assert torch.equal(network(image), upsample_bicubic(image, scale))


@pytest.mark.parametrize(
    ("options", "millions"),
    [({}, 1.5), ({"width": 256, "blocks": 32, "res_scale": 0.1}, 43)],
    ids=["baseline", "large"],
)
def test_edsr_has_the_published_number_of_weights(options, millions) -> None:
    with torch.device("meta"):
        network = EDSR(scale=4, channels=3, **options)
    weights = sum(p.numel() for p in network.parameters())
    assert round(weights / 1e6, 1 if millions < 10 else 0) == millions


def test_edsr_rectifies_within_its_blocks_alone_and_has_no_norm() -> None:
    network = EDSR(4, blocks=3, scale=2)
    nothing = {nn.Identity}  # stands where a norm would
    assert kinds(network) - nothing == {nn.Conv2d, nn.ReLU, nn.PixelShuffle}
    rectifiers = [n for n, m in network.named_modules() if isinstance(m, nn.ReLU)]
    assert len(rectifiers) == 3
    assert all(name.startswith("residual.") for name in rectifiers)
    for blocks in (1, 4):
        assert measure(EDSR(4, blocks), stride=1) == 2 * blocks + 3


def test_edsr_weighs_what_a_block_adds() -> None:
    plain, tenth = EDSR(4, blocks=1), EDSR(4, blocks=1, res_scale=0.1)
    tenth.load_state_dict(plain.state_dict())
    maps = torch.rand(1, 4, 8, 8)
    added, weighed = plain.residual(maps) - maps, tenth.residual(maps) - maps
    assert torch.allclose(weighed, 0.1 * added, atol=1e-6)
