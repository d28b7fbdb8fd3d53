import numpy as np
import pytest

from napari_semsr.simulation import (
    DegradationRanges,
    apply_random_degradation,
    degrade as gao,
)
from napari_semsr.simulation.canvas import draw_phantom


@pytest.fixture(scope="module")
def clear() -> np.ndarray:
    return draw_phantom("particles", (96, 96), seed=3)


SHARP = {"sigma_px": (0.05, 0.06), "noisy": 0, "eight_bit": 0}
SHARP |= {"hybrid": 0, "near_paper": 0}


def test_without_blur_and_noise_the_input_is_the_target_or_hazed_as_stated(clear):
    still = DegradationRanges(blur=1, fog=0, **SHARP)
    scene = apply_random_degradation(clear, still, np.random.default_rng(0))
    assert np.abs(scene.low - scene.high).max() < 1e-3
    veiled = DegradationRanges(blur=0, fog=1, fog_scale_px=(10, 12), **SHARP)
    scene = apply_random_degradation(clear, veiled, np.random.default_rng(0))
    assert np.ptp(scene.log_gain) > 0.05
    lifted = scene.airlight + (scene.low - scene.airlight) * np.exp(scene.log_gain)
    assert np.abs(lifted - scene.high).max() < 2e-3
    assert np.abs(scene.low - scene.high).max() > 0.02


@pytest.mark.parametrize("kind", gao.KINDS)
def test_scenes_as_in_the_paper_are_what_degrade_makes(clear, kind: gao.Kind) -> None:
    shares = {name: float(name == kind) for name in gao.KINDS}
    ranges = DegradationRanges(**shares, as_paper=1.0)
    scene = apply_random_degradation(clear, ranges, np.random.default_rng(1))
    if kind == "blur":  # the others have a haze of their own chance
        low = gao.degrade_plane(np.rint(clear * 255).astype(np.uint8), kind).image
        inner = (slice(4, -4), slice(4, -4))  # borders are reflected otherwise
        both = low[inner].ravel(), scene.low[inner].ravel()
        assert np.corrcoef(*both)[0, 1] > 0.9999
    assert len(np.unique(scene.low)) <= 257
    assert (np.ptp(scene.log_gain) == 0) == (kind == "blur")
    truth = np.corrcoef(clear.ravel(), scene.high.ravel())[0, 1]
    assert truth == pytest.approx(1, abs=1e-5)


def test_share_of_sharp_images_is_hardly_blurred(clear) -> None:
    ranges = DegradationRanges(blur=1, fog=0, hybrid=0, near_paper=0, noisy=0)

    def error(seed: int, sharp: float) -> float:
        still, rng = ranges.replace(sharp=sharp), np.random.default_rng(seed)
        scene = apply_random_degradation(clear, still, rng)
        return float(np.abs(scene.low - scene.high).mean())

    for seed in range(6):
        assert error(seed, 1.0) < error(seed, 0.0) / 2
