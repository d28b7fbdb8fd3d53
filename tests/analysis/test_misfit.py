"""Laws of what of an image its enhanced one does not explain."""

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.analysis import map_misfit, measure_misfit
from napari_semsr.core import Micrograph, parse_pixel_size, run

TWENTY = parse_pixel_size(20.0)


@pytest.fixture
def sharp(rng) -> Micrograph:
    """Draw discs and bars of two grey levels."""
    drawn = ndimage.gaussian_filter(rng.normal(size=(300, 420)), 3)
    values = np.where(drawn > 0.03, 200.0, 60.0) + np.where(drawn > 0.1, 40.0, 0.0)
    return Micrograph(values, TWENTY, "sharp", origin=(40.0, -80.0))


def seen(image: Micrograph, rng: np.random.Generator, noise: float) -> Micrograph:
    """Look through a microscope whose grey levels fall where electrons' rise."""
    light = np.sqrt(1 - ndimage.gaussian_filter(image.data / 300, 2.5)) * 3000
    shading = np.linspace(0, 300, light.shape[1])
    data = light + shading + rng.normal(0, noise, light.shape)
    return image.replace(data=data, name="seen")


def test_what_is_drawn_without_light_shows_on_the_map(sharp, rng):
    before = seen(sharp, rng, 20.0)
    data = sharp.data.copy()
    y, x = np.indices(data.shape)
    disc = np.hypot(y - 164, x - 140) < 7
    data[disc] = 60.0 if np.median(data[disc]) > 100 else 220.0
    invented = sharp.replace(data=data)
    true, false = (run(measure_misfit(before, made)) for made in (sharp, invented))
    assert false.share > 1.1 * true.share
    shown = run(map_misfit(before, invented, false))
    assert shown.shape == (75, 105)
    assert shown.pixel_size_nm == (80, 80)
    assert shown.origin == (40 + 30, -80 + 30)
    at = np.unravel_index(np.nanargmax(shown.data), shown.shape)
    assert np.hypot(at[0] - 41, at[1] - 35) < 4
    assert shown.data[41, 35] > 3 * np.nanmedian(shown.data)


def test_an_image_on_finer_pixels_is_compared_on_the_coarse(sharp, rng):
    before = seen(sharp, rng, 20.0)
    fine = sharp.data.repeat(2, 0).repeat(2, 1)
    twice = Micrograph(fine, parse_pixel_size(10.0), "fine", origin=(35.0, -85.0))
    same, finer = (run(measure_misfit(before, made)) for made in (sharp, twice))
    assert finer.share == pytest.approx(same.share, rel=1e-3)
    assert run(map_misfit(before, twice, finer)).shape == (75, 105)


def test_gaps_of_a_mosaic_are_left_out(sharp, rng):
    before = seen(sharp, rng, 20.0)
    data = before.data.copy()
    data[:, 380:] = np.nan
    gap = before.replace(data=data)
    found = run(measure_misfit(gap, sharp))
    assert found.share < 0.15
    shown = run(map_misfit(gap, sharp, found)).data
    assert np.isnan(shown[:, 95:]).all()
    assert np.isfinite(shown[:, :94]).all()


def test_nothing_is_told_of_noise_or_of_nothing(sharp, rng):
    noise = sharp.replace(data=rng.normal(size=sharp.shape))
    assert run(measure_misfit(noise, sharp)) is None
    flat = sharp.replace(data=np.full(sharp.shape, 7.0))
    assert run(measure_misfit(flat, sharp)) is None
    assert run(measure_misfit(seen(sharp, rng, 0.0), flat)) is None
    small = sharp.replace(data=sharp.data[:50, :50])
    assert run(measure_misfit(small, small)) is None
