"""Public weights of ESRGAN and Real-ESRGAN, brought into `RRDBNet` by name.

Three ways of naming the same layers are in use: the first release (``model.1.sub.0``),
the second (``RRDB_trunk``), and BasicSR with Real-ESRGAN (``body``), the last often
inside ``params_ema`` or ``params``. The number of blocks, the widths and the scale are
read from the weights. Files are ``.safetensors``, or ``.pth`` read with
``weights_only=True``, which executes nothing that is in them.

The public networks take and give three colours. For a grey image, equal in all three,
the first layer's weights may be summed over the colours and the last layer's averaged:
the result is the mean of the three colours that the original network would give, and
costs less.
"""

import io
import pickle
import re
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from napari_semsr.core import (
    CheckpointError,
    one_line,
    read_bytes,
)
from napari_semsr.models.architectures import RRDBNet

_SIZE_LIMIT = 2**30
_LONGEST = 300  # letters of what torch misses; chosen: the first three names
_WRAPPERS = ("params_ema", "params", "state_dict")
_DAMAGE = (  # what the readers raise at files that are none or were tampered with
    OSError, EOFError, ValueError, TypeError, LookupError, AttributeError,
    AssertionError, MemoryError, RuntimeError, SafetensorError,
    pickle.UnpicklingError, struct.error,
)  # fmt: skip
_ENDS = {
    "conv_first": "conv_first",
    "trunk_conv": "conv_body",
    "conv_body": "conv_body",
    "upconv1": "conv_up1",
    "conv_up1": "conv_up1",
    "upconv2": "conv_up2",
    "conv_up2": "conv_up2",
    "HRconv": "conv_hr",
    "conv_hr": "conv_hr",
    "conv_last": "conv_last",
    "model.0": "conv_first",
    "model.3": "conv_up1",
    "model.6": "conv_up2",
    "model.8": "conv_hr",
    "model.10": "conv_last",
}
_BLOCK = re.compile(
    r"(?:model\.1\.sub|RRDB_trunk|body)\.(\d+)\.rdb([123])\.conv([1-5])(?:\.0)?",
    re.IGNORECASE,
)
_TRUNK_END = re.compile(r"model\.1\.sub\.\d+")


def _new_name(name: str) -> str | None:
    """Name a layer as `RRDBNet` does; None if it is none of its layers."""
    layer, _, kind = name.removeprefix("module.").rpartition(".")
    block = _BLOCK.fullmatch(layer)
    if block:
        return "body.{}.rdb{}.conv{}.".format(*block.groups()) + kind
    if _TRUNK_END.fullmatch(layer):
        return f"conv_body.{kind}"
    return f"{_ENDS[layer]}.{kind}" if layer in _ENDS else None


def rename_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights of any of the three releases as `RRDBNet` names them."""
    renamed = {}
    for name, value in state.items():
        new = _new_name(name)
        if new is None:
            msg = (
                f"Weights must be those of an ESRGAN generator (RRDBNet), got the "
                f"unknown layer {name!r}."
            )
            raise CheckpointError(msg)
        renamed[new] = value
    return renamed


def _to_grey(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fold three colours into one, exactly for images that are equal in all."""
    first = state["conv_first.weight"]
    outputs, inputs, *kernel = first.shape
    colours = first.reshape(outputs, 3, inputs // 3, *kernel)
    return {
        **state,
        "conv_first.weight": colours.sum(1),
        "conv_last.weight": state["conv_last.weight"].mean(0, keepdim=True),
        "conv_last.bias": state["conv_last.bias"].mean(0, keepdim=True),
    }


def _read(path: Path) -> dict[str, Tensor]:
    """Read weights without executing anything that is in the file."""
    try:
        data = read_bytes(path, _SIZE_LIMIT)
        if path.suffix == ".safetensors":
            held: Any = load(data)
        else:
            # from memory, where a text of 4 GB cannot be asked for
            held = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "empty"
        msg = f"{path.name} cannot be read as plain weights: {reason}."
        raise CheckpointError(msg) from error
    for wrapper in _WRAPPERS:
        if isinstance(held, dict) and isinstance(held.get(wrapper), dict):
            held = held[wrapper]
    if not isinstance(held, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in held.items()
    ):
        msg = f"{path.name} must hold a table of named weights and nothing else."
        raise CheckpointError(msg)
    plain = all(v.layout is torch.strided and not v.is_meta for v in held.values())
    if not plain or sum(v.nbytes for v in held.values()) > len(data):
        msg = (  # one stored number may stand for any count of them
            f"{path.name} must hold all its weights, but has fewer numbers than it "
            "says: export them again."
        )
        raise CheckpointError(msg)
    return held


def _options(state: dict[str, Tensor], name: str) -> dict[str, int]:
    """Read from the weights how the network is built."""
    try:
        first, last = state["conv_first.weight"], state["conv_last.weight"]
        growth = state["body.0.rdb1.conv1.weight"].shape[0]
        channels = last.shape[0]
        scale = {1: 4, 4: 2, 16: 1}[first.shape[1] // channels]
    except (KeyError, IndexError, ZeroDivisionError) as error:
        msg = (
            f"The weights in {name} lack layers of an ESRGAN generator, or have sizes "
            f"that none has: {error}."
        )
        raise CheckpointError(msg) from error
    numbers = [int(key.split(".")[1]) for key in state if key.startswith("body.")]
    return {
        "width": first.shape[0],
        "blocks": max(numbers) + 1,
        "growth": growth,
        "scale": scale,
        "channels": channels,
    }


def load_esrgan(path: Path, *, grey: bool = True) -> tuple[RRDBNet, dict[str, int]]:
    """Load public ESRGAN or Real-ESRGAN weights, a ``.pth`` or ``.safetensors`` file.

    In evaluation mode, with the options that build it, as a model card wants them.
    `grey` folds three colours into one channel.
    """
    state = {k: v.float() for k, v in rename_keys(_read(path)).items()}
    options = _options(state, path.name)
    if grey and options["channels"] == 3:
        state, options = _to_grey(state), {**options, "channels": 1}
    try:
        network = RRDBNet(**options)
        network.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        first = one_line(str(error).strip().splitlines()[-1].strip(), _LONGEST)
        msg = f"The weights in {path.name} do not fit an ESRGAN generator: {first}"
        raise CheckpointError(msg) from error
    if not all(v.isfinite().all() for v in state.values()):
        msg = f"Weights must be finite, got NaN or infinite values in {path.name}."
        raise CheckpointError(msg)
    return network.eval(), options
