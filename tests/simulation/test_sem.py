import numpy as np
import pytest

from napari_semsr.simulation.sem import (
    add_charging,
    compute_sem_contrast,
    simulate_sem_image,
)
from napari_semsr.simulation.specimen import Specimen


def test_edges_are_bright_and_the_foot_of_a_wall_lies_in_shadow():
    height = np.zeros((80, 80), np.float32)
    height[20:60, 20:60] = 120
    block = Specimen(height, np.zeros_like(height), 6.0, "block")
    seen = compute_sem_contrast(block)[40]
    assert seen[17:23].max() > 1.5 * max(seen[40], seen[2])
    assert seen[14] < 0.9 * seen[1]
    even = compute_sem_contrast(block, shadows=0)[40]
    assert even[14] == pytest.approx(even[1], rel=0.02)


def test_dose_sets_the_noise(rng):
    flat = Specimen(*np.zeros((2, 200, 200), np.float32), 5.0, "flat")
    clean = simulate_sem_image(flat, 0, rng=rng)
    assert np.ptp(clean) == 0
    noisy = simulate_sem_image(flat, 100, rng=rng).astype(float)
    assert noisy.dtype == float
    assert noisy.var() == pytest.approx(255**2 * 0.3 / 100, rel=0.05)
    assert noisy.mean() == pytest.approx(0.3 * 255, rel=0.01)


def test_charge_darkens_what_follows_a_bright_structure():
    image = np.full((40, 200), 0.2)
    image[10:14, 60:80] = 1.0
    made = add_charging(image, 0.5)
    assert made[12, 85] < made[12, 50] - 0.05
    assert made[12, 85] < made[12, 180]
    np.testing.assert_allclose(made[5], made[5].mean(), atol=0.01)
    assert made.mean() == pytest.approx(image.mean(), abs=1e-3)
