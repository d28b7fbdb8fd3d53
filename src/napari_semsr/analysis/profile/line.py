"""Grey levels along a line, averaged across a band, and the band's pixels.

A line is drawn in a plane, to which an affine map relates the pixels of an image: it
may be rotated, sheared or have oblong pixels. `u` points along the line and `v` across
it, both in the plane. The curve has a sample every pixel or slightly less, interpolated
bilinearly and averaged over parallel lines one pixel apart: for square pixels without
rotation it equals `skimage.measure.profile_line`, except at the border, where that
mirrors the image. Fits use the pixels themselves, each at its position along the line:
interpolation would widen narrow structures and correlate the noise of neighbouring
samples.

Only the band is read, one chunk at a time.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from napari_semsr import core

_BLOCK = 512  # side of the parts in which an unchunked image is cached; chosen
_WHOLE = 1e-3  # weight of missing pixels above which a sample is missing; as in grids
_INSIDE = 0.5  # px from a pixel's centre to its border
_ROUND = 1e-9  # px; chosen: smaller differences of positions are rounding

_LINE = core.Message("A line is four numbers y0,x0,y1,x1 in px", "wrong-type")


class ProfileOptions(core.Options):
    """Options for a profile: the line, and the structures to measure."""

    line: tuple[float, float, float, float] = core.option(
        ..., description="End points of the line, Y0,X0,Y1,X1 in px."
    )
    width: float = core.option(
        1.0,
        "Width",
        "Width of the averaged band in px; with several layers, in px of the finest "
        "layer.",
        unit="px",
        step=1,
        gt=0,
    )
    polarity: Literal["auto", "bright", "dark"] = core.option(
        "auto",
        "Lines are",
        "Whether lines are brighter or darker than their surroundings.",
    )
    # chosen: texture is lower in most images, the dip of Rayleigh's limit higher
    prominence: float = core.option(
        0.1,
        "Minimum height",
        "Minimum height of a line above its surroundings, as a fraction of the "
        "profile's range.",
        step=0.05,
        gt=0,
        lt=1,
    )
    pixel: Literal["area", "point"] = core.option(
        "area",
        "A pixel is",
        "Pixel model for the fits: the average over the pixel area, or the value at "
        "a point.",
    )

    @field_validator("line", mode="before")
    @classmethod
    def _parse_line_ends(cls, value: Any) -> tuple[float, ...]:
        """Parse four numbers from a string."""
        parts = value.split(",") if isinstance(value, str) else value
        try:
            numbers = [float(part) for part in parts]
        except (TypeError, ValueError):
            raise ValueError(_LINE) from None
        if len(numbers) != 4 or not np.isfinite(numbers).all():
            raise ValueError(_LINE)
        return tuple(numbers)


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """Grey levels along a line."""

    # (K,) From the line's start, in pixels of the image along the line
    distance_px: core.FloatArray
    intensity: core.FloatArray  # (K,) Mean across the band; NaN where it has no pixel
    per_px: float  # Length of such a pixel in the plane, nm if calibrated
    is_calibrated: bool
    length_sd: float  # Its relative standard deviation, 0 if unknown
    lines: int  # Parallel lines that were averaged
    place_px: core.FloatArray  # (N,) Positions of the known pixels in the band
    value: core.FloatArray
    spread_px: float  # Standard deviation of a pixel's area along the line
    # Type of the grey values, and their bit depth if stated
    dtype: np.dtype[np.generic] = np.dtype(float)  # noqa: RUF009 - a constant
    bits: int | None = None

    @property
    def nm_per_px(self) -> float | None:
        """Pixel length along the line in nm; None without a pixel size."""
        return self.per_px if self.is_calibrated else None

    @property
    def distance_nm(self) -> core.FloatArray | None:
        """Distance from the line's start in nm; None without a pixel size."""
        return self.distance_px * self.per_px if self.is_calibrated else None

    @property
    def length_px(self) -> float:
        """Length of the line in pixels."""
        return float(self.distance_px[-1])


class LineReader:
    """Reader of a field's grey values (Y, X) that caches the most recent chunks.

    An array in memory is not copied.
    """

    def __init__(self, data: core.ReadableArray) -> None:
        self.data = data
        self.shape: core.IntPair = (int(data.shape[0]), int(data.shape[1]))
        chunks = getattr(data, "chunks", None)
        self._edges: list[NDArray[np.int64]] = []  # chunk borders along each axis
        for axis, size in enumerate(self.shape):
            step: Any = chunks[axis] if chunks is not None else _BLOCK
            if not isinstance(step, tuple):
                step = [step] * (size // step) + [size % step] * (size % step > 0)
            self._edges.append(np.array([0, *np.cumsum(step)], dtype=np.int64))
        largest = math.prod(int(np.diff(edges).max()) for edges in self._edges)
        # chosen: twice the chunks along a diagonal of 16 384 px
        most = max(1, (256 << 20) // (largest * np.dtype(data.dtype).itemsize))
        rows, columns = self._edges

        @lru_cache(most)
        def read_chunk(row: int, column: int) -> core.RealArray:
            top, bottom = rows[row : row + 2].tolist()
            left, right = columns[column : column + 2].tolist()
            return core.read_box(data, core.Box(top, bottom, left, right))

        self._read_chunk = read_chunk

    def read_pixels(
        self, rows: core.RealArray, columns: core.RealArray
    ) -> core.FloatArray:
        """Read pixels (M, W); NaN outside the field.

        Along the first axis, rows or columns increase by 1 px.
        """
        inside = (rows >= 0) & (rows < self.shape[0])
        inside &= (columns >= 0) & (columns < self.shape[1])
        values = np.full(rows.shape, np.nan)
        if isinstance(self.data, np.ndarray):
            values[inside] = self.data[rows[inside], columns[inside]]
            return values
        down, right = self._edges
        for start in range(0, len(rows), _BLOCK):
            part = slice(start, start + _BLOCK)
            y, x = rows[part][inside[part]], columns[part][inside[part]]
            chunk = (np.searchsorted(down, y, "right") - 1) * len(right)
            chunk += np.searchsorted(right, x, "right") - 1
            chunk_values = np.empty(y.shape)
            for number in np.unique(chunk):
                here = chunk == number
                row, column = divmod(int(number), len(right))
                block = self._read_chunk(row, column)
                chunk_values[here] = block[y[here] - down[row], x[here] - right[column]]
            values[part][inside[part]] = chunk_values
        return values


@dataclass(frozen=True, slots=True)
class _PixelLine:
    """Line in image pixels, with lengths in units of the plane."""

    start: core.FloatArray  # in pixels of the image
    end: core.FloatArray
    # change along the line by a step of one pixel on either axis
    along: core.FloatArray
    across: core.FloatArray
    length: float
    width: float
    lines: int

    @property
    def vector(self) -> core.FloatArray:
        """Vector from the start to the end, in pixels."""
        return self.end - self.start

    @property
    def length_px(self) -> float:
        return math.hypot(*self.vector)

    def get_samples(self) -> tuple[core.FloatArray, core.FloatArray]:
        """Return samples as fractions of the line (K,), and positions (2, K, lines)."""
        # as many as in profile_line
        share = np.linspace(0, 1, math.ceil(self.length_px + 1))
        side = np.linalg.solve(np.stack([self.along, self.across]), [0.0, 1.0])
        offsets = np.arange(self.lines) - (self.lines - 1) / 2
        offsets *= self.width / self.lines
        way = self.start[:, None] + self.vector[:, None] * share
        return share, way[:, :, None] + side[:, None, None] * offsets


def _map_to_pixels(
    plane_ends: core.FloatArray, to_plane: core.Affine, width: float | None, px: float
) -> _PixelLine:
    """Map a line between two points of the plane (2, 2) to image pixels."""
    way = plane_ends[1] - plane_ends[0]
    length = math.hypot(*way)
    back = to_plane.inverse()
    ends = back(plane_ends)
    if math.dist(*ends) <= _ROUND:
        msg = (
            "A line must have two distinct end points, but both are at "
            f"{ends[0, 0]:g},{ends[0, 1]:g}; draw a longer line."
        )
        raise core.OptionError(msg, code="line-without-length")
    u = way / length
    v = np.array([u[1], -u[0]])
    pitch = 1 / math.hypot(*(back.linear @ v))  # size of a pixel across the line
    wide = px * pitch if width is None else width
    lines = max(1, math.ceil(wide / pitch - _ROUND))
    linear = to_plane.linear
    return _PixelLine(ends[0], ends[1], u @ linear, v @ linear, length, wide, lines)


def read_profile(
    image: core.Micrograph,
    line: tuple[float, float, float, float],
    *,
    width_px: float = 1.0,
    to_plane: core.Affine | None = None,
    width: float | None = None,
    reader: LineReader | None = None,
) -> Profile:
    """Read the grey levels along a line, loading only the chunks that it crosses.

    Parameters
    ----------
    image : Micrograph
        The image.
    line : tuple of float
        ``(y0, x0, y1, x1)`` in the plane: in pixels of the image without a map.
    width_px : float, default=1
        Width of the band in pixels.
    to_plane : Affine, optional
        Map from pixels of the image to the plane, whose unit is nm for a calibrated
        image.
    width : float, optional
        Width of the band in the plane, instead of `width_px`.
    reader : LineReader, optional
        Reader of this image, which caches the chunks of previous lines.
    """
    ends = np.array(line, dtype=float).reshape(2, 2)
    if to_plane is None:
        scale = np.diag(image.scale if image.pixel_size_nm is not None else (1.0, 1.0))
        to_plane = core.Affine.from_matrix(scale, np.zeros(2))
        ends = to_plane(ends)
    course = _map_to_pixels(ends, to_plane, width, width_px)
    # samples of a band; chosen: they take about 2 GB
    most = max(1, int((1 << 24) / (course.length_px + 1)))
    if course.lines > most:  # it would need too much memory
        msg = (
            f"A band of {course.length_px:.0f} px length must be at most {most} px "
            f"wide, got {course.lines}; use a narrower band or a shorter line."
        )
        raise core.OptionError(msg, code="out-of-range")
    band = _LineBand.from_reader(course, reader or LineReader(image.data))
    share, places = course.get_samples()
    curve = band.average(places)
    at, value = band.get_pixels(course)
    if not np.isfinite(curve).any() and not value.size:
        ends = np.stack([course.start, course.end])
        off = (ends < -_INSIDE) | (ends > np.array(image.shape) - _INSIDE)
        is_outside = bool(off.all(axis=0).any())
        where = "outside it" if is_outside else "without a finite grey value"
        msg = f"The line must cross pixels of {image.name}, but is {where}"
        raise core.ShapeError(
            f"{msg}; draw the line over the structure.",
            code="outside-image" if is_outside else "no-finite-values",
        )
    per_px = course.length / course.length_px
    has_size = image.pixel_size_nm is not None
    error = core.compute_length_error(image, course.vector * image.scale)
    return Profile(
        share * course.length_px,
        curve,
        per_px,
        has_size,
        error if has_size else 0.0,
        course.lines,
        at / per_px,
        value,
        math.hypot(*course.along) / per_px / math.sqrt(12),
        np.dtype(image.dtype),
        image.significant_bits,
    )


def check_line_bounds(
    image: core.Micrograph, line: tuple[float, float, float, float]
) -> None:
    """Raise an error if a line ``(y0, x0, y1, x1)`` in px extends beyond its image."""
    rows, columns = image.shape
    for y, x in (line[:2], line[2:]):
        if not (-_INSIDE <= y <= rows - _INSIDE and -_INSIDE <= x <= columns - _INSIDE):
            msg = (
                f"Both end points of the line must be inside {image.name}, from 0,0 to "
                f"{rows - 1},{columns - 1}, got {y:g},{x:g}; coordinates are y,x in px."
            )
            raise core.OptionError(msg, code="outside-image")


@dataclass(frozen=True, slots=True, eq=False)
class _LineBand:
    """Pixels in the band around a line, row by row along its main axis."""

    major: int  # that axis
    first: int  # its first pixel
    base: NDArray[np.int64]  # (M,) first pixel of each row
    values: core.FloatArray  # (M, W)

    @classmethod
    def from_reader(cls, course: _PixelLine, reader: LineReader) -> "_LineBand":
        major = int(np.argmax(np.abs(course.vector)))
        minor = 1 - major
        _, places = course.get_samples()
        low, high = (f(places[major][[0, -1]]) for f in (np.min, np.max))
        first, last = math.floor(low) - 1, math.floor(high) + 2
        # only pixels near the field: the rest is missing
        first = max(first, -2)
        last = max(first, min(last, reader.shape[major] + 1))
        rows = np.arange(first, last + 1)
        slopes = np.abs(course.across)
        # pixels next to a sample are this much further out
        reach = (course.width / 2 + slopes.sum()) / slopes[minor]
        slope = course.across[major] / course.across[minor]
        middle = course.start[minor] - (rows - course.start[major]) * slope
        base = np.ceil(middle - reach - _ROUND).astype(np.int64)
        columns = base[:, None] + np.arange(math.floor(2 * reach) + 2)
        grid = [columns, columns]
        grid[major] = np.broadcast_to(rows[:, None], columns.shape)
        values = reader.read_pixels(grid[0], grid[1])
        values[~np.isfinite(values)] = np.nan
        return cls(major, first, base, values)

    def average(self, places: core.FloatArray) -> core.FloatArray:
        """Interpolate at positions (2, K, lines) and average over the lines (K,)."""
        at, to = places[self.major], places[1 - self.major]
        row, column = (np.floor(i + _ROUND).astype(np.int64) for i in (at, to))
        down, right = np.maximum(at - row, 0), np.maximum(to - column, 0)
        total, missing = np.zeros(at.shape), np.zeros(at.shape)
        rows, columns = self.values.shape
        for step, side_step in np.ndindex(2, 2):
            line = row + step - self.first
            inside = (line >= 0) & (line < rows)
            line = np.clip(line, 0, rows - 1)
            place = column + side_step - self.base[line]
            inside &= (place >= 0) & (place < columns)
            value = self.values[line, np.clip(place, 0, columns - 1)]
            value = np.where(inside, value, np.nan)  # outside the band
            weight = np.abs(1 - step - down) * np.abs(1 - side_step - right)
            finite = np.isfinite(value)
            total += np.where(finite, value, 0) * weight
            missing += np.where(finite, 0, weight)
        enough = missing < _WHOLE
        total = np.where(enough, total / (1 - np.minimum(missing, _WHOLE)), 0)
        count = enough.sum(axis=1)
        mean = np.full(len(count), np.nan)
        np.divide(total.sum(axis=1), count, out=mean, where=count > 0)
        return mean

    def get_pixels(self, course: _PixelLine) -> tuple[core.FloatArray, core.FloatArray]:
        """Return pixel positions along the line, and the grey values."""
        rows, columns = self.values.shape
        grid = np.empty((2, rows, columns))
        grid[self.major] = (self.first + np.arange(rows))[:, None]
        grid[1 - self.major] = self.base[:, None] + np.arange(columns)
        grid -= course.start[:, None, None]
        along = np.tensordot(course.along, grid, 1)
        across = np.tensordot(course.across, grid, 1)
        pitch = math.hypot(*course.across)
        half = max(course.width, pitch) / 2 + _ROUND * pitch
        middle = course.length / 2
        inside = np.abs(along - middle) <= middle * (1 + _ROUND)
        inside &= (np.abs(across) <= half) & np.isfinite(self.values)
        return along[inside], self.values[inside]
