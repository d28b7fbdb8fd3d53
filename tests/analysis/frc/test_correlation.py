import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_semsr.analysis import (
    FrcMapOptions,
    FrcOptions,
    FrcResult,
    measure_frc,
    measure_frc_map,
)
from napari_semsr.analysis.frc.correlation import crop_to_overlap
from napari_semsr.core import Micrograph, OptionError, ShapeError, parse_pixel_size, run
from tests.refusals import refused


def measure(a, b=None, **options) -> FrcResult:  # type: ignore[no-untyped-def]
    second = None if b is None else Micrograph(b)
    return measure_frc(Micrograph(a), second, FrcOptions(**options))


@pytest.mark.parametrize(("resolution", "estimator"), [(3.0, "plain"), (6.0, "exact")])
def test_frc_meets_the_analytic_crossing(make_pair, resolution, estimator):
    found = measure(*make_pair((256, 256), resolution), estimator=estimator)
    assert found.resolution_px == pytest.approx(resolution, rel=0.12)
    low, high = found.interval_px or (0, 0)
    assert low < found.resolution_px < high
    assert found.reason is None


def test_reference_without_noise_reads_as_the_pair_does(draw) -> None:
    rng = np.random.default_rng(1)
    field = draw((256, 256), 5.0, 50.0, rng)
    noisy = field + rng.standard_normal(field.shape)
    found = measure(noisy, field, reference=True)
    assert found.resolution_px == pytest.approx(5.0, rel=0.1)
    assert found.threshold[0] == pytest.approx(np.sqrt(1 / 7))


def test_reference_is_refused_with_half_bit_or_one_image(make_pair) -> None:
    with refused(OptionError, "options-contradict"):
        FrcOptions.parse({"reference": True, "criterion": "half-bit"})
    with refused(OptionError, "second-image-missing"):
        measure(make_pair((64, 64))[0], reference=True)


def test_equal_images_correlate_perfectly_and_have_no_resolution(make_pair):
    image, _ = make_pair()
    found = measure(image, image)
    np.testing.assert_allclose(found.correlation, 1)
    assert (found.resolution_px, found.reason) == (None, "identical")
    assert measure(image, 3 * image + 7).reason == "identical"
    even = np.full((64, 64), 1e6)
    assert measure(even, even).reason == "no-signal"


def test_a_large_constant_does_not_hide_the_signal(make_pair):
    plain = measure(*make_pair((128, 128), 6.0)).resolution_px
    for level in (1e7, 1e10):
        found = measure(*(image + level for image in make_pair((128, 128), 6.0)))
        assert found.resolution_px == pytest.approx(plain, rel=1e-3)


def test_an_inverted_image_is_not_noise(make_pair):
    first, second = make_pair((256, 256), 6.0)
    assert measure(first, 9 - second).reason == "inverted"
    options = FrcMapOptions(step=64)
    mapped = run(measure_frc_map(Micrograph(first), Micrograph(-second), options))
    assert mapped.reason_counts == {"inverted": mapped.blocks}


def test_independent_noise_has_no_signal() -> None:
    rng = np.random.default_rng(0)
    found = measure(*rng.standard_normal((2, 128, 128)))
    assert found.reason == "no-signal"
    assert abs(found.correlation[10:].mean()) < 0.05


@pytest.mark.parametrize(("share", "signal"), [(0.2, True), (0.5, False)])
def test_a_shared_pattern_is_correlated_noise(draw, share, signal):
    rng = np.random.default_rng(2)
    field = draw((128, 128), 5.0, 50.0, rng) if signal else np.zeros((128, 128))
    field = field + np.sqrt(share) * rng.standard_normal(field.shape)
    own = np.sqrt(1 - share) * rng.standard_normal((2, 128, 128))
    assert measure(field + own[0], field + own[1]).reason == "correlated-noise"


@pytest.mark.broad
def test_detail_up_to_nyquist_is_beyond_it() -> None:
    rng = np.random.default_rng(4)
    field = gaussian_filter(rng.standard_normal((128, 128)), 0.55) * 30
    own = rng.standard_normal((2, 128, 128))
    assert measure(field + own[0], field + own[1]).reason == "beyond-nyquist"


def test_a_grating_is_periodic_and_edges_and_random_lines_are_not() -> None:
    rng = np.random.default_rng(4)
    own = rng.standard_normal((2, 128, 128))
    wave = np.sin(np.arange(128) * 2 * np.pi / 11.3) + np.zeros((128, 1))
    edge = 20.0 * (np.arange(128) > 80) + np.zeros((128, 1))
    line = np.repeat(4 * rng.standard_normal((1, 128)), 128, axis=0)
    for field, periodic in ((wave, True), (edge, False), (line, False)):
        reasons = [
            measure(field + own[0], other).reason for other in (None, field + own[1])
        ]
        assert [reason == "periodic" for reason in reasons] == [periodic] * 2


def test_images_and_pixels_without_enough_rings_are_too_small(make_pair, rng):
    for shape, single in (((1, 1), True), ((1, 64), False), ((15, 15), False)):
        a, b = rng.standard_normal((2, *shape))
        assert measure(a, None if single else b).reason == "too-small"
    a, b = (Micrograph(x) for x in rng.standard_normal((2, 1, 40)))
    assert measure_frc(a, b, whole=a).reason == "too-small"
    size = parse_pixel_size((8.0, 1e9))
    found = measure_frc(*(Micrograph(x, size) for x in make_pair((64, 64))))
    assert found.reason == "too-small"


def test_gain_offset_and_a_common_filter_change_nothing(make_pair) -> None:
    a, b = make_pair((256, 256))
    plain = measure(a, b).resolution_px
    assert measure(5 * a + 1e5, 0.2 * b).resolution_px == pytest.approx(plain, rel=1e-3)
    sharp = [2 * x - gaussian_filter(x, 1) for x in (a, b)]
    assert measure(*sharp).resolution_px == pytest.approx(plain, rel=0.03)


def test_oblong_images_and_pixels_read_in_nm(make_pair) -> None:
    pitch = (np.sqrt(2), np.sqrt(0.5))
    a, b = make_pair((160, 250), 7.0, 50.0, 0, pitch)
    nm = parse_pixel_size((20.0, 10.0))
    found = measure_frc(Micrograph(a, nm), Micrograph(b, nm))
    assert found.resolution_px == pytest.approx(7.0, rel=0.12)
    assert found.resolution_nm == pytest.approx(found.resolution_px * np.sqrt(200))
    assert found.interval_nm is not None


@pytest.mark.parametrize("shift", [(3.2, -5.4), (-7.6, 2.0)])
def test_images_are_cut_to_what_they_share(shift, rng) -> None:
    whole = rng.normal(size=(80, 90))
    down, right = (round(part) for part in shift)
    first = Micrograph(whole[20:60, 20:70], parse_pixel_size((2.0, 3.0)))
    moved = whole[20 + down : 60 + down, 20 + right : 70 + right]
    second = first.replace(data=moved)
    ours, theirs = crop_to_overlap(first, second, shift)
    np.testing.assert_array_equal(ours.data, theirs.data)
    assert ours.shape == (40 - abs(down), 50 - abs(right))
    assert ours.origin == (2.0 * max(0, down), 3.0 * max(0, right))
    assert theirs.origin == ours.origin
    with refused(ShapeError, "no-overlap"):
        crop_to_overlap(first, second, (41.0, 0.0))


def test_resolution_with_an_interval_wider_than_itself_is_undetermined() -> None:
    rng = np.random.default_rng(1)
    field = gaussian_filter(rng.normal(size=(48, 48)), 6, mode="wrap")
    field /= field.std()
    for noise, reason in ((0.5, "undetermined"), (0.01, None)):
        found = measure(*(field + rng.normal(0, noise, field.shape) for _ in "ab"))
        assert found.reason == reason
        assert (
            (found.resolution_px is None) == (found.interval_px is None) == bool(reason)
        )
