"""How far back a network's output looks, and how many weights it has."""

import torch
from torch import nn

from napari_semsr.core import round_up
from napari_semsr.models.probing import NormInterceptor, measure_receptive_field


def count_weights(module: nn.Module) -> int:
    """Trained numbers."""
    return sum(p.numel() for p in module.parameters())


def patch_px(network: nn.Module, side: int) -> int:
    """Side of the square of inputs on which one score depends."""
    image = torch.rand(1, 1, side, side, requires_grad=True)
    with NormInterceptor():
        scores = network.eval()(image)
    middle = scores.shape[-1] // 2
    scores[0, 0, middle, middle].backward()
    seen = image.grad[0, 0].ne(0).any(dim=0).nonzero()
    return int(seen.max() - seen.min()) + 1


def measure(network: nn.Module, *, stride: int) -> int:
    """Pixels on each side that an output depends on, out to the grid of the stride."""
    return round_up(measure_receptive_field(network, stride=stride), stride)
