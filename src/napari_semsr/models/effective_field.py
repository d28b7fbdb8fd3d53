"""How far a network looks in effect: the halo that suffices for a stated tolerance.

The exact receptive field of a deep network is far wider than what changes its output
noticeably. Here a field is changed beyond a line, and the change of the output behind
the line is measured against the output's range: the effective field ends where it falls
below the tolerance. Gradients say the same to first order, but their mass falls off
faster than the change by real contents does, and gives halos that are too narrow.
"""

import copy

import torch
from torch import Tensor, nn

from napari_semsr.core.errors import OptionError
from napari_semsr.core.tiling import round_up
from napari_semsr.models.normalisation import WithoutNorms
from napari_semsr.models.receptive_field import smallest_side

__all__ = ["effective_fields", "effective_halo"]

_TRIALS = 2
_TOLERANCES = (0.01, 0.001)
_WIDEST = 256


def effective_halo(
    module: nn.Module, *, stride: int, halo: int, tolerance: float, seed: int = 0
) -> int:
    """Measure the halo beyond which the input changes the output by little.

    Parameters
    ----------
    module : torch.nn.Module
        Maps ``(B, 1, H, W)`` to ``(B, 1, H * scale, W * scale)``.
    stride : int
        The network's total stride.
    halo : int
        The exact halo, from `receptive_field.probe`.
    tolerance : float
        Largest change that is allowed, over the range of the output.
    seed : int, default=0
        Of the noise that the network is shown.

    Returns
    -------
    int
        Input pixels, a multiple of the stride, at most `halo`.

    Raises
    ------
    OptionError
        If the tolerance is not between 0 and 1.

    Notes
    -----
    Noise with structure at several scales stands for real images, and live
    normalisations are left out, as for the exact field.
    """
    if not 0 < tolerance < 1:
        msg = f"A tolerance must lie between 0 and 1, got {tolerance}."
        raise OptionError(msg)
    probed = copy.deepcopy(module).to("cpu", torch.float32).eval()
    across = smallest_side(probed, stride=stride)
    side = 2 * round_up(halo + across, stride)
    rng = torch.Generator().manual_seed(seed)
    reach = 0
    for _ in range(_TRIALS):
        for axis in (2, 3):
            shape = (side, across) if axis == 2 else (across, side)
            one, other = (_noise(shape, rng) for _ in range(2))
            for low in (True, False):
                change = _change(probed, one, other, axis=axis, low=low)
                far = (change > tolerance).nonzero()
                scale = 2 * len(change) // side
                reach = max(reach, -(-(int(far.max()) + 1) // scale) if len(far) else 0)
    return min(halo, round_up(reach, stride))


def effective_fields(
    module: nn.Module, *, stride: int, halo: int | None
) -> dict[str, int]:
    """Measure what a card says of a network's effective field.

    Parameters
    ----------
    module : torch.nn.Module
        Maps ``(B, 1, H, W)`` to ``(B, 1, H * scale, W * scale)``.
    stride : int
        The network's total stride.
    halo : int or None
        The exact halo; None when it is not bounded.

    Returns
    -------
    dict
        Input pixels for tolerances of 0.01 and 0.001; empty where the exact halo is
        above 256 px, which takes long.
    """
    if halo is None or halo > _WIDEST:
        return {}
    return {
        f"{tolerance:g}": effective_halo(
            module, stride=stride, halo=halo, tolerance=tolerance
        )
        for tolerance in _TOLERANCES
    }


def _noise(shape: tuple[int, int], rng: torch.Generator) -> Tensor:
    """Draw values in [0, 1] with structure at several scales."""
    total = torch.zeros(1, 1, *shape)
    for step in (1, 4, 16):
        coarse = torch.rand(1, 1, *(-(-n // step) for n in shape), generator=rng)
        fine = coarse.repeat_interleave(step, 2).repeat_interleave(step, 3)
        total += fine[..., : shape[0], : shape[1]]
    return total / 3


def _change(
    module: nn.Module, one: Tensor, other: Tensor, *, axis: int, low: bool
) -> Tensor:
    """Change of the output by distance from a line, over the output's range."""
    half = one.shape[axis] // 2
    mixed = one.clone()
    start = 0 if low else half
    mixed.narrow(axis, start, half).copy_(other.narrow(axis, start, half))
    with torch.no_grad(), WithoutNorms():
        before, after = module(one), module(mixed)
    spread = (before.max() - before.min()).clamp_min(torch.finfo(before.dtype).tiny)
    largest: Tensor = ((after - before).abs() / spread).amax(dim=(0, 1, 5 - axis))
    middle = len(largest) // 2
    return largest[middle:] if low else largest[:middle].flip(0)
