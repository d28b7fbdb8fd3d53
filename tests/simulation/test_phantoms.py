"""Laws of the drawn samples."""

import numpy as np
import pytest

from napari_semsr.core.errors import OptionError
from napari_semsr.simulation.canvas import PHANTOMS, draw_phantom
from tests.refusals import refused


@pytest.mark.parametrize("kind", PHANTOMS)
def test_draw_fills_the_unit_range_and_is_repeatable(kind: str) -> None:
    first, again = (
        draw_phantom(kind, (64, 81), seed=4),
        draw_phantom(kind, (64, 81), seed=4),
    )
    assert first.shape == (64, 81)
    assert first.dtype == np.float32
    assert (first.min(), first.max()) == (0, 1)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, draw_phantom(kind, (64, 81), seed=5))


@pytest.mark.parametrize("pitch", [6.0, 10.5])
def test_grating_has_its_pitch(pitch: float) -> None:
    image = draw_phantom("grating", (192, 192), seed=1, pitch_px=pitch)
    window = np.hanning(192)
    power = np.abs(np.fft.fft2((image - image.mean()) * np.outer(window, window))) ** 2
    fy, fx = np.meshgrid(*(2 * [np.fft.fftfreq(192)]), indexing="ij")
    radius = np.hypot(fy, fx)
    power[radius < 0.02] = 0
    assert 1 / radius.flat[power.argmax()] == pytest.approx(pitch, rel=0.06)


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
