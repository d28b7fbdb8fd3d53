"""All tiles through a network together, so that each is as in the whole field.

Tiles step from one point to the next: a live normalisation, or a place where only the
halo is refreshed. There every tile writes its core into a layer of the whole field and
adds to its statistics; when all have, each reads its window back, with the neighbours'
pixels as halo, and goes on with the statistics of the whole field. The halo thus only
covers what lies between two points, and the cost is about that of one whole pass.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from napari_semsr.core import Box, IntPair, Returning, SemsrError, Tile, TilePlan
from napari_semsr.inference.buffers import Layer, Room, TensorStore
from napari_semsr.inference.lockstep_plan import INPUT, OpTrace, SyncPoint
from napari_semsr.inference.statistics import Gathered, Moments, Statistics, on_device
from napari_semsr.models import TorchCalls, live_norm

# One tile's pass through a network, in steps: left at a point, taken up again.
#
# A pass is left by an exception. To take it up, the network is called anew, and every
# torch call that was made before is answered from what was remembered: an empty tensor
# of the right shape where the result is of no more use, else a stand-in for what the
# tile kept. Nothing is computed twice, no thread waits, and what a waiting tile holds
# is known exactly, so that it can lie on disk.


@dataclass(frozen=True, slots=True)
class _TensorSpec:
    """A tensor that was made: its root, shape and type."""

    root: IntPair
    shape: torch.Size
    dtype: torch.dtype


# What a tile is told at a point: the point's tensor (1, C, H, W) with a fresh halo, and
# moments of the whole field; None where only the halo is refreshed
_Answer = tuple[Tensor, Moments | None]


class _Suspend(BaseException):
    """The pass is left at a point; passes by every ``except Exception``."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.tensor = tensor


@dataclass(slots=True)
class TilePass:
    """One tile on its way through a network."""

    network: nn.Module  # The network, in evaluation mode
    trace: OpTrace  # Its calls
    store: TensorStore  # Where tensors lie while the tile waits
    key: Any  # Name of the tile in the store
    # What each call made so far returned: a form without values
    results: list[Any] = field(default_factory=list)
    _window: _TensorSpec | None = None
    reached: int = 0  # Points that it has come to

    def begin(self, window: Tensor) -> Tensor:
        """Run (1, 1, H, W) from the start to the first point, or to the end."""
        self._window = _TensorSpec(INPUT, window.shape, window.dtype)
        return self._step(window, _Segment(self, -1, None, {INPUT: window}))

    def proceed(self, answer: _Answer) -> Tensor:
        """Run from the point where the tile waits to the next one, or to the end."""
        if self._window is None:
            msg = "A tile must begin before it proceeds."
            raise SemsrError(msg)
        point = self.trace.points[self.reached - 1]
        segment = _Segment(self, point.call, answer, {})
        if self.trace.last_use[point.root] > point.call:
            segment.live[point.root] = answer[0]
        return self._step(segment.stand_in(self._window), segment)

    def _step(self, window: Tensor, segment: "_Segment") -> Tensor:
        """Call the network until it ends or leaves."""
        try:
            with segment:
                output = self.network(window)
        except _Suspend as left:
            tensor = left.tensor
            left.__traceback__ = None  # its frames hold tensors
        else:
            if self.reached < len(self.trace.points):
                raise _deviation()
            result: Tensor = segment.real(output)
            self._forget(segment, None)
            return result
        point = self.trace.points[self.reached]
        self.reached += 1
        self._forget(segment, point)
        return tensor

    def _forget(self, segment: "_Segment", point: SyncPoint | None) -> None:
        """Put in the store what is used later, and drop what is not."""
        kept = set(self.trace.kept(point)) if point is not None else set()
        for root in list(self.trace.last_use):
            if root not in kept:
                self.store.drop((self.key, root))
        for root in kept & segment.live.keys():
            name = self.key, root
            tensor = segment.live[root]
            if name not in self.store or segment.changed(root):
                self.store.put(name, tensor)
        segment.live.clear()


def _deviation() -> SemsrError:
    msg = (
        "This network does not make the same calls for every tile, so that tiles "
        "cannot run in lockstep: use --norm sampled or tile."
    )
    return SemsrError(msg)


class _Segment(TorchCalls):
    """Answer old calls from memory, one from the point, and make the new ones."""

    def __init__(
        self,
        owner: TilePass,
        resumed: int,
        answer: _Answer | None,
        live: dict[IntPair, Tensor],
    ) -> None:
        super().__init__()
        self.live = live
        self._owner, self._resumed, self._answer = owner, resumed, answer
        self._number = 0
        self._stand_ins: dict[int, tuple[Tensor, IntPair]] = {}
        self._versions: dict[IntPair, int] = {}
        self._dying: dict[int, list[IntPair]] = {}  # tensors by their last call
        for root, last in owner.trace.last_use.items():
            self._dying.setdefault(last, []).append(root)

    def stand_in(self, form: _TensorSpec) -> Tensor:
        made = torch.empty(form.shape, dtype=form.dtype, device="meta")
        self._stand_ins[id(made)] = made, form.root
        return made

    def real(self, value: Any, but: IntPair | None = None) -> Any:
        """Return the tensor that a stand-in stands for; other values as they are."""
        known = self._stand_ins.get(id(value))
        if known is None or known[1] == but:
            return value
        root = known[1]
        if root not in self.live:
            name = self._owner.key, root
            if name not in self._owner.store:
                raise _deviation()
            self.live[root] = self._owner.store.get(name)
            self._versions[root] = _version(self.live[root])
        return self.live[root]

    def changed(self, root: IntPair) -> bool:
        """Whether a tensor is new, or was changed since it was fetched."""
        return self._versions.get(root) != _version(self.live[root])

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        trace, number = self._owner.trace, self._number
        if number >= len(trace.functions) or func is not trace.functions[number]:
            raise _deviation()
        self._number += 1
        if number < self._resumed:
            memory = self._owner.results[number]
            if isinstance(memory, _TensorSpec):
                return self.stand_in(memory)
            several = isinstance(memory, _Several)
            return memory.rebuilt(self.stand_in) if several else memory
        known = self._stand_ins
        if known and any(  # a stand-in may be among the arguments
            id(value) in known or isinstance(value, tuple | list)
            for value in (*args, *kwargs.values())
        ):
            own = None
            if number == self._resumed:  # the tensor of the point that is answered
                own = self._owner.trace.points[self._owner.reached - 1].root
            args, kwargs = tree_map(lambda x: self.real(x, own), (args, kwargs))
        result = self._make(number, func, args, kwargs)
        self._remember(number, result)
        return result

    def _make(
        self, number: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Make a call; leave the pass if it is a point not yet answered."""
        owner = self._owner
        if number == self._resumed and self._answer is not None:
            (window, moments), norm = self._answer, live_norm(func, args, kwargs)
            if norm is None:
                return func(window, *args[1:], **kwargs)
            if moments is None:
                raise _deviation()
            return moments.normalise(window, norm)
        points = owner.trace.points
        if owner.reached < len(points) and points[owner.reached].call == number:
            norm = live_norm(func, args, kwargs)
            raise _Suspend(args[0] if norm is None else norm.input)
        return func(*args, **kwargs)

    def _remember(self, number: int, result: Any) -> None:
        """Note the form of a result, and hold it while it is of use."""
        owner = self._owner
        roots = iter(owner.trace.made[number])
        if isinstance(result, Tensor):
            memory: Any = self._hold(result, next(roots))
        elif any(isinstance(x, Tensor) for x in tree_leaves(result)):
            memory = _Several(
                tree_map(
                    lambda x: (
                        self._hold(x, next(roots)) if isinstance(x, Tensor) else x
                    ),
                    result,
                )
            )
        else:
            memory = result
        owner.results.append(memory)
        for root in self._dying.get(number, ()):
            self.live.pop(root, None)

    def _hold(self, tensor: Tensor, root: IntPair) -> _TensorSpec:
        if self._owner.trace.last_use.get(root, -1) > self._number - 1:
            self.live[root] = tensor
        return _TensorSpec(root, tensor.shape, tensor.dtype)


@dataclass(frozen=True, slots=True)
class _Several:
    """The form of a result that holds more than one tensor."""

    forms: Any

    def rebuilt(self, stand_in: Callable[[_TensorSpec], Tensor]) -> Any:
        return tree_map(
            lambda x: stand_in(x) if isinstance(x, _TensorSpec) else x, self.forms
        )


def _version(tensor: Tensor) -> int:
    """Count the changes in place that torch has seen."""
    return tensor._version  # noqa: SLF001 - torch documents it, but under this name


# All tiles on their way.


@dataclass(frozen=True, slots=True)
class StepResult:
    """One tile has come to one point."""

    point: int  # Number of the point, counted from 1
    points: int  # All points
    tile: int  # Tiles that have come there
    tiles: int  # All tiles


@dataclass(frozen=True, slots=True)
class FinishedTile:
    """One tile has come to the end."""

    tile: Tile  # Which
    output: Tensor  # (1, C, H * scale, W * scale) The network's output for its window


def _scaled_box(box: Box, ratio: Fraction) -> Box:
    """Give a region on a tensor's grid, of `ratio` pixels for each input pixel."""
    return Box(*(int(side * ratio) for side in (box.y0, box.y1, box.x0, box.x1)))


@dataclass(slots=True)
class LayerSynchronous:
    """A set of tiles on their way."""

    network: nn.Module  # The network, in evaluation mode, on its device
    trace: OpTrace  # Its calls
    plan: TilePlan  # Cores partition the padded field
    source: Callable[[Tile], Tensor]  # Gives the network's input for a tile
    room: Room  # Where layers and waiting tiles lie
    device: torch.device  # Where the network runs
    # Makes what surrounds each computation: precision, errors translated
    computing: Callable[[], AbstractContextManager[object]] = torch.no_grad
    known: Statistics | None = None  # Taken as they are, instead of being measured
    # Whether halos are refreshed; otherwise each tile keeps what it made itself, and
    # only its statistics are pooled
    refresh: bool = True
    # Statistics of the points that all tiles have come to
    measured: list[Moments] = field(default_factory=list)
    _gathered: Gathered | None = None

    def run(
        self, tiles: Sequence[Tile], *, until_end: bool = True
    ) -> Generator[StepResult | FinishedTile]:
        """Run tiles from the first point to the end."""
        store = TensorStore(self.room)
        passes = [
            TilePass(self.network, self.trace, store, tile.index) for tile in tiles
        ]
        points = self.trace.points
        before: Layer | None = None
        after: Layer | None = None
        live = sum(point.live for point in points)
        returning = Returning()
        try:
            for number in range(len(points) + 1):
                moments = self._moments(points[number - 1]) if number else None
                if not until_end and len(self.measured) == live:
                    return
                for count, (tile, walk) in enumerate(
                    zip(tiles, passes, strict=True), 1
                ):
                    with self.computing():
                        made = self._advance(tile, walk, number, moments, before)
                        if number < len(points):
                            after = self._arrive(tile, walk, number, made, after)
                    if number == len(points):
                        yield FinishedTile(tile, made)
                    else:
                        yield StepResult(number + 1, len(points), count, len(tiles))
                    del made
                    returning.now_and_then()
                if before is not None:
                    before.close()
                before, after = after, None
        finally:
            for layer in (before, after):
                if layer is not None:
                    layer.close()
            store.close()

    def _moments(self, point: SyncPoint) -> Moments | None:
        """Pool the statistics of the point that all tiles have come to."""
        if not point.live:
            return None
        if self.known is not None:
            wanted = self.known.moments[len(self.measured)]
            (found,) = on_device([wanted], self.device)
        elif self._gathered is None:
            return None
        else:
            found = self._gathered.pooled(self.device)
        self._gathered = None
        self.measured.append(found)
        return found

    def _advance(
        self,
        tile: Tile,
        walk: TilePass,
        number: int,
        moments: Moments | None,
        layer: Layer | None,
    ) -> Tensor:
        """Bring one tile from the point before to the one with a number."""
        if not number:
            return walk.begin(self.source(tile))
        if layer is not None:
            ratio = self.trace.points[number - 1].ratio
            window = layer.read(_scaled_box(tile.window, ratio)).to(self.device)
        else:
            window = walk.store.get((tile.index, "own"))
            walk.store.drop((tile.index, "own"))
        return walk.proceed((window, moments))

    def _arrive(
        self,
        tile: Tile,
        walk: TilePass,
        number: int,
        made: Tensor,
        layer: Layer | None,
    ) -> Layer | None:
        """Take in what a tile brings to a point."""
        point = self.trace.points[number]
        core = made[(..., *_scaled_box(tile.inner, point.ratio).slices)]
        if point.live and self.known is None:
            if self._gathered is None:
                self._gathered = Gathered(len(self.plan), core.shape[1])
            self._gathered.add(tile.index, core)
        if not self.refresh:
            walk.store.put((tile.index, "own"), made)
            return None
        if layer is None:
            whole = Box.of(self.plan.padded_shape)
            shape = _scaled_box(whole, point.ratio).shape
            layer = Layer(self.room, shape, point.channels, made.dtype)
        layer.write(_scaled_box(tile.core, point.ratio), core)
        return layer
