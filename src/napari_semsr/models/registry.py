"""The shelf of architectures: names that a card may carry, and how to build them."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from napari_semsr.core.errors import CheckpointError
from napari_semsr.models.architectures import PUBLISHED
from napari_semsr.models.two_scale import TwoScale
from napari_semsr.models.unveiled import Unveiled

__all__ = ["ARCHITECTURES", "build"]

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "two-scale": TwoScale,
    "unveiled": Unveiled,
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
    if architecture not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        msg = f"The architecture must be one of {known}, got {architecture!r}."
        raise CheckpointError(msg)
    factory = ARCHITECTURES[architecture]
    allowed = inspect.signature(factory).parameters
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        msg = (
            f"Architecture {architecture} takes the options {', '.join(allowed)}, "
            f"got {', '.join(unknown)}."
        )
        raise CheckpointError(msg)
    try:
        return factory(**options)
    except (TypeError, ValueError, RuntimeError) as error:
        msg = f"Architecture {architecture} cannot be built from {options}: {error}."
        raise CheckpointError(msg) from error
