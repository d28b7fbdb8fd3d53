"""Image positions in a common plane, and pixels that show the same area.

A pixel is an area: pixel (0, 0) extends half a pixel to each side of the origin, which
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
from napari_semsr.core.types import BoolArray, FloatArray, FloatPair, IntPair, RealArray

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

    size: IntPair  # rows and columns of the field
    # ``(y, x)`` pixels of the field in one pixel of the new grid
    steps: tuple[Fraction, Fraction]
    # ``(y, x)`` pixels of the field from its border to that of the new grid
    offsets: tuple[Fraction, Fraction] = _NO_OFFSETS

    @property
    def shape(self) -> IntPair:
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
            first, _ = _compute_kernel_weights(
                span, self.steps[axis], self.offsets[axis]
            )
            last = int(first[-1]) + _compute_kernel_width(self.steps[axis])
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
            numerator, denominator = _compute_pixel_centres(
                (start, stop), self.steps[axis], self.offsets[axis]
            )
            at = (2 * numerator + denominator) // (2 * denominator)
            slices.append(np.clip(at, 0, self.size[axis] - 1) - corner)
        rows, columns = np.ix_(*slices)
        return rows, columns

    def resample(self, block: RealArray, place: Box, box: Box) -> NDArray[Any]:
        """Compute the pixels of a box of the new grid.

        The block (Y, X) has the finite grey values of the region `place` of the field,
        which holds ``source(box)``. Values are of `get_interpolation_dtype`.
        """
        kind = get_interpolation_dtype(block.dtype)
        down = self._compute_weight_matrix(0, (box.y0, box.y1), (place.y0, place.y1))
        across = self._compute_weight_matrix(1, (box.x0, box.x1), (place.x0, place.x1))
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

    def _compute_weight_matrix(self, axis: int, span: IntPair, place: IntPair) -> Any:
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
    span: IntPair, step: Fraction, offset: Fraction
) -> tuple[NDArray[np.int64], int]:
    """Return new pixel centres in source pixels: numerators and denominator."""
    parts = math.lcm(step.denominator, offset.denominator)
    twice = 2 * np.arange(*span, dtype=np.int64) + 1
    above = twice * (step.numerator * (parts // step.denominator))
    numerators = 2 * offset.numerator * (parts // offset.denominator) - parts
    return above + numerators, 2 * parts


def _compute_kernel_weights(
    span: IntPair, step: Fraction, offset: Fraction
) -> tuple[NDArray[np.int64], FloatArray]:
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

    shape: IntPair  # rows and columns
    pitch: FloatPair  # ``(y, x)`` side of a pixel
    corner: FloatPair  # outer border ``(y, x)`` of pixel (0, 0)

    @classmethod
    def from_image(cls, image: Micrograph) -> Self:
        """Return the grid of an image in nm, or in pixels of its parent image."""
        y, x = (o - p / 2 for o, p in zip(image.origin, image.scale, strict=True))
        return cls(image.shape, image.scale, (y, x))

    @property
    def end(self) -> FloatPair:
        """Bottom-right corner ``(y, x)`` of the grid."""
        y, x = (
            c + n * p
            for c, n, p in zip(self.corner, self.shape, self.pitch, strict=True)
        )
        return y, x

    def move(self, by: FloatPair) -> Self:
        """Return the grid moved by ``(y, x)``."""
        corner = self.corner[0] + by[0], self.corner[1] + by[1]
        return type(self)(self.shape, self.pitch, corner)

    def box_origin(self, box: Box) -> FloatPair:
        """Return the centre ``(y, x)`` of a box's first pixel: its image's origin."""
        y, x = (
            c + (first + 0.5) * p
            for c, first, p in zip(
                self.corner, (box.y0, box.x0), self.pitch, strict=True
            )
        )
        return y, x

    def nearest_box(self, start: FloatPair, stop: FloatPair) -> Box:
        """Return the box of pixels whose centres are between two corners ``(y, x)``.

        A centre at `start` is inside, one at `stop` is not, to a hundredth of a pixel.
        In pixels of the grid; the box may extend beyond it, or be empty.
        """
        spans = [
            [math.ceil((v - c) / p - 0.5 - _SLACK_PX) for v in pair]
            for pair, c, p in zip(
                zip(start, stop, strict=True), self.corner, self.pitch, strict=True
            )
        ]
        return Box(*spans[0], *spans[1])

    def covered_box(self, source: "Grid") -> Box | None:
        """Return the box of pixels that are completely covered by another grid.

        In pixels of this grid, to a hundredth of a pixel; None if there are none.
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

    def to_box(self, source: "Grid") -> Box | None:
        """Return this grid as a box of another grid; None if pixels do not coincide.

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
        inner = self.inner
        if inner is not None:
            inner = box.move(inner.corner)
        steps, offsets = self.resampling.steps, self.resampling.offsets
        offset = offsets[0] + box.y0 * steps[0], offsets[1] + box.x0 * steps[1]
        placement = Resampling(self.resampling.size, steps, offset)
        return type(self)(self.image, grid, inner, placement)

    def read(self, box: Box | None = None) -> RealArray:
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
        block_values = self.resampling.resample(
            np.where(finite, block, level), place, box
        )
        gaps = self.resampling.resample((~finite).astype(np.float32), place, box)
        block_values[np.abs(gaps) > _GAP] = np.nan
        return block_values


def crop_to_box(image: Micrograph, box: Box) -> Micrograph:
    """Crop an image, keeping its position in the plane and its contrast limits."""
    data, origin = read_box(image.data, box), Grid.from_image(image).box_origin(box)
    return image.replace(data=data, origin=origin, look=image.look)


def find_gap_free_box(is_covered: BoolArray, *, least: int = 1) -> Box | None:
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
