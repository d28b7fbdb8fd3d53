"""Frames smoothed, moved by part of a pixel, and differentiated, in one kernel."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.core.tiling import Box
from napari_semsr.stitch.offsets import overlap_boxes
from napari_semsr.stitch.prepared import BoundedCache, Prepared

__all__ = ["Resampled", "resample"]

FloatArray = NDArray[np.float64]
SingleArray = NDArray[np.float32]
IntPair = tuple[int, int]

_CACHE_BYTES = 256 << 20


def _kernels(sigma: float, part: float) -> tuple[FloatArray, FloatArray]:
    """Sample a Gaussian and its derivative, reading at ``x - part``.

    The derivative's weights are scaled so that a ramp has slope one.
    """
    radius = int(np.ceil(3.6 * sigma)) + 1
    place = np.arange(-radius, radius + 1) + part
    smooth = np.exp(-0.5 * (place / sigma) ** 2)
    smooth /= smooth.sum()
    slope = -place / sigma**2 * smooth
    slope -= slope.sum() * smooth
    slope /= -(slope * np.arange(-radius, radius + 1)).sum()
    return smooth, -slope


def resample(
    image: SingleArray, part: tuple[float, float], sigma: float
) -> tuple[SingleArray, SingleArray, SingleArray]:
    """Smooth a frame and move it by part of a pixel.

    Parameters
    ----------
    image : (Y, X) numpy.ndarray of float32
        Corrected frame.
    part : tuple of float
        Move by this much, ``(y, x)``: the result at ``x`` is the frame at ``x - part``.
    sigma : float
        Width of the Gaussian in px.

    Returns
    -------
    tuple of (Y, X) numpy.ndarray of float32
        Smoothed frame and its derivatives along y and x.
    """
    (smooth_y, slope_y), (smooth_x, slope_x) = (_kernels(sigma, p) for p in part)
    rows = ndimage.correlate1d(image, smooth_y, axis=0, mode="nearest")
    steep = ndimage.correlate1d(image, slope_y, axis=0, mode="nearest")
    return (
        ndimage.correlate1d(rows, smooth_x, axis=1, mode="nearest"),
        ndimage.correlate1d(steep, smooth_x, axis=1, mode="nearest"),
        ndimage.correlate1d(rows, slope_x, axis=1, mode="nearest"),
    )


def _moved(image: SingleArray, part: tuple[float, float], sigma: float) -> SingleArray:
    """Smooth a frame and move it by part of a pixel, without derivatives."""
    for axis in range(2):
        smooth, _ = _kernels(sigma, part[axis])
        image = ndimage.correlate1d(image, smooth, axis=axis, mode="nearest")
    return image


class Resampled:
    """Frames on the mosaic's own pixel grid, made when they are needed.

    Parameters
    ----------
    prepared : Prepared
        Corrected frames.
    positions : (N, 2) numpy.ndarray
        Top-left corners; frames with NaN must not be asked for.
    sigma : float
        Width of the Gaussian in px.
    slopes : bool, default=True
        Make the derivatives too.
    """

    def __init__(
        self,
        prepared: Prepared,
        positions: FloatArray,
        sigma: float,
        *,
        slopes: bool = True,
    ) -> None:
        self.prepared = prepared
        self.sigma = sigma
        self.slopes = slopes
        self.corners = np.where(np.isfinite(positions), np.round(positions), 0)
        self.corners = self.corners.astype(np.int64)
        self.parts = np.nan_to_num(positions - self.corners)
        self.margin = int(np.ceil(2.0 * sigma)) + 1
        self._inside: dict[int, tuple[NDArray[np.bool_], NDArray[np.bool_]]] = {}
        self._cache = BoundedCache(_CACHE_BYTES)

    def frame(self, index: int) -> tuple[SingleArray, ...]:
        """Make one frame ready to compare.

        Parameters
        ----------
        index : int
            Which frame.

        Returns
        -------
        tuple of (Y, X) numpy.ndarray of float32
            Weight, smoothed frame, and its derivatives along y and x if wanted.
        """
        made: tuple[SingleArray, ...] = self._cache.get(
            index, lambda: self._make(index)
        )
        return made

    def _make(self, index: int) -> tuple[SingleArray, ...]:
        image, weight = self.prepared.corrected(index)
        filled = self._filled(image, weight)
        part = (float(self.parts[index, 0]), float(self.parts[index, 1]))
        if not self.slopes:
            return self._inner(weight), _moved(filled, part, self.sigma)
        planes = resample(filled, part, self.sigma)
        return (self._inner(weight), *planes)

    def _filled(self, image: SingleArray, weight: SingleArray) -> SingleArray:
        """Replace what lies outside the field by the level of what lies inside."""
        outside = weight <= 0
        if not outside.any():
            return image
        total = float(weight.sum())
        level = float((image * weight).sum()) / total if total else 0.0
        return np.where(outside, np.float32(level), image)

    def _inner(self, weight: SingleArray) -> SingleArray:
        """Weight without the rim that smoothing has mixed with what lies beyond."""
        lit = int(np.count_nonzero(weight))
        if lit not in self._inside:  # frames without missing pixels share one mask
            self._inside[lit] = (weight > 0, self._eroded(weight > 0))
        mask, inside = self._inside[lit]
        if not np.array_equal(mask, weight > 0):
            inside = self._eroded(weight > 0)
        return np.where(inside, weight, np.float32(0))

    def _eroded(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Take as much off a mask as smoothing reaches."""
        side = 2 * self.margin + 1
        kept: NDArray[np.uint8] = ndimage.minimum_filter(
            mask.astype(np.uint8), side, mode="constant"
        )
        return kept > 0

    def boxes(self, first: int, second: int) -> tuple[Box, Box] | None:
        """Parts of two frames that show the same place.

        Parameters
        ----------
        first, second : int
            The frames.

        Returns
        -------
        tuple of Box or None
            Part of either; None where they do not touch.
        """
        shift = self.corners[second] - self.corners[first]
        return overlap_boxes(self.prepared.frame_shape, (int(shift[0]), int(shift[1])))
