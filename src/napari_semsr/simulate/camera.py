"""The camera: photons to counts, with shot noise, read noise and offset."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semsr.simulate.microscope import MicroscopeOptions

__all__ = ["expected_counts", "expose"]


def expected_counts(
    light: NDArray[np.floating], options: MicroscopeOptions
) -> NDArray[np.float64]:
    """Mean counts of a pixel: offset and light, neither noise nor rounding.

    Parameters
    ----------
    light : numpy.ndarray
        Reflectance times illumination; 1 is full scale.
    options : MicroscopeOptions
        Offset and full scale.

    Returns
    -------
    numpy.ndarray of float
        Counts.
    """
    return options.offset + options.full_scale * np.asarray(light, np.float64)


def expose(
    light: NDArray[np.floating], options: MicroscopeOptions, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """Take a picture.

    With ``P`` photons at a full scale of ``F`` counts, light ``s`` gives counts of mean
    ``dark + F s`` and variance ``F^2 s / P + R^2``, and 1/12 for the rounding.

    Parameters
    ----------
    light : numpy.ndarray
        Reflectance times illumination; 1 is full scale.
    options : MicroscopeOptions
        Photons, read noise, offset, full scale.
    rng : numpy.random.Generator
        Source of the noise.

    Returns
    -------
    numpy.ndarray of uint16
        Counts, rounded and clipped.
    """
    signal: NDArray[Any] = np.maximum(np.asarray(light, np.float64), 0)
    if options.photons > 0:
        signal = rng.poisson(signal * options.photons) / options.photons
    counts = expected_counts(signal, options)
    if options.read_noise > 0:
        counts = counts + rng.normal(0, options.read_noise, counts.shape)
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)
