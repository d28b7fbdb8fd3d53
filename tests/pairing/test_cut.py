import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.pairing.cut import REASONS, judge
from napari_semsr.pairing.options import PairOptions

OPTIONS = PairOptions(patch=64)
RANGES = ((0.0, 1.0), (0.0, 1.0))


@pytest.fixture
def patch(rng) -> np.ndarray:
    grain = ndimage.gaussian_filter(rng.standard_normal((64, 64)), 2, mode="wrap")
    return 0.5 + 0.2 * grain / grain.std()


def test_blurred_noisy_and_inverted_pairs_are_kept(patch, rng):
    low = ndimage.gaussian_filter(patch, 1.5) + rng.normal(0, 0.05, patch.shape)
    assert judge(low, patch, RANGES, OPTIONS) is None
    assert judge(1 - low, patch, RANGES, OPTIONS) is None


@pytest.mark.parametrize("shift", [(0, 0), (1, 1), (0, -2)])
def test_small_shifts_are_kept(patch, shift):
    low = np.roll(patch, shift, (0, 1))
    assert judge(low, patch, RANGES, OPTIONS) is None


@pytest.mark.parametrize("shift", [(4, 0), (-3, 3), (0, -4)])
def test_larger_shifts_are_found(patch, shift):
    low = np.roll(patch, shift, (0, 1))
    options = OPTIONS.replace(min_correlation=0.0)
    assert judge(low, patch, RANGES, options) == "shifted"


def test_foreign_patch_is_uncorrelated(patch, rng):
    assert judge(rng.random((64, 64)), patch, RANGES, OPTIONS) == "uncorrelated"


def test_what_a_map_brought_together_need_not_look_alike(patch, rng):
    other = rng.random((64, 64))
    assert judge(other, patch, RANGES, OPTIONS, mapped=True) is None
    asked = OPTIONS.replace(min_correlation=0.3)
    assert judge(other, patch, RANGES, asked, mapped=True) == "uncorrelated"
    blank = np.full_like(patch, 0.5)
    assert judge(blank, patch, RANGES, OPTIONS, mapped=True) == "empty"


@pytest.mark.parametrize("side", [0, 1])
def test_empty_and_missing_on_either_side(patch, side):
    for value, reason in ((0.5, "empty"), (np.nan, "not-finite")):
        pair = [patch.copy(), patch.copy()]
        pair[side][:] = value
        assert judge(*pair, RANGES, OPTIONS) == reason
        assert reason in REASONS


def test_two_to_one_pair(patch):
    high = np.kron(patch, np.ones((2, 2)))
    assert judge(patch, high, RANGES, OPTIONS) is None
