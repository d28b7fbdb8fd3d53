"""SRCNN and its attention: what is stated, and what keeps tiles exact."""

import torch
from torch import nn

from napari_semsr.models.architectures.super_resolution import (
    SRCNN,
    AttentionSRCNN,
    LocalAttention,
)
from tests.models.reach import measure


def test_layers_and_weights_are_the_published_ones() -> None:
    network = SRCNN()
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    forms = [(c.kernel_size[0], c.out_channels) for c in layers]
    assert forms == [(9, 64), (1, 32), (5, 1)]
    assert sum(c.weight.numel() for c in layers) == 8032
    assert measure(network, stride=1) == 4 + 0 + 2


def test_attention_starts_as_none_and_sees_its_window():
    plain, attentive = SRCNN((8, 4)), AttentionSRCNN((8, 4), window=5)
    attentive.load_state_dict(plain.state_dict(), strict=False)
    image = torch.rand(1, 1, 20, 20)
    assert torch.equal(plain(image), attentive(image))
    network = AttentionSRCNN((4, 4), window=9)
    first_and_second = 2 * (9 // 2 + 7 // 2)
    assert measure(network, stride=1) == 4 + first_and_second + 2


def test_local_mean_at_an_edge_is_of_what_is_there() -> None:
    attention = LocalAttention(1, window=3)
    mean = attention.compute_local_mean(torch.arange(9.0).reshape(1, 1, 3, 3))
    assert mean[0, 0, 0, 0] == (0 + 1 + 3 + 4) / 4
    assert mean[0, 0, 1, 1] == 4


def test_correction_is_added_to_the_enlarged_image() -> None:
    network = SRCNN((4, 4), scale=2, residual=True)
    nn.init.zeros_(network.head.weight)
    flat = torch.full((1, 1, 8, 8), 0.3)
    assert torch.allclose(network(flat), torch.tensor(0.3))
