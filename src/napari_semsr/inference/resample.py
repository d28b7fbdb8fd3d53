"""A field at another pixel size than the network's: there and back, tile by tile.

A tile of the output lies on the field's own grid. It is made from what the network
gives for a part of a coarser or finer grid, and that from a part of the field; each
part is the wider by what the resampling looks at::

    field    |----- resampled ----->|  network's grid  |----- network ----->|
    output   |<---- resampled ------|  its output      |<-------------------|

Both steps are local and find their places in integers (`core.resampling`), so that a
tile's result is that of the whole field.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import (
    Box,
    Micrograph,
    Resampling,
    Tile,
    TilePlan,
    finite_mean,
    plan_tiles,
    read_box,
    working_type,
)
from napari_semsr.inference.layout import OutputPlan, choose_tiles
from napari_semsr.inference.normalise import read_window, set_missing, source_box
from napari_semsr.models import ModelCard, Probe

_STRIP = 512


@dataclass(frozen=True, slots=True)
class ResampledField:
    """A field on the network's grid: looks like an array, made where it is read."""

    source: Any  # (Y, X) The field; missing pixels are filled before it is resampled
    there: Resampling  # From the field's grid to the network's
    mean: float = 0.0  # The field's mean
    # Whether a pixel is missing where the pixel of the field under its centre is
    gaps: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.there.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the grey values."""
        return working_type(np.dtype(self.source.dtype))

    def __getitem__(self, index: tuple[slice, slice]) -> NDArray[Any]:
        rows, columns = (
            slice(*item.indices(size)[:2])
            for item, size in zip(index, self.shape, strict=True)
        )
        made = np.empty(
            (rows.stop - rows.start, columns.stop - columns.start), self.dtype
        )
        for top in range(rows.start, rows.stop, _STRIP):
            below = min(top + _STRIP, rows.stop)
            box = Box(top, below, columns.start, columns.stop)
            place = self.there.source(box)
            block, missing = read_window(self.source, place, self.mean)
            strip = self.there.make(block, place, box)
            if self.gaps and missing is not None:
                strip[missing[self.there.under(place, box)]] = np.nan
            made[top - rows.start : below - rows.start] = strip
        return made

    def needed(self, window: Box) -> Box:
        """Find what of the field a window is made of.

        `window`: in pixels of this array; it may reach over its end; gives region
        inside the field, with the neighbours of missing pixels.
        """
        inside = self.there.source(source_box(window, self.shape))
        return source_box(inside, self.there.size)


@dataclass(frozen=True, slots=True)
class Regrid:
    """How tiles of the output lie on the network's grid."""

    # From the field's grid to the network's; from the network's output to that of the
    # run
    there: Resampling
    # From the field's grid to the network's; from the network's output to that of the
    # run
    back: Resampling
    # Cores partition the field; scaled, they are the chunks of the output
    outputs: TilePlan
    scale: int  # Output pixels per input pixel

    def core(self, core: Box) -> Box:
        """Find what of the network's grid a part of the output is made of."""
        fine = self.back.source(self._grown(core).scaled(self.scale))
        k = self.scale
        return Box(fine.y0 // k, -(-fine.y1 // k), fine.x0 // k, -(-fine.x1 // k))

    def around(self, plan: TilePlan, core: Box, index: tuple[int, int]) -> Tile:
        """Find what the network is shown for a part of the output."""
        found, stride = self.core(core), plan.stride
        top, left = (v // stride * stride for v in (found.y0, found.x0))
        return plan.around(Box(top, found.y1, left, found.x1), index)

    def deliver(
        self, source: Any, core: Box, values: NDArray[np.float32], box: Box
    ) -> tuple[NDArray[np.float32], Box]:
        """Bring what the network gave back to the field's grid.

        `source` (Y, X), the field, for the pixels that are missing in it; `values` (Y *
        scale, X * scale); gives the output for the part and a pixel of the field around
        it.
        """
        grown = self._grown(core)
        wanted = grown.scaled(self.scale)
        needed = self.back.source(wanted)
        part = values[needed.within(box.scaled(self.scale)).slices]
        made = self.back.make(part, needed, wanted)
        if np.dtype(source.dtype).kind == "f":
            missing = ~np.isfinite(read_box(source, grown))
            set_missing(made, missing, self.scale)
        return made, core.within(grown).scaled(self.scale)

    def _grown(self, core: Box) -> Box:
        """Add a pixel around, inside the field."""
        return core.grow(1).intersection(Box.of(self.there.size))


@dataclass(frozen=True, slots=True)
class NetworkInput:
    """What a network sees: the field on its grid, and the tiles there.

    `regrid` says how the output's tiles are made of these; None where both grids are
    one.
    """

    data: Any
    tiles: TilePlan
    regrid: Regrid | None


def plan_network_input(
    micrograph: Micrograph,
    output: OutputPlan,
    card: ModelCard,
    probe: Probe,
    *,
    constant: bool = False,
) -> NetworkInput:
    """Cut what a network sees into tiles; `constant` gives all windows one size."""
    data, fit = micrograph.data, output.fit

    def cut(shape: tuple[int, int], tile: int) -> TilePlan:
        return choose_tiles(shape, card, probe, tile=tile, constant=constant)

    if fit.steps is None:
        return NetworkInput(data, cut(micrograph.shape, output.core), None)
    there = Resampling(micrograph.shape, fit.steps)
    mean = finite_mean(data) if np.dtype(data.dtype).kind == "f" else 0.0
    seen = ResampledField(data, there, mean, gaps=fit.keep)
    if fit.keep:
        return NetworkInput(seen, cut(there.shape, output.core), None)
    outputs = plan_tiles(micrograph.shape, core=output.core, halo=0, constant=False)
    rows, columns = there.shape
    back = Resampling(
        (rows * card.scale, columns * card.scale),
        (1 / fit.steps[0], 1 / fit.steps[1]),
    )
    regrid = Regrid(there, back, outputs, card.scale)
    return NetworkInput(seen, cut(there.shape, _widest(regrid, card.stride)), regrid)


def _widest(regrid: Regrid, stride: int) -> int:
    """Side of a core on the network's grid that holds each tile of the output."""
    rows, columns = regrid.outputs.grid
    diagonal = [(row, 0) for row in range(rows)] + [(0, c) for c in range(columns)]
    widest = 1
    for place in diagonal:
        box = regrid.core(regrid.outputs.tile(*place).core)
        high = box.y1 - box.y0 // stride * stride
        wide = box.x1 - box.x0 // stride * stride
        widest = max(widest, high, wide)
    return widest
