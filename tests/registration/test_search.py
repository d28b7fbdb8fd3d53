"""A search tries every turn and scale, and the true place stands out of its scores."""

import numpy as np
import pytest

from napari_semsr.core import Affine, run
from napari_semsr.registration.register_images import (
    CorrelationSearch,
    SearchRanges,
    TransformCandidate,
)
from tests.two_views import draw_views

SIDE = 120
STEP = 2 / (0.35 * SIDE)  # radians: corners move by two pixels at most


@pytest.mark.parametrize(("turn", "stretch"), [(180.0, 0.1), (20.0, 0.1), (5.0, 0.0)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_steps_reach_the_limits_and_are_no_larger_than_a_line(turn, stretch, mirrored):
    steps = SearchRanges(turn, stretch, mirrored).list_steps(SIDE)
    turns, scales, mirrors = (
        np.array(sorted(set(v))) for v in zip(*steps, strict=True)
    )
    assert len(steps) == len(turns) * len(scales) * len(mirrors)
    assert list(mirrors) == ([False, True] if mirrored else [False])
    assert turns[0] == pytest.approx(-turn)
    ends = turns[-1] + np.diff(turns).max() if turn == 180 else turns[-1]
    assert ends == pytest.approx(turn)
    assert np.radians(np.diff(turns)).max() <= STEP * 1.001
    assert scales[[0, -1]] == pytest.approx([1 / (1 + stretch), 1 + stretch])
    assert np.diff(np.log(scales)).max(initial=0) <= STEP * 1.001
    assert 0 in np.round(turns, 9)
    assert 1 in np.round(scales, 9)


def test_steps_around_a_place_are_its_neighbours_to_all_sides():
    place = Affine.create_similarity(33.0, scale=1.08)
    steps = SearchRanges(180, 0.1).list_nearby_steps(
        [TransformCandidate(9.0, place)], SIDE
    )
    turns, scales, mirrors = (
        np.array(sorted(set(v))) for v in zip(*steps, strict=True)
    )
    assert (len(steps), len(turns), len(scales), list(mirrors)) == (9, 3, 3, [False])
    assert np.radians(np.diff(turns)) == pytest.approx([STEP, STEP])
    assert np.diff(np.log(scales)) == pytest.approx([STEP, STEP])
    assert abs(np.radians(turns[1] - 33)) <= STEP / 2
    assert abs(np.log(scales[1] / 1.08)) <= STEP / 2
    twice = SearchRanges(180, 0.1).list_nearby_steps(
        [TransformCandidate(9.0, place), TransformCandidate(8.0, place)], SIDE
    )
    assert twice == steps


def test_the_true_place_is_the_best_by_far_and_its_rivals_are_other_places():
    moving, fixed, truth = draw_views(128, degrees=5.0, seed=4)
    search = CorrelationSearch(moving, fixed, pitch_nm=40.0)
    corners = np.array([[0.0, 0], [0, 2400], [2400, 0], [2400, 2400]])

    def pixels_off(candidate):
        return np.abs(candidate.affine(corners) - truth(corners)).max(axis=0) / 40

    turns = (-85.0, -40.0, 5.0, 50.0, 95.0)
    steps = [(turn, 1.03, mirror) for turn in turns for mirror in (False, True)]
    best, *others = run(search.run(steps, keep=6))
    assert len(others) == 5
    assert pixels_off(best).max() < 0.8  # positions are whole pixels here
    scores = [one.score for one in others]
    assert scores == sorted(scores, reverse=True)
    assert 12 < best.score < 20  # deviations of chance
    assert 1 < scores[-1] <= scores[0] < 5.6
    assert run(search.run([], keep=6)) == []
    every = search.find_rivals(truth, keep=60)
    shifts = np.array([candidate.affine.shift for candidate in every]) / 40
    apart = np.abs(shifts[:, None] - shifts).max(axis=2)[np.triu_indices(60, 1)]
    assert apart.min() > 4.5  # whole pixels, and one maximum in 9 px
    same, *rivals = every[:5]
    assert pixels_off(same).max() < 0.8
    assert all(pixels_off(rival).max() > 4 for rival in rivals)
    shares = [rival.score / same.score for rival in rivals]
    assert shares == sorted(shares, reverse=True)
    assert 0.1 < shares[-1] <= shares[0] < 0.4


def test_a_mirrored_image_is_scored_as_if_it_were_resampled():
    moving, fixed, truth = draw_views(96, degrees=5.0, seed=4)
    reflected = moving.replace(data=np.asarray(moving.data)[:, ::-1].copy())
    turns = (-31.0, -5.0, 5.0, 31.0)
    plain, mirrored = (
        run(CorrelationSearch(image, fixed, 40.0).run(steps, keep=4))
        for image, steps in (
            (moving, [(turn, 1.03, False) for turn in turns]),
            (reflected, [(turn, 1.03, mirror) for turn in turns for mirror in (0, 1)]),
        )
    )
    assert plain[0].affine.degrees == pytest.approx(5)
    assert mirrored[0].affine.is_mirrored
    assert mirrored[0].affine.degrees == pytest.approx(5)
    middle = truth.inverse()(np.array([[1200.0, 1200.0]]))
    half = (moving.shape[1] - 1) / 2 * moving.scale[1] + moving.origin[1]
    same = middle * [1, -1] + [0, 2 * half]
    there = plain[0].affine(middle)
    assert mirrored[0].affine(same) == pytest.approx(there, abs=1e-6)
