"""Devices are found, refused in one sentence, and known for what they can do."""

from types import SimpleNamespace

import pytest
import torch

from napari_semsr.core import DeviceMemoryError, OptionError
from napari_semsr.models import devices
from napari_semsr.models.devices import (
    convert_memory_errors,
    device_count,
    find_device,
    get_free_memory,
    has_fast_bf16,
    is_out_of_memory_error,
)
from tests.refusals import refused

CPU = torch.device("cpu")
OLD_DRIVER = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update "
    "your GPU driver by downloading and installing a new version."
)


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    """A machine of which nothing was tried, with no variable that hides cards."""
    monkeypatch.setattr(devices, "working_devices", set())
    for names in vars(devices)["_HIDES"].values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    for kind in ("cuda", "xpu"):
        monkeypatch.setattr(getattr(torch, kind), "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def cards(monkeypatch):
    """Two CUDA cards that compute, as far as anybody can tell."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Card X")
    monkeypatch.setattr(devices, "can_compute", lambda device: True)


def _broken(monkeypatch, error, only=None):
    """Let a small convolution fail, on one of the cards alone where it is named."""
    tried = []

    def fail(device):
        tried.append(str(device))
        if only in (None, str(device)):
            raise error
        return True

    monkeypatch.setattr(devices, "can_compute", fail)
    return tried


@pytest.mark.parametrize("name", ["cuda:7", "xpu", "mps"])
def test_a_kind_that_is_not_here_is_refused_with_the_reason(name, monkeypatch):
    def unbuilt():
        raise AssertionError("Torch not compiled")

    for kind in ("cuda", "xpu"):
        monkeypatch.setattr(getattr(torch, kind), "init", unbuilt)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: False)
    reason = f"built without {name[:4].upper().rstrip(':')}"
    with refused(OptionError, "device-missing", match=reason):
        find_device(name)
    assert find_device("auto") == (CPU, None)
    for unknown in ("foo", "cuda:x"):
        with refused(OptionError, "unknown-value", match=f"auto, cpu, .*'{unknown}'"):
            find_device(unknown)


@pytest.mark.parametrize(
    ("error", "hidden", "reason"),
    [
        (OLD_DRIVER, None, r"driver on your system is too old .*11040"),
        ("Found no NVIDIA driver on your system. Please", None, "your system"),
        ("No CUDA GPUs are available", "", "CUDA_VISIBLE_DEVICES is ''"),
    ],
)
def test_drivers_and_hidden_cards_are_told(error, hidden, reason, monkeypatch):
    def fail():
        raise RuntimeError(error)

    monkeypatch.setattr(torch.cuda, "init", fail)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    with refused(OptionError, "device-missing", match=reason):
        find_device("cuda")
    # a card without a driver that works was to be expected; one that is hidden was not
    device, note = find_device("auto")
    assert device == CPU
    assert (note is not None) == ("too old" in error)


def test_cards_are_taken_by_number_or_the_first(cards):
    assert device_count("cuda") == 2
    assert device_count("tpu") == 0
    assert find_device("auto") == (torch.device("cuda"), None)
    assert find_device("cuda").device == torch.device("cuda")
    assert find_device("cuda:1").device == torch.device("cuda:1")
    with refused(OptionError, "device-missing", match=r"cuda:7 .* cuda:0 to cuda:1\.$"):
        find_device("cuda:7")
    assert find_device("cpu") == (CPU, None)


def test_a_card_that_is_too_old_is_told_by_its_capability(cards, monkeypatch):
    no_kernel = "CUDA error: no kernel image is available for execution on the device"
    tried = _broken(monkeypatch, RuntimeError(no_kernel))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (3, 5))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "compute_120"])
    told = r"Device cuda \(Card X\) .*3\.5.*sm_75, compute_120"
    with refused(OptionError, "device-unusable", match=told):
        find_device("cuda")
    device, note = find_device("auto")
    assert device == CPU
    assert note.startswith("Device cuda (Card X) cannot compute")
    assert tried == ["cuda", "cuda", "cuda:1"]


def test_a_card_that_gives_wrong_sums_is_not_taken(cards, monkeypatch):
    monkeypatch.setattr(devices, "can_compute", lambda device: False)
    with refused(OptionError, "device-unusable"):
        find_device("cuda")


def test_a_full_card_is_tried_again_later(cards, monkeypatch):
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB")
    _broken(monkeypatch, full)
    with refused(DeviceMemoryError, "device-memory", match="cuda"):
        find_device("cuda")
    assert find_device("auto").device == CPU
    monkeypatch.setattr(devices, "can_compute", lambda device: True)
    assert find_device("auto").device == torch.device("cuda")


@pytest.mark.parametrize(
    ("capability", "built", "expected"),
    [
        ((8, 9), ["sm_80"], True),  # binary code of the same generation
        ((8, 0), ["sm_86"], False),
        ((12, 0), ["sm_90"], False),
        ((12, 0), ["sm_90", "compute_90"], True),  # portable code
        ((9, 0), ["sm_90a"], False),
    ],
)
def test_what_is_built_for_a_card(capability, built, expected):
    assert vars(devices)["_is_built_for"](capability, built) is expected


def test_bf16_is_asked_of_the_very_card(cards, monkeypatch):
    known = {"cuda:0": (7, 5), "cuda:1": (9, 0)}
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: known[str(device)]
    )
    assert not has_fast_bf16(torch.device("cuda:0"))
    assert has_fast_bf16(torch.device("cuda:1"))
    assert not has_fast_bf16(torch.device("mps"))
    assert not has_fast_bf16(torch.device("xpu"))


def test_bf16_is_refused_where_apples_system_has_none(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *_: False)
    devices.check_bf16_support(CPU)
    with refused(OptionError, "precision-unsupported"):
        devices.check_bf16_support(torch.device("mps"))


def test_what_torch_holds_and_does_not_use_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 70)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (100, 500))
    assert get_free_memory(torch.device("cuda:1")) == 100 + 70 - 30
    assert get_free_memory(CPU) > 0


def test_memory_of_intels_card_is_known_where_it_does_not_tell(monkeypatch):
    def silent(_):
        raise RuntimeError("The device doesn't support querying the available memory.")

    about = SimpleNamespace(total_memory=1000)
    monkeypatch.setattr(torch.xpu, "mem_get_info", silent)
    monkeypatch.setattr(torch.xpu, "memory_reserved", lambda _: 300)
    monkeypatch.setattr(torch.xpu, "memory_allocated", lambda _: 200)
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda _: about)
    assert get_free_memory(torch.device("xpu")) == 800
    monkeypatch.setattr(devices, "get_host_memory", lambda: 50)  # which it shares
    assert get_free_memory(torch.device("xpu")) == 50 + 100


def test_memory_of_apples_card_is_the_machines(monkeypatch):
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 1000)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 300)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 200)
    assert get_free_memory(torch.device("mps")) == 800
    monkeypatch.setattr(devices, "get_host_memory", lambda: 50)
    assert get_free_memory(torch.device("mps")) == 50 + 100


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"),
        RuntimeError("Invalid buffer size: 19.45 GB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling create"),
        RuntimeError(
            "UR backend failed. returns:40 (UR_RESULT_ERROR_OUT_OF_RESOURCES)"
        ),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=lambda error: str(error)[:30],
)
def test_every_device_says_in_its_words_that_memory_ran_out(error):
    with (
        refused(DeviceMemoryError, "device-memory", match="cuda:1"),
        convert_memory_errors(torch.device("cuda:1"), "a tile"),
    ):
        raise error
    assert not is_out_of_memory_error(RuntimeError("shapes do not match"))
