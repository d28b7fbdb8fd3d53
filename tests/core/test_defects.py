import dask.array as da
import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core import defect_mask, find_defects


def _scene(rng, noise=10.0, shape=(192, 224)):
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    return 120 + 15 * smooth / smooth.std() + rng.normal(0, noise, shape)


def _spots(mask, _rng):
    mask[np.array([9, 60, 150]), np.array([200, 77, 3])] = True


def _cluster(mask, _rng):
    mask[40:42, 50:53] = True


def _column(mask, _rng):
    mask[:, 30] = True


def _rows(mask, _rng):
    mask[90:92] = True


def _part_of_a_column(mask, _rng):
    mask[70:, 120] = True


@pytest.mark.parametrize("level", [0, 4095, 65535], ids=["dead", "full", "hot"])
@pytest.mark.parametrize("place", [_spots, _cluster, _column, _rows, _part_of_a_column])
def test_defects_are_found_and_nothing_else(place, level, rng):
    image = np.clip(16 * _scene(rng), 0, 4095).astype(np.uint16)
    mask = np.zeros(image.shape, bool)
    place(mask, rng)
    image[mask] = level
    np.testing.assert_array_equal(defect_mask(image), mask)
    mended = find_defects(image).mend(image)
    np.testing.assert_array_equal(mended[~mask], image[~mask])
    assert mended[mask].min() > 400
    assert mended[mask].max() < 3600


def test_a_block_of_one_value_that_no_pixel_is_near_is_a_defect(rng):
    image = np.clip(16 * _scene(rng), 0, 4095).astype(np.uint16)
    mask = np.zeros(image.shape, bool)
    mask[80:92, 100:112] = True
    image[mask] = 65535
    np.testing.assert_array_equal(defect_mask(image), mask)


def test_what_belongs_to_an_image_stays(rng):
    image = _scene(rng, 3.0)
    assert not defect_mask(image).any()
    dark = rng.normal(20, 3, (192, 224))
    y, x = np.mgrid[:192, :224]
    dark[np.hypot(y - 80.3, x - 90.7) < 9] = 250  # a bright particle
    sharp = dark.copy()
    for at in ((30.2, 40.6), (120, 77), (150.5, 180.5)):  # as small as optics show
        away = (y - at[0]) ** 2 + (x - at[1]) ** 2
        dark += 200 * np.exp(-away / 2 / 0.7**2)
    assert not defect_mask(ndimage.gaussian_filter(sharp, 0.6)).any()
    assert not defect_mask(dark).any()
    bar = _scene(rng)
    bar[150] = 255
    bar[151:] = 0
    bar[160:172:2, 40:120:3] = 255  # letters
    assert not defect_mask(bar).any()
    counts = rng.exponential(4, (192, 224)).round()  # noise of rare high values
    assert defect_mask(counts).mean() < 1e-4
    assert not defect_mask(np.full((64, 64), 7, np.uint8)).any()


def test_a_lazy_field_and_windows_are_mended_as_a_whole(rng):
    image = _scene(rng, shape=(2100, 300)).astype(np.float32)
    image[5, 2], image[2047, 90], image[2050, 299] = 900, -300, 800
    image[500:520, 10:30] = np.nan
    found = find_defects(image)
    assert sorted(map(tuple, found.places.tolist())) == [
        (5, 2),
        (2047, 90),
        (2050, 299),
    ]
    lazy = da.from_array(image, chunks=(512, 128))
    mended = found.mend(lazy)
    assert mended.dtype == image.dtype
    np.testing.assert_array_equal(mended.compute(), find_defects(lazy).mend(image))


@pytest.mark.parametrize("shape", [(2, 3), (31, 90), (32, 32), (32, 90), (90, 33)])
def test_a_field_of_few_rows_is_looked_through_without_a_fault(rng, shape):
    image = _scene(rng, shape=shape).astype(np.float32)
    assert len(find_defects(image).places) == 0
