"""A published network as a correction: before training, its result is its input."""

import pytest
import torch

from napari_semsr.core.errors import CheckpointError
from napari_semsr.models import build_network, upsample_bicubic
from tests.refusals import refused

NETWORKS = [
    ("multi-residual", {"width": 4, "blocks": 1, "norm": "batch"}, 32),
    ("multi-scale-unet", {"width": 8, "norm": "instance"}, 256),
    ("resnet", {"width": 4, "blocks": 1, "norm": "none", "bounded": False}, 32),
    ("pix2pix", {"width": 4, "levels": 3, "bounded": False}, 32),
    ("esrgan", {"width": 4, "blocks": 1, "growth": 4, "scale": 1}, 32),
    ("de-haan-unet", {"width": 4, "levels": 2, "scale": 2}, 32),
    ("espcn", {"widths": (4, 4), "scale": 2}, 32),
]


each = pytest.mark.parametrize(
    ("name", "options", "side"), NETWORKS, ids=[f"{n}-{px}" for n, _, px in NETWORKS]
)


@each
def test_an_untrained_correction_returns_its_input(name, options, side) -> None:
    network = build_network("correction", {"network": name, "options": options})
    x = torch.rand(1, 1, side, side)
    torch.testing.assert_close(network.eval()(x), upsample_bicubic(x, network.scale))


@pytest.mark.parametrize(
    ("name", "options", "values"),
    [
        ("vdsr", {"width": 4}, "'vdsr'"),
        ("srcnn", {"residual": True}, "'srcnn'"),
        ("nothing", {}, "multi-residual.*'nothing'"),
    ],
)
def test_a_network_that_adds_its_input_or_is_unknown_is_refused(name, options, values):
    with refused(CheckpointError, "architecture-invalid", match=values):
        build_network("correction", {"network": name, "options": options})
