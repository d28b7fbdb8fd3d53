"""Laws of the electron image."""

import numpy as np
import pytest

from napari_semsr.simulation.sem import compute_sem_contrast, simulate_sem_image
from napari_semsr.simulation.specimen import Specimen


@pytest.fixture(scope="module")
def block():
    """A raised block on flat ground, of one material."""
    height = np.zeros((80, 80), np.float32)
    height[20:60, 20:60] = 120
    return Specimen(height, np.zeros_like(height), 6.0, "block")


def test_edges_are_bright_and_the_foot_of_a_wall_lies_in_shadow(block):
    seen = compute_sem_contrast(block)
    edge = seen[40, 17:23].max()
    assert edge > 1.5 * seen[40, 40]
    assert edge > 1.5 * seen[40, 2]
    seen = compute_sem_contrast(block)
    assert seen[40, 14] < 0.9 * seen[40, 1]
    even = compute_sem_contrast(block, shadows=0)
    assert even[40, 14] == pytest.approx(even[40, 1], rel=0.02)


def test_dose_sets_the_noise(rng):
    flat = Specimen(*np.zeros((2, 200, 200), np.float32), 5.0, "flat")
    clean = simulate_sem_image(flat, 0, rng=rng)
    assert np.ptp(clean) == 0
    noisy = simulate_sem_image(flat, 100, rng=rng).astype(float)
    assert noisy.dtype == float
    assert noisy.var() == pytest.approx(255**2 * 0.3 / 100, rel=0.05)
    assert noisy.mean() == pytest.approx(0.3 * 255, rel=0.01)
