"""Orientation of structure: what both microscopes agree on.

Light and electrons see one place in contrasts that have little in common: what is
bright in one image is dark in the other, or grey. That it changes, and along which
line, is the same. A gradient as a complex number, squared, has the double angle, which
does not tell rise from fall; over its power and a floor, a strong edge counts no more
than a clear one::

    z = (g_x + i g_y)² / (|g|² + floor)

Products of two such fields add up where lines lie on lines, and cancel elsewhere:
``Re Σ z₁ z₂*`` is their correlation, and where they have nothing in common it scatters
by ``√(½ Σ |z₁|² |z₂|²)`` for each independent pixel [1]_ [2]_.

.. [1] E. Haber, J. Modersitzki, Methods Inf. Med. 46, 292 (2007).
.. [2] J. Öfverstedt, J. Lindblad, N. Sladoje, arXiv:2110.10156.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.core import Area, Grid, Micrograph, noise_level

Field = NDArray[np.complex64]

_FLOOR = 2.0  # medians of the power; chosen: noise alone has a third of a clear edge
_EDGE = 2.5  # widths of the filter; nearer to a gap a gradient is that of the gap
_REACH = 3.0  # widths at which the filter is cut off
_AROUND = 2.7  # widths of the surroundings; 2 to 7 were tried
_SHARE = 0.05  # least part of the surroundings that is known
_ROUNDING = 1e-5  # of the grey values: less than float32 tells apart
_BAND_PX = 1.5, 8.0  # widths between which structure is looked for; chosen
_MORE = 2.0  # times the variance that white noise leaves there; chosen


def grid_at(image: Micrograph, pitch_nm: float) -> Grid:
    """Lay whole square pixels of a side over an image, from its corner."""
    lies = Grid.of(image)
    sides = zip(lies.shape, lies.pitch, strict=True)
    rows, columns = (max(1, int(n * p / pitch_nm + 1e-6)) for n, p in sides)
    return Grid((rows, columns), (pitch_nm, pitch_nm), lies.corner)


def at_pitch(image: Micrograph, pitch_nm: float) -> Micrograph:
    """Bring an image to square pixels of a side, the corner where it was."""
    grid = grid_at(image, pitch_nm)
    data = np.asarray(Area.of(image, grid).read(), dtype=np.float32)
    origin = grid.corner[0] + pitch_nm / 2, grid.corner[1] + pitch_nm / 2
    return image.replace(data=data, pixel_size_nm=(pitch_nm, pitch_nm), origin=origin)


def orientations(images: NDArray[Any], width_px: float) -> Field:
    """Find the orientations of images (…, Y, X); 0 where they are NaN or near it.

    `width_px` is the standard deviation of the Gaussian whose derivatives are taken.
    """
    rise, finite, floor = _rise(images, width_px)
    return _over(rise**2, np.abs(rise) ** 2 + floor, finite)


def outlines(
    images: NDArray[Any], width_px: float, *, keep: NDArray[np.bool_] | None = None
) -> tuple[Field, Field]:
    """Find orientations that are highest in the middle of an edge, and its rise.

    The power is divided by that of the surroundings, not by itself: so lines are placed
    finer, and a wide edge does not hold a narrow one anywhere within. The rise is the
    gradient over its length. What lies beyond the border counts as NaN, unless `keep`
    (Y, X) says which pixels to trust.
    """
    rise, finite, floor = _rise(images, width_px, keep)
    power = np.where(finite, np.abs(rise) ** 2, 0)
    near = _AROUND * width_px
    around, share = (
        ndimage.gaussian_filter(plane, near, axes=(-2, -1), truncate=_REACH)
        for plane in (power, finite.astype(np.float32))
    )
    around /= np.maximum(share, _SHARE)
    outline = _over(rise**2, around + floor, finite)
    return outline, _over(rise, np.maximum(np.abs(rise), 1e-12), finite)


def _over(above: Field, below: NDArray[Any], finite: NDArray[np.bool_]) -> Field:
    """Divide where something is known; 0 elsewhere."""
    quotient = above / np.where(finite, below, 1)
    return np.asarray(np.where(finite, quotient, 0), np.complex64)


def _rise(
    images: NDArray[Any], width_px: float, keep: NDArray[np.bool_] | None = None
) -> tuple[Field, NDArray[np.bool_], float]:
    """Gradients as complex numbers, where they are known, and the floor of all."""
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
        finite = _within(np.pad(finite, wide), near)
        finite = finite[..., near:-near, near:-near]
    else:
        finite = _within(finite, near) & keep
    rise = np.asarray(across + 1j * down, np.complex64)
    power = np.abs(rise[finite]) ** 2
    rounding = (_ROUNDING * float(np.abs(without_gaps).max())) ** 2
    if not power.size or float(power.max()) <= rounding:
        return np.zeros_like(rise), np.zeros_like(finite), 1.0
    return rise, finite, max(_FLOOR * float(np.median(power)), rounding)


def _within(finite: NDArray[np.bool_], near: int) -> NDArray[np.bool_]:
    """Pixels that have no gap nearer than so many pixels."""
    size = 2 * near + 1
    inner = ndimage.minimum_filter(finite, size, axes=(-2, -1), mode="nearest")
    return np.asarray(inner, dtype=bool)


def has_structure(image: NDArray[Any]) -> bool:
    """Whether an image (Y, X) holds more than pixels that know nothing of each other.

    A band that takes out shading is compared with what is left of white noise in it;
    the noise is that of neighbouring pixels.
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
    by_noise = kept_noise * noise_level(without_gaps) ** 2
    return float(np.var((fine - coarse)[finite])) > max(_MORE * by_noise, rounding)
