import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.simulation import EffectOptions, add_effects, add_noise


@pytest.mark.parametrize(("photons", "read"), [(50, 0.0), (0, 0.02), (50, 0.02)])
def test_noise_has_the_stated_mean_and_variance(rng, photons, read):
    level = 0.8
    made = add_noise(np.full((300, 300), level), photons, read, rng)
    variance = (level / photons if photons else 0) + read**2
    assert made.mean() == pytest.approx(level, rel=0.01)
    assert made.var() == pytest.approx(variance, rel=0.03)


def test_seed_decides_alone(rng):
    smooth = ndimage.gaussian_filter(rng.random((90, 110)), 4)
    options = EffectOptions(drift_px=3, charging=0.2, photons=100, read_noise=2)
    first, parameters = add_effects(smooth, options, seed=4)
    again, _ = add_effects(smooth, options, seed=4)
    other, _ = add_effects(smooth, options, seed=5)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert {"drift_px", "charging", "photons", "read_noise"} <= set(parameters)


@pytest.mark.parametrize("shape", [(1, 1), (1, 20), (20, 1)])
def test_small_fields(shape):
    options = EffectOptions(drift_px=3, line_jitter_px=1, charging=0.2, photons=10)
    made, _ = add_effects(np.full(shape, 0.5), options)
    assert np.isfinite(made).all()
