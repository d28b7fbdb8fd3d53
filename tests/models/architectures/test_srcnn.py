"""SRCNN and its attention: what is stated, and what keeps tiles exact."""

import torch

from napari_semsr.models.architectures.super_resolution import (
    LocalAttention,
)


def test_local_mean_at_an_edge_is_of_what_is_there() -> None:
    attention = LocalAttention(1, window=3)
    mean = attention.compute_local_mean(torch.arange(9.0).reshape(1, 1, 3, 3))
    assert mean[0, 0, 0, 0] == (0 + 1 + 3 + 4) / 4
    assert mean[0, 0, 1, 1] == 4
