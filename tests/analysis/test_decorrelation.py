"""Laws of decorrelation analysis on images whose cut-off is known."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_semsr.analysis import DecorrelationOptions, measure_decorrelation
from napari_semsr.core import Micrograph, ReadError, ShapeError, run
from tests.refusals import refused


def cut_off(shape, period, rng, *, noise=0.1, pitch=(1.0, 1.0)):
    """Draw a field of deviation 1 that ends at a period, with white noise."""
    down = np.fft.fftfreq(shape[0], pitch[0])
    across = np.fft.rfftfreq(shape[1], pitch[1])
    plane = np.fft.rfft2(rng.standard_normal(shape))
    plane[np.hypot(down[:, None], across) > 1 / period] = 0
    field = np.fft.irfft2(plane, s=shape)
    return field / field.std() + rng.normal(0, noise, shape)


def found_in(image: np.ndarray, **options):
    asked = DecorrelationOptions(**options)
    return run(measure_decorrelation(Micrograph(image), asked))


@pytest.mark.parametrize(("period", "noise"), [(3.0, 0.2), (12.0, 0.02)])
def test_ideal_cut_off_is_found(rng, period, noise):
    found = found_in(cut_off((400, 512), period, rng, noise=noise))
    assert found.resolution_px == pytest.approx(period, rel=0.04)
    assert found.step_px < 0.04 * period
    assert found.reason is None
    at = np.argmin(np.abs(found.frequency_per_px - 1 / found.resolution_px))
    assert found.peak == pytest.approx(found.filtered[at])


def test_grey_levels_change_nothing_and_pixels_scale_or_lie_oblong(rng):
    image = cut_off((256, 256), 5, rng)
    plain, other = found_in(image), found_in(500 - 30 * image)
    assert other.resolution_px == plain.resolution_px
    sized = Micrograph(image, (4.0, 4.0))
    nm = run(measure_decorrelation(sized)).resolution_nm
    assert nm == pytest.approx(4 * plain.resolution_px)
    pitch = (0.5, 2.0)
    image = cut_off((512, 256), 6.0, rng, pitch=pitch)
    found = run(measure_decorrelation(Micrograph(image, (5.0, 20.0))))
    assert found.resolution_px == pytest.approx(6.0, rel=0.05)
    assert found.resolution_nm == pytest.approx(60.0, rel=0.05)


def test_what_cannot_be_measured_is_refused_and_noise_has_no_cut_off(rng):
    for image in (rng.normal(size=(128, 160)), np.full((128, 128), 7.0)):
        found = found_in(image)
        assert found.resolution_px is None
        assert found.reason == "no-signal"
        assert found.failed == 1
    with refused(ShapeError, "image-too-small", match=" 64x64 px, got 40x90 px"):
        found_in(rng.normal(size=(40, 90)))
    with refused(ShapeError, "image-too-small"):
        found_in(rng.normal(size=(80, 80)), block=128)


def test_signal_that_goes_on_to_the_pixel_is_told_from_noise(rng):
    q = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None, :])
    plane = np.fft.rfft2(rng.normal(size=(256, 256))) * np.exp(-q)
    assert found_in(np.fft.irfft2(plane)).reason == "beyond-nyquist"


@pytest.mark.parametrize("period", [3.0, 14.0])
def test_gratings_are_periodic_and_a_weak_one_hides_no_cut_off(rng, period):
    wave = np.cos(2 * np.pi * np.arange(256) / period)
    found = found_in(100 + 20 * wave + rng.normal(size=(256, 256)))
    assert (found.resolution_px, found.reason) == (None, "periodic")
    assert "grating" in found.why
    image = cut_off((256, 256), 5.0, rng)
    assert found_in(image + 0.1 * wave).resolution_px == pytest.approx(5, rel=0.04)


@pytest.mark.parametrize(
    ("shape", "fade", "first", "second"),
    # The authors' steps with whole planes and masks, apart from this package: the peak
    # of the first round is that of the radius `first` of 0 to 49, in 49ths; the second
    # round has 50 radii from that before it to 0.4 beyond, and its peak is `second`.
    [((141, 120), 1.5, 28, 3), ((128, 130), 1.5, 27, 3), ((180, 131), None, 25, 3)],
)
def test_published_method_finds_the_peak_of_the_published_steps(
    shape, fade, first, second
):
    rng = np.random.default_rng(5)
    if fade is None:
        image = cut_off(shape, 4.0, rng, noise=0.3)
    else:
        field = gaussian_filter(rng.standard_normal(shape), fade, mode="wrap")
        image = field / field.std() + rng.normal(0, 0.1, shape)
    found = found_in(100 + 20 * image, method="published")
    ends = (first - 1) / 49, first / 49 + 0.4
    radius = ends[0] + second * (ends[1] - ends[0]) / 49
    assert found.resolution_px == pytest.approx(2 / radius, rel=1e-9)
    assert "Descloux" in found.method
    assert np.ptp(found.interval_px) > 2 * found.step_px


def test_cut_off_of_either_of_two_textures_is_undetermined(rng):
    coarse, fine = (cut_off((160, 160), period, rng, noise=0) for period in (12, 3))
    noise = rng.normal(0, 0.3, coarse.shape)
    found = found_in(coarse + 0.25 * fine + noise)
    assert (found.resolution_px, found.reason) == (None, "undetermined")
    assert found_in(coarse + 0.1 * fine + noise).interval_px[0] > 9
    assert found_in(coarse + 0.5 * fine + noise).interval_px[1] < 4


def test_few_periods_widen_the_interval_or_are_refused(rng):
    found = found_in(cut_off((160, 160), 10, rng))
    assert found.interval_px[0] < 10 < found.interval_px[1]
    few = found_in(cut_off((128, 128), 12, rng))
    assert (few.resolution_px, few.reason) == (None, "too-small")


def test_blocks_with_a_gap_are_left_out(rng):
    image = cut_off((256, 512), 5, rng)
    image[10, 10] = np.nan
    found = found_in(image, block=256)
    assert (found.blocks, found.gaps) == (1, 1)
    assert np.isnan(found.values_px[0, 0])
    assert found.resolution_px == pytest.approx(5, rel=0.05)
    with refused(ReadError, "pixels-missing", match=" 1 .* image "):
        found_in(image)
    image[:, 300] = np.nan
    with refused(ShapeError, "gaps-everywhere"):
        found_in(image, block=256)
