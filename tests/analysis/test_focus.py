import json
from dataclasses import asdict

import numpy as np
import pytest

from napari_semsr.analysis import EXPLAINED, ExplainedDetail, Falloff
from napari_semsr.core import CheckpointError, Micrograph, parse_pixel_size
from napari_semsr.simulation import MicroscopeOptions
from napari_semsr.simulation.microscope import (
    _FINE as _SAMPLES,
    compute_focus_depth_nm,
    compute_transfer_function,
)
from tests.refusals import refused

SIZE = parse_pixel_size(20.0)
OPTICS = MicroscopeOptions()
CUT_OFF = OPTICS.cut_off_nm


def lens(options: MicroscopeOptions, depths: float, v: np.ndarray) -> np.ndarray:
    """Transfer, at frequencies over the cut-off, some depths of focus away."""
    found = compute_transfer_function(
        options, [(depths * compute_focus_depth_nm(options), 1.0)]
    )
    middle = found.shape[0] // 2
    row = np.abs(found[middle, middle:])
    return np.interp(np.minimum(v, 1) * 2 * _SAMPLES, np.arange(row.size), row)


def scan(depths: float, *, steepness: float = 2.0, seed: int = 0, side: int = 512):
    """A field whose power falls with the frequency, seen by a lens with noise."""
    rng = np.random.default_rng(seed)
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    f[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=(side, side))) * f ** (-steepness / 2)
    seen = spectrum * lens(OPTICS, depths, f * CUT_OFF / 20.0)
    plane = np.fft.irfft2(seen, (side, side))
    plane = plane / plane.std() + rng.normal(0, 3e-3, plane.shape)
    return Micrograph(plane.astype(np.float32), SIZE, "scan")


@pytest.mark.parametrize("steepness", [2.0, 3.0])
def test_nothing_within_half_the_depth_is_out_of_focus(steepness):
    for depths in (0.0, 0.5):
        found = Falloff.from_image(scan(depths, steepness=steepness), CUT_OFF)
        assert found is not None
        assert not found.is_out_of_focus()


def test_a_scan_beyond_the_depth_is_out_of_focus():
    found = Falloff.from_image(scan(2.0), CUT_OFF)
    assert found is not None
    assert found.is_out_of_focus()


def test_what_cannot_be_determined_is_not():
    image = scan(3.0)
    assert Falloff.from_image(image) is None  # no cut-off is known
    assert Falloff.from_image(image.replace(pixel_size_nm=None), CUT_OFF) is None
    assert Falloff.from_image(scan(3.0, side=200), CUT_OFF) is None
    gaps = image.array().copy()
    gaps[::40] = np.nan
    assert Falloff.from_image(image.replace(data=gaps), CUT_OFF) is None
    noise = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)
    assert Falloff.from_image(image.replace(data=noise), CUT_OFF) is None


def test_less_of_the_finest_detail_is_explained_of_a_scan_out_of_focus():
    near, far = scan(0.0, seed=3).array(), scan(0.5, seed=3).array()

    def explain(seen):
        return ExplainedDetail.from_planes([(seen, near)], CUT_OFF / 20, (0.0, 1.0))

    place = explain(near + 0.001)
    assert place.share == pytest.approx(1)
    assert explain(far).is_below(place)
    assert not place.is_below(explain(far))
    noise = np.random.default_rng(1).normal(0, 1e-3, near.shape)
    assert 0.9 < explain(near + noise).share < 1
    assert ExplainedDetail.from_planes([(near[:128, :128],) * 2], 8.0, (0, 1)) is None


def test_a_card_keeps_it():
    found = ExplainedDetail(0.8, 0.01, 7.6, (0.1, 0.9))
    record = json.loads(json.dumps({EXPLAINED: asdict(found)}))
    assert ExplainedDetail.from_model_card(record) == found
    assert ExplainedDetail.from_model_card({}) is None
    for damage in ({"share": "?"}, {"cut_off_px": 0.0}, {"light_range": [1]}):
        with refused(CheckpointError, "model-damaged"):
            ExplainedDetail.from_model_card({EXPLAINED: record[EXPLAINED] | damage})
