"""The list of architectures."""

import json

import pytest

from napari_semsr.cli.command import main
from napari_semsr.core.progress import run
from napari_semsr.jobs.models import MODELS_ARCHITECTURES
from napari_semsr.models.checkpoint import build_discriminator, build_network


@pytest.mark.broad
def test_listed_options_build_what_is_listed():
    found = run(MODELS_ARCHITECTURES.job())
    for row in found.architectures:
        if row["weights"] < 2_000_000:
            network = build_network(row["name"], row["options"])
            assert sum(p.numel() for p in network.parameters()) == row["weights"]
            assert (network.stride, network.scale) == (row["stride"], row["scale"])
    small = {**found.discriminators[0]["options"], "width": 4}
    assert build_discriminator(found.discriminators[0]["name"], small)
    assert all(row["summary"].endswith(".") for row in found.architectures)


def test_command_lists_them(capsys):
    assert main(["models", "architectures"]) == 0
    said = capsys.readouterr().out
    assert "1.04 M weights, stride 4, scale 1: Residual network with nine" in said
    assert "patch-gan (discriminator)    2.76 M weights" in said
    assert main(["models", "architectures", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) >= {
        "architectures",
        "discriminators",
    }
