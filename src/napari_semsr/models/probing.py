"""What a network is found to do: where it looks at all of a field, and else how far.

Norms that take their statistics from the image itself are found by what is called. How
far a network looks is measured by letting NaN spread, once for tiles that are run on
their own, and once for tiles that step together and exchange pixels on the way.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from napari_semsr.core import (
    CheckpointError,
    OptionError,
    SemsrError,
    ShapeError,
    round_up,
)

# Instance norms that take their statistics from the image itself.
#
# They are the only operations of a loadable network that look at a whole image, and are
# found by what is called, not by class. Each answers from the moments of its input's
# channels, so that moments of a whole field can be put in place of those of a tile.
# Norms that use running statistics act on each pixel by itself and are not among them.
# Another operation that looks at everything has no bounded reach, and its network is
# run whole.


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and variance of each channel over all pixels, in float64.

    ``count`` is the number of pixels; ``mean`` and ``variance``, of the population,
    have shape ``(C,)``.
    """

    count: float
    mean: Tensor
    variance: Tensor


@dataclass(frozen=True, slots=True)
class LiveNorm:
    """One call of a norm on an image ``(B, C, H, W)``."""

    input: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float

    def normalised(self, x: Tensor, moments: Moments) -> Tensor:
        """Apply ``(x - mean) / sqrt(variance + eps) * weight + bias``.

        Parameters
        ----------
        x : (B, C, H, W) torch.Tensor
            What is normalised; the norm's input or a window of it.
        moments : Moments
            Mean and variance of each channel, ``(C,)``.

        Returns
        -------
        (B, C, H, W) torch.Tensor
            In the type of `x`.
        """
        gain = (moments.variance + self.eps).rsqrt()
        if self.weight is not None:
            gain = gain * self.weight.reshape(-1).double().to(gain.device)
        shift = -moments.mean * gain
        if self.bias is not None:
            shift = shift + self.bias.reshape(-1).double().to(gain.device)
        plane = (1, x.shape[1], 1, 1)
        gain, shift = (v.float().reshape(plane).to(x.device) for v in (gain, shift))
        return torch.addcmul(shift, x.float(), gain).to(x.dtype)


def live_norm(
    func: object, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> LiveNorm | None:
    """Read a torch call that normalises a plane by its own statistics.

    Parameters
    ----------
    func : object
        The torch function that is called.
    args, kwargs : tuple and dict
        Its arguments.

    Returns
    -------
    LiveNorm or None
        None for every other call.
    """
    if func is not functional.instance_norm:
        return None
    return _read(*args, **kwargs)


def _read(
    input: Tensor,  # noqa: A002 - torch's names
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> LiveNorm | None:
    """Give the arguments of `torch.nn.functional.instance_norm` their names."""
    live = use_input_stats or running_mean is None
    return LiveNorm(input, weight, bias, eps) if live and input.dim() == 4 else None


# Passes of a network whose live norms answer otherwise than by the image given.


class Answering(TorchFunctionMode):
    """Answer the live norms of a pass in the thread that enters, and count them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def answer(self, norm: LiveNorm) -> Tensor:
        """Give the normalised image; for subclasses.

        Parameters
        ----------
        norm : LiveNorm
            The call, on an image ``(B, C, H, W)``.

        Returns
        -------
        (B, C, H, W) torch.Tensor
            What the network goes on with.
        """
        raise NotImplementedError

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Answer a live norm; let other calls happen."""
        named = kwargs or {}
        norm = live_norm(func, args, named)
        if norm is None:
            return func(*args, **named)
        result = self.answer(norm)
        self.count += 1
        return result


class WithoutNorms(Answering):
    """Replace every live norm by the identity, and count them."""

    def answer(self, norm: LiveNorm) -> Tensor:
        """Return the norm's input."""
        return norm.input


class FixedMoments(Answering):
    """Answer live norms from moments that were measured before, one for each in order.

    With the moments of a whole field, each tile is what it is in the whole field.

    Parameters
    ----------
    moments : sequence of Moments
        One for each norm, in the order of the calls.
    """

    def __init__(self, moments: Sequence[Moments]) -> None:
        super().__init__()
        self._moments = moments

    def answer(self, norm: LiveNorm) -> Tensor:
        """Normalise by the next of the moments.

        Parameters
        ----------
        norm : LiveNorm
            The call, on an image ``(B, C, H, W)``.

        Returns
        -------
        (B, C, H, W) torch.Tensor
            The normalised image.

        Raises
        ------
        SemsrError
            If the moments are those of another network.
        """
        known = self.count < len(self._moments)
        channels = int(norm.input.shape[1])
        if not known or len(self._moments[self.count].mean) != channels:
            msg = (
                f"Statistics for {len(self._moments)} layers do not fit this network, "
                f"whose layer {self.count + 1} has {channels} channels: measure anew."
            )
            raise SemsrError(msg)
        return norm.normalised(norm.input, self._moments[self.count])


# How far a network looks: measured by letting NaN spread.
#
# Half of a field is filled with NaN up to a multiple of the stride; whatever output
# becomes NaN on the other half depends on that side. This sees every tap, also those
# whose weight is tiny, and does not depend on the weights. Live normalisations are
# replaced by the identity, since they would spread NaN everywhere. It is done in fp32:
# bf16 kernels in channels_last order leak NaN into their neighbours. Operations that
# swallow NaN (``torch.where``, ``nan_to_num``) hide what passes through them.

_FIRST_SIDE = 64
_LAST_SIDE = 4096
_LARGEST_MINIMUM = 64  # strides, and at most
_LAST_MINIMUM = 1024  # px; chosen: what takes no such field takes none


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


def _nan_copy(module: nn.Module) -> nn.Module:
    """Copy a network so that NaN spreads in it as far as it looks."""
    spreading = getattr(module, "spreading", None)
    return _cpu_copy(module if spreading is None else spreading())


def _spread(x: Tensor, axis: int, edge: int, *, low: bool) -> tuple[int, int]:
    """Pixels of an image that NaN has reached past an edge, and all there."""
    hit = x.isnan().any(dim=1).any(dim=4 - axis)[0]
    beyond = hit[edge:] if low else hit[:edge].flip(0)
    far = beyond.nonzero()
    return (int(far.max()) + 1 if far.numel() else 0), len(beyond)


def smallest_side(module: nn.Module, *, stride: int) -> int:
    """Find the smallest field that a network accepts.

    Gives side in pixels, a multiple of the stride.
    """
    probed = module.eval()
    multiples = (1, 2, 4, 8, 16, 32, _LARGEST_MINIMUM)
    sides = [n * stride for n in multiples if n == 1 or n * stride <= _LAST_MINIMUM]
    for side in sides:
        try:
            with torch.no_grad():
                probed(torch.zeros(1, 1, side, side))
        except (RuntimeError, ValueError):
            continue
        return side
    msg = (
        f"A network must accept fields whose sides are multiples of its stride "
        f"{stride}, and this one refused all up to {sides[-1]} px."
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
            with torch.no_grad(), WithoutNorms():
                output = module(field)
            scale = output.shape[axis] // side
            spread, _ = _spread(output, axis, middle * scale, low=start == 0)
            reach = max(reach, -(-spread // scale))
    return reach


def measure(module: nn.Module, *, stride: int) -> int:
    """Measure the halo that makes tiles exact.

    Gives input pixels on each side, a multiple of the stride.
    """
    return round_up(_measure(_nan_copy(module), stride), stride)


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
        halo: int | None = round_up(_measure(_nan_copy(module), stride) + 1, stride)
    except ShapeError:
        halo = None
    return Probe(halo, mode.count, smallest)


# How far a network looks in effect: the halo that suffices for a stated tolerance.
#
# The exact receptive field of a deep network is far wider than what changes its output
# noticeably. Here a field is changed beyond a line, and the change of the output behind
# the line is measured against the output's range: the effective field ends where it
# falls below the tolerance. Gradients say the same to first order, but their mass falls
# off faster than the change by real contents does, and gives halos that are too narrow.

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
        The exact halo, from `probe`.
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
    probed = _cpu_copy(module)
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


# How far a network looks between two refreshes of a tile's halo.
#
# Tiles that step through a network together can exchange pixels on the way: what a tile
# does not know at its margin is read from its neighbours, and the halo only has to
# cover what lies between two such refreshes. They take place wherever a live call makes
# the tiles meet anyhow. Where that is not enough (a U-Net that shrinks its input
# 128-fold looks 600 px far), refreshes are added in front of single convolutions, until
# no tensor of the pass has a wider unknown margin than one stride or a few.
#
# Unknown is what is NaN: half of a field is filled with it, and every refresh makes the
# other half known again.

_SPREADING = frozenset(  # all that the registered architectures call
    {
        torch.conv2d,
        torch.conv_transpose2d,
        functional.avg_pool2d,
        functional.interpolate,
    }
)
_PADDING = functional.pad
_LAST_REFRESHED_SIDE = 8192
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
        spread, most = _spread(x, self.axis, edge, low=self.low)
        if spread and spread == most:
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
        while side <= _LAST_REFRESHED_SIDE:
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
        is not recognised, or layers cannot be watched.
    """
    if getattr(module, "opaque", False):
        return None
    probed = _cpu_copy(module)
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
