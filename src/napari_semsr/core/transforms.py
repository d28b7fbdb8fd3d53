"""Plane transforms that map a point in one image to the same point in another.

Positions are points ``(y, x)`` in one unit for both images (nanometres for calibrated
ones); the centre of pixel (0, 0) is at the origin of its image. A transform is a
function of an array of positions (..., 2); `inverse` inverts it, `then` composes two.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import scipy  # its parts are imported at first use
from numpy.typing import NDArray

from napari_semsr.core import grids
from napari_semsr.core.errors import OptionError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.types import BoolArray, FloatArray, FloatPair, RealArray

_ROUNDS = 60  # of Newton's method, each checked; chosen: three to six are usual
_CLOSE = 1e-7  # of the knots' spacing; chosen: tolerance of an inverse
_NUDGE = 1e-4  # of the knots' spacing; chosen: step of a finite difference
_SHORTEST = 1 / 64  # fraction of a Newton step at which halving stops; chosen
_PER_KNOT = 4  # samples between knots in the search for folds; chosen
_FLAT = 1e-12  # of the squared scale; chosen: determinant of a singular matrix
_ALIKE = 1e-9  # relative; chosen: equal scales up to rounding

_F = TypeVar("_F", bound=np.floating)
_FOLD_MESSAGE = "The elastic transform folds, without inverse: increase its stiffness."


class Transform(Protocol):
    """Transform that maps positions."""

    def __call__(self, places: FloatArray) -> FloatArray:
        """Map positions (..., 2)."""

    def inverse(self) -> "Transform":
        """Return the inverse transform."""


@dataclass(frozen=True, slots=True)
class Affine:
    """Linear map and shift: rotation, scaling, reflection and shear."""

    # rows of the linear part: the mapped ``y`` and ``x``
    matrix: tuple[FloatPair, FloatPair] = ((1.0, 0.0), (0.0, 1.0))
    shift: FloatPair = (0.0, 0.0)  # ``(y, x)`` that is added after it

    def __post_init__(self) -> None:
        scale = np.abs(self.matrix).max()
        if not np.isfinite([*self.matrix, self.shift]).all() or (
            abs(self.determinant) <= _FLAT * scale**2
        ):
            got = f"matrix {self.matrix} and shift {self.shift}"
            msg = f"A transform must be finite and invertible, got {got}."
            raise OptionError(msg, code="transform-invalid")

    @classmethod
    def from_matrix(cls, linear: RealArray, shift: RealArray) -> Self:
        """Create a transform from a matrix (2, 2) and a subsequent shift (2,)."""
        (a, b), (c, d) = np.asarray(linear, dtype=float).tolist()
        y, x = np.asarray(shift, dtype=float).tolist()
        return cls(((a, b), (c, d)), (y, x))

    @classmethod
    def create_similarity(
        cls,
        degrees: float = 0.0,
        *,
        scale: float = 1.0,
        is_mirrored: bool = False,
        shift: FloatPair = (0.0, 0.0),
        about: FloatPair = (0.0, 0.0),
    ) -> Self:
        """Create a similarity: reflect, rotate and scale about a point, then shift.

        Degrees are from the x axis towards the y axis, clockwise on screen;
        `is_mirrored` swaps left and right first; points are ``(y, x)``.
        """
        sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
        linear = scale * np.array([[cosine, sine], [-sine, cosine]])
        if is_mirrored:
            linear = linear @ np.diag([1.0, -1.0])
        at = np.asarray(about, dtype=float)
        return cls.from_matrix(linear, at + shift - linear @ at)

    @property
    def linear(self) -> FloatArray:
        """Matrix (2, 2) of the linear part."""
        return np.array(self.matrix)

    @property
    def determinant(self) -> float:
        """Determinant of the matrix: area ratio, negative for a mirrored image."""
        (a, b), (c, d) = self.matrix
        return a * d - b * c

    @property
    def scale(self) -> float:
        """Mean magnification: square root of the area ratio."""
        return math.sqrt(abs(self.determinant))

    @property
    def degrees(self) -> float:
        """Rotation of the nearest similarity, from the x axis towards the y axis."""
        linear = self.linear @ np.diag([1.0, -1.0 if self.is_mirrored else 1.0])
        (a, b), (c, d) = linear
        return math.degrees(math.atan2(b - c, a + d))

    @property
    def is_mirrored(self) -> bool:
        """Whether the transform swaps left and right."""
        return self.determinant < 0

    @property
    def is_similarity(self) -> bool:
        """Whether the transform preserves shapes: uniform scale without shear."""
        low, high = np.sort(np.linalg.svd(self.linear, compute_uv=False))
        return bool(high - low <= _ALIKE * high)

    def __call__(self, places: FloatArray) -> FloatArray:
        """Map positions (..., 2)."""
        return np.asarray(np.asarray(places) @ self.linear.T + self.shift)

    def inverse(self) -> Self:
        """Return the inverse transform."""
        back = np.linalg.inv(self.linear)
        return self.from_matrix(back, -back @ self.shift)

    def compose(self, other: "Affine") -> "Affine":
        """Return the composition of this transform followed by another."""
        linear = other.linear @ self.linear
        return Affine.from_matrix(linear, other(np.asarray(self.shift)))


@dataclass(frozen=True, eq=False)
class BSplineDisplacement:
    """Smooth displacement: a uniform cubic B-spline on a grid of knots.

    Outside the grid the displacement is that of the grid's border.
    """

    origin: FloatPair  # ``(y, x)`` of knot (0, 0)
    spacing: FloatPair  # ``(y, x)`` from knot to knot
    # (2, Y, X) of the displacement along y and x; two knots or more on each axis
    coefficients: FloatArray

    def __post_init__(self) -> None:
        shape, is_finite = self.coefficients.shape, np.isfinite(self.coefficients).all()
        if len(shape) != 3 or shape[0] != 2 or min(shape) < 2 or not is_finite:
            what = "An elastic transform needs finite coefficients (2, Y, X)"
            msg = f"{what} of 2+ knots on each axis, got shape {shape}."
            raise OptionError(msg, code="transform-invalid")
        lengths = [*self.origin, *self.spacing]
        if not (min(self.spacing) > 0 and np.isfinite(lengths).all()):
            msg = f"The knot spacing must be positive, got {self.spacing}"
            raise OptionError(f"{msg} from {self.origin}.", code="transform-invalid")

    def displacement(self, places: FloatArray) -> FloatArray:
        """Return the displacement (..., 2) at positions."""
        at = (np.asarray(places, dtype=float) - self.origin) / self.spacing
        at = np.clip(at, 0, np.array(self.coefficients.shape[1:]) - 1)  # to the grid
        at = at.reshape(-1, 2).T
        # without prefilter: the coefficients are those of the spline itself
        moves = [
            scipy.ndimage.map_coordinates(plane, at, mode="mirror", prefilter=False)
            for plane in self.coefficients
        ]
        return np.stack(moves, axis=-1).reshape(np.shape(places))

    def min_jacobian(self) -> float:
        """Return the minimum Jacobian determinant; 0 or less if the transform folds."""
        rows, columns = (
            np.linspace(0, n - 1, (n - 1) * _PER_KNOT + 1)
            for n in self.coefficients.shape[1:]
        )
        places = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
        places = places * self.spacing
        moved = places + self.displacement(places + self.origin)
        down = np.diff(moved, axis=0)[:, :-1] * _PER_KNOT / self.spacing[0]
        across = np.diff(moved, axis=1)[:-1] * _PER_KNOT / self.spacing[1]
        areas = down[..., 0] * across[..., 1] - down[..., 1] * across[..., 0]
        return float(areas.min())

    def __call__(self, places: FloatArray) -> FloatArray:
        """Map positions (..., 2)."""
        return np.asarray(places) + self.displacement(places)

    def apply_inverse(self, places: FloatArray) -> FloatArray:
        """Return the positions (..., 2) that map to the given positions.

        Raises `OptionError` if the displacement folds.
        """
        targets = np.asarray(places, dtype=float).reshape(-1, 2)
        sources, left = targets.copy(), np.arange(len(targets))
        if self.has_folds:
            raise OptionError(_FOLD_MESSAGE, code="transform-folds")
        for _ in range(_ROUNDS):
            miss = targets[left] - self(sources[left])
            far = (np.abs(miss) > _CLOSE * np.array(self.spacing)).any(axis=-1)
            left, miss = left[far], miss[far]
            if not left.size:
                return sources.reshape(np.shape(places))
            sources[left] = self._newton_step(targets[left], sources[left], miss)
        raise OptionError(_FOLD_MESSAGE, code="transform-folds")

    @cached_property
    def has_folds(self) -> bool:
        """Whether the displacement folds, so that it has no inverse."""
        return self.min_jacobian() <= 0

    def _newton_step(
        self, targets: FloatArray, sources: FloatArray, miss: FloatArray
    ) -> FloatArray:
        """Take a Newton step (N, 2), halved while the error grows."""
        slopes = np.empty((len(sources), 2, 2))
        for axis, step in enumerate(_NUDGE * np.diag(self.spacing)):
            ahead, behind = self(sources + step), self(sources - step)
            slopes[:, :, axis] = (ahead - behind) / (2 * step[axis])
        steps = np.linalg.solve(slopes, miss[..., None])[..., 0]
        nearer, share = sources + steps, np.ones(len(sources))
        before = np.hypot(*(miss / self.spacing).T)
        while True:
            after = np.hypot(*((targets - self(nearer)) / self.spacing).T)
            worse = (after > before) & (share > _SHORTEST)
            if not worse.any():
                return nearer
            share[worse] /= 2
            nearer = sources + share[:, None] * steps


@dataclass(frozen=True, eq=False)
class Elastic:
    """Affine transform followed by a smooth displacement."""

    affine: Affine  # from the moving image to the fixed one
    bending: BSplineDisplacement  # in the plane of the fixed image

    def __call__(self, places: FloatArray) -> FloatArray:
        """Map positions (..., 2)."""
        return self.bending(self.affine(places))

    def inverse(self) -> "InverseElastic":
        """Return the inverse transform."""
        return InverseElastic(self)


@dataclass(frozen=True, eq=False)
class InverseElastic:
    """Inverse of an elastic transform."""

    forward: Elastic

    def __call__(self, places: FloatArray) -> FloatArray:
        """Map positions (..., 2)."""
        return self.forward.affine.inverse()(self.forward.bending.apply_inverse(places))

    def inverse(self) -> Elastic:
        """Return the inverse transform."""
        return self.forward


# An image resampled by a transform to another grid, read part by part.
#
# A pixel of the grid is mapped back into the image and interpolated there by the cubic
# spline through its pixels [1]_. If the image has frequencies beyond those of the grid,
# since it is reduced, or rotated so that the corners of its spectrum would alias, it is
# first filtered by a disc in the frequencies of the grid, up to the Nyquist frequency
# of its axes. So resolution is preserved to 2 %, of which splines alone, even of order
# five, lose up to 7 % (measured by FRC against a known truth, five seeds).
#
# A smooth displacement is inverted on a lattice of a few pixels' pitch and interpolated
# in between by a cubic spline of neighbouring values, so that a pixel does not depend
# on the part that is computed.
#
# .. [1] M. Unser, IEEE Signal Process. Mag. 16, 22 (1999), doi:10.1109/79.799930.

# The spline's prefilter falls by 0.27 from pixel to pixel: below 1e-9 here.
_MARGIN = 16
# pixels; error 0.001 px for 3 px of displacement between knots 125 px apart
_LATTICE = 8
_REACH = 0.55  # cycles per pixel of the grid; up to here 2 % of the resolution are lost
_RADIUS = 8  # of the filter, in pixels of the grid: aliasing is below 1 % there
_KAISER = 5.0  # parameter of its window; chosen: side lobes of 1 %
# chosen: from this reduction on the image is resampled first, which is cheaper,
_COARSER = 2.0
_OVERSAMPLING = 1.5  # to this many pixels per pixel of the grid, for the filter; chosen
_STEP_PARTS = 1000  # precision of the steps of that filter; chosen
_GAP = 1e-3  # as in `core.grids`; chosen
_PART = 1024  # pixels along each side of a part computed at once; chosen: 0.1 GB


@dataclass(frozen=True)
class WarpedImage:
    """Image resampled to a grid through a transform."""

    image: Micrograph
    grid: grids.Grid  # in the plane to which the transform maps
    # from the plane of the image, in its unit, to that of the grid
    transform: Transform

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Data type of the grey values; pixels outside the image are NaN."""
        return grids.get_interpolation_dtype(self.image.dtype)

    @cached_property
    def _sampling_step(self) -> FloatArray:
        """Image pixels per grid row and grid column, (2, 2)."""
        rows, columns = self.grid.shape
        border = np.array([-0.5, rows - 0.5]), np.array([-0.5, columns - 0.5])
        corners = self._map_to_image(*border)
        down = (corners[:, 1] - corners[:, 0]).mean(axis=1) / rows
        across = (corners[:, :, 1] - corners[:, :, 0]).mean(axis=1) / columns
        return np.stack([down, across], axis=1)

    @cached_property
    def _resampling(self) -> grids.Resampling:
        """Resampling of the image to a pixel size near that of the grid."""
        steps = []
        for step in np.hypot(*self._sampling_step.T).tolist():
            part = Fraction(step / _OVERSAMPLING).limit_denominator(_STEP_PARTS)
            steps.append(part if step > _COARSER else Fraction(1))
        return grids.Resampling(self.image.shape, (steps[0], steps[1]))

    @cached_property
    def _kernel(self) -> FloatArray | None:
        """Filter (odd-sized) for the resampled image; None if not needed."""
        resampling_steps = np.array([float(step) for step in self._resampling.steps])
        step = self._sampling_step / resampling_steps[:, None]
        corners = step.T @ np.array([[0.5, 0.5], [0.5, -0.5]])
        if np.abs(corners).max() <= _REACH:
            return None
        radius = math.ceil(_RADIUS * np.hypot(*step.T).max())
        offsets = np.arange(-radius, radius + 1)
        places = np.stack(np.meshgrid(offsets, offsets, indexing="ij"), axis=-1)
        away = np.hypot(*np.moveaxis(places @ np.linalg.inv(step).T, -1, 0))
        away[radius, radius] = np.finfo(np.float32).tiny
        window = np.i0(_KAISER * np.sqrt(np.maximum(1 - (away / _RADIUS) ** 2, 0)))
        jinc = scipy.special.j1(np.pi * away) / away
        weights = np.where(away < _RADIUS, jinc * window, 0)
        return np.asarray(weights / weights.sum())

    def read(self, box: grids.Box | None = None) -> NDArray[Any]:
        """Compute the pixels of a box of the grid, by default of the whole grid."""
        box = box or grids.Box.from_shape(self.grid.shape)
        result = np.empty(box.shape, dtype=self.dtype)
        # pixels of a coarse grid cover more of the image
        side = max(_LATTICE, int(_PART / max(1.0, *np.hypot(*self._sampling_step.T))))
        for y in range(box.y0, box.y1, side):
            for x in range(box.x0, box.x1, side):
                part = grids.Box(y, min(y + side, box.y1), x, min(x + side, box.x1))
                result[part.relative_to(box).slices] = self._compute_box(part)
        return result

    def _compute_box(self, box: grids.Box) -> RealArray:
        """Compute the pixels of a box that fits into memory."""
        places = self._pixel_centres(box)  # (2, Y, X) in pixels of the image
        size = np.array(self.image.shape)[:, None, None]
        inside = np.logical_and(*((places >= -0.5) & (places <= size - 0.5)))
        result = np.full(box.shape, np.nan, dtype=self.dtype)
        if not inside.any():
            return result
        steps = np.array([float(step) for step in self._resampling.steps])[:, None]
        at = (places[:, inside] + 0.5) / steps - 0.5
        # the box of the resampled image that interpolation needs
        margin = _MARGIN + (0 if self._kernel is None else len(self._kernel) // 2)
        low = np.floor(at.min(axis=1)).astype(int) - margin
        high = np.ceil(at.max(axis=1)).astype(int) + margin + 1
        around = grids.Box(int(low[0]), int(high[0]), int(low[1]), int(high[1]))
        part = around.intersection(grids.Box.from_shape(self._resampling.shape))
        at -= np.array(part.corner, dtype=float)[:, None]
        block = self._read_block(part)
        finite = np.isfinite(block)
        if finite.all():
            result[inside] = self._interpolate(block, at)
        elif finite.any():
            values = self._interpolate(fill_gaps(block, finite), at)
            gaps = scipy.ndimage.map_coordinates((~finite).astype(float), at, order=1)
            result[inside] = np.where(gaps > _GAP, np.nan, values)
        return result

    def _interpolate(self, block: FloatArray, at: FloatArray) -> FloatArray:
        """Interpolate pixels with a spline at positions (2, N), returning (N,)."""
        if self._kernel is not None:
            fft = scipy.fft
            # with mirrored borders, as for the spline
            width = len(self._kernel) - 1
            wide = np.pad(block, width // 2, mode="reflect")
            sides = [fft.next_fast_len(n, real=True) for n in wide.shape]
            spectrum = fft.rfft2(wide, sides) * fft.rfft2(self._kernel, sides)
            rows, columns = wide.shape
            block = fft.irfft2(spectrum, sides)[width:rows, width:columns]
        return np.asarray(scipy.ndimage.map_coordinates(block, at, mode="mirror"))

    def _read_block(self, part: grids.Box) -> FloatArray:
        """Return grey values of a box of the resampled image; NaN next to gaps."""
        resampling = self._resampling
        if max(resampling.steps) == 1:
            return np.asarray(grids.read_box(self.image.data, part), dtype=np.float64)
        place = resampling.source_region(part)
        block = np.asarray(grids.read_box(self.image.data, place), dtype=np.float64)
        finite = np.isfinite(block)
        if finite.all():
            return resampling.resample(block, place, part)
        if not finite.any():
            return np.full(part.shape, np.nan)
        values = resampling.resample(fill_gaps(block, finite), place, part)
        gaps = resampling.resample((~finite).astype(np.float64), place, part)
        values[np.abs(gaps) > _GAP] = np.nan
        return values

    def _pixel_centres(self, box: grids.Box) -> FloatArray:
        """Return the centres of grid pixels (2, Y, X) in image pixels."""
        spans = (box.y0, box.y1), (box.x0, box.x1)
        if isinstance(self.transform, Affine):
            return self._map_to_image(*(np.arange(*span) for span in spans))
        rows, columns = (
            np.arange(start // _LATTICE - 2, -(-stop // _LATTICE) + 3)
            for start, stop in spans
        )
        lattice_places = self._map_to_image(rows * _LATTICE, columns * _LATTICE)
        down, across = (
            _weights(np.arange(*span) / _LATTICE - nodes[0], nodes.size)
            for span, nodes in zip(spans, (rows, columns), strict=True)
        )
        planes, correlate = [], scipy.ndimage.correlate1d
        for values in lattice_places:
            plane = values
            for axis in (0, 1):
                # the first two terms of the spline's prefilter: exact for cubic
                # polynomials
                plane = plane - correlate(plane, [1, -2, 1], axis, mode="nearest") / 6
            planes.append(down @ plane @ across.T)
        return np.stack(planes)

    def _map_to_image(self, rows: RealArray, columns: RealArray) -> FloatArray:
        """Map grid rows and columns back to image pixels."""
        # axis by axis: loops over pairs of coordinates are several times slower
        (y, x), (down, across) = self.grid.corner, self.grid.pitch
        axes = y + (rows + 0.5) * down, x + (columns + 0.5) * across
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        places = np.moveaxis(self.transform.inverse()(grid), -1, 0)
        origin, scale = self.image.origin, self.image.scale
        return np.stack([(places[k] - origin[k]) / scale[k] for k in range(2)])


def fill_gaps(plane: NDArray[_F], finite: BoolArray) -> NDArray[_F]:
    """Fill gaps with the nearest values to avoid ringing around them.

    At least one pixel must be `finite`, (Y, X).
    """
    how = {"return_distances": False, "return_indices": True}
    nearest = scipy.ndimage.distance_transform_edt(~finite, **how)
    filled: NDArray[_F] = plane[tuple(nearest)]
    return filled


def _weights(at: FloatArray, nodes: int) -> FloatArray:
    """Return the values (N, nodes) of all nodes' cubic B-splines at axis positions."""
    distance = np.abs(at[:, None] - np.arange(nodes))
    near = 2 / 3 - distance**2 * (1 - distance / 2)
    far = np.maximum(2 - distance, 0) ** 3 / 6
    return np.where(distance < 1, near, far)
