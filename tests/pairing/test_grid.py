import numpy as np
import pytest

from napari_semsr.core import Micrograph, ShapeError, parse_pixel_size
from napari_semsr.pairing.cut import align
from napari_semsr.pairing.options import PairOptions

OPTIONS = PairOptions(patch=16)


def wave(shape, pixel, origin=None) -> Micrograph:
    """A smooth function of the place in nm, sampled at pixel centres."""
    first = (pixel / 2, pixel / 2) if origin is None else origin
    y = first[0] + pixel * np.arange(shape[0])[:, None]
    x = first[1] + pixel * np.arange(shape[1])[None, :]
    data = np.sin(y / 70) * np.cos(x / 90 + 0.4)
    made = Micrograph(data.astype(np.float32), parse_pixel_size(pixel), "wave")
    return made.replace(origin=origin or (0.0, 0.0))


def test_images_on_one_grid_are_left_alone():
    data = np.arange(400, dtype=np.uint8).reshape(20, 20)
    pair = align(Micrograph(data), Micrograph(data, parse_pixel_size(3.0)), OPTIONS)
    assert not any(one.resampled for one in pair)
    for one in pair:
        np.testing.assert_array_equal(one.image.data, data)
        assert one.image.dtype == np.uint8


@pytest.mark.parametrize("scale", [1, 2])
def test_two_pixel_sizes_become_one(scale):
    images = wave((60, 70), 12.0), wave((150, 170), 5.0)
    pair = align(*images, OPTIONS.replace(scale=scale))
    assert all(one.resampled for one in pair)
    low, high = (one.image for one in pair)
    assert high.pixel_size_nm == (5, 5)
    assert low.pixel_size_nm == (5 * scale, 5 * scale)
    assert high.shape == tuple(n * scale for n in low.shape)
    binned = high.array().reshape(low.shape[0], scale, low.shape[1], scale)
    inner = np.s_[6:-6, 6:-6]
    gap = (low.array() - binned.mean((1, 3)))[inner]
    assert np.abs(gap).max() < 0.02


def test_origins_place_images():
    low = wave((80, 80), 8.0, (104.0, 204.0))
    high = wave((200, 200), 4.0, (42.0, 122.0))
    low, high = (one.image for one in align(low, high, OPTIONS))
    assert low.shape == (160, 160)
    assert low.origin == pytest.approx((102, 202))
    assert high.origin == pytest.approx((102, 202))
    gap = (low.array() - high.array())[8:-8, 8:-8]
    assert np.abs(gap).max() < 0.01


def test_crop_is_resized_to_the_patch():
    image = wave((96, 96), 5.0)
    low, _ = (one.image for one in align(image, image, OPTIONS.replace(crop=32)))
    assert low.shape == (48, 48)
    assert low.pixel_size_nm == (10, 10)
    expected = wave((48, 48), 10.0).array()
    assert np.abs(low.array() - expected)[4:-4, 4:-4].max() < 0.01


def test_what_cannot_be_aligned_is_refused():
    bare = Micrograph(np.zeros((20, 30)), name="bare")
    with pytest.raises(ShapeError, match="but bare has none: give both theirs"):
        align(bare, wave((50, 50), 5.0), OPTIONS)
    with pytest.raises(ShapeError, match="do not overlap"):
        align(wave((20, 20), 5.0), wave((30, 30), 5.0, (9e3, 9e3)), OPTIONS)
