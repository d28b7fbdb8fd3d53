"""Laws of drawing in nanometres."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from napari_semsr.simulation.canvas import (
    compute_coverage,
)


@given(at=st.floats(-40, 40), sidewall=st.floats(0, 30), pixel=st.floats(1, 30))
def test_cover_is_the_mean_over_the_pixel(at, sidewall, pixel):
    inner = at + ((np.arange(8) + 0.5) / 8 - 0.5) * pixel
    fine = compute_coverage(inner, sidewall, pixel / 8).mean()
    found = compute_coverage(np.array(at), sidewall, pixel)
    assert found == pytest.approx(fine, abs=1e-5)
