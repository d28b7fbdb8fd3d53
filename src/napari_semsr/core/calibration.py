"""Calibration from a grating or printed scale bar, and length uncertainties."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, PositiveInt

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.options import Options
from napari_semsr.core.quantities import Figure, Quantity, declare_quantity
from napari_semsr.core.types import FloatArray, FloatPair, IntPair


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibration of a microscope from an image of a grating."""

    # ``(y, x)`` and standard deviation, at the centre of the field. Lines determine
    # it only across them: pixels are then assumed to be square.
    pixel_size_nm: Annotated[FloatPair, declare_quantity("Pixel size", "nm", ".6g")]
    pixel_size_sd_nm: FloatPair
    # departure of the axes from a right angle in degrees; None for lines
    skew: Annotated[float | None, Quantity("Skew", "degrees", ".3g", sd="skew_sd")]
    skew_sd: float | None
    # displacement at the rim over its radius, as in `simulate` and `stitch`
    distortion: Annotated[float, declare_quantity("Distortion", sd="distortion_sd")]
    distortion_sd: float
    # direction of the first wave vector, from x towards y
    rotation_deg: Annotated[float, declare_quantity("Rotation", "°")]
    lattice: Annotated[
        Literal["lines", "square", "hexagonal"], declare_quantity("Lattice")
    ]
    pitch_nm: Annotated[float, declare_quantity("Pitch", "nm")]  # as stated
    periods: Annotated[float, declare_quantity("Periods")]  # across the shorter side
    # RMS distance of the grating's phases from the fit
    residual_nm: Annotated[float, Quantity("Residual", "nm RMS", ".3g")]
    shape: IntPair  # rows and columns of the image whose rim `distortion` refers to
    # centre of the distortion relative to the centre of the image, ``(y, x)``, if it
    # is significant; pixel size and skew then refer to that centre
    centre_px: FloatPair | None = None
    centre_sd_px: FloatPair | None = None
    # displacement at the rim by second-order terms that no centre explains, such as
    # those of a tilted grating; None if they are not significant
    uneven_px: float | None = None

    @property
    def distortion_percent(
        self,
    ) -> Annotated[
        float, Quantity("Distortion", "% at the rim", ".3g", sd="distortion_sd_percent")
    ]:
        """Distortion in per cent."""
        return 100 * self.distortion

    @property
    def distortion_sd_percent(self) -> float:
        """Standard deviation of the distortion in per cent."""
        return 100 * self.distortion_sd

    @property
    def grating(self) -> Annotated[str, Quantity("Grating")]:
        """Lattice type and number of periods, as text."""
        return f"{self.lattice}, {self.periods:.1f} periods"

    @property
    def centre(self) -> Annotated[str | None, Quantity("Centre of the distortion")]:
        """Distortion centre relative to the image centre, as text; None if equal."""
        if self.centre_px is None or self.centre_sd_px is None:
            return None
        y, x = (
            str(Figure(at, form="+.1f", sd=error))
            for at, error in zip(self.centre_px, self.centre_sd_px, strict=True)
        )
        return f"y {y}, x {x} px from the image centre"


@dataclass(frozen=True, slots=True)
class BarCalibration:
    """Calibration of an image from a printed scale bar of known length."""

    # ``(y, x)`` and standard deviation; square if the file has no aspect ratio
    pixel_size_nm: Annotated[FloatPair, declare_quantity("Pixel size", "nm", ".6g")]
    pixel_size_sd_nm: FloatPair
    # length of the bar and its standard deviation
    bar_px: float
    bar_sd_px: float
    bar_nm: Annotated[float, declare_quantity("Bar as printed", "nm")]


class FieldDistortion(Options):
    """Radial distortion of a field of view, as stored in a calibration."""

    # displacement at the rim over its radius, and standard deviation
    amount: float
    sd: float = Field(ge=0)
    # rows and columns of the image that this rim belongs to; None if unknown
    shape: tuple[PositiveInt, PositiveInt] | None = None
    # centre of the distortion relative to the centre of that image, ``(y, x)``
    centre_px: FloatPair = (0.0, 0.0)

    def adapt_to_shape(self, shape: IntPair) -> "FieldDistortion":
        """Return the distortion for frames of another shape with the same pixel size.

        They are assumed to share their centre with the image. Displacement grows with
        the third power of the radius, so the amount grows with its square. Returned
        unchanged if its own shape is unknown.
        """
        if self.shape is None:
            return self
        k = (min(shape) / min(self.shape)) ** 2
        return self.replace(amount=k * self.amount, sd=k * self.sd, shape=shape)


# Radial distortion of a field: one coefficient, about a centre.
#
# By default this is the centre of the frame. A pixel at ``x`` from it shows
# what an undistorted frame has at ``x (1 + k |x|^2 / R^2)``, with ``R`` half of the
# frame's shorter side: ``k`` is the displacement at the rim over the rim's radius. The
# scale at the centre does not change.

MAX_DISTORTION = 0.2  # of either sign, as in `simulate`; a poor microsphere has 0.03
_FOLD = -4 / 27  # of k |x|^2 / R^2: ``f (1 + w f^2) = 1`` has no real root below
_ROUNDS = 12  # of Newton's method; accurate to 1e-9 px except at the fold
_MIDDLE = (0.0, 0.0)


def _compute_centre_distances(
    y: ArrayLike, x: ArrayLike, shape: IntPair, centre: FloatPair
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return y and x distances from the centre, and the normalised squared radius."""
    dy = np.asarray(y, np.float64) - (shape[0] - 1) / 2 - centre[0]
    dx = np.asarray(x, np.float64) - (shape[1] - 1) / 2 - centre[1]
    return dy, dx, np.asarray((dy**2 + dx**2) / (min(shape) / 2) ** 2)


def _apply_radial_scaling(
    y: ArrayLike, x: ArrayLike, shape: IntPair, factor: FloatArray, centre: FloatPair
) -> tuple[FloatArray, FloatArray]:
    dy, dx, _ = _compute_centre_distances(y, x, shape, centre)
    return (
        np.asarray((shape[0] - 1) / 2 + centre[0] + dy * factor),
        np.asarray((shape[1] - 1) / 2 + centre[1] + dx * factor),
    )


def distort_positions(
    y: ArrayLike,
    x: ArrayLike,
    shape: IntPair,
    amount: float,
    *,
    centre: FloatPair = _MIDDLE,
) -> tuple[FloatArray, FloatArray]:
    """Map pixels of a distorted frame to their positions in the undistorted frame.

    Positions along y and x. The amount is the displacement at the rim over its radius,
    the centre is relative to the centre of the frame, ``(y, x)`` in px.
    """
    radius2 = _compute_centre_distances(y, x, shape, centre)[2]
    return _apply_radial_scaling(y, x, shape, 1 + amount * radius2, centre)


def undistort_positions(
    y: ArrayLike,
    x: ArrayLike,
    shape: IntPair,
    amount: float,
    *,
    centre: FloatPair = _MIDDLE,
) -> tuple[FloatArray, FloatArray]:
    """Map undistorted positions to distorted pixels; inverse of `distort_positions`.

    NaN where no pixel shows the position, beyond the radius at which a field folds.
    """
    shift_share = amount * _compute_centre_distances(y, x, shape, centre)[2]
    is_shown = shift_share > _FOLD
    bent_share = np.where(is_shown, shift_share, 0.0)
    factor = np.ones_like(bent_share)
    for _ in range(_ROUNDS):
        cubic = bent_share * factor**2
        factor -= (factor * (1 + cubic) - 1) / (1 + 3 * cubic)
    return _apply_radial_scaling(
        y, x, shape, np.where(is_shown, factor, np.nan), centre
    )


def compute_radial_displacement(
    y: ArrayLike, x: ArrayLike, shape: IntPair, *, centre: FloatPair = _MIDDLE
) -> tuple[FloatArray, FloatArray]:
    """Return the displacement of pixels along y and x for 1 px at the rim."""
    dy, dx, radius2 = _compute_centre_distances(y, x, shape, centre)
    share = radius2 / (min(shape) / 2)
    return np.asarray(dy * share), np.asarray(dx * share)


# The uncertainty of a length in nm, propagated from the pixel size.
#
# A relative error of the pixel size is a relative error of every length in the image.
# It is independent of the errors of reading, so both are added in quadrature. The
# errors of rows and columns come from one calibration and count as one: for an oblique
# length they are averaged, not added in quadrature.

Z95 = NormalDist().inv_cdf(0.975)
"""Half-width of the 95 % interval of a normal distribution, in standard deviations."""


def compute_length_error(image: Micrograph, along: ArrayLike | None = None) -> float:
    """Return the relative standard deviation of a length due to the pixel size.

    `along` is its direction ``(y, x)`` in the plane; by default lengths of all
    directions. 0 if the error of the pixel size is unknown.
    """
    size, sd = image.pixel_size_nm, image.pixel_size_sd_nm
    if size is None or sd is None:
        return 0.0
    squares = np.ones(2) if along is None else np.square(np.asarray(along, dtype=float))
    return float(squares / squares.sum() @ np.divide(sd, size))


def widen_interval(value: float, interval: FloatPair, share: float) -> FloatPair:
    """Add the error `share` of `compute_length_error` to a length's 95 % interval."""
    reach = Z95 * share * abs(value)
    down, up = (math.hypot(end - value, reach) for end in interval)
    return value - down, value + up


def is_determined(interval: FloatPair, scale: float) -> bool:
    """Check whether a 95 % interval is no wider than the value that it belongs to.

    For a value that may be 0, such as a position, `scale` is what it is measured on.
    """
    return interval[1] - interval[0] <= abs(scale)
