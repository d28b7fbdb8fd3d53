import numpy as np
import pytest

from napari_semsr.analysis.frc.crossing import (
    FrcCriterion,
    find_first_crossing,
    fit_slope,
)
from napari_semsr.analysis.frc.rings import plan_geometry

FREQUENCY = np.arange(6) / 10


@pytest.mark.parametrize(
    ("curve", "start", "expected"),
    [
        ([0, 1.0, 0.8, 0.4, 0.0, 0.0], 1, 0.275),  # between two rings
        ([1.0, 0.0, 1.0, 0.0, 0.0, 0.0], 1, 0.25),  # the field's mean is no ring
        ([0, 1.0, 0.0, 1.0, 1.0, 0.0], 1, 0.15),
        ([0, 1.0, 0.0, 1.0, 1.0, 0.0], 2, 0.45),  # inner rings are skipped
        ([0.0] * 6, 1, np.nan),
        ([1.0] * 6, 1, np.nan),
    ],
)
def test_first_crossing_is_where_the_curve_falls(curve, start, expected):
    how = {} if start == 1 else {"start": start}
    found = find_first_crossing(np.array([curve]), np.full(6, 0.5), FREQUENCY, **how)
    assert found[0] == pytest.approx(expected, nan_ok=True)


def test_slope_is_that_of_the_rings_beside_the_crossing() -> None:
    frequency = np.arange(12) / 20
    curve = np.clip(1.2 - 10 * (frequency - 0.1), 0.2, 0.8)[None]  # steep within 0.06
    found = fit_slope(curve, np.array([0.17]), frequency, np.ones(12))
    inside = np.abs(frequency - 0.17) <= 1.5 / 20
    expected = np.polyfit(frequency[inside], curve[0, inside], 1)[0]
    assert found[0] == pytest.approx(expected)


@pytest.mark.parametrize(("criterion", "first"), [("1/7", 1), ("3-sigma", 2)])
def test_three_sigma_leaves_the_two_inner_rings_out(criterion: str, first: int) -> None:
    geometry = plan_geometry((64, 64), (1.0, 1.0), 0.5)
    question = FrcCriterion(criterion, "plain", False, False)
    curve = np.ones((1, geometry.rings.complete))
    curve[0, 2], curve[0, 20:] = -1.0, 0.0
    samples = geometry.rings.samples[: curve.shape[1]]
    threshold = question.compute_threshold(samples)
    crossing = question.find_crossings(curve, geometry, threshold, threshold).crossing[
        0
    ]
    ring = crossing / geometry.rings.bin_width
    assert ring == pytest.approx(1.5, abs=0.5) if first == 1 else 19 < ring < 20
