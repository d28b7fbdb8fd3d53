"""The figures on the manual's page of architectures are those of the code."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from napari_semsr.models import ARCHITECTURES, DISCRIMINATORS
from napari_semsr.models.architectures.published import PUBLISHED_NETWORKS
from tests.models.reach import count_weights, measure

PAGE = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"
NARROW: dict[str, dict[str, Any]] = {
    "multi-scale-unet": {"width": 8},
    "pix2pix": {"width": 2},
    "srcnn": {"widths": (2, 2)},
    "srcnn-attention": {"widths": (2, 2)},
    "espcn": {"widths": (2, 2)},
    "esrgan": {"width": 2, "growth": 2},
}


def _rows(columns: int) -> Iterator[list[str]]:
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == columns and re.fullmatch(r"`[\w-]+`", cells[0]):
            yield [cells[0].strip("`"), *cells[1:]]


NETWORKS = {row[0]: row[1:] for row in _rows(8)}
JUDGES = {row[0]: row[1:] for row in _rows(3) if row[0] in DISCRIMINATORS}


def _number(text: str) -> int:
    return int(text.replace(" ", ""))


def test_every_published_network_is_on_the_page() -> None:
    assert set(PUBLISHED_NETWORKS) | {"two-scale", "place"} == set(NETWORKS)
    assert set(JUDGES) == set(DISCRIMINATORS)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_operations_stride_and_scale_are_as_stated(name: str) -> None:
    weights, operations, _, stride, scale, _, _ = NETWORKS[name]
    with torch.device("meta"):
        network = ARCHITECTURES[name]().eval()
    assert count_weights(network) == _number(weights)
    assert (network.stride, network.scale) == (int(stride), int(scale))
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(torch.empty(1, 1, 256, 256, device="meta"))
    thousands = counter.get_total_flops() / 2 / 256**2 / 1000
    assert round(thousands) == int(operations.removesuffix(" k"))


@pytest.mark.broad
@pytest.mark.parametrize("name", NETWORKS)
def test_reach_is_as_stated(name: str) -> None:
    network = ARCHITECTURES[name](**NARROW.get(name, {"width": 4})).eval()
    assert measure(network, stride=network.stride) == int(NETWORKS[name][2])


@pytest.mark.parametrize("name", JUDGES)
def test_weights_of_discriminators_are_as_stated(name: str) -> None:
    with torch.device("meta"):
        assert count_weights(DISCRIMINATORS[name]()) == _number(JUDGES[name][0])
