"""Laws of drawing in nanometres."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from napari_semsr.simulation.canvas import (
    compute_coverage,
)


@given(at=st.floats(-40, 40), sidewall=st.floats(0, 30), pixel=st.floats(1, 30))
def test_cover_is_the_mean_over_the_pixel(at, sidewall, pixel):
    parts = 8
    inner = at + ((np.arange(parts) + 0.5) / parts - 0.5) * pixel
    fine = compute_coverage(inner, sidewall, pixel / parts).mean()
    assert compute_coverage(np.array(at), sidewall, pixel) == pytest.approx(
        fine, abs=1e-5
    )
