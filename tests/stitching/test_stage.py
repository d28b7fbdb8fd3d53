"""The stage model and the pixel size that follows from it."""

import numpy as np
import pytest

from napari_semsr.stitching.solution import fit_stage
from napari_semsr.stitching.verify import pixel_size_from_stage

GRID = np.array([[r * 90.0, c * 80.0] for r in range(4) for c in range(5)])


def test_fit_stage_recovers_scale_turn_and_scatter(rng):
    angle = np.deg2rad(1.5)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    solved = GRID @ (1.04 * turn).T + (7, -3)
    fit = fit_stage(GRID, solved)
    assert np.allclose(fit.matrix, 1.04 * turn, rtol=1e-6)
    assert np.allclose(fit.predict(GRID), solved)
    noisy = fit_stage(GRID, solved + rng.normal(0, 2, GRID.shape))
    assert noisy.scatter_px == pytest.approx(2 * np.sqrt(2), rel=0.3)


def test_fit_stage_ignores_outliers_and_by_shift_only_moves():
    solved = GRID + np.array([5.0, 5.0])
    solved[3] += 60
    solved[7] = np.nan
    fit = fit_stage(GRID, solved)
    assert np.allclose(fit.predict(GRID)[0], GRID[0] + 5, atol=0.5)
    fit = fit_stage(GRID, 1.1 * GRID, "shift")
    assert np.array_equal(fit.matrix, np.eye(2))
    assert fit_stage(GRID, np.full(GRID.shape, np.nan)) is None


def test_pixel_size_from_stage_takes_both_axes_or_that_which_moved():
    solved = GRID / (10.0, 12.0)
    assert pixel_size_from_stage(GRID, solved) == pytest.approx((10, 12))
    row = np.array([[0.0, 0.0], [0.0, 900.0]])
    assert pixel_size_from_stage(row, row / 9) == pytest.approx((9, 9))
    assert pixel_size_from_stage(row[:1], row[:1]) is None
    assert pixel_size_from_stage(np.zeros((3, 2)), np.eye(3)[:, :2]) is None
