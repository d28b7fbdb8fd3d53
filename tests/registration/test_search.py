"""The steps of a search leave no turn and no scale out."""

import numpy as np
import pytest

from napari_semsr.core import Affine
from napari_semsr.registration.register_images import Candidate, Ranges

SIDE = 120
STEP = 2 / (0.35 * SIDE)  # radians: corners move by two pixels at most


@pytest.mark.parametrize(("turn", "stretch"), [(180.0, 0.1), (20.0, 0.1), (5.0, 0.0)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_steps_reach_the_limits_and_are_no_larger_than_a_line(turn, stretch, mirrored):
    steps = Ranges(turn, stretch, mirrored).steps(SIDE)
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
    place = Affine.similarity(33.0, scale=1.08)
    steps = Ranges(180, 0.1).around([Candidate(9.0, place)], SIDE)
    turns, scales, mirrors = (
        np.array(sorted(set(v))) for v in zip(*steps, strict=True)
    )
    assert (len(steps), len(turns), len(scales), list(mirrors)) == (9, 3, 3, [False])
    assert np.radians(np.diff(turns)) == pytest.approx([STEP, STEP])
    assert np.diff(np.log(scales)) == pytest.approx([STEP, STEP])
    assert abs(np.radians(turns[1] - 33)) <= STEP / 2
    assert abs(np.log(scales[1] / 1.08)) <= STEP / 2
    twice = Ranges(180, 0.1).around(
        [Candidate(9.0, place), Candidate(8.0, place)], SIDE
    )
    assert twice == steps
