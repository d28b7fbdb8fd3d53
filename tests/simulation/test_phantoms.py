"""Laws of the drawn samples."""

import numpy as np
import pytest

from napari_semsr.core.errors import OptionError
from napari_semsr.simulation.canvas import PHANTOMS, draw_phantom
from tests.refusals import refused


@pytest.mark.parametrize("kind", PHANTOMS)
@pytest.mark.parametrize("pitch", [2.0, 100.0])
def test_extreme_pitches_draw_something_finite(kind: str, pitch: float) -> None:
    assert np.all(np.isfinite(draw_phantom(kind, (32, 32), pitch_px=pitch)))


def test_bad_requests_are_refused_in_one_sentence() -> None:
    with refused(OptionError, "unknown-value", match="'cat'"):
        draw_phantom("cat", (64, 64))
    with refused(OptionError, "out-of-range", match=" 2 px, got 1"):
        draw_phantom("pits", (64, 64), pitch_px=1)
    with refused(OptionError, "out-of-range"):
        draw_phantom("pits", (7, 64))
