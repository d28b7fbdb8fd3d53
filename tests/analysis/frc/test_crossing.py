import numpy as np
import pytest

from napari_semsr.analysis.frc.crossing import (
    FrcCriterion,
    find_first_crossing,
)

FREQUENCY = np.arange(6) / 10


@pytest.mark.parametrize(
    ("curve", "start", "expected"),
    [
        ([1.0, 0.0, 1.0, 0.0, 0.0, 0.0], 1, 0.25),  # the field's mean is no ring
        ([0, 1.0, 0.0, 1.0, 1.0, 0.0], 2, 0.45),  # inner rings are skipped
        ([1.0] * 6, 1, np.nan),
    ],
)
def test_first_crossing_is_where_the_curve_falls(curve, start, expected):
    half = np.full(6, 0.5)
    found = find_first_crossing(np.array([curve]), half, FREQUENCY, start=start)
    assert found[0] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("criterion", "samples", "reference", "expected"),
    [
        ("1/7", 8.0, False, 1 / 7),
        ("1/7", 1e6, True, np.sqrt(1 / 7)),
        ("half-bit", 1e12, False, 0.2071 / 1.2071),
        ("3-sigma", 200.0, False, 0.3),  # both halves of the plane count
    ],
)
def test_thresholds_are_as_published(criterion, samples, reference, expected):
    question = FrcCriterion(criterion, "exact", reference, False)
    found = question.compute_threshold(np.array([samples]))
    assert found[0] == pytest.approx(expected, abs=1e-5)
