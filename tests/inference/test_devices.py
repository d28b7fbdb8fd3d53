"""Cards that are not trusted unseen, and what a run on a card does otherwise."""

import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from napari_semsr.core import DeviceMemoryError, Micrograph, run
from napari_semsr.inference import predictor as predicting, tiles
from napari_semsr.inference.engine import enhance_in_memory
from napari_semsr.inference.executors import (
    LocalExecutor,
    TileWorker,
    create_tile_source,
    run_tiles,
)
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.inference.predictor import (
    Predictor,
    choose_device,
    get_network_details,
    use_fp32_convolutions,
)
from napari_semsr.inference.tiles import FixedMoments, MeasuredMoments, TiledRun
from napari_semsr.models import Device
from tests.children import LIMIT_S
from tests.enhancing import plan_of
from tests.refusals import refused

FP32 = EnhanceOptions(tile=32, precision="fp32", device="cpu")
CPU = torch.device("cpu")


@pytest.fixture
def apple(monkeypatch, tmp_path):
    """A machine with an Apple GPU: what it computes is set by the test."""
    monkeypatch.setenv("SEMSR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "napari_semsr.models.find_device", lambda name: Device(torch.device("mps"))
    )
    monkeypatch.setattr(
        "napari_semsr.models.get_device_name", lambda device: "Apple M9"
    )
    compute, asked = predicting.run_on_device, []

    def tell(change):
        def computed(module, tile, device):
            made = compute(module, tile, CPU)
            if device.type == "cpu":
                return made
            asked.append(device)
            return change(made)

        monkeypatch.setattr(predicting, "run_on_device", computed)
        return asked

    return tell


def _raise(error):
    def change(_):
        raise error

    return change


@pytest.mark.parametrize("kind", ["plain", "norm", "double", "informed"])
def test_a_card_that_agrees_with_the_cpu_is_taken(kind, make_loaded, apple):
    asked, loaded = apple(lambda made: made * (1 + 1e-5)), make_loaded(kind)
    for _ in range(2):
        assert choose_device(loaded) == (torch.device("mps"), None)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda made: made + 0.1, "values that differ from those of the CPU ("),
        (lambda made: made.flip(-1), "values that differ from those of the CPU ("),
        (
            lambda made: made * torch.nan,
            "values that differ from those of the CPU (nan",
        ),
        (torch.zeros_like, "values that differ from those of the CPU ("),
        (lambda made: made[..., :-1], "another shape than the CPU"),
        (
            _raise(NotImplementedError("aten::x is not implemented for MPS.\nAsk")),
            "fails on a test tile (aten::x is not implemented for MPS)",
        ),
        (
            _raise(TypeError("the MPS framework doesn't support float64")),
            "fails on a test tile (the MPS framework doesn't support float64)",
        ),
    ],
)
def test_a_card_that_differs_or_fails_is_left_and_that_is_said(
    change, said, make_loaded, apple, rng
):
    asked, loaded = apple(change), make_loaded("plain")
    device, note = choose_device(loaded)
    assert device == CPU
    assert note.startswith("mps (Apple M9) ")
    assert said in note
    assert note.endswith(
        ": the CPU is used instead; set `device=mps` to override this."
    )
    field = Micrograph(rng.random((40, 50), dtype=np.float32))
    made = run(enhance_in_memory(field, loaded, FP32.replace(device="auto")))
    report = made.metadata["enhance"]
    assert report["device"] == "cpu"
    assert report["notes"].count(note) == 1
    assert get_network_details(EnhanceOptions(), loaded)["device"] == "cpu: Apple M9"
    assert len(asked) == 1  # it is remembered
    assert choose_device(loaded, "mps") == (torch.device("mps"), None)  # who insists


def test_what_was_found_is_kept_for_the_next_start(make_loaded, apple, monkeypatch):
    asked, loaded = apple(lambda made: made + 1), make_loaded("plain")
    first = choose_device(loaded)
    predicting.probed_networks.clear()
    assert choose_device(loaded) == first
    assert len(asked) == 1
    predicting.probed_networks.clear()
    monkeypatch.setattr(
        "napari_semsr.models.get_device_name", lambda device: "Apple M10"
    )
    choose_device(loaded)
    predicting.probed_networks.clear()
    monkeypatch.setattr(torch, "__version__", "99.0")
    choose_device(loaded)
    assert len(asked) == 3  # another card, another PyTorch


def test_a_card_without_memory_is_asked_again(make_loaded, apple):
    full = DeviceMemoryError("Device mps has no memory left for a test tile.")
    loaded, asked = make_loaded("plain"), apple(_raise(full))
    device, note = choose_device(loaded)
    assert device == CPU
    assert "has no memory for a tile" in note
    choose_device(loaded)
    assert len(asked) == 2


def test_a_graph_of_others_runs_on_the_cpu_whatever_is_asked(make_loaded, apple):
    apple(lambda made: made)
    loaded = make_loaded("plain")
    loaded.module.opaque = True
    device, note = choose_device(loaded, "mps")
    assert device == CPU
    assert "runs on the CPU" in note


# A card that computes as the CPU does, to see what a run does there.


@pytest.fixture
def card(monkeypatch):
    """Take the CPU for a card of Intel's."""
    there = torch.device("xpu")
    monkeypatch.setattr(predicting, "choose_device", lambda *_: Device(there))
    place = predicting.copy_to_device
    monkeypatch.setattr(
        predicting, "copy_to_device", lambda module, _: place(module, CPU)
    )
    monkeypatch.setattr(
        "napari_semsr.models.to_device", lambda values, _: torch.from_numpy(values)
    )
    monkeypatch.setattr("napari_semsr.models.get_free_memory", lambda _: 1 << 32)


@pytest.mark.parametrize("kind", ["plain", "double", "strided"])
def test_a_run_on_a_card_is_that_on_the_cpu(kind, make_loaded, rng, card):
    loaded = make_loaded(kind)
    field = Micrograph(rng.random((150, 130), dtype=np.float32))
    made = run(enhance_in_memory(field, loaded, FP32))
    report = made.metadata["enhance"]
    assert report["device"] == "xpu"
    assert report["tiles"] > 8  # more than a batch
    whole = run(enhance_in_memory(field, loaded, FP32.replace(tile=256)))
    np.testing.assert_allclose(made.data, whole.data, atol=1e-5 * np.ptp(whole.data))


def _executor(loaded, shape, rng):
    image = Micrograph(rng.random(shape, dtype=np.float32))
    predictor = Predictor(loaded, precision="fp32")
    plan = plan_of(image, loaded, FP32, predictor)
    return LocalExecutor(TiledRun(plan, np.zeros(shape, np.float32)), predictor), plan


def test_the_next_tiles_are_read_while_a_card_computes(
    make_loaded, rng, card, monkeypatch
):
    both = threading.Barrier(2, timeout=LIMIT_S)
    predict = Predictor.predict_many

    def computing(self, windows, scaling):
        both.wait()  # passes when a second thread has come, too
        return predict(self, windows, scaling)

    monkeypatch.setattr(Predictor, "predict_many", computing)
    executor, plan = _executor(make_loaded("plain"), (64, 128), rng)
    places = [tile.index for tile in plan.outputs]
    assert len(places) == 8
    work = run_tiles(executor, create_tile_source(places), 2)
    assert sorted(p.index for group in work for p in group or []) == places


def test_one_pass_at_a_time_is_launched_on_a_card(make_loaded, rng, card, monkeypatch):
    inside, most = [], []
    forward = nn.Conv2d.forward

    def counted(self, x):
        inside.append(1)
        most.append(len(inside))
        made = forward(self, x)
        inside.pop()
        return made

    executor, plan = _executor(make_loaded("plain"), (64, 128), rng)
    monkeypatch.setattr(nn.Conv2d, "forward", counted)
    places = [tile.index for tile in plan.outputs]
    assert (
        len([g for g in run_tiles(executor, create_tile_source(places), 2) if g]) == 4
    )
    assert max(most) == 1


_seen, _alive = [], []


class Hungry(nn.Module):
    """Has no memory for two tiles at once; notes what an earlier pass still holds."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _alive.append(sum(ref() is not None for ref in _seen))
        held = torch.ones_like(x)
        _seen.append(weakref.ref(held))
        if x.numel() > 40 * 40:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return x * held


def test_a_smaller_pass_begins_without_what_failed(make_loaded, rng):
    loaded = make_loaded("identity")
    loaded = replace(loaded, module=Hungry())
    image = Micrograph(rng.random((64, 64), dtype=np.float32))
    known = Predictor(make_loaded("identity"), device="cpu", precision="fp32")
    plan = plan_of(image, make_loaded("identity"), FP32, known)
    predictor = Predictor(loaded, device="cpu", precision="fp32")
    worker = TileWorker(TiledRun(plan, np.zeros((64, 64), np.float32)), predictor)
    _seen.clear()
    _alive.clear()
    made = worker.enhance([tile.index for tile in plan.outputs])
    assert len(made) == 4
    assert "one at a time" in made[0].notes[0]
    assert len(_alive) == 5
    assert not any(_alive)


def test_pieces_that_another_thread_has_cut_are_not_cut_again(make_loaded, rng):
    image = Micrograph(rng.random((128, 128), dtype=np.float32))
    loaded = make_loaded("identity")
    predictor = Predictor(loaded, device="cpu", precision="fp32")
    plan = plan_of(image, loaded, FP32.replace(tile=128), predictor)
    worker = TileWorker(TiledRun(plan, np.zeros(image.shape, np.float32)), predictor)
    cut = vars(TileWorker)["_halve_pieces"]
    for _ in range(2):  # both had tried the whole tile
        cut(worker, 1)
    assert worker.pieces == 2
    cut(worker, 2)
    with refused(DeviceMemoryError, "device-memory", match="34 px"):
        cut(worker, 4)


# The arithmetic of a card.


def test_fp32_on_a_card_is_not_tf32_and_settings_are_put_back():
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.benchmark
    try:
        cudnn.allow_tf32, cudnn.benchmark = True, True
        with use_fp32_convolutions():
            assert not cudnn.allow_tf32
            assert not cudnn.benchmark
        assert cudnn.allow_tf32
        assert cudnn.benchmark
        with pytest.raises(ZeroDivisionError), use_fp32_convolutions():
            raise ZeroDivisionError
        assert cudnn.allow_tf32
    finally:
        cudnn.allow_tf32, cudnn.benchmark = before


@pytest.mark.skipif(
    not hasattr(torch.backends.cudnn, "conv"), reason="PyTorch before 2.9"
)
def test_the_newer_switch_of_tf32_is_respected():
    conv, rnn = torch.backends.cudnn.conv, torch.backends.cudnn.rnn
    before = conv.fp32_precision, rnn.fp32_precision
    try:
        conv.fp32_precision, rnn.fp32_precision = "tf32", "ieee"
        with pytest.raises(RuntimeError):  # the older one is then of no use
            _ = torch.backends.cudnn.allow_tf32
        with use_fp32_convolutions():
            assert conv.fp32_precision == "ieee"
        assert conv.fp32_precision == "tf32"
    finally:
        conv.fp32_precision, rnn.fp32_precision = before


def test_statistics_need_no_double_precision_of_a_card(make_loaded, rng, monkeypatch):
    network = make_loaded("norm").module
    x = torch.from_numpy(rng.random((1, 1, 32, 32), dtype=np.float32))
    with torch.no_grad(), MeasuredMoments():
        expected = network(x)
    moved = []
    monkeypatch.setattr(tiles, "has_float64", lambda device: False)
    monkeypatch.setattr(
        torch.Tensor, "double", lambda self: moved.append(1) or self.to(torch.float64)
    )
    with torch.no_grad(), MeasuredMoments():
        made = network(x)
    np.testing.assert_array_equal(made, expected)
    found = tiles.move_to_device(
        [tiles.Moments(4.0, torch.ones(2).double(), torch.ones(2).double())],
        torch.device("meta"),  # which stands for a card without it
    )
    assert found[0].mean.device == CPU


def test_known_statistics_are_copied_to_a_card_once(make_loaded, rng, monkeypatch):
    predictor = Predictor(make_loaded("norm"), device="cpu", precision="fp32")
    copied, copy = [], predicting.move_to_device

    def counted(*given):
        copied.append(1)
        return copy(*given)

    monkeypatch.setattr(predicting, "move_to_device", counted)
    one = tiles.Moments(1.0, torch.zeros(4).double(), torch.ones(4).double())
    for known in (tiles.Statistics((one,)) for _ in range(2)):
        predictor.statistics = known
        for _ in range(3):
            assert isinstance(
                vars(Predictor)["_statistics_context"](predictor), FixedMoments
            )
    assert len(copied) == 2
