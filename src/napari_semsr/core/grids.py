"""Where images lie in one plane, and which of their pixels show the same area.

A pixel is an area: pixel (0, 0) reaches half a pixel to each side of the origin, which
is its centre. Lengths are in one unit, nanometres for calibrated images.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.tiling import Box, read_box, reflect_indices
from napari_semsr.core.types import BoolArray, FloatArray, FloatPair, IntPair

_LOBES = 3  # chosen: two blur, more ring further; Duchon (1979) compares them
_TOGETHER = Fraction(0), Fraction(0)


@dataclass(frozen=True, slots=True)
class Resampling:
    """A grid of another pitch over a field: where its pixels lie, what they are.

    One axis. The outer borders of both grids coincide at the top and left, but for an
    offset; the last pixel of the new grid may reach over the field's end, where the
    field is reflected::

        field   |  0  |  1  |  2  |  3  |  4  |       a new pixel is 5/3 as long
        grid    |    0    |    1    |    2    |       as a pixel of the field

    The centre of new pixel `i` is at ``offset + (i + 1/2) step - 1/2`` in pixels of the
    field, where the offset moves the new grid's border into the field. Both are
    fractions, so that places are found in integers and a pixel is the same in whatever
    region it is asked for. Pixels are weighted by the Lanczos kernel of three lobes
    [1]_. It is stretched by the step where the new grid is coarser, which takes out the
    frequencies that this grid cannot hold.

    References
    ----------
    .. [1] C. E. Duchon, J. Appl. Meteorol. 18, 1016 (1979),
       doi:10.1175/1520-0450(1979)018<1016:LFIOAT>2.0.CO;2.
    """

    size: IntPair  # rows and columns of the field
    # ``(y, x)`` pixels of the field in one pixel of the new grid
    steps: tuple[Fraction, Fraction]
    # ``(y, x)`` pixels of the field from its border to that of the new grid
    offsets: tuple[Fraction, Fraction] = _TOGETHER

    @property
    def shape(self) -> IntPair:
        """Rows and columns of the new grid; it reaches to the field's end."""
        rows, columns = (
            math.ceil((n - offset) / step)
            for n, step, offset in zip(self.size, self.steps, self.offsets, strict=True)
        )
        return rows, columns

    def source(self, box: Box) -> Box:
        """Find what of the field some pixels of the new grid are made of.

        The box may reach over the end of the grid; the region lies inside the field.
        """
        spans = []
        for axis, span in enumerate(((box.y0, box.y1), (box.x0, box.x1))):
            first, _ = _taps(span, self.steps[axis], self.offsets[axis])
            last = int(first[-1]) + _width(self.steps[axis])
            indices = reflect_indices(int(first[0]), last, self.size[axis])
            spans.append((int(indices.min()), int(indices.max()) + 1))
        return Box(*spans[0], *spans[1])

    def under(self, place: Box, box: Box) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Find the pixels of the field under the centres of the new pixels in a box.

        An open index of shape ``box.shape`` into an array of the region `place` of the
        field, which holds ``source(box)``.
        """
        slices = []
        spans = (box.y0, box.y1, place.y0), (box.x0, box.x1, place.x0)
        for axis, (start, stop, corner) in enumerate(spans):
            numerator, denominator = _centres(
                (start, stop), self.steps[axis], self.offsets[axis]
            )
            at = (2 * numerator + denominator) // (2 * denominator)
            slices.append(np.clip(at, 0, self.size[axis] - 1) - corner)
        rows, columns = np.ix_(*slices)
        return rows, columns

    def make(self, block: NDArray[Any], place: Box, box: Box) -> NDArray[Any]:
        """Make the pixels of a box of the new grid.

        The block (Y, X) has the finite grey values of the region `place` of the field,
        which holds ``source(box)``. Values are float32, or double precision for types
        that single precision does not hold.
        """
        kind = working_type(block.dtype)
        down = self._weights(0, (box.y0, box.y1), (place.y0, place.y1))
        across = self._weights(1, (box.x0, box.x1), (place.x0, place.x1))
        values = np.asarray(block, dtype=np.float64)
        if down is not None:
            values = down @ values
        else:
            values = values[box.y0 - place.y0 : box.y1 - place.y0]
        if across is not None:
            values = (across @ np.ascontiguousarray(values.T)).T
        else:
            values = values[:, box.x0 - place.x0 : box.x1 - place.x0]
        return np.ascontiguousarray(values, dtype=kind)

    def _weights(self, axis: int, span: IntPair, place: IntPair) -> Any:
        """Weights of one axis as a matrix; None where both grids are one."""
        step, size, offset = self.steps[axis], self.size[axis], self.offsets[axis]
        together = step == 1 and offset == 0
        if together and span[0] >= place[0] and span[1] <= place[1]:
            return None
        from scipy import sparse  # most fields are never resampled

        first, weights = _taps(span, step, offset)
        width = _width(step)
        low = int(first[0])
        indices = reflect_indices(low, int(first[-1]) + width, size) - place[0]
        columns = indices[(first - low)[:, None] + np.arange(width)]
        starts = np.arange(0, columns.size + 1, width)
        shape = len(first), place[1] - place[0]
        return sparse.csr_matrix((weights.ravel(), columns.ravel(), starts), shape)


def working_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Choose the type of resampled values: float32, or float64 for wider types."""
    narrow = dtype.itemsize <= (4 if dtype.kind == "f" else 2)
    return np.dtype(np.float32 if narrow else np.float64)


def _width(step: Fraction) -> int:
    """Count the pixels of the field that make one pixel."""
    return 2 * math.ceil(_LOBES * max(step, Fraction(1)))


def _centres(
    span: IntPair, step: Fraction, offset: Fraction
) -> tuple[NDArray[np.int64], int]:
    """Centres of new pixels in pixels of the field: numerators, and what is below."""
    parts = math.lcm(step.denominator, offset.denominator)
    twice = 2 * np.arange(*span, dtype=np.int64) + 1
    above = twice * (step.numerator * (parts // step.denominator))
    numerators = 2 * offset.numerator * (parts // offset.denominator) - parts
    return above + numerators, 2 * parts


def _taps(
    span: IntPair, step: Fraction, offset: Fraction
) -> tuple[NDArray[np.int64], FloatArray]:
    """First pixel, and the weights of it and those that follow, for each new pixel."""
    width = _width(step)
    centre, over = _centres(span, step, offset)
    below = centre // over
    share = (centre - below * over) / over
    first = below - width // 2 + 1
    distance = (np.arange(width) - width // 2 + 1) - share[:, None]
    distance /= max(1.0, float(step))
    weights = np.sinc(distance) * np.sinc(distance / _LOBES)
    weights[np.abs(distance) >= _LOBES] = 0
    return first, weights / weights.sum(axis=1, keepdims=True)


# Chosen. In a field of 100 000 px a step that is off by 1e-7 drifts by a hundredth of a
# pixel, the slack; an offset is off at its one place, where a thousandth is enough.
_SLACK_PX = 0.01  # less than this is no shift, and no reach over a border
# Fineness with which steps and offsets are compared, in parts of a pixel.
_STEP_PARTS, _OFFSET_PARTS = 10_000_000, 1000
_GAP = 1e-3  # weight of gaps in a pixel that is a gap itself; chosen


@dataclass(frozen=True, slots=True)
class Grid:
    """Pixels in a plane."""

    shape: IntPair  # rows and columns
    pitch: FloatPair  # ``(y, x)`` side of a pixel
    corner: FloatPair  # outer border ``(y, x)`` of pixel (0, 0)

    @classmethod
    def of(cls, image: Micrograph) -> Self:
        """Take the grid of an image, in nm or, uncalibrated, in its parent's pixels."""
        y, x = (o - p / 2 for o, p in zip(image.origin, image.scale, strict=True))
        return cls(image.shape, image.scale, (y, x))

    @property
    def end(self) -> FloatPair:
        """Outer border of the last pixel."""
        y, x = (
            c + n * p
            for c, n, p in zip(self.corner, self.shape, self.pitch, strict=True)
        )
        return y, x

    def move(self, by: FloatPair) -> Self:
        """Give the same pixels elsewhere, ``(y, x)`` added to their place."""
        corner = self.corner[0] + by[0], self.corner[1] + by[1]
        return type(self)(self.shape, self.pitch, corner)

    def centre(self, box: Box) -> FloatPair:
        """Find the centre ``(y, x)`` of a part's first pixel: its image's origin."""
        y, x = (
            c + (first + 0.5) * p
            for c, first, p in zip(
                self.corner, (box.y0, box.x0), self.pitch, strict=True
            )
        )
        return y, x

    def nearest(self, start: FloatPair, stop: FloatPair) -> Box:
        """Find the pixels between two corners ``(y, x)``, to the nearest border.

        In pixels of the grid; the box may reach over its border, or be empty.
        """
        spans = [
            [math.floor((v - c) / p + 0.5) for v in pair]
            for pair, c, p in zip(
                zip(start, stop, strict=True), self.corner, self.pitch, strict=True
            )
        ]
        return Box(*spans[0], *spans[1])

    def covered_by(self, source: "Grid") -> Box | None:
        """Find the pixels that lie wholly in the area of another grid.

        In pixels of this grid, but for a hundredth of a pixel; None where there is
        none.
        """
        spans = []
        for axis in (0, 1):
            pitch, corner = self.pitch[axis], self.corner[axis]
            first = np.ceil((source.corner[axis] - corner) / pitch - _SLACK_PX)
            last = np.floor((source.end[axis] - corner) / pitch + _SLACK_PX)
            spans += [max(0, int(first)), min(self.shape[axis], int(last))]
        if spans[0] >= spans[1] or spans[2] >= spans[3]:
            return None
        return Box(*spans)

    def among(self, source: "Grid") -> Box | None:
        """Find this grid in pixels of another, if its pixels are pixels of it.

        To a hundredth of a pixel; None otherwise.
        """
        spans = []
        for axis in (0, 1):
            pitch = source.pitch[axis]
            first = (self.corner[axis] - source.corner[axis]) / pitch
            last = (self.end[axis] - source.corner[axis]) / pitch
            start, stop = round(first), round(last)
            if max(abs(first - start), abs(last - stop)) > _SLACK_PX:
                return None
            if stop - start != self.shape[axis]:
                return None
            spans += [start, stop]
        return Box(*spans)

    def laid_over(self, source: "Grid") -> Resampling:
        """Lay the grid over an image that is to be resampled to it.

        The border of this grid may lie anywhere in the `source`, the grid of the image;
        the pixels of the resampling are counted from the corner of this one.
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
class Area:
    """Pixels of a grid, made from an image and read part by part."""

    image: Micrograph  # where they come from
    grid: Grid  # the pixels
    inner: Box | None  # the same in pixels of the image, where they are pixels of it
    laid: Resampling  # how they are made, where they are not

    @classmethod
    def of(cls, image: Micrograph, grid: Grid, source: Grid | None = None) -> Self:
        """Take what an image shows in a grid that it covers; nothing is read yet.

        Grey values are interpolated only where its pixels are others. `source` says
        where the image lies, if that is not what it says itself.
        """
        lies = source or Grid.of(image)
        return cls(image, grid, grid.among(lies), grid.laid_over(lies))

    @property
    def is_resampled(self) -> bool:
        """Whether grey values are interpolated."""
        return self.inner is None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the grey values: the image's, or a float where interpolated."""
        own = self.image.dtype
        return working_type(own) if self.is_resampled else own

    def part(self, box: Box) -> Self:
        """Take a part of the area, in its pixels."""
        y, x = self.grid.centre(box)
        down, right = self.grid.pitch
        grid = Grid(box.shape, self.grid.pitch, (y - down / 2, x - right / 2))
        inner = self.inner
        if inner is not None:
            inner = box.move(inner.corner)
        steps, offsets = self.laid.steps, self.laid.offsets
        offset = offsets[0] + box.y0 * steps[0], offsets[1] + box.x0 * steps[1]
        placement = Resampling(self.laid.size, steps, offset)
        return type(self)(self.image, grid, inner, placement)

    def read(self, box: Box | None = None) -> NDArray[Any]:
        """Compute some of the pixels, all by default.

        A pixel that would be made of one without a value is NaN.
        """
        box = box or Box.of(self.grid.shape)
        if self.inner is not None:
            return read_box(self.image.data, box.move(self.inner.corner))
        place = self.laid.source(box)
        block = read_box(self.image.data, place)
        finite = np.isfinite(block)
        if finite.all():
            return self.laid.make(block, place, box)
        level = block[finite].mean(dtype=np.float64) if finite.any() else 0.0
        block_values = self.laid.make(np.where(finite, block, level), place, box)
        gaps = self.laid.make((~finite).astype(np.float32), place, box)
        block_values[np.abs(gaps) > _GAP] = np.nan
        return block_values


def cut_box(image: Micrograph, box: Box) -> Micrograph:
    """Read a part of an image, which stays where it is, with its contrast."""
    data, origin = read_box(image.data, box), Grid.of(image).centre(box)
    return image.replace(data=data, origin=origin, look=image.look)


def gap_free_box(is_covered: BoolArray, *, least: int = 1) -> Box | None:
    """Find the largest rectangle without a gap, of sides of `least` or more.

    Row by row, each column keeps how far up it is free of gaps and the widest stretch
    that is free to this height, as in the usual algorithm for the largest rectangle of
    ones in a matrix; its time grows with the number of pixels. The first of equals from
    the top; None where none of that size is left.
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
