"""The default architecture."""

import torch

from napari_semsr.models.architectures.two_scale import TwoScaleNet


def test_untrained_network_returns_its_input() -> None:
    image = torch.rand(2, 1, 24, 40)
    assert torch.equal(TwoScaleNet(width=8)(image), image)


def test_gradients_reach_every_weight() -> None:
    network = TwoScaleNet(width=4, fine_blocks=1, dilations=(1,))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    network(torch.rand(1, 1, 16, 16)).square().sum().backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters()
    )


def test_wide_branch_starts_silent_and_then_sees_far() -> None:
    network = TwoScaleNet(width=4, fine_blocks=1, dilations=(1,), wide_blocks=1)
    assert network.stride == 16
    plain = TwoScaleNet(width=4, fine_blocks=1, dilations=(1,))
    shared = {k: v for k, v in network.state_dict().items() if "wide" not in k}
    torch.nn.init.normal_(shared["head.weight"])
    plain.load_state_dict(shared)
    image = torch.rand(1, 1, 64, 64)
    assert torch.allclose(network(image), plain(image), atol=1e-6)
