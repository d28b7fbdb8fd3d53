"""Simulated superlens images: focus, resolution, light and rounding.

The optics are those of `optics`, on the pixels of the mosaic. A mosaic averages frames,
so its noise is lower where frames overlap, higher at rims brightened by flat-field
correction, and slightly correlated by resampling; some shading remains. The focus may
drift across a field, and the lens may leave distortion. Each part of a mosaic was
imaged at one position in the field of the lens, so an image has one aberration.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import model_validator
from scipy import fft, ndimage

from napari_semsr import core
from napari_semsr.core import Float32Array, FloatPair, IntPair
from napari_semsr.simulation import microscope as microscopes, specimen
from napari_semsr.simulation.canvas import Canvas
from napari_semsr.simulation.microscope import MicroscopeOptions
from napari_semsr.simulation.sem import compute_sem_contrast
from napari_semsr.simulation.specimen import Specimen, declare_fraction, declare_option

_FORMER = {"focused", "defocus_nm"}  # in all model cards that predate the optics


class SsumPairOptions(specimen.SampleRanges):
    """Ranges for simulated pairs: sample, microscope, noise."""

    pixel_nm: float = declare_option(20.0, "pixel of the mosaic in nm", gt=0)
    numerical_aperture: FloatPair = declare_option((1.3, 2.0), "aperture of the lens")
    refractive_index: FloatPair = declare_option(
        (1.9, 2.2), "index of the lens, drawn from the values that allow the aperture"
    )
    coherence_factor: FloatPair = declare_option(
        (0.4, 1.0), "aperture of the illumination, over that of the lens"
    )
    spherical_waves: float = declare_fraction(
        0.25, "greatest spherical aberration at the rim of the field"
    )
    coma_waves: float = declare_fraction(0.25, "greatest coma at the rim of the field")
    gaussian: float = declare_fraction(
        0.25,
        "share of images blurred by a Gaussian instead of a lens, for instruments "
        "beyond the limit of a lens",
    )
    resolution_nm: FloatPair = declare_option(
        (70.0, 110.0), "full width at half maximum of a Gaussian in focus, in nm"
    )
    depth_of_field_nm: FloatPair = declare_option(
        (80.0, 130.0),
        "distance from the focus at which a Gaussian is 1.41 times as wide, in nm",
    )
    wavelength_nm: FloatPair = declare_option((500.0, 600.0), "wavelength of the light")
    any_focus: float = declare_fraction(
        0.5,
        "share of images at any focus; in the others the mean height of the sample "
        "is in focus",
    )
    focus_drift_nm: float = declare_option(
        0.0, "largest drift of the focus across a field, in nm", ge=0
    )
    distortion_px: float = declare_option(
        0.0, "largest radial displacement left by stitching, in pixels", ge=0, le=8
    )
    read_noise: FloatPair = declare_option(
        (10.0, 10.0), "read noise in counts of 60 000, drawn log-uniformly"
    )
    photons: FloatPair = declare_option(
        (800.0, 12000.0), "photons per pixel of the mosaic at full scale; 0: no noise"
    )
    shading: float = declare_option(
        0.05, "largest shading left by flat-field correction, as a share", ge=0, lt=0.5
    )
    eight_bit: float = declare_fraction(0.5, "share of images of 8 bits instead of 12")

    @model_validator(mode="before")
    @classmethod
    def _convert_old_record(cls, values: object) -> object:
        """Convert an old model card: pupils become Gaussians of the same width."""
        if not isinstance(values, dict) or not values.keys() >= _FORMER:
            return values
        former = _FORMER | {"pupils", "coherence"}
        rest = {key: value for key, value in values.items() if key not in former}
        return {"gaussian": 1.0, "any_focus": 1 - float(values["focused"]), **rest}

    @model_validator(mode="after")
    def _check_apertures(self) -> Self:
        """Raise an error for apertures that no refractive index in the range allows."""
        limits = self.numerical_aperture[1], self.refractive_index[1]
        microscopes.check_aperture(*limits)
        return self


@dataclass(frozen=True, slots=True)
class ImagingSettings:
    """Settings of one simulated image."""

    microscope: MicroscopeOptions  # Optics, focus, wavelength, photons (0 for no noise)
    shading: float = 0.0  # Standard deviation of the remaining shading, as a share
    # Standard deviation of the blur of the noise by resampling
    correlation_px: float = 0.0
    bits: int = 0  # 8 or 12; 0 for no rounding
    # Position of the image in the field of the lens, ``(y, x)`` over the radius of the
    # field; None for the centre
    place: FloatPair | None = None
    # Rise of the focus across the field, along y and x
    focus_drift_nm: FloatPair = (0.0, 0.0)
    # Displacement at a corner by radial distortion, and its centre ``(y, x)`` from the
    # centre of the field, over the field's side
    bending_px: tuple[float, float, float] = (0.0, 0.0, 0.0)


def _draw_imaging_settings(
    surface: Specimen,
    rng: Generator,
    options: SsumPairOptions,
    wavelength_nm: float,
) -> ImagingSettings:
    """Draw random settings of an image."""
    photons = 0.0
    if options.photons[0] != 0:
        photons = float(np.exp(rng.uniform(*np.log(options.photons))))
    quiet, loud = np.log(options.read_noise)
    if rng.random() < options.gaussian:
        lens = MicroscopeOptions(
            optics="gaussian",
            resolution_nm=float(rng.uniform(*options.resolution_nm)),
            depth_of_field_nm=float(rng.uniform(*options.depth_of_field_nm)),
        )
    else:
        aperture = float(rng.uniform(*options.numerical_aperture))
        low, high = options.refractive_index
        least = max(low, microscopes.compute_minimum_index(aperture))
        lens = MicroscopeOptions(
            numerical_aperture=aperture,
            refractive_index=float(rng.uniform(least, high)),
            coherence_factor=float(rng.uniform(*options.coherence_factor)),
            spherical_waves=options.spherical_waves * float(rng.uniform(-1, 1)),
            coma_waves=options.coma_waves * float(rng.random()),
        )
    read_noise = float(np.exp(rng.uniform(quiet, loud)))
    camera = {"photons": photons, "read_noise": read_noise}
    microscope = lens.replace(wavelength_nm=wavelength_nm, **camera)
    far = microscopes.ANY_FOCUS if rng.random() < options.any_focus else 1.0
    depth = microscopes.compute_focus_depth_nm(microscope)
    focus = float(surface.height_nm.mean()) - far * depth * float(rng.uniform(-1, 1))
    # positions are uniform over the area of the field
    radius, turn = np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
    drift = options.focus_drift_nm * float(rng.random())
    way = rng.uniform(0, 2 * np.pi)
    bending = options.distortion_px * float(rng.uniform(-1, 1))
    y, x = (float(v) for v in rng.uniform(-1, 1, 2))
    return ImagingSettings(
        microscope.replace(focus_nm=focus),
        shading=options.shading * float(rng.random()) ** 2,
        correlation_px=0.6 * float(rng.random()),
        bits=8 if rng.random() < options.eight_bit else 12,
        place=(float(radius * np.sin(turn)), float(radius * np.cos(turn))),
        focus_drift_nm=(drift * float(np.sin(way)), drift * float(np.cos(way))),
        bending_px=(bending, y, x),
    )


def _distort_radially(
    image: core.RealArray, bending_px: tuple[float, float, float]
) -> core.RealArray:
    """Distort an image radially, without a mean shift."""
    most, *middle = bending_px
    if most == 0:
        return image
    sides = zip(image.shape, middle, strict=True)
    lines = [np.linspace(-0.5, 0.5, count) - at for count, at in sides]
    y, x = np.meshgrid(*lines, indexing="ij")
    square = y * y + x * x
    displacement = np.stack([y * square, x * square])
    # registration removes the affine part; most of it is the shift
    displacement -= displacement.mean((1, 2), keepdims=True)
    displacement *= most / max(float(np.hypot(*displacement).max()), 1e-9)
    places = np.indices(image.shape) + displacement
    return np.asarray(ndimage.map_coordinates(image, places, mode="grid-wrap"))


def _simulate_recording(
    light: Float32Array,
    pixel_nm: float,
    look: ImagingSettings,
    rng: Generator,
) -> Float32Array:
    """Add shading, noise and rounding as in a mosaic of frames."""
    canvas = Canvas((light.shape[0], light.shape[1]), pixel_nm, 0.0)
    if look.shading > 0:
        # chosen: light varies over 2000 nm, the dose over 1200 nm
        uneven = 1 + look.shading * canvas.create_relief(2000.0, rng)
        light = np.asarray(light * uneven, np.float32)
    photons = look.microscope.photons
    if photons > 0:
        # frames overlap, and flat-field correction has brightened their rims
        dose = photons * np.exp(0.4 * canvas.create_relief(1200.0, rng))
        noise = rng.standard_normal(light.shape, dtype=np.float32)
        if look.correlation_px > 0:
            noise = ndimage.gaussian_filter(noise, look.correlation_px, mode="reflect")
        read = (look.microscope.read_noise / look.microscope.full_scale) ** 2
        deviation = np.sqrt(np.maximum(light, 0) / dose + read)
        light = np.asarray(light + noise * deviation, np.float32)
    if look.bits == 12:
        light = np.asarray(np.rint(light * 4095) / 4095, np.float32)
    return np.asarray(light, dtype=np.float32)


# Pairs of images of one sample: a superlens mosaic and an SEM image.
#
# The grid is that of the simulated scan: a pixel of the mosaic is 20 nm (a camera pixel
# of 6.5 um over a magnification of 325), and the sample has half of that, as in `scan`.
# The SEM image has the pixels of the mosaic (scale 1) or half of them (scale 2,
# 10 nm, the pixel of the SEM image that `simulate` writes). In both images the centre
# of pixel ``i`` is ``(i + 1/2)`` times the pixel size from the border: at scale 2
# pixels ``2 i`` and ``2 i + 1`` cover pixel ``i``. There is no shift or distortion.
#
# Reflectance is computed by `microscope` from material, interference and steep edges,
# and its image by `optics`. The lens and the height in focus are drawn for each image,
# the wavelength for each sample; noise is that of a mosaic.
#
# Grey levels have no unit: each image is scaled so that its percentiles 0.1 and 99.9
# are 0 and 1; values outside are not clipped. The levels of an SEM image cannot be
# inferred from optical ones, so evaluate results after an affine match of grey levels.

_FINE = 2  # pixels of the sample per pixel of the mosaic, along an axis; chosen
_Numbers = TypeVar("_Numbers", np.float32, np.complexfloating)


@dataclass(frozen=True, slots=True)
class SsumPair:
    """Two images of the same field."""

    # (side, side) Superlens mosaic; 0 and 1 are its percentiles 0.1 and 99.9
    low: Float32Array
    # (scale * side, scale * side) SEM image without noise, scaled by its own
    # percentiles
    high: Float32Array
    # Values of 0 and 1: reflectance, and brightness of `compute_sem_contrast`
    low_range: FloatPair
    high_range: FloatPair
    pixel_nm: float  # Pixel of `low`
    scale: int  # Pixels of `high` per pixel of `low`
    kind: str  # Kind of the sample
    look: ImagingSettings  # Settings of `low`
    # (side, side) `low` without noise, shading and rounding, on its scale
    noiseless: Float32Array
    # Standard deviation of the Gaussian with the same half-light radius as a point,
    # root mean square over the field
    blur_px: float
    # Mean height of the sample above the focal plane, over the distance at which focus
    # ends; -1 to 1 in focus
    defocus: float


def get_surface_shape(side: int) -> IntPair:
    """Return the shape of a sample whose central part is `side` mosaic pixels wide."""
    # chosen: 16 px of the mosaic (320 nm) around a field, for blur
    full = int(fft.next_fast_len(side + 2 * 16, real=True))
    full += (full - side) % 2
    return _FINE * full, _FINE * full


def simulate_ssum_pair(
    surface: Specimen,
    side: int,
    look: ImagingSettings,
    rng: Generator,
    *,
    scale: int = 1,
) -> SsumPair:
    """Simulate both images of the central part of a given sample.

    The sample has `get_surface_shape` and half the pixel size of the mosaic; `side`
    is in pixels of the mosaic, and `scale`, 1 or 2, is the number of SEM pixels per
    mosaic pixel, along an axis. Noise and shading are random.
    """
    field = _prepare_sample(surface, side, scale, look.microscope.wavelength_nm)
    return _simulate_pair(field, look, rng)


def simulate_random_ssum_pairs(
    side: int,
    rng: Generator,
    options: SsumPairOptions | None = None,
    count: int = 1,
    *,
    scale: int = 1,
    held_out: bool = False,
) -> Iterator[SsumPair]:
    """Draw one sample and simulate `count` images of it at one wavelength.

    Each has its own focus, resolution and noise; the SEM image is the same for all.
    Drawing a sample takes several times as long as imaging it. `side` is in pixels of
    the mosaic, and `scale`, 1 or 2, is the number of SEM pixels per mosaic pixel, along
    an axis; `held_out` uses samples that training never draws.
    """
    settings = options or SsumPairOptions()
    surface = specimen.create_random_surface(
        get_surface_shape(side),
        pixel_nm=settings.pixel_nm / _FINE,
        rng=rng,
        ranges=settings,
        held_out=held_out,
    )
    wavelength = float(rng.uniform(*settings.wavelength_nm))
    field = _prepare_sample(surface, side, scale, wavelength)
    for _ in range(count):
        look = _draw_imaging_settings(surface, rng, settings, wavelength)
        yield _simulate_pair(field, look, rng)


def simulate_validation_pairs(
    count: int,
    side: int,
    *,
    scale: int = 1,
    options: SsumPairOptions | None = None,
    first: int = 0,
) -> list[SsumPair]:
    """Simulate the validation fields, used to select a checkpoint, not for training.

    Field ``i``, counted from `first`, comes from ``default_rng([9600017, i])`` and
    shows one kind of sample, in the order of ``options.kinds``, repeated; training must
    not use that seed, and the seeds of its objects are 2**31 or more, which training
    never draws. Fields from 1000 on are reserved for the evaluation of finished models.
    For `side` and `scale` see `simulate_ssum_pair`.
    """
    settings = options or SsumPairOptions()
    pairs: list[SsumPair] = []
    for index in range(first, first + count):
        one = settings.replace(kinds=(settings.kinds[index % len(settings.kinds)],))
        rng = np.random.default_rng([9_600_017, index])
        pairs += simulate_random_ssum_pairs(side, rng, one, scale=scale, held_out=True)
    return pairs


@dataclass(frozen=True, slots=True)
class _PreparedSample:
    """A sample on the mosaic grid with a margin, and its SEM image."""

    light: Float32Array
    wave: NDArray[np.complexfloating]
    height_nm: Float32Array
    electrons: Float32Array
    side: int
    pixel_nm: float
    kind: str


def _prepare_sample(
    surface: Specimen, side: int, scale: int, wavelength_nm: float
) -> _PreparedSample:
    """Compute the data shared by all images of a sample."""
    if scale not in (1, _FINE):
        msg = f"scale must be 1 or {_FINE}, got {scale}."
        raise core.OptionError(msg, code="unknown-value")
    need = get_surface_shape(side)
    if surface.height_nm.shape != need:
        got = " x ".join(map(str, surface.height_nm.shape))
        size = f"{need[0]} x {need[1]} px"
        msg = f"A field of {side} px needs a sample of {size}, got {got}."
        raise core.ShapeError(msg, code="image-too-small")
    height, pixel = surface.height_nm, surface.pixel_nm
    light = microscopes.compute_reflectance(
        height, surface.material, pixel, wavelength_nm=wavelength_nm
    )
    wave = microscopes.compute_light_field(light, height, wavelength_nm)
    contrast = compute_sem_contrast(surface)
    electrons = contrast if scale == _FINE else _bin_pixels(contrast)
    return _PreparedSample(
        light=_bin_pixels(light),
        wave=_bin_pixels(wave),
        height_nm=_bin_pixels(height),
        electrons=_crop_centre(electrons, scale * side),
        side=side,
        pixel_nm=_FINE * surface.pixel_nm,
        kind=surface.kind,
    )


def _simulate_pair(
    field: _PreparedSample, look: ImagingSettings, rng: Generator
) -> SsumPair:
    """Simulate the superlens image, and scale both images."""
    # above a focal plane that drifts across the field
    (rows, columns), (down, across) = field.height_nm.shape, look.focus_drift_nm
    drift = down * np.linspace(-0.5, 0.5, rows)[:, None]
    drift = drift + across * np.linspace(-0.5, 0.5, columns)[None]
    level, pixel = np.asarray(field.height_nm - drift, np.float32), field.pixel_nm
    image = microscopes.simulate_image(
        *(field.light, level, pixel, look.microscope),
        wave=field.wave,
        place=look.place,
        box_px=1.0,
        bin_factor=_FINE,
    )
    image = np.asarray(_distort_radially(image, look.bending_px), np.float32)
    light = _crop_centre(image, field.side)
    recorded = _simulate_recording(light, field.pixel_nm, look, rng)
    low, low_range = _scale_by_percentiles(recorded)
    if look.bits == 8:
        low = np.asarray(np.rint(low * 255) / 255, np.float32)
    high, high_range = _scale_by_percentiles(field.electrons)
    off = _crop_centre(level, field.side) - look.microscope.focus_nm
    radii = microscopes.compute_half_light_radius_nm(look.microscope, off)
    # that radius of a Gaussian over its sigma
    half_light = float(np.sqrt(2 * np.log(2)))
    blur_px = float(np.sqrt(np.mean(radii**2))) / half_light / pixel
    depth = microscopes.compute_focus_depth_nm(look.microscope)
    return SsumPair(
        *(low, high, low_range, high_range, field.pixel_nm),
        scale=high.shape[0] // field.side,
        kind=field.kind,
        look=look,
        noiseless=_scale_grey_levels(light, low_range),
        blur_px=blur_px,
        defocus=float(off.mean()) / depth,
    )


def _bin_pixels(image: NDArray[_Numbers]) -> NDArray[_Numbers]:
    rows = image[::_FINE] + image[1::_FINE]
    return np.asarray((rows[:, ::_FINE] + rows[:, 1::_FINE]) / _FINE**2, image.dtype)


def _crop_centre(image: Float32Array, side: int) -> Float32Array:
    first = (image.shape[0] - side) // 2
    return image[first : first + side, first : first + side]


def _scale_by_percentiles(image: Float32Array) -> tuple[Float32Array, FloatPair]:
    low, high = (float(v) for v in np.percentile(image, (0.1, 99.9)))
    return _scale_grey_levels(image, (low, high)), (low, high)


def _scale_grey_levels(image: Float32Array, bounds: FloatPair) -> Float32Array:
    """Scale an image so that two given grey levels map to 0 and 1."""
    span = max(bounds[1] - bounds[0], 1e-6)
    return np.asarray((image - bounds[0]) / span, dtype=np.float32)
