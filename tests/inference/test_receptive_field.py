"""Receptive fields of networks; beside the engine, whose small networks it shares."""

import pytest
from torch import nn

from napari_semsr.models import (
    measure_effective_fields,
    measure_effective_halo,
    probe_network,
)
from tests.models.reach import measure


def _conv(size, pad, **more):
    return nn.Conv2d(1, 1, size, padding=pad, **more)


_FOLDED = nn.Conv2d(16, 16, 3, padding=1), nn.PixelShuffle(4)
CASES = {
    "identity": (nn.Identity(), 1, 0),
    "3x3 zero weights": (_conv(3, 1), 1, 1),
    "7x7 to one side": (nn.Sequential(nn.ZeroPad2d((0, 6, 0, 6)), _conv(7, 0)), 1, 6),
    "widely dilated": (_conv(3, 200, dilation=200), 1, 200),
    "unshuffled by 4": (nn.Sequential(nn.PixelUnshuffle(4), *_FOLDED), 4, 4),
    "instance norm": (nn.Sequential(nn.InstanceNorm2d(1), _conv(3, 1)), 1, 1),
}
nn.init.zeros_(CASES["3x3 zero weights"][0].weight)


@pytest.mark.parametrize("name", CASES)
def test_measure_finds_the_known_reach(name):
    module, stride, expected = CASES[name]
    assert measure(module, stride=stride) == expected


def test_probe_counts_live_norms_only(make_loaded):
    assert probe_network(make_loaded("norm").module, stride=4).norms == 2
    assert probe_network(make_loaded("strided").module, stride=4).norms == 0
    tracked = nn.InstanceNorm2d(1, track_running_stats=True)
    still = nn.Sequential(nn.BatchNorm2d(1), tracked)
    assert probe_network(still.eval(), stride=1).norms == 0


def test_a_card_tells_the_effective_field(make_loaded):
    module = make_loaded("strided").module
    exact = probe_network(module, stride=4).halo
    found = measure_effective_fields(module, stride=4, halo=exact)
    assert list(found) == ["0.01", "0.001"]
    assert 0 < found["0.01"] <= found["0.001"] <= exact
    assert measure_effective_fields(module, stride=4, halo=None) == {}
    how = {"stride": 4, "halo": exact}
    halo = measure_effective_halo(module, tolerance=1e-2, **how)
    assert 0 < halo <= exact
    assert halo % 4 == 0
