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

import torch
from torch import Tensor, nn

from napari_semsr.core.background import Returning
from napari_semsr.core.tiling import Box, Tile, TilePlan
from napari_semsr.inference.lockstep_replay import Answer, TilePass
from napari_semsr.inference.lockstep_script import Point, Script
from napari_semsr.inference.lockstep_shelf import Shelf
from napari_semsr.inference.lockstep_storage import Layer, Room
from napari_semsr.inference.statistics import Gathered, Statistics, sums_of
from napari_semsr.models.live_calls import Moments

__all__ = ["Landed", "Lockstep", "Stepped", "scaled_box"]


@dataclass(frozen=True, slots=True)
class Stepped:
    """One tile has come to one point.

    Attributes
    ----------
    point, points : int
        Number of the point, counted from 1, and of all points.
    tile, tiles : int
        Tiles that have come there, and all.
    """

    point: int
    points: int
    tile: int
    tiles: int


@dataclass(frozen=True, slots=True)
class Landed:
    """One tile has come to the end.

    Attributes
    ----------
    tile : Tile
        Which.
    output : (1, C, H * scale, W * scale) torch.Tensor
        The network's output for its window.
    """

    tile: Tile
    output: Tensor


def scaled_box(box: Box, ratio: Fraction) -> Box:
    """Give a region on the grid of a finer or coarser tensor.

    Parameters
    ----------
    box : Box
        Region whose corners are multiples of the stride.
    ratio : fractions.Fraction
        The tensor's pixels for each input pixel.

    Returns
    -------
    Box
        The same region.
    """
    return Box(*(int(side * ratio) for side in (box.y0, box.y1, box.x0, box.x1)))


@dataclass(slots=True)
class Lockstep:
    """A set of tiles on their way.

    Attributes
    ----------
    network : torch.nn.Module
        The network, in evaluation mode, on its device.
    script : Script
        Its calls.
    plan : TilePlan
        Cores partition the padded field.
    source : callable
        Gives the network's input for a tile.
    room : Room
        Where layers and waiting tiles lie.
    device : torch.device
        Where the network runs.
    computing : callable
        Makes what surrounds each computation: precision, errors translated.
    known : Statistics or None
        Taken as they are, instead of being measured.
    refresh : bool
        Whether halos are refreshed; otherwise each tile keeps what it made itself, and
        only its statistics are pooled.
    measured : list of Moments
        Statistics of the points that all tiles have come to.
    """

    network: nn.Module
    script: Script
    plan: TilePlan
    source: Callable[[Tile], Tensor]
    room: Room
    device: torch.device
    computing: Callable[[], AbstractContextManager[object]] = torch.no_grad
    known: Statistics | None = None
    refresh: bool = True
    measured: list[Moments] = field(default_factory=list)
    _gathered: Gathered | None = None

    def run(
        self, tiles: Sequence[Tile], *, until_end: bool = True
    ) -> Generator[Stepped | Landed]:
        """Run tiles from the first point to the end.

        Parameters
        ----------
        tiles : sequence of Tile
            Tiles of the plan; those left out are as if they were not there, so that
            the ones next to them are not as in the whole field.
        until_end : bool, default=True
            Whether to go on after the last statistics are known.

        Yields
        ------
        Stepped or Landed
            Tiles in their order, at each point and at the end.
        """
        shelf = Shelf(self.room)
        passes = [
            TilePass(self.network, self.script, shelf, tile.index) for tile in tiles
        ]
        points = self.script.points
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
                        yield Landed(tile, made)
                    else:
                        yield Stepped(number + 1, len(points), count, len(tiles))
                    del made
                    returning.now_and_then()
                if before is not None:
                    before.close()
                before, after = after, None
        finally:
            for layer in (before, after):
                if layer is not None:
                    layer.close()
            shelf.close()

    def _moments(self, point: Point) -> Moments | None:
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
        point = self.script.points[number - 1]
        window = None
        if point.kind != "pool":
            if layer is not None:
                window = layer.read(scaled_box(tile.window, point.ratio))
                window = window.to(self.device)
            else:
                window = walk.shelf.get((tile.index, "own"))
                walk.shelf.drop((tile.index, "own"))
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
        point = self.script.points[number]
        core = made[(..., *scaled_box(tile.inner, point.ratio).slices)]
        if point.live and self.known is None:
            if self._gathered is None:
                self._gathered = Gathered(len(self.plan), core.shape[1])
            self._gathered.add(tile.index, sums_of(core))
        if point.kind == "pool":
            return None
        if not self.refresh:
            walk.shelf.put((tile.index, "own"), made)
            return None
        if layer is None:
            whole = Box(0, self.plan.padded_shape[0], 0, self.plan.padded_shape[1])
            shape = scaled_box(whole, point.ratio).shape
            layer = Layer(self.room, shape, point.channels, made.dtype)
        layer.write(scaled_box(tile.core, point.ratio), core)
        return layer
