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

import numpy as np
import torch
from torch import Tensor, nn

from napari_semsr.core import (
    Box,
    CheckpointError,
    Float32Array,
    IntPair,
    Returning,
    Tile,
    TilePlan,
)
from napari_semsr.inference.exact.buffers import Layer, Room, TensorStore
from napari_semsr.inference.exact.graph import OpTrace, SyncPoint
from napari_semsr.inference.exact.replay import Answer, TilePass
from napari_semsr.inference.exact.statistics import Gathered, Statistics, sums_of
from napari_semsr.inference.network_input import set_missing
from napari_semsr.inference.tiles import TiledRun, TileResult, edges_of
from napari_semsr.models import Moments


@dataclass(frozen=True, slots=True)
class StepResult:
    """One tile has come to one point."""

    point: int  # Number of the point, counted from 1, and of all points
    points: int  # Number of the point, counted from 1, and of all points
    tile: int  # Tiles that have come there, and all
    tiles: int  # Tiles that have come there, and all


@dataclass(frozen=True, slots=True)
class FinishedTile:
    """One tile has come to the end."""

    tile: Tile  # Which
    output: Tensor  # (1, C, H * scale, W * scale) The network's output for its window


def _scaled_box(box: Box, ratio: Fraction) -> Box:
    """Give a region on the grid of a finer or coarser tensor.

    `ratio`: the tensor's pixels for each input pixel.
    """
    return Box(*(int(side * ratio) for side in (box.y0, box.y1, box.x0, box.x1)))


@dataclass(slots=True)
class Lockstep:
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
            found = self.known.moments[len(self.measured)]
            here = self.device
            found = Moments(found.count, found.mean.to(here), found.variance.to(here))
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
        return walk.proceed(Answer(window, moments))

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
            self._gathered.add(tile.index, sums_of(core))
        if not self.refresh:
            walk.store.put((tile.index, "own"), made)
            return None
        if layer is None:
            whole = Box.of(self.plan.padded_shape)
            shape = _scaled_box(whole, point.ratio).shape
            layer = Layer(self.room, shape, point.channels, made.dtype)
        layer.write(_scaled_box(tile.core, point.ratio), core)
        return layer


# The end of a run in lockstep: results become the output's tiles.


def by_output(tiles: Sequence[Tile], side: int) -> list[list[Tile]]:
    """Put the tiles together that make one tile of the output."""
    found: dict[IntPair, list[Tile]] = {}
    for tile in tiles:
        found.setdefault((tile.core.y0 // side, tile.core.x0 // side), []).append(tile)
    return list(found.values())


@dataclass(slots=True)
class OutputAssembler:
    """Writes the output's tiles as the tiles of a run come to the end.

    A tile of the run holds several tiles of the output, or is a part of one. Parts are
    joined in memory, so that each tile of the output is written once and as a whole.
    """

    run: TiledRun  # The work; its plan says what is a tile of the output
    places: set[IntPair]  # Rows and columns of the output's tiles that are wanted
    _parts: dict[IntPair, tuple[Float32Array, int]] = field(default_factory=dict)

    def take(self, event: FinishedTile) -> list[TileResult]:
        """Write what is complete now."""
        result = self._plane(event)
        outer, side, plan = (
            event.tile.core,
            self.run.plan.tiles.core,
            self.run.plan.tiles,
        )
        rows, columns = plan.grid
        pieces = []
        for row in range(outer.y0 // side, min(-(-outer.y1 // side), rows)):
            for column in range(outer.x0 // side, min(-(-outer.x1 // side), columns)):
                if (row, column) not in self.places:
                    continue
                core = plan.tile(row, column).core
                if core.intersection(outer) == core:
                    pieces.append(self._whole(event.tile, result, core))
                else:
                    pieces += self._part(event.tile, result, core)
        return pieces

    def _plane(self, event: FinishedTile) -> Float32Array:
        """Bring an output back to grey values."""
        card = self.run.plan.loaded.card
        plane = event.output[0, 0].to("cpu", torch.float32).numpy().copy()
        rows, columns = event.tile.window.scaled(card.scale).shape
        if plane.shape != (rows, columns):
            msg = (
                f"By its card the model {card.name} makes {(rows, columns)} of "
                f"{event.tile.window.shape} px, got {plane.shape}; correct its scale."
            )
            raise CheckpointError(msg)
        restored: Float32Array = self.run.plan.scaling.restore(plane)
        if np.dtype(self.run.plan.data.dtype).kind == "f":
            missing = self.run.plan.read(event.tile.window)[1]
            set_missing(restored, missing, card.scale)
        return restored

    def _whole(self, tile: Tile, result: Float32Array, core: Box) -> TileResult:
        """Write one of the output's tiles that lie in a tile of the run."""
        inner = core.within(tile.window).scaled(self.run.plan.loaded.card.scale)
        outer = tile.core
        outside = {
            "above": core.y0 == outer.y0,
            "below": core.y1 == outer.y1,
            "left": core.x0 == outer.x0,
            "right": core.x1 == outer.x1,
        }
        edges = edges_of(result, inner)
        kept = {name: edge for name, edge in edges.items() if outside[name]}
        return self.run.write(self._place(core), result[inner.slices], kept)

    def _part(self, tile: Tile, result: Float32Array, core: Box) -> list[TileResult]:
        """Put a part beside the others of an output's tile; write it when complete."""
        scale = self.run.plan.loaded.card.scale
        place = self._place(core)
        area = core.scaled(scale).shape
        joined, left = self._parts.get(
            place, (np.empty(area, dtype=np.float32), area[0] * area[1])
        )
        common = tile.core.intersection(core)
        source = common.within(tile.window).scaled(scale)
        joined[common.within(core).scaled(scale).slices] = result[source.slices]
        left -= source.shape[0] * source.shape[1]
        if left:
            self._parts[place] = joined, left
            return []
        self._parts.pop(place, None)
        return [self.run.write(place, joined, {})]

    def _place(self, core: Box) -> IntPair:
        """Row and column of one of the output's tiles."""
        side = self.run.plan.tiles.core
        return core.y0 // side, core.x0 // side


def needed(tiles: TilePlan, missing: Sequence[Box], reach: int | None) -> list[Tile]:
    """Choose the tiles to run: all, or the missing ones and what they look at."""
    if reach is None:
        return list(tiles)
    wanted = [box.grow(reach) for box in missing]
    return [t for t in tiles if any(t.core.overlap(box) for box in wanted)]
