"""The oracle that restorers are held against."""

import numpy as np
import pytest
from _restoration import BORDER, TAPS, oracle
from scipy import ndimage

pytestmark = pytest.mark.broad


@pytest.mark.parametrize("scale", [1, 2])
def test_oracle_finds_a_linear_filter_at_either_pixel_size(scale: int) -> None:
    rng = np.random.default_rng(0)
    low = 255 * rng.random((72, 76))
    truth = np.zeros([n * scale for n in low.shape])
    for y, x in np.ndindex(scale, scale):
        taps = rng.normal(size=(TAPS, TAPS)) / TAPS
        truth[y::scale, x::scale] = 5 + ndimage.correlate(low, taps, mode="nearest")
    found = oracle(low, truth)
    edge = np.s_[BORDER * scale : -BORDER * scale]
    assert np.abs(found - truth)[edge, edge].max() < 1e-3 * truth.std()
    beyond = truth + 255 * rng.random(truth.shape)  # what no filter can know
    assert np.abs(oracle(low, beyond) - beyond)[edge, edge].max() > 1
