"""Laws of profiles: what is read under a line, and what fits say of it."""

import math

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import profile_line

from napari_semsr.analysis import (
    LineReader,
    check_line_bounds,
    measure_profile,
    read_profile,
)
from napari_semsr.core import Affine, OptionError, ReadError, ShapeError
from napari_semsr.core.micrograph import Micrograph, parse_pixel_size
from tests.refusals import refused

ROWS, COLUMNS = np.indices((96, 128), dtype=float)
ACROSS = (48.0, 10.0, 48.0, 110.0)


def bell(distance, fwhm):
    return np.exp(-4 * math.log(2) * (distance / fwhm) ** 2)


def area(draw, steps=6):
    """Mean of what is drawn over each pixel."""
    places = (np.arange(steps) + 0.5) / steps - 0.5
    shifted = [draw(ROWS + a, COLUMNS + b) for a in places for b in places]
    return np.mean(shifted, axis=0)


@pytest.mark.parametrize("width", [1, 4])
def test_curve_is_that_of_profile_line(width):
    rng = np.random.default_rng(3)
    image = rng.normal(size=(96, 128))
    for _ in range(20):
        start, end = rng.uniform((12, 12), (84, 116), (2, 2))
        curve = read_profile(Micrograph(image), (*start, *end), width_px=width)
        other = profile_line(image, start, end, linewidth=width)
        np.testing.assert_allclose(curve.intensity, other, atol=1e-11)


def test_lazy_images_read_the_same_and_only_under_the_line():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(400, 400))
    read = []

    def block(part, block_info=None):
        read.append(tuple(block_info[0]["chunk-location"]))
        return part

    lazy = da.from_array(image, chunks=50).map_blocks(block, dtype=float, meta=image)
    line = (20.0, 20.0, 380.0, 370.0)
    reader = LineReader(lazy)
    curve = read_profile(Micrograph(lazy), line, width_px=3, reader=reader)
    whole = read_profile(Micrograph(image), line, width_px=3)
    np.testing.assert_array_equal(curve.intensity, whole.intensity)
    np.testing.assert_array_equal(np.sort(curve.value), np.sort(whole.value))
    assert all(abs(y - x) <= 1 for y, x in read)
    before = len(read)
    read_profile(Micrograph(lazy), (21.0, 20.0, 380.0, 370.0), reader=reader)
    assert len(read) == before


def test_missing_pixels_are_left_out_across_and_gaps_stay():
    image = np.tile(np.arange(128.0), (96, 1))
    image[46:48] = np.nan
    image[:, 60:70] = np.nan
    found = read_profile(Micrograph(image), ACROSS, width_px=5)
    at = found.distance_px + 10
    gap = (at > 59) & (at < 70)
    assert np.isnan(found.intensity[gap]).all()
    np.testing.assert_allclose(found.intensity[~gap], at[~gap])


@pytest.mark.parametrize(("fwhm", "degrees", "sign"), [(3.0, 20, 1), (8.0, 45, -1)])
def test_width_is_that_of_what_was_drawn(fwhm, degrees, sign):
    turn = math.radians(degrees)
    way = np.array([math.sin(turn), math.cos(turn)])

    def draw(rows, columns):
        distance = (rows - 48.2) * way[0] + (columns - 63.7) * way[1]
        return 5 + 2 * sign * bell(distance, fwhm)

    line = (*(np.array([48, 64]) - 30 * way), *(np.array([48, 64]) + 30 * way))
    found = measure_profile(read_profile(Micrograph(area(draw)), line, width_px=9))
    assert found.dark == (sign < 0)
    assert found.highest_line.fwhm.value == pytest.approx(fwhm, rel=0.01)
    assert found.highest_line.height * sign > 0
    assert found.highest_line.plain_fwhm == pytest.approx(fwhm, rel=0.12)


def test_a_bar_that_fills_most_of_the_profile_is_a_line_all_the_same():
    image = ndimage.gaussian_filter(1.0 * (np.abs(COLUMNS - 60) <= 35), 1.5)
    noisy = image + np.random.default_rng(0).normal(0, 0.05, image.shape)
    found = measure_profile(read_profile(Micrograph(noisy), ACROSS, width_px=3))
    assert not found.dark
    assert found.highest_line.fwhm.value == pytest.approx(71, abs=0.3)


def test_distance_and_dip_of_a_pair():
    def pair(apart):
        sides = (bell(COLUMNS - 60 + side * apart / 2, 8.0) for side in (-1, 1))
        image = sum(sides)
        noise = np.random.default_rng(1).normal(0, 0.01, image.shape)
        curve = read_profile(Micrograph(image + noise), ACROSS, width_px=5)
        return measure_profile(curve, pixel="point", prominence=0.02)

    (far,) = pair(12.0).pairs
    assert far.distance.value == pytest.approx(12, abs=0.05)
    dip = 1 - 2 * bell(6.0, 8.0) / (1 + bell(12.0, 8.0))
    assert far.dip.value == pytest.approx(dip, abs=0.02)
    assert far.plain_dip == pytest.approx(dip, abs=0.06)
    assert (far.rayleigh, far.sparrow) == ("resolved", "resolved")
    (near,) = pair(8.8).pairs
    assert (near.rayleigh, near.sparrow) == ("not resolved", "resolved")
    assert not pair(5.0).pairs


@pytest.mark.parametrize("sign", [1, -1])
def test_edge_is_read_from_10_to_90_per_cent(sign):
    from scipy import special

    image = area(lambda _, x: sign * special.erf((x - 60) / 5))
    found = measure_profile(read_profile(Micrograph(image), ACROSS, width_px=5))
    truth = 2 * 5 * special.erfinv(0.8)
    assert found.highest_line is None
    assert found.edge.width.value == pytest.approx(truth, rel=0.01)
    assert found.edge.plain_width == pytest.approx(truth, rel=0.05)
    assert found.edge.step == pytest.approx(2 * sign, rel=0.01)


@pytest.mark.parametrize("slope", [0.0, 1.5, 3.0])
def test_a_line_on_a_ramp_is_a_line_and_one_that_the_end_cuts_is_no_edge(slope):
    line = ndimage.gaussian_filter1d(1.0 * (np.abs(np.arange(2400) / 8 - 150) < 4), 16)
    row = 30 + 100 * line.reshape(-1, 8).mean(axis=1) + slope * np.arange(300)
    image = np.tile(row, (40, 1))
    image += np.random.default_rng(0).normal(0, 0.5, image.shape)
    found = measured(image[:, 70:230])
    assert found.edge is None
    assert found.highest_line.place.value == pytest.approx(79.56, abs=0.02)
    cut = measured(image[:, 148:308])
    assert cut.edge is None
    assert slope or "longer" in cut.reason
    image[:, 149:151] = np.nan
    hidden = measured(image[:, 70:230])
    assert "missing" in hidden.reason if slope == 0 else not hidden.edge


def test_noise_alone_reads_nothing():
    noise = np.random.default_rng(0).normal(size=(96, 128))
    found = measure_profile(read_profile(Micrograph(100 + noise), ACROSS))
    assert "noise" in found.reason
    assert found.edge is None


def test_oblong_and_turned_pixels_measure_the_same_length():
    oblong = Micrograph(bell(4 * (COLUMNS - 60), 40.0), parse_pixel_size((8.0, 4.0)))
    curve = read_profile(oblong, (40, 20, 40, 100), width_px=3)
    found = measure_profile(curve, pixel="point")
    assert curve.per_px * found.highest_line.fwhm.value == pytest.approx(40, rel=1e-3)
    turned = Affine.create_similarity(30, scale=5.0)
    places = turned(np.stack([ROWS, COLUMNS], axis=-1))
    middle = turned(np.array([48.0, 64.0]))
    image = bell(places[..., 1] - middle[1], 40.0)
    ends = (middle[0], middle[1] - 150, middle[0], middle[1] + 150)
    sized = Micrograph(image, parse_pixel_size(5.0))
    curve = read_profile(sized, ends, to_plane=turned, width=20.0)
    assert curve.lines == 4
    found = measure_profile(curve, pixel="point")
    assert curve.per_px * found.highest_line.fwhm.value == pytest.approx(40, rel=1e-3)
    assert curve.per_px * found.highest_line.place.value == pytest.approx(150, abs=0.1)


def test_calibration_error_follows_the_line():
    image = Micrograph(bell(COLUMNS - 60, 8.0), parse_pixel_size((8.0, 4.0)))
    known = image.with_size_error((0.08, 0.2))
    assert read_profile(known, ACROSS).length_sd == pytest.approx(0.05)
    down = read_profile(known, (10.0, 60.0, 80.0, 60.0))
    assert down.length_sd == pytest.approx(0.01)
    assert read_profile(image, ACROSS).length_sd == 0


def test_what_cannot_be_measured_is_said_in_a_sentence():
    image = Micrograph(bell(COLUMNS - 60, 8.0), name="field")
    with refused(OptionError, "line-without-length"):
        read_profile(image, (5, 5, 5, 5))
    with refused(OptionError, "outside-image"):
        check_line_bounds(image, (5, 5, 5, 500))
    with refused(ShapeError, "outside-image"):
        read_profile(image, (500, 500, 600, 600))
    empty = image.replace(data=np.full((20, 20), np.nan))
    with refused(ShapeError, "no-finite-values"):
        read_profile(empty, (5, 5, 15, 15))
    flat = read_profile(image.replace(data=np.full((20, 20), 7)), (5, 5, 15, 15))
    with refused(ReadError, "no-structure", match=" 7 "):
        measure_profile(flat)
    with refused(OptionError, "out-of-range"):
        read_profile(image, (5, 5, 20, 30), width_px=1e300)


def measured(image, width_px=9):
    line = (20.0, 0.0, 20.0, image.shape[1] - 1.0)
    return measure_profile(read_profile(Micrograph(image), line, width_px=width_px))


def runs(*each, noise=4.0, blur=2.0, seed=0):
    """Stretches ``(length, level)`` along a row, blurred and noisy."""
    row = np.concatenate([np.full(length, float(level)) for length, level in each])
    image = np.tile(ndimage.gaussian_filter1d(row, blur, mode="nearest"), (40, 1))
    return image + np.random.default_rng(seed).normal(0, noise, image.shape)


GREY_SCALES = {
    "8 bits": lambda grey: np.clip(np.rint(grey), 0, 255).astype(np.uint8),
    # stretched after it was clipped
    "another end": lambda grey: np.rint(0.8 * np.clip(grey, 0, 255)).astype(np.uint8),
    # white differs in the last bits, as after interpolation
    "rounded floats": lambda grey: (
        (7 + np.clip(grey, 0, 255) / 3) * (1 + 2e-7 * np.cos(np.indices(grey.shape)[1]))
    ).astype(np.float32),
}


@pytest.mark.parametrize("scale", GREY_SCALES)
def test_a_clipped_line_is_refused_and_one_below_white_is_not(scale):
    shape = bell(np.indices((40, 160))[1] - 80, 20.0)
    rough = np.random.default_rng(3).normal(0, 6, shape.shape)
    store = GREY_SCALES[scale]
    for image in (40 + 240 * shape + rough, 215 - 240 * shape - rough):
        with refused(ReadError, "clipped", match=" (79|80|81)"):
            measured(store(image))
    found = measured(store(40 + 190 * shape + rough))
    assert found.highest_line.fwhm.value == pytest.approx(20, rel=0.02)


def test_lines_and_edges_on_ground_cut_at_black_are_refused():
    x = np.indices((40, 160))[1]
    rough = np.random.default_rng(4).normal(0, 5, x.shape)
    for shape in (bell(x - 80, 20.0), x > 80):
        grey = 180 * ndimage.gaussian_filter(1.0 * shape, 2) + rough - 30
        with refused(ReadError, "clipped"):
            measured(GREY_SCALES["8 bits"](grey))


GROUND, BALL = 40, 180


@pytest.mark.parametrize(
    ("stretches", "width", "count", "dark"),
    [
        (((20, GROUND), (86, BALL), (18, GROUND), (30, BALL)), 86, 1, False),
        (((31, 85), (86, BALL), (18, 15), (21, BALL)), 86, 1, False),
        (((20, GROUND), (86, BALL), (18, GROUND), (86, BALL), (20, GROUND)), 86, 2, 0),
        (((20, BALL), (30, GROUND), (120, BALL)), 30, 1, True),
    ],
)
def test_a_ball_is_measured_and_not_the_gap_beside_it(stretches, width, count, dark):
    found = measured(runs(*stretches))
    assert found.dark == dark
    assert len(found.lines) == count
    assert found.highest_line.fwhm.value == pytest.approx(width, rel=0.015)


def test_the_gap_between_two_balls_is_measured_if_it_is_asked_for():
    image = runs((20, GROUND), (60, BALL), (18, GROUND), (60, BALL), (20, GROUND))
    curve = read_profile(Micrograph(image), (20.0, 0, 20, 177), width_px=9)
    found = measure_profile(curve, polarity="dark")
    assert found.highest_line.fwhm.value == pytest.approx(18, rel=0.02)


def test_length_with_an_interval_wider_than_itself_is_no_result():
    rng, found = np.random.default_rng(1), []
    # across one sphere, whose sides are steep and whose top is uneven
    for radius, rise, floor in 3 * [(55, 0.5, 60), (15, 3.0, 110), (15, 1.0, 20)]:
        share = np.hypot(ROWS - 48, COLUMNS - 60) / radius
        depth = np.sqrt(np.clip(1 - share**2, 0, 1))
        sphere = np.where(depth > 0, floor + (150 - floor) * (1 - depth) ** rise, 30)
        image = ndimage.gaussian_filter(sphere, 1) + rng.normal(0, 10, ROWS.shape)
        line = (48.0, max(58.0 - radius, 0), 48.0, 62.0 + radius)
        read = measure_profile(read_profile(Micrograph(image), line, width_px=3))
        found += [line.fwhm for line in read.lines]
        found += [pair.distance for pair in read.pairs]
        assert all(pair.reason for pair in read.pairs if not pair.distance)
    assert all(one.high - one.low <= one.value for one in found if one)
