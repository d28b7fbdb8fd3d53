import weakref

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core import run, survey_pixels
from napari_semsr.core.strays import compute_stray_pixel_masks


def _scene(rng, noise=10.0, shape=(192, 224)):
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    return 120 + 15 * smooth / smooth.std() + rng.normal(0, noise, shape)


PLACES = {
    "spots": (np.array([9, 60, 150]), np.array([200, 77, 3])),
    "cluster": np.s_[40:42, 50:53],
    "column": np.s_[:, 30],
    "part of a column": np.s_[64:128, 30],
    "rows": np.s_[90:92],
    "block": np.s_[80:100, 100:120],
}


@pytest.mark.parametrize("level", [0, 4095, 65535], ids=["dead", "full", "hot"])
@pytest.mark.parametrize("place", PLACES)
def test_stray_pixels_are_found_and_nothing_else(place, level, rng):
    image = np.clip(16 * _scene(rng), 0, 4095).astype(np.uint16)
    mask = np.zeros(image.shape, bool)
    mask[PLACES[place]] = True
    proper = image[~mask]
    image[mask] = level
    stray, wanted = compute_stray_pixel_masks(image)
    np.testing.assert_array_equal(stray, mask)
    np.testing.assert_array_equal(compute_stray_pixel_masks(image * 1.0)[0], mask)
    view = np.ascontiguousarray(image.T).T  # not in C order
    np.testing.assert_array_equal(compute_stray_pixel_masks(view)[0], mask)
    # a wide area within the grey scale may be what a sample shows
    is_filled = place != "block" or level == 65535
    np.testing.assert_array_equal(wanted, mask & is_filled)
    strays = run(survey_pixels(image)).strays
    masked, filled = strays.mask(image), strays.fill(image)
    np.testing.assert_array_equal(np.isnan(masked[:, :]), mask)
    np.testing.assert_array_equal(filled[:, :][~mask], proper)
    made = filled[:, :][mask]
    if is_filled:
        assert proper.min() <= made.min() <= made.max() <= proper.max()
    else:
        assert (made == level).all()


def test_what_belongs_to_an_image_is_not_stray(rng):
    def is_clean(image):
        return not compute_stray_pixel_masks(image)[0].any()

    dark = rng.normal(20, 3, (192, 224))
    y, x = np.mgrid[:192, :224]
    for at in ((30.2, 40.6), (120, 77), (150.5, 180.5)):  # as small as optics show
        away = (y - at[0]) ** 2 + (x - at[1]) ** 2
        dark += 200 * np.exp(-away / 2 / 0.7**2)
    assert is_clean(dark)
    disc = np.where(np.hypot(y - 80.3, x - 90.7) < 9, 250.0, 20.0)
    assert is_clean(ndimage.gaussian_filter(disc, 0.6) + rng.normal(0, 3, disc.shape))
    bar = _scene(rng)
    bar[151:] = 0
    bar[160:172:2, 40:120:3] = 255  # letters
    assert is_clean(bar)
    counts = rng.exponential(4, (192, 224))  # noise of rare high values
    assert compute_stray_pixel_masks(counts)[0].mean() < 1e-4
    assert run(survey_pixels(np.full((64, 64), 7, np.uint8))).strays is None
    assert run(survey_pixels(np.full((64, 64), np.nan))).strays is None


def test_a_lazy_field_and_its_windows_are_those_of_the_whole(rng):
    image = _scene(rng, shape=(2100, 300)).astype(np.float32)
    image[5, 2], image[2047, 90], image[2050, 299] = 9000, -3000, 8000
    image[500:520, 10:30] = np.nan
    found = run(survey_pixels(image)).strays
    assert found.places.tolist() == [[5, 2], [2047, 90], [2050, 299]]
    lazy = da.from_array(image, chunks=(512, 128))
    for way in ("mask", "fill"):
        whole = getattr(found, way)(image)
        np.testing.assert_array_equal(getattr(found, way)(lazy)[:, :], whole[:, :])
        part = whole[2040:2060, 80:300]
        np.testing.assert_array_equal(part, whole[:, :][2040:2060, 80:300])


@pytest.mark.parametrize("held", [40, 0], ids=["whole rows", "columns"])
def test_pixels_are_read_once_seen_in_order_and_counted(held, rng, monkeypatch):
    image, read, rows, steps = rng.integers(0, 99, (2100, 2100), "u2"), [], [], []
    image[2050, 2060] = 65535
    lazy = da.from_array(image, chunks=(300, 700)).map_blocks(
        lambda block: (read.append(block.size), block)[1], meta=image[:0, :0]
    )
    monkeypatch.setattr("napari_semsr.core.strays._HELD_BYTES", held << 20)
    survey = run(survey_pixels(lazy, rows.append), steps.append)
    np.testing.assert_array_equal(np.concatenate(rows), image)
    assert (sum(read) == image.size) is bool(held)
    assert survey.strays.places.tolist() == [[2050, 2060]]
    assert survey.counts.tolist() == [*np.bincount(image.ravel())[:-1], 0]
    assert len(steps) >= 4  # a stop is noticed after each window


def test_bands_of_a_row_of_windows_are_free_before_the_next_are_read():
    bands, kept = [], []

    def see_rows(band):
        kept.append(sum(known() is not None for known in bands))
        bands.append(weakref.ref(band if band.base is None else band.base))

    run(survey_pixels(da.zeros((6200, 64), dtype="u1", chunks=(512, 64)), see_rows))
    assert max(kept) == 4  # five reach across a window
