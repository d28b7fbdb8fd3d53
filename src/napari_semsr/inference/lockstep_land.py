"""The end of a run in lockstep: results become the output's tiles."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from napari_semsr.core.errors import CheckpointError
from napari_semsr.core.intensity import to_dtype
from napari_semsr.core.tiling import Box, Tile, TilePlan
from napari_semsr.inference.lockstep import Landed
from napari_semsr.inference.scaling import set_missing
from napari_semsr.inference.seams import edges_of, sample_of
from napari_semsr.inference.tasks import Piece, Run

__all__ = ["Landing", "by_output", "needed"]

_Place = tuple[int, int]
_Plane = NDArray[np.float32]


def by_output(tiles: Sequence[Tile], side: int) -> list[list[Tile]]:
    """Put the tiles together that make one tile of the output.

    Parameters
    ----------
    tiles : sequence of Tile
        Those of the run, whose cores are multiples or parts of the output's.
    side : int
        Side of the output's cores.

    Returns
    -------
    list of list of Tile
        In the order in which the output's tiles first come up.
    """
    found: dict[_Place, list[Tile]] = {}
    for tile in tiles:
        found.setdefault((tile.core.y0 // side, tile.core.x0 // side), []).append(tile)
    return list(found.values())


@dataclass(slots=True)
class Landing:
    """Writes the output's tiles as the tiles of a run come to the end.

    A tile of the run holds several tiles of the output, or is a part of one. Parts are
    joined in memory, so that each tile of the output is written once and as a whole.

    Attributes
    ----------
    run : Run
        The work; its plan says what is a tile of the output.
    places : set of tuple of int
        Rows and columns of the output's tiles that are wanted.
    """

    run: Run
    places: set[_Place]
    _parts: dict[_Place, tuple[_Plane, int]] = field(default_factory=dict)

    def take(self, event: Landed) -> list[Piece]:
        """Write what is complete now.

        Parameters
        ----------
        event : Landed
            A tile that has come to the end.

        Returns
        -------
        list of Piece
            Tiles that are in the target now.
        """
        result = self._plane(event)
        outer, side, plan = event.tile.core, self.run.plan.core, self.run.plan
        rows, columns = plan.grid
        pieces = []
        for row in range(outer.y0 // side, min(-(-outer.y1 // side), rows)):
            for column in range(outer.x0 // side, min(-(-outer.x1 // side), columns)):
                if (row, column) not in self.places:
                    continue
                core = plan.tile(row, column).core
                if _holds(outer, core):
                    pieces.append(self._whole(event.tile, result, core))
                else:
                    pieces += self._part(event.tile, result, core)
        return pieces

    def _plane(self, event: Landed) -> _Plane:
        """Bring an output back to grey values."""
        card = self.run.loaded.card
        plane = event.output[0, 0].to("cpu", torch.float32).numpy().copy()
        rows, columns = event.tile.window.scaled(card.scale).shape
        if plane.shape != (rows, columns):
            msg = (
                f"By its card the model {card.name} makes {(rows, columns)} of "
                f"{event.tile.window.shape} px, got {plane.shape}; correct its scale."
            )
            raise CheckpointError(msg)
        restored: _Plane = self.run.scaling.restore(plane)
        if np.dtype(self.run.data.dtype).kind == "f":
            missing = self.run.read(event.tile.window)[1]
            set_missing(restored, missing, card.scale)
        return restored

    def _whole(self, tile: Tile, result: _Plane, core: Box) -> Piece:
        """Write one of the output's tiles that lie in a tile of the run."""
        inner = core.within(tile.window).scaled(self.run.loaded.card.scale)
        outer = tile.core
        outside = {
            "above": core.y0 == outer.y0,
            "below": core.y1 == outer.y1,
            "left": core.x0 == outer.x0,
            "right": core.x1 == outer.x1,
        }
        edges = edges_of(result, inner)
        kept = {name: edge for name, edge in edges.items() if outside[name]}
        piece = self._write(core, result[inner.slices])
        return Piece(piece.index, piece.clipped, kept, piece.sample)

    def _part(self, tile: Tile, result: _Plane, core: Box) -> list[Piece]:
        """Put a part beside the others of an output's tile; write it when complete."""
        scale, plan = self.run.loaded.card.scale, self.run.plan
        place = core.y0 // plan.core, core.x0 // plan.core
        area = core.scaled(scale).shape
        joined, left = self._parts.get(
            place, (np.empty(area, dtype=np.float32), area[0] * area[1])
        )
        common = _common(tile.core, core)
        source = common.within(tile.window).scaled(scale)
        joined[common.within(core).scaled(scale).slices] = result[source.slices]
        left -= source.shape[0] * source.shape[1]
        if left:
            self._parts[place] = joined, left
            return []
        self._parts.pop(place, None)
        return [self._write(core, joined)]

    def _write(self, core: Box, values: _Plane) -> Piece:
        """Put one tile of the output into the target."""
        scale, side = self.run.loaded.card.scale, self.run.plan.core
        converted, clipped = to_dtype(values, self.run.target.dtype)
        self.run.target[core.scaled(scale).slices] = converted
        return Piece((core.y0 // side, core.x0 // side), clipped, {}, sample_of(values))


def _holds(outer: Box, inner: Box) -> bool:
    """Whether one box lies in another."""
    return (
        outer.y0 <= inner.y0
        and inner.y1 <= outer.y1
        and outer.x0 <= inner.x0
        and inner.x1 <= outer.x1
    )


def _common(one: Box, other: Box) -> Box:
    """Where two boxes overlap."""
    return Box(
        max(one.y0, other.y0),
        min(one.y1, other.y1),
        max(one.x0, other.x0),
        min(one.x1, other.x1),
    )


def needed(tiles: TilePlan, missing: Sequence[Box], reach: int | None) -> list[Tile]:
    """Choose the tiles to run: all, or the missing ones and what they look at.

    Parameters
    ----------
    tiles : TilePlan
        Those of the run.
    missing : sequence of Box
        Cores that are to be made.
    reach : int or None
        How far the network looks; None for all tiles.

    Returns
    -------
    list of Tile
        In the plan's order.
    """
    if reach is None:
        return list(tiles)
    return [
        tile
        for tile in tiles
        if any(
            tile.core.y0 < m.y1 + reach
            and m.y0 - reach < tile.core.y1
            and tile.core.x0 < m.x1 + reach
            and m.x0 - reach < tile.core.x1
            for m in missing
        )
    ]
