import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import ndimage

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.pairing.cut import (
    DensityMeter,
    balance_densities,
    find_pair_rejection_reason,
)
from napari_semsr.pairing.options import PairOptions

OPTIONS = PairOptions(patch=64)
RANGES = ((0.0, 1.0), (0.0, 1.0))


@pytest.fixture
def patch(rng) -> np.ndarray:
    grain = ndimage.gaussian_filter(rng.standard_normal((64, 64)), 2, mode="wrap")
    return 0.5 + 0.2 * grain / grain.std()


def test_blurred_noisy_inverted_and_two_to_one_pairs_are_kept(patch, rng):
    low = ndimage.gaussian_filter(patch, 1.5) + rng.normal(0, 0.05, patch.shape)
    assert find_pair_rejection_reason(low, patch, RANGES, OPTIONS) is None
    assert find_pair_rejection_reason(1 - low, patch, RANGES, OPTIONS) is None
    assert (
        find_pair_rejection_reason(
            patch, np.kron(patch, np.ones((2, 2))), RANGES, OPTIONS
        )
        is None
    )


@pytest.mark.parametrize(
    ("shift", "reason"), [((0, -2), None), ((4, 0), "shifted"), ((-3, 3), "shifted")]
)
def test_only_larger_shifts_are_found(patch, shift, reason):
    low = np.roll(patch, shift, (0, 1))
    options = OPTIONS.replace(min_correlation=0.0)
    assert find_pair_rejection_reason(low, patch, RANGES, options) == reason


def test_what_a_map_brought_together_need_not_look_alike(patch, rng):
    other = rng.random((64, 64))
    assert find_pair_rejection_reason(other, patch, RANGES, OPTIONS) == "uncorrelated"
    assert (
        find_pair_rejection_reason(other, patch, RANGES, OPTIONS, is_mapped=True)
        is None
    )
    asked = OPTIONS.replace(min_correlation=0.3)
    assert (
        find_pair_rejection_reason(other, patch, RANGES, asked, is_mapped=True)
        == "uncorrelated"
    )
    blank = np.full_like(patch, 0.5)
    assert (
        find_pair_rejection_reason(blank, patch, RANGES, OPTIONS, is_mapped=True)
        == "empty"
    )


@pytest.mark.parametrize("side", [0, 1])
def test_empty_and_missing_on_either_side(patch, side):
    for value, reason in ((0.5, "empty"), (np.nan, "not-finite")):
        pair = [patch.copy(), patch.copy()]
        pair[side][:] = value
        assert find_pair_rejection_reason(*pair, RANGES, OPTIONS) == reason


shares = st.lists(st.floats(0, 1), max_size=40)


@given(shares, shares, st.integers(0, 9))
def test_both_sides_are_equally_many_and_none_twice(low, high, seed):
    first, second = balance_densities(low, high, np.random.default_rng(seed))
    assert len(first) == len(second)
    assert len(set(first)) == len(first) <= len(low)
    assert len(set(second)) == len(second) <= len(high)


def test_densities_agree_afterwards_and_equal_sets_are_kept_whole(rng):
    low, high = rng.beta(2, 5, 400), rng.beta(5, 2, 400)
    first, second = balance_densities(list(low), list(high), rng)
    before = abs(low.mean() - high.mean())
    after = abs(low[first].mean() - high[second].mean())
    assert first
    assert after < 0.25 * before
    values = list(rng.random(50))
    first, second = balance_densities(values, values, rng)
    assert sorted(first) == sorted(second) == list(range(50))


def test_density_grows_with_pattern_of_either_sign():
    image = np.zeros((128, 128))
    image[:, 64:] = np.kron(np.indices((16, 8)).sum(0) % 2, np.ones((8, 8)))
    for data, least in ((image, 0.3), (1 - image, 0.3), (0 * image, -1)):
        meter = DensityMeter(Micrograph(data))
        assert meter.measure_density(data[:, :48]) == 0
        assert meter.measure_density(data[:, 72:]) > least


def test_density_is_the_same_beside_a_gap(rng):
    whole = 20000 + 50 * ndimage.gaussian_filter(rng.standard_normal((128, 256)), 3)
    gap = whole.copy()
    gap[:, 100:112] = np.nan
    expected, found = (
        DensityMeter(Micrograph(data)).measure_density(whole[:, :64])
        for data in (whole, gap)
    )
    assert expected > 0.1
    assert found == pytest.approx(expected, rel=0.2)
    assert DensityMeter(Micrograph(0 * gap)).measure_density(whole[:, :64]) == 0
