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


def test_the_true_place_is_the_best_by_far_and_its_rivals_are_other_places():
    moving, fixed, truth = draw_views(128, degrees=5.0, seed=4)
    search = CorrelationSearch(moving, fixed, pitch_nm=40.0)
    corners = np.array([[0.0, 0], [0, 2400], [2400, 0], [2400, 2400]])

    def pixels_off(candidate):
        return np.abs(candidate.affine(corners) - truth(corners)).max(axis=0) / 40

    turns = (-85.0, -40.0, 5.0, 50.0, 95.0)
    steps = [(turn, 1.03, mirror) for turn in turns for mirror in (False, True)]
    best, *others = run(search.run(steps, keep=6))
    assert pixels_off(best).max() < 0.8  # positions are whole pixels here
    scores = [one.score for one in others]
    assert scores == sorted(scores, reverse=True)
    assert 12 < best.score < 20  # deviations of chance
    assert 1 < scores[-1] <= scores[0] < 5.6
    same, *rivals = search.find_rivals(truth, keep=5)
    assert pixels_off(same).max() < 0.8
    assert all(pixels_off(rival).max() > 4 for rival in rivals)
    shares = [rival.score / same.score for rival in rivals]
    assert shares == sorted(shares, reverse=True)
    assert 0.1 < shares[-1] <= shares[0] < 0.4


def test_steps_around_a_place_are_its_neighbours_to_all_sides():
    place = Affine.create_similarity(33.0, scale=1.08)
    near = [TransformCandidate(9.0, place)]
    steps = SearchRanges(180, 0.1).list_nearby_steps(near, 120)
    turns, scales, mirrors = (
        np.array(sorted(set(v))) for v in zip(*steps, strict=True)
    )
    assert (len(steps), len(turns), len(scales), list(mirrors)) == (9, 3, 3, [False])
    step = 2 / (0.35 * 120)  # radians: corners move by two pixels at most
    assert np.radians(np.diff(turns)) == pytest.approx([step, step])
    assert np.diff(np.log(scales)) == pytest.approx([step, step])
    assert abs(np.radians(turns[1] - 33)) <= step / 2
