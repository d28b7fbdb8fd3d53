"""De Haan's generator and discriminator, and SRGAN's: what is stated of them."""

import pytest
import torch

from napari_semsr.models.architectures.blocks import LanczosUpsampling


@pytest.mark.parametrize("scale", [2, 3])
def test_lanczos_keeps_a_constant_and_a_slope(scale: int) -> None:
    enlarge = LanczosUpsampling(scale)
    flat = torch.full((1, 1, 9, 11), 0.7)
    assert torch.allclose(enlarge(flat), torch.tensor(0.7), atol=1e-6)
    slope = torch.arange(24.0).expand(1, 1, 20, 24)
    inside = enlarge(slope)[0, 0, 10 * scale, 4 * scale : -4 * scale]
    centres = (torch.arange(24 * scale) + 0.5) / scale - 0.5
    assert torch.allclose(inside, centres[4 * scale : -4 * scale], atol=0.02)
