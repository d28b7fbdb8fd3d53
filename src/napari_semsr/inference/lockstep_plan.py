"""A pass in lockstep, known before any tile runs: its calls, its tiles, what it takes.

The network is run on small fields. Every torch function that it calls is recorded:
which, where tiles meet, and which results are used again later. Two sizes are tried, so
that a network whose calls depend on the size of its input, or whose tensors are no
finer or coarser copies of it, is known at once.
"""

import copy
import math
import weakref
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from napari_semsr.core import IntPair, TilePlan, plan_tiles, round_up
from napari_semsr.models import TorchCalls, live_norm

if TYPE_CHECKING:
    from napari_semsr.inference.predictor import Predictor

# How far a network looks between two refreshes of a tile's halo.
#
# Tiles that step through a network together exchange pixels on the way: what a tile
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
_FIRST_SIDE, _LAST_SIDE = 64, 8192
_NARROW = 64


@dataclass(frozen=True, slots=True)
class HaloSyncPoints:
    """Where tiles exchange pixels, and the halo that then suffices."""

    halo: int  # Context on each side of a core in input pixels
    points: frozenset[int]  # Calls whose input is refreshed beside the live calls


class _Again(Exception):  # noqa: N818 - not a fault
    """A refresh was added before what had been computed."""


class _Unbounded(Exception):  # noqa: N818 - an answer
    """The margin does not end, or cannot be held below the target."""


def ratio_of(size: int, side: int, stride: int) -> Fraction | None:
    """Give the pixels of a tensor for each pixel of its window, along one axis.

    None where the tensor is no finer or coarser copy of the window's grid.
    """
    ratio = Fraction(size, side)
    whole = 1 in (ratio.numerator, ratio.denominator)
    return ratio if size and whole and (stride * ratio).denominator == 1 else None


class _Spreading(TorchCalls):
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
        hit = x.isnan().any(1).any(4 - self.axis)[0]
        beyond = hit[edge:] if self.low else hit[:edge].flip(0)
        far = beyond.nonzero()
        spread = int(far.max()) + 1 if far.numel() else 0
        if spread and spread == len(beyond):
            raise _Unbounded
        return -(-spread * ratio.denominator // ratio.numerator)

    def note(self, x: Tensor) -> None:
        """Count an image that a tile must know in its core."""
        self.reach = max(self.reach, self.margin(x))

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        place, self.count = self.count, self.count + 1
        norm = live_norm(func, args, kwargs)
        if norm is not None:
            self.note(norm.input)
            return self.unknown(norm.input)
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if place in self.search.points and first is not None:
            return self._refreshed(func, first, args, kwargs)
        result = func(*args, **kwargs)
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
                result = self._refreshed(func, first, args, kwargs)
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

    def __init__(
        self, module: nn.Module, stride: int, across: int, target: int | None
    ) -> None:
        self.module, self.stride, self.target = module, stride, target
        self.across = across
        self.points: set[int] = set()

    def add(self, place: int) -> None:
        """Refresh the input of one more call, which must not be refreshed yet."""
        if place in self.points:
            raise _Unbounded
        self.points.add(place)

    def run(self) -> HaloSyncPoints:
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

    def _settle(self, side: int) -> HaloSyncPoints:
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
                return HaloSyncPoints(halo, frozenset(self.points))

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


def find_refreshes(
    module: nn.Module, *, stride: int, smallest: int
) -> HaloSyncPoints | None:
    """Find where tiles that step together exchange pixels, and their halo.

    None when no halo suffices: something looks at the whole field in a way that is not
    recognised, or layers cannot be watched.
    """
    if getattr(module, "opaque", False):
        return None
    probed = copy.deepcopy(module).to("cpu", torch.float32).eval()
    try:
        plain: HaloSyncPoints | None = _Search(probed, stride, smallest, None).run()
    except _Unbounded:
        plain = None
    if plain is not None and plain.halo <= max(_NARROW, stride):
        return plain
    for multiple in (1, 2, 4):
        target = round_up(_NARROW // 2, stride) * multiple
        if plain is not None and target >= plain.halo:
            break
        try:
            return _Search(probed, stride, smallest, target).run()
        except _Unbounded:
            continue
    return plain


# One pass, call by call.

INPUT: IntPair = (-1, 0)
_STRIDES = 4


@dataclass(frozen=True, slots=True)
class SyncPoint:
    """A call at which all tiles meet."""

    call: int  # Its number, counted from 0
    # Whether it is a live norm, for which statistics are taken; otherwise only the halo
    # is refreshed
    live: bool
    root: IntPair  # The tensor that it looks at
    channels: int  # Of that tensor
    ratio: Fraction  # Its pixels for each input pixel, along each axis
    itemsize: int  # Bytes of one of its values

    @property
    def bytes_per_pixel(self) -> float:
        """Bytes of the tensor for each pixel of the input."""
        return float(self.channels * self.itemsize * self.ratio**2)


@dataclass(frozen=True, slots=True)
class OpTrace:
    """One pass, call by call."""

    functions: tuple[Any, ...]  # What is called
    # The tensors that each call returns, by the call that made them first: a call that
    # works in place returns an old one
    made: tuple[tuple[IntPair, ...], ...]
    # The last call that takes a tensor; the number of calls for the pass's output
    last_use: dict[IntPair, int]
    size: dict[IntPair, float]  # Bytes of a tensor for each pixel of the input
    points: tuple[SyncPoint, ...]  # Where tiles meet, in order

    def kept(self, point: SyncPoint) -> tuple[IntPair, ...]:
        """List what a tile must keep while it waits."""
        found = []
        for root, last in self.last_use.items():
            if root[0] < point.call <= last and root != point.root:
                found.append(root)
        return tuple(found)


class _Watching(TorchCalls):
    """Record a pass; tensors that it drops are not held."""

    def __init__(self, side: int, stride: int, points: frozenset[int]) -> None:
        super().__init__()
        self.functions: list[Any] = []
        self.made: list[tuple[IntPair, ...]] = []
        self.last_use: dict[IntPair, int] = {}
        self.size: dict[IntPair, float] = {}
        self.points: list[SyncPoint] = []
        self.fault = False
        self._side, self._stride, self._refreshed = side, stride, points
        self._roots: MutableMapping[Tensor, IntPair] = WeakTensorKeyDictionary()
        # the tensors that share a memory, by that
        self._sharing: weakref.WeakKeyDictionary[Any, list[IntPair]]
        self._sharing = weakref.WeakKeyDictionary()
        self._changes: list[tuple[int, IntPair, list[IntPair]]] = []

    def name(self, x: Tensor, root: IntPair) -> IntPair:
        """Remember where a tensor comes from."""
        if x not in self._roots:
            self._roots[x] = root
            self.size[root] = x.nbytes / self._side**2
            self._sharing.setdefault(x.untyped_storage(), []).append(root)
        return self._roots[x]

    def use(self, value: Any, call: int) -> None:
        for leaf in tree_leaves(value):
            if isinstance(leaf, Tensor) and leaf in self._roots:
                self.last_use[self._roots[leaf]] = call

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        number = len(self.functions)
        self.functions.append(func)
        self.use((args, kwargs), number)
        self._note_change(func, args, number)
        norm = live_norm(func, args, kwargs)
        if norm is not None:
            self._meet(norm.input, number, live=True)
            result = torch.zeros_like(norm.input)
        else:
            if number in self._refreshed:
                self._meet(args[0], number, live=False)
            result = func(*args, **kwargs)
        leaves = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        made = tuple(self.name(x, (number, i)) for i, x in enumerate(leaves))
        self.made.append(made)
        return result

    def _note_change(self, func: Any, args: tuple[Any, ...], number: int) -> None:
        name = getattr(func, "__name__", "")
        within = name.endswith("_") and not name.endswith("__")
        if not within and name != "__setitem__" and not name.startswith("__i"):
            return
        if args and isinstance(args[0], Tensor) and args[0] in self._roots:
            sharing = self._sharing[args[0].untyped_storage()]
            self._changes.append((number, self._roots[args[0]], sharing))

    def entangled(self) -> bool:
        """Whether a change must be seen through a view that was kept over a point.

        A tile keeps copies while it waits: what shared memory does so no longer.
        """
        for number, changed, views in self._changes:
            first = min(views)[0]
            apart = any(first < p.call <= number for p in self.points)
            others = [v for v in views if v != changed]
            if apart and any(self.last_use.get(v, -1) > number for v in others):
                return True
        return False

    def _meet(self, x: Tensor, number: int, *, live: bool) -> None:
        ratios = {ratio_of(n, self._side, self._stride) for n in x.shape[2:]}
        root = self._roots.get(x)
        ratio = ratios.pop()
        if ratios or ratio is None or root is None or len(x) != 1:
            self.fault = True
            return
        self.points.append(
            SyncPoint(number, live, root, int(x.shape[1]), ratio, x.element_size())
        )


def _watch(
    network: nn.Module, side: int, stride: int, points: frozenset[int]
) -> OpTrace | None:
    mode = _Watching(side, stride, points)
    window = torch.zeros(1, 1, side, side)
    mode.name(window, INPUT)
    with torch.no_grad(), mode:
        output = network(window)
    mode.use(output, len(mode.functions))
    if mode.fault or mode.entangled() or not isinstance(output, Tensor):
        return None
    return OpTrace(
        functions=tuple(mode.functions),
        made=tuple(mode.made),
        last_use=mode.last_use,
        size=mode.size,
        points=tuple(mode.points),
    )


def trace_network(
    module: nn.Module, refreshes: HaloSyncPoints, *, stride: int, smallest: int
) -> OpTrace | None:
    """Record a pass of a network, to be played for each tile."""
    network = copy.deepcopy(module).to("cpu", torch.float32).eval()
    side = round_up(max(_STRIDES * stride, 2 * smallest), stride)
    first, second = (
        _watch(network, s, stride, refreshes.points) for s in (side, side + stride)
    )
    if first is None or second is None:
        return None
    same = first.functions == second.functions and first.points == second.points
    return first if same else None


# What running in lockstep would take: tiles, memory, disk, work.

_SENSIBLE_WORK = 1.3
_WINDOW_SHARE = 0.5
_KEPT_SHARE = 0.85  # the rest: codecs, and free pieces of the heap between two tidyings
_SMALLEST_CORE = 32
_known: weakref.WeakKeyDictionary[
    nn.Module, dict[int, tuple[HaloSyncPoints, OpTrace] | None]
]
_known = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class LockstepPlan:
    """How a field is run in lockstep, and what that takes."""

    # Cores partition the padded field; they are whole output tiles, or several
    tiles: TilePlan
    trace: OpTrace  # The network's calls
    work: float  # Pixels that are computed, for each pixel of the padded field
    room_bytes: int  # Layers and waiting tiles at their most
    memory_bytes: int  # How much of these may lie in memory

    @property
    def disk_bytes(self) -> int:
        """What has to lie on disk."""
        return max(0, self.room_bytes - self.memory_bytes)

    def sentence(self) -> str:
        """Say what will be done."""
        norms = sum(point.live for point in self.trace.points)
        said = (
            f"{len(self.tiles)} tiles of {self.tiles.core} px step together through "
            f"{len(self.trace.points)} layers ({norms} of them take statistics of the "
            f"whole field), halo {self.tiles.halo} px, {self.work:.2f} times the work "
            f"of a whole pass, {self.room_bytes / 1e9:.2g} GB of layers"
        )
        if self.disk_bytes:
            said += f", {self.disk_bytes / 1e9:.2g} GB of them on disk"
        return f"{said}."

    def halved(self, predictor: "Predictor", core: int) -> "LockstepPlan | None":
        """Plan the same with smaller tiles, because memory ran out; None at the end.

        They divide, or hold, the output's tiles of side `core`.
        """
        stride = self.tiles.stride
        before = min(self.tiles.core, max(self.tiles.padded_shape))
        wanted = max(before // 2, stride)
        if wanted >= core:
            side = wanted // core * core
        else:
            parts = range(1, core // stride + 1)
            sides = [core // n for n in parts if (core // stride) % n == 0]
            side = next((s for s in sides if s <= wanted), 0)
        if side >= before or side < round_up(min(_SMALLEST_CORE, core), stride):
            return None
        tiles = _cut(self.tiles, side, self.tiles.halo)
        shared = predictor.device.type == "cpu"
        return replace(
            self,
            tiles=tiles,
            work=work_of(tiles),
            room_bytes=_room(self.trace, tiles),
            memory_bytes=self.memory_bytes // 2 if shared else self.memory_bytes,
        )


def halo_and_trace(predictor: "Predictor") -> tuple[HaloSyncPoints, OpTrace] | None:
    """Find where a network's tiles meet; measured once for a network."""
    made = _known.setdefault(predictor.source, {})
    stride = predictor.card.stride
    if stride not in made:
        found = predictor.refreshes()
        trace = None
        if found is not None:
            trace = trace_network(
                predictor.source,
                found,
                stride=stride,
                smallest=predictor.probe.smallest,
            )
        made[stride] = None if found is None or trace is None else (found, trace)
    return made[stride]


def work_of(tiles: TilePlan) -> float:
    """Compare the windows of a plan with the field."""
    rows, columns = tiles.padded_shape
    return _area(tiles) / (rows * columns)


def _area(tiles: TilePlan) -> int:
    return sum(math.prod(tile.window.shape) for tile in tiles)


def _cut(tiles: TilePlan, core: int, halo: int) -> TilePlan:
    """Lay cores over the padded field."""
    return plan_tiles(
        tiles.padded_shape, core=core, halo=halo, stride=tiles.stride, constant=False
    )


def plan_lockstep(
    predictor: "Predictor",
    tiles: TilePlan,
    budget: int,
    *,
    host: int | None = None,
    core: int | None = None,
) -> LockstepPlan | None:
    """Plan a run in lockstep."""
    known = halo_and_trace(predictor)
    if known is None:
        return None
    refreshes, trace = known
    chosen = _cut(tiles, core or tiles.core, refreshes.halo)
    peak = _peak(predictor, chosen)
    while core is None and work_of(chosen) > _SENSIBLE_WORK and len(chosen) > 1:
        larger = _cut(tiles, chosen.core + tiles.core, refreshes.halo)
        more = _peak(predictor, larger)
        if more > _WINDOW_SHARE * budget:
            break
        chosen, peak = larger, more
    room = budget if host is None else host
    shared = predictor.device.type == "cpu"
    return LockstepPlan(
        tiles=chosen,
        trace=trace,
        work=work_of(chosen),
        room_bytes=_room(trace, chosen),
        memory_bytes=int(_KEPT_SHARE * max(0, room - peak if shared else room)),
    )


def _peak(predictor: "Predictor", tiles: TilePlan) -> int:
    """Memory of the largest window."""
    shapes = {tile.window.shape for tile in tiles}
    return predictor.peak_bytes(max(shapes, key=math.prod))


def _room(trace: OpTrace, tiles: TilePlan) -> int:
    """Bytes of layers and waiting tiles at their most."""
    rows, columns = tiles.padded_shape
    windows = _area(tiles)
    layers = [p.bytes_per_pixel * rows * columns for p in trace.points]
    waiting = [sum(trace.size[r] for r in trace.kept(p)) for p in trace.points]
    most = 0.0
    for at in range(len(layers)):
        following = layers[at + 1] if at + 1 < len(layers) else 0.0
        kept = max(waiting[at : at + 2]) * windows
        most = max(most, layers[at] + following + kept)
    return int(most)
