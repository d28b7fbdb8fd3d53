"""The stage model and the pixel size that follows from it."""

import re

import numpy as np
import pytest
from skimage.transform import AffineTransform

from napari_semsr.core import RegistrationError, run
from napari_semsr.stitching import solve_mosaic
from napari_semsr.stitching.solution import StageAxes, fit_stage_axes, fit_stage_map
from napari_semsr.stitching.verify import estimate_pixel_size
from tests.refusals import refused
from tests.stitching import scans

GRID = np.array([[r * 90.0, c * 80.0] for r in range(4) for c in range(5)])


def test_fit_stage_recovers_scale_turn_and_scatter(rng):
    angle = np.deg2rad(1.5)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    solved = GRID @ (1.04 * turn).T + (7, -3)
    fit = fit_stage_map(GRID, solved)
    assert np.allclose(fit.matrix, 1.04 * turn, rtol=1e-6)
    assert np.allclose(fit.predict(GRID), solved)
    noisy = fit_stage_map(GRID, solved + rng.normal(0, 2, GRID.shape))
    assert noisy.scatter_px == pytest.approx(2 * np.sqrt(2), rel=0.3)


def test_fit_stage_ignores_outliers_and_by_shift_only_moves():
    solved = GRID + np.array([5.0, 5.0])
    solved[3] += 60
    solved[7] = np.nan
    fit = fit_stage_map(GRID, solved)
    assert np.allclose(fit.predict(GRID)[0], GRID[0] + 5, atol=0.5)
    fit = fit_stage_map(GRID, 1.1 * GRID, "shift")
    assert np.array_equal(fit.matrix, np.eye(2))
    assert fit_stage_map(GRID, np.full(GRID.shape, np.nan)) is None


def test_pixel_size_from_stage_takes_both_axes_or_that_which_moved():
    solved = GRID / (10.0, 12.0)
    assert estimate_pixel_size(GRID, solved) == pytest.approx((10, 12))
    wrong = GRID.copy()
    wrong[[4, 9]] += (1500, -700)
    assert estimate_pixel_size(wrong, solved) == pytest.approx((10, 12), rel=0.01)
    row = np.array([[0.0, 0.0], [0.0, 900.0]])
    assert estimate_pixel_size(row, row / 9) == pytest.approx((9, 9))
    assert estimate_pixel_size(row[:1], row[:1]) is None
    assert estimate_pixel_size(np.zeros((3, 2)), np.eye(3)[:, :2]) is None


@pytest.mark.parametrize(
    ("axes", "how"),
    [
        (((1, 0), (0, -1)), "x mirrored"),
        pytest.param(((-1, 0), (0, 1)), "y mirrored", marks=pytest.mark.broad),
        pytest.param(((-1, 0), (0, -1)), "x and y mirrored", marks=pytest.mark.broad),
        pytest.param(((0, 1), (1, 0)), "x and y swapped", marks=pytest.mark.broad),
        (((0, 1), (-1, 0)), "x and y swapped, then x mirrored"),
        pytest.param(
            ((0, -1), (1, 0)),
            "x and y swapped, then y mirrored",
            marks=pytest.mark.broad,
        ),
        pytest.param(
            ((0, -1), (-1, 0)),
            "x and y swapped, then both mirrored",
            marks=pytest.mark.broad,
        ),
    ],
)
def test_axes_that_run_otherwise_are_found_and_told(
    square_scan, square_solution, axes, how
):
    stated = square_scan.acquisition.nominal_px @ np.linalg.inv(axes).T
    scan = square_scan.acquisition.replace(nominal_px=stated)
    solution = run(solve_mosaic(scan))
    assert np.allclose(solution.positions_px, square_solution.positions_px, atol=1e-3)
    (warning,) = solution.warnings
    fit = f"[0-4] of 9 frames fit .* whereas 9 frames fit with .* instead, {how}"
    assert re.search(fit, warning)


def test_axes_of_frames_in_a_row_are_found(scene):
    scan = scans.cut_scan(scene, grid=(1, 4))
    mirrored = scan.acquisition.replace(
        nominal_px=scan.acquisition.nominal_px * (1, -1)
    )
    solution = run(solve_mosaic(mirrored))
    assert solution.is_placed.all()
    assert scans.errors(solution.positions_px, scan.truth)[1] < 0.1
    assert "4 frames fit with the axes used instead, x mirrored" in solution.warnings[0]


def axes_matrix(angle_deg=0.0, scale=1.0, shear=0.0):
    """From stated to camera px, ``(y, x)``, by the parts of skimage."""
    turn = AffineTransform(rotation=np.deg2rad(angle_deg)).params[:2, :2]
    matrix = scale * turn @ [[1, shear], [0, 1]]
    return matrix[::-1, ::-1]


def values(axes):
    return axes.angle_deg, axes.scale, axes.shear


@pytest.mark.parametrize(
    ("angle", "scale", "shear"),
    [
        (0, 1, 0),
        (0.5, 1, 0),
        (-8, 0.95, 0.03),
        (30, 1.25, 0),
        (135, 0.8, -0.1),
        (-179, 1, 0),
    ],
)
def test_fit_axes_reads_angle_scale_and_shear(angle, scale, shear):
    matrix = axes_matrix(angle, scale, shear)
    found = fit_stage_axes(GRID, GRID @ matrix.T + (40, 7), 100)
    assert np.allclose(found.matrix, matrix, atol=1e-6)
    assert values(found) == pytest.approx((angle, scale, shear), abs=1e-4)
    assert found.has_deviation == (abs(np.deg2rad(angle)) > 0.02)
    # the stage's x axis, one step to the right, is seen below it for a positive angle
    y, _ = matrix @ (0, 1)
    assert np.sign(y) == np.sign(np.round(angle, 3))


def test_fit_axes_ignores_wrong_positions_and_does_not_take_jitter_for_a_turn(rng):
    matrix = axes_matrix(12, 1.1)
    solved = GRID @ matrix.T
    wrong = GRID.copy()
    wrong[[1, 6, 7, 12, 13, 19]] += rng.uniform(-3000, 3000, (6, 2))
    found = fit_stage_axes(wrong, solved, 100)
    assert values(found) == pytest.approx((12, 1.1, 0), abs=0.01)
    surely = [
        fit_stage_axes(GRID, GRID + rng.uniform(-8, 8, GRID.shape), 100).has_deviation
        for _ in range(100)
    ]
    assert sum(surely) <= 2
    assert fit_stage_axes(GRID, rng.uniform(0, 400, GRID.shape), 100) is None


@pytest.mark.parametrize("flip", [(1, 1), (1, -1), (-1, 1)])
@pytest.mark.parametrize("angle", [3, 100])
def test_fit_axes_holds_with_two_positions_in_five_wrong(rng, angle, flip):
    matrix = axes_matrix(angle) @ np.diag(flip)
    wrong = GRID.copy()
    some = rng.choice(len(GRID), 8, replace=False)
    wrong[some] += rng.uniform(-3000, 3000, (8, 2))
    found = fit_stage_axes(wrong, GRID @ matrix.T + (40, 7), 100)
    assert np.allclose(found.matrix, matrix, atol=0.01)


@pytest.mark.parametrize("frames", [[0, 1], [0, 1, 5], range(5), range(0, 20, 5)])
def test_fit_axes_of_a_line_or_few_frames_leaves_the_shear_open(frames):
    some = GRID[list(frames)]
    found = fit_stage_axes(some, some @ axes_matrix(-6, 0.9).T, 100)
    assert values(found) == (pytest.approx(-6), pytest.approx(0.9), None)
    assert found.has_deviation == (
        len(some) > 2
    )  # of one joint it may be a stage's error
    assert fit_stage_axes(some[:1], some[:1], 100) is None


def test_fit_axes_tells_mirrored_axes_apart():
    for flip, how, turn in (((1, -1), "x", -170), ((-1, 1), "y", 10)):
        matrix = axes_matrix(10) @ np.diag(flip)
        found = fit_stage_axes(GRID, GRID @ matrix.T, 100)
        assert found.angle_deg == pytest.approx(turn)
        assert found.description == f"{how} mirrored and a rotation of 10.0 degrees"


@pytest.mark.parametrize(
    "parts",
    [
        (0.5, 1, 0),
        (8, 1, 0),
        pytest.param((-25, 1.1, 0.05), marks=pytest.mark.broad),
        (0, 0.75, 0),
    ],
)
def test_turned_and_scaled_axes_are_used_and_reported(scene, parts):
    scan = scans.cut_scan(scene, jitter=0, seed=3)
    stated = scan.acquisition.nominal_px @ np.linalg.inv(axes_matrix(*parts)).T
    solution = run(solve_mosaic(scan.acquisition.replace(nominal_px=stated)))
    assert scans.errors(solution.positions_px, scan.truth)[1] < 0.03
    found = values(solution.stage_to_camera)
    assert found == pytest.approx(parts, abs=0.02)
    told = [text for text in solution.warnings if "stage axes" in text]
    assert len(told) == (parts[0] != 0.5)
    shown = r"overlaps indicate a (rotation of .* degrees|scale of 0.750)"
    assert all(re.search(shown, text) for text in told)


def test_stage_to_camera_needs_positions_and_a_pixel_size_for_its_scale(square_scan):
    scan = square_scan.acquisition
    stated = scan.nominal_px @ np.linalg.inv(axes_matrix(5)).T
    in_nm = scan.replace(nominal_px=None, nominal_nm=20 * stated, grid=None)
    solution = run(solve_mosaic(in_nm))
    assert solution.stage_to_camera.angle_deg == pytest.approx(5, abs=3)
    assert solution.stage_to_camera.scale is None
    solution = run(solve_mosaic(scan.replace(nominal_px=None)))
    assert solution.stage_to_camera is None


def test_positions_of_other_frames_are_no_other_axes(square_scan, rng):
    places = square_scan.acquisition.nominal_px[rng.permutation(9)]
    solution = run(solve_mosaic(square_scan.acquisition.replace(nominal_px=places)))
    assert not solution.has_sufficient_placement
    assert "axes" not in " ".join(solution.warnings)


def test_positions_that_lie_in_one_place_are_refused(square_scan):
    nominal = square_scan.acquisition.nominal_px
    for factor, spread in ((0, "0"), (1e-3, "0.18")):
        scan = square_scan.acquisition.replace(nominal_px=factor * nominal)
        with refused(RegistrationError, "positions-invalid", match=f" {spread} px "):
            run(solve_mosaic(scan))


def test_a_pixel_by_the_stage_that_is_less_than_an_atom_is_not_taken(square_scan):
    scan = square_scan.acquisition.replace(nominal_px=None)
    for nm, size in ((20, 20), (0.02, None)):
        stated = scan.replace(nominal_nm=square_scan.acquisition.nominal_px * nm)
        solution = run(solve_mosaic(stated))
        told = " ".join(solution.warnings)
        assert ("0.02 nm, which is smaller than an atom" in told) == (size is None)
        assert solution.pixel_size_nm == (size and pytest.approx((size, size), rel=0.1))


TURNED = "a rotation of 8.0 degrees"
SCALED = "a scale of 1.100"
UNEVEN = "unequal scales along both axes"


@pytest.mark.parametrize(
    ("parts", "doubt", "how", "differ"),
    [
        ((8, 1.1, 0.05), 0.0, f"{TURNED}, {SCALED} and a shear of 0.050", True),
        ((8, 1.1, 0.05), 0.06, f"{TURNED} and {SCALED}", True),
        ((8, 1.1, 0.05), 0.3, UNEVEN, False),
        ((8, 1.1, 0.05), np.inf, f"{TURNED}, {SCALED} and a shear of 0.050", False),
        ((0, 1.019, 0), 0.0, UNEVEN, False),
        ((0, 1.021, 0), 0.0, "a scale of 1.021", True),
        ((-1.2, 1.0, 0), 0.0, "a rotation of -1.2 degrees", True),
    ],
)
def test_axes_are_described_by_what_is_beyond_doubt(parts, doubt, how, differ):
    axes = StageAxes(axes_matrix(*parts), np.full(2, doubt), True)
    assert axes.description == how
    assert axes.has_deviation == differ
    unsized = StageAxes(axes.matrix, axes.doubt, False, is_sized=False)
    assert (unsized.scale, unsized.shear) == (None, None)
    assert "scale of" not in unsized.description
    assert "shear" not in unsized.description
    swapped = axes.compose(np.array([[0.0, 2.0], [1.0, 0.0]]))
    assert swapped.matrix == pytest.approx(axes.matrix @ [[0, 2], [1, 0]])
    assert swapped.doubt == pytest.approx(np.array([1, 2]) * doubt)
