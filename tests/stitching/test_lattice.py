"""Periodic samples: solved, or reported; never silently wrong."""

import numpy as np
import pytest

from napari_semsr.core import RegistrationError
from napari_semsr.core.progress import run
from napari_semsr.stitching.layout import ShiftChoice, resolve
from napari_semsr.stitching.solve import solve_mosaic
from tests.stitching import scans

PITCH = 10.7


def solved(disorder, seed):
    scene = scans.lattice((420, 420), PITCH, seed, disorder=disorder)
    flat = scans.square_flat(112)
    # the stage errs by up to 8 px, three quarters of a period
    scan = scans.cut_scan(scene, side=112, overlap=0.34, jitter=8, flat=flat, seed=seed)
    return scan, run(solve_mosaic(scan.acquisition))


def test_disorder_decides_and_a_perfect_lattice_is_reported():
    scan, solution = solved(0.05, 0)
    assert scans.errors(solution.positions_px, scan.truth)[1] < 0.1
    assert not solution.warnings
    _, solution = solved(0.0, 0)
    assert any("repeats itself" in warning for warning in solution.warnings)
    assert any(pair.ambiguous for pair in solution.pairs)


def test_steps_of_a_lattice_come_from_what_does_not_repeat_or_are_asked_for():
    how = {"side": 112, "overlap": 0.25, "jitter": 2, "seed": 1}
    scene = scans.lattice((420, 420), 24, 1, disorder=0.06)
    scan = scans.cut_scan(scene, known="grid", **how)
    solution = run(solve_mosaic(scan.acquisition))
    assert scans.errors(solution.positions_px, scan.truth)[1] < 0.1
    perfect = scans.lattice((420, 420), 24)
    scan = scans.cut_scan(perfect, known="grid", **how)
    with pytest.raises(RegistrationError, match=r"repeats itself.*give the overlap"):
        run(solve_mosaic(scan.acquisition))
    # as the refusal advises
    scan = scans.cut_scan(perfect, known="grid-overlap", **how)
    solution = run(solve_mosaic(scan.acquisition))
    assert scans.errors(solution.positions_px, scan.truth)[1] < 4


@pytest.mark.parametrize(
    "disorder", [0.1, pytest.param(0.0, marks=pytest.mark.broad)], ids=str
)
def test_axes_turned_by_more_than_half_a_period_are_found_or_refused(disorder):
    scene = scans.lattice((420, 420), 16, 2, disorder=disorder)
    how = {"side": 112, "overlap": 0.34, "jitter": 0, "seed": 2}
    scan = scans.cut_scan(scene, **how)
    angle = np.deg2rad(9)  # 12 px from frame to frame
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    stated = scan.acquisition.nominal_px @ np.linalg.inv(turn).T
    turned = scan.acquisition.replace(nominal_px=stated)
    if not disorder:
        with pytest.raises(RegistrationError, match=r"repeats itself.*a period away"):
            run(solve_mosaic(turned))
        # of the images' axes a perfect one says nothing
        solution = run(solve_mosaic(scan.acquisition))
        assert scans.errors(solution.positions_px, scan.truth)[1] < 0.1
        assert solution.stage_to_camera is None
        return
    solution = run(solve_mosaic(turned))
    assert scans.errors(solution.positions_px, scan.truth)[1] < 0.1
    assert solution.stage_to_camera.angle_deg == pytest.approx(9, abs=0.1)


def grating(pitch, degrees):
    y, x = np.indices((420, 420))
    along = x * np.cos(np.deg2rad(degrees)) + y * np.sin(np.deg2rad(degrees))
    return 0.5 + 0.3 * np.cos(2 * np.pi * along / pitch)


@pytest.mark.broad
@pytest.mark.parametrize(("pitch", "degrees"), [(PITCH, 0), (30, 10), (17, 55)])
def test_a_perfect_grating_is_not_placed_worse_than_nominal(pitch, degrees):
    scene = grating(pitch, degrees)
    flat = scans.square_flat(112)
    scan = scans.cut_scan(scene, side=112, overlap=0.34, jitter=3, flat=flat, seed=1)
    solution = run(solve_mosaic(scan.acquisition))
    placed = solution.placed
    given = solution.positions_px[placed] - scan.acquisition.nominal_px[placed]
    assert placed.sum() > 4
    assert np.allclose(given, given[0])
    assert any("nominal positions are given" in told for told in solution.warnings)
    assert solution.stage is None  # of what it was not compared with
    assert solution.residual_px > 0.5  # as neighbours differ there, by their own shift


def test_lines_of_one_direction_ask_for_positions_where_there_are_none():
    flat = scans.square_flat(112)
    scan = scans.cut_scan(
        grating(30, 10), side=112, overlap=0.34, flat=flat, seed=1, known="grid"
    )
    with pytest.raises(RegistrationError, match="lines of one direction"):
        run(solve_mosaic(scan.acquisition))


@pytest.mark.slow
@pytest.mark.parametrize("disorder", [0.0, 0.01, 0.03], ids=str)
def test_lattice_is_never_silently_wrong(disorder):
    for seed in range(20):
        scan, solution = solved(disorder, seed)
        error, _ = scans.errors(solution.positions_px, scan.truth)
        wrong = np.nanmax(np.abs(error)) > 1
        assert not wrong or solution.warnings, seed


def improbable(choice, shift):
    return 6.0


def choice(first, second, shifts, doubt):
    values = np.array(shifts, float), np.array(doubt, float)
    return ShiftChoice(first, second, *values, 20.0)


def test_resolve_lets_several_pairs_decide_or_asks_the_stage_and_says_so():
    nominal = np.array([[0.0, 0.0], [0.0, 50.0], [50.0, 0.0], [50.0, 50.0]])
    weighed = [
        choice(0, 1, [(0, 50)], [0]),
        choice(0, 2, [(50, 0)], [0]),
        # neither pair is certain of frame 3, both together are
        choice(1, 3, [(50, 10), (50, 0)], [0, 4.0]),
        choice(2, 3, [(0, 50), (0, 60)], [0, 4.9]),
        choice(0, 3, [(50, 50), (50, 60)], [0, 4.9]),
    ]
    layout, ambiguous = resolve(4, weighed, nominal, improbable)
    assert not ambiguous
    assert np.allclose(layout.positions[3] - layout.positions[0], (50, 50), atol=0.1)
    nominal = np.array([[0.0, 0.0], [0.0, 50.0]])
    weighed = [choice(0, 1, [(0, 60), (0, 49)], [0, 1.0])]
    layout, ambiguous = resolve(2, weighed, nominal, improbable)
    assert ambiguous == {(0, 1)}
    assert np.allclose(layout.positions[1] - layout.positions[0], (0, 49))
