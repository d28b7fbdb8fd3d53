"""An estimated shift recovers the applied one, or is refused."""

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core.errors import RegistrationError, ShapeError
from napari_semsr.registration import find_shift
from tests.refusals import refused


@pytest.fixture(scope="module")
def field():
    rng = np.random.default_rng(4)
    return ndimage.gaussian_filter(rng.normal(size=(260, 240)), 2.5)


def _moved(field, shift):
    whole = ndimage.shift(field, shift, order=3, mode="nearest")
    return whole[30:-30, 30:-30]


@pytest.mark.parametrize(
    ("shift", "gain"), [((3.3, -7.6), 1.0), ((-11.0, 0.25), -3.0)], ids=str
)
def test_shift_recovers_the_applied_one(field, rng, shift, gain):
    fixed = field[30:-30, 30:-30]
    noise = 0.02 * rng.normal(size=fixed.shape)
    moving = gain * _moved(field, [-v for v in shift]) + 5 + noise
    found = find_shift(fixed, moving, reach=16)
    np.testing.assert_allclose(found.shift_px, shift, atol=0.1)
    assert found.quarters >= 3
    assert found.error_px < 0.2
    assert found.runner_up < 0.6
    assert np.sign(found.correlation) == np.sign(gain)
    assert not found.is_ambiguous


def test_gaps_do_not_hold_the_shift_back(field):
    fixed, moving = field[30:-30, 30:-30], _moved(field, (4, -5)).copy()
    moving[:20], moving[:, 170:] = np.nan, np.nan
    found = find_shift(fixed, moving, reach=16)
    assert found.shift_px == pytest.approx((-4, 5), abs=0.1)


def test_strangers_flats_and_shifts_beyond_the_search_are_refused(field, rng):
    fixed = field[30:-30, 30:-30]
    with refused(RegistrationError, "beyond-search"):
        find_shift(fixed, rng.normal(size=fixed.shape), reach=16)
    flat = np.ones(fixed.shape)
    for pair in ((fixed, flat), (flat, fixed), (flat, flat)):
        with refused(RegistrationError, "no-structure"):
            find_shift(*pair, reach=16)
    with refused(RegistrationError, "shift-unconfirmed"):
        find_shift(field[30:-30, 30:-30], _moved(field, (20, 0)), reach=10)


def test_small_or_unequal_fields_are_refused(field):
    with refused(ShapeError, "image-too-small", "132 px"):
        find_shift(field[:100, :100], field[:100, :100], reach=32)
    with refused(ShapeError, "image-too-small", "64 px"):
        find_shift(field[:60, :100], field[:60, :100], reach=4)
    with refused(ShapeError, "sizes-differ"):
        find_shift(field, field[1:], reach=8)
    least = field[:64, :64]  # no smaller than four times the search range
    assert find_shift(least, least, reach=15).shift_px == (0, 0)


def test_the_error_is_that_of_the_mean_of_the_quarters(field):
    fixed = field[30:-30, 30:-30]
    moving = fixed.copy()
    for half, move in ((np.s_[:100], 3), (np.s_[100:], 4)):
        moving[half] = field[30 - move : -30 - move, 30:-30][half]
    found = find_shift(fixed, moving, reach=16)
    assert found.quarters == 4
    assert found.error_px == pytest.approx(np.std([3, 3, 4, 4], ddof=1) / 2, abs=0.03)
    assert found.shift_px[1] == pytest.approx(0, abs=0.05)
    assert -4 <= found.shift_px[0] <= -3
    moving[:100, :90] = np.nan  # a quarter shows nothing
    found = find_shift(fixed, moving, reach=16)
    assert found.quarters == 3
    assert found.error_px == pytest.approx(np.std([3, 4, 4], ddof=1) / 3**0.5, abs=0.05)
