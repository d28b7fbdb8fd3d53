"""The default architecture."""

import pytest
import torch

from napari_semsr.models.two_scale import TwoScale


def test_untrained_network_returns_its_input() -> None:
    image = torch.rand(2, 1, 24, 40)
    assert torch.equal(TwoScale(width=8)(image), image)


@pytest.mark.parametrize("scale", [1, 2])
def test_output_has_the_scale(scale: int) -> None:
    network = TwoScale(width=8, scale=scale)
    torch.nn.init.normal_(network.head.weight)
    assert network(torch.rand(1, 1, 16, 8)).shape == (1, 1, 16 * scale, 8 * scale)


def test_default_network_is_small() -> None:
    assert sum(p.numel() for p in TwoScale().parameters()) <= 1_500_000


def test_gradients_reach_every_weight() -> None:
    network = TwoScale(width=4, fine_blocks=1, dilations=(1,))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    network(torch.rand(1, 1, 16, 16)).square().sum().backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters()
    )
