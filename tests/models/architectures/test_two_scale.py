"""The default architecture."""

import torch

from napari_semsr.models.architectures.two_scale import TwoScaleNet


def test_wide_branch_starts_silent_and_then_sees_far() -> None:
    network = TwoScaleNet(width=4, fine_blocks=1, dilations=(1,), wide_blocks=1)
    assert network.stride == 16
    plain = TwoScaleNet(width=4, fine_blocks=1, dilations=(1,))
    shared = {k: v for k, v in network.state_dict().items() if "wide" not in k}
    torch.nn.init.normal_(shared["head.weight"])
    plain.load_state_dict(shared)
    image = torch.rand(1, 1, 64, 64)
    assert torch.allclose(network(image), plain(image), atol=1e-6)
