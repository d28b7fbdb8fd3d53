"""Boxes, tiles and grids: positions in images, and pixels that show the same area."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import starmap
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core import types
from napari_semsr.core.errors import ShapeError
from napari_semsr.core.micrograph import Micrograph

if TYPE_CHECKING:
    from scipy import sparse

# Tile geometry: arithmetic of halo, stride and scale.
#
# One axis of a plan, with core ``c``, halo ``h`` and a field padded to the stride::
#
#     field    |<------------------ size ------------------>|pad|
#     cores    |   c   |   c   |   c   |   c   |  rest      |
#     window           .-- h --|   c   |-- h --.                     inner tile
#     window   |   c   |-- h --.                                     border tile
#
# Cores partition the field. A window covers its core and a halo, cut where the padded
# field ends, so that a network pads there exactly as on the whole field.
# With ``constant=True`` every window has the same size: border windows are shifted
# inwards instead of cut (needed where tiles are stacked into batches). All corners are
# multiples of the stride. Coordinates are ``(y, x)`` in pixels of the input.


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
    def from_shape(cls, shape: types.IntPair, corner: types.IntPair = (0, 0)) -> Self:
        """Create a box from its shape and corner ``(y, x)``."""
        (rows, columns), (y, x) = shape, corner
        return cls(y, y + rows, x, x + columns)

    @property
    def shape(self) -> types.IntPair:
        """Shape of the image, (rows, columns)."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def corner(self) -> types.IntPair:
        """First pixel ``(y, x)`` of the box."""
        return self.y0, self.x0

    @property
    def ends(self) -> types.BoxEnds:
        """First and last corner, ``(y0, x0, y1, x1)``, as the `box` of `crop`."""
        return self.y0, self.x0, self.y1, self.x1

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

    def move(self, by: types.IntPair) -> Self:
        """Return the box moved by rows and columns.

        ``box.within(outer).move(outer.corner) == box``.
        """
        return self.from_shape(self.shape, (self.y0 + by[0], self.x0 + by[1]))

    def grow(self, margin: types.IntPair | int) -> Self:
        """Return the box with a margin added on all sides, or removed if negative.

        It may extend beyond the field.
        """
        high, wide = (margin, margin) if isinstance(margin, int) else margin
        rows = self.y0 - high, self.y1 + high
        return type(self)(*rows, self.x0 - wide, self.x1 + wide)

    def intersection(self, other: "Box") -> Self:
        """Return the intersection of both boxes, empty if they do not overlap."""
        rows = max(self.y0, other.y0), min(self.y1, other.y1)
        return type(self)(*rows, max(self.x0, other.x0), min(self.x1, other.x1))

    def overlaps(self, other: "Box") -> bool:
        """Return whether the boxes have any pixels in common."""
        return min(self.intersection(other).shape) > 0

    def union(self, other: "Box") -> Self:
        """Return the smallest box that contains both boxes."""
        rows = min(self.y0, other.y0), max(self.y1, other.y1)
        return type(self)(*rows, min(self.x0, other.x0), max(self.x1, other.x1))


@dataclass(frozen=True, slots=True)
class Tile:
    """Tile with the region to read and the region of the output to keep."""

    index: types.IntPair  # row and column in the grid of tiles
    core: Box  # region to keep, inside the field
    window: Box  # input of the network, inside the padded field

    @property
    def local_core(self) -> Box:
        """Tile core in window coordinates."""
        return self.core.relative_to(self.window)


@dataclass(frozen=True)
class TilePlan:
    """Division of an image into tiles."""

    shape: types.IntPair  # rows and columns of the field
    # the field after reflection at the bottom and right to a multiple of the stride
    padded_shape: types.IntPair
    # side of a core, width of the halo, and the grid that corners lie on
    core: int
    halo: int
    stride: int
    constant: bool  # whether all windows have one size

    @property
    def grid(self) -> types.IntPair:
        """Shape of the tile grid, (rows, columns)."""
        return -(-self.shape[0] // self.core), -(-self.shape[1] // self.core)

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
        corner = row * self.core, column * self.core
        whole = Box.from_shape((self.core, self.core), corner)
        core = whole.intersection(Box.from_shape(self.shape))
        return self.create_tile(core, (row, column))

    def _add_halo(self, start: int, stop: int, axis: int) -> types.IntPair:
        """Add a halo to an interval along one axis, within the padded image."""
        end = round_up(stop, self.stride) + self.halo
        return max(start - self.halo, 0), min(end, self.padded_shape[axis])

    def create_tile(self, core: Box, index: types.IntPair = (0, 0)) -> Tile:
        """Return a tile for any region that starts at a multiple of the stride.

        It has the window of a tile; with a constant size if the plan has one and the
        part is not larger than a core.
        """
        rows = self._get_window(core.y0, core.y1, 0)
        columns = self._get_window(core.x0, core.x1, 1)
        return Tile(index, core, Box(*rows, *columns))

    def _get_window(self, start: int, stop: int, axis: int) -> types.IntPair:
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
    grid: types.IntPair  # rows and columns of blocks

    @property
    def corners(self) -> NDArray[np.intp]:
        """Top-left corners ``(y, x)``, row by row: ``(rows * columns, 2)``."""
        places = np.indices(self.grid).reshape(2, -1).T
        return np.ascontiguousarray(places * self.step).astype(np.intp)

    @property
    def origin(self) -> types.FloatPair:
        """Centre of the first block in pixel coordinates."""
        return (self.block - 1) / 2, (self.block - 1) / 2


def round_up(value: int, multiple: int) -> int:
    """Round a value up to a multiple of another."""
    return -(-value // multiple) * multiple


def plan_tiles(
    shape: types.IntPair,
    *,
    core: int,
    halo: int,
    stride: int = 1,
    minimum: int = 1,
    constant: bool = True,
) -> TilePlan:
    """Split an image into tiles with halos.

    The core is a positive multiple of the stride; the halo, the context that a core
    needs on each side, is rounded up to the stride. The field is padded to the
    `minimum` side that the network accepts. With `constant` all windows have one size,
    shifted inwards at the borders instead of cropped.
    """
    rows, columns = (round_up(max(int(size), minimum), stride) for size in shape)
    return TilePlan(
        shape=(int(shape[0]), int(shape[1])),
        padded_shape=(rows, columns),
        core=core,
        halo=round_up(halo, stride),
        stride=stride,
        constant=constant,
    )


def plan_blocks(shape: types.IntPair, *, block: int, step: int) -> BlockPlan:
    """Place as many square blocks on an image as fit at a constant step.

    ``(size - block) // step + 1`` on each axis. Raises `ShapeError` if none fits.
    """
    if min(shape) < block:
        size = f"{shape[0]}x{shape[1]} px"
        msg = f"A block of {block} px does not fit into {size}: choose a smaller block."
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
    folded = np.mod(np.arange(start, stop), 2 * (size - 1))
    return np.asarray(np.minimum(folded, 2 * (size - 1) - folded))


def get_central_box(shape: types.IntPair, side: int) -> Box:
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


def read_box(data: types.ReadableArray, box: Box) -> NDArray[Any]:
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


_LOBES = 3  # chosen: two blur, more cause longer ringing; see Duchon (1979)
_NO_OFFSETS = Fraction(0), Fraction(0)


@dataclass(frozen=True, slots=True)
class Resampling:
    """Resampling of an image to a grid with another pixel pitch.

    Shown for one axis. The outer borders of both grids coincide at the top and left,
    up to an offset; the last pixel of the new grid may extend beyond the field, which
    is reflected there::

        field   |  0  |  1  |  2  |  3  |  4  |       a new pixel is 5/3 as long
        grid    |    0    |    1    |    2    |       as a pixel of the field

    The centre of new pixel `i` is at ``offset + (i + 1/2) step - 1/2`` in pixels of the
    field, where the offset moves the new grid's border into the field. Both are
    fractions, so that positions are computed in integers and a pixel does not depend on
    the region that is computed. Pixels are weighted by the Lanczos kernel of three
    lobes [1]_. For a coarser grid it is stretched by the step, which removes
    frequencies beyond the Nyquist frequency of that grid.

    References
    ----------
    .. [1] C. E. Duchon, J. Appl. Meteorol. 18, 1016 (1979),
       doi:10.1175/1520-0450(1979)018<1016:LFIOAT>2.0.CO;2.
    """

    size: types.IntPair  # rows and columns of the field
    # ``(y, x)`` pixels of the field in one pixel of the new grid
    steps: tuple[Fraction, Fraction]
    # ``(y, x)`` pixels of the field from its border to that of the new grid
    offsets: tuple[Fraction, Fraction] = _NO_OFFSETS

    @property
    def shape(self) -> types.IntPair:
        """Shape of the new grid, up to the end of the source image."""
        rows, columns = (
            math.ceil((n - offset) / step)
            for n, step, offset in zip(self.size, self.steps, self.offsets, strict=True)
        )
        return rows, columns

    def source_region(self, box: Box) -> Box:
        """Return the source image region needed to compute a box of the new grid.

        The box may extend beyond the grid; the region is inside the field.
        """
        spans = []
        for axis, span in enumerate(((box.y0, box.y1), (box.x0, box.x1))):
            step = self.steps[axis]
            first, _ = _compute_kernel_weights(span, step, self.offsets[axis])
            last = int(first[-1]) + _compute_kernel_width(step)
            indices = reflect_indices(int(first[0]), last, self.size[axis])
            spans.append((int(indices.min()), int(indices.max()) + 1))
        return Box(*spans[0], *spans[1])

    def nearest_pixels(
        self, place: Box, box: Box
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the source pixels nearest to the new pixel centres in a box.

        An open index of shape ``box.shape`` into an array of the region `place` of the
        field, which holds ``source(box)``.
        """
        slices = []
        spans = (box.y0, box.y1, place.y0), (box.x0, box.x1, place.x0)
        for axis, (start, stop, corner) in enumerate(spans):
            centres = (start, stop), self.steps[axis], self.offsets[axis]
            numerator, denominator = _compute_pixel_centres(*centres)
            at = (2 * numerator + denominator) // (2 * denominator)
            slices.append(np.clip(at, 0, self.size[axis] - 1) - corner)
        rows, columns = np.ix_(*slices)
        return rows, columns

    def resample(self, block: types.RealArray, place: Box, box: Box) -> NDArray[Any]:
        """Compute the pixels of a box of the new grid.

        The block (Y, X) has the finite grey values of the region `place` of the field,
        which holds ``source(box)``. Values are of `get_interpolation_dtype`.
        """
        kind = get_interpolation_dtype(block.dtype)
        down = self._compute_weight_matrix(0, (box.y0, box.y1), (place.y0, place.y1))
        across = self._compute_weight_matrix(1, (box.x0, box.x1), (place.x0, place.x1))
        rows, columns = box.relative_to(place).slices
        values = np.asarray(block, dtype=np.float64)
        values = values[rows] if down is None else down @ values
        if across is None:
            values = values[:, columns]
        else:
            values = (across @ np.ascontiguousarray(values.T)).T
        return np.ascontiguousarray(values, dtype=kind)

    def _compute_weight_matrix(
        self, axis: int, span: types.IntPair, place: types.IntPair
    ) -> "sparse.csr_matrix | None":
        """Return the weights of one axis as a matrix; None if the grids are equal."""
        step, size, offset = self.steps[axis], self.size[axis], self.offsets[axis]
        together = step == 1 and offset == 0
        if together and span[0] >= place[0] and span[1] <= place[1]:
            return None
        from scipy import sparse  # most fields are never resampled

        first, weights = _compute_kernel_weights(span, step, offset)
        width = _compute_kernel_width(step)
        low = int(first[0])
        indices = reflect_indices(low, int(first[-1]) + width, size) - place[0]
        columns = indices[(first - low)[:, None] + np.arange(width)]
        starts = np.arange(0, columns.size + 1, width)
        shape = len(first), place[1] - place[0]
        return sparse.csr_matrix((weights.ravel(), columns.ravel(), starts), shape)


def get_interpolation_dtype(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """Return the dtype for interpolation: float32, or float64 for wider types."""
    narrow = dtype.itemsize <= (4 if dtype.kind == "f" else 2)
    return np.dtype(np.float32 if narrow else np.float64)


def _compute_kernel_width(step: Fraction) -> int:
    """Return the number of source pixels that contribute to a new pixel."""
    return 2 * math.ceil(_LOBES * max(step, Fraction(1)))


def _compute_pixel_centres(
    span: types.IntPair, step: Fraction, offset: Fraction
) -> tuple[NDArray[np.int64], int]:
    """Return new pixel centres in source pixels: numerators and denominator."""
    parts = math.lcm(step.denominator, offset.denominator)
    twice = 2 * np.arange(*span, dtype=np.int64) + 1
    above = twice * (step.numerator * (parts // step.denominator))
    numerators = 2 * offset.numerator * (parts // offset.denominator) - parts
    return above + numerators, 2 * parts


def _compute_kernel_weights(
    span: types.IntPair, step: Fraction, offset: Fraction
) -> tuple[NDArray[np.int64], types.FloatArray]:
    """Return the first source pixel and the weights for each new pixel."""
    width = _compute_kernel_width(step)
    centre, over = _compute_pixel_centres(span, step, offset)
    below = centre // over
    share = (centre - below * over) / over
    first = below - width // 2 + 1
    distance = (np.arange(width) - width // 2 + 1) - share[:, None]
    distance /= max(1.0, float(step))
    weights = np.sinc(distance) * np.sinc(distance / _LOBES)
    weights[np.abs(distance) >= _LOBES] = 0
    return first, weights / weights.sum(axis=1, keepdims=True)


# Chosen. In a field of 100 000 px an error of 1e-7 in a step adds up to a hundredth of
# a pixel, the tolerance; that of an offset does not add up: a thousandth is enough.
_SLACK_PX = 0.01  # smaller shifts are ignored
# Precision of steps and offsets, in fractions of a pixel.
_STEP_PARTS, _OFFSET_PARTS = 10_000_000, 1000
_GAP = 1e-3  # chosen; a pixel with a larger total weight of gaps is a gap


@dataclass(frozen=True, slots=True)
class Grid:
    """A regular grid of pixels in a plane."""

    shape: types.IntPair  # rows and columns
    pitch: types.FloatPair  # ``(y, x)`` side of a pixel
    corner: types.FloatPair  # outer border ``(y, x)`` of pixel (0, 0)

    @classmethod
    def from_image(cls, image: Micrograph) -> Self:
        """Return the grid of an image in nm, or in pixels of its parent image."""
        y, x = (o - p / 2 for o, p in zip(image.origin, image.scale, strict=True))
        return cls(image.shape, image.scale, (y, x))

    @property
    def end(self) -> types.FloatPair:
        """Bottom-right corner ``(y, x)`` of the grid."""
        (y, x), (down, across) = self.corner, self.pitch
        return y + self.shape[0] * down, x + self.shape[1] * across

    def move(self, by: types.FloatPair) -> Self:
        """Return the grid moved by ``(y, x)``."""
        corner = self.corner[0] + by[0], self.corner[1] + by[1]
        return type(self)(self.shape, self.pitch, corner)

    def box_origin(self, box: Box) -> types.FloatPair:
        """Return the centre ``(y, x)`` of a box's first pixel: its image's origin."""
        (y, x), (down, across) = self.corner, self.pitch
        return y + (box.y0 + 0.5) * down, x + (box.x0 + 0.5) * across

    def nearest_box(self, start: types.FloatPair, stop: types.FloatPair) -> Box:
        """Return the box of pixels whose centres are between two corners ``(y, x)``.

        A centre at `start` is inside, one at `stop` is not, to a hundredth of a pixel.
        In pixels of the grid; the box may extend beyond it, or be empty.
        """
        ends = self.locate(start, stop)
        return Box(*map(int, np.ceil(ends - 0.5 - _SLACK_PX).flat))

    def locate(self, start: types.FloatPair, stop: types.FloatPair) -> types.FloatArray:
        """Return two corners in pixels of this grid: rows, then columns (2, 2)."""
        ends = np.transpose([start, stop]) - np.reshape(self.corner, (2, 1))
        return np.asarray(ends / np.reshape(self.pitch, (2, 1)))

    def covered_box(self, source: "Grid") -> Box | None:
        """Return the box of pixels that are completely covered by another grid.

        In pixels of this grid, to a hundredth of a pixel; None if there are none.
        """
        first, last = self.locate(source.corner, source.end).T
        ends = np.ceil(first - _SLACK_PX), np.floor(last + _SLACK_PX)
        box = Box(*map(int, np.transpose(ends).flat))
        box = box.intersection(Box.from_shape(self.shape))
        return box if min(box.shape) > 0 else None

    def to_box(self, source: "Grid") -> Box | None:
        """Return this grid as a box of another grid; None if pixels do not coincide.

        To a hundredth of a pixel; None otherwise.
        """
        ends = source.locate(self.corner, self.end)
        box = Box(*map(int, np.rint(ends).flat))
        is_near = np.abs(ends - np.rint(ends)).max() <= _SLACK_PX
        return box if is_near and box.shape == self.shape else None

    def create_resampling(self, source: "Grid") -> Resampling:
        """Return the resampling from the grid `source` to this grid.

        The border of this grid may be anywhere in the `source`; the pixels of the
        resampling are counted from the corner of this one.
        """
        steps, offsets = [], []
        for axis in (0, 1):
            pitch = source.pitch[axis]
            step = Fraction(self.pitch[axis] / pitch)
            offset = Fraction((self.corner[axis] - source.corner[axis]) / pitch)
            steps.append(step.limit_denominator(_STEP_PARTS))
            offsets.append(offset.limit_denominator(_OFFSET_PARTS))
        return Resampling(source.shape, (steps[0], steps[1]), (offsets[0], offsets[1]))


@dataclass(frozen=True, slots=True)
class GridImage:
    """An image cropped or resampled to a grid, read in parts."""

    image: Micrograph
    grid: Grid
    inner: Box | None  # the grid as pixels of the image, if it needs no resampling
    resampling: Resampling  # for other grids

    @classmethod
    def from_image(
        cls, image: Micrograph, grid: Grid, source: Grid | None = None
    ) -> Self:
        """Crop or resample an image lazily to a grid inside the image.

        Grey values are interpolated only if the pixels differ. `source` is the grid of
        the image, by default the image's own.
        """
        own = source or Grid.from_image(image)
        return cls(image, grid, grid.to_box(own), grid.create_resampling(own))

    @property
    def is_resampled(self) -> bool:
        """Whether the grey values are interpolated."""
        return self.inner is None

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Data type of the grey values; a float type if they are interpolated."""
        own = self.image.dtype
        return get_interpolation_dtype(own) if self.is_resampled else own

    def crop(self, box: Box) -> Self:
        """Return a section of the image, given as a box in its pixels."""
        y, x = self.grid.box_origin(box)
        down, right = self.grid.pitch
        grid = Grid(box.shape, self.grid.pitch, (y - down / 2, x - right / 2))
        inner = self.inner and box.move(self.inner.corner)
        steps, offsets = self.resampling.steps, self.resampling.offsets
        offset = offsets[0] + box.y0 * steps[0], offsets[1] + box.x0 * steps[1]
        placement = Resampling(self.resampling.size, steps, offset)
        return type(self)(self.image, grid, inner, placement)

    def read(self, box: Box | None = None) -> types.RealArray:
        """Compute the pixels of a box, by default the whole image.

        A pixel that depends on a missing value is NaN.
        """
        box = box or Box.from_shape(self.grid.shape)
        if self.inner is not None:
            return read_box(self.image.data, box.move(self.inner.corner))
        place = self.resampling.source_region(box)
        block = read_box(self.image.data, place)
        finite = np.isfinite(block)
        if finite.all():
            return self.resampling.resample(block, place, box)
        level = block[finite].mean(dtype=np.float64) if finite.any() else 0.0
        filled = np.where(finite, block, level)
        values = self.resampling.resample(filled, place, box)
        gaps = self.resampling.resample((~finite).astype(np.float32), place, box)
        values[np.abs(gaps) > _GAP] = np.nan
        return values


def crop_to_box(image: Micrograph, box: Box) -> Micrograph:
    """Crop an image, keeping its position in the plane and its contrast limits."""
    data, origin = read_box(image.data, box), Grid.from_image(image).box_origin(box)
    return image.replace(data=data, origin=origin, look=image.look)


def find_gap_free_box(is_covered: types.BoolArray, *, least: int = 1) -> Box | None:
    """Find the largest gap-free rectangle with sides of at least `least`.

    Row by row, each column keeps the height to which it is free of gaps and the widest
    interval that is free to this height, as in the usual algorithm for the largest
    rectangle of ones in a matrix; its time is linear in the number of pixels. Among
    equal rectangles the topmost is returned; None if there is none of that size.
    """
    columns = is_covered.shape[1]
    index = np.arange(columns)
    height = np.zeros(columns, int)
    left, right = np.zeros(columns, int), np.full(columns, columns)
    best, most = None, 0
    for y, row in enumerate(is_covered):
        first = np.maximum.accumulate(np.where(row, 0, index + 1))
        beyond = np.minimum.accumulate(np.where(row, columns, index)[::-1])[::-1]
        height = np.where(row, height + 1, 0)
        left = np.where(row, np.maximum(left, first), 0)
        right = np.where(row, np.minimum(right, beyond), columns)
        area = height * (right - left)
        area[np.minimum(height, right - left) < least] = 0
        x = int(np.argmax(area))
        if area[x] > most:
            most = int(area[x])
            best = Box(y + 1 - int(height[x]), y + 1, int(left[x]), int(right[x]))
    return best
