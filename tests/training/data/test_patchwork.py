"""Clear scenes of two regions."""

import numpy as np

from napari_semsr.training.data.scenes import patchwork


def test_regions_keep_their_scenes_and_the_range() -> None:
    first, second = np.full((96, 80), 0.2), np.random.default_rng(0).random((96, 80))
    made = patchwork(first, second, np.random.default_rng(4))
    assert made.shape == first.shape
    assert 0 <= made.min() <= made.max() <= 1
    untouched = np.isclose(made, 0.2, atol=1e-3).mean()
    assert 0.05 < untouched < 0.95


def test_patchwork_repeats_with_its_generator() -> None:
    scenes = np.random.default_rng(1).random((2, 64, 64))
    one, again = (patchwork(*scenes, np.random.default_rng(2)) for _ in range(2))
    assert np.array_equal(one, again)
