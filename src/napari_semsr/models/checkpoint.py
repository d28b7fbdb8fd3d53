"""Networks by the name of their architecture, and the files that hold them.

A model file is safetensors: weights, with the card in the header.
"""

import inspect
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from napari_semsr.core import CheckpointError, one_line, shown
from napari_semsr.io import renaming
from napari_semsr.models.architectures import (
    DISCRIMINATORS,
    PUBLISHED,
    Correction,
    InformedRestorer,
    TwoScale,
)
from napari_semsr.models.cards import ModelCard, file_digest, read_card, resolve
from napari_semsr.models.onnx_network import OnnxNetwork

_SIZE_LIMIT = 2 * 2**30
_REFUSALS = (  # what constructors and readers raise at values that they cannot take
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
_BESIDE = "beside/"  # before the weights of networks that a model was trained with


# The shelf of architectures: names that a card may carry, and how to build them.

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "two-scale": TwoScale,
    "informed": InformedRestorer,
    "correction": Correction,
    **PUBLISHED,
}
# What a file may hold beside them, and nobody can train
_LOADED = {**ARCHITECTURES, "onnx": OnnxNetwork}


def build(architecture: str, options: dict[str, Any]) -> nn.Module:
    """Build a network with fresh weights.

    Parameters
    ----------
    architecture : str
        A key of `ARCHITECTURES`.
    options : dict
        Arguments of its class.

    Returns
    -------
    torch.nn.Module
        The network, in training mode.

    Raises
    ------
    CheckpointError
        If the architecture or one of its options is unknown, or a value is refused.
    """
    return _make(ARCHITECTURES, "architecture", architecture, options)


def build_discriminator(discriminator: str, options: dict[str, Any]) -> nn.Module:
    """Build a network that judges images, with fresh weights.

    Parameters
    ----------
    discriminator : str
        A key of `DISCRIMINATORS`.
    options : dict
        Arguments of its class.

    Returns
    -------
    torch.nn.Module
        The network, in training mode.

    Raises
    ------
    CheckpointError
        If the discriminator or one of its options is unknown, or a value is refused.
    """
    return _make(DISCRIMINATORS, "discriminator", discriminator, options)


def _make(
    shelf: dict[str, Callable[..., nn.Module]],
    kind: str,
    name: str,
    options: dict[str, Any],
) -> nn.Module:
    """Build what a shelf holds under a name."""
    if name not in shelf:
        known = ", ".join(sorted(shelf))
        msg = f"The {kind} must be one of {known}, got {name!r}."
        raise CheckpointError(msg)
    allowed = inspect.signature(shelf[name]).parameters
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        msg = (
            f"{kind.capitalize()} {name} takes the options {', '.join(allowed)}, "
            f"got {one_line(', '.join(unknown))}."
        )
        raise CheckpointError(msg)
    try:
        return shelf[name](**options)
    except _REFUSALS as error:
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        given = shown(options)
        msg = f"{kind.capitalize()} {name} cannot be built from {given}: {reason}."
        raise CheckpointError(msg) from error


# What a card may ask for, judged by what its file holds, before anything is built.

_SPARE, _PARTS = 64, 32  # chosen: parts without weights, such as rectifiers, are few
_LARGEST_REACH = 65536  # pixels; as on the card


class _TooManyWeights(Exception):  # noqa: N818 - told of in another's words
    """A network that is built would have more weights than a file holds."""


class _Bound:
    """Lets networks that are built have no more weights than a file holds.

    What is built meanwhile by other threads does not count.
    """

    def __init__(self, tensors: int, numbers: int) -> None:
        self._thread = threading.get_ident()
        self._largest = _SPARE + 2 * numbers  # for what is made and then replaced
        self._left = {
            "parts": _SPARE + _PARTS * tensors,
            "tensors": _SPARE + 2 * tensors,
            "numbers": self._largest,
        }

    def limit(self, number: float) -> None:
        """Refuse a number of an option that is larger than all weights."""
        if number > self._largest:
            raise _TooManyWeights

    def _take(self, **counts: int) -> None:
        if threading.get_ident() != self._thread:
            return
        for name, count in counts.items():
            self._left[name] -= count
        if min(self._left.values()) < 0:
            raise _TooManyWeights

    def _part(self, _owner: nn.Module, _name: str, _new: nn.Module | None) -> None:
        self._take(parts=1)

    def _weights(self, _owner: nn.Module, _name: str, new: nn.Parameter | None) -> None:
        if new is not None:
            self._take(tensors=1, numbers=new.numel())

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is built meanwhile."""
        hooks = (
            register_module_module_registration_hook(self._part),
            register_module_parameter_registration_hook(self._weights),
        )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _build_within(
    path: Path, card: ModelCard, state: Mapping[str, Tensor]
) -> nn.Module:
    """Build the network of a card that asks for no more than its weights are.

    First without numbers: sizes of a thousand million cost nothing then.
    """
    if card.architecture not in ARCHITECTURES:  # a graph, which brings its own bounds
        return _make(_LOADED, "architecture", card.architecture, card.options)
    held = sum(weights.numel() for weights in state.values())
    bound = _Bound(len(state), held)
    try:
        bound.limit(_largest(card.options))
        with bound.counting(), torch.device("meta"):
            sketch = build(card.architecture, card.options)
        reach: float = max(map(_reach, sketch.modules()))
    except _TooManyWeights as error:
        msg = (
            f"The weights in {path.name} do not fit architecture {card.architecture}: "
            f"its options ask for more than the {held} numbers that are there."
        )
        raise CheckpointError(msg) from error
    except _REFUSALS:  # of a kind that no convolution has
        reach = math.inf
    if reach > _LARGEST_REACH:
        msg = (
            f"Architecture {card.architecture} cannot be built from "
            f"{shown(card.options)}: a convolution would reach beyond "
            f"{_LARGEST_REACH} pixels."
        )
        raise CheckpointError(msg)
    return build(card.architecture, card.options)


def _largest(options: object) -> float:
    """Find the largest number in options, at whatever depth; 0 where there is none."""
    if isinstance(options, int | float):
        return abs(options)
    inside = options.values() if isinstance(options, dict) else options
    if not isinstance(inside, Iterable) or isinstance(inside, str):
        return 0
    return max(map(_largest, inside), default=0)


def _reach(part: nn.Module) -> int:
    """Tell how far a convolution sees, in pixels; 0 of other parts."""
    if not isinstance(part, nn.Conv2d):
        return 0
    pairs = zip(part.kernel_size, part.dilation, strict=True)
    return max((side - 1) * apart for side, apart in pairs)


# Model files.


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A network ready to use, with what it says of itself.

    Attributes
    ----------
    module : torch.nn.Module
        In evaluation mode, on the CPU, in float32.
    card : ModelCard
        Its card.
    digest : str
        Digest of the file that it came from.
    """

    module: nn.Module
    card: ModelCard
    digest: str


def save_model(
    path: Path,
    module: nn.Module,
    card: ModelCard,
    *,
    beside: Mapping[str, Tensor] | None = None,
    half: bool = False,
) -> None:
    """Write a network and its card as one safetensors file.

    Parameters
    ----------
    path : pathlib.Path
        File to write; replaced in one step when it exists.
    module : torch.nn.Module
        The network; its weights are stored in their own type.
    card : ModelCard
        What to say of it.
    beside : mapping of str to torch.Tensor, optional
        Weights of the networks that it was trained with, from which training can go on.
    half : bool, default=False
        Store weights in 16 bits.
    """
    state = dict(module.state_dict())
    state |= {f"{_BESIDE}{name}": value for name, value in (beside or {}).items()}
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_weights(path, state, card=card.model_dump_json())


def save_weights(path: Path, state: Mapping[str, Tensor], **metadata: str) -> None:
    """Write weights as one safetensors file, in place of one that is there.

    Parameters
    ----------
    path : pathlib.Path
        File to write.
    state : mapping of str to torch.Tensor
        Weights by name.
    **metadata : str
        What the header says besides.
    """
    plain = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    with renaming(path) as partial:
        save_file(plain, partial, metadata=metadata)
        partial.chmod(0o644)  # the library leaves it readable by its owner alone


def load_model(name_or_path: str | Path) -> LoadedModel:
    """Load a bundled model or a model file.

    Parameters
    ----------
    name_or_path : str or pathlib.Path
        Name of a bundled model, or path of a ``.safetensors`` file.

    Returns
    -------
    LoadedModel
        Network in evaluation mode, its card and digest.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, too large, without a card, or its weights do
        not fit the architecture that the card names or are not finite.
    """
    path = resolve(name_or_path)
    if path.stat().st_size > _SIZE_LIMIT:
        size = path.stat().st_size / 2**30
        msg = f"A model file must be under 2 GiB, got {size:.1f} GiB in {path.name}."
        raise CheckpointError(msg)
    card = read_card(path)
    own = {k: v for k, v in _weights(path).items() if not k.startswith(_BESIDE)}
    module = _build_within(path, card, own)
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        msg = (
            f"The weights in {path.name} do not fit architecture {card.architecture}: "
            f"{first}"
        )
        raise CheckpointError(msg) from error
    broken = [k for k, v in module.state_dict().items() if not v.isfinite().all()]
    if broken:
        msg = (
            f"Weights must be finite, got NaN or infinite values at {broken[0]} in "
            f"{path.name}; train or export the model again."
        )
        raise CheckpointError(msg)
    if isinstance(module, OnnxNetwork):
        module.runner()  # refuses what must not be run
    return LoadedModel(module.eval(), card, file_digest(path))


def load_beside(name_or_path: str | Path) -> dict[str, Tensor]:
    """Read the weights of the networks that a model was trained with.

    Parameters
    ----------
    name_or_path : str or pathlib.Path
        Name of a bundled model, or path of a ``.safetensors`` file.

    Returns
    -------
    dict of str to torch.Tensor
        By name, in float32; empty where the file holds the model alone.

    Raises
    ------
    CheckpointError
        If the file is missing or damaged.
    """
    return {
        name.removeprefix(_BESIDE): value
        for name, value in _weights(resolve(name_or_path)).items()
        if name.startswith(_BESIDE)
    }


def _weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of a file, numbers in float32."""
    try:
        held = load(path.read_bytes())
        return {k: v.float() if v.is_floating_point() else v for k, v in held.items()}
    except (SafetensorError, *_REFUSALS, OSError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        msg = f"The model file {path.name} is damaged: {reason}; copy it again."
        raise CheckpointError(msg) from error
