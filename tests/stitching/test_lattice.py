"""Periodic samples: solved, or reported; never silently wrong."""

import itertools
from functools import partial

import numpy as np
import pytest

from napari_semsr.core import RegistrationError, run
from napari_semsr.stitching import StitchOptions, solve_mosaic
from tests.refusals import refused
from tests.stitching import scans

PITCH = 10.7


def farthest(solution, scan):
    """Largest error of a placed frame in px, after the mean of all."""
    error, _ = scans.errors(solution.positions_px, scan.truth)
    return float(np.nanmax(np.hypot(*error.T)))


def test_disorder_decides_and_a_perfect_lattice_is_refused():
    # the stage errs by up to 8 px, three quarters of a period
    how = {"grid": (2, 2), "side": 112, "overlap": 0.34, "jitter": 8}
    how["flat"] = scans.square_flat(112)
    ordered, perfect = (
        scans.cut_scan(scans.lattice((420, 420), PITCH, disorder=share), **how)
        for share in (0.05, 0.0)
    )
    solution = run(solve_mosaic(ordered.acquisition))
    assert farthest(solution, ordered) < 0.2
    assert not solution.warnings
    with refused(RegistrationError, "periodic"):
        run(solve_mosaic(perfect.acquisition))


def test_a_perfect_lattice_is_solved_where_the_error_of_the_stage_is_known():
    scene = scans.lattice((320, 320), 20, 3)
    how = {"grid": (2, 2), "side": 112, "overlap": 0.34, "jitter": 1.5, "seed": 3}
    scan = scans.cut_scan(scene, **how)
    with refused(RegistrationError, "periodic", match="max-shift-px.* 5 px"):
        run(solve_mosaic(scan.acquisition))
    solution = run(solve_mosaic(scan.acquisition, StitchOptions(max_shift_px=1.5)))
    assert farthest(solution, scan) < 0.2


def test_axes_turned_by_more_than_half_a_period_are_found():
    scene = scans.lattice((420, 420), 16, 2, disorder=0.1)
    scan = scans.cut_scan(scene, side=112, overlap=0.34, jitter=0, seed=2)
    stated = scan.acquisition.nominal_px @ np.linalg.inv(stage_of(9)).T  # 12 px
    solution = run(solve_mosaic(scan.acquisition.replace(nominal_px=stated)))
    assert scans.errors(solution.positions_px, scan.truth)[1] < 0.1
    assert solution.stage_to_camera.angle_deg == pytest.approx(9, abs=0.1)


def grating(pitch, degrees):
    y, x = np.indices((420, 420))
    along = x * np.cos(np.deg2rad(degrees)) + y * np.sin(np.deg2rad(degrees))
    return 0.5 + 0.3 * np.cos(2 * np.pi * along / pitch)


@pytest.mark.quick(1)
@pytest.mark.parametrize(("pitch", "degrees"), [(PITCH, 0), (17, 55)])
def test_a_grating_is_placed_by_the_images_across_and_as_stated_along(pitch, degrees):
    scene = grating(pitch, degrees)
    flat = scans.square_flat(112)
    scan = scans.cut_scan(scene, side=112, overlap=0.34, jitter=3, flat=flat, seed=1)
    solution = run(solve_mosaic(scan.acquisition, StitchOptions(max_shift_px=3)))
    assert solution.is_placed.all()
    normal = np.array([np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))])
    across, _ = scans.errors(solution.positions_px, scan.truth)
    assert np.abs(across @ normal).max() < 0.3
    along, _ = scans.errors(solution.positions_px, scan.acquisition.nominal_px)
    assert np.abs(along @ (normal[1], -normal[0])).max() < 0.05
    warning = next(one for one in solution.warnings if one.code == "lines-only")
    assert "the nominal positions are used along the lines" in warning
    assert solution.stage is None  # of what it was not compared with
    assert solution.residual_px < 0.1
    assert 0.3 < np.nanmax(solution.sigma_px) < 3  # along, by the error across


@pytest.mark.parametrize(("pitch", "most"), [(7, 3), (20, None)])
def test_a_grating_is_refused_if_the_stage_may_err_by_half_a_period(pitch, most):
    how = {"grid": (2, 2), "side": 96, "overlap": 0.34, "jitter": 3, "seed": 4}
    scan = scans.cut_scan(grating(pitch, 20), **how)
    with refused(RegistrationError, "periodic", match="max-shift-px"):
        run(solve_mosaic(scan.acquisition, StitchOptions(max_shift_px=most)))


def test_where_part_of_a_scan_holds_lines_all_that_images_decide_is_right():
    _, x = np.indices((420, 420))
    drawn = np.where(x < 160, grating(22, 60), grating(22, 130))
    how = {"overlap": 0.34, "jitter": 3, "seed": 101, "sigma": 3}
    scan = scans.cut_scan(drawn, grid=(3, 3), side=112, **how)
    solution = run(solve_mosaic(scan.acquisition, StitchOptions(max_shift_px=3)))
    assert solution.is_placed.all()
    slopes = np.gradient(drawn)
    error = solution.positions_px - scan.truth
    for first, second in itertools.combinations(range(9), 2):
        low = np.maximum(*scan.truth[[first, second]]).astype(int)
        high = np.minimum(*scan.truth[[first, second]]).astype(int) + 112
        if (high - low < 12).any():
            continue
        here = slice(low[0], high[0]), slice(low[1], high[1])
        slope = np.stack([part[here].ravel() for part in slopes])
        moved = (error[second] - error[first]) @ slope
        power = np.linalg.eigvalsh(slope @ slope.T)[1]
        assert np.sqrt(moved @ moved / power) < 0.3, (first, second)


@pytest.mark.parametrize("known", ["positions", "grid"])
def test_rows_that_lines_alone_join_are_placed_as_stated_or_not_at_all(known):
    y, _ = np.indices((420, 420))
    between = (y > 84) & (y < 150)
    scene = np.where(between, grating(28, 95), scans.texture((420, 420), 5))
    how = {"grid": (3, 3), "side": 112, "overlap": 0.34, "jitter": 2, "seed": 5}
    scan = scans.cut_scan(scene, known=known, **how)
    if known == "grid":
        with refused(RegistrationError, "lines-only"):
            run(solve_mosaic(scan.acquisition))
        return
    solution = run(solve_mosaic(scan.acquisition, StitchOptions(max_shift_px=2)))
    assert solution.is_placed.all()
    assert farthest(solution, scan) < 2
    assert [warning.code for warning in solution.warnings] == ["lines-only"]


def hexagonal(pitch):
    y, x = np.indices((420, 420))
    waves = [
        np.cos(2 * np.pi * (x * np.cos(turn) + y * np.sin(turn)) / pitch)
        for turn in np.deg2rad((0, 120, 240))
    ]
    return 0.5 + 0.12 * np.sum(waves, axis=0)


def stage_of(degrees, scale=1.0, *, mirrored=False):
    """Map for ``(y, x)`` from stated to camera px."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return scale * turn @ np.diag([1, -1 if mirrored else 1])


SQUARE = partial(scans.lattice, (420, 420), 16)
ORDERED = partial(SQUARE, 4, disorder=0.02)
HEXAGONAL = partial(hexagonal, 14)
# periodic scans, and stages that are turned, scaled or mirrored to them
SIBLINGS = {
    "half a period": (SQUARE, (2, 2), stage_of(6), "positions"),
    "a whole period": (SQUARE, (2, 2), stage_of(12), "positions"),
    "as stated": (SQUARE, (2, 2), stage_of(0), "positions"),
    "lines": (partial(grating, 17, 10), (2, 2), stage_of(5), "positions"),
    "hexagonal": (HEXAGONAL, (3, 3), stage_of(4), "positions"),
    "scaled": (SQUARE, (3, 3), stage_of(0, 1.1), "positions"),
    "mirrored": (SQUARE, (3, 3), stage_of(5, mirrored=True), "positions"),
    "disorder": (ORDERED, (3, 3), stage_of(4), "positions"),
    "grid": (SQUARE, (2, 2), stage_of(6), "grid"),
    "overlap": (SQUARE, (2, 2), stage_of(12), "grid-overlap"),
}


@pytest.mark.quick(1)
@pytest.mark.parametrize("name", SIBLINGS)
def test_a_periodic_sample_is_placed_right_or_refused(name):
    draw, grid, stage, known = SIBLINGS[name]
    how = {"side": 112, "overlap": 0.34, "jitter": 0, "seed": 2}
    scan = scans.cut_scan(draw(), grid=grid, stage=stage, known=known, **how)
    try:
        solution = run(solve_mosaic(scan.acquisition))
    except RegistrationError:
        return
    assert solution.is_placed.all()
    assert farthest(solution, scan) < 1
