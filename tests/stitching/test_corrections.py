"""Corrections by hand: they are applied, and nothing else moves."""

import numpy as np
import pytest

from napari_semsr.core import OptionError, RegistrationError
from napari_semsr.core.progress import run
from napari_semsr.stitching import Corrections, StitchOptions
from napari_semsr.stitching.correct import correct_mosaic
from napari_semsr.stitching.solve import solve_mosaic
from tests.refusals import refused
from tests.stitching import scans

PERIOD = 16
WRONG = {4: (0, PERIOD), 2: (PERIOD, 0)}  # frames that are stated a period away


def names_of(*numbers):
    return [f"f{number:03d}" for number in numbers]


@pytest.fixture(scope="module")
def lattice():
    """A lattice of which two frames are stated a period away, solved."""
    scene = scans.lattice((330, 330), PERIOD, 1, disorder=0.05)
    scan = scans.cut_scan(scene, side=112, overlap=0.34, jitter=1.5, seed=1)
    stated = scan.acquisition.nominal_px.copy()
    for number, away in WRONG.items():
        stated[number] += away
    acquisition = scan.acquisition.replace(nominal_px=stated)
    solution = run(solve_mosaic(acquisition, StitchOptions(max_shift_px=1.5)))
    return scan, solution


@pytest.fixture(scope="module")
def plain():
    """A scan that is solved right."""
    scene = scans.texture((330, 400), 3)
    scan = scans.cut_scan(scene, grid=(3, 4), side=96, overlap=0.3, seed=3)
    return scan, run(solve_mosaic(scan.acquisition))


def corrected(solution, **entries):
    return run(correct_mosaic(solution, Corrections.parse(entries)))


def away(solution, scan):
    """Distance of each frame from its true place, most of them taken to be right."""
    error = solution.positions_px - scan.truth
    return np.hypot(*(error - np.nanmedian(error, axis=0)).T)


def join(scan, first, second, more=(0, 0)):
    shift = scan.truth[second] - scan.truth[first] + more
    names = dict(zip(("first", "second"), names_of(first, second), strict=True))
    return {**names, "shift_px": shift.tolist()}


def test_two_wrong_frames_of_a_lattice_are_right_after_they_are_placed(lattice):
    scan, before = lattice
    assert set(np.flatnonzero(away(before, scan) > PERIOD / 2)) == {*WRONG}
    right = scan.truth + np.median(before.positions_px - scan.truth, axis=0)
    place = {
        name: {"y_px": right[number, 0], "x_px": right[number, 1]}
        for name, number in zip(names_of(*WRONG), WRONG, strict=True)
    }
    after = corrected(before, place=place)
    assert away(after, scan).max() < 0.1
    numbers = [*WRONG]
    assert np.abs(after.positions_px[numbers] - right[numbers]).max() < 0.05
    # nobody else moved by more than a tenth of a pixel
    others = np.delete(after.positions_px - before.positions_px, numbers, axis=0)
    assert np.abs(others).max() < 0.1


def test_a_join_that_images_contradict_moves_one_frame_alone(plain):
    scan, before = plain
    after = corrected(before, join=[join(scan, 0, 1, (0, 30))])
    moved = after.positions_px - before.positions_px
    far = np.hypot(*(moved - np.median(moved, axis=0)).T)
    assert (far > 1).sum() == 1
    apart = after.positions_px[1] - after.positions_px[0]
    assert np.allclose(apart, scan.truth[1] - scan.truth[0] + (0, 30), atol=0.05)


def test_a_struck_overlap_is_not_used_and_others_hold_the_frames(plain):
    scan, before = plain
    after = corrected(before, strike=[names_of(6, 5)])
    (pair,) = [p for p in after.pairs if (p.first, p.second) == (5, 6)]
    assert (pair.used, pair.reason) == (False, "struck by hand")
    assert away(after, scan).max() < 0.1
    assert after.pairs_used == before.pairs_used - 1


def test_a_dropped_frame_has_no_place_and_the_others_keep_theirs(plain):
    _, before = plain
    after = corrected(before, drop=["f005"])
    assert np.flatnonzero(~after.is_placed).tolist() == [5]
    others = np.delete(after.positions_px - before.positions_px, 5, axis=0)
    assert np.abs(others).max() < 0.1
    assert not any(5 in (p.first, p.second) for p in after.pairs if p.used)


def test_a_frame_that_found_no_place_is_joined(plain):
    scan, _ = plain
    frames = scan.acquisition.frames.copy()
    rng = np.random.default_rng(0)
    frames[3] = rng.normal(20000, 2000, frames[3].shape)  # a corner, of noise alone
    before = run(solve_mosaic(scan.acquisition.replace(frames=frames)))
    assert not before.is_placed[3]
    after = corrected(before, join=[join(scan, 2, 3)])
    assert after.is_placed.all()
    assert away(after, scan).max() < 0.1


ORIGIN = {"y_px": 0, "x_px": 0}
JOIN = {"first": "f000", "second": "f001"}


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ({"drop": ["f099"]}, "frames-unknown"),
        ({"drop": names_of(*range(11))}, "too-few-frames"),
        ({"strike": [("f000", "f000")]}, "same-frame"),
        ({"join": [{**JOIN, "shift_px": (0, 1e9)}]}, "out-of-range"),
        ({"place": {"f000": {**ORIGIN, "y_px": float("nan")}}}, "out-of-range"),
        ({"place": {"f003": {**ORIGIN, "x_px": 1153}}}, "out-of-range"),
        ({"drop": ["f001"], "place": {"f001": ORIGIN}}, "corrections-contradict"),
        (
            {"strike": [("f001", "f000")], "join": [{**JOIN, "shift_px": (0, 9)}]},
            "corrections-contradict",
        ),
        (
            {
                "place": {"f000": ORIGIN, "f001": {**ORIGIN, "x_px": 60}},
                "join": [{**JOIN, "shift_px": (0, 70)}],
            },
            "positions-contradict",
        ),
        ({"dorp": []}, "unknown-option"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(plain, entries, code):
    with refused(OptionError, code):
        corrected(plain[1], **entries)


def test_corrections_that_leave_nothing_are_refused(plain):
    _, before = plain
    every = [names_of(p.first, p.second) for p in before.pairs]
    with refused(RegistrationError, "nothing-placed"):
        corrected(before, strike=every)
