"""Guards of a training: against NaN, and against teaching whom it should not."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from napari_semsr.core.errors import SemsrError

__all__ = ["check_loss", "check_weights", "frozen"]


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Let no gradient reach the weights of networks; it still passes through them.

    Parameters
    ----------
    *modules : torch.nn.Module
        The networks.

    Yields
    ------
    None
        Nothing.
    """
    weights = [w for m in modules for w in m.parameters() if w.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def check_loss(loss: Tensor, step: int) -> None:
    """Stop at a loss that is NaN or infinite.

    Parameters
    ----------
    loss : torch.Tensor
        Of one step.
    step : int
        Which one.

    Raises
    ------
    SemsrError
        If it is not finite.
    """
    if not torch.isfinite(loss):
        _refuse("loss is", step)


def check_weights(module: nn.Module, step: int) -> None:
    """Stop when weights are NaN or infinite, before they replace good ones.

    Parameters
    ----------
    module : torch.nn.Module
        Whose weights they are.
    step : int
        How far training has come.

    Raises
    ------
    SemsrError
        If one is not finite.
    """
    for value in module.state_dict().values():
        if value.is_floating_point() and not torch.isfinite(value).all():
            _refuse("weights are", step)


def _refuse(what: str, step: int) -> None:
    msg = (
        f"The {what} not finite at step {step}; lower learning_rate and resume from "
        "the last checkpoint."
    )
    raise SemsrError(msg)
