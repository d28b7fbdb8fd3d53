"""Networks by the name of their architecture, and the files that hold them.

A model file is safetensors: weights, with the card in the header.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from napari_semsr.core import CheckpointError
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
            f"got {', '.join(unknown)}."
        )
        raise CheckpointError(msg)
    try:
        return shelf[name](**options)
    except (TypeError, ValueError, RuntimeError) as error:
        msg = f"{kind.capitalize()} {name} cannot be built from {options}: {error}."
        raise CheckpointError(msg) from error


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
    module = _make(_LOADED, "architecture", card.architecture, card.options)
    try:
        state = load(path.read_bytes())
        own = {
            k: v.float() if v.is_floating_point() else v
            for k, v in state.items()
            if not k.startswith(_BESIDE)
        }
        module.load_state_dict(own)
    except (SafetensorError, RuntimeError) as error:
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
    path = resolve(name_or_path)
    try:
        state = load(path.read_bytes())
    except SafetensorError as error:
        msg = f"The model file {path.name} is damaged: {error}."
        raise CheckpointError(msg) from error
    return {
        name.removeprefix(_BESIDE): value.float()
        for name, value in state.items()
        if name.startswith(_BESIDE)
    }
