"""How far a network looks: measured by letting NaN spread.

Half of a field is filled with NaN up to a multiple of the stride; whatever output
becomes NaN on the other half depends on that side. This sees every tap, also those
whose weight is tiny, and does not depend on the weights. Live normalisations are
replaced by the identity, since they would spread NaN everywhere. It is done in fp32:
bf16 kernels in channels_last order leak NaN into their neighbours. Operations that
swallow NaN (``torch.where``, ``nan_to_num``) hide what passes through them.
"""

import copy
from dataclasses import dataclass

import torch
from torch import nn

from napari_semsr.core.errors import CheckpointError, ShapeError
from napari_semsr.core.tiling import round_up
from napari_semsr.models.normalisation import WithoutNorms

__all__ = ["Probe", "measure", "probe", "smallest_side"]

_FIRST_SIDE = 64
_LAST_SIDE = 4096
_LARGEST_MINIMUM = 64


@dataclass(frozen=True, slots=True)
class Probe:
    """What was measured on a network.

    Attributes
    ----------
    halo : int or None
        Context for a tile, a multiple of the stride: what an output depends on, and one
        pixel more, so that both tiles at a border know the pixels on either side of it.
        None when every output depends on the whole field.
    norms : int
        Live normalisations in one pass.
    smallest : int
        Smallest side, a multiple of the stride, that the network accepts.
    """

    halo: int | None
    norms: int
    smallest: int


def _cpu_copy(module: nn.Module) -> nn.Module:
    """Copy a network for probing in fp32."""
    return copy.deepcopy(module).to("cpu", torch.float32).eval()


def _pass(module: nn.Module, field: torch.Tensor) -> torch.Tensor:
    """Run once without gradients and without live norms."""
    with torch.no_grad(), WithoutNorms():
        output: torch.Tensor = module(field)
    return output


def smallest_side(module: nn.Module, *, stride: int) -> int:
    """Find the smallest field that a network accepts.

    Parameters
    ----------
    module : torch.nn.Module
        Maps ``(B, 1, H, W)`` to ``(B, 1, H * scale, W * scale)``.
    stride : int
        The network's total stride.

    Returns
    -------
    int
        Side in pixels, a multiple of the stride.

    Raises
    ------
    CheckpointError
        If the network accepts no field up to 64 strides.
    """
    probed = module.eval()
    for multiple in (1, 2, 4, 8, 16, 32, _LARGEST_MINIMUM):
        side = multiple * stride
        try:
            with torch.no_grad():
                probed(torch.zeros(1, 1, side, side))
        except (RuntimeError, ValueError):
            continue
        return side
    msg = (
        f"A network must accept fields whose sides are multiples of its stride "
        f"{stride}, and this one refused all up to {_LARGEST_MINIMUM * stride} px."
    )
    raise CheckpointError(msg)


def _reach(module: nn.Module, side: int, across: int, stride: int) -> int:
    """Greatest distance over which NaN spreads, in four directions."""
    middle = round_up(side // 2, stride)
    reach = 0
    for axis in (2, 3):
        shape = (1, 1, side, across) if axis == 2 else (1, 1, across, side)
        for start, length in ((0, middle), (middle, side - middle)):
            field = torch.zeros(shape)
            field.narrow(axis, start, length).fill_(torch.nan)
            output = _pass(module, field)
            scale = output.shape[axis] // side
            hit = output.isnan().any(dim=1).any(dim=1 if axis == 3 else 2)[0]
            edge = middle * scale
            beyond = hit[edge:] if start == 0 else hit[:edge].flip(0)
            far = beyond.nonzero()
            spread = int(far.max()) + 1 if far.numel() else 0
            reach = max(reach, -(-spread // scale))
    return reach


def measure(module: nn.Module, *, stride: int) -> int:
    """Measure the halo that makes tiles exact.

    Parameters
    ----------
    module : torch.nn.Module
        Maps ``(B, 1, H, W)`` to ``(B, 1, H * scale, W * scale)``.
    stride : int
        The network's total stride.

    Returns
    -------
    int
        Input pixels on each side, a multiple of the stride.

    Raises
    ------
    ShapeError
        If every output depends on the whole field, however large.
    """
    return round_up(_measure(_cpu_copy(module), stride), stride)


def _measure(probed: nn.Module, stride: int) -> int:
    """Measure the reach in pixels, on fields that grow until it is seen to end."""
    across = smallest_side(probed, stride=stride)
    side = round_up(max(_FIRST_SIDE, 4 * across), stride)
    while side <= _LAST_SIDE:
        reach = _reach(probed, side, across, stride)
        if reach < side // 2 - stride:
            return reach
        side *= 2
    msg = (
        f"A network that is tiled must have a bounded receptive field, and this one "
        f"depends on more than {_LAST_SIDE // 2} px on each side."
    )
    raise ShapeError(msg)


def probe(module: nn.Module, *, stride: int) -> Probe:
    """Measure all that tiling needs to know of a network.

    Parameters
    ----------
    module : torch.nn.Module
        Maps ``(B, 1, H, W)`` to ``(B, 1, H * scale, W * scale)``.
    stride : int
        The network's total stride.

    Returns
    -------
    Probe
        Halo, live normalisations and smallest side.
    """
    probed = _cpu_copy(module)
    smallest = smallest_side(probed, stride=stride)
    with torch.no_grad(), WithoutNorms() as mode:
        probed(torch.zeros(1, 1, smallest, smallest))
    try:
        halo: int | None = round_up(_measure(probed, stride) + 1, stride)
    except ShapeError:
        halo = None
    return Probe(halo, mode.count, smallest)
