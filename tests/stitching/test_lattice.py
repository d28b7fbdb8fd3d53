"""Periodic samples: solved, or reported; never silently wrong."""

import itertools
from functools import partial

import numpy as np
import pytest

from napari_semsr.core import RegistrationError
from napari_semsr.core.progress import run
from napari_semsr.stitching import lines
from napari_semsr.stitching.layout import ShiftChoice, compute_periodic_layout
from napari_semsr.stitching.solve import solve_mosaic
from napari_semsr.stitching.state import StitchOptions
from tests.refusals import refused
from tests.stitching import scans

PITCH = 10.7


def solved(disorder, seed):
    scene = scans.lattice((420, 420), PITCH, seed, disorder=disorder)
    flat = scans.square_flat(112)
    # the stage errs by up to 8 px, three quarters of a period
    scan = scans.cut_scan(scene, side=112, overlap=0.34, jitter=8, flat=flat, seed=seed)
    return scan, run(solve_mosaic(scan.acquisition))


def farthest(solution, scan):
    """Largest error of a placed frame in px, after the mean of all."""
    error, _ = scans.errors(solution.positions_px, scan.truth)
    return float(np.nanmax(np.hypot(*error.T)))


def test_disorder_decides_and_a_perfect_lattice_is_refused():
    scan, solution = solved(0.05, 0)
    assert farthest(solution, scan) < 0.2
    assert not solution.warnings
    with refused(RegistrationError, "periodic"):
        solved(0.0, 0)


def test_a_perfect_lattice_is_solved_where_the_error_of_the_stage_is_known():
    scene = scans.lattice((320, 320), 20, 3)
    how = {"grid": (2, 2), "side": 112, "overlap": 0.34, "jitter": 1.5, "seed": 3}
    scan = scans.cut_scan(scene, **how)
    with refused(RegistrationError, "periodic", match="max-shift-px.* 5 px"):
        run(solve_mosaic(scan.acquisition))
    solution = run(solve_mosaic(scan.acquisition, StitchOptions(max_shift_px=1.5)))
    assert farthest(solution, scan) < 0.2


def test_steps_of_a_lattice_come_from_what_does_not_repeat_or_are_asked_for():
    how = {"side": 112, "overlap": 0.25, "jitter": 2, "seed": 1}
    scene = scans.lattice((420, 420), 24, 1, disorder=0.06)
    scan = scans.cut_scan(scene, known="grid", **how)
    solution = run(solve_mosaic(scan.acquisition))
    assert scans.errors(solution.positions_px, scan.truth)[1] < 0.1
    perfect = scans.lattice((420, 420), 24)
    scan = scans.cut_scan(perfect, known="grid", **how)
    with refused(RegistrationError, "periodic"):
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
        with refused(RegistrationError, "periodic"):
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


def across_and_along(solution, scan, degrees):
    """Errors of placed frames across lines, and how far they are off along, px."""
    normal = np.array([np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))])
    error, _ = scans.errors(solution.positions_px, scan.truth)
    moved, _ = scans.errors(solution.positions_px, scan.acquisition.nominal_px)
    return np.abs(error @ normal).max(), np.abs(moved @ (normal[1], -normal[0])).max()


@pytest.mark.parametrize(
    ("pitch", "degrees"),
    [
        (PITCH, 0),
        pytest.param(30, 10, marks=pytest.mark.broad),
        pytest.param(17, 55, marks=pytest.mark.broad),
        pytest.param(22, 90, marks=pytest.mark.broad),
    ],
)
def test_a_grating_is_placed_by_the_images_across_and_as_stated_along(pitch, degrees):
    scene = grating(pitch, degrees)
    flat = scans.square_flat(112)
    scan = scans.cut_scan(scene, side=112, overlap=0.34, jitter=3, flat=flat, seed=1)
    solution = run(solve_mosaic(scan.acquisition, StitchOptions(max_shift_px=3)))
    assert solution.is_placed.all()
    across, along = across_and_along(solution, scan, degrees)
    assert across < 0.3
    assert along < 0.05
    warning = next(one for one in solution.warnings if one.code == "lines-only")
    assert "the nominal positions are used along the lines" in warning
    assert solution.stage is None  # of what it was not compared with
    assert solution.residual_px < 0.1
    assert 0.3 < np.nanmax(solution.sigma_px) < 3  # along, by the error across


@pytest.mark.parametrize(
    ("pitch", "most", "values"),
    [
        (7, 3, r"\(7 px\).*max-shift-px.* 1\.8 px"),
        (20, None, "max-shift-px"),
    ],
)
def test_a_grating_is_refused_if_the_stage_may_err_by_half_a_period(
    pitch, most, values
):
    how = {"grid": (2, 2), "side": 96, "overlap": 0.34, "jitter": 3, "seed": 4}
    scan = scans.cut_scan(grating(pitch, 20), **how)
    with refused(RegistrationError, "periodic", match=values):
        run(solve_mosaic(scan.acquisition, StitchOptions(max_shift_px=most)))


def test_lines_that_fit_nowhere_near_their_positions_are_refused(monkeypatch):
    monkeypatch.setattr(
        lines, "linearise_pairs", lambda *_: []
    )  # no pair can be refined
    how = {"grid": (2, 2), "side": 96, "overlap": 0.34, "jitter": 1, "seed": 4}
    scan = scans.cut_scan(grating(PITCH, 0), **how)
    with refused(RegistrationError, "lines-only") as refusal:
        run(solve_mosaic(scan.acquisition, StitchOptions(max_shift_px=2)))
    assert refusal.value.code == "lines-only"


def halves(left, right):
    """Draw one scene in the first columns of a scan, and another beyond."""
    _, x = np.indices((420, 420))
    return np.where(x < 160, left, right)


@pytest.mark.parametrize(
    "scene",
    [
        pytest.param(lambda: halves(grating(22, 60), grating(22, 130)), id="turned"),
        pytest.param(
            lambda: halves(grating(22, 30), scans.lattice((420, 420), 22)),
            id="lattice",
            marks=pytest.mark.broad,
        ),
    ],
)
def test_where_part_of_a_scan_holds_lines_all_that_images_decide_is_right(scene):
    drawn = scene()
    how = {
        "grid": (3, 3),
        "side": 112,
        "overlap": 0.34,
        "jitter": 3,
        "seed": 101,
        "sigma": 3,
    }
    scan = scans.cut_scan(drawn, **how)
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


def test_lines_of_one_direction_ask_for_positions_where_there_are_none():
    flat = scans.square_flat(112)
    scan = scans.cut_scan(
        grating(30, 10), side=112, overlap=0.34, flat=flat, seed=1, known="grid"
    )
    with refused(RegistrationError, "lines-only"):
        run(solve_mosaic(scan.acquisition))


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


def siblings():
    """Periodic scans, and stages that are turned, scaled or mirrored to them."""
    square, hexagon = partial(scans.lattice, (420, 420), 16), partial(hexagonal, 14)
    cases = {
        "half a period, 4 frames": (square, (2, 2), stage_of(6)),
        "a whole period, 4 frames": (square, (2, 2), stage_of(12)),
        "half a period, row": (square, (1, 3), stage_of(6)),
        "as stated, 4 frames": (square, (2, 2), stage_of(0)),
        "lines, turned": (partial(grating, 17, 10), (2, 2), stage_of(5)),
    }
    for name, case in cases.items():
        yield pytest.param(*case, "positions", id=name)
    cases = {
        f"square, {degrees} degrees": (square, (3, 3), stage_of(degrees))
        for degrees in (2, 4, 5, 6, 8, 10, 12, 15)
    }
    for degrees in (4, 8):
        cases[f"hexagonal, {degrees} degrees"] = hexagon, (3, 3), stage_of(degrees)
        lines = partial(grating, 17, 55), (3, 3), stage_of(degrees)
        cases[f"lines, {degrees} degrees"] = lines
    for scale in (0.9, 0.95, 1.05, 1.1):
        cases[f"scale {scale}"] = square, (3, 3), stage_of(0, scale)
    for degrees in (0, 5):
        stage = stage_of(degrees, mirrored=True)
        cases[f"mirrored, {degrees} degrees"] = square, (3, 3), stage
    for disorder in (0.02, 0.04):
        scene = partial(square, 4, disorder=disorder)
        for degrees in (4, 6):
            name = f"disorder {disorder}, {degrees} degrees"
            cases[name] = scene, (3, 3), stage_of(degrees)
    scene = partial(square, 4, disorder=0.3)
    cases["mirrored, disorder 0.3"] = scene, (3, 3), stage_of(4, mirrored=True)
    for name, case in cases.items():
        yield pytest.param(*case, "positions", id=name, marks=pytest.mark.broad)
    for degrees, scale in ((0, 1), (6, 1), (12, 1), (0, 1.08)):
        stage, name = stage_of(degrees, scale), f"grid, {degrees} degrees, {scale}"
        for known in ("grid", "grid-overlap"):
            case = square, (2, 2), stage, known
            yield pytest.param(*case, id=f"{known}, {name}", marks=pytest.mark.broad)


@pytest.mark.parametrize(("draw", "grid", "stage", "known"), [*siblings()])
def test_a_periodic_sample_is_placed_right_or_refused(draw, grid, stage, known):
    how = {"side": 112, "overlap": 0.34, "jitter": 0, "seed": 2}
    scan = scans.cut_scan(draw(), grid=grid, stage=stage, known=known, **how)
    try:
        solution = run(solve_mosaic(scan.acquisition))
    except RegistrationError:
        return
    assert solution.is_placed.all()
    assert farthest(solution, scan) < 1


@pytest.mark.parametrize("order", ["serpentine", "column"])
def test_a_grid_in_another_order_makes_no_mosaic_of_a_perfect_lattice(order):
    scene = scans.lattice((320, 320), 18)
    how = {"side": 96, "overlap": 0.36, "jitter": 0, "seed": 2}
    scan = scans.cut_scan(scene, grid=(2, 2), order=order, known="grid-overlap", **how)
    with pytest.raises(RegistrationError):
        run(solve_mosaic(scan.acquisition.replace(order="row")))


@pytest.mark.slow
@pytest.mark.parametrize("disorder", [0.0, 0.01, 0.03], ids=str)
def test_lattice_is_never_wrong(disorder):
    for seed in range(20):
        try:
            scan, solution = solved(disorder, seed)
        except RegistrationError:
            continue
        assert farthest(solution, scan) < 1, seed


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
    layout, ambiguous = compute_periodic_layout(4, weighed, nominal, improbable)
    assert not ambiguous
    assert np.allclose(layout.positions[3] - layout.positions[0], (50, 50), atol=0.1)
    nominal = np.array([[0.0, 0.0], [0.0, 50.0]])
    weighed = [choice(0, 1, [(0, 60), (0, 49)], [0, 1.0])]
    layout, ambiguous = compute_periodic_layout(2, weighed, nominal, improbable)
    assert ambiguous == {(0, 1)}
    assert np.allclose(layout.positions[1] - layout.positions[0], (0, 49))
