import numpy as np
import pytest

from napari_semsr.analysis.frc.crossing import FrcCriterion, fit_slope


def test_slope_is_that_of_the_rings_beside_the_crossing() -> None:
    frequency = np.arange(12) / 20
    curve = np.clip(1.2 - 10 * (frequency - 0.1), 0.2, 0.8)[None]  # steep within 0.06
    found = fit_slope(curve, np.array([0.17]), frequency, np.ones(12))
    inside = np.abs(frequency - 0.17) <= 1.5 / 20
    expected = np.polyfit(frequency[inside], curve[0, inside], 1)[0]
    assert found[0] == pytest.approx(expected)


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
