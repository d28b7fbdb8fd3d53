"""The field-wide look for haze."""

import pytest
import torch

from napari_semsr.models.architectures.haze import (
    BLOCK,
    DehazingRestorer,
    Haze,
    TransmissionNet,
    block_statistics,
    dehaze,
)


def test_untrained_network_returns_its_input() -> None:
    image = torch.rand(2, 1, 32, 48)
    assert torch.allclose(
        DehazingRestorer(width=8, veil_width=4)(image), image, atol=1e-6
    )


def test_bands_and_mean_hold_all_of_a_block() -> None:
    field = torch.rand(1, 1, 32, 48, dtype=torch.float64)
    found = block_statistics(field)
    blocks = field.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK).flatten(-2)
    assert torch.allclose(found[:, :1], blocks.mean(-1))
    variance = blocks.var(-1, correction=0)
    assert torch.allclose(found[:, 1:].sum(1, keepdim=True), variance)


def test_statistics_of_a_block_are_its_own() -> None:
    field = torch.rand(1, 1, 48, 48)
    whole = block_statistics(field)
    assert torch.equal(block_statistics(field[..., 16:32, 32:]), whole[..., 1:2, 2:])


def test_true_haze_is_taken_off() -> None:
    clear = torch.rand(1, 1, 64, 64)
    logs = 0.3 * torch.linspace(-1, 1, 4).expand(1, 1, 4, 4)
    dim = Haze(-logs, torch.full((1, 1, 1, 1), 0.4))
    again = dehaze(dehaze(clear, dim), Haze(logs, dim.airlight))
    assert (again - clear).abs().max() < 0.02
    assert (dehaze(clear, dim) - clear).abs().max() > 0.1


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (9, 8)])
def test_any_number_of_blocks(shape: tuple[int, int]) -> None:
    network = TransmissionNet(4)
    torch.nn.init.normal_(network.leave.weight)
    haze = network(torch.rand(2, 5, *shape))
    assert haze.log_gain.shape == (2, 1, *shape)
    assert haze.airlight.shape == (2, 1, 1, 1)
    assert float(haze.log_gain.detach().abs().max()) <= 1.5


def test_gradients_reach_every_weight() -> None:
    network = DehazingRestorer(width=4, fine_blocks=1, dilations=(1,), veil_width=4)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    network(torch.rand(1, 1, 160, 160)).square().sum().backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters()
    )
