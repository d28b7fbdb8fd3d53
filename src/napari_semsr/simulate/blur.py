"""Gaussian blur whose width changes from place to place.

Light is shared out among a few widths; each share is blurred by its own and divided by
its own cover, so that an even surface stays even across a step.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.simulate.canvas import Plane

__all__ = ["FWHM", "blur_by_width", "blur_widths", "gaussian_blur", "width_share"]

FWHM = 2 * float(np.sqrt(2 * np.log(2)))
"""Full width at half maximum of a Gaussian over its standard deviation."""
_DEPTH_RATIO = 1.3  # of the widths of neighbouring depths
_MOST_DEPTHS = 7


def blur_by_width(image: Plane, fwhm_px: NDArray[np.floating]) -> Plane:
    """Blur each place by its own width.

    Parameters
    ----------
    image : (Y, X) numpy.ndarray of float32
        What is blurred.
    fwhm_px : (Y, X) numpy.ndarray
        Full width at half maximum at each pixel.

    Returns
    -------
    (Y, X) numpy.ndarray of float32
        Light shared out among at most seven widths, each divided by its own cover.
    """
    sigma = (fwhm_px / FWHM).astype(np.float32)
    levels = blur_widths(float(sigma.min()), float(sigma.max()))
    if len(levels) == 1:
        return gaussian_blur(image, levels[0])
    light = np.zeros(image.shape, np.float32)
    share = np.zeros(image.shape, np.float32)
    for index, level in enumerate(levels):
        part = width_share(sigma, levels, index)
        light += gaussian_blur(image * part, level)
        share += gaussian_blur(part, level)
    return light / share


def gaussian_blur(image: Plane, sigma: float) -> Plane:
    """Blur by a Gaussian cut at four and a half standard deviations.

    Parameters
    ----------
    image : (Y, X) numpy.ndarray of float32
        What is blurred.
    sigma : float
        Standard deviation in pixels.

    Returns
    -------
    (Y, X) numpy.ndarray of float32
        The blurred image.
    """
    blurred = ndimage.gaussian_filter(image, sigma, mode="reflect", truncate=4.5)
    return np.asarray(blurred, dtype=np.float32)


def blur_widths(low: float, high: float) -> list[float]:
    """Choose the widths, in even ratios, between which a blur is shared out.

    Parameters
    ----------
    low, high : float
        Least and greatest standard deviation that occur, in any unit.

    Returns
    -------
    list of float
        Rising; one where both are nearly equal.
    """
    if high / low < 1.01:
        return [(low * high) ** 0.5]
    count = 1 + min(
        _MOST_DEPTHS - 1, int(np.ceil(np.log(high / low) / np.log(_DEPTH_RATIO)))
    )
    return [float(v) for v in np.geomspace(low, high, count)]


def width_share(sigma: Plane, levels: Sequence[float], index: int) -> Plane:
    """Find the share of one width where the wanted one lies between two.

    Parameters
    ----------
    sigma : (Y, X) numpy.ndarray
        Standard deviation wanted at each pixel.
    levels : sequence of float
        Widths as `blur_widths` gives them.
    index : int
        Which of them.

    Returns
    -------
    (Y, X) numpy.ndarray of float32
        In [0, 1]; over all widths they add up to 1, their variances to that wanted.
    """
    squares = np.square(levels)
    peak = np.zeros(len(levels))
    peak[index] = 1
    return np.asarray(np.interp(sigma**2, squares, peak), dtype=np.float32)
