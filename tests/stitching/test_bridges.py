"""Frames that one overlap holds, or none, are right or left out; never a period off."""

import numpy as np
import pytest

from napari_semsr.core import Acquisition, run
from napari_semsr.simulation import ScanOptions, draw_phantom, simulate_scan
from napari_semsr.stitching import UnplacedFramesError, solve_mosaic
from tests.refusals import refused
from tests.stitching import scans


# frames without an overlap; a row held by one overlap
@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("kind", "pitch", "seed", "how"),
    [
        ("pits", 24.9513792160687, 16, {"overlap": 0.25, "jitter": 2, "sigma": 4}),
        ("circuit", 21.25649252262113, 43, {"overlap": 0.32, "jitter": 4, "sigma": 6}),
    ],
)
def test_frames_of_a_sample_with_repeating_parts_are_right_or_left_out(
    kind, pitch, seed, how
):
    scene = draw_phantom(kind, (480, 480), seed=seed, pitch_px=pitch)
    scan = scans.cut_scan(scene, side=112, seed=seed, order="serpentine", **how)
    solution = run(solve_mosaic(scan.acquisition))
    assert solution.is_placed.sum() > 5
    away = solution.positions_px - scan.truth
    away -= np.nanmedian(away, axis=0)
    assert not (np.hypot(*away.T) > 2).any()


@pytest.mark.broad
def test_a_repeating_sample_of_which_most_frames_fit_nowhere_is_refused():
    how = {"overlap": 0.25, "jitter": 5.0, "sigma": 4.0, "order": "serpentine"}
    how |= {"grid": (3, 4), "known": "positions", "side": 112, "seed": 7040}
    scene = draw_phantom("circuit", (480, 480), seed=7040, pitch_px=24.28317942407566)
    with refused(UnplacedFramesError, "periodic"):
        run(solve_mosaic(scans.cut_scan(scene, **how).acquisition))


def test_a_cut_may_take_the_place_of_frames_at_the_ends_of_later_joints():
    how = {"frames_grid": "3x5", "frame_px": 128, "seed": 35}
    taken = run(simulate_scan(ScanOptions(phantom="circuit", **how)))
    names = tuple(map(str, taken.names))
    scan = Acquisition(np.stack(taken.frames), names, nominal_px=taken.nominal_px)
    solution = run(solve_mosaic(scan))
    assert not solution.is_placed.all()
    error, _ = scans.errors(solution.positions_px, taken.true_px)
    assert np.nanmax(np.abs(error)) < 1
