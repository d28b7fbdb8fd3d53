"""Sun's generator: what the paper states of it."""

import pytest
import torch
from torch import nn

from napari_semsr.models.architectures.translation import MultiResidualNet


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
