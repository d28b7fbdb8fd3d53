import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from scipy.stats import wasserstein_distance

from napari_semsr.analysis.metrics import earth_movers_distance, measure_histogram
from napari_semsr.core import Micrograph, ReadError
from tests.refusals import refused


@settings(deadline=None, max_examples=20)
@given(first=arrays(np.uint8, 13), second=arrays(np.uint8, 8))
def test_distance_equals_scipy(first, second):
    expected = wasserstein_distance(first, second)
    assert earth_movers_distance(first, second) == pytest.approx(expected, abs=1e-9)
    wide = first.astype(float), second.astype(float)
    assert earth_movers_distance(*wide) == pytest.approx(expected, abs=1e-9)


def test_counts_hold_every_pixel_on_common_bins() -> None:
    image = Micrograph(np.arange(64, dtype=np.uint8).reshape(8, 8))
    other = Micrograph(np.full((5, 5), 200, np.uint8))
    found = measure_histogram(image, other, bins=300)
    assert found.counts.sum() == 64
    assert found.reference_counts.sum() == 25
    assert found.bins.size == found.counts.size + 1
    np.testing.assert_array_equal(np.diff(found.bins), 1)
    assert found.emd == pytest.approx(200 - 31.5)


def test_bins_hold_what_is_finite():
    found = measure_histogram(Micrograph(np.full((3, 3), -2.5)), bins=4)
    assert sorted(found.counts) == [0, 0, 0, 9]
    image = Micrograph(np.array([[1.0, np.nan], [np.inf, 2.0]]))
    assert measure_histogram(image, bins=2).counts.sum() == 2


def test_bad_input_is_refused() -> None:
    with refused(ReadError, "no-finite-values"):
        measure_histogram(Micrograph(np.full((2, 2), np.nan)))
