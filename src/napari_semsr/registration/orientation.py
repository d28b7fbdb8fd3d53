"""Structure orientation, a feature common to images of both microscopes.

Optical and SEM images show an area with unrelated contrast: what is bright in one is
dark or grey in the other. Positions and directions of edges are the same. A gradient
as a complex number, squared, has the double angle, which does not depend on the sign
of the contrast; divided by its power and a floor, strong edges do not dominate::

    z = (g_x + i g_y)² / (|g|² + floor)

Products of two such fields add up where lines coincide, and cancel elsewhere:
``Re Σ z₁ z₂*`` is their correlation, and for unrelated fields its standard deviation
is ``√(½ Σ |z₁|² |z₂|²)`` for independent pixels [1]_ [2]_.

.. [1] E. Haber, J. Modersitzki, Methods Inf. Med. 46, 292 (2007).
.. [2] J. Öfverstedt, J. Lindblad, N. Sladoje, arXiv:2110.10156.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.core import (
    Grid,
    GridImage,
    Micrograph,
    RealArray,
    estimate_noise_level,
)

Field = NDArray[np.complex64]

_FLOOR = 2.0  # medians of the power; chosen: noise alone has a third of a clear edge
_EDGE = 2.5  # widths of the filter; nearer to a gap a gradient is that of the gap
_REACH = 3.0  # widths at which the filter is truncated
_AROUND = 2.7  # widths of the surroundings; 2 to 7 were tried
_SHARE = 0.05  # least known fraction of the surroundings
_ROUNDING = 1e-5  # of the grey values: below the precision of float32
_BAND_PX = 1.5, 8.0  # widths of the band in which structure is detected; chosen
_MORE = 2.0  # times the variance of white noise in this band; chosen


def create_grid(image: Micrograph, pitch_nm: float) -> Grid:
    """Create a grid of square pixels inside an image, starting at its corner."""
    lies = Grid.from_image(image)
    sides = zip(lies.shape, lies.pitch, strict=True)
    rows, columns = (max(1, int(n * p / pitch_nm + 1e-6)) for n, p in sides)
    return Grid((rows, columns), (pitch_nm, pitch_nm), lies.corner)


def resample_to_pitch(image: Micrograph, pitch_nm: float) -> Micrograph:
    """Resample an image to square pixels, keeping its corner."""
    grid = create_grid(image, pitch_nm)
    data = np.asarray(GridImage.from_image(image, grid).read(), dtype=np.float32)
    origin = grid.corner[0] + pitch_nm / 2, grid.corner[1] + pitch_nm / 2
    return image.replace(data=data, pixel_size_nm=(pitch_nm, pitch_nm), origin=origin)


def compute_orientations(images: RealArray, width_px: float) -> Field:
    """Compute the orientations of images (…, Y, X); 0 at and next to NaN.

    `width_px` is the standard deviation of the Gaussian derivative filter.
    """
    rise, finite, floor = _compute_gradients(images, width_px)
    return _divide_finite_values(rise**2, np.abs(rise) ** 2 + floor, finite)


def compute_outlines(
    images: RealArray, width_px: float, *, keep: NDArray[np.bool_] | None = None
) -> tuple[Field, Field]:
    """Compute orientations that peak at edge centres, and the unit gradients.

    The power is divided by that of the surroundings, not by itself: this localises
    lines more precisely, and a narrow edge does not match all of a wide one. The rise
    is the gradient over its length. Pixels beyond the border count as NaN, unless
    `keep` (Y, X) marks the valid pixels.
    """
    rise, finite, floor = _compute_gradients(images, width_px, keep)
    power = np.where(finite, np.abs(rise) ** 2, 0)
    near = _AROUND * width_px
    around, share = (
        ndimage.gaussian_filter(plane, near, axes=(-2, -1), truncate=_REACH)
        for plane in (power, finite.astype(np.float32))
    )
    around /= np.maximum(share, _SHARE)
    outline = _divide_finite_values(rise**2, around + floor, finite)
    return outline, _divide_finite_values(rise, np.maximum(np.abs(rise), 1e-12), finite)


def _divide_finite_values(
    above: Field, below: RealArray, finite: NDArray[np.bool_]
) -> Field:
    """Divide finite values; return 0 elsewhere."""
    quotient = above / np.where(finite, below, 1)
    return np.asarray(np.where(finite, quotient, 0), np.complex64)


def _compute_gradients(
    images: RealArray, width_px: float, keep: NDArray[np.bool_] | None = None
) -> tuple[Field, NDArray[np.bool_], float]:
    """Compute complex gradients, a mask of the valid ones, and their noise floor."""
    values = np.asarray(images, dtype=np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.complex64), finite, 1.0
    level = values[finite].mean(dtype=np.float64)
    without_gaps = np.where(finite, values, np.float32(level))
    down, across = (
        ndimage.gaussian_filter(
            without_gaps, width_px, order=order, axes=(-2, -1), truncate=_REACH
        )
        for order in ((1, 0), (0, 1))
    )
    near = int(np.ceil(_EDGE * width_px))
    if keep is None:
        wide = [(0, 0)] * (values.ndim - 2) + [(near, near)] * 2
        finite = _find_gap_free_pixels(np.pad(finite, wide), near)
        finite = finite[..., near:-near, near:-near]
    else:
        finite = _find_gap_free_pixels(finite, near) & keep
    rise = np.asarray(across + 1j * down, np.complex64)
    power = np.abs(rise[finite]) ** 2
    rounding = (_ROUNDING * float(np.abs(without_gaps).max())) ** 2
    if not power.size or float(power.max()) <= rounding:
        return np.zeros_like(rise), np.zeros_like(finite), 1.0
    return rise, finite, max(_FLOOR * float(np.median(power)), rounding)


def _find_gap_free_pixels(finite: NDArray[np.bool_], near: int) -> NDArray[np.bool_]:
    """Return a mask of pixels with no gap within `near` pixels."""
    size = 2 * near + 1
    inner = ndimage.minimum_filter(finite, size, axes=(-2, -1), mode="nearest")
    return np.asarray(inner, dtype=bool)


def has_structure(image: RealArray) -> bool:
    """Return whether an image (Y, X) shows more than white noise.

    The variance in a band without shading is compared with that of white noise in this
    band, estimated from neighbouring pixels.
    """
    values = np.asarray(image, dtype=np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return False
    without_gaps = np.where(finite, values, values[finite].mean())
    fine, coarse = (ndimage.gaussian_filter(without_gaps, width) for width in _BAND_PX)
    one, two = (width**2 for width in _BAND_PX)
    kept_noise = (1 / one + 1 / two - 4 / (one + two)) / (4 * np.pi)
    rounding = (_ROUNDING * float(np.abs(without_gaps).max())) ** 2
    by_noise = kept_noise * estimate_noise_level(without_gaps) ** 2
    return float(np.var((fine - coarse)[finite])) > max(_MORE * by_noise, rounding)
