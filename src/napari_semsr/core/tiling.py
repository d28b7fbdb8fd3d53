"""Tile geometry: arithmetic of halo, stride and scale.

One axis of a plan, with core ``c``, halo ``h`` and a field padded to the stride::

    field    |<------------------ size ------------------>|pad|
    cores    |   c   |   c   |   c   |   c   |  rest      |
    window           .-- h --|   c   |-- h --.                     inner tile
    window   |   c   |-- h --.                                     border tile

Cores partition the field. A window covers its core and a halo, cut where the padded
field ends, so that a network pads there exactly as on the whole field.
With ``constant=True`` every window has the same size: border windows are shifted
inwards instead of cut (needed where tiles are stacked into batches). All corners are
multiples of the stride. Coordinates are ``(y, x)`` in pixels of the input.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import starmap
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.errors import OptionError, ShapeError
from napari_semsr.core.types import FloatPair, IntPair, ReadableArray

_Value = TypeVar("_Value", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Box:
    """Half-open rectangle from (y0, x0) up to but excluding (y1, x1).

    It is empty if it has no rows or no columns; then y1 < y0 or x1 < x0 is possible.
    """

    # corners in pixels
    y0: int
    y1: int
    x0: int
    x1: int

    @classmethod
    def from_shape(cls, shape: IntPair, corner: IntPair = (0, 0)) -> Self:
        """Create a box from its shape and corner ``(y, x)``."""
        (rows, columns), (y, x) = shape, corner
        return cls(y, y + rows, x, x + columns)

    @property
    def shape(self) -> IntPair:
        """Shape of the image, (rows, columns)."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def corner(self) -> IntPair:
        """First pixel ``(y, x)`` of the box."""
        return self.y0, self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Slices of the box in a ``(Y, X)`` array."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def scale(self, factor: int) -> Self:
        """Return the same region on a grid `factor` times finer."""
        return type(self)(*(factor * v for v in (self.y0, self.y1, self.x0, self.x1)))

    def relative_to(self, outer: "Box") -> Self:
        """Return the box in coordinates relative to the corner of another box."""
        return self.move((-outer.y0, -outer.x0))

    def move(self, by: IntPair) -> Self:
        """Return the box moved by rows and columns.

        ``box.within(outer).move(outer.corner) == box``.
        """
        return self.from_shape(self.shape, (self.y0 + by[0], self.x0 + by[1]))

    def grow(self, margin: IntPair | int) -> Self:
        """Return the box with a margin added on all sides, or removed if negative.

        It may extend beyond the field.
        """
        rows, columns = (margin, margin) if isinstance(margin, int) else margin
        return type(self)(
            self.y0 - rows, self.y1 + rows, self.x0 - columns, self.x1 + columns
        )

    def intersection(self, other: "Box") -> Self:
        """Return the intersection of both boxes, empty if they do not overlap."""
        return type(self)(
            max(self.y0, other.y0),
            min(self.y1, other.y1),
            max(self.x0, other.x0),
            min(self.x1, other.x1),
        )

    def overlaps(self, other: "Box") -> bool:
        """Return whether the boxes have any pixels in common."""
        return min(self.intersection(other).shape) > 0

    def union(self, other: "Box") -> Self:
        """Return the smallest box that contains both boxes."""
        return type(self)(
            min(self.y0, other.y0),
            max(self.y1, other.y1),
            min(self.x0, other.x0),
            max(self.x1, other.x1),
        )


@dataclass(frozen=True, slots=True)
class Tile:
    """Tile with the region to read and the region of the output to keep."""

    index: IntPair  # row and column in the grid of tiles
    core: Box  # region to keep, inside the field
    window: Box  # input of the network, inside the padded field

    @property
    def local_core(self) -> Box:
        """Tile core in window coordinates."""
        return self.core.relative_to(self.window)


@dataclass(frozen=True)
class TilePlan:
    """Division of an image into tiles."""

    shape: IntPair  # rows and columns of the field
    # the field after reflection at the bottom and right to a multiple of the stride
    padded_shape: IntPair
    # side of a core, width of the halo, and the grid that corners lie on
    core: int
    halo: int
    stride: int
    constant: bool  # whether all windows have one size

    @property
    def grid(self) -> IntPair:
        """Shape of the tile grid, (rows, columns)."""
        rows, columns = (-(-size // self.core) for size in self.shape)
        return rows, columns

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """All tiles, row by row."""
        return tuple(self)

    def __len__(self) -> int:
        return self.grid[0] * self.grid[1]

    def __iter__(self) -> Iterator[Tile]:
        return starmap(self.tile, np.ndindex(self.grid))

    def tile(self, row: int, column: int) -> Tile:
        """Return the tile at a row and column of the grid."""
        whole = Box.from_shape(
            (self.core, self.core), (row * self.core, column * self.core)
        )
        return self.create_tile(
            whole.intersection(Box.from_shape(self.shape)), (row, column)
        )

    def _add_halo(self, start: int, stop: int, axis: int) -> IntPair:
        """Add a halo to an interval along one axis, within the padded image."""
        end = round_up(stop, self.stride) + self.halo
        return max(start - self.halo, 0), min(end, self.padded_shape[axis])

    def create_tile(self, core: Box, index: IntPair = (0, 0)) -> Tile:
        """Return a tile for any region that starts at a multiple of the stride.

        It has the window of a tile; with a constant size if the plan has one and the
        part is not larger than a core.
        """
        rows = self._get_window(core.y0, core.y1, 0)
        columns = self._get_window(core.x0, core.x1, 1)
        return Tile(index, core, Box(*rows, *columns))

    def _get_window(self, start: int, stop: int, axis: int) -> IntPair:
        """Return the window for an interval along one axis."""
        if not self.constant or stop - start > self.core:
            return self._add_halo(start, stop, axis)
        padded_length = self.padded_shape[axis]
        width = min(self.core + 2 * self.halo, padded_length)
        first = min(max(start - self.halo, 0), padded_length - width)
        return first, first + width

    def split_tile(self, tile: Tile, side: int) -> Iterator[Tile]:
        """Split a tile into smaller tiles, each with its own halo.

        Their cores, with a side that is a multiple of the stride, partition the tile's
        core; `index` is the row and column within it.
        """
        core = tile.core
        for row, top in enumerate(range(core.y0, core.y1, side)):
            for column, left in enumerate(range(core.x0, core.x1, side)):
                down = top, min(top + side, core.y1)
                across = left, min(left + side, core.x1)
                window = Box(*self._add_halo(*down, 0), *self._add_halo(*across, 1))
                yield Tile((row, column), Box(*down, *across), window)


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """Square blocks at a constant step, all inside the image."""

    # side of a block and distance between neighbours, in pixels
    block: int
    step: int
    grid: IntPair  # rows and columns of blocks

    @property
    def corners(self) -> NDArray[np.intp]:
        """Top-left corners ``(y, x)``, row by row: ``(rows * columns, 2)``."""
        places = np.indices(self.grid).reshape(2, -1).T
        return np.ascontiguousarray(places * self.step).astype(np.intp)

    @property
    def origin(self) -> FloatPair:
        """Centre of the first block in pixel coordinates."""
        return (self.block - 1) / 2, (self.block - 1) / 2


def round_up(value: int, multiple: int) -> int:
    """Round a value up to a multiple of another."""
    return -(-value // multiple) * multiple


def plan_tiles(
    shape: IntPair,
    *,
    core: int,
    halo: int,
    stride: int = 1,
    minimum: int = 1,
    constant: bool = True,
) -> TilePlan:
    """Split an image into tiles with halos.

    The core is a positive multiple of the stride, otherwise an `OptionError` is raised;
    the halo, the context that a core needs on each side, is rounded up to the stride.
    The field is padded to the `minimum` side that the network accepts. With `constant`
    all windows have one size, shifted inwards at the borders instead of cropped. Raises
    `ShapeError` if the field is empty.
    """
    if min(shape) < 1:
        msg = f"Tiles need a non-empty (Y, X) image, got shape {tuple(shape)}."
        raise ShapeError(msg)
    if core < 1 or core % stride:
        msg = (
            f"The tile size must be a positive multiple of the stride {stride}, got "
            f"{core}."
        )
        raise OptionError(msg, code="out-of-range")
    if halo < 0:
        msg = f"The halo must be at least 0 px, got {halo}."
        raise OptionError(msg, code="out-of-range")
    rows, columns = (round_up(max(int(size), minimum), stride) for size in shape)
    return TilePlan(
        shape=(int(shape[0]), int(shape[1])),
        padded_shape=(rows, columns),
        core=core,
        halo=round_up(halo, stride),
        stride=stride,
        constant=constant,
    )


def plan_blocks(shape: IntPair, *, block: int, step: int) -> BlockPlan:
    """Place as many square blocks on an image as fit at a constant step.

    ``(size - block) // step + 1`` on each axis. Raises `ShapeError` if none fits,
    `OptionError` if block or step is not positive.
    """
    if block < 1 or step < 1:
        msg = f"Block size and step must be at least 1 px, got {block} and {step}."
        raise OptionError(msg, code="out-of-range")
    if min(shape) < block:
        msg = (
            f"A block of {block} px does not fit into an image of "
            f"{shape[0]}x{shape[1]} px. Choose a smaller block."
        )
        raise ShapeError(msg, code="image-too-small")
    rows, columns = ((int(size) - block) // step + 1 for size in shape)
    return BlockPlan(block, step, (rows, columns))


def reflect_indices(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Return indices (stop - start,) that extend an axis by reflection.

    The half-open range may extend beyond the axis on both sides, more than once. The
    edge sample is not repeated, unless it is the only one.
    """
    if size == 1:
        return np.zeros(stop - start, dtype=np.intp)
    folded_indices = np.mod(np.arange(start, stop), 2 * (size - 1))
    indices: NDArray[np.intp] = np.minimum(
        folded_indices, 2 * (size - 1) - folded_indices
    )
    return indices


def get_central_box(shape: IntPair, side: int) -> Box:
    """Return the central box of an image, at most `side` px on each axis."""
    rows, columns = (min(n, side) for n in shape)
    corner = (shape[0] - rows) // 2, (shape[1] - columns) // 2
    return Box.from_shape((rows, columns), corner)


def reshape_into_blocks(image: NDArray[_Value], side: int) -> NDArray[_Value]:
    """View an image (..., Y, X) as square blocks (..., rows, side, columns, side).

    An incomplete far border is dropped.
    """
    rows, columns = (n // side for n in image.shape[-2:])
    whole = image[..., : rows * side, : columns * side]
    return whole.reshape(*image.shape[:-2], rows, side, columns, side)


def read_box(data: ReadableArray, box: Box) -> NDArray[Any]:
    """Read a region, padded by reflection beyond the image borders.

    Only the needed part of the field (Y, X) is read. Dask is computed in this thread,
    outside any dask cache (shared caches are not safe across threads).
    """
    rows = reflect_indices(box.y0, box.y1, int(data.shape[0]))
    columns = reflect_indices(box.x0, box.x1, int(data.shape[1]))
    top, left = int(rows.min()), int(columns.min())
    block = data[top : int(rows.max()) + 1, left : int(columns.max()) + 1]
    if hasattr(block, "compute"):
        from dask.local import get_sync  # naming it would import distributed: 20 MB

        block = block.compute(scheduler=get_sync, callbacks=())
    block = np.asarray(block)
    if block.shape == box.shape and box.y0 == top and box.x0 == left:
        return block
    return block[np.ix_(rows - top, columns - left)]
