import numpy as np
import pytest

from napari_semsr.simulation.microscope import (
    MicroscopeOptions,
    create_illumination_field,
    simulate_camera_counts,
)


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
    options = MicroscopeOptions(photons=photons, read_noise=read, dark_counts=5000)
    counts = simulate_camera_counts(np.full((300, 300), 0.3), options, rng)
    shot = options.full_scale**2 * 0.3 / photons if photons else 0
    assert counts.mean() == pytest.approx(5000 + 60000 * 0.3, rel=0.01)
    assert counts.astype(float).var() == pytest.approx(shot + read**2, rel=0.03)
