"""Gao's generator: what the paper states of it."""

import pytest
import torch
from torch import nn

from napari_semsr.models.architectures.translation import (
    MultiScaleBlock,
    MultiScaleUNet,
)


@pytest.fixture(scope="module")
def network() -> MultiScaleUNet:
    return MultiScaleUNet(width=8)


def _outside_blocks(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    blocks = [m for m in network.modules() if isinstance(m, MultiScaleBlock)]
    inside = {part for block in blocks for part in block.modules()}
    return [m for m in network.modules() if isinstance(m, kind) and m not in inside]


def test_eight_convolutions_and_eight_transposed_ones_but_the_last_normalised(network):
    down = _outside_blocks(network, nn.Conv2d)
    up = _outside_blocks(network, nn.ConvTranspose2d)
    assert [c.stride[0] for c in down] == [2, 2, 2, 2, 2, 2, 2, 1]
    assert [c.stride[0] for c in up] == [1, 2, 2, 2, 2, 2, 2, 2]
    norms = [m for m in network.modules() if isinstance(m, nn.InstanceNorm2d)]
    assert len(norms) == 8 + 7 + 14


def test_fourteen_blocks_of_1x1_and_3x3_kernels(network):
    blocks = [m for m in network.modules() if isinstance(m, MultiScaleBlock)]
    assert len(blocks) == 14
    for block in blocks:
        layers = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
        assert {c.kernel_size for c in layers} == {(1, 1), (3, 3)}
        assert {c.stride for c in layers} == {(1, 1)}


def test_block_is_local_and_keeps_the_shape() -> None:
    block = MultiScaleBlock(16, "none")
    field = torch.zeros(1, 16, 9, 9)
    field[0, :, 4, 4] = torch.nan
    hit = block(field).isnan()[0].any(dim=0)
    assert hit.sum() == 25  # two 3x3 kernels in the longest branch
    assert hit[2:7, 2:7].all()
