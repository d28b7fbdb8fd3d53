"""How one superlens picture of a sample is taken: focus, resolution, light, rounding.

The optics are those of `microscope`, on the mosaic's own pixels and in Fourier space,
which makes them quick. A mosaic averages frames, so its noise is that of more light
where frames overlap, of less at rims that the flat field lifted, and is a little
correlated by resampling; some shading is left.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import fft, ndimage

from napari_semsr.simulate.blur import FWHM, blur_widths, width_share
from napari_semsr.simulate.canvas import Canvas, Plane
from napari_semsr.simulate.microscope import MicroscopeOptions, psf_fwhm_nm
from napari_semsr.simulate.objects import Surface
from napari_semsr.simulate.ssum_samples import SampleRanges

__all__ = ["Look", "SsumPairOptions", "random_look", "record", "see"]

_BINNED_VARIANCE = (1 - 1 / 4) / 12  # a pixel's, less that of a fine one
_SHADING_NM, _DOSE_NM = 2000.0, 1200.0  # over which light and dose change


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
class Look:
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
    """

    microscope: MicroscopeOptions
    shading: float = 0.0
    correlation_px: float = 0.0
    bits: int = 0


def random_look(
    surface: Surface,
    rng: np.random.Generator,
    options: SsumPairOptions,
    wavelength_nm: float,
) -> Look:
    """Draw how a picture is taken.

    Parameters
    ----------
    surface : Surface
        The sample, whose heights say where the focus may be.
    rng : numpy.random.Generator
        Source of every choice.
    options : SsumPairOptions
        Ranges.
    wavelength_nm : float
        Wavelength of the light.

    Returns
    -------
    Look
        Focused within the relief, or off it.
    """
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
    return Look(
        microscope,
        shading=options.shading * float(rng.random()) ** 2,
        correlation_px=0.6 * float(rng.random()),
        bits=8 if rng.random() < options.eight_bit else 12,
    )


def see(
    light: Plane, height_nm: Plane, pixel_nm: float, microscope: MicroscopeOptions
) -> Plane:
    """Blur by height, on the mosaic's pixels.

    As `microscope.blur_by_height`, but of a picture that was averaged over two fine
    pixels on each axis: the blur is narrowed by what that has done, so that the whole
    is as wide as stated. The picture repeats at its borders.

    Parameters
    ----------
    light, height_nm : (Y, X) numpy.ndarray of float32
        Reflectance and height on the mosaic's pixels.
    pixel_nm : float
        Side of these.
    microscope : MicroscopeOptions
        Resolution (80 nm when not given), depth of field, focus.

    Returns
    -------
    (Y, X) numpy.ndarray of float32
        What an ideal camera would see.
    """
    in_focus = (microscope.resolution_nm or 80.0) / pixel_nm
    width = psf_fwhm_nm(height_nm, microscope, in_focus) / FWHM
    sigma: Plane = width.astype(np.float32)
    levels = blur_widths(float(sigma.min()), float(sigma.max()))
    shape = light.shape
    squares = _frequencies(shape)
    total = np.zeros(squares.shape, np.complex64)
    cover = np.zeros(squares.shape, np.complex64)
    for index, level in enumerate(levels):
        variance = np.float32(max(level**2 - _BINNED_VARIANCE, 0.0))
        transfer = np.exp(-2 * np.float32(np.pi**2) * variance * squares)
        share = np.ones(shape, np.float32)
        if len(levels) > 1:
            share = width_share(sigma, levels, index)
        total += transfer * fft.rfft2(light * share)
        cover += transfer * fft.rfft2(share)
    return np.asarray(fft.irfft2(total, shape) / fft.irfft2(cover, shape), np.float32)


def _frequencies(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Squared frequency in cycles per pixel, as `rfft2` orders it."""
    y, x = fft.fftfreq(shape[0]), fft.rfftfreq(shape[1])
    return np.asarray(y[:, None] ** 2 + x[None, :] ** 2, dtype=np.float32)


def record(
    light: Plane, pixel_nm: float, look: Look, rng: np.random.Generator
) -> Plane:
    """Add what a mosaic of frames has: shading, noise, rounding to 12 bits.

    Parameters
    ----------
    light : (Y, X) numpy.ndarray of float32
        What an ideal camera would see.
    pixel_nm : float
        Side of a pixel.
    look : Look
        How much of each.
    rng : numpy.random.Generator
        Source of noise and shading.

    Returns
    -------
    (Y, X) numpy.ndarray of float32
        Reflectance as recorded.
    """
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
