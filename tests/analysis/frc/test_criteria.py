import numpy as np
import pytest

from napari_semsr.analysis.frc.crossing import FrcCriterion
from napari_semsr.analysis.frc.validity import REASONS, get_reason_code


def test_codes_invert() -> None:
    assert [REASONS[get_reason_code(reason) - 1] for reason in REASONS] == list(REASONS)
    assert get_reason_code(None) == 0


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
