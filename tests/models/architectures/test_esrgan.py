"""ESRGAN: public weights by any of their names, folded to grey, nothing executed."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from napari_semsr.core.errors import CheckpointError
from napari_semsr.models import ModelCard, load_model, save_model
from napari_semsr.models.architectures.esrgan import RRDBNet
from napari_semsr.models.esrgan_import import load_esrgan, rename_keys

BLOCKS = 2
OPTIONS = {"width": 8, "blocks": BLOCKS, "growth": 4}

SECOND = {
    "conv_body": "trunk_conv",
    "conv_up1": "upconv1",
    "conv_up2": "upconv2",
    "conv_hr": "HRconv",
}
FIRST = {
    "conv_first": "model.0",
    "conv_body": f"model.1.sub.{BLOCKS}",
    "conv_up1": "model.3",
    "conv_up2": "model.6",
    "conv_hr": "model.8",
    "conv_last": "model.10",
}


def _as_first(name: str) -> str:
    layer, _, kind = name.rpartition(".")
    if not layer.startswith("body"):
        return f"{FIRST[layer]}.{kind}"
    _, number, dense, convolution = layer.split(".")
    return f"model.1.sub.{number}.{dense.upper()}.{convolution}.0.{kind}"


def _as_second(name: str) -> str:
    layer, _, kind = name.rpartition(".")
    if not layer.startswith("body"):
        return f"{SECOND.get(layer, layer)}.{kind}"
    return name.replace("body", "RRDB_trunk").replace("rdb", "RDB")


NAMINGS: dict[str, Callable[[str], str]] = {
    "first": _as_first,
    "second": _as_second,
    "third": str,
    "parallel": lambda name: f"module.{name}",
}


@pytest.fixture
def colour() -> RRDBNet:
    """A small network for three colours, as the public ones are."""
    torch.manual_seed(1)
    network = RRDBNet(**OPTIONS, channels=3).eval()
    for weights in network.parameters():
        torch.nn.init.normal_(weights, 0, 0.1)
    return network


def _renamed(network: RRDBNet, naming: str) -> dict[str, Tensor]:
    return {NAMINGS[naming](k): v for k, v in network.state_dict().items()}


@pytest.mark.parametrize(
    ("naming", "wrapper"),
    list(zip(NAMINGS, (None, "params_ema", "params", None), strict=True)),
)
def test_public_weights_load_by_any_of_their_names(colour, naming, wrapper, tmp_path):
    state = _renamed(colour, naming)
    path = tmp_path / "public.pth"
    torch.save(state if wrapper is None else {wrapper: state}, path)
    network, options = load_esrgan(path, grey=False)
    assert options == {**OPTIONS, "scale": 4, "channels": 3}
    image = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(network(image), colour(image))


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_grey_network_is_the_mean_of_the_colours(scale: int, tmp_path: Path) -> None:
    torch.manual_seed(2)
    colour = RRDBNet(**OPTIONS, scale=scale, channels=3).eval()
    path = tmp_path / "public.safetensors"
    save_file(_renamed(colour, "second"), path)
    grey, options = load_esrgan(path)
    assert (grey.scale, options["channels"]) == (scale, 1)
    image = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        expected = colour(image.expand(1, 3, 16, 16)).mean(1, keepdim=True)
        assert torch.allclose(grey(image), expected, atol=1e-5)


def test_loaded_network_becomes_a_model_file(colour: RRDBNet, tmp_path: Path) -> None:
    path = tmp_path / "public.pth"
    torch.save(_renamed(colour, "first"), path)
    network, options = load_esrgan(path)
    known = {"scale": network.scale, "stride": network.stride, "receptive_field": 32}
    card = ModelCard(name="public", architecture="esrgan", options=options, **known)
    save_model(tmp_path / "public.safetensors", network, card)
    again = load_model(tmp_path / "public.safetensors").module
    image = torch.rand(1, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(again(image), network(image))


def test_names_of_the_public_network_are_all_known() -> None:
    with torch.device("meta"):
        names = RRDBNet(channels=3).state_dict()
    for naming in ("second", "third"):
        renamed = rename_keys({NAMINGS[naming](k): v for k, v in names.items()})
        assert set(renamed) == set(names)


class _Hostile:
    """Writes a file if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_hostile_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    mark, path = tmp_path / "was-run", tmp_path / "hostile.pth"
    torch.save({"params": _Hostile(mark)}, path)
    with pytest.raises(CheckpointError, match=r"hostile\.pth cannot be read as plain"):
        load_esrgan(path)
    path.write_bytes(pickle.dumps(_Hostile(mark), protocol=2))
    with pytest.raises(CheckpointError, match="cannot be read as plain"):
        load_esrgan(path)
    assert not mark.exists()


def _without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if k != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {**s, "head.weight": torch.zeros(1)}, "unknown layer 'head.weight'"),
        (lambda s: _without(s, "conv_first.weight"), "lack layers"),
        (lambda s: _without(s, "conv_hr.weight"), "do not fit"),
        (lambda s: {**s, "conv_hr.bias": torch.zeros(3)}, "do not fit"),
        (lambda s: {**s, "conv_hr.bias": torch.full((8,), torch.nan)}, "finite"),
        (lambda s: {**s, "conv_hr.bias": 3}, "named weights and nothing else"),
        (lambda s: {**s, "conv_first.weight": torch.zeros(8, 7, 3, 3)}, "sizes"),
        (lambda s: {**s, "conv_first.weight": torch.zeros(8)}, "sizes"),
        (lambda s: [s], "named weights and nothing else"),
    ],
)
def test_other_weights_are_refused(colour, change, message, tmp_path):
    path = tmp_path / "other.pth"
    torch.save(change(colour.state_dict()), path)
    with pytest.raises(CheckpointError, match=message):
        load_esrgan(path)


@pytest.mark.parametrize("content", [None, b"", b"no weights at all"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_missing_and_damaged_files_are_refused(content, suffix, tmp_path):
    path = tmp_path / f"bad{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"bad{suffix} cannot be read"):
        load_esrgan(path)
