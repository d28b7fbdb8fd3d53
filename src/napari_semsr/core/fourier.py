"""Fourier conventions: window, rings and their physical frequencies.

Images are ``(Y, X)`` real arrays of any size, never zero-padded. Transforms
are unnormalised (``norm="backward"``) real FFTs, so a plane is ``(Y, X // 2 + 1)`` and
every sample has a multiplicity: the number of full-plane samples it represents (1, 2).

Frequencies are cycles per *mean pixel*: the geometric mean of the two pixel pitches.
For square pixels that is cycles per pixel. Rings are equidistant in physical frequency,
one bin of the physically shorter side wide; ring ``k`` is centred on ``k`` bins, ring 0
holds only the zero frequency.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.errors import ShapeError
from napari_semsr.core.types import FloatArray, FloatPair, IntPair


def tukey_window(size: int, alpha: float) -> FloatArray:
    """Return a symmetric Tukey window (size,) with weights in (0, 1].

    The tapered fraction `alpha` is 0 for a rectangular and 1 for a Hann window. Samples
    are taken at half-integer positions, so that no pixel has weight zero.
    """
    if alpha * size <= 1:
        return np.ones(size)
    place = (np.arange(size) + 0.5) / size
    edge = np.minimum(place, 1 - place)
    taper = np.clip(edge / (alpha / 2), 0, 1)
    weights: FloatArray = 0.5 - 0.5 * np.cos(np.pi * taper)
    return weights


def tukey_window_2d(shape: IntPair, alpha: float) -> FloatArray:
    """Return a separable Tukey window (Y, X) with the tapered fraction `alpha`."""
    rows, columns = (tukey_window(size, alpha) for size in shape)
    return np.asarray(np.outer(rows, columns))


def compute_relative_pitch(scale: FloatPair) -> FloatPair:
    """Return pixel pitches ``(y, x)`` relative to their geometric mean.

    The scale may have any unit; ``(1, 1)`` for square pixels.
    """
    ratio = math.sqrt(scale[0] / scale[1])
    return (1.0, 1.0) if abs(ratio - 1) < 1e-6 else (ratio, 1 / ratio)


def ideal_otf(v: FloatArray) -> FloatArray:
    """Return the incoherent OTF of an aberration-free circular pupil.

    `v` is the frequency relative to the optical cut-off, beyond which it is 0.
    """
    v = np.minimum(v, 1)
    return np.asarray(2 / np.pi * (np.arccos(v) - v * np.sqrt(1 - v * v)))


def compute_radial_frequency(shape: IntPair, pitch: FloatPair) -> FloatArray:
    """Return the radial frequency of every half-plane sample (Y, X // 2 + 1)."""
    rows = np.fft.fftfreq(shape[0], pitch[0])
    columns = np.fft.rfftfreq(shape[1], pitch[1])
    return np.asarray(np.hypot(rows[:, None], columns[None, :]))


@dataclass(frozen=True, slots=True)
class Rings:
    """Rings in the Fourier plane for a given image shape and pixel aspect ratio."""

    shape: IntPair  # rows and columns of the image
    pitch: FloatPair  # ``(y, x)`` relative pixel pitch
    bin_width: float  # width of a ring in cycles per mean pixel
    # (Y, X // 2 + 1) Ring of every half-plane sample, corners beyond Nyquist included
    index: NDArray[np.int32]
    # (Y, X // 2 + 1) Full-plane samples that each half-plane sample represents
    multiplicity: FloatArray
    frequency: FloatArray  # (K,) Centre of each ring, in cycles per mean pixel
    samples: FloatArray  # (K,) Full-plane samples in each ring
    complete: int  # rings ``0 … complete - 1`` lie within the smaller Nyquist frequency

    @property
    def nyquist(self) -> float:
        """Smaller Nyquist frequency of the two axes, in cycles per mean pixel."""
        return 0.5 / max(self.pitch)

    def sum_rings(self, plane: NDArray[np.floating]) -> FloatArray:
        """Sum a half-plane quantity (Y, X // 2 + 1) over each complete ring (K,).

        It must be real and even in frequency.
        """
        weights, rings = (plane * self.multiplicity).ravel(), self.index.ravel()
        total = np.bincount(rings, weights, minlength=self.frequency.size)
        return total.astype(np.float64)


@lru_cache(maxsize=8)
def create_rings(shape: IntPair, pitch: FloatPair = (1.0, 1.0)) -> Rings:
    """Divide the Fourier plane of an image into rings.

    The pitch is relative, ``(y, x)``, as from `compute_relative_pitch`. Raises
    `ShapeError` if a side has fewer than two pixels.
    """
    if min(shape) < 2:
        size = f"{shape[0]}x{shape[1]} px"
        msg = f"Fourier rings need an image of at least 2x2 px, got {size}."
        raise ShapeError(msg, code="image-too-small")
    radius = compute_radial_frequency(shape, pitch)
    width = 1 / min(shape[0] * pitch[0], shape[1] * pitch[1])
    index = np.rint(radius / width).astype(np.int32)
    index[(index == 0) & (radius > 0)] = 1
    multiplicity = np.full(index.shape, 2.0)
    multiplicity[:, 0] = 1
    if shape[1] % 2 == 0:
        multiplicity[:, -1] = 1
    count = int(index.max()) + 1
    samples = np.bincount(index.ravel(), multiplicity.ravel(), count).astype(float)
    complete = min(count, math.floor(0.5 / max(pitch) / width + 1e-9) + 1)
    frequency: FloatArray = np.arange(count, dtype=np.float64) * width
    return Rings(shape, pitch, width, index, multiplicity, frequency, samples, complete)
