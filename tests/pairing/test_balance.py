import numpy as np
from hypothesis import given, strategies as st

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.pairing.cut import DensityMeter, balance

shares = st.lists(st.floats(0, 1), max_size=40)


@given(shares, shares, st.integers(0, 9))
def test_both_sides_are_equally_many_and_none_twice(low, high, seed):
    first, second = balance(low, high, np.random.default_rng(seed))
    assert len(first) == len(second)
    assert len(set(first)) == len(first) <= len(low)
    assert len(set(second)) == len(second) <= len(high)


def test_densities_agree_afterwards(rng):
    low, high = rng.beta(2, 5, 400), rng.beta(5, 2, 400)
    first, second = balance(list(low), list(high), rng)
    before = abs(low.mean() - high.mean())
    after = abs(low[first].mean() - high[second].mean())
    assert first
    assert after < 0.25 * before


def test_equal_sets_are_kept_whole(rng):
    values = list(rng.random(50))
    first, second = balance(values, values, rng)
    assert sorted(first) == sorted(second) == list(range(50))


def test_density_grows_with_pattern_of_either_sign():
    image = np.zeros((128, 128))
    image[:, 64:] = np.kron(np.indices((16, 8)).sum(0) % 2, np.ones((8, 8)))
    for data in (image, 1 - image):
        meter = DensityMeter(Micrograph(data))
        assert meter.measure(data[:, :48]) == 0
        assert meter.measure(data[:, 72:]) > 0.3


def test_flat_image_has_no_pattern():
    meter = DensityMeter(Micrograph(np.full((40, 40), 7, np.uint8)))
    assert meter.measure(np.full((16, 16), 7)) == 0
