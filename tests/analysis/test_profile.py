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


@pytest.mark.parametrize("gap", [None, (15, 25), (62, 75), (63, 90)])
def test_plain_widths_are_not_read_across_gaps(gap):
    image = 10 + 100 * bell(COLUMNS - 60, 12)
    edge = 10 + 100 / (1 + np.exp((60 - COLUMNS) / 1.5))
    if gap:
        image[:, slice(*gap)] = edge[:, slice(*gap)] = np.nan
    (line,) = measure_profile(read_profile(Micrograph(image), ACROSS)).lines
    step = measure_profile(read_profile(Micrograph(edge), ACROSS)).edge
    if gap and gap[0] > 50:
        assert line.plain_fwhm is step.plain_width is None
    else:
        assert line.plain_fwhm == pytest.approx(12, abs=0.1)
        assert step.plain_width == pytest.approx(2 * math.log(9) * 1.5, abs=0.2)


@pytest.mark.parametrize(
    ("fwhm", "degrees", "sign"), [(3.0, 20, 1), (8.0, 45, -1), (3.0, 0, -1)]
)
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


def test_a_pixel_may_be_a_point():
    image = bell(COLUMNS - 60.3, 3.0)
    curve = read_profile(Micrograph(image), ACROSS)
    assert measure_profile(
        curve, pixel="point"
    ).highest_line.fwhm.value == pytest.approx(3, rel=1e-3)
    assert measure_profile(curve).highest_line.fwhm.value < 2.95


def test_a_bar_is_read_as_a_box():
    image = area(lambda _, x: 1.0 * (np.abs(x - 60.4) < 7))
    rng = np.random.default_rng(0)
    noisy = image + rng.normal(0, 0.05, image.shape)
    main = measure_profile(
        read_profile(Micrograph(noisy), ACROSS, width_px=5)
    ).highest_line
    assert main.model == "box"
    assert main.fwhm.low < 14 < main.fwhm.high


@pytest.mark.parametrize("highest", [42, 74])
def test_a_broad_bar_is_as_wide_wherever_it_is_highest(highest):
    image = 1.0 * (np.abs(COLUMNS - 60) <= 20) + 0.06 * (highest == COLUMNS)
    noisy = image + np.random.default_rng(0).normal(0, 0.02, image.shape)
    main = measure_profile(
        read_profile(Micrograph(noisy), ACROSS, width_px=9)
    ).highest_line
    assert main.plain_place == pytest.approx(highest - 10, abs=1)
    assert main.fwhm.value == pytest.approx(41, rel=0.01)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_bar_that_fills_most_of_the_profile_is_a_line_all_the_same(sign):
    image = sign * ndimage.gaussian_filter(1.0 * (np.abs(COLUMNS - 60) <= 35), 1.5)
    noisy = image + np.random.default_rng(0).normal(0, 0.05, image.shape)
    curve = read_profile(Micrograph(noisy), ACROSS, width_px=3)
    found = measure_profile(curve)
    assert found.dark == (sign < 0)
    assert found.highest_line.fwhm.value == pytest.approx(71, abs=0.3)


@pytest.mark.parametrize(("period", "duty"), [(24, 0.5), (31, 0.5), (10, 0.3)])
def test_wide_lines_upon_each_other_are_not_told_of_a_grating(period, duty):
    rows, columns = np.indices((256, 256))
    bright = ndimage.gaussian_filter(1.0 * (columns % period < duty * period), 1.5)
    rng = np.random.default_rng(2)
    for noise in (2, 10):
        image = 60 + 130 * bright + rng.normal(0, noise, rows.shape)
        line = (128.0, 20.0, 128.0, 230.0)
        found = measure_profile(read_profile(Micrograph(image), line, width_px=9))
        widths = [one.fwhm.value for one in found.lines if one.fwhm is not None]
        assert all(width < 1.7 * duty * period for width in widths)


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


@pytest.mark.parametrize("seed", [3, 9, 11, 20])
def test_bars_are_as_far_apart_wherever_they_are_highest(seed):
    bars = 130.0 * (np.indices((256, 256))[1] % 60 < 30)
    image = bars + np.random.default_rng(seed).normal(0, 2, bars.shape)
    line = (128.0, 20.0, 128.0, 230.0)
    found = measure_profile(read_profile(Micrograph(image), line, width_px=9))
    for pair in found.pairs:
        assert pair.distance.value == pytest.approx(60, abs=0.5)
        assert pair.distance.low < 60 < pair.distance.high


def test_no_distance_is_told_of_a_line_without_a_fit():
    image = 1.0 * (COLUMNS == 11) + bell(COLUMNS - 80, 10)  # four pixels tell no line
    found = measure_profile(read_profile(Micrograph(image), ACROSS))
    (pair,) = found.pairs
    assert [line.model for line in found.lines] == ["none", "gaussian"]
    assert (found.lines[0].place, found.lines[0].position) == (None, 1)
    assert (pair.distance, pair.dip, pair.rayleigh) == (None, None, "undecided")
    assert pair.plain_distance == pytest.approx(69, abs=0.1)
    assert "no fit" in pair.reason


@pytest.mark.parametrize("height", [2.0, 20.0])
def test_where_lines_fill_the_curve_no_dip_is_told(height):
    noise = np.random.default_rng(0).normal(size=COLUMNS.shape)
    wave = 100 + height * np.sin(2 * np.pi * COLUMNS / 20) + noise
    found = measure_profile(read_profile(Micrograph(wave), ACROSS, width_px=9))
    assert found.pairs
    for pair in found.pairs:
        assert (pair.dip, pair.rayleigh) == (None, "undecided")
        assert pair.sparrow == "resolved"  # any dip, above whatever background
        assert "background" in pair.reason
    # the same lines, three of them
    three = np.where(np.abs(COLUMNS - 60) < 25, wave, 100 - height + noise)
    found = measure_profile(read_profile(Micrograph(three), ACROSS, width_px=9))
    assert [pair.rayleigh for pair in found.pairs] == ["resolved"] * 2


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


@pytest.mark.parametrize("blur", [2.0, 8.0])
@pytest.mark.parametrize("tilt", [-0.3, 0.3, 0.6])
def test_sloping_sides_make_an_edge_no_wider(tilt, blur):
    from scipy import special

    def sides(_, x):
        return special.erf((x - 60) / blur) + 2 * tilt * (x - 60) / 100

    image = area(sides) + np.random.default_rng(2).normal(0, 0.02, (96, 128))
    found = measure_profile(read_profile(Micrograph(image), ACROSS, width_px=5)).edge
    truth = 2 * blur * special.erfinv(0.8)
    assert found.width.value == pytest.approx(truth, rel=0.08)
    assert found.width.low < truth < found.width.high


def test_noise_alone_reads_nothing():
    for seed in range(10):
        noise = np.random.default_rng(seed).normal(size=(96, 128))
        curve = read_profile(Micrograph(100 + noise), ACROSS)
        found = measure_profile(curve)
        assert "noise" in found.reason
        assert found.edge is None
        for level in (found.background, found.level):
            assert curve.intensity.min() <= level <= curve.intensity.max()


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


def test_plain_dip_is_a_share_where_the_ground_is_uneven():
    ground = 0.4 * (np.abs(COLUMNS - 60) > 22)
    pair = bell(COLUMNS - 45, 6.0) + bell(COLUMNS - 75, 6.0)
    found = measure_profile(read_profile(Micrograph(pair + ground), ACROSS, width_px=5))
    dips = [pair.plain_dip for pair in found.pairs if math.isfinite(pair.plain_dip)]
    assert dips
    assert max(dips) == 1.0


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


def test_a_dip_is_a_share_in_any_grey_scale():
    x = np.linspace(-4, 4, 801)
    level = bell(x - 4, 6.0) + bell(x + 4, 6.0)
    dip = 1 - level.min() / level.max()
    two = bell(COLUMNS - 56, 6.0) + bell(COLUMNS - 64, 6.0)
    curve = read_profile(Micrograph(7 - 0.02 * two), ACROSS)
    (pair,) = measure_profile(curve, pixel="point").pairs
    assert pair.dip.value == pytest.approx(dip, abs=0.01)
    assert pair.plain_dip == pytest.approx(dip, abs=0.05)


def test_each_pair_of_a_row_has_its_own_distance_and_dip():
    at, widths = (30, 40, 54, 72), 6.0
    image = sum(bell(COLUMNS - place, widths) for place in at)
    found = measure_profile(read_profile(Micrograph(image), ACROSS), pixel="point")
    apart = [pair.distance.value for pair in found.pairs]
    assert apart == pytest.approx(np.diff(at), abs=0.1)
    x = np.linspace(0, 120, 12_001)
    level = sum(bell(x - place, widths) for place in at)
    for pair, one, two in zip(found.pairs, at[:-1], at[1:], strict=True):
        between = level[one * 100 : two * 100 + 1]
        lower = min(between[0], between[-1])
        assert pair.dip.value == pytest.approx(1 - between.min() / lower, abs=0.02)


@pytest.mark.broad
def test_of_too_many_lines_the_highest_are_read():
    columns = np.arange(800.0)
    places = [40 + 10 * number for number in range(72)]
    row = sum(
        (0.4 if number < 12 else 1.0) * bell(columns - place, 3.0)
        for number, place in enumerate(places)
    )
    curve = read_profile(Micrograph(np.tile(row, (9, 1))), (4.0, 10.0, 4.0, 790.0))
    found = measure_profile(curve, pixel="point", prominence=0.01)
    assert len(found.lines) == 60
    begin = places[12] - 10  # of the first that is high, from where the line begins
    assert min(line.plain_place for line in found.lines) == pytest.approx(begin, abs=1)


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
    "12 bits": lambda grey: np.clip(np.rint(16 * grey), 0, 4095).astype(np.uint16),
    "16 bits": lambda grey: np.clip(np.rint(257 * grey), 0, 65535).astype(np.uint16),
    "floats": lambda grey: np.clip(grey / 255, 0, 1).astype(np.float32),
    # stretched after it was clipped
    "another end": lambda grey: np.rint(0.8 * np.clip(grey, 0, 255)).astype(np.uint8),
    # white differs in the last bits, as after interpolation
    "rounded floats": lambda grey: (
        (7 + np.clip(grey, 0, 255) / 3) * (1 + 2e-7 * np.cos(np.indices(grey.shape)[1]))
    ).astype(np.float32),
}


@pytest.mark.parametrize("scale", GREY_SCALES)
@pytest.mark.parametrize("noise", [0.0, 6.0])
def test_a_clipped_line_is_refused_and_one_below_white_is_not(scale, noise):
    shape = bell(np.indices((40, 160))[1] - 80, 20.0)
    rough = np.random.default_rng(3).normal(0, noise, shape.shape)
    store = GREY_SCALES[scale]
    for height, clipped in ((190, False), (240, True), (400, True)):
        grey = 40 + height * shape + rough
        for image in (grey, 255 - grey):
            if clipped:
                with refused(ReadError, "clipped", match=" (79|80|81)"):
                    measured(store(image))
            else:
                assert measured(store(image)).highest_line.fwhm.value == pytest.approx(
                    20, rel=0.02
                )


def test_a_line_with_noise_on_a_large_offset_is_not_clipped():
    shape = bell(np.indices((40, 160))[1] - 80, 11.0)
    rough = np.random.default_rng(3).normal(0, 0.1, shape.shape)
    found = measured(1e6 + 40 * shape + rough)
    assert found.highest_line.fwhm.value == pytest.approx(11, rel=0.01)


@pytest.mark.parametrize("scale", GREY_SCALES)
def test_a_line_that_is_white_in_a_part_of_the_band_is_refused(scale):
    rows, columns = np.indices((40, 160))
    bar = ndimage.gaussian_filter1d((np.abs(columns - 80) < 12) * 1.0, 2.5, axis=1)
    for shape, width in ((bar, 23), (bell(columns - 80, 20.0), 20)):
        for part in (rows < 20, rows % 4 == 0, columns < 80):
            grey = 76 + np.where(part, 280, 150) * shape
            with refused(ReadError, "clipped", match=r" (7|8)[\d.]* px"):
                measured(GREY_SCALES[scale](grey))
        found = measured(GREY_SCALES[scale](76 + 150 * shape))
        assert found.highest_line.fwhm.value == pytest.approx(width, rel=0.01)


@pytest.mark.parametrize("ground", [-30, 0])
def test_lines_and_edges_on_ground_cut_at_black_are_refused(ground):
    x = np.indices((40, 160))[1]
    rough = np.random.default_rng(4).normal(0, 5, x.shape)
    store = GREY_SCALES["8 bits"]
    for shape in (bell(x - 80, 20.0), x > 80):
        grey = ground + 180 * ndimage.gaussian_filter(1.0 * shape, 2) + rough
        with refused(ReadError, "clipped"):
            measured(store(grey))
    with refused(ReadError, "clipped"):
        measured(store(60 + 220 * ndimage.gaussian_filter(1.0 * (x > 80), 2) + rough))


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_a_bar_of_one_level_on_ground_of_one_level_is_measured(noise):
    for blur in (0.1, 1.0, 4.0):
        grey = runs((60, 0), (31, 180), (60, 0), noise=noise, blur=blur)
        for image in (grey, np.clip(np.rint(grey), 0, 255).astype(np.uint8)):
            assert measured(image).highest_line.fwhm.value == pytest.approx(31, abs=0.2)


GROUND, BALL = 40, 180


@pytest.mark.parametrize(
    ("stretches", "width", "count"),
    [
        (((20, GROUND), (86, BALL), (18, GROUND), (30, BALL)), 86, 1),
        (((20, GROUND), (86, BALL), (18, GROUND), (120, BALL)), 86, 1),
        (((30, BALL), (18, GROUND), (86, BALL), (18, GROUND), (30, BALL)), 86, 1),
        (((20, 70), (86, BALL), (18, 20), (60, BALL)), 86, 1),
        (((31, 85), (86, BALL), (18, 15), (21, BALL)), 86, 1),
        (((20, GROUND), (86, 150), (18, GROUND), (60, 220)), 86, 1),
        (((20, GROUND), (86, BALL), (18, GROUND), (86, BALL), (20, GROUND)), 86, 2),
        (((5, GROUND), (86, BALL), (80, GROUND)), 86, 1),
    ],
)
def test_a_ball_is_measured_and_not_the_gap_beside_it(stretches, width, count):
    for noise in (4, 25):
        found = measured(runs(*stretches, noise=noise))
        assert not found.dark
        assert len(found.lines) == count
        assert found.highest_line.fwhm.value == pytest.approx(width, rel=0.015)


@pytest.mark.parametrize(
    ("stretches", "width", "count"),
    [
        (((80, BALL), (10, GROUND), (80, BALL)), 10, 1),
        (((20, BALL), (30, GROUND), (120, BALL)), 30, 1),
        (((80, BALL), (10, GROUND), (30, BALL), (10, GROUND), (80, BALL)), 10, 2),
        (((10, BALL), (90, GROUND), (10, BALL)), 90, 1),
    ],
)
def test_a_dark_line_on_bright_ground_is_still_what_is_measured(
    stretches, width, count
):
    found = measured(runs(*stretches))
    assert found.dark
    assert len(found.lines) == count
    assert found.highest_line.fwhm.value == pytest.approx(width, rel=0.015)


def test_the_gap_between_two_balls_is_measured_if_it_is_asked_for():
    image = runs((20, GROUND), (60, BALL), (18, GROUND), (60, BALL), (20, GROUND))
    curve = read_profile(Micrograph(image), (20.0, 0, 20, 177), width_px=9)
    found = measure_profile(curve, polarity="dark")
    assert found.highest_line.fwhm.value == pytest.approx(18, rel=0.02)
