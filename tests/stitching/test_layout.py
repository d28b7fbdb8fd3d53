"""Whole-pixel layout: wrong shifts are outvoted, loose frames are not forced."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from napari_semsr.stitching.flat_field import create_uniform_flat_field
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.layout import (
    ChanceLevel,
    Overlap,
    ShiftChoice,
    compute_periodic_layout,
    correlate_group,
    find_rival_candidates,
    fit_positions,
    has_repetitive_peaks,
    label_components,
    merge_close_proposals,
    solve_layout,
)
from napari_semsr.stitching.nominal import (
    PossibleRotations,
    compute_period_fraction,
    find_overlapping_pairs,
    find_touching_pairs,
)
from napari_semsr.stitching.pairwise import Candidates, ResampledFrames
from napari_semsr.stitching.refine import linearise_pair
from tests.stitching import scans

PLACES = np.array([[r * 50.0, c * 50.0] for r in range(3) for c in range(3)])


def candidates(first, second, *shifts, score=30.0):
    scores = np.linspace(score, score - 5, len(shifts))
    return Candidates(first, second, np.array(shifts), scores / 100, scores, scores)


def neighbours():
    for i in range(9):
        for j in range(i + 1, 9):
            if np.abs(PLACES[i] - PLACES[j]).sum() == 50:
                yield i, j


def true(i, j):
    return (PLACES[j] - PLACES[i]).astype(int)


def moved(positions):
    return positions - positions[4] + PLACES[4]


def test_solve_layout_takes_what_agrees_and_drops_what_does_not():
    found = [candidates(i, j, true(i, j)) for i, j in neighbours()]
    layout = solve_layout(9, found, 5.0, PLACES + 3)
    assert np.allclose(moved(layout.positions), PLACES, atol=1e-3)
    assert len(layout.joints) == 12
    assert not layout.dropped_joints
    found[0] = candidates(0, 1, true(0, 1) + 20)
    fifth = found[5]
    found[5] = candidates(fifth.first, fifth.second, (11, -40), fifth.shifts[0])
    layout = solve_layout(9, found, 5.0, PLACES)
    assert np.allclose(moved(layout.positions), PLACES, atol=0.3)
    assert [(j.first, j.second) for j in layout.dropped_joints] == [(0, 1)]
    assert len(layout.joints) == 11


def test_solve_layout_leaves_loose_frames_without_a_place():
    found = [candidates(i, j, true(i, j)) for i, j in neighbours() if 8 not in (i, j)]
    found += [candidates(7, 8, true(7, 8), score=4.0)]
    layout = solve_layout(9, found, 5.0, PLACES)
    assert np.isnan(layout.positions[8]).all()
    assert np.isfinite(layout.positions[:8]).all()
    assert np.isnan(solve_layout(9, found[-1:], 5.0, PLACES).positions).all()


def test_components_calls_the_largest_group_zero():
    joints = [Overlap(a, b, (0.0, 0.0), 1.0) for a, b in ((0, 1), (2, 3), (3, 4))]
    labels = label_components(6, joints)
    assert labels[2] == labels[3] == labels[4] == 0
    assert labels[0] == labels[1] != 0
    assert len(set(labels.tolist())) == 3


def test_least_squares_averages_by_weight():
    joints = [Overlap(0, 1, (0.0, 10.0), 1.0), Overlap(0, 1, (0.0, 14.0), 3.0)]
    positions = fit_positions(2, joints, np.array([1.0, 3.0]))
    assert np.allclose(positions[1] - positions[0], [0, 13], atol=1e-3)


def test_the_stage_decides_between_periods_wherever_its_origin_is():
    choice = ShiftChoice(0, 1, np.array([(0.0, 60), (0, 49)]), np.array([0, 1.0]), 20.0)
    for origin in (0.0, 5.0, -400.0):
        nominal = np.array([[0.0, 0.0], [0.0, 50.0]]) + origin
        layout, ambiguous = compute_periodic_layout(
            2, [choice], nominal, lambda *_: 6.0
        )
        assert ambiguous == {(0, 1)}
        assert np.allclose(layout.positions[1] - layout.positions[0], (0, 49))


def prepared_scan(scene, **how):
    scan = scans.cut_scan(scene, grid=(1, 2), side=64, overlap=0.5, **how)
    return scan, CorrectedFrames(
        scan.acquisition, create_uniform_flat_field((64, 64), 0.0, "none")
    )


def test_a_group_correlates_best_where_it_is():
    scan, frames = prepared_scan(scans.texture((160, 160), 3), jitter=0)
    found = correlate_group(
        frames, [1], scan.truth + np.array([(0, 0), (2, -3)]), (6, 6)
    )
    assert found.pairs == [(0, 1)]
    y, x = np.unravel_index(np.argmax(found.score), found.score.shape)
    assert (y - 6, x - 6) == (-2, 3)
    assert found.score.max() > 20


def test_the_step_of_frames_that_share_nothing_is_bounded_and_weighs_little():
    rng = np.random.default_rng(3)
    scan, frames = prepared_scan(scans.texture((160, 160), 3), jitter=0)
    other = scan.acquisition.replace(
        frames=rng.integers(9000, 11000, (2, 64, 64)).astype(np.uint16)
    )
    shared = linearise_pair(ResampledFrames(frames, scan.truth, 1.0), 0, 1, [0, 1])
    frames = CorrectedFrames(other, create_uniform_flat_field((64, 64), 0.0, "none"))
    apart = linearise_pair(ResampledFrames(frames, scan.truth, 1.0), 0, 1, [0, 1])
    assert np.hypot(*shared.step) < 0.05
    precision = [np.trace(item.information) / item.variance for item in (shared, apart)]
    assert precision[1] < precision[0] / 300
    assert (np.linalg.eigvalsh(apart.information) > 0).all()
    assert np.hypot(*apart.step) < 6  # 12 px without the bound


CHANCE = ChanceLevel(((0, 50),), 8.0, 1.0, 48 * 33**2, 4.0, 0.5, False, 3.0)


def test_chance_is_an_exponential_tail_of_peaks_that_were_seen():
    # of 48 windows 48 peaks were above, so in one search of that size one is
    assert CHANCE.compute_chance_score(33**2, 1.0) == pytest.approx(np.sqrt(2 * 8))
    assert CHANCE.compute_chance_score(1, 1.0) == pytest.approx(4)  # and not less
    further = 60 * (1000 ** (1 / 60) - 1)  # by Lomax, of 48 peaks and 12 before
    assert CHANCE.compute_chance_score(33**2, 1e-3) == pytest.approx(
        np.sqrt(2 * (8 + further))
    )
    steep = replace(CHANCE, slope=2.0)
    found = steep.compute_chance_score(33**2, 1e-3)
    assert found == pytest.approx(np.sqrt(2 * (8 + further / 2)))


def test_chance_of_hardly_any_peak_is_that_of_normal_fields():
    bare = replace(CHANCE, slope=0.0)
    found = bare.compute_chance_score(100, 0.01)
    # as many trials as details: shifts * height^2 / 2 grain
    trials = 100 * found**2 / (2 * 3.0)
    assert norm.sf(found) == pytest.approx(0.01 / min(trials, 100), rel=1e-3)
    assert bare.compute_threshold(100, 3.0) == (
        bare.compute_chance_score(100, 1e-3 / 3),
        False,
    )
    assert bare.compute_threshold(100, 30.0) == (30.0, False)
    normal = bare.compute_chance_score(100, 1e-3 / 3)
    for level in (replace(CHANCE, repeats=True), replace(CHANCE, usual=normal + 0.01)):
        assert level.compute_threshold(100, 3.0) == (normal, True)
    usual = replace(CHANCE, usual=normal - 0.01, spread=2.0)
    assert usual.compute_threshold(100, 9.0) == (
        pytest.approx(normal - 0.01 + 18),
        False,
    )
    assert usual.compute_threshold(100, 0.1) == (
        usual.compute_chance_score(100, 1e-3 / 3),
        False,
    )


@pytest.mark.parametrize(
    ("ncc", "score", "expected"),
    [
        ((0.5, 0.36, 0.34), (9.0, 3.0, 3.0), (True, True, False)),
        ((0.5, 0.5, 0.5), (9.0, 2.6, 2.5), (True, True, False)),
        ((-0.1, 0.1), (9.0, 9.0), (False, True)),
    ],
)
def test_rivals_are_nearly_as_good(ncc, score, expected):
    item = Candidates(
        0, 1, np.zeros((len(ncc), 2)), *map(np.array, (ncc, score, score))
    )
    assert find_rival_candidates(item, 5.0).tolist() == [*expected]


@pytest.mark.parametrize(
    ("score", "ncc", "expected"),
    [
        ((9.0, 8, 6.4, 6), 0.3, True),
        ((9.0, 8, 6.2, 6), 0.3, False),
        ((9.0, 8, 7), 0.3, False),
        ((9.0, 8, 7, 6), 0.25, False),
    ],
)
def test_a_lattice_has_more_than_three_high_peaks(score, ncc, expected):
    shares = np.full(len(score), ncc)
    item = Candidates(0, 1, np.zeros((len(score), 2)), shares, np.array(score), shares)
    assert has_repetitive_peaks(item) == expected


def test_frames_that_nothing_connects_stay_as_before():
    before = np.array([[0.0, 0], [0, 40], [7, 9], [np.nan, np.nan]])
    joints = [Overlap(0, 1, (2.0, 50.0), 5.0)]
    found = fit_positions(4, joints, np.array([5.0]), before)
    assert found[1] - found[0] == pytest.approx([2, 50], abs=1e-3)
    assert found[:2].mean(axis=0) == pytest.approx([0, 20], abs=1e-3)
    assert found[2:] == pytest.approx(np.array([[7, 9], [0, 0]]))


def test_proposals_nearer_than_the_limit_are_averaged():
    proposals = np.array([[0.0, 0], [9, 9], [1.9, -1.9], [2, 0], [9, 10]])
    assert merge_close_proposals(proposals, 2.0).tolist() == [
        [0.95, -0.95],
        [9, 9.5],
        [2, 0],
    ]


def test_what_the_images_do_not_decide_has_no_place_unless_it_is_stated():
    open_pair = ShiftChoice(0, 1, np.array([(0.0, 60), (0, 49)]), np.zeros(2), 20.0)
    sure = ShiftChoice(1, 2, np.array([(50.0, 0)]), np.zeros(1), 20.0)
    nominal = np.array([[0.0, 0.0], [0.0, 50.0], [50.0, 50.0]])

    def place(doubt, first=60.0, **how):
        shifts = np.array([(50.0, first), (50, 109 - first)])
        third = ShiftChoice(0, 2, shifts, np.array([0, doubt]), 20.0)
        layout, ambiguous = compute_periodic_layout(
            3, [open_pair, sure, third], nominal, far_off, **how
        )
        return layout.positions - layout.positions[1], ambiguous, layout

    positions, ambiguous, _ = place(0.0, is_stated=False)
    assert np.isnan(positions[0]).all()
    assert positions[2] == pytest.approx([50, 0], abs=1e-3)
    assert ambiguous == {(0, 1), (0, 2)}
    positions, ambiguous, layout = place(0.0)
    assert positions[0] == pytest.approx([0, -49], abs=1e-3)
    assert {(j.first, j.second) for j in layout.joints} == {(0, 1), (1, 2), (0, 2)}
    for first in (60, 49):
        positions, ambiguous, _ = place(5.1, first, is_stated=False)
        assert positions[0] == pytest.approx([0, -first], abs=1e-3)
        assert ambiguous == set()
    assert place(4.9)[1] == {(0, 1), (0, 2)}


def far_off(*_):
    return 6.0


def test_pairs_share_more_than_four_pixels_or_enough_of_them():
    shape = (100, 60)
    places = np.array([[95.0, 0], [0, 0], [96, 50], [0, 55.5], [np.nan, 3], [70, 40]])
    assert find_touching_pairs(places, shape) == [
        *((0, 1), (0, 2), (0, 3), (0, 5), (1, 3), (1, 5), (2, 5)),
        (3, 5),
    ]
    # six hundred, not 5 x 60, 5 x 4.5 or 100 x 4.5
    assert find_overlapping_pairs(places, shape) == [
        (0, 2),
        (0, 5),
        (1, 5),
        (2, 5),
        (3, 5),
    ]


@pytest.mark.parametrize(("away", "share"), [(0, 0), (2, 0.16), (5, 1), (9, 1)])
def test_luck_is_the_share_of_shifts_that_are_as_near(away, share):
    assert compute_period_fraction(away, 10.0) == pytest.approx(share)
    turns = PossibleRotations((1 + 0.01j * away, 3.0), 0.0, 100.0, 10.0)
    assert turns.chance_probability == pytest.approx(share)
    assert PossibleRotations().chance_probability == 1
