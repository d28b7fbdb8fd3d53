"""What a worker is given, and what it says of each tile that it has written."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.tiling import Box, Tile, TilePlan
from napari_semsr.inference.haze import HazeMap, read_input
from napari_semsr.inference.regrid import Regrid
from napari_semsr.inference.scaling import Scaling, set_missing
from napari_semsr.inference.seams import Edge
from napari_semsr.inference.statistics import Statistics
from napari_semsr.models.checkpoint import LoadedModel

__all__ = ["Piece", "Run"]


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that a worker needs; sent to each once.

    Attributes
    ----------
    data : (Y, X) numpy.ndarray, dask.array.Array, zarr.Array or ResampledField
        The field as the network sees it.
    target : (Y * scale, X * scale) numpy.ndarray or zarr.Array
        Where cores are written.
    loaded : LoadedModel
        The network.
    plan : TilePlan
        The tiles of what the network sees.
    scaling : Scaling
        The field's scaling.
    haze : HazeMap or None
        Haze that is lifted before the network sees a window.
    device, precision : str
        As in `EnhanceOptions`.
    batch : int or None
        Windows in one pass.
    statistics : Statistics or None
        What live normalisations use instead of a tile's own statistics.
    regrid : Regrid or None
        How the output's tiles lie on the grid that the network sees; None where it
        sees the input's own.
    """

    data: Any
    target: Any
    loaded: LoadedModel
    plan: TilePlan
    scaling: Scaling
    haze: HazeMap | None = None
    device: str = "auto"
    precision: str = "auto"
    batch: int | None = None
    statistics: Statistics | None = None
    regrid: Regrid | None = None

    @property
    def outputs(self) -> TilePlan:
        """The output's tiles, in pixels of the input."""
        return self.plan if self.regrid is None else self.regrid.outputs

    def tile(self, place: tuple[int, int]) -> Tile:
        """Find what the network is shown for a tile of the output.

        Parameters
        ----------
        place : tuple of int
            Row and column of the tile.

        Returns
        -------
        Tile
            In pixels of what the network sees.
        """
        if self.regrid is None:
            return self.plan.tile(*place)
        return self.around(self.outputs.tile(*place).core, place)

    def around(self, core: Box, index: tuple[int, int] = (0, 0)) -> Tile:
        """Find what the network is shown for any part of the output.

        Parameters
        ----------
        core : Box
            In pixels of the input; it starts on the stride where the network sees
            the input's own grid.
        index : tuple of int, default=(0, 0)
            Place of the tile.

        Returns
        -------
        Tile
            In pixels of what the network sees.
        """
        if self.regrid is None:
            return self.plan.around(core, index)
        return self.regrid.around(self.plan, core, index)

    def deliver(
        self,
        core: Box,
        values: NDArray[np.float32],
        box: Box,
        missing: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.float32], Box]:
        """Make a part of the output of what the network gave.

        Parameters
        ----------
        core : Box
            The part, in pixels of the input.
        values : (Y * scale, X * scale) numpy.ndarray of float32
            What the network gave, in grey values; it may be changed.
        box : Box
            What it was given, in pixels of what the network sees.
        missing : (Y, X) numpy.ndarray of bool, optional
            Where pixels of that were missing.

        Returns
        -------
        numpy.ndarray of float32
            The output for the part and its surroundings.
        Box
            Where in it the part lies.
        """
        scale = self.loaded.card.scale
        if self.regrid is not None:
            return self.regrid.deliver(self.data.source, core, values, box)
        set_missing(values, missing, scale)
        return values, core.within(box).scaled(scale)

    def read(self, box: Box) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read what the network is shown of a window, and what is missing in it.

        Parameters
        ----------
        box : Box
            The window.

        Returns
        -------
        tuple
            As `read_input` gives it.
        """
        return read_input(self.data, box, self.scaling, self.haze)


@dataclass(frozen=True, slots=True)
class Piece:
    """What a task says of one tile that it has written.

    Attributes
    ----------
    index : tuple of int
        Row and column of the tile.
    clipped : int
        Pixels that the output's type could not hold.
    edges : dict
        Lines at the tile's borders.
    sample : numpy.ndarray
        Some pixels of the result.
    notes : tuple of str
        What the user should be told.
    """

    index: tuple[int, int]
    clipped: int
    edges: dict[str, Edge]
    sample: NDArray[np.float32]
    notes: tuple[str, ...] = ()

    def with_note(self, note: str | None) -> "Piece":
        """Add what the user should be told.

        Parameters
        ----------
        note : str or None
            One sentence; None for nothing.

        Returns
        -------
        Piece
            The same piece.
        """
        return self if note is None else replace(self, notes=(*self.notes, note))
