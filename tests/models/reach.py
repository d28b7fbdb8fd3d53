"""How far back a network's output looks, and how many weights it has."""

from torch import nn

from napari_semsr.core import round_up
from napari_semsr.models.probing import measure_receptive_field


def count_weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def measure(network: nn.Module, *, stride: int) -> int:
    """Pixels on each side that an output depends on, out to the grid of the stride."""
    return round_up(measure_receptive_field(network, stride=stride), stride)
