"""Laws of repeatability on scans whose noise, drift and grey levels are known."""

from functools import partial

import numpy as np
import pytest
from scipy import ndimage

import napari_semsr as semsr
from napari_semsr.core import Micrograph, OptionError, ReadError, ShapeError
from tests.refusals import refused, warned

SHAPE = (200, 240)
compared = partial(semsr.error_map, scans=True)


def scene(rng, shape=SHAPE) -> np.ndarray:
    """Draw a scene that is smooth over pixels, as what a microscope resolves is."""
    return 100 + 300 * ndimage.gaussian_filter(rng.normal(size=shape), 2.5)


def scans(rng, noise=(4.0, 4.0), gain=1.0, offset=0.0, move=(0.0, 0.0)) -> list:
    seen = scene(rng, (SHAPE[0] + 40, SHAPE[1] + 40))
    moved = ndimage.shift(seen, move, order=5, mode="nearest")
    first, second = (image[20:-20, 20:-20] for image in (seen, moved))
    first = first + rng.normal(0, noise[0], SHAPE)
    second = gain * (second + rng.normal(0, noise[1], SHAPE)) + offset
    return [first, second]


@pytest.mark.parametrize(
    ("move", "gain"), [((0.0, 0.0), 1.0), ((2.0, -1.0), 0.25), ((1.3, 2.8), 1.0)]
)
def test_noise_alone_is_the_noise_that_was_added(rng, move, gain):
    pair = scans(rng, gain=gain, offset=30.0, move=move)
    found = compared(*pair)
    assert found.shift_px == pytest.approx([-v for v in move], abs=0.05)
    assert found.gain == pytest.approx(1 / gain, rel=0.01)
    assert found.noise == pytest.approx(4.0, rel=0.03)
    assert found.sd == pytest.approx(4.0, rel=0.03)
    assert found.noise_share > 0.95


def test_neither_scan_is_the_truth(rng):
    found = compared(*scans(rng, noise=(6.0, 2.0)), align=False)
    assert found.sd == pytest.approx(np.sqrt((36 + 4) / 2), rel=0.03)
    assert found.gain == pytest.approx(1.0, abs=0.01)
    pair = scans(rng, noise=(6.0, 2.0), gain=2.0, offset=-50, move=(0.7, 0.4))
    there, back = compared(*pair), compared(*pair[::-1])
    assert back.gain == pytest.approx(1 / there.gain, rel=1e-3)
    for name in ("sd", "noise"):
        scaled = getattr(back, name) * there.gain
        assert scaled == pytest.approx(getattr(there, name), rel=5e-3)
    assert back.noise_share == pytest.approx(there.noise_share, abs=0.01)


def test_noise_with_a_memory_along_its_lines_is_noise(rng):
    first, second = (
        image + ndimage.gaussian_filter1d(rng.normal(0, 12, SHAPE), 1.0, axis=1)
        for image in scans(rng, noise=(0, 0))
    )
    found = compared(first, second, align=False)
    assert found.noise_share > 0.95
    turned = compared(first.T.copy(), second.T.copy(), align=False)
    assert turned.noise == pytest.approx(found.noise, rel=1e-6)


def test_a_slow_drift_of_the_level_is_not_noise(rng):
    first, second = scans(rng)
    along = np.linspace(-1, 1, SHAPE[1])
    second += 60 * along - 40 * along**3
    second += 50 * np.linspace(-1, 1, SHAPE[0])[:, None] ** 2
    found = compared(first, second, align=False)
    assert found.sd > 12
    # the drift lowers the gain, which scales the noise of the second scan
    expected = 4 * np.sqrt((1 + found.gain**2) / 2)
    assert found.noise == pytest.approx(expected, rel=0.02)


def test_charging_is_not_noise_and_shows_where_it_is(rng):
    first, second = scans(rng)
    y, x = np.indices(SHAPE)
    second += 25 * np.exp(-((y - 60) ** 2 + (x - 150) ** 2) / (2 * 20**2))
    found = compared(first, second, part="rest", align=False)
    assert found.noise == pytest.approx(4.0, rel=0.03)
    glow = (second - first).std() ** 2 / 2 - 16
    assert found.rest == pytest.approx(np.sqrt(glow), rel=0.1)
    place = np.unravel_index(np.nanargmax(found.map.data), SHAPE)
    assert np.hypot(place[0] - 60, place[1] - 150) < 20
    assert np.median(found.map.data) < 0.2 * np.max(found.map.data)


def test_pixels_own_difference_and_percentile(rng):
    first, second = scans(rng)
    found = compared(first, second, window=1, align=False)
    apart = np.abs(first - found.offset - found.gain * second) / np.sqrt(2)
    np.testing.assert_allclose(found.map.data, apart, rtol=1e-4, atol=1e-4)
    assert found.mean == pytest.approx(apart.mean(), rel=1e-4)
    assert found.p95 == pytest.approx(np.percentile(apart, 95), rel=0.006)
    assert found.sd == pytest.approx(np.sqrt(np.mean(apart**2)), rel=1e-6)
    low, high = found.range
    assert found.p95_percent == pytest.approx(100 * found.p95 / (high - low))


def test_gaps_stay_gaps_and_count_for_nothing(rng):
    first, second = scans(rng)
    first[30:60, 40:80] = np.nan
    found = compared(first, second, align=False)
    assert np.isnan(found.map.data[30:60, 40:80]).all()
    assert np.isfinite(found.map.data).sum() == found.pixels == 200 * 240 - 30 * 40
    assert found.sd == pytest.approx(4.0, rel=0.03)


def test_parts_are_the_whole(rng, tmp_path):
    seen = scene(rng, (1100, 300))
    pair = [seen + rng.normal(0, 4, seen.shape) for _ in range(2)]
    target = tmp_path / "map.ome.zarr"
    how = {"part": "rest", "window": 33, "align": False}
    found = compared(*pair, target, **how)
    again = compared(*pair, **how)
    read = semsr.read(target)
    np.testing.assert_array_equal(read.array(), again.map.data)
    assert read.provenance.job == "error-map"
    assert [item.role for item in read.provenance.inputs] == ["reference", "enhanced"]
    assert found.to_json() | {"output": None} == again.to_json()
    # across the border of what is computed at once
    whole = compared(*pair, align=False).map.data[900:1100]
    parts = [image[900:1100] for image in pair]
    cut = compared(*parts, align=False).map.data
    np.testing.assert_allclose(cut[40:-40, 40:-40], whole[40:-40, 40:-40], rtol=0.02)


def test_map_lies_on_the_first_scan_to_half_the_shift(rng):
    place = {"pixel_size_nm": (20.0, 20.0), "origin": (500.0, -100.0)}
    first, second = (Micrograph(data, **place) for data in scans(rng, move=(0.6, -0.4)))
    found = compared(first, second)
    y, x = np.subtract(found.map.origin, first.origin) / 20 % 1
    assert y == pytest.approx(0.2, abs=0.03)  # half of -0.6 + 1
    assert x == pytest.approx(0.2, abs=0.03)
    assert found.pixel_size_nm == (20, 20)


def test_what_is_no_pair_of_scans_is_said(rng):
    first, second = scans(rng)
    with refused(ShapeError, "sizes-differ", match=" 200x240 px and"):
        compared(first, second[:-1])
    sized = [Micrograph(first, (5.0, 5.0), "a"), Micrograph(second, (2.5, 2.5), "b")]
    with refused(ShapeError, "pixel-sizes-differ", match=" 5 x 5 nm and"):
        compared(*sized)
    with refused(ShapeError, "image-blank"):
        compared(first, np.full(SHAPE, 3.0), align=False)
    with refused(ReadError, "complex-values"):
        compared(first, second + 0j)
    with refused(ReadError, "no-finite-values"):
        compared(first, np.full(SHAPE, np.nan), align=False)
    few = np.where(np.indices(SHAPE).sum(0) < 8, second, np.nan)
    with refused(ShapeError, "nothing-to-measure", match=" 16 .* 4 px"):
        compared(first, few, align=False)
    with refused(OptionError, "out-of-range", match="`window`"):
        compared(first, second, part="rest", window=4)
    apart = Micrograph(second, (5.0, 5.0), "b", origin=(1e6, 0.0))
    with refused(ShapeError, "no-overlap"):
        compared(sized[0], apart)
    with warned("same-image"):
        assert compared(first, first).noise_share is None
    with warned("contrast-inverted"):
        compared(first, -second, align=False)


@pytest.mark.filterwarnings("ignore:The scans overlap in")
@pytest.mark.parametrize("part", [np.s_[50:150, 60:180], np.s_[50:150, 60:179]])
def test_part_of_a_field_is_compared_where_it_lies(rng, part):
    first, second = scans(rng)
    field = Micrograph(second, (5.0, 5.0))
    cut = Micrograph(first[part], (5.0, 5.0), origin=(250.0, 300.0))
    for pair in ((cut, field), (field, cut)):
        assert compared(*pair, align=False).sd == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("window", [8, 9])
def test_a_difference_lies_in_the_middle_of_its_window(window):
    same = np.random.default_rng(3).normal(100, 1, SHAPE)
    other = same.copy()
    other[100, 120] += 500
    found = compared(same, other, part="all", window=window, align=False)
    shown = found.map.array()
    rows, columns = np.nonzero(shown > shown.max() / 4)
    assert (rows.mean(), columns.mean()) == (100, 120)
