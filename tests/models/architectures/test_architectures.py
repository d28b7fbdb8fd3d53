"""Laws that every published network obeys."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

from napari_semsr.core.errors import CheckpointError
from napari_semsr.models.architectures.published import (
    DISCRIMINATORS,
    PUBLISHED_NETWORKS,
)
from napari_semsr.models.checkpoint import build_discriminator
from tests.models.reach import measure
from tests.refusals import refused


@dataclass(frozen=True)
class Case:
    """A narrow network of one architecture, and the side of a small input."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    side: int = 16

    def __str__(self) -> str:
        text = ",".join(f"{k}={v}" for k, v in self.options.items())
        return f"{self.name}({text})"

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return PUBLISHED_NETWORKS[self.name](**self.options)


TINY_RRDB = {"width": 4, "growth": 2, "blocks": 2}
CASES = [
    Case("multi-residual", {"width": 4, "norm": "instance"}),
    Case("multi-scale-unet", {"width": 8, "norm": "batch"}, 256),
    Case("multi-scale-unet", {"width": 8, "levels": 3}, 64),
    Case("de-haan-unet", {"width": 4}),
    Case("de-haan-unet", {"width": 4, "scale": 1}),
    Case("srcnn", {"widths": (4, 4), "scale": 2, "residual": True}),
    Case("srcnn-attention", {"widths": (4, 4)}),
    Case("espcn", {"widths": (4, 4), "scale": 3}),
    Case("vdsr", {"width": 4, "layers": 3, "scale": 2}),
    Case("edsr", {"width": 4, "blocks": 2, "scale": 4}),
    Case("resnet", {"width": 4}),
    Case("pix2pix", {"width": 2}, 256),
    Case("srgan", {"width": 4, "blocks": 2, "scale": 4}),
    Case("esrgan", {**TINY_RRDB, "scale": 1}),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_shapes_weights_and_gradients_are_what_they_should_be(case):
    network = case.build().eval()
    rows, columns = case.side, case.side + network.stride
    with torch.no_grad():
        output = network(torch.rand(1, 1, rows, columns))
    assert output.shape == (1, 1, rows * network.scale, columns * network.scale)
    assert output.isfinite().all()
    network.train()(torch.rand(2, 1, case.side, case.side)).square().sum().backward()
    gradients = {k: p.grad for k, p in network.named_parameters()}
    assert [k for k, gradient in gradients.items() if gradient is None] == []
    assert all(gradient.isfinite().all() for gradient in gradients.values())


SHIFTED = [
    Case("multi-residual", {"width": 4}),
    Case("de-haan-unet", {"width": 4, "levels": 2}),
    Case("srcnn-attention", {"widths": (4, 4), "window": 9}),
    Case("espcn", {"widths": (4, 4), "scale": 2}),
    Case("vdsr", {"width": 4, "layers": 4, "scale": 2}),
    Case("resnet", {"width": 4, "norm": "none", "blocks": 2}),
    Case("pix2pix", {"width": 4, "levels": 3}),
    Case("esrgan", {"width": 4, "growth": 2, "blocks": 1, "scale": 2}),
]


@pytest.mark.parametrize("case", SHIFTED, ids=str)
def test_input_moved_by_the_stride_moves_the_output(case: Case) -> None:
    network = case.build().eval()
    stride, scale = network.stride, network.scale
    halo = measure(network, stride=stride)
    side = 2 * halo + 5 * stride
    image = torch.rand(1, 1, side, side)
    with torch.no_grad():
        whole = network(image)[..., stride * scale :, stride * scale :]
        part = network(image[..., stride:, stride:])
    inner = slice(halo * scale, (side - stride - halo) * scale)
    inside, moved = part[..., inner, inner], whole[..., inner, inner]
    assert inside.shape[-1] == 4 * stride * scale
    assert torch.allclose(moved, inside, atol=1e-5)


OUT_OF_RANGE = [
    ("multi-residual", {"norm": "layer"}, "norm must be one of"),
    ("multi-scale-unet", {"width": 12}, "multiple of 8, got 12"),
    ("multi-scale-unet", {"levels": 8}, "levels must be 1 to 7, got 8"),
    ("de-haan-unet", {"scale": 3}, "scale must be one of 1, 2, 4"),
    ("esrgan", {"scale": 8}, "scale must be one of 1, 2, 4, got 8"),
    ("srcnn-attention", {"window": 30}, "odd, got 30"),
    ("pix2pix", {"levels": 1}, "levels must be 2 to 10, got 1"),
    ("espcn", {"scale": 8}, "scale must be one of 1, 2, 3, 4, got 8"),
    ("vdsr", {"layers": 1}, "at least 2, got 1"),
    ("edsr", {"scale": 3}, "scale must be one of 1, 2, 4, got 3"),
    ("patch-gan", {"norm": "group"}, "norm must be one of"),
]


@pytest.mark.parametrize(("name", "options", "message"), OUT_OF_RANGE)
def test_options_out_of_range_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        (PUBLISHED_NETWORKS | DISCRIMINATORS)[name](**options)


PATCHES, WHOLE = (2, 1, 6, 14), (2, 1)
SCORES = {"patch-gan": PATCHES, "multi-scale": PATCHES, "vgg": WHOLE, "srgan": WHOLE}


@pytest.mark.parametrize("name", SCORES)
def test_discriminators_score_patches_of_any_size(name):
    network = DISCRIMINATORS[name](width=4)
    score = network(torch.rand(2, 1, 64, 128))
    assert score.shape == SCORES[name]
    score.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_discriminators_are_built_by_name() -> None:
    network = build_discriminator("patch-gan", {"width": 4, "dropout": 0})
    assert isinstance(network, DISCRIMINATORS["patch-gan"])
    with refused(CheckpointError, "architecture-unknown"):
        build_discriminator("x", {})
    with refused(CheckpointError, "unknown-option"):
        build_discriminator("vgg", {"depth": 3})
