"""Shifts of pairs: boxes, surfaces, candidates."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from napari_semsr.stitching.flat_field import estimate_initial_flat
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.pairwise import (
    CorrelationSurface,
    compute_joint_correlation,
    compute_overlap_boxes,
    correlate_frames,
    find_highest_peaks,
    search_shifts,
)

SHIFT = st.tuples(st.integers(-40, 40), st.integers(-40, 40))


@pytest.fixture(scope="module")
def prepared(round_scan):
    flat = estimate_initial_flat(round_scan.acquisition)
    return CorrectedFrames(round_scan.acquisition, flat)


@given(shift=SHIFT, grow=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_overlap_boxes_show_the_same_place_within_both_frames(shift, grow):
    shape = (30, 36)
    boxes = compute_overlap_boxes(shape, shift)
    if any(abs(move) >= side for move, side in zip(shift, shape, strict=True)):
        assert boxes is None
        return
    one, two = boxes
    assert one.shape == two.shape
    assert (one.y0 - two.y0, one.x0 - two.x0) == shift
    grown = compute_overlap_boxes(shape, shift, grow)
    for small, large in zip(boxes, grown, strict=True):
        assert 0 <= large.y0 <= small.y0
        assert 0 <= large.x0 <= small.x0
        assert small.y1 <= large.y1 <= shape[0]
        assert small.x1 <= large.x1 <= shape[1]


@pytest.mark.parametrize("pair", [(0, 1), (1, 4)], ids=str)
def test_search_finds_the_shift_of_neighbours(prepared, round_scan, pair):
    nominal = round_scan.acquisition.nominal_px
    expected = np.round(nominal[pair[1]] - nominal[pair[0]]).astype(int)
    found = search_shifts(prepared, pair, tuple(expected.tolist()), (16, 16))
    true = round_scan.truth[pair[1]] - round_scan.truth[pair[0]]
    assert np.abs(found.shifts[0] - true).max() < 1
    assert found.best_score > 10
    assert (np.diff(found.score) <= 0).all()


def test_surface_needs_an_overlap(prepared):
    assert correlate_frames(prepared, (0, 1), (200, 0), (5, 5)) is None
    assert search_shifts(prepared, (0, 1), (200, 0), (5, 5)).best_score == 0


def plain(*bands, root=None, grain=1.0):
    """Frames of these band-passed images, equally sure of each pixel."""
    shape = bands[0].shape
    return SimpleNamespace(
        frame_shape=shape,
        root=np.ones(shape) if root is None else root,
        band_pass=lambda index: np.asarray(bands[index], np.float32),
        grain=grain,
    )


@pytest.mark.parametrize("nominal", [(0, 0), (14, -3), (-20, 17), (3, 40)], ids=str)
@pytest.mark.parametrize("reach", [(4, 6), (30, 2)], ids=str)
def test_a_surface_is_that_of_sums_over_every_overlap(nominal, reach, rng):
    one, two = rng.normal(size=(2, 40, 56)).astype(np.float32)
    found = correlate_frames(plain(one, two), (0, 1), nominal, reach)
    assert found.origin == (nominal[0] - reach[0], nominal[1] - reach[1])
    assert found.cross.shape == (2 * reach[0] + 1, 2 * reach[1] + 1)
    for y, x in np.ndindex(*found.cross.shape):
        shift = found.origin[0] + y, found.origin[1] + x
        boxes = compute_overlap_boxes(one.shape, shift)
        if boxes is None:
            assert found.cross[y, x] == 0
            continue
        first, second = one[boxes[0].slices], two[boxes[1].slices]
        power = float((first**2 * second**2).sum())
        assert found.variance[y, x] == pytest.approx(power, abs=0.02)
        wide = min(first.shape) >= 8 and first.size >= 400
        product = float((first * second).sum()) * wide
        assert found.cross[y, x] == pytest.approx(product, abs=0.02)


def test_a_score_is_a_sum_over_its_deviation_and_a_height_does_not_grow():
    cross, variance = np.array([[3.0, 4.0]]), np.array([[100.0, 1.0]])
    found = CorrelationSurface(cross, variance, (-5, 8))
    assert found.score.tolist() == [pytest.approx([0.3, 4 / np.sqrt(2)])]
    height = found.score / np.sqrt([[15 * 22, 15 * 21]])
    np.testing.assert_allclose(found.compute_height((20, 30)), height)


def ridge(*places, size=(21, 31), low=0.0):
    cross = np.full(size, low)
    for y, x, value in places:
        cross[y, x] = value
    return CorrelationSurface(cross, np.ones(size), (-10, -5))


def test_a_ridge_is_longer_than_half_of_the_search():
    line = [(5, x, 1.0) for x in range(3, 19)]
    shape = (1000, 1000)  # of which the overlap hardly changes
    found = ridge(*line).find_ridge((-5, 0), (-5, 12), shape)
    assert found == ((-5, 12), (-5, -2))
    assert ridge(*line[1:]).find_ridge((-5, 0), (-5, 12), shape) == ()
    slanted = [(y, y + 2, 1.0) for y in range(4, 15)]
    assert ridge(*slanted).find_ridge((0, 7), (-9, -9), shape) == ((-6, 1), (4, 11))
    lower = [(y, x, 0.89) for y, x, _ in line[1:]]
    assert ridge(*lower, line[0]).find_ridge((-5, -2), (0, 0), shape) == ()


def test_peaks_are_apart_and_the_next_period_of_a_lattice_is_listed():
    score = np.zeros((60, 60))
    places = [
        (5, 5),
        (5, 9),
        (20, 20),
        (20, 23),
        (40, 40),
        (50, 10),
        (30, 50),
        (10, 40),
    ]
    for place, height in zip(places, (9, 8, 7, 6, 5, 4.4, 3, 2), strict=True):
        score[place] = height
    found = find_highest_peaks(score, None)
    assert found[:4] == [(5, 5), (5, 9), (20, 20), (40, 40)]
    assert (20, 23) not in find_highest_peaks(score, 0.5)  # three pixels off
    assert find_highest_peaks(score, 4.4) == [(5, 5), (5, 9), (20, 20), (40, 40)]
    assert find_highest_peaks(-score, None) == []
    lattice = np.zeros((63, 63))
    lattice[::7, ::7] = 6.0 + np.arange(81).reshape(9, 9) / 81
    assert len(find_highest_peaks(lattice, None)) == 40
    assert find_highest_peaks(lattice, None)[0] == (56, 56)


@pytest.mark.parametrize(("grain", "details"), [(1.0, 597), (3.0, 197), (300.0, 0)])
def test_a_coefficient_counts_details_and_a_weight_pixels(grain, details, rng):
    signs = rng.choice([-1.0, 1.0], (20, 30))
    other = signs.copy()
    other[:5] *= -1  # a quarter
    for sign in (1, -1):
        found = compute_joint_correlation(
            plain(signs, sign * other, grain=grain), [ALL]
        )
        score = np.sqrt(details * -np.log(1 - 0.25))
        expected = (0.5, score, np.arctanh(0.5) * np.sqrt(600 / 3))
        assert found == pytest.approx([sign * value for value in expected])
    same = compute_joint_correlation(plain(signs, signs, grain=grain), [ALL])
    most = np.sqrt(details * -np.log(1 - 0.999**2)), np.arctanh(0.999) * np.sqrt(200)
    assert same == pytest.approx((1.0, *most))


ALL = ((0, 1), (0, 0))


def test_overlaps_count_as_one_where_both_frames_have_light(rng):
    bands = rng.choice([-1.0, 1.0], (3, 30, 40))
    root = np.where(np.arange(40) < 20, 1.0, 0.0)[None].repeat(30, 0)
    pairs = [((0, 1), (0, 0)), ((0, 2), (10, 5)), ((1, 2), (30, 0))]
    frames = plain(*bands, root=root)
    cross = (bands[0] * bands[1])[:, :20].sum()
    cross += (bands[0, 10:, 5:20] * bands[2, :20, :15]).sum()
    found = compute_joint_correlation(frames, pairs)
    ncc = cross / 900
    assert found[0] == pytest.approx(ncc)
    assert found[1] == pytest.approx(
        np.copysign(np.sqrt(-897 * np.log1p(-(ncc**2))), ncc)
    )
    assert found[2] == pytest.approx(np.arctanh(ncc) * np.sqrt(300))
    # unequal light: fewer pixels count, (sum w)^2 / sum w^2
    slope = np.linspace(0.5, 1.5, 40)[None].repeat(30, 0)
    weight = slope**2
    every = weight.sum() ** 2 / (weight**2).sum()
    same = compute_joint_correlation(plain(bands[0], bands[0], root=slope), [ALL])
    assert same[2] == pytest.approx(np.arctanh(0.999) * np.sqrt(every / 3))
    # one grain fits any other
    grain = np.zeros((30, 40))
    grain[7, 9] = 5
    assert compute_joint_correlation(plain(grain, grain), [ALL])[:2] == (
        pytest.approx(1),
        0,
    )


@pytest.mark.parametrize(("shift", "counts"), [((10, 20), True), ((10, 21), False)])
def test_fewer_than_400_pixels_have_no_coefficient(shift, counts, rng):
    band = rng.choice([-1.0, 1.0], (30, 40))
    moved = np.roll(band, (-shift[0], -shift[1]), (0, 1))
    found = compute_joint_correlation(plain(band, moved), [((0, 1), shift)])
    assert found[0] == pytest.approx(float(counts))
    assert counts or found == (0, 0, 0)
    assert compute_joint_correlation(plain(0 * band, band), [ALL]) == (0, 0, 0)
