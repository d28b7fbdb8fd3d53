"""Maps of the plane: from a place in one image to the same place in another.

Places are ``(y, x)``, in one unit for both images (nanometres for calibrated ones), and
images begin at their origins. A map is a function of an array of places (..., 2); maps
are inverted by `inverse` and chained by `then`.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.core.errors import OptionError
from napari_semsr.core.types import FloatArray, FloatPair

_ROUNDS = 60  # of Newton's method, each checked; chosen: three to six are usual
_CLOSE = 1e-7  # of the knots' spacing; chosen: an inverse is found
_NUDGE = 1e-4  # of the knots' spacing; chosen: over which a slope is taken
_SHORTEST = 1 / 64  # of a step of Newton's method that still has to help; chosen
_FLAT = 1e-12  # of the squared scale; chosen: a matrix that maps the plane to a line
_ALIKE = 1e-9  # relative; chosen: two scales, or a right angle, but for rounding

_FOLDED = "A bending that folds cannot be inverted; use a stiffer one."


class Transform(Protocol):
    """A map of places."""

    def __call__(self, places: FloatArray) -> FloatArray:
        """Map places (..., 2)."""
        ...

    def inverse(self) -> "Transform":
        """Map back."""
        ...


@dataclass(frozen=True, slots=True)
class Affine:
    """A linear map and a shift: turn, scale, mirror, shear.

    Attributes
    ----------
    matrix : tuple of tuple of float
        Rows of the linear part: the mapped ``y`` and ``x``.
    shift : tuple of float
        ``(y, x)`` that is added after it.
    """

    matrix: tuple[FloatPair, FloatPair] = ((1.0, 0.0), (0.0, 1.0))
    shift: FloatPair = (0.0, 0.0)

    def __post_init__(self) -> None:
        scale = np.abs(self.matrix).max()
        if not np.isfinite([*self.matrix, self.shift]).all() or (
            abs(self.determinant) <= _FLAT * scale**2
        ):
            msg = "A transform must be finite and not press the plane to a line, got"
            raise OptionError(f"{msg} matrix {self.matrix} and shift {self.shift}.")

    @classmethod
    def of(cls, linear: NDArray[Any], shift: NDArray[Any]) -> Self:
        """Make a map of a linear part (2, 2) and a shift (2,) that follows it."""
        (a, b), (c, d) = np.asarray(linear, dtype=float).tolist()
        y, x = np.asarray(shift, dtype=float).tolist()
        return cls(((a, b), (c, d)), (y, x))

    @classmethod
    def turned(
        cls,
        degrees: float = 0.0,
        *,
        scale: float = 1.0,
        mirrored: bool = False,
        shift: FloatPair = (0.0, 0.0),
        about: FloatPair = (0.0, 0.0),
    ) -> Self:
        """Make a similarity: mirror, turn and scale about a place, then shift.

        Degrees run from the x axis towards the y axis, clockwise as images are shown;
        `mirrored` swaps left and right first; places are ``(y, x)``.
        """
        sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
        linear = scale * np.array([[cosine, sine], [-sine, cosine]])
        if mirrored:
            linear = linear @ np.diag([1.0, -1.0])
        at = np.asarray(about, dtype=float)
        return cls.of(linear, at + shift - linear @ at)

    @property
    def linear(self) -> FloatArray:
        """The (2, 2) matrix."""
        return np.array(self.matrix)

    @property
    def determinant(self) -> float:
        """Area after the map over the area before; negative for a mirrored image."""
        (a, b), (c, d) = self.matrix
        return a * d - b * c

    @property
    def scale(self) -> float:
        """Mean magnification: the root of the change in area."""
        return math.sqrt(abs(self.determinant))

    @property
    def degrees(self) -> float:
        """Turn from the x axis towards the y axis, of the nearest similarity."""
        linear = self.linear @ np.diag([1.0, -1.0 if self.is_mirrored else 1.0])
        return math.degrees(
            math.atan2(linear[0, 1] - linear[1, 0], linear[0, 0] + linear[1, 1])
        )

    @property
    def is_mirrored(self) -> bool:
        """Whether left and right are swapped."""
        return self.determinant < 0

    @property
    def is_similarity(self) -> bool:
        """Whether shapes are kept: one scale, no shear."""
        low, high = np.sort(np.linalg.svd(self.linear, compute_uv=False))
        return bool(high - low <= _ALIKE * high)

    def __call__(self, places: FloatArray) -> FloatArray:
        """Map places (..., 2)."""
        mapped: FloatArray = np.asarray(places) @ self.linear.T + self.shift
        return mapped

    def inverse(self) -> Self:
        """Map back."""
        back = np.linalg.inv(self.linear)
        return self.of(back, -back @ self.shift)

    def then(self, other: "Affine") -> "Affine":
        """Chain two maps to one, the other after this."""
        linear = other.linear @ self.linear
        return Affine.of(linear, other(np.asarray(self.shift)))


@dataclass(frozen=True, eq=False)
class Bending:
    """A smooth displacement: a uniform cubic B-spline on a grid of knots.

    Beyond the grid the displacement is that of the grid's border.

    Attributes
    ----------
    origin : tuple of float
        ``(y, x)`` of knot (0, 0).
    spacing : tuple of float
        ``(y, x)`` from knot to knot.
    coefficients : (2, Y, X) numpy.ndarray
        Of the displacement along y and x; two knots or more on each axis.
    """

    origin: FloatPair
    spacing: FloatPair
    coefficients: FloatArray

    def __post_init__(self) -> None:
        shape, known = self.coefficients.shape, np.isfinite(self.coefficients).all()
        if len(shape) != 3 or shape[0] != 2 or min(shape) < 2 or not known:
            msg = "A bending needs finite coefficients (2, Y, X) of two knots or more"
            raise OptionError(f"{msg} on each axis, got shape {shape}.")
        lengths = [*self.origin, *self.spacing]
        if not (min(self.spacing) > 0 and np.isfinite(lengths).all()):
            msg = f"Knots of a bending lie apart, got a spacing of {self.spacing}"
            raise OptionError(f"{msg} from {self.origin}.")

    def knots(self, places: FloatArray) -> FloatArray:
        """Count places (..., 2) in knots, kept inside the grid."""
        at = (np.asarray(places, dtype=float) - self.origin) / self.spacing
        return np.clip(at, 0, np.array(self.coefficients.shape[1:]) - 1)

    def displacement(self, places: FloatArray) -> FloatArray:
        """Find by how much places (..., 2) are moved."""
        at = self.knots(places).reshape(-1, 2).T
        # order 3 without prefilter: the coefficients are those of the spline itself
        moves = [
            ndimage.map_coordinates(plane, at, order=3, mode="mirror", prefilter=False)
            for plane in self.coefficients
        ]
        return np.stack(moves, axis=-1).reshape(np.shape(places))

    def least_area(self, per_knot: int = 4) -> float:
        """Find the least local change of area; 0 or less where the map folds.

        So many places are looked at from knot to knot.
        """
        rows, columns = (
            np.linspace(0, n - 1, (n - 1) * per_knot + 1)
            for n in self.coefficients.shape[1:]
        )
        places = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
        moved = places * self.spacing + self.displacement(
            places * self.spacing + self.origin
        )
        down = np.diff(moved, axis=0)[:, :-1] * per_knot / self.spacing[0]
        across = np.diff(moved, axis=1)[:-1] * per_knot / self.spacing[1]
        areas = down[..., 0] * across[..., 1] - down[..., 1] * across[..., 0]
        return float(areas.min())

    def __call__(self, places: FloatArray) -> FloatArray:
        """Map places (..., 2)."""
        bent: FloatArray = np.asarray(places) + self.displacement(places)
        return bent

    def back(self, places: FloatArray) -> FloatArray:
        """Find the places (..., 2) that are mapped to these.

        An `OptionError` if the bending folds.
        """
        wanted = np.asarray(places, dtype=float).reshape(-1, 2)
        found, left = wanted.copy(), np.arange(len(wanted))
        if self.folds:
            raise OptionError(_FOLDED)
        for _ in range(_ROUNDS):
            miss = wanted[left] - self(found[left])
            far = (np.abs(miss) > _CLOSE * np.array(self.spacing)).any(axis=-1)
            left, miss = left[far], miss[far]
            if not left.size:
                return found.reshape(np.shape(places))
            found[left] = self._nearer(wanted[left], found[left], miss)
        raise OptionError(_FOLDED)

    @cached_property
    def folds(self) -> bool:
        """Whether two places are mapped to one, so that there is no way back."""
        return self.least_area() <= 0

    def _nearer(
        self, wanted: FloatArray, found: FloatArray, miss: FloatArray
    ) -> FloatArray:
        """Take a step of Newton's method (N, 2), shortened where it does not help."""
        slopes = np.empty((len(found), 2, 2))
        for axis, step in enumerate(_NUDGE * np.diag(self.spacing)):
            ahead, behind = self(found + step), self(found - step)
            slopes[:, :, axis] = (ahead - behind) / (2 * step[axis])
        steps = np.linalg.solve(slopes, miss[..., None])[..., 0]
        reached, share = found + steps, np.ones(len(found))
        before = np.hypot(*(miss / self.spacing).T)
        while True:
            after = np.hypot(*((wanted - self(reached)) / self.spacing).T)
            worse = (after > before) & (share > _SHORTEST)
            if not worse.any():
                return reached
            share[worse] /= 2
            reached = found + share[:, None] * steps


@dataclass(frozen=True, eq=False)
class Elastic:
    """An affine map and a bending after it.

    Attributes
    ----------
    affine : Affine
        From the moving image to the fixed one.
    bending : Bending
        In the plane of the fixed image.
    """

    affine: Affine
    bending: Bending

    def __call__(self, places: FloatArray) -> FloatArray:
        """Map places (..., 2)."""
        return self.bending(self.affine(places))

    def inverse(self) -> "Inverted":
        """Map back."""
        return Inverted(self)


@dataclass(frozen=True, eq=False)
class Inverted:
    """An elastic map, backwards."""

    forward: Elastic

    def __call__(self, places: FloatArray) -> FloatArray:
        """Map places (..., 2)."""
        return self.forward.affine.inverse()(self.forward.bending.back(places))

    def inverse(self) -> Elastic:
        """Map back."""
        return self.forward


@dataclass(frozen=True, slots=True)
class Chain:
    """Maps one after another, the first first."""

    parts: tuple[Transform, ...]

    def __call__(self, places: FloatArray) -> FloatArray:
        """Map places (..., 2)."""
        for part in self.parts:
            places = part(places)
        return places

    def inverse(self) -> "Chain":
        """Map back."""
        return Chain(tuple(part.inverse() for part in reversed(self.parts)))
