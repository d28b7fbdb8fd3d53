"""Laws that every published network obeys."""

import pytest
import torch

from napari_semsr.core import CheckpointError
from napari_semsr.models import DISCRIMINATORS, build_discriminator
from napari_semsr.models.architectures.published import PUBLISHED_NETWORKS
from tests.models.reach import measure
from tests.refusals import refused

CASES = [
    ("multi-residual", {"width": 4, "norm": "instance", "slope": "learnt"}, 16),
    ("multi-scale-unet", {"width": 8, "norm": "batch"}, 256),
    ("de-haan-unet", {"width": 4}, 16),
    ("srcnn", {"widths": (4, 4), "scale": 2, "residual": True}, 16),
    ("srcnn-attention", {"widths": (4, 4)}, 16),
    ("espcn", {"widths": (4, 4), "scale": 3}, 16),
    ("vdsr", {"width": 4, "layers": 3, "scale": 2}, 16),
    ("edsr", {"width": 4, "blocks": 2, "scale": 4}, 16),
    ("resnet", {"width": 4}, 16),
    ("pix2pix", {"width": 2}, 256),
    ("srgan", {"width": 4, "blocks": 2, "scale": 4}, 16),
    ("esrgan", {"width": 4, "growth": 2, "blocks": 2, "scale": 1}, 16),
]


@pytest.mark.parametrize(("name", "options", "side"), CASES)
def test_shapes_and_gradients_are_what_they_should_be(name, options, side):
    network = PUBLISHED_NETWORKS[name](**options).eval()
    rows, columns = side, side + network.stride
    with torch.no_grad():
        output = network(torch.rand(1, 1, rows, columns))
    assert output.shape == (1, 1, rows * network.scale, columns * network.scale)
    assert output.isfinite().all()
    network.train()(torch.rand(2, 1, side, side)).square().sum().backward()
    gradients = {k: p.grad for k, p in network.named_parameters()}
    assert [k for k, gradient in gradients.items() if gradient is None] == []
    assert all(gradient.isfinite().all() for gradient in gradients.values())


SHIFTED = [
    ("multi-residual", {"width": 4}),
    ("de-haan-unet", {"width": 4, "levels": 2}),
    ("srcnn-attention", {"widths": (4, 4), "window": 9}),
    ("espcn", {"widths": (4, 4), "scale": 2}),
    ("vdsr", {"width": 4, "layers": 4, "scale": 2}),
    ("resnet", {"width": 4, "norm": "none", "blocks": 2}),
    ("pix2pix", {"width": 4, "levels": 3}),
    ("esrgan", {"width": 4, "growth": 2, "blocks": 1, "scale": 2}),
]


@pytest.mark.parametrize(("name", "options"), SHIFTED)
def test_input_moved_by_the_stride_moves_the_output(name, options):
    torch.manual_seed(0)
    network = PUBLISHED_NETWORKS[name](**options).eval()
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
    ("multi-residual", {"slope": "own"}, "fixed, learnt, got 'own'"),
    ("multi-scale-unet", {"width": 12}, "multiple of 8, got 12"),
    ("multi-scale-unet", {"levels": 8}, "levels must be 1 to 7, got 8"),
    ("de-haan-unet", {"scale": 3}, "scale must be one of 1, 2, 4"),
    ("srcnn-attention", {"window": 30}, "odd, got 30"),
    ("pix2pix", {"levels": 1}, "levels must be 2 to 10, got 1"),
    ("vdsr", {"layers": 1}, "at least 2, got 1"),
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
