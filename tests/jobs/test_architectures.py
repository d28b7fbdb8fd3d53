"""The list of architectures, and public weights on the shelf."""

import json

import numpy as np
import pytest
import torch

from napari_semsr.cli.command import main
from napari_semsr.core.errors import CheckpointError, WriteError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import run
from napari_semsr.inference.engine import enhance_array
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.jobs import models as shelf
from napari_semsr.jobs.models import MODELS_ARCHITECTURES
from napari_semsr.models.architectures.esrgan import RRDBNet
from napari_semsr.models.checkpoint import build, build_discriminator, load_model

pytestmark = pytest.mark.usefixtures("own_shelf")


@pytest.fixture
def public(tmp_path):
    """Small weights, named and wrapped as published ones are."""
    torch.manual_seed(0)
    network = RRDBNet(width=4, blocks=1, growth=2, channels=3)
    path = tmp_path / "public weights x4.pth"
    torch.save({"params_ema": network.state_dict()}, path)
    return path


@pytest.mark.broad
def test_listed_options_build_what_is_listed():
    found = run(MODELS_ARCHITECTURES.job())
    for row in found.architectures:
        if row["weights"] < 2_000_000:
            network = build(row["name"], row["options"])
            assert sum(p.numel() for p in network.parameters()) == row["weights"]
            assert (network.stride, network.scale) == (row["stride"], row["scale"])
    small = {**found.discriminators[0]["options"], "width": 4}
    assert build_discriminator(found.discriminators[0]["name"], small)
    assert all(row["summary"].endswith(".") for row in found.architectures)


def test_command_lists_them(capsys):
    assert main(["models", "architectures"]) == 0
    said = capsys.readouterr().out
    assert "1.04 M weights, stride 4, scale 1: Nine" in said
    assert "patch-gan (discriminator)    2.76 M weights" in said
    assert main(["models", "architectures", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) >= {
        "architectures",
        "discriminators",
    }


def test_public_weights_become_a_model_that_enhances(public, own_shelf, rng):
    made = run(shelf.MODELS_IMPORT.job(public))
    assert made.card["name"] == "public-weights-x4"
    loaded = load_model(own_shelf / "public-weights-x4.safetensors")
    assert loaded.card.scale == 4
    image = (rng.random((40, 36)) * 255).astype(np.uint8)
    options = EnhanceOptions(tile=16, precision="fp32", device="cpu")
    result = run(enhance_array(Micrograph(image), loaded, options))
    assert result.shape == (160, 144)
    with pytest.raises(WriteError, match="--overwrite"):
        run(shelf.MODELS_IMPORT.job(public))


def test_other_pickles_are_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"layer.weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=r"unknown layer 'layer\.weight'"):
        run(shelf.MODELS_IMPORT.job(path))
