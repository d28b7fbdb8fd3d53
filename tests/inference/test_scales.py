"""Networks that enlarge: tiles and the live layer against the whole."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_semsr.core import Micrograph, parse_pixel_size, run
from napari_semsr.inference import (
    LiveField,
    create_enhanced_array,
    enhance_in_memory,
    plan_output,
)
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.io.formats import read
from napari_semsr.models import LoadedModel, ModelCard
from tests.enhancing import fill, store_for

FP32 = EnhanceOptions(tile=16, precision="fp32", device="cpu")
SIZE_NM = 10.0


class _SubPixel(nn.Module):
    """Convolves on the coarse grid and shuffles channels into pixels."""

    def __init__(self, scale: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.scale = scale
        self.first, self.norm = nn.Conv2d(1, 4, 3, padding=1), norm(4)
        self.last = nn.Conv2d(4, scale**2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.leaky_relu(self.norm(self.first(x)), 0.1)
        base = functional.interpolate(x, scale_factor=self.scale, mode="nearest")
        return base + functional.pixel_shuffle(self.last(y), self.scale)


class _Doubling(nn.Module):
    """Doubles step by step, with a normalisation on each grid, after a halving."""

    def __init__(self, scale: int, norm: type[nn.Module]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, 4, 4, 2, 1), norm(4), nn.ReLU()]
        for _ in range(scale.bit_length()):
            layers += [nn.ConvTranspose2d(4, 4, 4, 2, 1), norm(4), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, nn.Conv2d(4, 1, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def _network(kind: str, scale: int) -> nn.Module:
    norm = nn.InstanceNorm2d if kind.endswith("norm") else nn.Identity
    made = _SubPixel if kind.startswith("sub-pixel") else _Doubling
    return made(scale, norm)


def _loaded(kind: str, scale: int) -> LoadedModel:
    torch.manual_seed(4)
    network = _network(kind, scale).eval()
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.3)
    card = ModelCard(
        name=f"{kind}-x{scale}",
        architecture=kind,
        scale=scale,
        stride=1 if kind.startswith("sub-pixel") else 2,
        receptive_field=0,
        input_percentiles=(1.0, 99.0),
    )
    digest = hashlib.sha256(card.name.encode()).hexdigest()
    return LoadedModel(network, card, f"sha256:{digest}")


@pytest.fixture
def image(rng, request):
    shape = getattr(request, "param", (51, 37))
    values = rng.random(shape) * np.linspace(50, 250, shape[1])
    size = parse_pixel_size(SIZE_NM)
    return Micrograph(values.astype(np.uint8), size, "field", origin=(300.0, -70.0))


def _is_right(found, expected, image, scale):
    """Compare grey values with the whole pass, and the frame with the input's."""
    assert found.shape == tuple(scale * n for n in image.shape)
    assert np.abs(found.array() - expected).max() <= 1e-5 * np.ptp(expected)
    assert found.pixel_size_nm == pytest.approx((SIZE_NM / scale,) * 2)
    for axis in (0, 1):
        border = image.origin[axis] - SIZE_NM / 2
        assert found.origin[axis] - SIZE_NM / scale / 2 == pytest.approx(border)


@pytest.mark.parametrize(
    ("kind", "scale"),
    [("sub-pixel", 2), ("doubling", 4), ("sub-pixel-norm", 4), ("doubling-norm", 2)],
)
def test_tiles_equal_the_whole(kind, scale, image, whole):
    loaded = _loaded(kind, scale)
    expected = whole(image.array(), loaded)
    for tile in (16, 22):
        made = run(enhance_in_memory(image, loaded, FP32.replace(tile=tile)))
        _is_right(made, expected, image, scale)
        report = made.metadata["enhance"]
        assert report["norm"] == ("whole" if kind.endswith("norm") else "none")
        assert report["tiles"] > 5
        assert report["tile_mismatch"] <= 1e-5


@pytest.mark.broad
@pytest.mark.parametrize(("kind", "scale"), [("sub-pixel", 2), ("doubling-norm", 4)])
def test_live_and_lazy_equal_the_whole(kind, scale, image, whole, tmp_path):
    loaded = _loaded(kind, scale)
    expected = whole(image.array(), loaded)
    options = FP32
    path = tmp_path / "live.ome.zarr"
    store = store_for(path, image, loaded, options)
    shape = tuple(scale * n for n in image.shape)
    output = plan_output(image, loaded.card.model_dump(), options)
    live = LiveField(output, [image.array()])
    drawn = live.levels[0][:, :]
    assert drawn.shape == shape
    np.testing.assert_array_equal(drawn[::scale, ::scale], image.array())
    run(fill(image, loaded, store, options, live=live))
    np.testing.assert_array_equal(live.levels[0][:, :], store.level0[:])
    _is_right(read(path), expected, image, scale)
    lazy = create_enhanced_array(image, loaded, options)
    assert lazy.shape == shape
    assert np.abs(lazy.compute() - expected).max() <= 1e-5 * np.ptp(expected)
