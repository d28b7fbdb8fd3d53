"""Sun's generator: what the paper states of it."""

import pytest
import torch
from torch import nn

from napari_semsr.models.architectures.blocks import ResidualBlock
from napari_semsr.models.architectures.translation import MultiResidualNet
from napari_semsr.models.probing import NormInterceptor


def test_nine_blocks_of_two_3x3_convolutions_of_64_maps() -> None:
    network = MultiResidualNet()
    blocks = [m for m in network.modules() if isinstance(m, ResidualBlock)]
    assert len(blocks) == 9
    for block in blocks:
        convolutions = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
        forms = [(c.kernel_size, c.out_channels) for c in convolutions]
        assert forms == [((3, 3), 64)] * 2
        assert sum(isinstance(m, nn.BatchNorm2d) for m in block.modules()) == 2
        assert sum(isinstance(m, nn.LeakyReLU) for m in block.modules()) == 1
    weights = sum(p.numel() for p in network.residual.parameters())
    assert weights == 9 * 2 * (64 * 64 * 9 + 2 * 64)
    # two learned sub-pixel layers undo the down-sampling
    assert sum(isinstance(m, nn.PixelShuffle) for m in network.modules()) == 2
    assert network.stride == 4
    assert network.down(torch.rand(1, 64, 16, 16)).shape[-1] == 4


def test_learnt_slopes_begin_as_the_fixed_ones_and_are_taught() -> None:
    networks = []
    for slope in ("fixed", "learnt"):
        torch.manual_seed(0)
        networks.append(MultiResidualNet(width=4, blocks=2, dropout=0.0, slope=slope))
    fixed, learnt = networks
    image = torch.rand(1, 1, 16, 16) - 0.5
    torch.testing.assert_close(learnt(image), fixed(image))
    slopes = [m.weight for m in learnt.modules() if isinstance(m, nn.PReLU)]
    assert len(slopes) == 3 + 2 + 2
    learnt(image).square().mean().backward()
    assert all(slope.grad is not None and slope.grad.abs() > 0 for slope in slopes)
    with pytest.raises(ValueError, match="fixed, learnt, got 'own'"):
        MultiResidualNet(slope="own")


def test_dropout_acts_in_training_only() -> None:
    network = MultiResidualNet(width=4, blocks=2, norm="none", dropout=0.5)
    image = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        network.train()
        assert not torch.equal(network(image), network(image))
        network.eval()
        assert torch.equal(network(image), network(image))
    plain = MultiResidualNet(width=4, blocks=2, dropout=0.0)
    assert not any(isinstance(m, nn.Dropout) for m in plain.modules())


def test_only_the_instance_variant_takes_statistics_from_the_image() -> None:
    image = torch.rand(1, 1, 16, 16)
    for norm, live in (("batch", 0), ("instance", 3 + 2 * 9)):
        network = MultiResidualNet(width=4, norm=norm).eval()
        with torch.no_grad(), NormInterceptor() as mode:
            network(image)
        assert mode.count == live
