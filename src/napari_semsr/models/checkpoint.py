"""Building networks by architecture name, and reading and writing model files.

A model file is safetensors: weights, with the card in the header.
"""

import inspect
import itertools
import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from napari_semsr import core
from napari_semsr.io import write_atomically
from napari_semsr.models import cards
from napari_semsr.models.architectures import ARCHITECTURES, DISCRIMINATORS
from napari_semsr.models.devices import get_first_error_line
from napari_semsr.models.onnx_network import OnnxNetwork

_SIZE_LIMIT = 2 * 2**30  # bytes of a model file; chosen
_REFUSALS = (  # errors of constructors and readers for invalid values
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError,
    RuntimeError, TypeError, ValueError,
)  # fmt: skip
_LARGEST_REACH = 65536  # pixels; as in the card
_BESIDE = "beside/"  # prefix of the weights of networks used only in training
# Networks in files: those that can be trained, and ONNX graphs
_CARD_ARCHITECTURES = {**ARCHITECTURES, "onnx": OnnxNetwork}


def build_network(architecture: str, options: dict[str, object]) -> nn.Module:
    """Build a network of `ARCHITECTURES` with fresh weights, in training mode."""
    return _build_from_registry(ARCHITECTURES, "architecture", architecture, options)


def build_discriminator(discriminator: str, options: dict[str, object]) -> nn.Module:
    """Build a network listed in `DISCRIMINATORS` with fresh weights, for training."""
    return _build_from_registry(DISCRIMINATORS, "discriminator", discriminator, options)


def _build_from_registry(
    registry: Mapping[str, Callable[..., nn.Module]],
    kind: str,
    name: str,
    options: dict[str, object],
) -> nn.Module:
    """Build a network from a registry by name."""
    if name not in registry:
        names = ", ".join(sorted(registry))
        msg = f"The {kind} must be one of {names}, got {name!r}."
        raise core.CheckpointError(msg, code="architecture-unknown")
    parameters = inspect.signature(registry[name]).parameters
    unknown = core.format_one_line(", ".join(sorted(set(options) - set(parameters))))
    if unknown:
        accepted = ", ".join(parameters)
        msg = f"The options of {kind} {name} are {accepted}, got {unknown}."
        raise core.CheckpointError(msg, code="unknown-option")
    try:
        module = registry[name](**options)
        _check_layer_sizes(module)
    except _REFUSALS as error:
        given, reason = core.shorten_value(options), get_first_error_line(error)
        msg = f"The {kind} {name} cannot be built from {given}: {reason}."
        raise core.CheckpointError(msg, code="architecture-invalid") from error
    return module


def _check_layer_sizes(network: nn.Module) -> None:
    """Raise an error for layer sizes that PyTorch can build but not run."""
    for part in network.modules():
        if any(0 in weights.shape for weights in part.parameters(recurse=False)):
            msg = "every layer must have at least one channel"
            raise ValueError(msg)
        if isinstance(part, nn.Conv2d):
            sizes: list[object] = [*part.kernel_size, *part.dilation, *part.stride]
            if not all(isinstance(size, int) and size >= 1 for size in sizes):
                msg = "kernels, strides and dilations must be integers of at least 1"
                raise ValueError(msg)
            pairs = zip(part.kernel_size, part.dilation, strict=True)
            if max((side - 1) * apart for side, apart in pairs) > _LARGEST_REACH:
                msg = f"the reach of a convolution exceeds {_LARGEST_REACH} px"
                raise ValueError(msg)


# Limits on what a card may request, checked against its file before building.

_SPARE, _PARTS = 64, 32  # chosen: few modules, such as rectifiers, have no weights


class _TooManyWeightsError(Exception):
    """Error for a network that needs more weights than its file contains."""


def _build_within_limits(
    path: Path, card: cards.ModelCard, state: Mapping[str, Tensor]
) -> nn.Module:
    """Build a model card's network, limited to the number of weights in the file.

    It is first built without values, so that huge sizes need no memory.
    """
    name, options = card.architecture, card.options
    if name not in ARCHITECTURES:  # a graph has its own limits
        return _build_from_registry(_CARD_ARCHITECTURES, "architecture", name, options)
    weight_count = sum(weights.numel() for weights in state.values())
    most = _SPARE + 2 * weight_count  # for values that are created and then replaced
    thread, number = threading.get_ident(), itertools.count(1)

    def count_module(*_: object) -> None:
        is_own = threading.get_ident() == thread
        if is_own and next(number) > _SPARE + _PARTS * len(state):
            raise _TooManyWeightsError

    needed = _find_largest_number(options)
    hook = register_module_module_registration_hook(count_module)
    try:
        if needed <= most:
            with torch.device("meta"):
                sketch = build_network(name, options)
            needed = sum(weights.numel() for weights in sketch.parameters())
    except _TooManyWeightsError:
        needed = math.inf
    finally:
        hook.remove()
    if needed > most:
        msg = (
            f"The weights in {path.name} do not fit architecture {name}: its options "
            f"require more than the {weight_count} stored weights."
        )
        raise core.CheckpointError(msg, code="weights-mismatch")
    return build_network(name, options)


def _find_largest_number(options: object) -> float:
    """Find the largest number in nested options; 0 if there is none."""
    if isinstance(options, int | float):
        return abs(options)
    inside = options.values() if isinstance(options, dict) else options
    if not isinstance(inside, Iterable) or isinstance(inside, str):
        return 0
    return max(map(_find_largest_number, inside), default=0)


# Model files.


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """Network ready for use, with its model card."""

    module: nn.Module  # in evaluation mode, on the CPU, in float32
    card: cards.ModelCard
    digest: str  # of its file


def save_model(
    path: Path,
    module: nn.Module,
    card: cards.ModelCard,
    *,
    beside: Mapping[str, Tensor] | None = None,
    half: bool = False,
) -> None:
    """Write a network and its model card atomically as one safetensors file.

    Weights are stored in their own type, or in 16 bits. `beside` are the weights of
    networks used only in training, for resuming it.
    """
    state = dict(module.state_dict())
    state |= {f"{_BESIDE}{name}": value for name, value in (beside or {}).items()}
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_weights(path, state, card=card.model_dump_json())


def save_weights(path: Path, state: Mapping[str, Tensor], **metadata: str) -> None:
    """Write named weights and metadata atomically as one safetensors file."""
    plain = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    with write_atomically(path) as partial:
        save_file(plain, partial, metadata=metadata)
        partial.chmod(0o644)  # the library makes it readable only by its owner


_loaded_in: set[int] = set()  # ids of processes that loaded a model


def load_model(name_or_path: str | Path) -> LoadedModel:
    """Load a bundled model or a model file, in evaluation mode.

    Raises a `SemsrError` in a process forked from one that has loaded a model, and a
    `CheckpointError` if the file is damaged or its options need more weights.
    """
    if _loaded_in and os.getpid() not in _loaded_in and torch.get_num_threads() > 1:
        msg = (
            "A process forked after a model was used would hang: start it with "
            "multiprocessing.get_context('spawn')."
        )
        raise core.SemsrError(msg, code="process-forked")
    _loaded_in.add(os.getpid())
    path = cards.resolve_model_path(name_or_path)
    card = cards.read_card(path)
    own = {k: v for k, v in _read_weights(path).items() if not k.startswith(_BESIDE)}
    module = _build_within_limits(path, card, own)
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        why = str(error).strip().splitlines()[-1].strip()
        name = card.architecture
        msg = f"The weights in {path.name} do not fit architecture {name}: {why}"
        raise core.CheckpointError(msg, code="weights-mismatch") from error
    not_finite = [k for k, v in module.state_dict().items() if not v.isfinite().all()]
    if not_finite:
        msg = (
            f"Weights must be finite, but {path.name} has NaN or infinite values at "
            f"{not_finite[0]}; train or export the model again."
        )
        raise core.CheckpointError(msg, code="weights-not-finite")
    if isinstance(module, OnnxNetwork):
        module.get_runner()  # rejects unsafe graphs
    return LoadedModel(module.eval(), card, core.digest_path(path))


def load_training_networks(name_or_path: str | Path) -> dict[str, Tensor]:
    """Read the weights of a model's training-only networks in float32."""
    weights = _read_weights(cards.resolve_model_path(name_or_path)).items()
    return {k.removeprefix(_BESIDE): v for k, v in weights if k.startswith(_BESIDE)}


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of a file, with floating-point values in float32."""
    try:
        state = load(core.read_bytes(path, _SIZE_LIMIT))
        return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    except (SafetensorError, *_REFUSALS, OSError) as error:
        why = f"{path.name} is damaged: {get_first_error_line(error)}; copy it again."
        damage = core.Message(why, "model-damaged")
        message = core.describe_access_error(path, error) or damage
        raise core.CheckpointError(message) from error
