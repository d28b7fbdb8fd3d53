"""Augmentation of patch pairs, equal for both patches and reproducible by seed.

Sun et al. flip, rotate by 30, 45, 60 and 90 degrees, and scale; grey levels may be
varied, too. Rotations by right angles and flips do not interpolate; everything else is
one cubic resampling, reflected at the border.
"""

from dataclasses import dataclass

import numpy as np
from pydantic import Field
from scipy import ndimage

from napari_semsr.core import FloatPair, Options, RealArray, get_interpolation_dtype

_ANGLES = (0, 30, 45, 60, 90)  # those of Sun et al., and none


class AugmentOptions(Options):
    """Augmentation options."""

    flips: bool = Field(default=True, description="mirror up-down and left-right")
    angles_deg: tuple[int, ...] = Field(
        default=_ANGLES, min_length=1, description="rotations, in both directions"
    )
    zoom: FloatPair = Field(
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
    patch: RealArray, variation: PatchVariation, value_range: FloatPair = (0.0, 1.0)
) -> RealArray:
    """Apply a variation to one patch (N, N)."""
    patch_values = patch.astype(get_interpolation_dtype(patch.dtype))
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
    low: RealArray,
    high: RealArray,
    seed: int | tuple[int, ...],
    *,
    options: AugmentOptions | None = None,
    low_range: FloatPair = (0.0, 1.0),
    high_range: FloatPair = (0.0, 1.0),
) -> tuple[RealArray, RealArray]:
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
