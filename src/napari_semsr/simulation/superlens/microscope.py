"""The microscope: what a microsphere on an objective makes of a surface.

The model, step by step:

1. *Contrast.* Reflectance is a material's own, times an interference term of the
   height, times a loss at steep edges whose light misses the objective
   (`reflectance`).
2. *Blur.* A Gaussian whose full width at half maximum is the stated resolution in
   focus and ``sqrt(1 + (d / D)^2)`` times as wide at a distance ``d`` from the focal
   plane, ``D`` being the depth of field (`blur_by_height`). The width is that of the
   whole system, the camera's pixel included: a frame samples the blurred scene.
3. *Field.* Brightness falls as ``v ** rho^2`` from 1 at the centre of the illumination
   to ``v`` at the rim; a round field ends at a circle (`illumination_field`). Points
   are displaced along the radius by ``k rho^2`` (`napari_semsr.core.distort`).

The blur is shared out by height and normalised: light of each depth is blurred by its
own width, and divided by the depth's own cover, so that an even surface stays even
across a step. This keeps out the halo that an opaque step would not show.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from napari_semsr.core import MOST_DISTORTION, Float32Array, Options
from napari_semsr.simulation.phantoms import FWHM, blur_by_width, gaussian_blur

_ROUND_RADIUS = 0.98  # of half the frame's side; chosen
_RIM_SOFTNESS = 0.006  # of the same: deviation of the field stop's image; chosen
_EDGE_NM = 12.0  # over which a surface's slope is felt; chosen: the default sidewall


class MicroscopeOptions(Options):
    """Microsphere, objective, field and camera."""

    resolution_nm: float | None = Field(
        default=None,
        gt=0,
        description="width of the point spread function in focus at half maximum, in "
        "nm; 80 for a phantom, 3 px for an image",
    )
    depth_of_field_nm: float = Field(
        default=100.0,
        gt=0,
        description="distance from the focus at which blur is 1.41 times as wide",
    )
    focus_nm: float = Field(
        default=0.0, description="height of the focal plane above the lowest surface"
    )
    wavelength_nm: float = Field(
        default=550.0, gt=0, description="wavelength of the light in nm"
    )
    objective: float = Field(
        default=100.0, gt=0, description="magnification of the objective"
    )
    microsphere: float = Field(
        default=3.25, gt=0, description="magnification of the microsphere"
    )
    microsphere_um: float = Field(
        default=57.0, gt=0, description="diameter of the microsphere in micrometres"
    )
    camera_pixel_um: float = Field(
        default=6.5, gt=0, description="pixel of the camera in micrometres"
    )
    field: Literal["round", "square"] = Field(
        default="round", description="shape of the lit field"
    )
    vignetting: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="brightness at the rim (round) or corner (square) over that at the "
        "centre; 0.35 for a round field, 0.65 for a square one",
    )
    offcentre: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="distance of the brightest point from the centre, over half the "
        "frame",
    )
    tilt: float = Field(
        default=0.0,
        ge=0,
        le=0.9,
        description="rise and fall of brightness across the frame, as a share",
    )
    distortion: float = Field(
        default=0.0,
        ge=-MOST_DISTORTION,
        le=MOST_DISTORTION,
        description="displacement at the rim along the radius, over that radius",
    )
    dust: int = Field(
        default=0,
        ge=0,
        le=500,
        description="specks on the optics, the same in each frame",
    )
    photons: float = Field(
        default=2000.0,
        ge=0,
        description="photons per pixel at full scale; 0 for no shot noise",
    )
    read_noise: float = Field(
        default=10.0, ge=0, description="read noise in camera counts"
    )
    dark_counts: float | None = Field(
        default=None,
        ge=0,
        le=20000,
        description="offset of the camera in counts; 100, or four times the read noise "
        "where that is more, so that noise is not cut off at zero",
    )
    full_scale: float = Field(
        default=60000.0,
        gt=0,
        le=65535,
        description="camera counts, above the offset, of a reflectance of 1",
    )

    @property
    def magnified_pixel_nm(self) -> float:
        """Pixel on the sample: that of the camera over both magnifications."""
        return self.camera_pixel_um * 1e3 / (self.objective * self.microsphere)

    @property
    def offset(self) -> float:
        """Counts of a camera in the dark."""
        if self.dark_counts is not None:
            return self.dark_counts
        return min(max(100.0, 4 * self.read_noise), 20000.0)

    @property
    def rim(self) -> float:
        """Brightness at the rim over that at the centre."""
        if self.vignetting is not None:
            return self.vignetting
        return 0.35 if self.field == "round" else 0.65

    def psf_fwhm_nm(
        self, height_nm: NDArray[np.floating] | float, in_focus: float
    ) -> NDArray[np.float64]:
        """Width of the point spread function at a height.

        Parameters
        ----------
        height_nm : float or numpy.ndarray
            Above the lowest surface.
        in_focus : float
            Full width at half maximum in focus, in any unit.

        Returns
        -------
        numpy.ndarray
            Full width at half maximum, in that unit.
        """
        off = np.asarray(height_nm, np.float64) - self.focus_nm
        return np.asarray(in_focus * np.sqrt(1 + (off / self.depth_of_field_nm) ** 2))


def reflectance(
    height_nm: Float32Array,
    material: Float32Array,
    pixel_nm: float,
    *,
    wavelength_nm: float = 550.0,
) -> Float32Array:
    """Reflected light of a surface, (Y, X), before any blur.

    `material` (Y, X), cover by the second material (metal, particles), in [0, 1].
    """
    own = 0.38 + 0.44 * material
    phase = 4 * np.pi / wavelength_nm * height_nm
    interference = 0.8 + 0.2 * np.cos(phase)
    near = _EDGE_NM / pixel_nm
    slope = ndimage.gaussian_gradient_magnitude(height_nm, near, mode="nearest")
    steep = (slope / pixel_nm) ** 2
    lost = 0.35 * steep / (1 + steep)
    return np.asarray(own * interference * (1 - lost), dtype=np.float32)


def blur_by_height(
    image: Float32Array,
    height_nm: Float32Array | None,
    fwhm_px: float,
    options: MicroscopeOptions,
) -> Float32Array:
    """Blur a scene (Y, X) by a width that grows with the distance from the focal plane.

    `fwhm_px`: full width at half maximum in focus, in pixels of `image`.
    """
    if height_nm is None:
        return gaussian_blur(image, float(options.psf_fwhm_nm(0.0, fwhm_px)) / FWHM)
    return blur_by_width(image, options.psf_fwhm_nm(height_nm, fwhm_px))


def illumination_field(
    options: MicroscopeOptions, size: int, rng: np.random.Generator
) -> Float32Array:
    """Brightness over a frame: vignetting, off-centre light, tilt, dust, field stop.

    `size`: side of the frame in px.
    """
    towards, sideways = rng.uniform(0, 2 * np.pi, 2)
    y, x = _unit_grid(size)
    centre = options.offcentre * np.array([np.sin(towards), np.cos(towards)])
    outer = _ROUND_RADIUS if options.field == "round" else np.sqrt(2.0)
    rho2 = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / outer**2
    light = options.rim**rho2
    light *= 1 + options.tilt * (y * np.sin(sideways) + x * np.cos(sideways)) / outer
    light *= _specks(options.dust, size, rng)
    if options.field == "round":
        past = (np.hypot(y, x) - _ROUND_RADIUS) / _RIM_SOFTNESS
        light /= 1 + np.exp(np.clip(2 * (past - 2.5), -60, 60))
    return np.asarray(light, dtype=np.float32)


def _unit_grid(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates from the centre over half the side, as an open grid."""
    line = np.linspace(-1, 1, size) * (size - 1) / size
    line = np.asarray(line, dtype=np.float64)
    return line[:, None], line[None, :]


def _specks(count: int, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Transmission of out-of-focus specks on the optics."""
    y, x = _unit_grid(size)
    through = np.ones((size, size))
    for _ in range(count):
        cy, cx = rng.uniform(-0.9, 0.9, 2)
        radius, depth = rng.uniform(0.01, 0.05), rng.uniform(0.1, 0.5)
        off = (np.hypot(y - cy, x - cx) - radius) / (0.4 * radius)
        through *= 1 - depth / (1 + np.exp(np.clip(off * 2, -60, 60)))
    return through


# The camera: photons to counts, with shot noise, read noise and offset.


def expected_counts(
    light: NDArray[np.floating], options: MicroscopeOptions
) -> NDArray[np.float64]:
    """Mean counts of a pixel: offset and light, neither noise nor rounding."""
    return options.offset + options.full_scale * np.asarray(light, np.float64)


def expose(
    light: NDArray[np.floating], options: MicroscopeOptions, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """Take a picture.

    With ``P`` photons at a full scale of ``F`` counts, light ``s`` gives counts of mean
    ``dark + F s`` and variance ``F^2 s / P + R^2``, and 1/12 for the rounding.
    """
    signal: NDArray[Any] = np.maximum(np.asarray(light, np.float64), 0)
    if options.photons > 0:
        signal = rng.poisson(signal * options.photons) / options.photons
    counts = expected_counts(signal, options)
    if options.read_noise > 0:
        counts = counts + rng.normal(0, options.read_noise, counts.shape)
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)
