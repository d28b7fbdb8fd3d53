"""Small networks with known properties, and what tiles are compared with."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_semsr.core import Box, read_box, round_up
from napari_semsr.inference.network_input import measure_scaling
from napari_semsr.models import LoadedModel, ModelCard, build_network


class Plain(nn.Module):
    """Two 3x3 convolutions added to the input: stride 1, reach 2."""

    def __init__(self, scale: int = 1) -> None:
        super().__init__()
        self.scale = scale
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.second = nn.Conv2d(6, scale**2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(functional.leaky_relu(self.first(x), 0.1))
        base = x.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)
        return base + functional.pixel_shuffle(y, self.scale)


class Strided(nn.Module):
    """An hour-glass of stride 4 that pads by reflection, with or without norms."""

    def __init__(self, norm: type[nn.Module] = nn.Identity) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"),
            norm(4),
            nn.ReLU(),
            nn.Conv2d(4, 6, 4, stride=2, padding=1),
            norm(6),
            nn.LeakyReLU(0.2),
            nn.Conv2d(6, 6, 4, stride=2, padding=1),
            nn.ConvTranspose2d(6, 4, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(4, 1, 4, stride=2, padding=1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class Global(nn.Module):
    """Takes off a mean in a way that nothing recognises: all depends on all."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.flatten(2).mean(dim=2)[..., None, None]


class Tiny(nn.Module):
    """Fails for want of memory above a number of pixels in one pass."""

    limit = 80 * 80

    def __init__(self) -> None:
        super().__init__()
        self.net = Plain()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.numel() > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return self.net(x)


INFORMED = {"widths": (8, 16, 16), "down": (1, 1, 1), "survey_width": 8}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "plain": Plain,
    "double": lambda: Plain(2),
    "strided": Strided,
    "norm": lambda: Strided(nn.InstanceNorm2d),
    "global": Global,
    "tiny": Tiny,
    "finer": lambda: build_network("two-scale", {"width": 8, "scale": 2}),
    "place": lambda: build_network("place", {"width": 4, "dilations": (1, 2)}),
    "informed": lambda: build_network("informed", INFORMED),
    "sharpener": lambda: build_network(
        "informed", {**INFORMED, "sharpener": (8, 8, 8)}
    ),
}
STRIDES = {"strided": 4, "norm": 4, "finer": 4, "place": 2}
STRIDES |= {"informed": 16, "sharpener": 16}
SPREADS = {"informed": 0.06, "sharpener": 0.06}


def _make(kind: str, **card: Any) -> LoadedModel:
    torch.manual_seed(5)
    module = NETWORKS[kind]().eval()
    for weight in module.parameters():
        nn.init.normal_(weight, std=SPREADS.get(kind, 0.3))
    values = {
        "name": kind,
        "architecture": kind,
        "stride": STRIDES.get(kind, 1),
        "scale": 2 if kind in ("double", "finer") else 1,
        "receptive_field": 0,
        "input_percentiles": (1.0, 99.0),
    }
    digest = hashlib.sha256(kind.encode()).hexdigest()
    made = ModelCard.model_validate({**values, **card})
    return LoadedModel(module, made, f"sha256:{digest}")


@pytest.fixture
def make_loaded() -> Callable[..., LoadedModel]:
    """Build one of the small networks as a loaded model, by name."""
    return _make


@pytest.fixture
def whole() -> Callable[[np.ndarray, LoadedModel], np.ndarray]:
    """Plain PyTorch on the field reflected to the stride, cropped: the definition."""

    def run(image: np.ndarray, loaded: LoadedModel) -> np.ndarray:
        card = loaded.card
        scaling = measure_scaling(image, card.input_percentiles)
        span = scaling.high - scaling.low
        sides = tuple(round_up(n, card.stride) for n in image.shape)
        padded = read_box(image, Box.from_shape(sides))
        x = ((padded.astype(np.float64) - scaling.low) / (span or 1)).astype(np.float32)
        with torch.no_grad():
            y = loaded.module(torch.from_numpy(x)[None, None])[0, 0].numpy()
        rows, columns = (n * card.scale for n in image.shape)
        return y[:rows, :columns] * span + scaling.low

    return run
