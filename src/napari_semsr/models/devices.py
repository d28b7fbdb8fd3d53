"""PyTorch compute devices, their capabilities, and the diagnosis of failing devices.

The kinds of `torch.accelerator` that laboratories have are supported: ``cuda`` (also
AMD's cards under ROCm), ``mps`` (Apple) and ``xpu`` (Intel).
"""

import os
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.nn import functional

from napari_semsr import core

_CARDS = {"cuda": "an NVIDIA or AMD GPU", "mps": "an Apple GPU", "xpu": "an Intel GPU"}
_BF16_CAPABILITY = 8  # Ampere, the first NVIDIA generation with bf16 units
_PLAIN_SIZE = 8  # px
_NO_MEMORY = (
    "out of memory",  # CUDA, MPS, XPU, oneDNN, CUDA's driver
    "can't allocate memory",
    "not enough memory",
    "invalid buffer size",  # a tensor larger than Metal allows
    "alloc_failed",  # cuBLAS and cuDNN, for handles and workspaces
    "allocation_failed",
    "out_of_device_memory",  # Intel's unified runtime
    "out_of_host_memory",
    "out_of_resources",
)


class Device(NamedTuple):
    """Selected device, with an optional note."""

    device: torch.device
    note: str | None = None  # Reason why it is not the expected device


def device_count(kind: str) -> int:
    """Count the ``cuda``, ``mps`` or ``xpu`` devices visible to PyTorch.

    ``CUDA_VISIBLE_DEVICES`` and similar variables hide some; a MIG slice of a card
    counts as one. Other kinds count 0.
    """
    if kind not in _CARDS:
        return 0
    module: Any = getattr(torch, kind)
    present = torch.backends.mps if kind == "mps" else module
    return int(module.device_count()) if present.is_available() else 0


def find_device(name: str = "auto") -> Device:
    """Return the device with a given name, as `declare_device_option` accepts it.

    ``auto`` is the first device that works: a card of the kind for which this PyTorch
    is built, otherwise the CPU, with a note if there is a card that fails. Raises an
    `OptionError` if the named device does not exist or cannot compute, and a
    `DeviceMemoryError` if it has no memory left.
    """
    if name == "cpu":
        return Device(torch.device("cpu"))
    if name == "auto":
        return _find_working_device()
    kind, _, number = name.partition(":")
    if kind not in _CARDS or not (number or "0").isdecimal():
        choices = ", ".join(("auto", "cpu", *_CARDS))
        msg = f"A device must be one of {choices}, or cuda:1, got {name!r}."
        raise core.OptionError(msg, code="unknown-value")
    count, index = device_count(kind), int(number or 0)
    if count == 0:
        why = _explain_missing_device(kind)
        card = f"Device {name} needs {_CARDS[kind]}, but PyTorch finds none"
        msg = f"{card} ({why}): use `device=cpu`."
        raise core.OptionError(msg, code="device-missing")
    if index >= count:
        last = f"{kind}:0" if count == 1 else f"{kind}:0 to {kind}:{count - 1}"
        msg = f"Device {name} does not exist: PyTorch finds only {last}."
        raise core.OptionError(msg, code="device-missing")
    failure = _find_device_failure(torch.device(name))
    if failure is not None:
        msg = f"{failure}: use `device=cpu`."
        raise core.OptionError(msg, code="device-unusable")
    return Device(torch.device(name))


def find_training_device(name: str = "auto") -> Device:
    """Return the training device with a given name.

    As `find_device`, but ``auto`` is a CUDA card, otherwise the CPU, since training on
    other devices is not validated. Also raises an `OptionError` for Intel GPUs, on
    which Lightning does not train.
    """
    if name.partition(":")[0] == "xpu":
        msg = f"Training supports cpu, cuda and mps, got {name}."
        raise core.OptionError(msg, code="device-unsuitable")
    device = find_device(name)
    is_untried = name == "auto" and device.device.type != "cuda"
    return Device(torch.device("cpu"), device.note) if is_untried else device


def _find_working_device() -> Device:
    """Return the first working GPU, otherwise the CPU."""
    failures: list[str] = []
    for kind in _CARDS:  # PyTorch is built for one of them
        for index in range(device_count(kind)):
            device = torch.device(kind if index == 0 else f"{kind}:{index}")
            try:
                failure = _find_device_failure(device)
            except core.DeviceMemoryError as error:
                failure = str(error).rstrip(".")
            if failure is None:
                return Device(device, _create_device_note(failures, f"{device}"))
            failures.append(failure)
    if not failures and torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        reason = _explain_missing_device("cuda")
        if not any(words in reason for words in _NO_CARD):
            failures.append(f"CUDA cannot be used ({reason})")
    return Device(torch.device("cpu"), _create_device_note(failures, "the CPU"))


def _create_device_note(failures: list[str], device_name: str) -> str | None:
    if not failures:
        return None
    return core.Message(
        f"{failures[0]}: using {device_name} instead.", "device-unusable"
    )


def _explain_missing_device(kind: str) -> str:
    """Return the reason why PyTorch finds no device of a given kind."""
    if kind == "mps":
        if torch.backends.mps.is_built():
            return "it needs macOS 14 on Apple silicon"
        return f"PyTorch {torch.__version__} is built without MPS"
    module: Any = getattr(torch, kind)
    try:
        module.init()
    except AssertionError:
        return f"PyTorch {torch.__version__} is built without {kind.upper()}"
    except Exception as error:  # noqa: BLE001 - drivers fail in many ways
        for name in _HIDES[kind]:
            if name in os.environ:
                return f"{name} is {os.environ[name]!r}"
        return get_first_error_line(error).partition(". ")[0]
    return "none is visible"


_HIDES = {
    "cuda": ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
    "xpu": ("ZE_AFFINITY_MASK", "ONEAPI_DEVICE_SELECTOR"),
}
_NO_CARD = ("No CUDA GPUs", "no NVIDIA driver", "no NVIDIA GPU", "_DEVICES is ")
# Devices that passed the test, by process: a forked process cannot use CUDA
working_devices: set[tuple[int, torch.device]] = set()
# PyTorch's own warning is replaced by a note if a card was expected
warnings.filterwarnings("ignore", message="CUDA initialization")


def _find_device_failure(device: torch.device) -> str | None:
    """Return why a device cannot compute, or None; tested once per process.

    A card may be unusable: too old for this PyTorch, used exclusively by another
    process, with an incompatible driver, or used by the process from which this one was
    forked.
    """
    if (os.getpid(), device) in working_devices:
        return None
    label = f"Device {device}"
    try:
        label = f"{label} ({get_device_name(device)})"
        with convert_memory_errors(device, "a small convolution"):
            right = can_compute(device)
    except core.DeviceMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - drivers fail in many ways
        return f"{label} cannot compute: {_explain_failure(device, error)}"
    if not right:
        return f"{label} cannot compute: a test convolution gave wrong values"
    working_devices.add((os.getpid(), device))
    return None


def can_compute(device: torch.device) -> bool:
    """Return whether a device computes a test convolution correctly."""
    field = torch.ones(1, 1, _PLAIN_SIZE, _PLAIN_SIZE, device=device)
    sums = functional.conv2d(field, torch.ones(1, 1, 3, 3, device=device)).cpu()
    return bool((sums == 9).all())


def _explain_failure(device: torch.device, error: Exception) -> str:
    """Explain why a device failed."""
    if device.type == "cuda" and not torch.version.hip:
        with suppress(Exception):  # a failing card may raise errors here too
            capability = torch.cuda.get_device_capability(device)
            architectures = torch.cuda.get_arch_list()
            if architectures and not _is_built_for(capability, architectures):
                own, built = "{}.{}".format(*capability), ", ".join(architectures)
                torch_text = f"PyTorch {torch.__version__} is built for {built}"
                return f"its compute capability is {own}, and {torch_text}"
    return get_first_error_line(error)


def _is_built_for(capability: tuple[int, int], architectures: list[str]) -> bool:
    """Check whether PyTorch has code for a GPU, either binary or portable."""
    for name in architectures:
        form, _, digits = name.partition("_")
        if not digits.isdecimal():  # such as sm_90a, for that card only
            continue
        other = int(digits[:-1]), int(digits[-1])
        if other <= capability and (form == "compute" or other[0] == capability[0]):
            return True
    return False


def get_device_name(device: torch.device) -> str:
    """Return the vendor name of the processor or GPU."""
    if device.type in ("cuda", "xpu"):
        return str(getattr(torch, device.type).get_device_name(device))
    return core.get_processor_name()  # an Apple chip contains both


def has_float64(device: torch.device) -> bool:
    """Return whether a device supports double precision."""
    return device.type in ("cpu", "cuda", "meta")


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether a device computes faster in bf16 than in fp32.

    False if unknown: on MPS and XPU, and if PyTorch is too old.
    """
    if device.type == "cuda":  # torch would query the current card, not this one
        if torch.version.hip:
            return True
        return bool(torch.cuda.get_device_capability(device)[0] >= _BF16_CAPABILITY)
    if device.type != "cpu":
        return False
    able: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def check_bf16_support(device: torch.device) -> None:
    """Raise an error for bf16 on MPS before macOS 14, where PyTorch ignores it."""
    if device.type == "mps" and not torch.backends.mps.is_macos_or_newer(14, 0):
        msg = "bf16 on Apple's GPU needs macOS 14 or newer: use `precision=fp32`."
        raise core.OptionError(msg, code="precision-unsupported")


def get_memory_layout(device: torch.device) -> torch.memory_format:
    """Return the memory format that is fast and correct on a device."""
    # PyTorch 2.6 to 2.11 convolve channels_last wrongly on MPS (pytorch#180984)
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def to_device(values: Tensor | core.RealArray, device: torch.device) -> Tensor:
    """Copy values to a device, asynchronously on CUDA."""
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)  # MPS would read memory that is freed (pytorch#189690)
    return tensor.pin_memory().to(device, non_blocking=True)


# Files with the memory limit of a container
_CONTAINER_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory.high",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def get_free_memory(device: torch.device) -> int:
    """Return the device memory available to this process, in bytes.

    Memory cached by PyTorch counts as free: it is reused first.
    """
    if device.type == "cpu":
        limit = int(psutil.virtual_memory().total)
        for name in _CONTAINER_LIMITS:
            with suppress(OSError, ValueError):  # absent, or "max"
                limit = min(limit, int(Path(name).read_text("utf-8")))
        left = limit - int(psutil.Process().memory_info().rss)
        return max(0, min(int(psutil.virtual_memory().available), left))
    module: Any = getattr(torch, device.type)
    if device.type == "mps":  # main memory; Metal recommends a limit
        in_use = int(module.current_allocated_memory())
        cached = max(0, int(module.driver_allocated_memory()) - in_use)
        total = int(module.recommended_max_memory())
    else:
        in_use = int(module.memory_allocated(device))
        cached = int(module.memory_reserved(device)) - in_use
        try:
            return int(module.mem_get_info(device)[0]) + cached
        except RuntimeError:  # Intel's integrated GPUs share main memory
            total = int(module.get_device_properties(device).total_memory)
    return max(0, min(total - in_use, get_host_memory() + cached))


def get_host_memory() -> int:
    """Return the available main memory, in bytes."""
    return get_free_memory(torch.device("cpu"))


def release_memory(device: torch.device) -> None:
    """Release the device memory cached by PyTorch.

    Otherwise other processes, such as a training next to a viewer, cannot use it.
    """
    if device.type != "cpu":
        getattr(torch, device.type).empty_cache()


def is_out_of_memory_error(error: BaseException) -> bool:
    """Return whether an error is an out-of-memory error of any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    message = str(error).lower()
    return any(words in message for words in _NO_MEMORY)


@contextmanager
def convert_memory_errors(device: torch.device, what: str) -> Iterator[None]:
    """Convert an out-of-memory error into a `DeviceMemoryError`.

    The failed pass's tensors are released to make room for a smaller pass.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory_error(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they keep tensors alive
        release_memory(device)
        msg = f"Device {device} ran out of memory for {what}."
        raise core.DeviceMemoryError(msg) from error


def get_first_error_line(error: BaseException) -> str:
    """Return the first line of an error message, without its full stop.

    The error type if it is empty.
    """
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    # chosen: two lines of a message
    return core.format_one_line(line, 200).rstrip(".")
