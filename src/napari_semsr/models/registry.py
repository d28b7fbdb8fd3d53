"""The shelf of architectures: names that a card may carry, and how to build them."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from napari_semsr.core import CheckpointError
from napari_semsr.models.architectures import (
    DISCRIMINATORS,
    PUBLISHED,
    Correction,
    Deblurred,
    DehazingRestorer,
    TwoScale,
)

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "two-scale": TwoScale,
    "unveiled": DehazingRestorer,
    "correction": Correction,
    "deblurred": Deblurred,
    **PUBLISHED,
}


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
