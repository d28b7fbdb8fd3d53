"""A grid of another pitch over the same field: where its pixels lie, what they are.

One axis. The outer borders of both grids coincide at the top and left, but for an
offset; the last pixel of the new grid may reach over the field's end, where the field
is reflected::

    field   |  0  |  1  |  2  |  3  |  4  |       a new pixel is 5/3 as long
    grid    |    0    |    1    |    2    |       as a pixel of the field

The centre of new pixel `i` is at ``offset + (i + 1/2) step - 1/2`` in pixels of the
field, where the offset moves the new grid's border into the field. Both are fractions,
so that places are found in integers and a pixel is the same in whatever region it is
asked for. Pixels are weighted by the Lanczos kernel of three lobes [1]_. It is
stretched by the step where the new grid is coarser, which takes out the frequencies
that this grid cannot hold.

.. [1] C. E. Duchon, J. Appl. Meteorol. 18, 1016 (1979),
   doi:10.1175/1520-0450(1979)018<1016:LFIOAT>2.0.CO;2.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.tiling import Box, reflect_indices
from napari_semsr.core.types import FloatArray, IntPair

_LOBES = 3  # chosen: two blur, more ring further; Duchon (1979) compares them
_TOGETHER = Fraction(0), Fraction(0)


@dataclass(frozen=True, slots=True)
class Resampling:
    """A grid of another pitch over a field.

    Attributes
    ----------
    size : tuple of int
        Rows and columns of the field.
    steps : tuple of fractions.Fraction
        ``(y, x)`` pixels of the field in one pixel of the new grid.
    offsets : tuple of fractions.Fraction
        ``(y, x)`` pixels of the field from its border to that of the new grid.
    """

    size: IntPair
    steps: tuple[Fraction, Fraction]
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
            folded = reflect_indices(int(first[0]), last, self.size[axis])
            spans.append((int(folded.min()), int(folded.max()) + 1))
        return Box(*spans[0], *spans[1])

    def under(self, place: Box, box: Box) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Find the pixels of the field under the centres of the new pixels in a box.

        An open index of shape ``box.shape`` into an array of the region `place` of the
        field, which holds ``source(box)``.
        """
        found = []
        spans = (box.y0, box.y1, place.y0), (box.x0, box.x1, place.x0)
        for axis, (start, stop, corner) in enumerate(spans):
            numerator, denominator = _centres(
                (start, stop), self.steps[axis], self.offsets[axis]
            )
            at = (2 * numerator + denominator) // (2 * denominator)
            found.append(np.clip(at, 0, self.size[axis] - 1) - corner)
        rows, columns = np.ix_(*found)
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
        folded = reflect_indices(low, int(first[-1]) + width, size) - place[0]
        columns = folded[(first - low)[:, None] + np.arange(width)]
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
    moved = 2 * offset.numerator * (parts // offset.denominator) - parts
    return above + moved, 2 * parts


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
