"""A canvas in nanometres: shapes are given by distances and drawn antialiased.

Distances are signed, in nm, negative inside a shape. A shape has a sidewall: its cover
falls linearly from one to zero over the sidewall's width, centred on the outline. What
is drawn is the mean of that cover over a pixel, in closed form along the direction of
the distance: exact for straight edges along the axes, at any pixel size, so that a fine
drawing binned is the coarse drawing.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from napari_semsr.core import Float32Array, FloatArray, FloatPair, IntPair

Distance = Callable[[FloatArray, FloatArray], FloatArray]


def cover(
    distance_nm: NDArray[np.floating], sidewall_nm: float, pixel_nm: float
) -> Float32Array:
    """Mean cover of pixels whose centres lie at a distance from an edge, in nm."""
    half = max(sidewall_nm, 1e-6 * pixel_nm) / 2

    def outside(s: NDArray[np.floating]) -> NDArray[np.floating]:
        inner = np.clip(s + half, 0, 2 * half)
        return np.asarray(inner**2 / (4 * half) + np.maximum(s - half, 0))

    distance = np.asarray(distance_nm, dtype=np.float64)
    mean = outside(distance + pixel_nm / 2) - outside(distance - pixel_nm / 2)
    return np.asarray(1 - mean / pixel_nm, dtype=np.float32)


def box_distance(dy: FloatArray, dx: FloatArray, half: FloatPair) -> FloatArray:
    """Signed distance to an upright rectangle."""
    y, x = np.abs(dy) - half[0], np.abs(dx) - half[1]
    outside = np.hypot(np.maximum(y, 0), np.maximum(x, 0))
    return np.asarray(outside + np.minimum(np.maximum(y, x), 0))


@dataclass(frozen=True, slots=True)
class Canvas:
    """Pixel grid in nanometres with a corner at (0, 0)."""

    shape: IntPair  # Rows and columns
    pixel_nm: float  # Side of a pixel
    sidewall_nm: float  # Width of every edge

    @property
    def extent_nm(self) -> FloatPair:
        """Height and width of the drawn area."""
        return self.shape[0] * self.pixel_nm, self.shape[1] * self.pixel_nm

    def cover(self, distance_nm: NDArray[np.floating]) -> Float32Array:
        """Antialiased cover of a shape."""
        return cover(distance_nm, self.sidewall_nm, self.pixel_nm)

    def grid(self) -> tuple[FloatArray, FloatArray]:
        """Coordinates of pixel centres in nm, as an open grid: (Y, 1) and (1, X)."""
        y, x = ((np.arange(n, dtype=float) + 0.5) * self.pixel_nm for n in self.shape)
        return y[:, None], x[None, :]

    def around(
        self, centre: Iterable[float], *half: float
    ) -> Iterator[tuple[tuple[slice, slice], FloatArray, FloatArray]]:
        """Give the pixels of a rectangle with its soft edge, and their places from it.

        That is once, or not at all where none of them is on the canvas. `half`: its
        sides in nm, or the one of a square, by half.
        """
        slices, off = [], []
        for at, reach, count in zip(centre, (*half, half[0]), self.shape, strict=False):
            soft = reach + self.sidewall_nm + self.pixel_nm
            start = max(0, int(np.floor((at - soft) / self.pixel_nm)))
            stop = min(count, int(np.ceil((at + soft) / self.pixel_nm)))
            if start >= stop:
                return
            slices.append(slice(start, stop))
            off.append((np.arange(start, stop, dtype=float) + 0.5) * self.pixel_nm - at)
        yield (slices[0], slices[1]), off[0][:, None], off[1][None, :]

    def rough(self, correlation_nm: float, rng: np.random.Generator) -> Float32Array:
        """Smooth random relief (Y, X) of mean 0 and standard deviation 1.

        White noise on knots fixed in nm, blurred by a Gaussian: the same relief at any
        pixel size.
        """
        weights = [
            _knot_weights(count, self.pixel_nm, correlation_nm) for count in self.shape
        ]
        noise = rng.standard_normal([w.shape[1] for w in weights], dtype=np.float32)
        half = weights[0] @ noise
        return np.ascontiguousarray((weights[1] @ half.T).T)


def _knot_weights(
    count: int, pixel_nm: float, correlation_nm: float
) -> sparse.csr_array:
    """Gaussian weights of knots one correlation length apart, rows of unit power."""
    reach = 4
    step = correlation_nm
    at = (np.arange(count) + 0.5) * pixel_nm / step + reach
    first = np.floor(at).astype(int) - reach
    columns = np.maximum(first[:, None] + np.arange(2 * reach + 1), 0)
    values = np.exp(-0.5 * (at[:, None] - columns) ** 2)
    values /= np.sqrt((values**2).sum(axis=1, keepdims=True))
    knots = int(np.ceil(count * pixel_nm / step)) + 2 * reach + 2
    rows = np.repeat(np.arange(count), columns.shape[1])
    flat = (values.astype(np.float32).ravel(), (rows, columns.ravel()))
    return sparse.csr_array(flat, shape=(count, knots))


# Gaussian blur whose width changes from place to place.
#
# Light is shared out among a few widths; each share is blurred by its own and divided
# by its own cover, so that an even surface stays even across a step.

FWHM = 2 * float(np.sqrt(2 * np.log(2)))
"""Full width at half maximum of a Gaussian over its standard deviation."""
# Of the widths of neighbouring depths, and how many there are at most; chosen: each
# depth costs two blurs.
_DEPTH_RATIO = 1.3
_MOST_DEPTHS = 7  # blurs that a drawing is split into; chosen


def blur_by_width(image: Float32Array, fwhm_px: NDArray[np.floating]) -> Float32Array:
    """Blur each place (Y, X) by its own full width at half maximum."""
    sigma = (fwhm_px / FWHM).astype(np.float32)
    light = np.zeros(image.shape, np.float32)
    cover = np.zeros(image.shape, np.float32)
    for level, share in blur_shares(sigma):
        if share is None:
            return gaussian_blur(image, level)
        light += gaussian_blur(image * share, level)
        cover += gaussian_blur(share, level)
    return light / cover


def blur_shares(
    sigma: Float32Array,
) -> Iterator[tuple[float, Float32Array | None]]:
    """Share light out among a few widths: each with its cover, None where one does."""
    low, high = float(sigma.min()), float(sigma.max())
    if high / low < 1.01:  # chosen: one width does for all
        yield (low * high) ** 0.5, None
        return
    count = 1 + min(
        _MOST_DEPTHS - 1, int(np.ceil(np.log(high / low) / np.log(_DEPTH_RATIO)))
    )
    levels = [float(v) for v in np.geomspace(low, high, count)]
    for level, peak in zip(levels, np.eye(count), strict=True):
        share = np.interp(sigma**2, np.square(levels), peak)
        yield level, np.asarray(share, dtype=np.float32)


def gaussian_blur(image: Float32Array, sigma: float) -> Float32Array:
    """Blur an image (Y, X) by a Gaussian cut at four and a half standard deviations."""
    blurred_image = ndimage.gaussian_filter(image, sigma, mode="reflect", truncate=4.5)
    return np.asarray(blurred_image, dtype=np.float32)
