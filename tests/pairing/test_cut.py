import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import ndimage

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.pairing.cut import (
    balance_densities,
    create_density_meter,
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
    fine = np.kron(patch, np.ones((2, 2)))
    for pair in ((low, patch), (1 - low, patch), (patch, fine)):
        assert find_pair_rejection_reason(*pair, RANGES, OPTIONS) is None


@pytest.mark.parametrize(
    ("shift", "reason"), [((0, -2), None), ((4, 0), "shifted"), ((-3, 3), "shifted")]
)
def test_only_larger_shifts_are_found(patch, shift, reason):
    low = np.roll(patch, shift, (0, 1))
    options = OPTIONS.replace(min_correlation=0.0)
    assert find_pair_rejection_reason(low, patch, RANGES, options) == reason


def test_what_a_map_brought_together_need_not_look_alike(patch, rng):
    def reason(other, options=OPTIONS, *, is_mapped=True):
        return find_pair_rejection_reason(
            other, patch, RANGES, options, is_mapped=is_mapped
        )

    other = rng.random((64, 64))
    assert reason(other, is_mapped=False) == "uncorrelated"
    assert reason(other) is None
    assert reason(other, OPTIONS.replace(min_correlation=0.3)) == "uncorrelated"
    assert reason(np.full_like(patch, 0.5)) == "empty"


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


def test_density_grows_with_pattern_of_either_sign():
    image = np.zeros((128, 128))
    image[:, 64:] = np.kron(np.indices((16, 8)).sum(0) % 2, np.ones((8, 8)))
    for data, least in ((image, 0.3), (1 - image, 0.3), (0 * image, -1)):
        measure_density = create_density_meter(Micrograph(data))
        assert measure_density(data[:, :48]) == 0
        assert measure_density(data[:, 72:]) > least
