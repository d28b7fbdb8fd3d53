"""A comparison with the truth is split where the light's frequencies end."""

import json
import math

import numpy as np
import pytest

import napari_semsr as semsr
from napari_semsr.analysis import FrcOptions, measure_frc, measure_metrics
from napari_semsr.analysis.light import format_cut_off_warning, split_frequencies
from napari_semsr.analysis.metrics import compute_psnr_gain
from napari_semsr.core import InputRecord, Micrograph, OptionError, Provenance
from napari_semsr.core.fourier import tukey_window_2d
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
    return _compare(_measure(after, truth), _measure(before, truth))


def _compare(after, before):
    """Gains in dB below and above the cut-off."""
    return [
        compute_psnr_gain(*errors)[0]
        for errors in zip(after.band_errors, before.band_errors, strict=True)
    ]


def _agree(image, truth, cut_off_nm=END):
    options = FrcOptions(reference=True, cut_off_nm=cut_off_nm)
    return measure_frc(image, truth, options)


@pytest.mark.parametrize(
    ("shape", "size"), [((64, 64), (8.0, 14.0)), ((65, 90), (10.0, 10.0))], ids=str
)
def test_both_parts_add_up_to_the_windowed_plane(shape, size):
    plane = np.random.default_rng(0).normal(3, 1, shape)
    below, above = split_frequencies(plane, END, size)
    window = tukey_window_2d(shape, 0.5)
    whole = (plane - plane.mean()) * window / np.sqrt((window**2).mean())
    np.testing.assert_allclose(below + above, whole, atol=1e-12)
    added = (below**2).mean() + (above**2).mean()
    assert added == pytest.approx((whole**2).mean())
    # white noise: as the frequencies within a circle, out of all
    share = math.pi * size[0] * size[1] / END**2
    assert (below**2).mean() / added == pytest.approx(share, rel=0.35)


def test_a_gain_is_told_in_the_band_where_it_is(parts):
    low, high, off_low, off_high = parts
    truth, before = low + high, low + high + off_low + off_high
    below, above = _gain(truth + 0.25 * off_low + off_high, before, truth)
    assert below == pytest.approx(20 * math.log10(4), abs=0.02)
    assert above == pytest.approx(0, abs=0.02)
    truth, before = low + high, low + off_low
    below, above = _gain(before + 0.8 * high, before, truth)
    assert above == pytest.approx(20 * math.log10(5), abs=0.1)
    assert abs(below) < 0.02
    before, after = (
        _measure(low + off_low + share * high, truth, match="affine")
        for share in (0.3, 1)
    )
    below, above = _compare(after, before)
    assert abs(below) < 0.02
    assert above > 3


def test_psnr_of_a_blank_and_of_the_bands_after_greys_are_matched(parts):
    low, high, off_low, off_high = parts
    truth = low + high
    found = _measure(low, truth)
    assert found.cut_off_nm == END
    assert found.psnr_above_db == pytest.approx(found.psnr_above_blank_db, abs=0.01)
    assert found.psnr_below_db > 60
    # both together are the error of the whole, but for the window
    found = _measure(truth + off_low + off_high, truth)
    whole = sum(10 ** (-v / 10) for v in (found.psnr_below_db, found.psnr_above_db))
    assert -10 * math.log10(whole) == pytest.approx(found.psnr_db, abs=0.3)
    plain, other = (
        _measure(image, truth, match="affine")
        for image in (truth + off_low, 5 - 3 * (truth + off_low))
    )
    assert other.psnr_below_db == pytest.approx(plain.psnr_below_db)
    assert other.psnr_above_db == pytest.approx(plain.psnr_above_db)


def test_pixels_too_coarse_for_the_cut_off_show_nothing_above(parts):
    low, _, off, _ = parts
    coarse = {"pixel_size_nm": (100.0, 100.0)}
    images = (Micrograph(v, (100.0, 100.0)) for v in (low + off, low))
    found = measure_metrics(*images, cut_off_nm=END)
    assert found.psnr_above_db is found.psnr_above_blank_db is None
    assert found.psnr_below_db > 0
    curve = semsr.frc(low + off, low, reference=True, cut_off_nm=END, **coarse)
    assert curve.correlation_above is None


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


@pytest.mark.parametrize(
    ("made", "size"),
    [
        (_made(**PUPIL | {"optics": "gaussian"}), SIZE),
        (_made(), SIZE),
        (None, SIZE),
        (_made(**PUPIL), None),
    ],
    ids=["gaussian", "options", "history", "pixel size"],
)
def test_nothing_is_split_without(parts, made, size):
    truth = Micrograph(parts[0] + parts[1], size)
    image = Micrograph(parts[0], size, provenance=made)
    found, curve = semsr.metrics(image, truth), _agree(image, truth, None)
    assert found.cut_off_nm is found.psnr_below_db is found.psnr_above_db is None
    assert found.psnr_db is not None
    assert curve.cut_off_nm is curve.correlation_below is None
    assert not curve.cut_off_warning
    assert found.band_errors is None


@pytest.mark.parametrize(
    ("wrong", "verb"),
    [(-153, "metrics"), (0.153, "frc"), (1e6, "metrics"), (math.nan, "frc")],
)
def test_a_length_that_no_light_has_is_refused(parts, wrong, verb):
    how = {"reference": True} if verb == "frc" else {}
    with refused(OptionError, "out-of-range", match="`cut_off_nm`"):
        getattr(semsr, verb)(*parts[:2], cut_off_nm=wrong, pixel_size_nm=10, **how)
    with refused(OptionError, "pixel-size-missing", match="`pixel_size_nm`"):
        semsr.metrics(*parts[:2], cut_off_nm=END)


@pytest.mark.broad
def test_a_scan_of_an_image_of_unknown_scale_has_no_cut_off(tmp_path, rng):
    semsr.write(Micrograph(rng.random((200, 200), np.float32)), tmp_path / "a.tif")
    scan = tmp_path / "scan"
    semsr.simulate(scan, image=tmp_path / "a.tif", frames_grid=(1, 2), frame_px=64)
    microscope = json.loads((scan / "truth" / "microscope.json").read_text())
    assert microscope["cut_off_period_nm"] is None
    frames = [scan / f"frame_00{n}.tif" for n in range(2)]
    assert semsr.metrics(*frames, pixel_size_nm=10).cut_off_nm is None


def test_curve_is_averaged_in_both_bands_and_what_lies_beyond_is_told(parts):
    low, high, *_ = parts
    noise = np.random.default_rng(1).normal(0, 0.01, low.shape)
    truth = Micrograph(low + high, SIZE)
    seen, drawn = (Micrograph(v + noise, SIZE) for v in (low, low + high))
    blind, found = (_agree(v, truth) for v in (seen, drawn))
    for curve in (blind, found):
        below = curve.frequency_per_px <= SIZE[0] / END
        assert curve.correlation_below == pytest.approx(curve.correlation[below].mean())
        assert curve.correlation_above == pytest.approx(
            curve.correlation[~below].mean()
        )
    assert abs(blind.correlation_above) < 0.1
    assert found.correlation_above > 0.5
    rng = np.random.default_rng(2)
    object_ = Micrograph(rng.standard_normal((200, 200)), SIZE)
    radius = np.hypot(*np.meshgrid(*[np.fft.fftfreq(200)] * 2, indexing="ij"))
    for fwhm, told in ((4.0, True), (24.0, False)):
        blurred = np.fft.ifft2(
            np.fft.fft2(object_.array()) * np.exp(-((radius * fwhm) ** 2))
        ).real
        noisy = Micrograph(blurred + rng.normal(0, 0.2, blurred.shape), SIZE)
        curve = _agree(noisy, object_)
        assert (curve.resolution_nm < END) == told
        assert (
            "finer than the optical cut-off of 80 nm" in curve.cut_off_warning
        ) == told


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ((60.0, 79.0), "The map is finer than the optical cut-off of 80 nm"),
        (None, "The map is finer than the optical cut-off of 80 nm"),
        ((60.0, 85.0), "cut-off of 80 nm is within the 95 % interval of the map"),
    ],
)
def test_what_chance_explains_is_not_called_guessed(interval, said):
    assert said in format_cut_off_warning(
        70.0, interval, 80.0, "noise pretends it", "map"
    )
    assert not format_cut_off_warning(81.0, interval, 80.0, "noise pretends it", "map")
