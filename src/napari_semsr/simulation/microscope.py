"""Microscope: image formation by a microsphere in front of an objective.

Steps of the model:

1. *Contrast.* Reflectance is a material's own, times an interference term of the
   height, times a loss at steep edges whose light misses the objective
   (`compute_reflectance`).
2. *Image.* That light is filtered by a lens, or by a Gaussian blur (`simulate_image`).
3. *Field.* Brightness falls as ``v ** rho^2`` from 1 at the centre of the illumination
   to ``v`` at the rim; a round field ends at a circle
   (`create_illumination_field`). Points are displaced radially by ``k rho^2``
   (`napari_semsr.core.distort_positions`).
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import field_validator, model_validator
from scipy import fft, ndimage, special

from napari_semsr import core
from napari_semsr.core import Float32Array, FloatArray, FloatPair
from napari_semsr.simulation.canvas import FWHM, split_blur_widths
from napari_semsr.simulation.specimen import declare_fraction, declare_option

_WIDEST = 0.95  # NA over the refractive index; chosen: a cone of 72 degrees
_ROUND_RADIUS = 0.98  # of half the frame's side; chosen


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


class MicroscopeOptions(core.Options):
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
        ge=-core.MAX_DISTORTION,
        le=core.MAX_DISTORTION,
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
                raise ValueError(core.Message(msg, "options-contradict"))
        check_aperture(self.numerical_aperture, self.refractive_index)
        return self

    @property
    def cut_off_nm(self) -> float | None:
        """Shortest period that the optics transmit, in nm; None for a Gaussian."""
        if self.optics == "gaussian":
            return None
        na = self.numerical_aperture
        return self.wavelength_nm / (2 * na)

    @property
    def fwhm_nm(self) -> float:
        """Full width at half maximum of an in-focus point, in incoherent light."""
        if self.optics == "gaussian":
            return self.resolution_nm or 80.0  # as the manufacturer states
        return 0.51 * self.wavelength_nm / self.numerical_aperture  # Airy pattern

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
        raise ValueError(core.Message(msg, "out-of-range"))


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
    near = 12.0 / pixel_nm  # nm; chosen: the default width of a sidewall
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
        # chosen: the image of the field stop is blurred by 0.6 % of its radius
        past = (np.hypot(y, x) - _ROUND_RADIUS) / 0.006
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


# Optics: imaging of a surface by a lens or with a Gaussian blur.
#
# A surface is a field of light: the square root of its reflectance, with the phase ``4
# pi h / wavelength`` of its height ``h``. A pupil transmits up to ``NA / wavelength``
# periods per length; intensity has up to twice that. In the pupil, with ``rho`` from 0
# on the axis to 1 at the rim, a point at a distance ``z`` above the focal plane has the
# phase ``2 pi z (sqrt(n^2 - NA^2 rho^2) - n) / wavelength``; spherical aberration adds
# ``W (rho^4 - rho^2)`` and coma ``W (rho^2 - 2/3) rho cos(theta)`` waves, each balanced
# by the best defocus or shift, so that points do not move.
#
# Light comes from many source points, which do not interfere with each other: the
# intensities of their images are summed [1]_. The source fills the pupil up to its
# radius times the coherence factor. For each source point, the phase of directly
# reflected light depends on the height alone. Incoherent light is filtered by the
# autocorrelation of the pupil.
#
# A few pupils represent the distances from the focus and the positions in the field:
# their weights sum to 1 and multiply the surface before it is filtered. There is no
# division afterwards, so no frequency is above the cut-off.
#
# A Gaussian has no cut-off: it is the blur of instruments beyond the limit of a lens,
# ``sqrt(1 + (z / D)^2)`` times as wide at a distance ``z``. The light of each depth is
# normalised by its blurred coverage.
#
# Terms: *in focus* means that the radius containing half of a point's light is less
# than sqrt(2) times its minimum, up to `focus_depth_nm` from the focal plane; *out of
# focus* is beyond; *any focus* is drawn uniformly up to `ANY_FOCUS` times that
# distance, above and below.
#
# .. [1] E. Abbe, Archiv f. mikrosk. Anatomie 9, 413 (1873), doi:10.1007/BF02956173.

ANY_FOCUS = 3.0
"""Largest simulated distance from the focus, in units of `focus_depth_nm`."""
_STEP = 1.0  # phase at the rim, in radians, between neighbouring depths or zones
_FINE = 80  # samples from a pupil's centre to its rim; error of the transfer 1e-3

Place = tuple[float | NDArray[np.floating], float | NDArray[np.floating]]
Complex = NDArray[np.complexfloating]


def simulate_image(
    light: Float32Array,
    height_nm: Float32Array | None,
    pixel_nm: float,
    options: MicroscopeOptions,
    *,
    wave: Complex | None = None,
    place: Place | None = None,
    box_px: float = 0.0,
    bin_factor: int = 1,
) -> Float32Array:
    """Simulate the microscope image of a surface (Y, X); borders are mirrored.

    `light`: reflectance; `height_nm`: above the lowest surface, None for a flat one.
    `wave`: field of light if pixels are means of finer ones; by default from `light`
    and `height_nm`. `place`: ``(y, x)`` in the field over its radius, for the whole
    image or as a column and a row; the centre by default. `box_px`: side of the
    camera's pixel; the width of a Gaussian includes it. `bin_factor`: finer pixels
    averaged into one of `light`, along an axis; a Gaussian is narrowed accordingly.
    """
    off = np.asarray(0.0 if height_nm is None else height_nm) - options.focus_nm
    off = np.broadcast_to(off.astype(np.float32), light.shape)
    if options.optics == "gaussian":
        sigma = compute_gaussian_fwhm_nm(options, off) / FWHM / pixel_nm
        sigma, variance = sigma.astype(np.float32), (1 - bin_factor**-2) / 12
        return _apply_varying_blur(light, sigma, variance)
    rim = options.numerical_aperture / options.wavelength_nm * pixel_nm
    # chosen: a mirrored border of 1.5 wavelengths over the aperture
    reach = 1.5 * options.wavelength_nm / options.numerical_aperture
    border = int(np.ceil((reach + float(np.abs(off).max())) / pixel_nm))
    coherence = options.coherence_factor
    if coherence is None:
        wave = light.astype(np.complex64)
    elif wave is None:
        wave = compute_light_field(light, height_nm, options.wavelength_nm)
    shape = [int(fft.next_fast_len(n + 2 * border)) for n in light.shape]
    small = [int(fft.next_fast_len(int(4 * rim * n) + 3)) for n in shape]
    bands = [np.fft.fftfreq(g) * g / n / rim for g, n in zip(small, shape, strict=True)]
    # heights at which the surface is imaged, and their distance
    low, high = float(off.min()), float(off.max())
    turn = abs(float(_compute_defocus_phase(np.ones(1), options)[0])) * (high - low)
    levels, step = np.array([(low + high) / 2]), 0.0
    if turn >= 0.02 * _STEP:
        levels = np.linspace(low, high, 1 + int(np.ceil(turn / _STEP)))
        step = float(levels[1] - levels[0])
    errors, waves = [], []
    for share, spherical, coma in _iterate_field_zones(options, place):
        errors.append((spherical, coma))
        field, spectra = wave if share is None else wave * share, []
        for level in levels:  # the light is divided among the levels
            part = np.clip(1 - np.abs(off - level) / step, 0, 1) if step else 1
            light_part = field * np.asarray(part, np.float32)
            spectra.append(_compute_spectrum(light_part, border, shape, small))
        waves.append(spectra)
    fields = np.array(waves), bands
    if coherence is None:
        image = _filter_waves(*fields, levels, errors, options)
    else:
        image = _sum_source_images(*fields, (levels[0], step), errors, options)
    for axis, band in enumerate(bands):
        box = np.sinc(box_px * rim * band)
        image = image * box[:, None] if axis == 0 else image * box
    for axis, count in enumerate(shape):
        image = _resize_spectrum(image, count, axis)
        image = fft.ifft(image, axis=axis, norm="forward")
        image = np.take(image, range(border, border + light.shape[axis]), axis)
    return np.asarray(image.real, np.float32)


def compute_light_field(
    light: Float32Array, height_nm: Float32Array | None, wavelength_nm: float
) -> Complex:
    """Compute the complex light field reflected by a surface (Y, X)."""
    root = np.sqrt(np.maximum(light, 0))
    if height_nm is None:
        return root.astype(np.complex64)
    turn = np.float32(4 * np.pi / wavelength_nm) * height_nm
    for slope in np.gradient(turn):  # light of a steep pixel partly cancels
        root = root * np.sinc(slope / np.float32(2 * np.pi))
    return np.asarray(root * np.exp(1j * turn), np.complex64)


def _iterate_field_zones(
    options: MicroscopeOptions, place: Place | None
) -> Iterator[tuple[Float32Array | None, float, FloatPair]]:
    """Yield the zones of a field: weight, spherical aberration and coma in waves."""
    worst = abs(options.spherical_waves) / 4 + abs(options.coma_waves) / 3
    if place is None or not options.is_aberrated:
        yield None, 0.0, (0.0, 0.0)
        return
    if np.ndim(place[0]) == 0:
        yield None, *_compute_aberrations(options, float(place[0]), float(place[1]))
        return
    count = max(1, int(np.ceil(2 * np.pi * worst / _STEP)))
    knots = np.linspace(-1, 1, 2 * count + 1)
    lines = [np.clip(line, -1, 1) for line in place]
    hats = [
        [np.clip(1 - np.abs(line - knot) * count, 0, 1) for line in lines]
        for knot in knots
    ]
    for y, (down, _) in zip(knots, hats, strict=True):
        for x, (_, across) in zip(knots, hats, strict=True):
            share = np.asarray(down * across, np.float32)
            if share.any():
                yield share, *_compute_aberrations(options, y, x)


def _compute_aberrations(
    options: MicroscopeOptions, y: float, x: float
) -> tuple[float, FloatPair]:
    """Return spherical aberration, and coma along y and x, at a position, in waves."""
    coma = options.coma_waves
    return options.spherical_waves * (y * y + x * x), (coma * y, coma * x)


def _compute_spectrum(
    wave: Complex, border: int, shape: list[int], small: list[int]
) -> Complex:
    """Mirror a field at its borders; return the frequencies transmitted by a lens."""
    pairs = zip(shape, wave.shape, strict=True)
    ends = [(border, n - have - border) for n, have in pairs]
    spectrum = np.pad(wave, ends, mode="symmetric")
    for axis in (1, 0):
        spectrum = fft.fft(spectrum, axis=axis, norm="forward")
        spectrum = _resize_spectrum(spectrum, small[axis], axis)
    return spectrum


def _resize_spectrum(spectrum: Complex, count: int, axis: int) -> Complex:
    """Remove the highest frequencies along an axis, or pad with zeros."""
    keep = min(count, spectrum.shape[axis])
    low, high = np.split(spectrum, [(spectrum.shape[axis] + 1) // 2], axis)
    low = np.take(low, range((keep + 1) // 2), axis)
    high = np.take(high, range(high.shape[axis] - keep // 2, high.shape[axis]), axis)
    gap = list(low.shape)
    gap[axis] = count - keep
    return np.concatenate([low, np.zeros(gap, spectrum.dtype), high], axis)


def _compute_defocus_phase(
    square: FloatArray, options: MicroscopeOptions
) -> FloatArray:
    """Compute the pupil phase per nm above the focus; `square`: squared rho."""
    n, na = options.refractive_index, options.numerical_aperture
    upright = np.sqrt(np.maximum(n * n - na * na * square, 0))
    return np.asarray(2 * np.pi / options.wavelength_nm * (upright - n))


def _compute_aberration_phase(
    y: FloatArray, x: FloatArray, spherical: float, coma: FloatPair
) -> FloatArray:
    """Compute the pupil phase due to aberrations."""
    square = y * y + x * x
    waves = spherical * (square - 1) * square
    tilted = (coma[0] * y + coma[1] * x) * (square - 2 / 3)
    return np.asarray(2 * np.pi * (waves + tilted))


def _sum_source_images(
    waves: Complex,
    bands: list[FloatArray],
    depth: FloatPair,
    errors: list[tuple[float, FloatPair]],
    options: MicroscopeOptions,
) -> Complex:
    """Sum the images of all source points; return the spectrum of the intensity."""
    small = waves.shape[2:]
    flat = waves.reshape(*waves.shape[:2], -1)
    total = np.zeros(small, np.float32)
    points = create_source_points(options.coherence_factor or 0.0)
    # a rim one frequency step wide, so that ripples do not wrap around
    soft = max(band[1] for band in bands)
    for down, across in points:
        y, x = (bands[0] + down)[:, None], (bands[1] + across)[None]
        cover = np.clip((1 - np.hypot(y, x)) / soft + 0.5, 0, 1)
        inside = np.flatnonzero(cover)
        rows, columns = np.divmod(inside, small[1])
        y, x = y[rows, 0], x[0, columns]
        # all phases are relative to that of directly reflected light
        axial = _compute_defocus_phase(np.array([down**2 + across**2]), options)
        away = _compute_defocus_phase(np.minimum(y * y + x * x, 1), options) - axial
        rise = np.exp(1j * depth[1] * away).astype(np.complex64)
        amplitude = np.zeros(inside.size, np.complex64)
        for parts, (spherical, coma) in zip(flat, errors, strict=True):
            part = parts[-1, inside]
            for other in parts[-2::-1]:
                part = part * rise + other[inside]
            phase = _compute_aberration_phase(y, x, spherical, coma)
            phase = phase - _compute_aberration_phase(down, across, spherical, coma)
            amplitude += part * np.exp(1j * phase)
        amplitude *= cover.ravel()[inside] * np.exp(1j * depth[0] * away)
        image = np.zeros(flat.shape[-1], np.complex64)
        image[inside] = amplitude
        field = fft.ifft2(image.reshape(small), norm="forward")
        total += field.real**2 + field.imag**2
    return np.asarray(fft.fft2(total / len(points), norm="forward"))


def create_source_points(coherence_factor: float) -> FloatArray:
    """Return source points (y, x) of equal intensity, relative to the pupil radius."""
    # four rings, 61 points, over the pupil; chosen: 6 % from the limit
    rings = int(np.ceil(4 * coherence_factor))
    count = 1 + 3 * rings * (rings + 1)
    points = [(0.0, 0.0)]
    for ring in range(1, rings + 1):
        before, after = 1 + 3 * ring * (ring - 1), 1 + 3 * ring * (ring + 1)
        radius = coherence_factor * np.sqrt((before + after) / 2 / count)
        turns = 2 * np.pi * (np.arange(6 * ring) + 0.5 * (ring % 2)) / (6 * ring)
        points += [(radius * np.sin(t), radius * np.cos(t)) for t in turns]
    return np.array(points)


# Incoherent light: the transfer of intensity is the autocorrelation of the pupil,
# computed on a separate grid, so that it does not depend on the image's.


def compute_transfer_function(
    options: MicroscopeOptions,
    depths: list[FloatPair],
    spherical: float = 0.0,
    coma: FloatPair = (0.0, 0.0),
) -> Complex:
    """Compute the incoherent transfer function; `depths`: nm from focus, weights."""
    size = int(fft.next_fast_len(4 * _FINE + 8))
    line = np.arange(-_FINE - 1, _FINE + 2) / _FINE
    y, x = line[:, None], line[None]
    square = y * y + x * x
    cover = np.clip((1 - np.sqrt(square)) * _FINE + 0.5, 0, 1)
    inside = np.minimum(square, 1)
    pupil_part = cover * np.exp(1j * _compute_aberration_phase(y, x, spherical, coma))
    away = _compute_defocus_phase(inside, options)
    power = np.zeros((size, size))
    for off_nm, share in depths:
        pupil = (pupil_part * np.exp(1j * off_nm * away)).astype(np.complex64)
        power += share * np.abs(fft.fft2(pupil, (size, size))) ** 2
    transfer = fft.fftshift(fft.ifft2(power))
    transfer /= np.sum(cover)
    # rims are soft
    transfer[size // 2, size // 2] = sum(share for _, share in depths)
    return np.asarray(transfer)


def _interpolate_transfer_function(
    fine: Complex, y: FloatArray, x: FloatArray
) -> Complex:
    """Interpolate a transfer function at frequencies relative to the rim frequency."""
    middle = fine.shape[0] // 2
    line = (np.arange(fine.shape[0]) - middle) / _FINE
    # the difference to a pupil without errors has no cusp at zero
    whole = fine[middle, middle].real
    more = fine - whole * _compute_ideal_otf(line[:, None], line[None])
    lines = [np.clip(middle + _FINE * v, 0, fine.shape[0] - 1) for v in (y, x)]
    places = np.broadcast_arrays(*lines)
    planes = more.real, more.imag
    real, imag = (ndimage.map_coordinates(n, places, order=1) for n in planes)
    values = whole * _compute_ideal_otf(y, x) + real + 1j * imag
    return np.asarray(values, np.complex64)


def _compute_ideal_otf(y: FloatArray, x: FloatArray) -> FloatArray:
    """Return the incoherent transfer function of an aberration-free pupil."""
    return core.ideal_otf(np.hypot(y, x) / 2)


def _filter_waves(
    waves: Complex,
    bands: list[FloatArray],
    levels: FloatArray,
    errors: list[tuple[float, FloatPair]],
    options: MicroscopeOptions,
) -> Complex:
    """Filter incoherent light by depth and field zone; return its spectrum."""
    total = np.zeros(waves.shape[2:], np.complex64)
    for parts, (spherical, coma) in zip(waves, errors, strict=True):
        for part, level in zip(parts, levels, strict=True):
            if part.any():
                fine = compute_transfer_function(
                    options, [(level, 1.0)], spherical, coma
                )
                total += part * _interpolate_transfer_function(
                    fine, bands[0][:, None], bands[1][None]
                )
    return total


def compute_psf(
    options: MicroscopeOptions,
    depths: list[FloatPair],
    pixel_nm: float,
    side: int,
    *,
    place: Place | None = None,
    box_px: float = 1.0,
) -> Float32Array:
    """Compute the incoherent point spread function (side, side), with a sum of 1.

    `depths` are distances from the focus in nm with the share of each; the focus of the
    options is ignored. `side` is odd; the point is in the centre. `place` is ``(y, x)``
    in the field over its radius, by default the centre, `box_px` the side of the
    camera's pixel, which the width of a Gaussian includes.
    """
    whole = int(fft.next_fast_len(4 * side, real=True))
    y, x = fft.fftfreq(whole)[:, None], fft.rfftfreq(whole)[None]
    if options.optics == "gaussian":
        squares = -2 * np.pi**2 * (y * y + x * x)
        spectrum: Complex | FloatArray = sum(
            share
            * np.exp(
                squares
                * (compute_gaussian_fwhm_nm(options, off) / FWHM / pixel_nm) ** 2
            )
            for off, share in depths
        )
    else:
        rim = options.numerical_aperture / options.wavelength_nm * pixel_nm
        ((_, spherical, coma),) = _iterate_field_zones(options, place)
        fine = compute_transfer_function(options, depths, spherical, coma)
        spectrum = _interpolate_transfer_function(fine, y / rim, x / rim)
        spectrum = spectrum * np.sinc(box_px * y) * np.sinc(box_px * x)
    spread = fft.irfft2(spectrum, (whole, whole))
    part = np.roll(spread, (side // 2, side // 2), (0, 1))[:side, :side]
    return np.asarray(part / part.sum(), np.float32)


# A Gaussian instead of a lens.


def compute_gaussian_fwhm_nm(
    options: MicroscopeOptions, off_nm: NDArray[np.floating] | float
) -> NDArray[np.floating]:
    """Return the FWHM of a Gaussian as a function of the distance from focus."""
    off = np.asarray(off_nm) / compute_focus_depth_nm(options)
    return options.fwhm_nm * np.sqrt(1 + off**2)


def _apply_varying_blur(
    light: Float32Array, sigma: Float32Array, less: float
) -> Float32Array:
    """Blur each pixel (Y, X) by its own width; `less`: variance already applied."""
    border = int(np.ceil(4.5 * float(sigma.max())))
    shape = [int(fft.next_fast_len(n + 2 * border, real=True)) for n in light.shape]
    ends = [
        (border, n - have - border) for n, have in zip(shape, light.shape, strict=True)
    ]
    y, x = fft.fftfreq(shape[0])[:, None], fft.rfftfreq(shape[1])[None]
    squares = np.float32(-2 * np.pi**2) * (y * y + x * x).astype(np.float32)
    total = np.zeros(squares.shape, np.complex64)
    cover = np.zeros_like(total)
    for level, share in split_blur_widths(sigma):
        transmission = np.exp(np.float32(max(level**2 - less, 0.0)) * squares)
        part = np.ones(light.shape, np.float32) if share is None else share
        total += transmission * fft.rfft2(np.pad(light * part, ends, mode="symmetric"))
        cover += transmission * fft.rfft2(np.pad(part, ends, mode="symmetric"))
    blurred = fft.irfft2(total, shape) / fft.irfft2(cover, shape)
    rows, columns = (slice(border, border + n) for n in light.shape)
    return np.asarray(blurred[rows, columns], np.float32)


# Width of a point: radius of the circle that contains half of its light.


def compute_half_light_radius_nm(
    options: MicroscopeOptions, off_nm: NDArray[np.floating] | float
) -> FloatArray:
    """Return the half-light radius of a point, in nm, as a function of defocus."""
    off = np.abs(np.asarray(off_nm, np.float64))
    if options.optics == "gaussian":
        return np.asarray(compute_gaussian_fwhm_nm(options, off) / 2, np.float64)
    table = np.linspace(0, max(float(off.max()), 1.0), 33)
    return np.asarray(np.interp(off, table, _compute_half_light_radii(options, table)))


def compute_focus_depth_nm(options: MicroscopeOptions) -> float:
    """Return the distance in nm from the focal plane up to which a point is in focus.

    There the radius that contains half of a point's light is sqrt(2) times its minimum.
    """
    if options.optics == "gaussian":
        return options.depth_of_field_nm or 100.0
    upright = abs(float(_compute_defocus_phase(np.ones(1), options)[0]))
    table = np.linspace(0, 2 * np.pi, 129) / upright
    radii = np.maximum.accumulate(_compute_half_light_radii(options, table))
    return float(np.interp(np.sqrt(2) * radii[0], radii, table))


def _compute_half_light_radii(
    options: MicroscopeOptions, off_nm: FloatArray
) -> FloatArray:
    """Compute half-light radii as a function of the distance from focus."""
    rho, weights, radius, waves = _create_pupil_rings()
    phase = off_nm[:, None] * _compute_defocus_phase(rho**2, options)
    amplitude = (weights * rho * np.exp(1j * phase)) @ waves
    light = np.abs(amplitude) ** 2 * radius
    light = np.cumsum((light[:, 1:] + light[:, :-1]) / 2 * np.diff(radius), axis=1)
    # by Parseval's theorem, all light of a pupil with amplitude 1
    share = light * (2 * np.pi) ** 2 / 0.5
    radii = [np.interp(0.5, row, radius[1:]) for row in share]
    unit = options.wavelength_nm / options.numerical_aperture
    return unit * np.asarray(radii)


@lru_cache(maxsize=1)
def _create_pupil_rings() -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Create pupil rings with weights, image radii, and the waves between them."""
    nodes, weights = np.polynomial.legendre.leggauss(160)
    rho = (nodes + 1) / 2
    radius = np.linspace(0, 12, 800)  # wavelengths over NA; chosen: covers all light
    return rho, weights / 2, radius, special.j0(2 * np.pi * rho[:, None] * radius)
