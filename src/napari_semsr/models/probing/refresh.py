"""How far a network looks between two refreshes of a tile's halo.

Tiles that step through a network together can exchange pixels on the way: what a tile
does not know at its margin is read from its neighbours, and the halo only has to cover
what lies between two such refreshes. They take place wherever a live call makes the
tiles meet anyhow. Where that is not enough (a U-Net that shrinks its input 128-fold
looks 600 px far), refreshes are added in front of single convolutions, until no tensor
of the pass has a wider unknown margin than one stride or a few.

Unknown is what is NaN: half of a field is filled with it, and every refresh makes the
other half known again.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from napari_semsr.core import round_up
from napari_semsr.models.probing.receptive_field import smallest_side
from napari_semsr.models.probing.statistics import live_norm

_SPREADING = frozenset(  # all that the registered architectures call
    {
        torch.conv2d,
        torch.conv_transpose2d,
        functional.avg_pool2d,
        functional.interpolate,
    }
)
_PADDING = functional.pad
_FIRST_SIDE = 64
_LAST_SIDE = 8192
_NARROW = 64


@dataclass(frozen=True, slots=True)
class Refreshes:
    """Where tiles exchange pixels, and the halo that then suffices.

    Attributes
    ----------
    halo : int
        Context on each side of a core in input pixels, a multiple of the stride.
    points : frozenset of int
        Calls, counted from 0, whose input is refreshed beside the live calls.
    """

    halo: int
    points: frozenset[int]


class _Again(Exception):  # noqa: N818 - not a fault
    """A refresh was added before what had been computed."""


class _Unbounded(Exception):  # noqa: N818 - an answer
    """The margin does not end, or cannot be held below the target."""


def ratio_of(size: int, side: int, stride: int) -> Fraction | None:
    """Give the pixels of a tensor for each pixel of its window.

    Parameters
    ----------
    size : int
        Pixels of a tensor along one axis.
    side : int
        Those of the window, a multiple of the stride.
    stride : int
        The network's total stride.

    Returns
    -------
    fractions.Fraction or None
        None where the tensor is no finer or coarser copy of the window's grid.
    """
    ratio = Fraction(size, side)
    whole = 1 in (ratio.numerator, ratio.denominator)
    return ratio if size and whole and (stride * ratio).denominator == 1 else None


class _Spreading(TorchFunctionMode):
    """Let NaN spread along one axis, from one half of a field into the other."""

    def __init__(self, search: "_Search", axis: int, low: bool, side: int) -> None:
        super().__init__()
        self.search, self.axis, self.low, self.side = search, axis, low, side
        self.middle = round_up(side // 2, search.stride)
        self.count = 0
        self.reach = 0
        self.last: int | None = None
        self._padded: dict[int, tuple[Tensor, int]] = {}

    def unknown(self, x: Tensor) -> Tensor:
        """Make an image that is known in one half only."""
        ratio = self.ratio(x)
        if ratio is None:
            raise _Unbounded
        edge = int(self.middle * ratio)
        fresh = torch.zeros_like(x)
        length = edge if self.low else x.shape[self.axis] - edge
        fresh.narrow(self.axis, 0 if self.low else edge, length).fill_(torch.nan)
        return fresh

    def ratio(self, x: Tensor) -> Fraction | None:
        """Pixels of an image for each input pixel, along the axis."""
        if x.dim() != 4:
            return None
        return ratio_of(x.shape[self.axis], self.side, self.search.stride)

    def margin(self, x: Tensor) -> int:
        """Input pixels over which an image is unknown beyond the middle."""
        ratio = self.ratio(x)
        if ratio is None:
            raise _Unbounded
        edge = int(self.middle * ratio)
        other = 5 - self.axis
        hit = x.isnan().any(dim=1).any(dim=other - 1)[0]
        beyond = hit[edge:] if self.low else hit[:edge].flip(0)
        far = beyond.nonzero()
        spread = int(far.max()) + 1 if far.numel() else 0
        if spread and spread == len(beyond):
            raise _Unbounded
        return -(-spread * ratio.denominator // ratio.numerator)

    def note(self, x: Tensor) -> None:
        """Count an image that a tile must know in its core."""
        self.reach = max(self.reach, self.margin(x))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Answer one call."""
        named = kwargs or {}
        place, self.count = self.count, self.count + 1
        norm = live_norm(func, args, named)
        if norm is not None:
            self.note(norm.input)
            return self.unknown(norm.input)
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if place in self.search.points and first is not None:
            return self._refreshed(func, first, args, named)
        result = func(*args, **named)
        if self.search.target is None or first is None:
            return result
        if func is _PADDING and self.ratio(first) is not None:
            self._padded[id(result)] = result, place
        if func in _SPREADING:
            known = self._padded.get(id(first))
            self.last = place if known is None else known[1]
            if self._too_wide(result):
                self.search.add(self.last)
                if known is not None:
                    raise _Again
                result = self._refreshed(func, first, args, named)
                if self._too_wide(result):
                    raise _Unbounded
        return result

    def _too_wide(self, result: Any) -> bool:
        target = self.search.target
        if target is None or self.ratio(result) is None:
            return False
        return self.margin(result) > target

    def _refreshed(
        self,
        func: Callable[..., Any],
        first: Tensor,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        self.note(first)
        return func(self.unknown(first), *args[1:], **kwargs)


class _Search:
    """One attempt to keep all margins below a target."""

    def __init__(self, module: nn.Module, stride: int, target: int | None) -> None:
        self.module, self.stride, self.target = module, stride, target
        self.points: set[int] = set()
        self.across = smallest_side(module, stride=stride)

    def add(self, place: int) -> None:
        """Refresh the input of one more call, which must not be refreshed yet."""
        if place in self.points:
            raise _Unbounded
        self.points.add(place)

    def run(self) -> Refreshes:
        """Let NaN spread in four directions until nothing is to be added."""
        side = round_up(max(_FIRST_SIDE, 4 * self.across), self.stride)
        while side <= _LAST_SIDE:
            try:
                return self._settle(side)
            except _Unbounded:
                self.points.clear()
                if self.target is not None and side // 2 > 4 * self.target:
                    raise
                side *= 2
        raise _Unbounded

    def _settle(self, side: int) -> Refreshes:
        while True:
            before = len(self.points)
            try:
                reach = max(
                    self._pass(side, axis, low)
                    for axis in (2, 3)
                    for low in (True, False)
                )
            except _Again:
                continue
            if len(self.points) == before:
                halo = round_up(reach, self.stride)
                return Refreshes(halo, frozenset(self.points))

    def _pass(self, side: int, axis: int, low: bool) -> int:
        shape = (1, 1, side, self.across) if axis == 2 else (1, 1, self.across, side)
        mode = _Spreading(self, axis, low, side)
        field = mode.unknown(torch.zeros(shape))
        with torch.no_grad(), mode:
            output = self.module(field)
        reach = mode.margin(output) + 1  # neighbours are compared beyond the core
        if self.target is not None and reach > self.target and mode.last is not None:
            self.add(mode.last)
            raise _Again
        return max(mode.reach, reach)


def find_refreshes(module: nn.Module, *, stride: int) -> Refreshes | None:
    """Find where tiles that step together exchange pixels, and their halo.

    Parameters
    ----------
    module : torch.nn.Module
        Maps ``(B, 1, H, W)`` to ``(B, 1, H * scale, W * scale)``.
    stride : int
        The network's total stride.

    Returns
    -------
    Refreshes or None
        None when no halo suffices: something looks at the whole field in a way that
        is not recognised.
    """
    probed = copy.deepcopy(module).to("cpu", torch.float32).eval()
    try:
        plain: Refreshes | None = _Search(probed, stride, None).run()
    except _Unbounded:
        plain = None
    if plain is not None and plain.halo <= max(_NARROW, stride):
        return plain
    for multiple in (1, 2, 4):
        target = round_up(_NARROW // 2, stride) * multiple
        if plain is not None and target >= plain.halo:
            break
        try:
            return _Search(probed, stride, target).run()
        except _Unbounded:
            continue
    return plain
