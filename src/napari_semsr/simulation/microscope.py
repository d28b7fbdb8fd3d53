"""Microscope: image formation by a microsphere in front of an objective.

Steps of the model:

1. *Contrast.* Reflectance is a material's own, times an interference term of the
   height, times a loss at steep edges whose light misses the objective
   (`compute_reflectance`).
2. *Image.* That light is filtered by a lens, or by a Gaussian blur
   (`napari_semsr.simulation.optics`).
3. *Field.* Brightness falls as ``v ** rho^2`` from 1 at the centre of the illumination
   to ``v`` at the rim; a round field ends at a circle
   (`create_illumination_field`). Points are displaced radially by ``k rho^2``
   (`napari_semsr.core.distort_positions`).
"""

from typing import Literal, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import field_validator, model_validator
from scipy import ndimage

from napari_semsr.core import (
    MAX_DISTORTION,
    Float32Array,
    FloatArray,
    Message,
    Options,
)
from napari_semsr.simulation.specimen import declare_fraction, declare_option

_MAKERS_FWHM_NM = 80.0  # as stated by the manufacturer of the microscope
_AIRY_FWHM = 0.51  # of the Airy pattern, in wavelengths over the numerical aperture
_WIDEST = 0.95  # NA over the refractive index; chosen: a cone of 72 degrees
_ROUND_RADIUS = 0.98  # of half the frame's side; chosen
_RIM_SOFTNESS = 0.006  # of the same: blur of the field stop's image; chosen
_EDGE_NM = 12.0  # smoothing length of surface slopes; chosen: the default sidewall


OPTICS = (
    "optics",
    "numerical_aperture",
    "refractive_index",
    "wavelength_nm",
    "coherence_factor",
    "spherical_waves",
    "coma_waves",
)
"""Options that define the in-focus PSF."""


class MicroscopeOptions(Options):
    """Options for the microsphere, objective, field and camera."""

    optics: Literal["pupil", "gaussian"] = declare_option(
        "pupil",
        "a lens with a numerical aperture, or a Gaussian blur, for instruments "
        "beyond the limit of a lens",
    )
    numerical_aperture: float = declare_option(
        1.8,
        "numerical aperture of microsphere and objective together, up to 0.95 of the "
        "refractive index",
        gt=0,
    )
    refractive_index: float = declare_option(
        1.9, "index of the microsphere", ge=1, le=4
    )
    coherence_factor: float | None = declare_fraction(
        1.0,
        "aperture of the illumination over that of the imaging: 0 for coherent "
        "light, 1 for illumination through the same lens; or incoherent",
    )
    spherical_waves: float = declare_option(
        0.0,
        "spherical aberration at the rim of the field, in waves at the rim of the "
        "pupil; grows with the square of the distance from the centre",
        ge=-1,
        le=1,
    )
    coma_waves: float = declare_option(
        0.0,
        "coma at the rim of the field, in waves at the rim of the pupil; grows with "
        "the distance from the centre, along the radius",
        ge=-1,
        le=1,
    )
    resolution_nm: float | None = declare_option(
        None,
        "full width at half maximum of a Gaussian in focus, in nm; 80 for a phantom, "
        "3 px for an image",
        gt=0,
    )
    depth_of_field_nm: float | None = declare_option(
        None,
        "distance from the focus at which a Gaussian is 1.41 times as wide, in nm; 100",
        gt=0,
    )
    focus_nm: float = declare_option(0.0, "focal plane above the lowest surface, in nm")
    wavelength_nm: float = declare_option(550.0, "wavelength of the light in nm", gt=0)
    objective: float = declare_option(100.0, "magnification of the objective", gt=0)
    microsphere: float = declare_option(3.25, "magnification of the microsphere", gt=0)
    microsphere_um: float = declare_option(
        57.0, "diameter of the microsphere in micrometres", gt=0
    )
    camera_pixel_um: float = declare_option(6.5, "pixel of the camera in µm", gt=0)
    field: Literal["round", "square"] = declare_option("round", "shape of the field")
    vignetting: float | None = declare_option(
        None,
        "brightness at the rim (round) or corner (square), over the centre; 0.35 for "
        "a round field, 0.65 for a square one",
        gt=0,
        le=1,
    )
    offcentre: float = declare_fraction(
        0.0, "distance of the brightest point from the centre, over half the frame"
    )
    tilt: float = declare_option(
        0.0, "change of brightness across the frame, as a share", ge=0, le=0.9
    )
    distortion: float = declare_option(
        0.0,
        "displacement at the rim, per radius",
        ge=-MAX_DISTORTION,
        le=MAX_DISTORTION,
    )
    dust: int = declare_option(0, "specks, the same in each frame", ge=0, le=500)
    photons: float = declare_option(
        2000.0, "photons per pixel at full scale; 0 for no shot noise", ge=0
    )
    read_noise: float = declare_option(10.0, "read noise in camera counts", ge=0)
    dark_counts: float | None = declare_option(
        None,
        "offset of the camera in counts; 100, or four times the read noise if that "
        "is more, so that noise is not clipped at zero",
        ge=0,
        le=20000,
    )
    full_scale: float = declare_option(
        60000.0,
        "camera counts, above the offset, of a reflectance of 1",
        gt=0,
        le=65535,
    )

    @field_validator("coherence_factor", mode="before")
    @classmethod
    def _parse_coherence(cls, value: object) -> object:
        """Accept the word "incoherent" for incoherent light."""
        return None if value == "incoherent" else value

    @model_validator(mode="after")
    def _check_optics(self) -> Self:
        """Raise an error for impossible apertures or options that do not apply."""
        names, other = ["depth_of_field_nm", "resolution_nm"], "gaussian"
        if self.optics == "gaussian":
            names, other = sorted({*OPTICS} - {"optics", "wavelength_nm"}), "pupil"
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                msg = f"{name} applies only with `optics={other}`: set that, or omit it"
                raise ValueError(Message(msg, "options-contradict"))
        check_aperture(self.numerical_aperture, self.refractive_index)
        return self

    @property
    def cut_off_nm(self) -> float | None:
        """Shortest period that the optics transmit, in nm; None for a Gaussian."""
        if self.optics == "gaussian":
            return None
        return self.wavelength_nm / (2 * self.numerical_aperture)

    @property
    def fwhm_nm(self) -> float:
        """Full width at half maximum of an in-focus point, in incoherent light."""
        if self.optics == "gaussian":
            return self.resolution_nm or _MAKERS_FWHM_NM
        return _AIRY_FWHM * self.wavelength_nm / self.numerical_aperture

    @property
    def is_aberrated(self) -> bool:
        """Whether the image of a point depends on its position in the field."""
        waves = self.spherical_waves, self.coma_waves
        return self.optics == "pupil" and any(waves)

    @property
    def magnified_pixel_nm(self) -> float:
        """Sample pixel size in nm: camera pixel divided by both magnifications."""
        return self.camera_pixel_um * 1e3 / (self.objective * self.microsphere)

    @property
    def offset(self) -> float:
        """Camera offset: counts without light."""
        if self.dark_counts is not None:
            return self.dark_counts
        return min(max(100.0, 4 * self.read_noise), 20000.0)

    @property
    def field_radius(self) -> float:
        """Radius of the illuminated field, relative to half the side length."""
        return _ROUND_RADIUS if self.field == "round" else float(np.sqrt(2.0))

    @property
    def rim_brightness(self) -> float:
        """Ratio of the rim brightness to the centre brightness."""
        if self.vignetting is not None:
            return self.vignetting
        return 0.35 if self.field == "round" else 0.65


def compute_minimum_index(numerical_aperture: float) -> float:
    """Return the lowest refractive index that allows a given numerical aperture."""
    return numerical_aperture / _WIDEST


def check_aperture(numerical_aperture: float, refractive_index: float) -> None:
    """Raise an error if a medium does not allow a given numerical aperture."""
    most = _WIDEST * refractive_index
    if numerical_aperture > most * (1 + 1e-9):
        msg = (
            f"numerical_aperture must be at most {most:.4g} ({_WIDEST:g} times the "
            f"refractive index {refractive_index:g}), got {numerical_aperture:g}"
        )
        raise ValueError(Message(msg, "out-of-range"))


def compute_reflectance(
    height_nm: Float32Array,
    material: Float32Array,
    pixel_nm: float,
    *,
    wavelength_nm: float = 550.0,
) -> Float32Array:
    """Compute the unblurred reflected light; `material`: fraction of material two."""
    own = 0.38 + 0.44 * material
    phase = 4 * np.pi / wavelength_nm * height_nm
    interference = 0.8 + 0.2 * np.cos(phase)
    near = _EDGE_NM / pixel_nm
    slope = ndimage.gaussian_gradient_magnitude(height_nm, near, mode="nearest")
    steep = (slope / pixel_nm) ** 2
    loss = 0.35 * steep / (1 + steep)
    return np.asarray(own * interference * (1 - loss), dtype=np.float32)


def create_illumination_field(
    options: MicroscopeOptions, size: int, rng: Generator
) -> Float32Array:
    """Create a frame's illumination: vignetting, offset, tilt, dust, field stop."""
    towards, sideways = rng.uniform(0, 2 * np.pi, 2)
    # centred coordinates, in units of half the side
    line = np.asarray(np.linspace(-1, 1, size) * (size - 1) / size, dtype=np.float64)
    y, x = line[:, None], line[None, :]
    centre = options.offcentre * np.array([np.sin(towards), np.cos(towards)])
    outer = options.field_radius
    rho2 = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / outer**2
    light = options.rim_brightness**rho2
    light *= 1 + options.tilt * (y * np.sin(sideways) + x * np.cos(sideways)) / outer
    through = np.ones((size, size))  # out-of-focus specks on the optics
    for _ in range(options.dust):
        cy, cx = rng.uniform(-0.9, 0.9, 2)
        radius, depth = rng.uniform(0.01, 0.05), rng.uniform(0.1, 0.5)
        off = (np.hypot(y - cy, x - cx) - radius) / (0.4 * radius)
        through *= 1 - depth / (1 + np.exp(np.clip(off * 2, -60, 60)))
    light *= through
    if options.field == "round":
        past = (np.hypot(y, x) - _ROUND_RADIUS) / _RIM_SOFTNESS
        light /= 1 + np.exp(np.clip(2 * (past - 2.5), -60, 60))
    return np.asarray(light, dtype=np.float32)


# The camera: photons to counts, with shot noise, read noise and offset.


def compute_expected_counts(
    light: NDArray[np.floating], options: MicroscopeOptions
) -> FloatArray:
    """Compute the mean counts of a pixel from offset and light, without noise."""
    return options.offset + options.full_scale * np.asarray(light, np.float64)


def simulate_camera_counts(
    light: NDArray[np.floating], options: MicroscopeOptions, rng: Generator
) -> NDArray[np.uint16]:
    """Simulate camera counts for light, with shot noise, read noise and rounding."""
    signal: FloatArray = np.maximum(np.asarray(light, np.float64), 0)
    if options.photons > 0:
        signal = rng.poisson(signal * options.photons) / options.photons
    counts = compute_expected_counts(signal, options)
    if options.read_noise > 0:
        counts = counts + rng.normal(0, options.read_noise, counts.shape)
    return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)
