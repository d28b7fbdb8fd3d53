"""A published network as a correction: before training, its result is its input."""

import pytest
import torch

from napari_semsr.core.errors import CheckpointError
from napari_semsr.models.architectures.blocks import bicubic
from napari_semsr.models.checkpoint import build

NETWORKS = [
    ("multi-residual", {"width": 4, "blocks": 1, "norm": "batch"}, 32),
    ("multi-scale-unet", {"width": 8, "norm": "none"}, 128),
    ("multi-scale-unet", {"width": 8, "norm": "instance"}, 256),
    ("resnet", {"width": 4, "blocks": 1, "norm": "none", "bounded": False}, 32),
    ("pix2pix", {"width": 4, "levels": 3, "bounded": False}, 32),
    ("srgan", {"width": 4, "blocks": 1}, 32),
    ("esrgan", {"width": 4, "blocks": 1, "growth": 4, "scale": 1}, 32),
    ("de-haan-unet", {"width": 4, "levels": 2, "scale": 2}, 32),
    ("espcn", {"widths": (4, 4), "scale": 2}, 32),
    ("edsr", {"width": 4, "blocks": 1, "scale": 2}, 32),
]


@pytest.mark.parametrize(
    ("name", "options", "side"),
    NETWORKS,
    ids=[f"{n}-{side}" for n, _, side in NETWORKS],
)
def test_an_untrained_correction_returns_its_input(name, options, side) -> None:
    network = build("correction", {"network": name, "options": options})
    x = torch.rand(1, 1, side, side)
    torch.testing.assert_close(network.eval()(x), bicubic(x, network.scale))


@pytest.mark.broad
@pytest.mark.parametrize(
    ("name", "options", "side"),
    NETWORKS,
    ids=[f"{n}-{side}" for n, _, side in NETWORKS],
)
def test_a_step_moves_the_result(name, options, side) -> None:
    network = build("correction", {"network": name, "options": options})
    x = torch.rand(2, 1, side, side)
    loss = (network(x) - 0.5).square().mean()
    loss.backward()
    with torch.no_grad():
        for weight in network.parameters():
            if weight.grad is not None:
                weight -= 0.1 * weight.grad
        assert (network.eval()(x) - bicubic(x, network.scale)).abs().max() > 0


def test_an_unknown_network_is_refused_by_name() -> None:
    with pytest.raises(
        CheckpointError, match=r"one of .*multi-residual.*got 'nothing'"
    ):
        build("correction", {"network": "nothing"})


@pytest.mark.parametrize(
    ("name", "options"), [("vdsr", {"width": 4}), ("srcnn", {"residual": True})]
)
def test_a_network_that_adds_its_input_is_refused(name, options) -> None:
    with pytest.raises(CheckpointError, match=f"add its input itself, got '{name}'"):
        build("correction", {"network": name, "options": options})
