import numpy as np
import pytest

from napari_semsr.core.errors import OptionError
from napari_semsr.simulation import MicroscopeOptions, compute_psf
from napari_semsr.simulation.microscope import (
    compute_light_field,
    simulate_image,
)
from tests.refusals import refused

LENS = MicroscopeOptions()
UNIT = LENS.wavelength_nm / LENS.numerical_aperture
CASES = [0.5, *(pytest.param(v, marks=pytest.mark.broad) for v in (0.0, 1.0, None))]


def point(options, off_nm=0.0, *, pixel_nm=UNIT / 60, side=161, **more):
    depths = [(off_nm, 1.0)]
    return compute_psf(options, depths, pixel_nm, side, box_px=0, **more)


def sample(rng, shape=(192, 192)):
    """Reflectance and height of blocks of 80 nm, on pixels of 10 nm."""
    blocks = [rng.random([n // 8 for n in shape], np.float32) for _ in range(2)]
    light, height = (b.repeat(8, 0).repeat(8, 1) for b in blocks)
    return light, 160 * height


def taken(light, height_nm, options, **more):
    return simulate_image(light, height_nm, 10.0, options, **more)


@pytest.mark.parametrize(
    ("waves", "pixel_nm"), [(20, 20.0), (45, 20.0), (70, 20.0), (200, 200.0)]
)
def test_incoherent_transfer_is_that_of_a_circular_pupil(waves, pixel_nm):
    # a cosine whose mirror image goes on as itself
    frequency = waves / 256 / 2
    cosine = np.cos(2 * np.pi * frequency * (np.arange(256) + 0.5))
    light = np.broadcast_to(0.5 + 0.4 * cosine, (256, 256)).astype(np.float32)
    seen = simulate_image(light, None, pixel_nm, LENS.replace(coherence_factor=None))
    middle = slice(64, 192)
    design = np.stack([cosine[middle], np.ones(128)], axis=1)
    passed = np.linalg.lstsq(design, seen[middle, middle].mean(0), rcond=None)[0]
    v = min(frequency / pixel_nm * LENS.cut_off_nm, 1)
    expected = 2 / np.pi * (np.arccos(v) - v * np.sqrt(1 - v * v))
    assert passed[0] / 0.4 == pytest.approx(expected, abs=1e-3)


def test_airys_first_zero_and_width_are_where_they_belong():
    row = point(LENS)[80, 80:]
    zero = int(np.argmax(np.diff(row) > 0))
    assert zero / 60 == pytest.approx(0.61, abs=0.01)
    assert row[zero] < 1e-3 * row[0]
    width = 2 * np.interp(-0.5 * row[0], -row[:37], np.arange(37)) / 60 * UNIT
    assert width == pytest.approx(LENS.fwhm_nm, rel=0.01)


@pytest.mark.quick(1)
@pytest.mark.parametrize(("aperture", "index"), [(0.9, 1.9), (0.5, 1.0)])
def test_a_peak_falls_to_four_fifths_at_the_depth_of_field(aperture, index):
    options = LENS.replace(numerical_aperture=aperture, refractive_index=index)
    pixel = options.wavelength_nm / aperture / 20
    stated = index * options.wavelength_nm / (2 * aperture**2)
    off = np.linspace(0, 1.5, 16)
    peaks = [point(options, x * stated, pixel_nm=pixel).max() for x in off]
    found = np.interp(-0.81, -np.array(peaks) / peaks[0], off)
    assert found == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("coherence", CASES)
def test_nothing_lies_beyond_the_cut_off(coherence, rng):
    count = 384
    line = np.linspace(-1, 1, count)
    options = LENS.replace(
        coherence_factor=coherence, spherical_waves=0.5, coma_waves=0.5, focus_nm=60
    )
    light, height = sample(rng, (count, count))
    seen = taken(light, height, options, place=(line[:, None], line[None]))
    window = np.kaiser(count, 16)
    power = np.fft.fft2((seen - seen.mean()) * window[:, None] * window)
    power = np.abs(power) ** 2
    frequency = np.fft.fftfreq(count, 10.0)
    radius = np.hypot(frequency[:, None], frequency)
    # one step of frequency is that of the window: a Kaiser's main lobe
    lobe = np.sqrt(1 + (16 / np.pi) ** 2) / (count * 10.0)
    beyond = radius > 1 / options.cut_off_nm + lobe
    assert power[beyond].sum() < 1e-10 * power.sum()


def test_incoherent_light_keeps_its_energy(rng):
    light, height = sample(rng)
    light[:40] = light[-40:] = light[:, :40] = light[:, -40:] = 0
    seen = taken(light, height, LENS.replace(coherence_factor=None))
    assert seen.sum() == pytest.approx(light.sum(), rel=0.02)
    assert seen.min() > -1e-3


def test_light_that_is_coherent_is_the_square_of_what_a_pupil_passes(rng):
    light = np.full((480, 480), 0.5, np.float32)
    light[200:280, 200:280] = sample(rng)[0][:80, :80]
    seen = taken(light, None, LENS.replace(coherence_factor=0))
    mirrored = np.pad(compute_light_field(light, None, 550), 120, mode="symmetric")
    line = np.fft.fftfreq(720, 10.0)
    passed = np.hypot(line[:, None], line) <= 1 / UNIT
    wave = np.fft.ifft2(np.fft.fft2(mirrored) * passed)[120:600, 120:600]
    error = (seen - np.abs(wave) ** 2)[150:-150, 150:-150]
    assert np.abs(error).max() < 0.02 * np.ptp(seen)


def test_what_lies_at_another_height_is_as_wide_as_its_own_defocus():
    light = np.zeros((160, 320), np.float32)
    light[80, 80] = light[80, 240] = 1
    height = np.zeros_like(light)
    height[:, 160:] = 300
    seen = taken(light, height, LENS.replace(coherence_factor=None))
    for part, off in ((seen[:, :160], 0.0), (seen[:, 160:], 300.0)):
        alone = point(LENS, off, pixel_nm=10.0, side=121)
        share = part[20:141, 20:141] / part[20:141, 20:141].sum()
        assert np.abs(share - alone).max() < 0.03 * alone.max()


@pytest.mark.broad
def test_a_field_of_aberrations_is_that_of_its_places(rng):
    light, height = sample(rng)
    options = LENS.replace(coma_waves=0.5, spherical_waves=-0.8)
    at = np.full(192, 0.6)
    whole = taken(light, height, options, place=(at[:, None], at[None]))
    one = taken(light, height, options, place=(0.6, 0.6))
    assert whole == pytest.approx(one, abs=0.03)
    assert np.abs(taken(light, height, options) - one).max() > 0.06


def test_optics_that_do_not_exist_are_refused():
    for given, code in (
        ({"numerical_aperture": 1.9}, "out-of-range"),
        ({"resolution_nm": 80}, "options-contradict"),
        ({"depth_of_field_nm": 80}, "options-contradict"),
        ({"coma_waves": 0.1, "optics": "gaussian"}, "options-contradict"),
        ({"coherence_factor": 2}, "out-of-range"),
    ):
        with refused(OptionError, code, match=next(iter(given))):
            MicroscopeOptions.parse(given)
