import numpy as np
import pytest

from napari_semsr.core import Micrograph, ShapeError, parse_pixel_size
from napari_semsr.pairing.cut import align_images
from napari_semsr.pairing.options import PairOptions
from tests.refusals import refused

OPTIONS = PairOptions(patch=16)
ALIGN = {"align": True}  # each keeps its own origin when one is brought onto the other


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
    pair = align_images(
        Micrograph(data), Micrograph(data, parse_pixel_size(3.0)), OPTIONS
    )
    assert not any(one.is_resampled for one in pair)
    for one in pair:
        np.testing.assert_array_equal(one.image.data, data)
        assert one.image.dtype == np.uint8


@pytest.mark.parametrize("scale", [1, 2])
def test_two_pixel_sizes_become_one(scale):
    images = wave((60, 70), 12.0), wave((150, 170), 5.0)
    pair = align_images(*images, OPTIONS.replace(scale=scale))
    assert [one.is_resampled for one in pair] == [True, False]
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
    low, high = (one.image for one in align_images(low, high, OPTIONS))
    assert low.shape == (160, 160)
    assert low.origin == pytest.approx((102, 202))
    assert high.origin == pytest.approx((102, 202))
    gap = (low.array() - high.array())[8:-8, 8:-8]
    assert np.abs(gap).max() < 0.01


def test_crops_of_one_field_are_cut_to_what_both_show():
    first = (600.0, 900.0)
    field = np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)
    low = Micrograph(field[:30, :30], parse_pixel_size(3.0), origin=first)
    further = first[0] + 3.0, first[1] + 6.0
    high = low.replace(data=field[1:31, 2:32], origin=further)
    for one in align_images(low, high, OPTIONS):
        np.testing.assert_array_equal(one.image.data, field[1:30, 2:30])
        assert one.image.dtype == np.uint8
        assert one.image.origin == pytest.approx(further)
        assert not one.is_resampled


@pytest.mark.parametrize(("origin", "how"), [((102.0, 202.0), {}), ((3.0, 9.0), ALIGN)])
def test_finer_pixels_in_the_same_corner_are_left_alone(origin, how):
    low = wave((30, 30), 8.0, (104.0, 204.0))
    high = wave((60, 60), 4.0, origin)
    pair = align_images(low, high, OPTIONS.replace(scale=2, **how))
    assert [one.image.shape for one in pair] == [(30, 30), (60, 60)]
    assert not any(one.is_resampled for one in pair)


@pytest.mark.parametrize("wanted", [{}, {"crop": 24}])
def test_gap_stays_a_gap_where_it_is(wanted):
    images = wave((60, 70), 12.0), wave((144, 168), 5.0)
    options = OPTIONS.replace(**wanted)
    whole = align_images(*images, options)
    for image in images:
        image.data[20, 30] = np.inf
    for image, one, other in zip(
        images, align_images(*images, options), whole, strict=True
    ):
        values, pitch = one.image.array(), one.image.scale[0]
        known = np.isfinite(values)
        places = np.argwhere(~known) * pitch + pitch / 2
        gap_nm = (np.array([20, 30]) + 0.5) * image.scale
        reach = 3 * max(pitch, image.scale[0]) + 0.01  # of the kernel
        assert not known.all()
        assert np.abs(places - gap_nm).max() < reach
        np.testing.assert_allclose(values[known], other.image.array()[known], atol=0.01)


def test_crop_is_resized_to_the_patch():
    image = wave((96, 96), 5.0)
    low, _ = (one.image for one in align_images(image, image, OPTIONS.replace(crop=32)))
    assert low.shape == (48, 48)
    assert low.pixel_size_nm == (10, 10)
    expected = wave((48, 48), 10.0).array()
    assert np.abs(low.array() - expected)[4:-4, 4:-4].max() < 0.01


def test_what_cannot_be_aligned_is_refused():
    bare = Micrograph(np.zeros((20, 30)), name="bare")
    with refused(ShapeError, "pixel-size-missing", match="bare"):
        align_images(bare, wave((50, 50), 5.0), OPTIONS)
    with refused(ShapeError, "no-overlap"):
        align_images(wave((20, 20), 5.0), wave((30, 30), 5.0, (9e3, 9e3)), OPTIONS)
