"""The published networks through the engine: tiles equal the whole."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import run
from napari_semsr.inference.engine import enhance_array
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.models.cards import ModelCard
from napari_semsr.models.checkpoint import LoadedModel, build
from napari_semsr.models.probing import measure

LOCAL: dict[str, tuple[str, dict[str, Any]]] = {
    "multi-residual": ("multi-residual", {"width": 4, "blocks": 2}),
    "de-haan doubling": ("de-haan-unet", {"width": 4, "levels": 3}),
    "srcnn doubling": ("srcnn", {"widths": (6, 4), "scale": 2}),
    "srcnn with attention": ("srcnn-attention", {"widths": (6, 4), "window": 9}),
    "espcn doubling": ("espcn", {"widths": (6, 4), "scale": 2}),
    "vdsr": ("vdsr", {"width": 4, "layers": 6}),
    "edsr": ("edsr", {"width": 4, "blocks": 2}),
    "edsr doubling": ("edsr", {"width": 4, "blocks": 2, "scale": 2}),
    "pix2pix": ("pix2pix", {"width": 4, "levels": 3}),
    "srgan": ("srgan", {"width": 4, "blocks": 2}),
    "esrgan": ("esrgan", {"width": 4, "growth": 2, "blocks": 1, "scale": 1}),
    "esrgan doubling": ("esrgan", {"width": 4, "growth": 2, "blocks": 1, "scale": 2}),
}


def _loaded(architecture: str, options: dict[str, Any]) -> LoadedModel:
    torch.manual_seed(4)
    network = build(architecture, options).train()
    for weights in network.parameters():
        if weights.ndim > 1:
            nn.init.kaiming_normal_(weights)
    with torch.no_grad():  # batch norms gather their statistics
        network(torch.rand(4, 1, 32, 32))
    network.eval()
    card = ModelCard(
        name="published",
        architecture=architecture,
        options=options,
        scale=network.scale,
        stride=network.stride,
        receptive_field=measure(network, stride=network.stride),
        input_percentiles=(1.0, 99.0),
    )
    return LoadedModel(network, card, "sha256:" + "0" * 64)


@pytest.mark.parametrize("name", LOCAL)
def test_tiles_equal_the_whole(
    name: str,
    whole: Callable[[np.ndarray, LoadedModel], np.ndarray],
    rng: np.random.Generator,
) -> None:
    loaded = _loaded(*LOCAL[name])
    image = (rng.random((150, 134)) * 255).astype(np.uint8)
    expected = whole(image, loaded)
    assert np.ptp(expected) > 1
    options = EnhanceOptions(tile=64, precision="fp32", device="cpu")
    result = run(enhance_array(Micrograph(image), loaded, options))
    assert result.shape == expected.shape
    assert result.metadata["enhance"]["tiles"] > 1
    assert np.abs(result.data - expected).max() <= 2e-5 * np.ptp(expected)
