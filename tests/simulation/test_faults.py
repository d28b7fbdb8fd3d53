import numpy as np
import pytest

from napari_semsr.core import FAULTS, get_noise
from napari_semsr.simulation import (
    DegradedScene,
    FaultRanges,
    apply_random_faults,
    draw_phantom,
)

ALONE = {"blurred": 0.0, "veiled": 0.0, "noisy": 0.0}


def scenes(count=12, **shares) -> list[DegradedScene]:
    clear = draw_phantom("particles", (128, 128), seed=3)
    ranges = FaultRanges(**ALONE | shares)
    chances = map(np.random.default_rng, range(count))
    return [apply_random_faults(clear, ranges, rng) for rng in chances]


def test_noise_is_told_in_units_of_the_degraded_range() -> None:
    for scene in scenes(noisy=1.0):
        told = get_noise(scene.faults)
        inside = (scene.low > 0.05) & (scene.low < 0.95)
        left = (scene.low - scene.noiseless)[inside].std()
        assert left == pytest.approx(told, rel=0.5, abs=0.004)
        np.testing.assert_array_equal(scene.noiseless, scene.high)


def test_veil_can_be_lifted_by_what_is_told() -> None:
    for scene in scenes(veiled=1.0):
        away = scene.low - scene.airlight
        lifted = scene.airlight + away * np.exp(scene.log_gain)
        error = np.abs(lifted - scene.high)
        assert np.median(error) < 0.05 * max(1.0, abs(scene.airlight))


def test_grain_tells_nothing_of_the_blur() -> None:
    sharp, soft = (
        scenes(24, noisy=1.0, blurred=share, noise=(0.05, 0.05), sigma_px=(2.0, 2.5))
        for share in (0.0, 1.0)
    )
    for made in (sharp, soft):
        grain = [s.low - s.noiseless for s in made]
        told = [s.faults[FAULTS.index("along")] for s in made]
        rough = [np.diff(g, axis=1).std() / g.std() / np.sqrt(2) for g in grain]
        np.testing.assert_allclose(rough, 1 - np.array(told), atol=0.12)
