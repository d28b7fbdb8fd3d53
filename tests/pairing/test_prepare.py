import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from napari_semsr.pairing import PairOptions, prepare_image


@pytest.fixture
def clean(rng) -> np.ndarray:
    grain = ndimage.gaussian_filter(rng.standard_normal((80, 80)), 4)
    return 100 + 40 * grain / grain.std()


@pytest.fixture
def noisy(clean, rng) -> Micrograph:
    data = clean + rng.normal(0, 4, clean.shape)
    return Micrograph(data.astype(np.float32), parse_pixel_size(5.0), "noisy")


def roughness(values: np.ndarray) -> float:
    return float(np.abs(np.diff(values, axis=0)).mean())


def test_denoising_comes_nearer_to_the_truth(noisy, clean):
    made = prepare_image(noisy, PairOptions(denoise=True))
    before, after = (np.abs(image.data - clean).mean() for image in (noisy, made))
    assert after < 0.85 * before
    assert roughness(made.data) < 0.8 * roughness(noisy.data)
    assert made.pixel_size_nm == noisy.pixel_size_nm


@pytest.mark.parametrize("step", ["sharpen", "equalise"])
def test_sharpening_and_equalising_raise_differences(noisy, step):
    made = prepare_image(noisy, PairOptions(**{step: True}))
    assert roughness(made.data) > 1.1 * roughness(noisy.data)


def test_missing_pixels_stay_missing_and_flat_images_alone(noisy):
    data = noisy.array().copy()
    data[3, 4] = np.nan
    options = PairOptions(denoise=True, equalise=True)
    made = prepare_image(noisy.replace(data=data), options)
    assert np.isnan(made.data).sum() == 1
    image = Micrograph(np.full((20, 20), 3, np.uint8))
    assert prepare_image(image, PairOptions(denoise=True)) is image
