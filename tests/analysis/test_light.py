"""A comparison with the truth is split where the light's frequencies end."""

import math

import numpy as np
import pytest

import napari_semsr as semsr
from napari_semsr.analysis import compute_psnr_gain, measure_metrics
from napari_semsr.core import InputRecord, Micrograph, OptionError, Provenance
from tests.refusals import refused, warned

SIZE = (10.0, 10.0)
END = 80.0  # nm: a period of 8 px
PUPIL = {"optics": "pupil", "numerical_aperture": 1.8, "wavelength_nm": 550.0}


def _band(rng, shortest, longest, shape=(160, 200)):
    """Noise with periods between two lengths in nm."""
    spectrum = np.fft.fft2(rng.standard_normal(shape))
    radius = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij")) / 10
    spectrum[(radius < 1 / longest) | (radius > 1 / shortest)] = 0
    return np.fft.ifft2(spectrum).real


@pytest.fixture
def parts():
    """What light carries, what it does not, and an error of each kind."""
    rng = np.random.default_rng(4)
    low, high = (110, 500), (20, 60)
    return [_band(rng, *periods) for periods in (low, high, low, high)]


def _measure(image, truth, **how):
    made = Micrograph(image, SIZE), Micrograph(truth, SIZE)
    return measure_metrics(*made, **{"data_range": 1.0, "cut_off_nm": END, **how})


def _gain(after, before, truth):
    """Gains in dB below and above the cut-off."""
    found = (_measure(image, truth).band_errors for image in (after, before))
    return [compute_psnr_gain(*errors)[0] for errors in zip(*found, strict=True)]


def test_a_gain_is_told_in_the_band_where_it_is(parts):
    low, high, off_low, off_high = parts
    truth, before = low + high, low + high + off_low + off_high
    below, above = _gain(truth + 0.25 * off_low + off_high, before, truth)
    assert below == pytest.approx(20 * math.log10(4), abs=0.02)
    assert above == pytest.approx(0, abs=0.02)


def _made(**options):
    frame = Provenance(job="simulate", options=options, part="frame_000.tif")
    record = InputRecord(role="frames", name="scan", provenance=frame)
    return Provenance(job="stitch", inputs=(record,))


def test_history_tells_the_cut_off_and_an_option_goes_before_it(parts):
    low, high, *_ = parts
    image, truth = Micrograph(low, SIZE, provenance=_made(**PUPIL)), low + high
    truth = Micrograph(truth, SIZE)
    assert semsr.metrics(image, truth).cut_off_nm == pytest.approx(152.78, abs=0.01)
    assert semsr.metrics(image, truth, cut_off_nm=END).cut_off_nm == END
    curve = semsr.frc(image, truth, reference=True)
    assert curve.cut_off_nm == pytest.approx(152.78, abs=0.01)
    assert semsr.frc(image, truth, reference=True, cut_off_nm=END).cut_off_nm == END
    with warned("finer-than-optics", match=r" 152\.8 nm"):
        assert semsr.frc(image, truth).cut_off_nm is None  # the other tells none


@pytest.mark.parametrize(("wrong", "verb"), [(-153, "metrics"), (math.nan, "frc")])
def test_a_length_that_no_light_has_is_refused(parts, wrong, verb):
    how = {"reference": True} if verb == "frc" else {}
    with refused(OptionError, "out-of-range", match="`cut_off_nm`"):
        getattr(semsr, verb)(*parts[:2], cut_off_nm=wrong, pixel_size_nm=10, **how)
    with refused(OptionError, "pixel-size-missing", match="`pixel_size_nm`"):
        semsr.metrics(*parts[:2], cut_off_nm=END)
