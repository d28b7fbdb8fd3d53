"""Corrections by hand: they are applied, and nothing else moves."""

import numpy as np
import pytest

from napari_semsr.core import OptionError, RegistrationError
from napari_semsr.core.progress import run
from napari_semsr.stitching import Corrections, StitchOptions
from napari_semsr.stitching.correct import check_corrections, correct_mosaic
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


@pytest.mark.parametrize("pairs", [[(3, 4), (1, 2)], [(4, 3), (2, 5)]], ids=str)
def test_two_wrong_joints_of_a_lattice_are_right_after_two_joins(lattice, pairs):
    scan, before = lattice
    assert set(np.flatnonzero(away(before, scan) > PERIOD / 2)) == {*WRONG}
    after = corrected(before, join=[join(scan, *pair) for pair in pairs])
    assert away(after, scan).max() < 0.1
    assert after.pairs_used == len(after.pairs)


def test_two_wrong_frames_of_a_lattice_are_right_after_they_are_placed(lattice):
    scan, before = lattice
    error = before.positions_px - scan.truth
    right = scan.truth + np.median(error, axis=0)
    place = {
        name: {"y_px": right[number, 0], "x_px": right[number, 1]}
        for name, number in zip(names_of(*WRONG), WRONG, strict=True)
    }
    after = corrected(before, place=place)
    assert away(after, scan).max() < 0.1
    numbers = [*WRONG]
    fixed = after.positions_px[numbers] - right[numbers]
    assert np.abs(fixed).max() < 0.05
    # nobody else moved by more than a tenth of a pixel
    others = np.delete(after.positions_px - before.positions_px, numbers, axis=0)
    assert np.abs(others).max() < 0.1


def test_frames_that_no_correction_concerns_keep_their_very_places(lattice):
    scan, before = lattice
    after = corrected(before, join=[join(scan, 3, 4)])
    same = (after.positions_px == before.positions_px).all(axis=1)
    assert same.sum() >= len(same) - 2
    assert not same[4]


def test_a_join_that_images_contradict_moves_one_frame_alone(plain):
    scan, before = plain
    after = corrected(before, join=[join(scan, 0, 1, (0, 30))])
    moved = after.positions_px - before.positions_px
    far = np.hypot(*(moved - np.median(moved, axis=0)).T)
    assert (far > 1).sum() == 1
    apart = after.positions_px[1] - after.positions_px[0]
    assert np.allclose(apart, scan.truth[1] - scan.truth[0] + (0, 30), atol=0.05)


def test_a_join_given_by_hand_is_met_to_a_tenth_of_a_pixel(plain):
    scan, before = plain
    after = corrected(before, join=[join(scan, 5, 6, (0.8, -0.6))])
    apart = after.positions_px[6] - after.positions_px[5]
    assert np.allclose(apart, scan.truth[6] - scan.truth[5] + (0.8, -0.6), atol=0.05)


def test_a_frame_is_placed_where_it_is_wanted_though_images_contradict(plain):
    _, before = plain
    wanted = before.positions_px[5] + (2.5, -1.5)
    place = {"f005": dict(zip(("y_px", "x_px"), wanted.tolist(), strict=True))}
    after = corrected(before, place=place)
    assert np.allclose(after.positions_px[5], wanted, atol=0.2)
    moved = np.delete(after.positions_px - before.positions_px, 5, axis=0)
    assert np.abs(moved).max() < 1.5


def test_a_struck_overlap_is_not_used_and_others_hold_the_frames(plain):
    scan, before = plain
    after = corrected(before, strike=[names_of(6, 5)])
    (pair,) = [p for p in after.pairs if (p.first, p.second) == (5, 6)]
    assert (pair.used, pair.reason) == (False, "struck by hand")
    assert away(after, scan).max() < 0.1
    assert after.pairs_used == before.pairs_used - 1


def test_the_overlaps_that_a_wrong_join_puts_out_of_use_count_with_their_misfit(plain):
    scan, before = plain
    after = corrected(before, join=[join(scan, 0, 1, (3, 4))])
    unused = [pair for pair in after.pairs if not pair.used]
    assert len(unused) == after.pairs_rejected > before.pairs_rejected
    ruined = [pair for pair in unused if pair.score > after.threshold]
    assert [pair.residual_px for pair in ruined] == pytest.approx(
        [5] * len(ruined), abs=0.2
    )
    # as well known as before
    sigma = {(pair.first, pair.second): pair.sigma_px for pair in before.pairs}
    for pair in ruined:
        assert pair.sigma_px == sigma[pair.first, pair.second]
    assert after.rejected_worst_px == max(pair.residual_px for pair in ruined)
    # the others keep their definition: they are over the overlaps used
    used = [p.residual_px for p in after.pairs if p.used and np.isfinite(p.sigma_px)]
    assert after.residual_worst_px <= max(used) < 1


def test_a_struck_overlap_keeps_its_misfit(plain):
    _, before = plain
    after = corrected(before, strike=[names_of(6, 5)])
    (pair,) = [p for p in after.pairs if (p.first, p.second) == (5, 6)]
    apart = after.positions_px[6] - after.positions_px[5]
    (former,) = [p for p in before.pairs if (p.first, p.second) == (5, 6)]
    misfit = np.hypot(*(former.shift_px - apart))
    assert pair.residual_px == pytest.approx(misfit, abs=1e-6)


def test_a_frame_whose_overlaps_are_all_struck_has_no_place(plain):
    _, before = plain
    own = [p for p in before.pairs if 0 in (p.first, p.second)]
    after = corrected(before, strike=[names_of(p.first, p.second) for p in own])
    assert not after.is_placed[0]
    assert after.is_placed.sum() == len(before.names) - 1
    (fault,) = after.left_out
    assert (fault.frame, fault.reason) == ("f000", "no remaining overlap connects it")


def test_a_dropped_frame_has_no_place_and_the_others_keep_theirs(plain):
    _, before = plain
    after = corrected(before, drop=["f005"])
    assert np.flatnonzero(~after.is_placed).tolist() == [5]
    others = np.delete(after.positions_px - before.positions_px, 5, axis=0)
    assert np.abs(others).max() < 0.1
    assert after.left_out[-1].reason == "left out by hand"
    assert not any("f005" in pair.reason for pair in after.pairs if pair.used)
    assert not any(5 in (p.first, p.second) for p in after.pairs if p.used)


def test_no_correction_is_no_change(plain):
    _, before = plain
    after = corrected(before)
    assert np.array_equal(after.positions_px, before.positions_px)
    assert after.pairs_used == before.pairs_used
    assert after.warnings == before.warnings


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


@pytest.mark.parametrize(
    ("entries", "code", "values"),
    [
        ({"drop": ["f099"]}, "frames-unknown", "f099; its 12 .* f000 to f011"),
        ({"drop": names_of(*range(11))}, "too-few-frames", "11"),
        ({"strike": [("f000", "f000")]}, "same-frame", "f000"),
        (
            {"join": [{"first": "f000", "second": "f001", "shift_px": (0, 1e9)}]},
            "out-of-range",
            r"1152 x 1152 px.* 0, 1e\+09 .*f000 and f001",
        ),
        (
            {"place": {"f003": {"y_px": -2000, "x_px": 1}}},
            "out-of-range",
            "-2000, 1 .*f003",
        ),
        (
            {"drop": ["f001"], "place": {"f001": {"y_px": 1, "x_px": 2}}},
            "corrections-contradict",
            "f001 .*drop.* place",
        ),
        (
            {
                "strike": [("f001", "f000")],
                "join": [{"first": "f000", "second": "f001", "shift_px": (0, 9)}],
            },
            "corrections-contradict",
            "f000 and f001 .* strike and join",
        ),
        (
            {
                "place": {
                    "f000": {"y_px": 0, "x_px": 0},
                    "f001": {"y_px": 0, "x_px": 60},
                },
                "join": [{"first": "f000", "second": "f001", "shift_px": (0, 70)}],
            },
            "positions-contradict",
            "3.33 px",
        ),
        (
            {"place": {"f000": {"y_px": float("nan"), "x_px": 1}}},
            "out-of-range",
            r"place\.f000\.y_px .* nan",
        ),
        ({"dorp": []}, "unknown-option", "drop"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(plain, entries, code, values):
    with refused(OptionError, code, match=values):
        corrected(plain[1], **entries)


def test_corrections_that_leave_nothing_are_refused(plain):
    _, before = plain
    every = [names_of(p.first, p.second) for p in before.pairs]
    with refused(RegistrationError, "nothing-placed"):
        corrected(before, strike=every)


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ({"place": {"f001": {"y_px": 1152, "x_px": -1152}}}, None),
        ({"place": {"f001": {"y_px": 0, "x_px": 1153}}}, "out-of-range"),
        ({"join": [{"first": "f001", "second": "f002", "shift_px": (-1153, 0)}]},
         "out-of-range"),
        ({"drop": names_of(*range(10))}, None),
        ({"drop": names_of(*range(11))}, "too-few-frames"),
        ({"strike": [("f000", "f012")]}, "frames-unknown"),
    ],
)  # fmt: skip
def test_corrections_are_within_the_length_of_all_frames(plain, entry, code):
    acquisition = plain[0].acquisition.replace(nominal_px=None)
    corrections = Corrections.parse(entry)
    if code is None:
        check_corrections(corrections, acquisition)
        return
    with refused(OptionError, code):
        check_corrections(corrections, acquisition)
