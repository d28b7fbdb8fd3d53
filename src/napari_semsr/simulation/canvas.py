"""Canvas in nanometres: antialiased shapes defined by signed distances.

Distances are in nm, negative inside a shape. A shape has a sidewall: its coverage falls
linearly from one to zero over the width of the sidewall, centred on the outline. A
pixel holds the mean coverage over its area, in closed form along the direction of the
distance. This is exact for straight edges along the axes at any pixel size: binning a
fine canvas yields the coarse one.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from napari_semsr.core import Float32Array, FloatArray, FloatPair, IntPair

Distance = Callable[[FloatArray, FloatArray], FloatArray]


def compute_coverage(
    distance_nm: NDArray[np.floating], sidewall_nm: float, pixel_nm: float
) -> Float32Array:
    """Compute the mean coverage of pixels at given distances in nm from an edge."""
    half = max(sidewall_nm, 1e-6 * pixel_nm) / 2

    def integrate_outside(s: NDArray[np.floating]) -> NDArray[np.floating]:
        inner = np.clip(s + half, 0, 2 * half)
        return np.asarray(inner**2 / (4 * half) + np.maximum(s - half, 0))

    distance = np.asarray(distance_nm, dtype=np.float64)
    mean = integrate_outside(distance + pixel_nm / 2) - integrate_outside(
        distance - pixel_nm / 2
    )
    return np.asarray(1 - mean / pixel_nm, dtype=np.float32)


def compute_box_distance(dy: FloatArray, dx: FloatArray, half: FloatPair) -> FloatArray:
    """Compute the signed distance to an axis-aligned rectangle."""
    y, x = np.abs(dy) - half[0], np.abs(dx) - half[1]
    outside = np.hypot(np.maximum(y, 0), np.maximum(x, 0))
    return np.asarray(outside + np.minimum(np.maximum(y, x), 0))


@dataclass(frozen=True, slots=True)
class Canvas:
    """Pixel grid in nanometres with a corner at (0, 0)."""

    shape: IntPair  # Rows and columns
    pixel_nm: float  # Side of a pixel
    sidewall_nm: float  # Width of the sidewalls

    @property
    def extent_nm(self) -> FloatPair:
        """Height and width of the canvas in nm."""
        return self.shape[0] * self.pixel_nm, self.shape[1] * self.pixel_nm

    def compute_coverage(self, distance_nm: NDArray[np.floating]) -> Float32Array:
        """Compute the antialiased coverage of a shape."""
        return compute_coverage(distance_nm, self.sidewall_nm, self.pixel_nm)

    def get_pixel_centres(self) -> tuple[FloatArray, FloatArray]:
        """Return pixel centres in nm as an open grid, (Y, 1) and (1, X)."""
        y, x = ((np.arange(n, dtype=float) + 0.5) * self.pixel_nm for n in self.shape)
        return y[:, None], x[None, :]

    def iterate_window(
        self, centre: Iterable[float], *half: float
    ) -> Iterator[tuple[tuple[slice, slice], FloatArray, FloatArray]]:
        """Yield the pixels of a rectangle with its soft edge, and their offsets in nm.

        Yields once, or never if no pixel is on the canvas. `half`: half the sides of
        the rectangle in nm, or half the side of a square. Offsets are from `centre`.
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

    def create_relief(
        self, correlation_nm: float, rng: np.random.Generator
    ) -> Float32Array:
        """Create a smooth random relief (Y, X) with mean 0 and standard deviation 1.

        White noise on knots at fixed positions, one correlation length apart, blurred
        by a Gaussian: the same relief at any pixel size.
        """
        reach = 4
        weights = []
        for count in self.shape:
            at = (np.arange(count) + 0.5) * self.pixel_nm / correlation_nm + reach
            first = np.floor(at).astype(int) - reach
            columns = np.maximum(first[:, None] + np.arange(2 * reach + 1), 0)
            values = np.exp(-0.5 * (at[:, None] - columns) ** 2)
            values /= np.sqrt((values**2).sum(axis=1, keepdims=True))
            knots = int(np.ceil(count * self.pixel_nm / correlation_nm)) + 2 * reach + 2
            rows = np.repeat(np.arange(count), columns.shape[1])
            flat = (values.astype(np.float32).ravel(), (rows, columns.ravel()))
            weights.append(sparse.csr_array(flat, shape=(count, knots)))
        noise = rng.standard_normal([w.shape[1] for w in weights], dtype=np.float32)
        half = weights[0] @ noise
        return np.ascontiguousarray((weights[1] @ half.T).T)


# Gaussian blur whose width varies with position.
#
# The light is divided among a few widths. Each share is blurred by its width and
# normalised by its blurred coverage, so that a uniform surface stays uniform at a step.

FWHM = 2 * float(np.sqrt(2 * np.log(2)))
"""Ratio of a Gaussian's full width at half maximum to its standard deviation."""
# Ratio of the widths of neighbouring depths; chosen: each depth costs two blurs.
_DEPTH_RATIO = 1.3
_MAX_DEPTHS = 7  # maximum number of blur widths for an image; chosen


def apply_varying_blur(
    image: Float32Array, fwhm_px: NDArray[np.floating]
) -> Float32Array:
    """Blur an image (Y, X) with a full width at half maximum that varies by pixel."""
    sigma = (fwhm_px / FWHM).astype(np.float32)
    light = np.zeros(image.shape, np.float32)
    cover = np.zeros(image.shape, np.float32)
    for level, share in split_blur_widths(sigma):
        if share is None:
            return apply_gaussian_blur(image, level)
        light += apply_gaussian_blur(image * share, level)
        cover += apply_gaussian_blur(share, level)
    return light / cover


def split_blur_widths(
    sigma: Float32Array,
) -> Iterator[tuple[float, Float32Array | None]]:
    """Yield a few blur widths, and each pixel's fraction; None for a single width."""
    low, high = float(sigma.min()), float(sigma.max())
    if high / low < 1.01:  # chosen: one width is enough
        yield (low * high) ** 0.5, None
        return
    count = 1 + min(
        _MAX_DEPTHS - 1, int(np.ceil(np.log(high / low) / np.log(_DEPTH_RATIO)))
    )
    levels = [float(v) for v in np.geomspace(low, high, count)]
    for level, peak in zip(levels, np.eye(count), strict=True):
        share = np.interp(sigma**2, np.square(levels), peak)
        yield level, np.asarray(share, dtype=np.float32)


def apply_gaussian_blur(image: Float32Array, sigma: float) -> Float32Array:
    """Blur an image (Y, X) by a Gaussian truncated at 4.5 standard deviations."""
    blurred_image = ndimage.gaussian_filter(image, sigma, mode="reflect", truncate=4.5)
    return np.asarray(blurred_image, dtype=np.float32)
