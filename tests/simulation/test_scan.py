import numpy as np
import pytest
from scipy import ndimage
from scipy.signal.windows import tukey

from napari_semsr.core import OptionError, ShapeError
from napari_semsr.simulation import ScanOptions, draw_specimen
from napari_semsr.simulation.microscope import compute_expected_counts
from napari_semsr.simulation.scan import (
    plan_scan,
    run_scan_simulation,
    simulate_clean_frame,
)
from tests.refusals import refused

SMALL = ScanOptions(frames_grid=(2, 2), frame_px=64, jitter_px=3.0)
QUIET = SMALL.replace(photons=0, read_noise=0, vignetting=1, field="square")


@pytest.fixture(scope="module")
def scan():
    options = SMALL.replace(illumination_drift=0.2, drift_px=2.0)
    return run_scan_simulation(None, options)


@pytest.fixture(scope="module")
def picture():
    generator = np.random.default_rng(5)
    noise = ndimage.gaussian_filter(generator.standard_normal((220, 260)), 1.0)
    return np.clip(128 + 400 * noise, 0, 255).astype(np.uint8)


def misplacement(frame, scene, corner):
    """Distance in px between a frame and the scene itself, moved by its phases."""
    # an independent way from the fine grid to a frame: fine pixels are picked, the rest
    # of the shift is done on the spectrum, and what is left is fitted to the slopes
    fine = scene.oversampling
    first = (np.asarray(corner) - scene.origin_px) * fine
    start = np.floor(first).astype(int)
    picked = [slice(s, s + len(frame) * fine, fine) for s in start]
    area = scene.image[tuple(picked)].astype(float)
    window = np.outer(*2 * [tukey(len(frame), 0.35)])
    spectrum = np.fft.fft2((area - area.mean()) * window)
    moved = ndimage.fourier_shift(spectrum, -(first - start) / fine)
    expected = np.fft.ifft2(moved).real + area.mean()
    inner = np.s_[20:-20, 20:-20]
    slopes = [g[inner].ravel() for g in np.gradient(expected)]
    left = (np.asarray(frame, float) - expected)[inner].ravel()
    shift, *_ = np.linalg.lstsq(np.stack(slopes, axis=1), left, rcond=None)
    return np.abs(shift).max(), np.abs(left).max() / np.ptp(expected)


@pytest.mark.parametrize("of", ["phantom", "image"])
def test_subpixel_truth_is_true(picture, of):
    options = QUIET.replace(phantom="fracture", frame_px=96, seed=2)
    found = run_scan_simulation(picture if of == "image" else None, options)
    most = (0.005, 0.01) if of == "image" else (0.002, 0.005)
    coefficients = found.scene.compute_spline_coefficients()
    for corner in found.true_px[2:]:
        frame = simulate_clean_frame(found.scene, coefficients, corner, options)
        assert np.all(np.array(misplacement(frame, found.scene, corner)) < most)


def test_frames_are_what_the_object_gives_at_the_true_positions(scan):
    options, coefficients = scan.options, scan.scene.compute_spline_coefficients()
    gain = options.full_scale / options.photons
    for index, frame in enumerate(scan.frames):
        corner = scan.true_px[index]
        light = simulate_clean_frame(scan.scene, coefficients, corner, options)
        light *= scan.flat * scan.gains[index]
        mean = compute_expected_counts(light, options)
        signal = mean - options.offset
        variance = gain * signal + options.read_noise**2 + 1 / 12
        score = (frame - mean) / np.sqrt(variance)
        bright = signal > 20 * gain
        assert score[bright].mean() == pytest.approx(0, abs=0.06)
        assert score[bright].std() == pytest.approx(1, abs=0.05)


def test_noise_seed_draws_other_noise_and_nothing_else():
    options = SMALL.replace(illumination_drift=0.2, drift_px=2.0, bad_frames=1)
    first, second = (
        run_scan_simulation(None, options.replace(noise_seed=n)) for n in (0, 1)
    )
    np.testing.assert_array_equal(first.true_px, second.true_px)
    np.testing.assert_array_equal(first.gains, second.gains)
    np.testing.assert_array_equal(first.flat, second.flat)
    assert first.bad == second.bad
    sound = next(i for i in range(4) if i not in first.bad)
    assert (first.frames[sound] == second.frames[sound]).mean() < 0.2


def test_jitter_is_uniform_and_drift_slow_within_what_is_stated(scan):
    plan = plan_scan(SMALL.replace(frames_grid=(20, 20), jitter_px=5.0))
    off = plan.true_px - plan.nominal_px
    assert 4.9 < np.abs(off).max() <= 5
    assert off.std() == pytest.approx(5 / np.sqrt(3), rel=0.06)
    assert np.all(np.abs(off.mean(axis=0)) < 0.5)
    drifting = plan_scan(SMALL.replace(jitter_px=0, frames_grid=(6, 6), drift_px=4.0))
    off = drifting.true_px - drifting.nominal_px
    assert np.hypot(*off[[0, -1]].T) == pytest.approx((0, 4))
    assert np.hypot(*np.diff(off, axis=0).T).max() < 0.5
    assert np.ptp(scan.gains) == pytest.approx(0.2)
    assert np.all(plan_scan(SMALL).gains == 1)


def test_frames_are_taken_in_the_stated_order():
    def visited(**how):
        plan = plan_scan(SMALL.replace(frames_grid=(2, 3), **how))
        return [tuple(cell) for cell in np.rint(plan.nominal_px / SMALL.step_px)]

    turned = [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0)]
    assert visited(order="serpentine") == turned
    assert visited() == sorted(turned)
    upwards = [(1, 0), (0, 0), (1, 1), (0, 1), (1, 2), (0, 2)]
    assert visited(order="column", first="bottom-left") == upwards


def test_bad_frames_are_blank_or_foreign():
    options = QUIET.replace(bad_frames=2, dark_counts=300)
    found = run_scan_simulation(None, options)
    good = run_scan_simulation(None, options.replace(bad_frames=0))
    assert sorted(found.bad.values()) == ["blank", "foreign"]
    for index in range(4):
        same = np.array_equal(found.frames[index], good.frames[index])
        assert same == (index not in found.bad)
        if found.bad.get(index) == "blank":
            assert np.all(found.frames[index] == 300)


@pytest.mark.parametrize("binning", [0.7, 2.5])
def test_binning_makes_frames_of_other_pixels(picture, binning):
    how = {"image_binning": binning, "oversampling": 2, "optics": "gaussian"}
    options = QUIET.replace(frame_px=40, jitter_px=0, pixel_size_nm=10, **how)
    found = run_scan_simulation(picture, options)
    assert found.pixel_size_nm == (10, 10)
    places = np.mgrid[:40, :40].T * binning + found.scene.image_offset_px
    blurred = ndimage.gaussian_filter(picture.astype(float), 3 * binning / 2.3548)
    expected = ndimage.map_coordinates(blurred, places.T, order=3)
    frame = found.frames[0].astype(float)
    assert np.corrcoef(expected.ravel(), frame.ravel())[0, 1] > 0.998


def test_a_point_of_an_image_has_three_pixels_where_no_size_is_known(picture):
    for optics in ("pupil", "gaussian"):
        found = run_scan_simulation(picture, QUIET.replace(optics=optics)).scene
        assert found.fwhm_px == pytest.approx(3)
    known = run_scan_simulation(picture, QUIET.replace(pixel_size_nm=20)).scene
    assert known.fwhm_px == pytest.approx(0.51 * 550 / 1.8 / 20)


@pytest.mark.broad
def test_aberrations_belong_to_places_in_a_frame():
    def frame(coma):
        options = QUIET.replace(frames_grid=(1, 1), jitter_px=0, coma_waves=coma)
        return run_scan_simulation(None, options).frames[0].astype(float)

    plain = frame(0)
    assert np.abs(frame(1e-9) - plain).mean() < 0.01 * np.ptp(plain)
    off = np.abs(frame(0.6) - plain)
    assert off[26:38, 26:38].mean() < 0.7 * off.mean()


def test_own_surface_can_be_scanned():
    surface = draw_specimen("pits", (320, 320), pixel_nm=10.0, seed=1)
    found = run_scan_simulation(surface, SMALL)
    assert found.scene.surface is surface
    assert found.pixel_size_nm == (20, 20)
    for side, pixel in ((320, 9.0), (60, 10.0)):
        small = draw_specimen("pits", (side, side), pixel_nm=pixel)
        with refused(ShapeError, "image-too-small"):
            run_scan_simulation(small, SMALL)


def test_bad_options_are_refused_in_one_sentence():
    for name, value, code in (
        ("frames_grid", "4by4", "wrong-type"),
        ("frames_grid", "0x4", "out-of-range"),
        ("pixel_size_nm", "a", "pixel-size-invalid"),
        ("overlap", 1, "out-of-range"),
    ):
        with refused(OptionError, code, match=f"`{name}`"):
            ScanOptions.parse({name: value})


def test_bad_sources_are_refused_in_one_sentence(picture):
    oblong = SMALL.replace(pixel_size_nm=(10, 40))
    sharp = SMALL.replace(optics="gaussian", resolution_nm=80)
    for source, options, code in (
        (np.full((220, 260), np.nan), SMALL, "pixels-missing"),
        (picture, sharp, "pixel-size-missing"),
        (picture, oblong, "pixels-not-square"),
        (None, SMALL.replace(pixel_size_nm=(20, 21)), "pixels-not-square"),
        (None, SMALL.replace(bad_frames=5), "out-of-range"),
    ):
        with refused(OptionError, code):
            run_scan_simulation(source, options)
    with refused(ShapeError, "image-too-small"):
        run_scan_simulation(picture, SMALL.replace(frames_grid=(90, 2)))
    scene = run_scan_simulation(picture, oblong.replace(optics="gaussian")).scene
    assert scene.fwhm_px == 3
