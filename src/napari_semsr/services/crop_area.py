"""What an image shows of an area, on a grid of one's choice, read part by part."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.areas import Grid, gap_free_box, lay_grid, on_one_grid
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import Job, Progress
from napari_semsr.core.resampling import Resampling, working_type
from napari_semsr.core.tiling import Box, read_box

__all__ = ["Area", "cut_area", "find_gap_free"]

_CELLS = 2048
_BLOCK = 1024
_GAP = 1e-3  # weight of gaps in a pixel that is a gap itself


@dataclass(frozen=True, slots=True)
class Area:
    """Pixels of a grid, made from an image.

    Attributes
    ----------
    image : Micrograph
        Where they come from.
    grid : Grid
        The pixels.
    inner : Box or None
        The same in pixels of the image, where they are pixels of it.
    laid : Resampling
        How they are made, where they are not.
    """

    image: Micrograph
    grid: Grid
    inner: Box | None
    laid: Resampling

    @property
    def is_resampled(self) -> bool:
        """Whether grey values are interpolated."""
        return self.inner is None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the grey values: the image's, or a float where interpolated."""
        own = self.image.dtype
        return working_type(own) if self.is_resampled else own

    def part(self, box: Box) -> "Area":
        """Take a part of the area.

        Parameters
        ----------
        box : Box
            In pixels of the area.

        Returns
        -------
        Area
            The same pixels, counted from the part's corner.
        """
        y, x = self.grid.centre(box)
        down, right = self.grid.pitch
        grid = Grid(box.shape, self.grid.pitch, (y - down / 2, x - right / 2))
        inner = self.inner
        if inner is not None:
            y0, x0 = inner.y0 + box.y0, inner.x0 + box.x0
            inner = Box(y0, y0 + box.shape[0], x0, x0 + box.shape[1])
        steps, offsets = self.laid.steps, self.laid.offsets
        moved = offsets[0] + box.y0 * steps[0], offsets[1] + box.x0 * steps[1]
        return Area(self.image, grid, inner, Resampling(self.laid.size, steps, moved))

    def read(self, box: Box | None = None) -> NDArray[Any]:
        """Compute some of the pixels.

        Parameters
        ----------
        box : Box, optional
            In pixels of the area; all of them by default.

        Returns
        -------
        (Y, X) numpy.ndarray
            Grey values; NaN where a pixel would be made of one without a value.
        """
        rows, columns = self.grid.shape
        box = box or Box(0, rows, 0, columns)
        if self.inner is not None:
            y0, x0 = self.inner.y0 + box.y0, self.inner.x0 + box.x0
            there = Box(y0, y0 + box.shape[0], x0, x0 + box.shape[1])
            return read_box(self.image.data, there)
        place = self.laid.source(box)
        block = read_box(self.image.data, place)
        known = np.isfinite(block)
        if known.all():
            return self.laid.make(block, place, box)
        level = block[known].mean(dtype=np.float64) if known.any() else 0.0
        made = self.laid.make(np.where(known, block, level), place, box)
        gaps = self.laid.make((~known).astype(np.float32), place, box)
        made[np.abs(gaps) > _GAP] = np.nan
        return made


def cut_area(image: Micrograph, grid: Grid, source: Grid | None = None) -> Area:
    """Cut an area out of an image.

    Parameters
    ----------
    image : Micrograph
        The image.
    grid : Grid
        Pixels inside its area.
    source : Grid, optional
        Where the image lies, if not where it says.

    Returns
    -------
    Area
        Interpolated only where the pixels are not those of the image.
    """
    lies = source or Grid.of(image)
    return Area(image, grid, on_one_grid(grid, lies), lay_grid(grid, lies))


def find_gap_free(areas: Sequence[Area]) -> Job[Box | None]:
    """Find a large rectangle in which all images have grey values.

    Parameters
    ----------
    areas : sequence of Area
        On one grid.

    Returns
    -------
    Box or None
        In pixels of the grid; None where there is none.

    Yields
    ------
    Progress
        Block by block.
    """
    shape = areas[0].grid.shape
    side = -(-max(shape) // _CELLS)
    rows, columns = (-(-n // side) for n in shape)
    covered = np.ones((rows, columns), bool)
    floats = [area for area in areas if area.dtype.kind == "f"]
    boxes = list(_blocks(shape, side * max(1, _BLOCK // side))) if floats else []
    for done, box in enumerate(boxes):
        yield Progress(done, len(boxes), "looking for gaps")
        for area in floats:
            full = np.isfinite(area.read(box))
            if full.all():
                continue
            cells = np.minimum.reduceat(
                np.minimum.reduceat(full, np.arange(0, box.shape[0], side), axis=0),
                np.arange(0, box.shape[1], side),
                axis=1,
            )
            y, x = box.y0 // side, box.x0 // side
            covered[y : y + cells.shape[0], x : x + cells.shape[1]] &= cells
    found = gap_free_box(covered)
    if found is None:
        return None
    wide = found.scaled(side)
    return Box(wide.y0, min(wide.y1, shape[0]), wide.x0, min(wide.x1, shape[1]))


def _blocks(shape: tuple[int, int], side: int) -> Iterator[Box]:
    """Cut a field into squares, row by row."""
    for y in range(0, shape[0], side):
        for x in range(0, shape[1], side):
            yield Box(y, min(y + side, shape[0]), x, min(x + side, shape[1]))
