"""Networks of random weights, one that changes nothing, and a field for them."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_semsr.models import LoadedModel, ModelCard, build_network


def field(shape: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    """Draw a field with structure at many scales, uneven from corner to corner."""
    rng = np.random.default_rng(seed)
    image = np.zeros(shape)
    for step in (1, 4, 16, 64):
        rows, columns = (-(-n // step) for n in shape)
        coarse = rng.normal(0, step**0.5, (rows, columns))
        image += coarse.repeat(step, 0).repeat(step, 1)[: shape[0], : shape[1]]
    image += np.linspace(0, 10, shape[1])
    low, high = image.min(), image.max()
    return ((image - low) / (high - low) * 255).astype(np.uint8)


def random_model(
    architecture: str, options: dict[str, Any] | None = None, seed: int = 0, **card: Any
) -> LoadedModel:
    """Make a network as it is before training."""
    torch.manual_seed(seed)
    module = build_network(architecture, options or {}).eval()
    told = ModelCard(
        name=architecture,
        architecture=architecture,
        options=options or {},
        stride=int(getattr(module, "stride", 4)),
        receptive_field=0,
        **card,
    )
    return LoadedModel(module, told, "sha256:" + "0" * 64)


def identity() -> LoadedModel:
    """Give a model that returns its input."""
    card = ModelCard(name="identity", architecture="identity", receptive_field=0)
    return LoadedModel(torch.nn.Identity(), card, "sha256:0")
