"""Augmentation of patch pairs, and synthetic defects, both reproducible by seed.

Sun et al. flip, rotate by 30, 45, 60 and 90 degrees, and scale; grey levels may be
varied, too. Rotations by right angles and flips do not interpolate; everything else is
one cubic resampling, reflected at the border.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from napari_semsr import core

_ANGLES = (0, 30, 45, 60, 90)  # those of Sun et al., and none


class AugmentOptions(core.Options):
    """Augmentation options."""

    flips: bool = Field(default=True, description="mirror up-down and left-right")
    angles_deg: tuple[int, ...] = Field(
        default=_ANGLES, min_length=1, description="rotations, in both directions"
    )
    zoom: core.FloatPair = Field(
        default=(0.8, 1.25), description="range of the magnification"
    )
    gain: float = Field(default=0.1, ge=0, lt=1, description="largest change of gain")
    offset: float = Field(
        default=0.05,
        ge=0,
        description="largest change of grey level, relative to the range",
    )


@dataclass(frozen=True, slots=True)
class PatchVariation:
    """One random variation of a patch pair."""

    up_down: bool = False
    left_right: bool = False
    angle_deg: float = 0.0  # rotation, counter-clockwise on screen
    zoom: float = 1.0
    # Grey levels become ``gain * value + offset * range``
    gain: float = 1.0
    offset: float = 0.0


def augment_patch(
    patch: core.RealArray,
    variation: PatchVariation,
    value_range: core.FloatPair = (0.0, 1.0),
) -> core.RealArray:
    """Apply a variation to one patch (N, N)."""
    patch_values = patch.astype(core.get_interpolation_dtype(patch.dtype))
    patch_values = patch_values[::-1] if variation.up_down else patch_values
    patch_values = patch_values[:, ::-1] if variation.left_right else patch_values
    quarter, rest = divmod(variation.angle_deg, 90)
    if rest == 0 and variation.zoom == 1:
        patch_values = np.rot90(patch_values, int(quarter))
    else:
        angle = np.deg2rad(variation.angle_deg)
        cos, sin = np.cos(angle), np.sin(angle)
        matrix = np.array([[cos, sin], [-sin, cos]]) / variation.zoom
        centre = (np.array(patch.shape) - 1) / 2
        offset = centre - matrix @ centre
        patch_values = ndimage.affine_transform(
            patch_values, matrix, offset, order=3, mode="mirror"
        )
    if variation.gain == 1 and variation.offset == 0:
        return np.ascontiguousarray(patch_values)
    low, high = value_range
    levels = variation.gain * (patch_values - low) + low
    return np.ascontiguousarray(levels + variation.offset * (high - low))


def augment_pair(
    low: core.RealArray,
    high: core.RealArray,
    seed: int | tuple[int, ...],
    *,
    options: AugmentOptions | None = None,
    low_range: core.FloatPair = (0.0, 1.0),
    high_range: core.FloatPair = (0.0, 1.0),
) -> tuple[core.RealArray, core.RealArray]:
    """Augment both patches of a pair equally: LOW (N, N), HIGH (N * scale, N * scale).

    The result is reproducible by the seed, which may include the sample's number.
    Ranges are grey levels of black and white in each; the varied patches are float32,
    or float64 for wider types.
    """
    rng = np.random.default_rng(seed)
    settings = options or AugmentOptions()
    flips = rng.random(2) < 0.5
    sign = 1 if rng.random() < 0.5 else -1
    low_zoom, high_zoom = np.log(settings.zoom[0]), np.log(settings.zoom[1])
    variation = PatchVariation(
        up_down=bool(flips[0]) and settings.flips,
        left_right=bool(flips[1]) and settings.flips,
        angle_deg=float(sign * rng.choice(settings.angles_deg)),
        zoom=float(np.exp(rng.uniform(low_zoom, high_zoom))),
        gain=float(1 + rng.uniform(-settings.gain, settings.gain)),
        offset=float(rng.uniform(-settings.offset, settings.offset)),
    )
    first = augment_patch(low, variation, low_range)
    return first, augment_patch(high, variation, high_range)


# Synthetic defects: copies of an area with objects removed and added.
#
# A network trained on one area learns its usual content, and adds it where it is
# missing. In these copies of the SEM image some objects are missing and others are
# added: ellipses and boxes are set to the level of their rim, or to a grey level of the
# area. The optical image is changed by what a model of the microscope, fitted on that
# area, predicts for the change of the SEM image, so that its noise does not change.

HALF_AXES_PX = (2.5, 8.0)
"""Smallest and largest semi-axis of an object in px; chosen for a blur of 5 px."""
_RIM_PX = 2.5  # width of the ring whose level an object is set to
_SOFT_PX = 1.0  # smoothing of SEM before levels are measured, against noise
_PLAIN = 0.1  # of the area's contrast: least change by an object
_CONTRAST = (2, 98)  # percentiles
_TRIES = 40  # for each object; an empty area has none to remove


@dataclass(frozen=True, slots=True)
class DefectCopy:
    """Copy of an area with objects removed and added.

    Attributes
    ----------
    low, high : (Y, X) numpy.ndarray of float32
        Optical and SEM image.
    change_mask : (Y, X) numpy.ndarray of bool
        Changed pixels of SEM.
    """

    low: core.Float32Array
    high: core.Float32Array
    change_mask: core.BoolArray


def add_defects(
    low: NDArray[np.floating],
    high: NDArray[np.floating],
    predict: Callable[[core.RealArray], core.RealArray],
    seed: int | tuple[int, ...],
    *,
    share: float = 0.07,
) -> DefectCopy:
    """Copy an area with objects removed and added, reproducibly for a given seed.

    Parameters
    ----------
    low, high : (Y, X) numpy.ndarray
        Optical and SEM image on one grid. Objects are placed where SEM is finite.
    predict : callable
        Predicts the optical image from an SEM image without gaps, both (Y, X).
    seed : int or tuple of int
        Seed of the random numbers.
    share : float, default=0.07
        Fraction of the finite pixels of SEM to change; less if an area has too little
        contrast.

    Returns
    -------
    DefectCopy
        Both images, and the changed pixels.
    """
    rng = np.random.default_rng(seed)
    finite = np.isfinite(high)
    values = high.astype(np.float32)
    is_changed = np.zeros(high.shape, bool)
    pixels_wanted = int(share * finite.sum())
    if not pixels_wanted or not finite.any():
        return DefectCopy(low.astype(np.float32), values, is_changed)
    total = ndimage.gaussian_filter(np.where(finite, values, 0), _SOFT_PX)
    weight = ndimage.gaussian_filter(finite.astype(np.float32), _SOFT_PX)
    soft = np.where(finite, total / np.maximum(weight, 1e-6), np.nan).astype(np.float32)
    del total, weight
    contrast = float(np.diff(np.percentile(soft[finite], _CONTRAST))[0])
    places = np.flatnonzero(finite)
    count, left = 0, int(_TRIES * max(1, pixels_wanted // 50))
    while count < pixels_wanted and left and contrast > 0:
        left -= 1
        centre = np.unravel_index(rng.choice(places), high.shape)
        shape = _ObjectShape.random(rng)
        box = shape.find_box(centre, high.shape)
        if box is None or not finite[box].all():
            continue
        other = float(soft.ravel()[rng.choice(places)])
        distance = shape.compute_distance()
        cover = np.clip(0.5 - distance, 0, 1).astype(np.float32)
        rim = (distance > 0.5) & (distance <= 0.5 + _RIM_PX)
        level = float(np.median(soft[box][rim]))
        inside = cover > 0.5
        new = other if rng.random() < 0.5 else level
        apart = np.abs(new - soft[box][inside]).mean()
        if apart < _PLAIN * contrast:
            continue
        for image in (values, soft):
            part = image[box]
            part += cover * (new - part)
        before = int(is_changed[box].sum())
        is_changed[box] |= inside
        count += int(is_changed[box].sum()) - before
    light_change = predict(np.nan_to_num(values)) - predict(np.nan_to_num(high))
    return DefectCopy((low + light_change).astype(np.float32), values, is_changed)


@dataclass(frozen=True, slots=True)
class _ObjectShape:
    """Ellipse or rectangle centred in a square."""

    half_axes: tuple[float, float]
    angle: float
    is_box: bool

    @classmethod
    def random(cls, rng: np.random.Generator) -> "_ObjectShape":
        a, b = rng.uniform(*HALF_AXES_PX, 2)
        return cls((a, b), rng.uniform(0, np.pi), bool(rng.random() < 0.5))

    @property
    def half_side(self) -> int:
        """Half the side length of the square that contains the shape and its rim."""
        a, b = self.half_axes
        longest = float(np.hypot(a, b)) if self.is_box else max(a, b)
        return int(np.ceil(longest + _RIM_PX + 0.5))

    def find_box(
        self, centre: tuple[np.intp, ...], shape: tuple[int, ...]
    ) -> tuple[slice, slice] | None:
        """Return the square's box in an image; None if it extends beyond the image."""
        (y, x), reach = map(int, centre), self.half_side
        if min(y, x) < reach or y + reach >= shape[0] or x + reach >= shape[1]:
            return None
        return slice(y - reach, y + reach + 1), slice(x - reach, x + reach + 1)

    def compute_distance(self) -> core.FloatArray:
        """Return the approximate distance from the outline in px; negative inside."""
        line = np.arange(-self.half_side, self.half_side + 1.0)
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        down = cos * line[:, None] + sin * line
        across = cos * line - sin * line[:, None]
        a, b = self.half_axes
        if self.is_box:
            return np.asarray(np.maximum(np.abs(down) - a, np.abs(across) - b))
        radius = np.hypot(down / a, across / b)
        slope = np.hypot(down / a**2, across / b**2) / np.maximum(radius, 1e-9)
        return np.asarray((radius - 1) / np.maximum(slope, 1 / max(a, b)))
