import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core import ReadError
from napari_semsr.restoration import fit_linear_filter, linear
from tests.refusals import refused


def place(noise, side=150, seed=0):
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(5, 5))
    image = ndimage.gaussian_filter(rng.normal(size=(side, side)), 0.7)
    wanted = ndimage.correlate(image, kernel, mode="mirror") + 30
    return image + 100, wanted + noise * rng.normal(size=image.shape), kernel


def test_a_filter_is_found_with_its_offset():
    image, wanted, kernel = place(0)
    found = fit_linear_filter([(image, wanted)], 7)
    np.testing.assert_allclose(found.kernel[1:-1, 1:-1], kernel, atol=0.01)
    assert found.explained_share > 0.999
    made = found.apply(image)
    inner = np.s_[4:-4, 4:-4]
    np.testing.assert_allclose(made[inner], wanted[inner], atol=0.05)


def test_what_is_explained_holds_for_another_place():
    image, wanted, _ = place(1.0, 300)
    found = fit_linear_filter([(image[:, :150], wanted[:, :150])], 7)
    other, truth = image[5:-5, 160:290], wanted[5:-5, 160:290]
    error = (found.apply(other) - truth)[4:-4, 4:-4]
    share = 1 - error.var() / truth[4:-4, 4:-4].var()
    assert found.explained_share == pytest.approx(share, abs=0.05)
    dot = np.pad([[1.0]], 48)  # none of it is in other parts
    assert fit_linear_filter([(dot, dot)], 5).explained_share < 0.01


@pytest.mark.parametrize("pitch", range(2, 41))
def test_lines_of_any_pitch_are_filtered_wherever_they_are(monkeypatch, pitch):
    monkeypatch.setattr(linear, "_PLACES", 1 << 12)  # a quarter of the pixels
    monkeypatch.setattr(linear, "_BLOCK_PX", 16)
    values = np.random.default_rng(pitch).normal(size=(128, 128))
    lines = np.where(np.arange(128) % pitch == 0, values, 0)
    kernel = place(0)[2]
    for image in (lines, lines.T):
        wanted = ndimage.correlate(image, kernel, mode="mirror")
        found = fit_linear_filter([(image, wanted)], 7)
        assert np.abs(found.apply(image) - wanted).max() < 0.1


def test_missing_pixels_are_left_out_and_spread():
    image, wanted, kernel = place(0)
    image[40:50, 60:70] = np.nan
    wanted[:, 100:] = np.nan
    found = fit_linear_filter([(image, wanted)], 7)
    np.testing.assert_allclose(found.kernel[1:-1, 1:-1], kernel, atol=0.02)
    made = found.apply(image)
    missing = ndimage.binary_dilation(np.isnan(image), np.ones((7, 7)))
    assert np.array_equal(np.isnan(made), missing)


@pytest.mark.parametrize("value", [1.0, np.nan])
def test_images_without_contrast_are_refused(value):
    _, wanted, _ = place(0)
    with refused(ReadError, "no-structure"):
        fit_linear_filter([(np.full_like(wanted, value), wanted)], 7)
