import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core import Micrograph, parse_pixel_size, run
from napari_semsr.restoration import RestoreOptions, method, prepare_restoration
from napari_semsr.restoration.method import RadialPower, read_sample_blocks
from napari_semsr.restoration.psf import PointSpreadFunction


def power_law(shape: tuple[int, int], exponent: float) -> np.ndarray:
    """Random field whose power falls as a power of the frequency."""
    rng = np.random.default_rng(1)
    y, x = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :]
    f = np.hypot(y, x)
    f[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) * f ** (-exponent / 2)
    spectrum[0, 0] = 0
    return np.fft.irfft2(spectrum, shape)


@pytest.mark.parametrize("sigma", [0.8, 3.0])
def test_width_of_a_blur_is_found(sigma):
    blurred = ndimage.gaussian_filter(power_law((512, 512), 2.4), sigma, mode="wrap")
    noise = np.random.default_rng(2).normal(0, 1e-3 * blurred.std(), (512, 512))
    found = fit(blurred + noise)
    assert found.sigma_px == pytest.approx(sigma, rel=0.12)


def fit(image, *kernels):
    power = RadialPower.from_blocks(read_sample_blocks(image), image.dtype)
    return power.fit_model(*kernels)


def test_noise_is_found_where_the_blur_is_known():
    blurred = ndimage.gaussian_filter(power_law((512, 512), 2.4), 1.5, mode="wrap")
    noise = 0.1 * blurred.std()
    image = blurred + np.random.default_rng(2).normal(0, noise, (512, 512))
    found = fit(image, PointSpreadFunction.from_sigma((1.5, 1.5)).kernel)
    assert np.sqrt(found.noise) == pytest.approx(noise, rel=0.05)
    assert found.exponent == pytest.approx(2.4, abs=0.25)


def test_blur_of_oblong_pixels_is_round_in_nm(monkeypatch):
    # a Gaussian field has nothing that tells it from noise, so that it is refused
    monkeypatch.setattr(method, "has_structure", lambda _: (yield) or True)
    blurred = ndimage.gaussian_filter(power_law((512, 512), 2.4), 3, mode="wrap")
    rows = blurred[::4] + np.random.default_rng(2).normal(0, 1e-3, (128, 512))
    for image in (
        Micrograph(rows, parse_pixel_size((20, 5))),
        Micrograph(rows, spacing_px=(4.0, 1.0)),
    ):
        found = run(prepare_restoration(image, RestoreOptions())).psf
        assert found.sigma_px == pytest.approx((0.75, 3), rel=0.12)
