import numpy as np
import pytest

from napari_semsr.analysis.frc.crossing import first_crossing, slope_at

FREQUENCY = np.arange(6) / 10


def test_first_crossing_interpolates() -> None:
    curve = np.array([[0, 1.0, 0.8, 0.4, 0.0, 0.0]])
    found = first_crossing(curve, np.full(6, 0.5), FREQUENCY)
    assert found[0] == pytest.approx(0.275)


@pytest.mark.parametrize("level", [0.0, 1.0], ids=["below", "above"])
def test_no_crossing_is_nan(level: float) -> None:
    curve = np.full((1, 6), level)
    assert np.isnan(first_crossing(curve, np.full(6, 0.5), FREQUENCY)[0])


def test_start_skips_inner_rings() -> None:
    curve = np.array([[0, 1.0, 0.0, 1.0, 1.0, 0.0]])
    early = first_crossing(curve, np.full(6, 0.5), FREQUENCY)
    late = first_crossing(curve, np.full(6, 0.5), FREQUENCY, start=2)
    assert early[0] == pytest.approx(0.15)
    assert late[0] == pytest.approx(0.45)


def test_slope_of_a_line_is_its_slope() -> None:
    curve = (1 - 1.5 * FREQUENCY)[None, :]
    slope = slope_at(curve, np.array([0.3]), FREQUENCY, np.ones(6))
    assert slope[0] == pytest.approx(-1.5)
