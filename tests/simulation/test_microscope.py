"""Laws of the microscope and its camera."""

import numpy as np
import pytest

from napari_semsr.simulation.microscope import (
    MicroscopeOptions,
    compute_expected_counts,
    compute_reflectance,
    create_illumination_field,
    simulate_camera_counts,
)


def test_reflectance_depends_on_height_material_and_slope():
    height = np.zeros((40, 40), np.float32)
    metal = np.zeros_like(height)
    metal[:, 20:] = 1
    plain = compute_reflectance(height, metal, 10.0)
    assert plain[0, 0] == pytest.approx(0.38)
    assert plain[0, -1] == pytest.approx(0.82)
    quarter = compute_reflectance(
        np.full_like(height, 137.5), metal, 10.0, wavelength_nm=550
    )
    assert quarter[0, 0] == pytest.approx(0.6 * 0.38, rel=1e-4)
    height[:, 20:] = 100
    assert compute_reflectance(height, 0 * metal, 10.0)[:, 18:22].min() < 0.27


@pytest.mark.parametrize("rim", [0.35, 1.0])
def test_brightness_falls_to_the_stated_share_at_the_rim(rim, rng):
    round_field = create_illumination_field(MicroscopeOptions(vignetting=rim), 201, rng)
    assert round_field[100, 100] == pytest.approx(1, abs=1e-3)
    assert round_field[100, 198:200].mean() == pytest.approx(rim, rel=0.02)
    assert round_field[0, 0] < 1e-6
    square = MicroscopeOptions(vignetting=rim, field="square")
    assert create_illumination_field(square, 201, rng)[0, 0] == pytest.approx(
        rim, rel=0.02
    )


def test_round_fields_end_at_their_stop_and_offcentre_light_peaks_off_it(rng):
    options = MicroscopeOptions(vignetting=0.5)
    light = create_illumination_field(options, 128, rng)
    line = (np.arange(128) - 63.5) / 64
    off = np.hypot(line[:, None], line[None, :])
    assert light[off <= 0.98].min() > 0.4
    assert light[off > 1.05].max() < 0.01
    assert (
        create_illumination_field(options.replace(field="square"), 16, rng).min() > 0.4
    )
    options = MicroscopeOptions(offcentre=0.3, field="square")
    light = create_illumination_field(options, 101, rng)
    peak = np.array(np.unravel_index(light.argmax(), light.shape)) - 50
    assert np.hypot(*peak) == pytest.approx(0.3 * 50.5, abs=1)


def test_tilt_and_dust_leave_their_marks():
    def light(**flaws):
        options = MicroscopeOptions(vignetting=1, field="square", **flaws)
        return create_illumination_field(options, 64, np.random.default_rng(1))

    assert np.array_equal(light(), np.ones((64, 64)))
    tilted = light(tilt=0.2)
    assert tilted.mean() == pytest.approx(1, abs=1e-3)
    assert 0.2 < np.ptp(tilted) <= 0.4
    dusty = light(dust=5)
    assert dusty.max() <= 1
    assert dusty.min() < 0.95


@pytest.mark.parametrize(("photons", "read"), [(400, 0), (0, 300), (400, 900)])
def test_mean_and_variance_follow_photons_and_read_noise(photons, read, rng):
    light = 0.3
    options = MicroscopeOptions(photons=photons, read_noise=read, dark_counts=5000)
    counts = simulate_camera_counts(np.full((300, 300), light), options, rng).astype(
        float
    )
    shot = options.full_scale**2 * light / photons if photons else 0
    expected = shot + read**2
    assert counts.mean() == pytest.approx(5000 + 60000 * light, rel=0.01)
    assert counts.var() == pytest.approx(expected, rel=0.03)


def test_offsets_keep_noise_above_zero_and_without_noise_counts_are_the_expected(rng):
    assert MicroscopeOptions().offset == 100
    assert MicroscopeOptions(read_noise=1000).offset == 4000
    assert MicroscopeOptions(read_noise=1000, dark_counts=0).offset == 0
    options = MicroscopeOptions(photons=0, read_noise=0)
    light = rng.random((8, 8))
    counts = simulate_camera_counts(light, options, rng)
    assert np.abs(counts - compute_expected_counts(light, options)).max() <= 0.5
    assert simulate_camera_counts(np.full((2, 2), 9.0), options, rng).max() == 65535
