"""Scene: what an ideal camera sees of the whole scanned area, finer than the frames.

The scene is imaged first and sampled after. It is the cubic spline through its fine
pixels: a continuous function, of which each frame holds exact samples at its true
position. Imaged as it is, it has no detail that a frame's pixel could not follow.
Aberrations belong to a place in the field: with them each frame's part of the scene is
imaged for itself, and the scene as a whole as it is in the middle of a field.

Coordinates are those of the frames: pixel centres at whole numbers, (0, 0) at the
nominal top-left pixel of the first frame.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_semsr.core import Float32Array, OptionError, ShapeError
from napari_semsr.simulation.microscope import (
    MicroscopeOptions,
    reflectance,
)
from napari_semsr.simulation.optics import Place, image_of
from napari_semsr.simulation.specimen import Specimen

_IMAGE_FWHM_PX = 3.0
"""Width of a point, in frame pixels, where an image tells no pixel size."""
_REFLECTANCE = (0.08, 0.92)  # of an image's darkest and brightest pixels; chosen
_PERCENTILES = (0.1, 99.9)  # chosen: a few extreme pixels set no scale
_BAND = 256  # rows that are resampled at once; chosen: bounds the memory


@dataclass(frozen=True, slots=True)
class Extent:
    """Area that a scan needs, in frame pixels."""

    low: tuple[float, float]  # First ``(y, x)`` where a frame may have a pixel centre
    high: tuple[float, float]  # Last one

    def fine_grid(
        self, oversampling: int
    ) -> tuple[tuple[int, int], tuple[float, float]]:
        """Shape of a fine grid over the area, and the place of its first centre."""
        first = [int(np.floor(v)) for v in self.low]
        last = [int(np.ceil(v)) for v in self.high]
        shape = tuple(
            (b - a + 1) * oversampling for a, b in zip(first, last, strict=True)
        )
        half = 0.5 - 0.5 / oversampling
        return (shape[0], shape[1]), (first[0] - half, first[1] - half)

    def image_size(self, oversampling: int, binning: float) -> tuple[int, int]:
        """Size of the part of an image that a scan needs."""
        (rows, columns), _ = self.fine_grid(oversampling)
        share = binning / oversampling
        return int(np.ceil(rows * share)), int(np.ceil(columns * share))


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene on a grid finer than the frames."""

    sharp: Float32Array  # (Y, X) Reflectance before any optics
    seen: Float32Array  # (Y, X) What light carries of it to the camera's pixels
    # The drawn sample on the same grid; None for a scene made of an image
    surface: Specimen | None
    oversampling: int  # Fine pixels per frame pixel, along an axis
    # Frame coordinate ``(y, x)`` of the centre of fine pixel (0, 0)
    origin_px: tuple[float, float]
    fine_nm: float  # Fine pixel, or what stands for it where none is known
    fwhm_px: float  # Width of a point in focus, in frame pixels
    options: MicroscopeOptions  # Through which it is seen
    # Pixel of the source image on which frame coordinate (0, 0) lies
    image_offset_px: tuple[float, float] | None = None

    @classmethod
    def from_surface(
        cls,
        surface: Specimen,
        origin_px: tuple[float, float],
        oversampling: int,
        options: MicroscopeOptions,
    ) -> "Scene":
        """Look at a drawn surface; `origin_px`: of the centre of its first pixel."""
        sharp = reflectance(
            surface.height_nm,
            surface.material,
            surface.pixel_nm,
            wavelength_nm=options.wavelength_nm,
        )
        fine_nm = surface.pixel_nm
        fwhm_px = options.fwhm_nm / (fine_nm * oversampling)
        made = cls(
            sharp, sharp, surface, oversampling, origin_px, fine_nm, fwhm_px, options
        )
        return made.seen_with(options)

    @classmethod
    def from_image(
        cls,
        image: NDArray[Any],
        extent: Extent,
        oversampling: int,
        binning: float,
        options: MicroscopeOptions,
        pixel_nm: float | None,
    ) -> "Scene":
        """Take the middle of an image as a flat sample: grey values are reflectance."""
        if not np.all(np.isfinite(image)):
            msg = "An image to scan must be finite, got NaN or Inf pixels; fill them."
            raise OptionError(msg)
        if options.resolution_nm is not None and pixel_nm is None:
            msg = (
                "A resolution in nm needs an image whose pixel size is known; give "
                "--pixel-size-nm."
            )
            raise OptionError(msg)
        shape, origin = extent.fine_grid(oversampling)
        needed = extent.image_size(oversampling, binning)
        if needed[0] > image.shape[0] or needed[1] > image.shape[1]:
            msg = (
                f"This scan needs an image of {needed[0]} x {needed[1]} px, got "
                f"{image.shape[0]} x {image.shape[1]}; take fewer or smaller frames."
            )
            raise ShapeError(msg)
        start = [(n - m) // 2 for n, m in zip(image.shape, needed, strict=True)]
        part = image[start[0] : start[0] + needed[0], start[1] : start[1] + needed[1]]
        sharp = _resampled(_as_reflectance(part), shape, oversampling / binning)
        stated = options.optics == "pupil" or options.resolution_nm is not None
        if pixel_nm is None or not stated:
            pixel_nm = options.fwhm_nm / _IMAGE_FWHM_PX
        per_fine = binning / oversampling
        offset = [
            s - 0.5 + per_fine * (0.5 - o * oversampling)
            for s, o in zip(start, origin, strict=True)
        ]
        made = cls(
            sharp,
            sharp,
            None,
            oversampling,
            origin,
            pixel_nm / oversampling,
            options.fwhm_nm / pixel_nm,
            options,
            (float(offset[0]), float(offset[1])),
        )
        return made.seen_with(options)

    def seen_with(
        self, options: MicroscopeOptions, place: Place | None = None
    ) -> "Scene":
        """Look at the same sample, with another focus or at a place in the field."""
        height = None if self.surface is None else self.surface.height_nm
        seen = image_of(
            self.sharp,
            height,
            self.fine_nm,
            options,
            place=place,
            box_px=self.oversampling,
        )
        return replace(self, seen=seen, options=options)

    def around(self, corner: NDArray[np.float64], side: int) -> "Scene":
        """Look at a frame's part through the whole of the lens's field."""
        fine, options = self.oversampling, self.options
        spare = 2 * self.fwhm_px + 2 + abs(options.distortion) * side
        lines, parts = [], []
        for at, first, count in zip(
            corner, self.origin_px, self.sharp.shape, strict=True
        ):
            low = max(0, int((at - spare - first) * fine))
            high = min(count, int((at + side + spare - first) * fine) + 1)
            frame = first + np.arange(low, high) / fine - at - (side - 1) / 2
            lines.append(frame / (side / 2 * options.field_radius))
            parts.append(slice(low, high))
        surface = self.surface
        if surface is not None:
            planes = (surface.height_nm, surface.material)
            height, material = (plane[tuple(parts)] for plane in planes)
            surface = replace(surface, height_nm=height, material=material)
        origin = [
            first + part.start / fine
            for first, part in zip(self.origin_px, parts, strict=True)
        ]
        part = replace(
            self,
            sharp=self.sharp[tuple(parts)],
            surface=surface,
            origin_px=(float(origin[0]), float(origin[1])),
        )
        return part.seen_with(options, (lines[0][:, None], lines[1][None]))

    def coefficients(self) -> Float32Array:
        """Spline coefficients of `seen`, from which `sample` reads, (Y, X)."""
        filtered = ndimage.spline_filter(self.seen, order=3, output=np.float32)
        return np.asarray(filtered)

    def sample(
        self,
        coefficients: Float32Array,
        y: NDArray[np.float64],
        x: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Evaluate the scene anywhere; `coefficients` (Y, X)."""
        where = [
            (at - first) * self.oversampling
            for at, first in zip((y, x), self.origin_px, strict=True)
        ]
        found = ndimage.map_coordinates(
            coefficients,
            where,
            output=np.float64,
            order=3,
            mode="mirror",
            prefilter=False,
        )
        return np.asarray(found)


def _as_reflectance(image: NDArray[Any]) -> Float32Array:
    """Put grey values on the scale of reflectance, the rarest extremes clipped."""
    grey = np.asarray(image, dtype=np.float32)
    low, high = np.percentile(grey, _PERCENTILES)
    if high <= low:
        return np.full(grey.shape, 0.5, np.float32)
    bottom, top = _REFLECTANCE
    unit = np.clip((grey - low) / (high - low), 0, 1)
    return np.asarray(bottom + (top - bottom) * unit, dtype=np.float32)


def _resampled(
    image: Float32Array, shape: tuple[int, int], factor: float
) -> Float32Array:
    """Put an image on the fine grid; pixel areas stay where they are."""
    if factor == 1:
        return image[: shape[0], : shape[1]]
    if factor < 1:
        image = ndimage.gaussian_filter(image, 0.4 / factor, mode="reflect")
    smooth = ndimage.spline_filter(image, order=3, output=np.float32)
    y, x = ((np.arange(n) + 0.5) / factor - 0.5 for n in shape)
    found = np.empty(shape, np.float32)
    for top in range(0, shape[0], _BAND):
        rows = slice(top, top + _BAND)
        grid = np.meshgrid(y[rows], x, indexing="ij")
        ndimage.map_coordinates(
            smooth, grid, output=found[rows], order=3, mode="mirror", prefilter=False
        )
    return found
