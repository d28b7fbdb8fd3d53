"""Single-image correlation: diagonal halves of one image, put back on one grid.

One image is split into its four interleaved sub-images. Those on a diagonal make a
pair: (even, even) with (odd, odd), and (even, odd) with (odd, even). The halves of a
pair are half a sub-image pixel apart on both axes; a phase ramp takes the shift off.

A half samples the signal four times more sparsely at the same noise per pixel, so
below its own Nyquist frequency its spectral signal-to-noise is a quarter of that of the
image. Both are tied by arithmetic, not by an empirical curve: the correlation c of the
halves stands for the 4c / (1 + 3c) that two exposures like this one would have. That
holds for noise that is white from pixel to pixel, and only there.
"""

import numpy as np
from numpy.typing import NDArray

from napari_semsr.analysis.ring_sums import (
    Geometry,
    RingSums,
    project,
    sum_rings,
    transform,
)

__all__ = [
    "GAIN",
    "NYQUIST_SHARE",
    "NoiseColour",
    "diagonal_sums",
    "equivalent",
    "half_threshold",
    "is_coloured",
]

GAIN = 4.0
"""Spectral signal-to-noise of the image over that of one of its halves."""

NYQUIST_SHARE = 0.7
"""Crossings above this share of the halves' Nyquist frequency are refused."""

WHITE_TOLERANCE = 0.15

NoiseColour = NDArray[np.float64]


def diagonal_sums(stack: NDArray[np.float32], geometry: Geometry) -> RingSums:
    """Ring sums of both diagonal pairs, pooled.

    Parameters
    ----------
    stack : (B, 2Y, 2X) numpy.ndarray of float32
        Blocks of even size with their mean off.
    geometry : Geometry
        Window and rings of the halves ``(Y, X)``.

    Returns
    -------
    RingSums
        Sums over both pairs.
    """
    ee, eo = stack[:, ::2, ::2], stack[:, ::2, 1::2]
    oe, oo = stack[:, 1::2, ::2], stack[:, 1::2, 1::2]
    rows = np.fft.fftfreq(geometry.rings.shape[0])[:, None]
    columns = np.fft.rfftfreq(geometry.rings.shape[1])[None, :]
    main = np.exp(-1j * np.pi * (rows + columns)).astype(np.complex64)
    anti = np.exp(-1j * np.pi * (rows - columns)).astype(np.complex64)
    return sum_rings(ee, oo, geometry, main) + sum_rings(eo, oe, geometry, anti)


def is_coloured(stack: NDArray[np.float32], geometry: Geometry) -> NDArray[np.bool_]:
    """Test whether the noise floor of each block is flat.

    Parameters
    ----------
    stack : (B, Y, X) numpy.ndarray of float32
        Blocks with their mean off.
    geometry : Geometry
        Window and rings of the whole blocks.

    Returns
    -------
    (B,) numpy.ndarray of bool
        True where the power between 0.38 and 0.5 cycles per pixel differs from that
        in the corners beyond Nyquist by more than 15 % and three standard errors:
        resampling, filters and lossy compression colour the noise.
    """
    spectrum = transform(stack, geometry)
    power = project(np.square(np.abs(spectrum)), geometry) / geometry.rings.samples
    x = geometry.relative
    inner, corner = (x >= 0.38) & (x < 0.48), (x >= 0.52) & (x < 0.68)
    weight = geometry.effective
    if not (inner.any() and corner.any()):
        return np.zeros(len(stack), bool)
    low, high = (
        power[:, band] @ weight[band] / weight[band].sum() for band in (inner, corner)
    )
    error = np.sqrt(1 / weight[inner].sum() + 1 / weight[corner].sum())
    ratio = np.log(np.maximum(low, 1e-30) / np.maximum(high, 1e-30))
    coloured: NDArray[np.bool_] = np.abs(ratio) > max(WHITE_TOLERANCE, 3 * error)
    return coloured


def equivalent(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation that two exposures like the split image would have.

    Parameters
    ----------
    curve : numpy.ndarray
        Correlation of the halves.

    Returns
    -------
    numpy.ndarray
        ``4c / (1 + 3c)``, for negative c mirrored to keep noise symmetric about 0.
    """
    size = np.abs(curve)
    result: NDArray[np.float64] = np.sign(curve) * GAIN * size / (1 + (GAIN - 1) * size)
    return result


def half_threshold(threshold: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation of the halves at which the image itself meets a threshold.

    Parameters
    ----------
    threshold : numpy.ndarray
        Threshold for two exposures.

    Returns
    -------
    numpy.ndarray
        ``t / (4 - 3t)``, the inverse of `equivalent`.
    """
    result: NDArray[np.float64] = threshold / (GAIN - (GAIN - 1) * threshold)
    return result
