"""Memory that runs out while tiles step together."""

import logging
import platform

import numpy as np
import pytest
import torch

from napari_semsr.core import DeviceMemoryError, Micrograph, Returning, run
from napari_semsr.inference import EnhanceOptions, as_one as once
from napari_semsr.inference.buffers import NoRoomError, Room, TensorStore
from napari_semsr.inference.engine import MemoryWatch, enhance_array
from napari_semsr.inference.lockstep import TilePass
from napari_semsr.inference.lockstep_plan import plan_lockstep
from napari_semsr.inference.predictor import Predictor
from napari_semsr.inference.statistics import Gathered, pooled, sums_of
from tests.children import run_python
from tests.enhancing import fill, store_for, tiles_of

SMALL = EnhanceOptions(
    tile=64, precision="fp32", device="cpu", memory_gb=1e-6, norm="whole"
)


def _uneven(rng, shape):
    return (rng.random(shape) * np.linspace(50, 250, shape[1])).astype(np.uint8)


@pytest.fixture
def short(monkeypatch):
    """Let windows above a number of pixels fail, and count them."""
    failed = []

    def limit(pixels):
        begin = TilePass.begin

        def guarded(self, window):
            if window.numel() > pixels:
                failed.append(tuple(window.shape[2:]))
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
            return begin(self, window)

        monkeypatch.setattr(TilePass, "begin", guarded)
        return failed

    return limit


@pytest.mark.parametrize("tile", [64, 128])
def test_tiles_in_lockstep_are_halved_and_it_is_said(
    tile, make_loaded, whole, rng, short, tmp_path, caplog
):
    image, loaded = _uneven(rng, (145, 130)), make_loaded("norm")
    expected = whole(image, loaded)
    failed = short(60 * 60)
    micrograph, options = Micrograph(image), SMALL.replace(tile=tile)
    store = store_for(tmp_path / "a.ome.zarr", micrograph, loaded, options)
    steps = []
    with caplog.at_level(logging.WARNING, "napari_semsr"):
        report = run(fill(micrograph, loaded, store, options), steps.append)
    assert len(failed) == tile // 64
    note = "Memory was short: tiles in lockstep were cut to 32 px."
    assert note in report.notes
    assert note in caplog.text
    assert note in {step.message for step in steps}
    assert store.notes()["way"]["core"] == 32
    assert np.abs(store.level0[:] - expected).max() <= 1e-5 * np.ptp(expected)


@pytest.mark.broad
def test_a_run_that_was_cut_is_resumed_as_it_was(make_loaded, rng, short, tmp_path):
    image, loaded = Micrograph(_uneven(rng, (145, 130))), make_loaded("norm")
    short(60 * 60)
    path = tmp_path / "a.ome.zarr"
    store = store_for(path, image, loaded, SMALL)
    expected = run(enhance_array(image, loaded, SMALL)).data
    job = fill(image, loaded, store, SMALL)
    while len(store.pending()) > 5:
        next(job)
    job.close()
    again = store_for(path, image, loaded, SMALL, resume=True)
    report = run(fill(image, loaded, again, SMALL))
    assert report.resumed == 4
    np.testing.assert_array_equal(again.level0[:], expected)


def test_full_disks_and_lack_of_memory_are_told(make_loaded, rng, short, monkeypatch):
    image, loaded = Micrograph(_uneven(rng, (145, 130))), make_loaded("norm")
    asked = []

    def take(self, size):
        asked.append(size)
        raise NoRoomError("full")

    with monkeypatch.context() as full:
        full.setattr(Room, "take", take)
        with pytest.raises(NoRoomError, match="full"):
            run(enhance_array(image, loaded, SMALL))
    assert len(asked) == 1  # smaller tiles are not tried
    short(100)
    with pytest.raises(DeviceMemoryError, match=r"cut to windows of \d+ px") as caught:
        run(enhance_array(image, loaded, SMALL))
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_goes_in_lockstep(make_loaded, whole, rng, monkeypatch):
    image, loaded = _uneven(rng, (145, 130)), make_loaded("norm")
    expected = whole(image, loaded)

    def fail(self, window, scaling):
        raise DeviceMemoryError("Device cuda has no memory left.")

    monkeypatch.setattr(once.Predictor, "predict", fail)
    options = SMALL.replace(memory_gb=8.0)
    made = run(enhance_array(Micrograph(image), loaded, options))
    report = made.metadata["enhance"]
    assert any("the field is not run whole" in note for note in report["notes"])
    assert np.abs(made.data - expected).max() <= 1e-5 * np.ptp(expected)


def test_halves_divide_the_tiles_of_the_output(make_loaded):
    loaded = make_loaded("norm")
    predictor = Predictor(loaded, device="cpu", precision="fp32")
    plan = tiles_of((1000, 900), loaded, predictor.probe, SMALL.replace(tile=96))
    found = plan_lockstep(predictor, plan, 10**12, core=480)
    cores = []
    while found is not None:
        cores.append(found.tiles.core)
        found = found.halved(predictor, 96)
    assert cores == [480, 192, 96, 48]


def test_what_a_run_holds_is_not_there_for_layers(make_loaded, rng, monkeypatch):
    budgets = []
    made = Room.__init__

    def note(self, budget, folder):
        budgets.append(budget)
        made(self, budget, folder)

    monkeypatch.setattr(Room, "__init__", note)
    image, loaded = Micrograph(_uneven(rng, (145, 130))), make_loaded("norm")
    need = Predictor(loaded, device="cpu").peak_bytes((148, 132)) / 1e9
    asked = SMALL.replace(memory_gb=0.99 * need)
    for held in (0, 1000, 10**9):
        monkeypatch.setattr(MemoryWatch, "grown_bytes", held)
        run(enhance_array(image, loaded, asked))
    assert budgets[0] > 1000
    assert budgets == [budgets[0], budgets[0] - 1000, 0]


def test_a_shelf_holds_no_more_than_it_was_given(tmp_path):
    room = Room(2**30, tmp_path)
    store = TensorStore(room)
    whole = torch.randn(4, 3, 80, 90)
    store.put("part", whole[1:2])
    whole.zero_()
    kept = store.get("part")
    assert kept.untyped_storage().nbytes() == kept.nbytes == room.used
    assert kept.std() > 0.9
    assert kept.data_ptr() != whole[1:2].data_ptr()


@pytest.mark.parametrize("channels", [1, 5])
def test_gathered_sums_are_pooled_in_the_order_of_tiles(channels):
    places = [(2, 0), (0, 1), (1, 7), (0, 0)]
    cores = [torch.randn(1, channels, 6 + r, 5 + c) for r, c in places]
    gathered = Gathered(9, channels)
    for place, core in zip(places, cores, strict=True):
        gathered.add(place, core)
    found = [sums_of(core) for core in cores]
    made = gathered.pooled(torch.device("cpu"))
    expected = pooled([found[i] for i in (3, 1, 2, 0)], torch.device("cpu"))
    assert made.count == expected.count == sum((6 + r) * (5 + c) for r, c in places)
    assert torch.equal(made.mean, expected.mean)
    assert torch.equal(made.variance, expected.variance)


MANY_TILES = """
import sys
from pathlib import Path
import psutil, torch
from torch.nn import functional
from napari_semsr.core import background
from napari_semsr.core.tiling import plan_tiles
from napari_semsr.inference.lockstep import LayerSynchronous
from napari_semsr.inference.buffers import Room
from napari_semsr.inference.lockstep_plan import find_refreshes, trace_network

class Norms(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(1, 8, 3, padding=1)
        self.last = torch.nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x):
        y = functional.relu(functional.instance_norm(self.first(x)))
        return x + self.last(functional.instance_norm(2 * y))

background.return_free_memory = lambda: None  # nothing is to be in pieces to begin with
torch.set_num_threads(1)
network = Norms().eval().requires_grad_(False)
found = find_refreshes(network, stride=1, smallest=4)
trace = trace_network(network, found, stride=1, smallest=4)
side, core = int(sys.argv[1]), 128
plan = plan_tiles((side, side), core=core, halo=found.halo, stride=1, constant=False)
lockstep = LayerSynchronous(
    network, trace, plan,
    source=lambda tile: torch.rand(1, 1, *tile.window.shape),
    room=Room(16 << 20, Path(sys.argv[2])), device=torch.device("cpu"),
)
own = psutil.Process()
before = most = own.memory_info().rss
for _ in lockstep.run(plan.tiles):
    most = max(most, own.memory_info().rss)
print(len(plan), lockstep.room.spilled / 1e6, (most - before) / 1e6)
"""


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="glibc only")
@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_tiles(tmp_path):
    said = run_python(MANY_TILES, 1792, tmp_path)
    tiles, spilled, grown = (float(word) for word in said.split())
    assert tiles == 196
    assert spilled > 150
    assert grown < 60


def test_freed_memory_is_returned_after_every_tile(make_loaded, rng, monkeypatch):
    returned = []
    monkeypatch.setattr(Returning, "now_and_then", lambda _: returned.append(1))
    image, loaded = Micrograph(_uneven(rng, (145, 130))), make_loaded("norm")
    predictor = Predictor(loaded, device="cpu", precision="fp32")
    plan = tiles_of((145, 130), loaded, predictor.probe, SMALL.replace(tile=64))
    found = plan_lockstep(predictor, plan, 0, core=64)
    run(enhance_array(image, loaded, SMALL))
    assert len(returned) == (len(found.trace.points) + 1) * len(found.tiles)
