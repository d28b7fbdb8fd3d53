"""Live normalisation layers: those that take statistics from the image itself.

They are found by what is called, not by class: a mode watches the functional calls
that every layer ends in, so that norms without a module are seen too. Batch and
instance norms that use running statistics are left alone, and so is a layer norm over
channels only: both act on each pixel by itself.
"""

from collections.abc import Callable
from typing import Any

from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["WithoutNorms"]

_STATISTICS_FLAG = 5


def _argument(
    args: tuple[Any, ...], kwargs: dict[str, Any], place: int, name: str
) -> Any:
    """Read an argument given by place or by name."""
    return (
        kwargs[name] if name in kwargs else args[place] if len(args) > place else None
    )


def _is_live(func: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a functional call normalises by statistics of the image."""
    if func is functional.group_norm:
        return True
    if func is functional.instance_norm:
        flag = _argument(args, kwargs, _STATISTICS_FLAG, "use_input_stats")
        return flag is None or bool(flag)
    if func is functional.batch_norm:
        return bool(_argument(args, kwargs, _STATISTICS_FLAG, "training"))
    if func is functional.layer_norm:
        return len(_argument(args, kwargs, 1, "normalized_shape")) > 1
    return False


class WithoutNorms(TorchFunctionMode):
    """Replace every live normalisation by the identity, and count them.

    The mode acts in the thread that enters it.

    Attributes
    ----------
    count : int
        Live normalisations that were met.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Answer one call.

        Parameters
        ----------
        func : callable
            The torch function that is being called.
        types : iterable of type
            Tensor types involved.
        args : tuple
            Its arguments.
        kwargs : dict, optional
            Its named arguments.

        Returns
        -------
        object
            The input of a live normalisation, else what `func` returns.
        """
        named = kwargs or {}
        if _is_live(func, args, named):
            self.count += 1
            return _argument(args, named, 0, "input")
        return func(*args, **named)
