"""The architectures that recipes and cards can name."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from napari_semsr.core.progress import Job, Progress
from napari_semsr.services.results import Result, jsonable

__all__ = ["ArchitectureList", "list_architectures"]


@dataclass(frozen=True, slots=True)
class ArchitectureList(Result):
    """What can be built.

    Attributes
    ----------
    architectures : tuple of dict
        Name, summary, weights, scale, stride and options with their defaults of each
        network that maps an image to an image.
    discriminators : tuple of dict
        Name, summary, weights and options of each network that judges an image.
    """

    architectures: tuple[dict[str, Any], ...]
    discriminators: tuple[dict[str, Any], ...]


def list_architectures() -> Job[ArchitectureList]:
    """List the architectures, with their default options.

    Returns
    -------
    ArchitectureList
        Networks and discriminators.

    Yields
    ------
    Progress
        One step.
    """
    from napari_semsr.models.registry import ARCHITECTURES, DISCRIMINATORS

    yield Progress(0, 1, "building without weights")
    networks = tuple(_row(*item) for item in ARCHITECTURES.items())
    judges = tuple(_row(*item) for item in DISCRIMINATORS.items())
    yield Progress(1, 1, "done")
    return ArchitectureList(networks, judges)


def _row(name: str, factory: Callable[..., Any]) -> dict[str, Any]:
    """Say one architecture; its weights are counted and never made."""
    from napari_semsr.models.architectures import without_weights

    network: Any = without_weights(factory)
    options = inspect.signature(factory).parameters.items()
    row = {
        "name": name,
        "summary": (inspect.getdoc(factory) or "").partition("\n")[0],
        "weights": sum(weights.numel() for weights in network.parameters()),
        "stride": int(network.stride),
        "options": jsonable({key: value.default for key, value in options}),
    }
    scale = getattr(network, "scale", None)
    return row if scale is None else {**row, "scale": int(scale)}
