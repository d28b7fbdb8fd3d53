"""Frames that one joint holds, or none, are right or left out; never a period off."""

import numpy as np
import pytest

from napari_semsr.core import Acquisition, run
from napari_semsr.simulation import ScanOptions, draw_phantom, simulate_scan
from napari_semsr.stitching import UnplacedFramesError, solve_mosaic
from napari_semsr.stitching.bridges import GroupPosition, choose_nearest_position
from napari_semsr.stitching.flat_field import estimate_initial_flat
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.pairwise import search_shifts
from tests.refusals import refused
from tests.stitching import scans


def solved(kind, pitch, seed, *, size=480, side=112, **how):
    """Solve a scan of a sample with repeating parts."""
    scene = draw_phantom(kind, (size, size), seed=seed, pitch_px=pitch)
    scan = scans.cut_scan(scene, side=side, seed=seed, **how)
    return scan, run(solve_mosaic(scan.acquisition))


def wrong_frames(scan, solution):
    """Frames with a place off that of most of the others."""
    away = solution.positions_px - scan.truth
    away -= np.nanmedian(away, axis=0)
    return np.flatnonzero(np.hypot(*away.T) > 2).tolist()


PITCH = 21.94104116136489


# a row held by one joint; frames without a joint; frames far from where they are stated
@pytest.mark.parametrize(
    ("kind", "pitch", "seed", "how"),
    [
        pytest.param(
            *(
                "pits",
                24.9513792160687,
                16,
                {"overlap": 0.25, "jitter": 2.0, "sigma": 4.0},
            ),
            id="frames without a joint",
        ),
        pytest.param(
            *(
                "circuit",
                21.25649252262113,
                43,
                {"overlap": 0.32, "jitter": 4.0, "sigma": 6.0},
            ),
            id="a row held by one joint",
            marks=pytest.mark.broad,
        ),
        pytest.param(
            *("circuit", 20, 12, {"overlap": 0.32, "jitter": 3.0, "size": 420}),
            id="frames displaced by a period",
            marks=pytest.mark.broad,
        ),
        pytest.param(
            *(
                "circuit",
                PITCH,
                84,
                {"overlap": 0.32, "jitter": 4.0, "sigma": 6.0, "known": "grid"},
            ),
            id="a column held by a loop of two joints",
            marks=pytest.mark.broad,
        ),
    ],
)
def test_frames_of_a_sample_with_repeating_parts_are_right_or_left_out(
    kind, pitch, seed, how
):
    side = 120 if "size" in how else 112
    order = "row" if "size" in how or "known" in how else "serpentine"
    scan, solution = solved(kind, pitch, seed, side=side, order=order, **how)
    assert solution.is_placed.sum() > 5
    assert wrong_frames(scan, solution) == []


@pytest.mark.broad
def test_a_repeating_sample_of_which_most_frames_fit_nowhere_is_refused():
    how = {"overlap": 0.25, "jitter": 5.0, "sigma": 4.0, "order": "serpentine"}
    with refused(UnplacedFramesError, "periodic"):
        solved(
            "circuit", 24.28317942407566, 7040, grid=(3, 4), known="positions", **how
        )


def test_a_cut_may_take_the_place_of_frames_at_the_ends_of_later_joints():
    how = {"frames_grid": "3x5", "frame_px": 128, "seed": 35}
    taken = run(simulate_scan(ScanOptions(phantom="circuit", **how)))
    names = tuple(map(str, taken.names))
    scan = Acquisition(np.stack(taken.frames), names, nominal_px=taken.nominal_px)
    solution = run(solve_mosaic(scan))
    assert not solution.is_placed.all()
    error, _ = scans.errors(solution.positions_px, taken.true_px)
    assert np.nanmax(np.abs(error)) < 1


def test_a_place_of_small_overlap_is_found_next_to_one_of_a_larger_overlap():
    scene = draw_phantom("circuit", (480, 480), seed=84, pitch_px=PITCH)
    how = {"overlap": 0.32, "jitter": 4.0, "sigma": 6.0, "known": "grid"}
    scan = scans.cut_scan(scene, side=112, seed=84, **how)
    frames = CorrectedFrames(scan.acquisition, estimate_initial_flat(scan.acquisition))
    found = search_shifts(frames, (6, 7), (-1, 70), (16, 16))
    # half a period nearer, where the frames have a third more in common, fits less well
    away = scan.truth[7] - scan.truth[6]
    assert np.abs(found.shifts[0] - away).max() < 2


def place(y, x):
    return GroupPosition((y, x), score=9.0, fit=1.0, doubt=0.1)


def test_the_stage_chooses_among_places_only_if_its_error_is_small():
    places, middle = [place(0, 0), place(16, 0)], np.array([15.0, 2.0])
    assert choose_nearest_position(places, middle, 2.0) is places[1]
    assert choose_nearest_position(places, middle, 6.0) is None
    assert choose_nearest_position(places, middle, np.inf) is None
    assert choose_nearest_position(places[:1], middle, np.inf) is places[0]
    assert choose_nearest_position([], middle, 2.0) is None
