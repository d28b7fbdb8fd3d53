"""Haze is found once for a field and lifted alike in every window."""

import numpy as np
import pytest

from napari_semsr.core import Box, Micrograph, run
from napari_semsr.inference import EnhanceOptions, enhance_in_memory, network_input
from napari_semsr.inference.network_input import HazeMap, measure_scaling, survey_field


@pytest.fixture
def hazy(rng: np.random.Generator) -> np.ndarray:
    """Noise whose contrast falls from left to right."""
    field = rng.random((90, 118)) - 0.5
    return (0.5 + field * np.linspace(1, 0.3, 118)).astype(np.float32)


def test_gain_of_a_pixel_does_not_depend_on_the_window(rng):
    haze = HazeMap(rng.random((5, 7), dtype=np.float32), 16, 0.3)
    whole = haze.interpolate_gain(Box(0, 96, 0, 120))
    for box in (Box(3, 40, 17, 18), Box(60, 96, 100, 120)):
        np.testing.assert_array_equal(haze.interpolate_gain(box), whole[box.slices])
    between = haze.gain[0, 0] + (haze.gain[1, 0] - haze.gain[0, 0]) / 32
    assert whole[8, 7] == pytest.approx(between, abs=1e-6)


@pytest.mark.parametrize("tile", [48, 256])
def test_tiles_equal_the_untiled_definition(
    make_loaded, whole, hazy, tile, monkeypatch
):
    # which has no limit to the noise of flat areas
    monkeypatch.setattr(network_input, "find_coring_threshold", lambda *_: 0.0)
    loaded = make_loaded("informed")
    options = EnhanceOptions(tile=tile, precision="fp32")
    made = run(enhance_in_memory(Micrograph(hazy), loaded, options))
    np.testing.assert_allclose(made.array(), whole(hazy, loaded), atol=2e-6)
    least, most = made.metadata["enhance"]["haze_gain"]
    assert least < most


def test_haze_is_left_when_asked(make_loaded, hazy):
    loaded = make_loaded("informed")
    asked = ({"haze": False}, {"dehaze": 0.0}, {})
    options = (EnhanceOptions(precision="fp32", **how) for how in asked)
    images = (enhance_in_memory(Micrograph(hazy), loaded, one) for one in options)
    made, none, usual = map(run, images)
    np.testing.assert_allclose(made.array(), none.array(), atol=1e-6)
    assert np.abs(made.array() - usual.array()).max() > 1e-3
    assert made.metadata["enhance"]["haze_gain"] is None


def test_missing_pixels_do_not_pass_for_haze(make_loaded, rng):
    field = rng.random((160, 160)).astype(np.float32)
    holed = field.copy()
    holed[40:90, 50:130] = np.nan
    module = make_loaded("informed").module
    scalings = ((a, module, measure_scaling(a, (1, 99))) for a in (field, holed))
    clean, filled = (survey_field(*given).haze for given in scalings)
    assert np.abs(clean.gain - filled.gain).max() < 0.1


def test_large_fields_are_seen_coarser(make_loaded, monkeypatch, hazy):
    monkeypatch.setattr("napari_semsr.inference.network_input.LARGEST_MAP", 4)
    module = make_loaded("informed").module
    haze = survey_field(hazy, module, measure_scaling(hazy, (1, 99))).haze
    assert haze.pitch == 32
    assert haze.gain.shape == (3, 4)


def test_a_large_field_of_8_bits_is_looked_at_as_one_of_floats(make_loaded, rng):
    module = make_loaded("informed").module
    field = rng.integers(0, 256, (80, 4500)).astype(np.uint8)
    field[:, 3000:] //= 2
    floats = field.astype(np.float32)
    scaling = measure_scaling(field, (0.1, 99.9))
    wider = measure_scaling(floats, (0.1, 99.9))
    assert (scaling.low, scaling.high) == (wider.low, wider.high)
    short, wide = (survey_field(data, module, scaling) for data in (field, floats))
    np.testing.assert_array_equal(short.haze.gain, wide.haze.gain)
    assert (short.condition, short.rings) == (wide.condition, wide.rings)
