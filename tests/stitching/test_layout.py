"""Whole-pixel layout: wrong shifts are outvoted, loose frames are not forced."""

import numpy as np

from napari_semsr.stitching.flat_field import no_flat
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.layout import (
    Joint,
    ShiftChoice,
    components,
    correlate_group,
    least_squares,
    resolve,
    solve_layout,
)
from napari_semsr.stitching.pairwise import Candidates, Resampled
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
    joints = [Joint(a, b, (0.0, 0.0), 1.0) for a, b in ((0, 1), (2, 3), (3, 4))]
    labels = components(6, joints)
    assert labels[2] == labels[3] == labels[4] == 0
    assert labels[0] == labels[1] != 0
    assert len(set(labels.tolist())) == 3


def test_least_squares_averages_by_weight():
    joints = [Joint(0, 1, (0.0, 10.0), 1.0), Joint(0, 1, (0.0, 14.0), 3.0)]
    positions = least_squares(2, joints, np.array([1.0, 3.0]))
    assert np.allclose(positions[1] - positions[0], [0, 13], atol=1e-3)


def test_the_stage_decides_between_periods_wherever_its_origin_is():
    choice = ShiftChoice(0, 1, np.array([(0.0, 60), (0, 49)]), np.array([0, 1.0]), 20.0)
    for origin in (0.0, 5.0, -400.0):
        nominal = np.array([[0.0, 0.0], [0.0, 50.0]]) + origin
        layout, ambiguous = resolve(2, [choice], nominal, lambda *_: 6.0)
        assert ambiguous == {(0, 1)}
        assert np.allclose(layout.positions[1] - layout.positions[0], (0, 49))


def prepared_scan(scene, **how):
    scan = scans.cut_scan(scene, grid=(1, 2), side=64, overlap=0.5, **how)
    return scan, CorrectedFrames(scan.acquisition, no_flat((64, 64), 0.0, "none"))


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
    shared = linearise_pair(Resampled(frames, scan.truth, 1.0), 0, 1, [0, 1])
    frames = CorrectedFrames(other, no_flat((64, 64), 0.0, "none"))
    apart = linearise_pair(Resampled(frames, scan.truth, 1.0), 0, 1, [0, 1])
    assert np.hypot(*shared.step) < 0.05
    precision = [np.trace(item.information) / item.variance for item in (shared, apart)]
    assert precision[1] < precision[0] / 300
    assert (np.linalg.eigvalsh(apart.information) > 0).all()
    assert np.hypot(*apart.step) < 6  # 12 px without the bound
