"""Cards that are not trusted unseen, and what a run on a card does otherwise."""

import numpy as np
import pytest
import torch

from napari_semsr.core import DeviceMemoryError, Micrograph, run
from napari_semsr.inference import (
    EnhanceOptions,
    enhance_in_memory,
    get_network_details,
    predictor as predicting,
)
from napari_semsr.inference.predictor import choose_device, use_fp32_convolutions
from napari_semsr.models import Device

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
    "change",
    [
        lambda made: made + 0.1,
        lambda made: made * torch.nan,
        lambda made: made[..., :-1],
        _raise(NotImplementedError("aten::x is not implemented for MPS.\nAsk")),
        _raise(TypeError("the MPS framework doesn't support float64")),
    ],
    ids=["differs", "nan", "shape", "not implemented", "no float64"],
)
def test_a_card_that_differs_or_fails_is_left_and_that_is_said(
    change, make_loaded, apple, rng
):
    asked, loaded = apple(change), make_loaded("plain")
    device, note = choose_device(loaded)
    assert device == CPU
    assert note.startswith("mps (Apple M9) ")
    assert "\n" not in note
    field = Micrograph(rng.random((40, 50), dtype=np.float32))
    made = run(enhance_in_memory(field, loaded, FP32.replace(device="auto")))
    report = made.metadata["enhance"]
    assert report["device"] == "cpu"
    assert report["notes"].count(note) == 1
    assert get_network_details(EnhanceOptions(), loaded)["device"] == "cpu: Apple M9"
    assert len(asked) == 1  # it is remembered
    assert choose_device(loaded, "mps") == (torch.device("mps"), None)  # who insists


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


# The arithmetic of a card.


def test_fp32_on_a_card_is_not_tf32_and_settings_are_put_back(monkeypatch):
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "allow_tf32", True)
    monkeypatch.setattr(cudnn, "benchmark", True)
    with use_fp32_convolutions():
        assert not cudnn.allow_tf32
        assert not cudnn.benchmark
    assert cudnn.allow_tf32
    assert cudnn.benchmark


@pytest.mark.skipif(
    not hasattr(torch.backends.cudnn, "conv"), reason="PyTorch before 2.9"
)
def test_the_newer_switch_of_tf32_is_respected():
    conv, rnn = torch.backends.cudnn.conv, torch.backends.cudnn.rnn
    before = conv.fp32_precision, rnn.fp32_precision
    try:  # the older one is of no use where these differ
        conv.fp32_precision, rnn.fp32_precision = "tf32", "ieee"
        with use_fp32_convolutions():
            assert conv.fp32_precision == "ieee"
        assert conv.fp32_precision == "tf32"
    finally:
        conv.fp32_precision, rnn.fp32_precision = before
