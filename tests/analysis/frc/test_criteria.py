import numpy as np
import pytest

from napari_semsr.analysis.frc.crossing import Question
from napari_semsr.analysis.frc.validity import REASONS, code_of
from napari_semsr.core.errors import OptionError

SAMPLES = np.array([1.0, 8.0, 100.0, 1e6])


def threshold(criterion, samples, *, reference=False):  # type: ignore[no-untyped-def]
    return Question(criterion, "exact", reference, False).threshold(samples)


def test_codes_invert() -> None:
    assert [REASONS[code_of(reason) - 1] for reason in REASONS] == list(REASONS)
    assert code_of(None) == 0


def test_fixed_threshold_is_one_seventh() -> None:
    np.testing.assert_allclose(threshold("1/7", SAMPLES), 1 / 7)


def test_reference_threshold_is_the_root() -> None:
    curve = threshold("1/7", SAMPLES, reference=True)
    np.testing.assert_allclose(curve, np.sqrt(1 / 7))


def test_half_bit_of_a_large_ring_tends_to_its_constant() -> None:
    curve = threshold("half-bit", np.array([1e12]))
    assert curve[0] == pytest.approx(0.2071 / 1.2071, abs=1e-5)


def test_three_sigma_counts_both_halves_of_the_plane() -> None:
    curve = threshold("3-sigma", np.array([200.0]))
    assert curve[0] == pytest.approx(0.3)


@pytest.mark.parametrize("criterion", ["half-bit", "3-sigma"])
def test_reference_is_refused_with_other_criteria(criterion: str) -> None:
    with pytest.raises(OptionError, match=criterion):
        threshold(criterion, SAMPLES, reference=True)
