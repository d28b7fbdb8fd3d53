"""Laws of the microscope and its camera."""

import numpy as np
import pytest

from napari_semsr.simulation.superlens.microscope import (
    MicroscopeOptions,
    blur_by_height,
    expected_counts,
    expose,
    illumination_field,
    reflectance,
)

PIXEL = 8.0


def width_of(spot):
    """Full width at half maximum of the row through a spot's peak, in pixels."""
    row = spot[spot.shape[0] // 2]
    half = row.max() / 2
    above = np.flatnonzero(row >= half)
    first, last = above[0], above[-1]
    left = first - (row[first] - half) / (row[first] - row[first - 1])
    right = last + (row[last] - half) / (row[last] - row[last + 1])
    return right - left


@pytest.mark.parametrize("height", [0.0, 50.0, 100.0, 150.0])
def test_point_has_the_stated_width_in_focus_and_a_wider_one_above(height):
    options = MicroscopeOptions(depth_of_field_nm=100, focus_nm=0)
    point = np.zeros((121, 121), np.float32)
    point[60, 60] = 1
    level = np.full(point.shape, height, np.float32)
    seen = blur_by_height(point, level, 80 / PIXEL, options)
    stated = 80 * np.sqrt(1 + (height / 100) ** 2)
    assert options.psf_fwhm_nm(height, 80.0) == pytest.approx(stated)
    assert width_of(seen) * PIXEL == pytest.approx(stated, rel=0.01)
    assert seen.sum() == pytest.approx(1, abs=1e-3)


def test_each_height_has_its_own_width_in_one_picture():
    options = MicroscopeOptions(depth_of_field_nm=100)
    points = np.zeros((121, 242), np.float32)
    points[60, 60] = points[60, 181] = 1
    height = np.zeros(points.shape, np.float32)
    height[:, 121:] = 120
    seen = blur_by_height(points, height, 80 / PIXEL, options)
    assert width_of(seen[:, :121]) * PIXEL == pytest.approx(80, rel=0.01)
    wide = 80 * np.sqrt(1 + 1.2**2)
    assert width_of(seen[:, 121:]) * PIXEL == pytest.approx(wide, rel=0.01)


def test_even_surface_stays_even_across_a_step():
    height = np.zeros((64, 64), np.float32)
    height[:, 32:] = 200
    even = np.full(height.shape, 0.5, np.float32)
    seen = blur_by_height(even, height, 6.0, MicroscopeOptions())
    assert seen == pytest.approx(0.5, abs=1e-5)


def test_focus_moves_the_sharp_plane():
    options = MicroscopeOptions(focus_nm=120.0)
    assert options.psf_fwhm_nm(120.0, 80.0) == 80
    assert options.psf_fwhm_nm(0.0, 80.0) > 80


def test_reflectance_depends_on_height_material_and_slope():
    height = np.zeros((40, 40), np.float32)
    metal = np.zeros_like(height)
    metal[:, 20:] = 1
    plain = reflectance(height, metal, 10.0)
    assert plain[0, 0] == pytest.approx(0.38)
    assert plain[0, -1] == pytest.approx(0.82)
    quarter = reflectance(np.full_like(height, 137.5), metal, 10.0, wavelength_nm=550)
    assert quarter[0, 0] == pytest.approx(0.6 * 0.38, rel=1e-4)
    height[:, 20:] = 100
    assert reflectance(height, 0 * metal, 10.0)[:, 18:22].min() < 0.27


@pytest.mark.parametrize("rim", [0.35, 0.65, 1.0])
def test_brightness_falls_to_the_stated_share_at_the_rim(rim, rng):
    round_field = illumination_field(MicroscopeOptions(vignetting=rim), 201, rng)
    assert round_field[100, 100] == pytest.approx(1, abs=1e-3)
    assert round_field[100, 198:200].mean() == pytest.approx(rim, rel=0.02)
    assert round_field[0, 0] < 1e-6
    square = MicroscopeOptions(vignetting=rim, field="square")
    assert illumination_field(square, 201, rng)[0, 0] == pytest.approx(rim, rel=0.02)


def test_default_rims_are_those_of_the_two_fields():
    assert MicroscopeOptions().rim == 0.35
    assert MicroscopeOptions(field="square").rim == 0.65


def test_a_round_field_ends_at_its_stop(rng):
    options = MicroscopeOptions(vignetting=0.5)
    light = illumination_field(options, 128, rng)
    line = (np.arange(128) - 63.5) / 64
    off = np.hypot(line[:, None], line[None, :])
    assert light[off <= 0.98].min() > 0.4
    assert light[off > 1.05].max() < 0.01
    assert illumination_field(options.replace(field="square"), 16, rng).min() > 0.4


def test_offcentre_light_peaks_off_the_centre(rng):
    options = MicroscopeOptions(offcentre=0.3, field="square")
    light = illumination_field(options, 101, rng)
    peak = np.array(np.unravel_index(light.argmax(), light.shape)) - 50
    assert np.hypot(*peak) == pytest.approx(0.3 * 50.5, abs=1)


def test_tilt_and_dust_leave_their_marks():
    def light(**flaws):
        options = MicroscopeOptions(vignetting=1, field="square", **flaws)
        return illumination_field(options, 64, np.random.default_rng(1))

    assert np.array_equal(light(), np.ones((64, 64)))
    tilted = light(tilt=0.2)
    assert tilted.mean() == pytest.approx(1, abs=1e-3)
    assert 0.2 < np.ptp(tilted) <= 0.4
    dusty = light(dust=5)
    assert dusty.max() <= 1
    assert dusty.min() < 0.95


def test_magnified_pixel_is_the_cameras_over_both_magnifications():
    assert MicroscopeOptions().magnified_pixel_nm == pytest.approx(20)


@pytest.mark.parametrize("light", [0.05, 0.3, 0.9])
@pytest.mark.parametrize(
    ("photons", "read"), [(400, 0), (5000, 0), (0, 300), (400, 900)]
)
def test_mean_and_variance_follow_photons_and_read_noise(light, photons, read, rng):
    options = MicroscopeOptions(photons=photons, read_noise=read, dark_counts=5000)
    counts = expose(np.full((300, 300), light), options, rng).astype(float)
    shot = options.full_scale**2 * light / photons if photons else 0
    expected = shot + read**2
    assert counts.mean() == pytest.approx(5000 + 60000 * light, rel=0.01)
    assert counts.var() == pytest.approx(expected, rel=0.03)


def test_offset_keeps_noise_above_zero_unless_it_is_given():
    assert MicroscopeOptions().offset == 100
    assert MicroscopeOptions(read_noise=1000).offset == 4000
    assert MicroscopeOptions(read_noise=1000, dark_counts=0).offset == 0


def test_without_noise_counts_are_the_expected_ones(rng):
    options = MicroscopeOptions(photons=0, read_noise=0)
    light = rng.random((8, 8))
    counts = expose(light, options, rng)
    assert np.abs(counts - expected_counts(light, options)).max() <= 0.5
    assert expose(np.full((2, 2), 9.0), options, rng).max() == 65535
