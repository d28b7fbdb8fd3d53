"""How one superlens picture of a sample is taken: focus, resolution, light, rounding.

The optics are those of `microscope`, on the mosaic's own pixels and in Fourier space,
which makes them quick. A mosaic averages frames, so its noise is that of more light
where frames overlap, of less at rims that the flat field lifted, and is a little
correlated by resampling; some shading is left.

Not every microscope is a Gaussian: pictures may be taken through a `Pupil`, whose rings
and reversed contrasts are those of a real lens, partly in light that interferes; the
focus may drift over a field, and a lens leave it bent.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import fft, ndimage

from napari_semsr.core import Float32Array, OptionError, ShapeError
from napari_semsr.simulation.phantoms import FWHM, Canvas, Specimen, blur_shares
from napari_semsr.simulation.sem import SemOptions, sem_contrast
from napari_semsr.simulation.superlens.microscope import MicroscopeOptions, reflectance
from napari_semsr.simulation.superlens.specimens import SampleRanges, random_surface

# In pixels: a box of width w has the variance = w^2 / 12; a pixel's less a fine one's.
_BINNED_VARIANCE = (1 - 1 / 4) / 12
_SHADING_NM, _DOSE_NM = 2000.0, 1200.0  # over which light and dose change; chosen


class SsumPairOptions(SampleRanges):
    """Ranges that pairs are drawn from: sample, microscope, noise."""

    pixel_nm: float = Field(default=20.0, gt=0, description="pixel of the mosaic in nm")
    resolution_nm: tuple[float, float] = Field(
        default=(70.0, 110.0),
        description="width of the point spread function in focus at half maximum",
    )
    depth_of_field_nm: tuple[float, float] = Field(
        default=(80.0, 130.0),
        description="distance from the focus at which blur is 1.41 times as wide",
    )
    wavelength_nm: tuple[float, float] = Field(
        default=(500.0, 600.0), description="wavelength of the light"
    )
    defocus_nm: float = Field(
        default=220.0,
        ge=0,
        description="farthest that the focal plane lies above or below the sample",
    )
    focused: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of pictures whose focal plane is within the sample's relief",
    )
    pupils: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of pictures taken through a pupil, plain or apodised, with "
        "coma; the others are blurred by a Gaussian",
    )
    coherence: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="greatest share of a pupil's light that interferes, which draws "
        "fringes along edges",
    )
    focus_drift_nm: float = Field(
        default=0.0, ge=0, description="greatest drift of the focus across a field"
    )
    distortion_px: float = Field(
        default=0.0,
        ge=0,
        le=8,
        description="greatest radial displacement that stitching left in a field",
    )
    read_noise: tuple[float, float] = Field(
        default=(10.0, 10.0),
        description="read noise in counts of 60 000, drawn log-uniformly",
    )
    photons: tuple[float, float] = Field(
        default=(800.0, 12000.0),
        description="photons per pixel of the mosaic at full scale; infinite when 0",
    )
    shading: float = Field(
        default=0.05,
        ge=0,
        lt=0.5,
        description="greatest shading left by the flat field",
    )
    eight_bit: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of pictures of 8 bits; the others have 12",
    )


@dataclass(frozen=True, slots=True)
class Pupil:
    """What a lens lets pass, in place of a Gaussian.

    Attributes
    ----------
    apodisation : float
        Amplitude falls as ``exp(-a rho^2)`` towards the rim, 0 at the centre and 1 at
        the rim; 0 gives Airy's rings, less than 0 stronger ones.
    coma : tuple of float
        Phase at the rim in radians, along y and x.
    coherence : float
        Share of the light that interferes.
    """

    apodisation: float = 0.0
    coma: tuple[float, float] = (0.0, 0.0)
    coherence: float = 0.0


@dataclass(frozen=True, slots=True)
class RandomLook:
    """How one picture is taken.

    Attributes
    ----------
    microscope : MicroscopeOptions
        Resolution, depth of field, focus, wavelength, photons (0 for no noise).
    shading : float
        Standard deviation of the light left uneven, as a share.
    correlation_px : float
        Standard deviation of the blur that resampling lays on the noise.
    bits : int
        8 or 12; 0 for no rounding.
    pupil : Pupil or None
        None for a Gaussian.
    focus_drift_nm : tuple of float
        By how much the focus rises across the field, along y and x.
    bending_px : tuple of float
        Displacement at a corner by radial distortion, and its centre ``(y, x)`` from
        the middle of the field, over the field's side.
    """

    microscope: MicroscopeOptions
    shading: float = 0.0
    correlation_px: float = 0.0
    bits: int = 0
    pupil: Pupil | None = None
    focus_drift_nm: tuple[float, float] = (0.0, 0.0)
    bending_px: tuple[float, float, float] = (0.0, 0.0, 0.0)


def _random_look(
    surface: Specimen,
    rng: np.random.Generator,
    options: SsumPairOptions,
    wavelength_nm: float,
) -> RandomLook:
    """Draw how a picture is taken."""
    low, high = float(surface.height_nm.min()), float(surface.height_nm.max())
    away = 0.0 if rng.random() < options.focused else options.defocus_nm
    focus = float(rng.uniform(low - away, high + away))
    dim, bright = options.photons
    photons = (
        0.0 if dim == 0 else float(np.exp(rng.uniform(np.log(dim), np.log(bright))))
    )
    microscope = MicroscopeOptions(
        resolution_nm=float(rng.uniform(*options.resolution_nm)),
        depth_of_field_nm=float(rng.uniform(*options.depth_of_field_nm)),
        focus_nm=focus,
        wavelength_nm=wavelength_nm,
        photons=photons,
    )
    look = RandomLook(
        microscope,
        shading=options.shading * float(rng.random()) ** 2,
        correlation_px=0.6 * float(rng.random()),
        bits=8 if rng.random() < options.eight_bit else 12,
    )
    return _imperfect(look, rng.spawn(1)[0], options)


def _imperfect(
    look: RandomLook, rng: np.random.Generator, options: SsumPairOptions
) -> RandomLook:
    """Draw what sets a real microscope apart; a stream of its own moves no other."""
    quiet, loud = np.log(options.read_noise)
    noise = float(np.exp(rng.uniform(quiet, loud)))
    pupil = None
    if rng.random() < options.pupils:
        strength, turn = 1.5 * rng.random() ** 2, rng.uniform(0, 2 * np.pi)
        pupil = Pupil(
            # chosen: from rings twice as bright as Airy's to hardly any
            apodisation=float(rng.uniform(-0.7, 1.5)),
            coma=(float(strength * np.sin(turn)), float(strength * np.cos(turn))),
            coherence=options.coherence * float(rng.random()) ** 2,
        )
    drift = options.focus_drift_nm * float(rng.random())
    way = rng.uniform(0, 2 * np.pi)
    bending = options.distortion_px * float(rng.uniform(-1, 1))
    y, x = (float(v) for v in rng.uniform(-1, 1, 2))
    return replace(
        look,
        microscope=look.microscope.replace(read_noise=noise),
        pupil=pupil,
        focus_drift_nm=(drift * float(np.sin(way)), drift * float(np.cos(way))),
        bending_px=(bending, y, x),
    )


def _see(
    light: Float32Array, height_nm: Float32Array, pixel_nm: float, look: RandomLook
) -> Float32Array:
    """Blur by height, on the mosaic's pixels, (Y, X).

    As `blur_by_height`, but of a picture that was averaged over two fine pixels on each
    axis: the blur is narrowed by what that has done, so that the whole is as wide as
    stated (80 nm in focus when nothing is). The picture repeats at its borders.
    """
    sigma = _widths(height_nm, pixel_nm, look)
    shape = light.shape
    total = np.zeros((shape[0], shape[1] // 2 + 1), np.complex64)
    cover = np.zeros_like(total)
    amplitude = np.zeros(shape, np.complex64)
    field = None
    if look.pupil is not None and look.pupil.coherence > 0:
        phase = 4 * np.pi / look.microscope.wavelength_nm * height_nm
        field = np.sqrt(np.maximum(light, 0)) * np.exp(1j * phase)
    for level, share in blur_shares(sigma):
        transfer = _transfer(shape, level, pixel_nm, look)
        part = np.ones(shape, np.float32) if share is None else share
        total += transfer * fft.rfft2(light * part)
        cover += transfer * fft.rfft2(part)
        if field is not None and look.pupil is not None:
            passed = _passed(shape, level, pixel_nm, look)
            amplitude += fft.ifft2(passed * fft.fft2(field * part))
    seen = fft.irfft2(total, shape) / fft.irfft2(cover, shape)
    if field is not None and look.pupil is not None:
        waves = look.pupil.coherence
        seen = (1 - waves) * seen + waves * np.abs(amplitude) ** 2
    return np.asarray(_bent(seen, look.bending_px), np.float32)


def _widths(
    height_nm: Float32Array, pixel_nm: float, look: RandomLook
) -> NDArray[np.float32]:
    """Deviation of the blur in pixels, (Y, X)."""
    rows, columns = height_nm.shape
    down, across = look.focus_drift_nm
    drift = down * np.linspace(-0.5, 0.5, rows)[:, None]
    drift = drift + across * np.linspace(-0.5, 0.5, columns)[None]
    in_focus = _focused_nm(look) / pixel_nm
    width = look.microscope.psf_fwhm_nm(height_nm - drift, in_focus) / FWHM
    return width.astype(np.float32)


def _focused_nm(look: RandomLook) -> float:
    """Full width at half maximum in focus."""
    return look.microscope.resolution_nm or 80.0


def _transfer(
    shape: tuple[int, ...], sigma_px: float, pixel_nm: float, look: RandomLook
) -> NDArray[np.complex64]:
    """Transfer of light through a microscope, for one width of its blur, as `rfft2`."""
    squares = np.float32(-2 * np.pi**2) * _frequencies(shape)
    if look.pupil is None:
        variance = np.float32(max(sigma_px**2 - _BINNED_VARIANCE, 0.0))
        return np.asarray(np.exp(variance * squares), np.complex64)
    spread = np.abs(fft.ifft2(_passed(shape, sigma_px, pixel_nm, look))) ** 2
    transfer = fft.rfft2(spread / spread.sum())
    return np.asarray(transfer * np.exp(-_BINNED_VARIANCE * squares), np.complex64)


# Of the rim of a pupil, in cycles over the width at half maximum of what it makes of a
# point: 0.516 for Airy's, and for others by its apodisation (fitted from -1 to 2).
_RIM = (0.516, 0.046, 0.005)
# Phase at the rim at a depth of field from the focus: half of the light then lies
# within a circle 1.3 times as wide, and far from the focus within one 1.3 times that of
# the Gaussian.
_DEFOCUS_PHASE = 1.6


def _passed(
    shape: tuple[int, ...], sigma_px: float, pixel_nm: float, look: RandomLook
) -> NDArray[np.complex64]:
    """Transfer of amplitude through a pupil, as `fft2` orders it; 1 on the axis."""
    pupil = look.pupil or Pupil()
    a = pupil.apodisation
    in_focus = _focused_nm(look) / pixel_nm
    rim = (_RIM[0] + _RIM[1] * a + _RIM[2] * a * a) / in_focus
    y, x = fft.fftfreq(shape[0])[:, None] / rim, fft.fftfreq(shape[1])[None] / rim
    square = y * y + x * x
    away = np.sqrt(max((sigma_px * FWHM / in_focus) ** 2 - 1, 0.0))
    phase = _DEFOCUS_PHASE * away * square
    phase = phase + (pupil.coma[0] * y + pupil.coma[1] * x) * square
    # the rim is as soft as a step of the grid
    cover = np.clip((1 - np.sqrt(square)) * rim * min(shape) + 0.5, 0, 1)
    return np.asarray(cover * np.exp(-a * square + 1j * phase), np.complex64)


def _bent(image: NDArray[Any], bending_px: tuple[float, float, float]) -> NDArray[Any]:
    """Displace an image along the radius, by as little as keeps its middle in place."""
    most, *middle = bending_px
    if most == 0:
        return image
    sides = zip(image.shape, middle, strict=True)
    lines = [np.linspace(-0.5, 0.5, count) - at for count, at in sides]
    y, x = np.meshgrid(*lines, indexing="ij")
    square = y * y + x * x
    moved = np.stack([y * square, x * square])
    # registration takes out what an affine map can do; the shift is most of it
    moved -= moved.mean((1, 2), keepdims=True)
    moved *= most / max(float(np.hypot(*moved).max()), 1e-9)
    places = np.indices(image.shape) + moved
    found = ndimage.map_coordinates(image, places, order=3, mode="grid-wrap")
    return np.asarray(found)


def _frequencies(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Squared frequency in cycles per pixel, as `rfft2` orders it."""
    y, x = fft.fftfreq(shape[0]), fft.rfftfreq(shape[1])
    return np.asarray(y[:, None] ** 2 + x[None, :] ** 2, dtype=np.float32)


def _record(
    light: Float32Array, pixel_nm: float, look: RandomLook, rng: np.random.Generator
) -> Float32Array:
    """Add what a mosaic of frames has: shading, noise, rounding to 12 bits."""
    canvas = Canvas((light.shape[0], light.shape[1]), pixel_nm, 0.0)
    if look.shading > 0:
        uneven = 1 + look.shading * canvas.rough(_SHADING_NM, rng)
        light = np.asarray(light * uneven, np.float32)
    photons = look.microscope.photons
    if photons > 0:
        # frames overlap, and the flat field has lifted their dark rims
        dose = photons * np.exp(0.4 * canvas.rough(_DOSE_NM, rng))
        noise = rng.standard_normal(light.shape, dtype=np.float32)
        if look.correlation_px > 0:
            noise = ndimage.gaussian_filter(noise, look.correlation_px, mode="reflect")
        read = (look.microscope.read_noise / look.microscope.full_scale) ** 2
        deviation = np.sqrt(np.maximum(light, 0) / dose + read)
        light = np.asarray(light + noise * deviation, np.float32)
    if look.bits == 12:
        light = np.asarray(np.rint(light * 4095) / 4095, np.float32)
    return np.asarray(light, dtype=np.float32)


# Pairs of one sample: what a superlens mosaic shows, and what an electron beam sees.
#
# The grid is that of the simulated scan: 20 nm for a pixel of the mosaic (a camera
# pixel of 6.5 um over 325 times magnification), and the sample is drawn on half of
# that, as `scan` draws it. The electron image lies on the mosaic's pixels (scale 1) or
# on half of them (scale 2, 10 nm, the pixel of the electron image that `simulate`
# writes). The centre of pixel ``i`` of the mosaic is at ``(i + 1/2)`` times its size
# from the border, and so it is for the electron image: at scale 2 its pixels ``2 i``
# and ``2 i + 1`` lie on pixel ``i``. Nothing is shifted or distorted.
#
# The optics are those of `microscope`: reflectance by material, interference and steep
# edges; a blur that widens with the distance from the focal plane. Resolution, depth of
# field and the height in focus are drawn for each picture, the wavelength for each
# sample; noise is a mosaic's.
#
# Grey levels carry no unit: either picture is put on the scale where its own
# percentiles 0.1 and 99.9 are 0 and 1, values beyond them kept. Levels of an electron
# image cannot be known from light, so results are to be judged after an affine match.

_FINE = 2
"""Pixels of the drawn sample per pixel of the mosaic, along an axis."""
_VALIDATION_STREAM = 9_600_017
"""First number of the seeds of the fixed fields; training must not use it."""
_MARGIN = 16  # mosaic pixels around a field for blur to blur; chosen: 320 nm
SPREAD_PX = 49
"""Side of `SsumPair.spread`: two deviations of a blur 700 nm off the focus; chosen."""
_WHOLE_PX = 192  # of the field in which that is computed, so that nothing wraps
_PERCENTILES = (0.1, 99.9)  # chosen: a few extreme pixels set no scale


@dataclass(frozen=True, slots=True)
class SsumPair:
    """Two pictures of one field.

    Attributes
    ----------
    low : (side, side) numpy.ndarray of float32
        Superlens mosaic; its percentiles 0.1 and 99.9 are 0 and 1.
    high : (scale * side, scale * side) numpy.ndarray of float32
        Electron image without noise, on a like scale of its own.
    low_range, high_range : tuple of float
        What 0 and 1 stand for: reflectance, and brightness of `sem_contrast`.
    pixel_nm : float
        Pixel of `low`.
    scale : int
        Pixels of `high` per pixel of `low`.
    kind : str
        What the sample is.
    look : RandomLook
        How `low` was taken.
    noiseless : (side, side) numpy.ndarray of float32
        `low` without noise, shading and rounding, on its scale.
    blur_px : float
        Deviation of the blur, root of its mean square over the field.
    spread : (49, 49) numpy.ndarray of float32
        What the microscope makes of a point at that blur; its sum is 1.
    """

    low: Float32Array
    high: Float32Array
    low_range: tuple[float, float]
    high_range: tuple[float, float]
    pixel_nm: float
    scale: int
    kind: str
    look: RandomLook
    noiseless: Float32Array
    blur_px: float
    spread: Float32Array


def surface_shape(side: int) -> tuple[int, int]:
    """Give the size of the drawn sample that a field needs.

    Parameters
    ----------
    side : int
        Side of the field in pixels of the mosaic.

    Returns
    -------
    tuple of int
        Rows and columns; the field lies in the middle.
    """
    full = int(fft.next_fast_len(side + 2 * _MARGIN, real=True))
    full += (full - side) % 2
    return _FINE * full, _FINE * full


def pair_of_surface(
    surface: Specimen,
    side: int,
    look: RandomLook,
    rng: np.random.Generator,
    *,
    scale: int = 1,
) -> SsumPair:
    """Take both pictures of a given sample.

    Parameters
    ----------
    surface : Specimen
        Of `surface_shape`; its pixel is half of the mosaic's.
    side : int
        Side of the field in pixels of the mosaic.
    look : RandomLook
        How the superlens picture is taken.
    rng : numpy.random.Generator
        Source of noise and shading.
    scale : {1, 2}, default=1
        Pixels of the electron image per pixel of the mosaic.

    Returns
    -------
    SsumPair
        Of the middle of the sample.

    Raises
    ------
    OptionError
        If `scale` is neither 1 nor 2.
    ShapeError
        If the sample has another size.
    """
    field = _prepared(surface, side, scale, look.microscope.wavelength_nm)
    return _pair(field, look, rng)


def random_ssum_pairs(
    side: int,
    rng: np.random.Generator,
    options: SsumPairOptions | None = None,
    count: int = 1,
    *,
    scale: int = 1,
    held_out: bool = False,
) -> Iterator[SsumPair]:
    """Draw one sample and take it several times.

    Parameters
    ----------
    side : int
        Side of the field in pixels of the mosaic.
    rng : numpy.random.Generator
        Source of every choice: same state, same pairs.
    options : SsumPairOptions, optional
        Ranges.
    count : int, default=1
        Pictures of the sample in one light; each has a focus, resolution and noise of
        its own. The electron image is the same for all. Drawing a sample takes several
        times as long as taking it.
    scale : {1, 2}, default=1
        Pixels of the electron image per pixel of the mosaic.
    held_out : bool, default=False
        Take samples that training never draws.

    Yields
    ------
    SsumPair
        One for each picture.

    Raises
    ------
    OptionError
        If `scale` is neither 1 nor 2.
    """
    chosen = options or SsumPairOptions()
    surface = random_surface(
        surface_shape(side),
        pixel_nm=chosen.pixel_nm / _FINE,
        rng=rng,
        ranges=chosen,
        held_out=held_out,
    )
    wavelength = float(rng.uniform(*chosen.wavelength_nm))
    field = _prepared(surface, side, scale, wavelength)
    for _ in range(count):
        yield _pair(field, _random_look(surface, rng, chosen, wavelength), rng)


def ssum_validation(
    count: int,
    side: int,
    *,
    scale: int = 1,
    options: SsumPairOptions | None = None,
    first: int = 0,
) -> list[SsumPair]:
    """Make the fixed fields that choose a checkpoint and train nothing.

    Field ``i`` comes from ``default_rng([VALIDATION_STREAM, i])`` and shows one kind
    of sample, in the order of ``options.kinds``, over and over; seeds of its objects
    lie from 2**31 on, where training draws none. Fields from 1000 on are kept for what
    judges a finished model.

    Parameters
    ----------
    count : int
        Number of fields.
    side : int
        Side in pixels of the mosaic.
    scale : {1, 2}, default=1
        Pixels of the electron image per pixel of the mosaic.
    options : SsumPairOptions, optional
        Ranges.
    first : int, default=0
        Number of the first field.

    Returns
    -------
    list of SsumPair
        The same at every call.
    """
    chosen = options or SsumPairOptions()
    pairs: list[SsumPair] = []
    for index in range(first, first + count):
        one = chosen.replace(kinds=(chosen.kinds[index % len(chosen.kinds)],))
        rng = np.random.default_rng([_VALIDATION_STREAM, index])
        pairs += random_ssum_pairs(side, rng, one, scale=scale, held_out=True)
    return pairs


@dataclass(frozen=True, slots=True)
class _Field:
    """A sample on the mosaic's pixels, margin included, and its electron image."""

    light: Float32Array
    height_nm: Float32Array
    electrons: Float32Array
    side: int
    pixel_nm: float
    kind: str


def _prepared(surface: Specimen, side: int, scale: int, wavelength_nm: float) -> _Field:
    """Do once what all pictures of a sample share."""
    if scale not in (1, _FINE):
        msg = f"scale must be 1 or {_FINE}, got {scale}."
        raise OptionError(msg)
    need = surface_shape(side)
    if surface.height_nm.shape != need:
        rows, columns = surface.height_nm.shape
        msg = (
            f"A field of {side} px needs a sample of {need[0]} x {need[1]} px, got "
            f"{rows} x {columns}."
        )
        raise ShapeError(msg)
    light = reflectance(
        surface.height_nm,
        surface.material,
        surface.pixel_nm,
        wavelength_nm=wavelength_nm,
    )
    fine = sem_contrast(surface, SemOptions())
    return _Field(
        light=_binned(light),
        height_nm=_binned(surface.height_nm),
        electrons=_middle(fine if scale == _FINE else _binned(fine), scale * side),
        side=side,
        pixel_nm=_FINE * surface.pixel_nm,
        kind=surface.kind,
    )


def _pair(field: _Field, look: RandomLook, rng: np.random.Generator) -> SsumPair:
    """Take the superlens picture and put both on their scales."""
    seen = _see(field.light, field.height_nm, field.pixel_nm, look)
    light = _middle(seen, field.side)
    low, low_range = _unit(_record(light, field.pixel_nm, look, rng))
    if look.bits == 8:
        low = np.asarray(np.rint(low * 255) / 255, np.float32)
    high, high_range = _unit(field.electrons)
    widths = _middle(_widths(field.height_nm, field.pixel_nm, look), field.side)
    blur_px = float(np.sqrt(np.mean(np.square(widths))))
    return SsumPair(
        low,
        high,
        low_range,
        high_range,
        field.pixel_nm,
        high.shape[0] // field.side,
        field.kind,
        look,
        _on_scale(light, low_range),
        blur_px,
        _spread(blur_px, field.pixel_nm, look),
    )


def _spread(sigma_px: float, pixel_nm: float, look: RandomLook) -> Float32Array:
    """Give what a microscope makes of a point, (49, 49)."""
    shape = (_WHOLE_PX, _WHOLE_PX)
    made = fft.irfft2(_transfer(shape, sigma_px, pixel_nm, look), shape)
    half = SPREAD_PX // 2
    part = np.roll(made, (half, half), (0, 1))[:SPREAD_PX, :SPREAD_PX]
    return np.asarray(part / part.sum(), np.float32)


def _binned(image: Float32Array) -> Float32Array:
    """Average over the mosaic's pixels."""
    rows = image[::_FINE] + image[1::_FINE]
    return np.asarray((rows[:, ::_FINE] + rows[:, 1::_FINE]) / _FINE**2, np.float32)


def _middle(image: Float32Array, side: int) -> Float32Array:
    """Leave out the margin."""
    first = (image.shape[0] - side) // 2
    return image[first : first + side, first : first + side]


def _unit(image: Float32Array) -> tuple[Float32Array, tuple[float, float]]:
    """Put an image on the scale of its own percentiles."""
    low, high = (float(v) for v in np.percentile(image, _PERCENTILES))
    return _on_scale(image, (low, high)), (low, high)


def _on_scale(image: Float32Array, bounds: tuple[float, float]) -> Float32Array:
    """Bring two grey levels to 0 and 1."""
    span = max(bounds[1] - bounds[0], 1e-6)
    return np.asarray((image - bounds[0]) / span, dtype=np.float32)
