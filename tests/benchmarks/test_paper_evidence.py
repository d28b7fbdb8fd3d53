"""Tests of what stands beside the papers' tables: spread, fields, gaps."""

import numpy as np
import pytest
from numpy.typing import NDArray
from paper_tables.real_gold import gap_row
from scipy import ndimage

pytestmark = pytest.mark.broad

Image = NDArray[np.float64]


def balls(shift: float = 0.0) -> Image:
    """Draw two rows of bright balls."""
    y, x = np.mgrid[:160, :160]
    image = np.zeros((160, 160))
    for row in (50, 110):
        for column in (35, 80, 125):
            image += 200 / (1 + np.exp(np.hypot(y - row, x - column - shift) - 18))
    return image


def test_gaps_of_real_gold_are_all_seen_in_the_reference_itself() -> None:
    clean = balls()
    row = gap_row(clean, clean)
    assert row["gaps"] is not None
    assert row["gaps"] > 4
    assert row["undetected_percent"] == row["invented_percent"] == 0
    assert row["width_error_nm"] == pytest.approx(0, abs=1e-6)
    blurred = gap_row(ndimage.gaussian_filter(clean, 6.0), clean)
    assert blurred["width_error_nm"] is not None
    assert blurred["width_error_nm"] > 1
