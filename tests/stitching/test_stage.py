"""The stage model and the pixel size that follows from it."""

import re

import numpy as np
import pytest
from skimage.transform import AffineTransform

from napari_semsr.core import RegistrationError, run
from napari_semsr.stitching import solve_mosaic
from napari_semsr.stitching.nominal import fit_stage_axes
from napari_semsr.stitching.verify import estimate_pixel_size
from tests.refusals import refused
from tests.stitching import scans

GRID = np.array([[r * 90.0, c * 80.0] for r in range(4) for c in range(5)])


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
        (((0, 1), (-1, 0)), "x and y swapped, then x mirrored"),
    ],
)
def test_axes_that_run_otherwise_are_found_and_told(
    square_scan, square_solution, axes, how
):
    stated = square_scan.acquisition.nominal_px @ np.linalg.inv(axes).T
    solution = run(solve_mosaic(square_scan.acquisition.replace(nominal_px=stated)))
    assert np.allclose(solution.positions_px, square_solution.positions_px, atol=1e-3)
    (warning,) = solution.warnings
    fit = f"[0-4] of 9 frames fit .* whereas 9 frames fit with .* instead, {how}"
    assert re.search(fit, warning)


def axes_matrix(angle_deg=0.0, scale=1.0, shear=0.0):
    """From stated to camera px, ``(y, x)``, by the parts of skimage."""
    turn = AffineTransform(rotation=np.deg2rad(angle_deg)).params[:2, :2]
    matrix = scale * turn @ [[1, shear], [0, 1]]
    return matrix[::-1, ::-1]


def values(axes):
    return axes.angle_deg, axes.scale, axes.shear


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


@pytest.mark.parametrize("parts", [(0.5, 1, 0), (8, 1, 0), (0, 0.75, 0)])
def test_turned_and_scaled_axes_are_used_and_reported(scene, parts):
    scan = scans.cut_scan(scene, jitter=0, seed=3)
    stated = scan.acquisition.nominal_px @ np.linalg.inv(axes_matrix(*parts)).T
    solution = run(solve_mosaic(scan.acquisition.replace(nominal_px=stated)))
    assert scans.errors(solution.positions_px, scan.truth)[1] < 0.03
    assert values(solution.stage_to_camera) == pytest.approx(parts, abs=0.02)
    told = [text for text in solution.warnings if "stage axes" in text]
    assert len(told) == (parts[0] != 0.5)


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
