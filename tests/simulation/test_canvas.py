import numpy as np
import pytest
from hypothesis import given, strategies as st

from napari_semsr.core.errors import OptionError
from napari_semsr.simulation.canvas import PHANTOMS, compute_coverage, draw_phantom
from tests.refusals import refused


@given(at=st.floats(-40, 40), sidewall=st.floats(0, 30), pixel=st.floats(1, 30))
def test_cover_is_the_mean_over_the_pixel(at, sidewall, pixel):
    inner = at + ((np.arange(8) + 0.5) / 8 - 0.5) * pixel
    fine = compute_coverage(inner, sidewall, pixel / 8).mean()
    found = compute_coverage(np.array(at), sidewall, pixel)
    assert found == pytest.approx(fine, abs=1e-5)


@pytest.mark.parametrize("kind", PHANTOMS)
@pytest.mark.parametrize("pitch", [2.0, 100.0])
def test_extreme_pitches_draw_something_finite(kind: str, pitch: float) -> None:
    assert np.all(np.isfinite(draw_phantom(kind, (32, 32), pitch_px=pitch)))


def test_bad_requests_are_refused() -> None:
    with refused(OptionError, "unknown-value", match="'cat'"):
        draw_phantom("cat", (64, 64))
    for shape, pitch in (((64, 64), 1), ((7, 64), 9)):
        with refused(OptionError, "out-of-range"):
            draw_phantom("pits", shape, pitch_px=pitch)
