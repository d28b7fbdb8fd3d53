import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.pairing import add_defects


@pytest.fixture(scope="module")
def place():
    rng = np.random.default_rng(3)
    high = ndimage.zoom(rng.random((30, 30)), 8, order=0).astype(np.float32)
    high += rng.normal(0, 0.02, high.shape).astype(np.float32)
    line = np.arange(-7, 8)
    kernel = np.exp(-(line[:, None] ** 2 + line**2) / 8)
    kernel /= kernel.sum()
    light = ndimage.correlate(high.astype(float), kernel)
    low = 100 + 50 * light + rng.normal(0, 1, high.shape)

    def predict(image):
        return ndimage.correlate(image, 50 * kernel, mode="constant")

    return low.astype(np.float32), high, predict


def test_about_the_stated_share_is_changed(place):
    for share in (0.03, 0.1):
        made = add_defects(*place, 0, share=share)
        assert share <= made.change_mask.mean() < share + 0.01


def test_light_changes_by_the_filtered_change_of_sem(place):
    low, high, predict = place
    made = add_defects(*place, 0)
    wanted = predict(made.high.astype(float) - high)
    np.testing.assert_allclose(made.low - low, wanted, atol=1e-3)
    assert np.abs(wanted).max() > 10


def test_missing_pixels_stay_missing_and_are_not_changed(place):
    low, high, predict = place
    holed, dark = high.copy(), low.copy()
    holed[:, :100] = np.nan
    dark[:50, 150:] = np.nan
    made = add_defects(dark, holed, predict, 0)
    assert np.array_equal(np.isnan(made.high), np.isnan(holed))
    assert np.array_equal(np.isnan(made.low), np.isnan(dark))
    assert not made.change_mask[:, :100].any()
    assert made.change_mask.sum() >= 0.07 * np.isfinite(holed).sum()


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_a_place_without_contrast_stays_as_it_is(place, value):
    low, high, predict = place
    made = add_defects(low, np.full_like(high, value), predict, 0)
    assert not made.change_mask.any()
    assert np.array_equal(made.low, low)
