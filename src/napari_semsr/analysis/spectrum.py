"""Power spectra: radial average in physical frequency, and centred image.

Spectra are densities: white noise of variance σ² has the power σ² at every frequency,
independent of the window and the size of the image.
"""

from dataclasses import dataclass

import numpy as np
from pydantic import Field
from scipy import fft

from napari_semsr import core
from napari_semsr.analysis.frc import read_finite_array


class SpectrumOptions(core.Options):
    """Options for a power spectrum."""

    # 1: chosen; steep spectra leak least through a Hann window
    tukey: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Tapered fraction of the window; 1 is a Hann window.",
    )


@dataclass(frozen=True, slots=True)
class RadialSpectrum:
    """Power averaged over rings of equal physical frequency."""

    # (K,) Ring centres up to Nyquist in cycles per mean pixel, without ring 0
    frequency_per_px: core.FloatArray
    # (K,) Mean power density of each ring, grey levels squared times pixel area
    power: core.FloatArray
    # (K,) The same frequencies per µm; None if uncalibrated
    frequency_per_um: core.FloatArray | None
    samples: core.FloatArray  # (K,) FFT samples in each ring


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Radial and two-dimensional power spectrum of an image."""

    radial: RadialSpectrum
    # (Y, X) float32: base-10 logarithm of the power density, the zero frequency at the
    # centre. Its `spacing_px` and `origin` are the frequency step and first frequency
    # ``(y, x)``, in the unit that its metadata name: 1/µm, or 1/px uncalibrated
    image: core.Micrograph


def measure_spectrum(
    m: core.Micrograph, options: SpectrumOptions | None = None
) -> Spectrum:
    """Compute the radial and two-dimensional power spectrum of an image.

    The mean is subtracted and a window applied, without padding.
    """
    # measured: growth of peak memory, 4000 x 4000 px
    core.require_memory(m.name, m.shape, 36.0)
    data = read_finite_array(m)
    if np.ptp(data) == 0:
        msg = f"A spectrum needs contrast, but {m.name} is constant."
        raise core.ShapeError(msg, code="image-blank")
    data -= data.mean()
    window = core.tukey_window_2d(m.shape, (options or SpectrumOptions()).tukey)
    data *= window
    plane = fft.rfft2(data, workers=core.count_available_cores())
    power = np.square(plane.real) + np.square(plane.imag)
    power /= float((window**2).sum())
    del data, window, plane
    rings = core.create_rings(m.shape, core.compute_relative_pitch(m.scale))
    complete = slice(1, rings.complete)
    mean = rings.sum_rings(power)[complete] / np.maximum(rings.samples[complete], 1)
    frequency, samples = rings.frequency[complete], rings.samples[complete]
    nm = m.mean_pixel_size_nm
    per_um = None if nm is None else frequency * (1000 / nm)
    radial = RadialSpectrum(frequency, mean, per_um, samples)
    rows, columns = m.shape
    full = np.empty((rows, columns))  # the half-plane unfolded, then centred
    half = power.shape[1]
    full[:, :half] = power
    mirrored_rows = -np.arange(rows) % rows
    full[:, half:] = power[mirrored_rows][:, columns - np.arange(half, columns)]
    full = np.fft.fftshift(full)
    # of the highest power: 120 dB below it; chosen: beyond any detector
    floor = max(float(full.max()) * 1e-12, np.finfo(np.float64).tiny)
    unit, per = ("1/px", 1.0) if nm is None else ("1/um", 1000.0)
    step = (per / (rows * m.scale[0]), per / (columns * m.scale[1]))
    power_image = core.Micrograph(
        data=np.log10(np.maximum(full, floor)).astype(np.float32),
        name=f"{m.name} spectrum",
        spacing_px=step,
        origin=(-(rows // 2) * step[0], -(columns // 2) * step[1]),
        metadata={
            "quantity": "log10 power density",
            "frequency_unit": unit,
            "frequency_step": step,
            "centred": True,
        },
    )
    return Spectrum(radial, power_image)
