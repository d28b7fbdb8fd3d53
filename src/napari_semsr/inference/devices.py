"""Which device, which precision, how much memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from napari_semsr.core.errors import DeviceMemoryError, OptionError, SemsrError

__all__ = [
    "free_memory",
    "resolve_device",
    "resolve_precision",
    "translated",
]

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def resolve_device(name: str) -> torch.device:
    """Choose a device by the name that a user gave.

    Parameters
    ----------
    name : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Returns
    -------
    torch.device
        A device that is there.

    Raises
    ------
    OptionError
        If the device is unknown or absent.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        msg = f"A device must be auto, cpu, cuda or cuda:N, got {name!r}."
        raise OptionError(msg) from None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        msg = (
            f"Device {name} needs a CUDA GPU, and torch sees {count}: use --device cpu."
        )
        raise OptionError(msg)
    if device.type not in ("cpu", "cuda"):
        msg = f"A device must be auto, cpu, cuda or cuda:N, got {name!r}."
        raise OptionError(msg)
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """Choose the arithmetic.

    Parameters
    ----------
    name : {"auto", "fp32", "bf16"}
        ``auto`` is bf16 where the device computes it in hardware.
    device : torch.device
        Where the network runs.

    Returns
    -------
    {"fp32", "bf16"}
        The precision to use.

    Raises
    ------
    OptionError
        If the name is none of these.
    """
    if name in ("fp32", "bf16"):
        return name
    if name != "auto":
        msg = f"A precision must be auto, fp32 or bf16, got {name!r}."
        raise OptionError(msg)
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities()
        fast = bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return "bf16" if fast else "fp32"


def free_memory(device: torch.device) -> int:
    """Measure the memory that a device can still give.

    Parameters
    ----------
    device : torch.device
        Where the network runs.

    Returns
    -------
    int
        Bytes; on a CPU within the limit of the container, if there is one.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    from distributed.system import MEMORY_LIMIT  # 20 MB, and most runs never ask

    left = int(MEMORY_LIMIT or 0) - int(psutil.Process().memory_info().rss)
    return max(0, min(int(psutil.virtual_memory().available), left))


@contextmanager
def translated(device: torch.device, what: str) -> Iterator[None]:
    """Turn torch's errors into ours, since a `RuntimeError` is lost in Qt threads.

    Parameters
    ----------
    device : torch.device
        Where the work is done.
    what : str
        What is being computed, to name in the sentence.

    Yields
    ------
    None
        Control, for the work.

    Raises
    ------
    DeviceMemoryError
        If the device ran out of memory.
    SemsrError
        If torch failed otherwise.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if memory or any(mark in str(error).lower() for mark in _NO_MEMORY):
            if device.type == "cuda":
                torch.cuda.empty_cache()
            msg = f"Device {device} has no memory left for {what}."
            raise DeviceMemoryError(msg) from error
        msg = f"The network could not compute {what} on {device}: {first}"
        raise SemsrError(msg) from error
