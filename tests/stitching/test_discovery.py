"""Frames of which nothing is known."""

import numpy as np
import pytest

from napari_semsr.core.errors import RegistrationError
from napari_semsr.core.progress import run
from napari_semsr.stitching.discovery import grow
from napari_semsr.stitching.layout import Joint
from napari_semsr.stitching.solve import solve_mosaic
from tests.stitching import scans

TRUTH = np.array([[0.0, 0.0], [0.0, 70.0], [68.0, 3.0], [71.0, 74.0]])


def joint(first, second, weight, wrong=(0, 0)):
    shift = TRUTH[second] - TRUTH[first] + wrong
    return Joint(first, second, (float(shift[0]), float(shift[1])), weight)


def judge(index, place, positions):
    """Full marks at the true place only."""
    base = np.flatnonzero(np.isfinite(positions[:, 0]))[0]
    true = TRUTH[index] - TRUTH[base] + positions[base]
    return float(np.abs(true - place).max() < 3)


def test_grow_takes_what_agrees_with_all_frames():
    joints = [
        joint(0, 1, 9.0),
        joint(0, 2, 7.0),
        joint(1, 3, 12.0, wrong=(20, 5)),
        joint(2, 3, 6.5),
    ]
    found = grow(4, joints, judge)
    assert np.allclose(found - found[0], TRUTH)


def test_grow_leaves_out_what_nothing_holds():
    found = grow(4, [joint(0, 1, 9.0), joint(2, 3, 3.0)], judge)
    assert np.isfinite(found[:2]).all()
    assert np.isnan(found[2:]).all()
    assert np.isnan(grow(4, [joint(0, 1, 3.0)], judge)).all()


@pytest.mark.parametrize(
    ("grid", "side", "overlap"), [((3, 3), 96, 0.22), ((4, 4), 112, 0.24)], ids=str
)
def test_small_round_frames_are_placed_by_their_images_alone(grid, side, overlap):
    scan = scans.cut_scan(
        scans.texture((480, 480), 2),
        grid=grid,
        side=side,
        overlap=overlap,
        jitter=3,
        flat=scans.round_flat(side),
        known="nothing",
    )
    solution = run(solve_mosaic(scan.acquisition))
    assert solution.placed.all()
    assert scans.errors(solution.positions_px, scan.truth)[1] < 0.15


def test_a_scan_without_detail_that_occurs_once_is_refused():
    y, x = np.indices((400, 400)) / 9.0
    scene = 0.5 + 0.2 * np.sin(y) * np.sin(x)
    scan = scans.cut_scan(scene, side=96, known="nothing", overlap=0.3, sigma=2)
    with pytest.raises(RegistrationError, match="without positions"):
        run(solve_mosaic(scan.acquisition))
