"""How much memory a pass takes, known beforehand.

The network is run on torch's meta device, which has shapes but no numbers: nothing is
allocated and nothing computed, while every tensor that is alive is counted.
"""

import copy
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["estimate_peak"]


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count the bytes of all tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: int = 0
        self.peak: int = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def _release(self, size: int) -> None:
        self.live -= size

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage not in self._seen:
                    self._seen.add(storage)
                    size = storage.nbytes()
                    self.live += size
                    weakref.finalize(storage, self._release, size)
        self.peak = max(self.peak, self.live)
        return result


def estimate_peak(module: nn.Module, shape: tuple[int, int]) -> int:
    """Estimate the activations that a pass in fp32 holds at its peak.

    Parameters
    ----------
    module : torch.nn.Module
        Maps ``(B, 1, H, W)`` to ``(B, 1, H * scale, W * scale)``.
    shape : tuple of int
        Rows and columns of the field.

    Returns
    -------
    int
        Bytes, with the input, without weights and without what kernels use inside.
    """
    ghost = copy.deepcopy(module).to("meta").eval()
    with torch.no_grad(), _LiveBytes() as mode:
        ghost(torch.zeros(1, 1, *shape, device="meta"))
    peak: int = mode.peak
    return peak
