"""Laws of heights that are joined: where they lie, and what is taken from which."""

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core import Acquisition, Box, RegistrationError, run
from napari_semsr.jobs import SimulateOptions
from napari_semsr.simulation.scan import run_scan_simulation
from napari_semsr.stitching import find_sharpest, plan_focus, solve_mosaic
from tests.refusals import refused

HEIGHTS = 5


@pytest.fixture(scope="module")
def scan():
    sample = {"phantom": "fracture", "relief_nm": 600.0, "pitch_nm": 900.0, "seed": 4}
    frames = {"frames_grid": (2, 2), "frame_px": 120, "overlap": 0.4, "jitter_px": 3.0}
    # light that interferes reverses contrasts from one height to the next
    light = {"field": "square", "focal_series": HEIGHTS, "optics": "gaussian"}
    return run_scan_simulation(None, SimulateOptions(**sample, **frames, **light))


@pytest.fixture(scope="module")
def taken(scan):
    return list(scan.simulate_height_scans(HEIGHTS))


def acquisition(scan, frames):
    return Acquisition(frames, scan.names, nominal_px=scan.nominal_px)


@pytest.fixture(scope="module")
def joined(scan, taken):
    heights = [acquisition(scan, step.frames) for step in taken]
    number = find_sharpest(heights)
    solution = run(solve_mosaic(heights[number]))
    z_nm = [step.focus_nm for step in taken]
    plan, shifts = run(plan_focus(heights, z_nm, number, solution))
    return heights, number, solution, plan, shifts


def on_mosaic(scan, plane, plan, shift):
    """What lies on the mosaic's pixels: a plane of the scene, as drawn."""
    scene, corner = scan.scene, scan.true_px.min(axis=0) + shift
    smooth = ndimage.spline_filter(plane)
    rows, columns = np.indices(plan.shape, dtype=float)
    return scene.sample(smooth, rows + corner[0], columns + corner[1])


def misfit(image, wanted):
    """RMS of what gain and offset leave, over the scatter of what is wanted."""
    known = np.isfinite(image)
    x, y = image[known].astype(float), wanted[known]
    gain, offset = np.polyfit(x, y, 1)
    return np.sqrt(np.mean((gain * x + offset - y) ** 2)) / y.std()


def test_holes_make_no_height_sharp(scan, taken, joined):
    blurred = taken[-1].frames.astype(float)
    blurred[:, 5::20, 3::30] = np.nan
    heights = [*joined[0][:-1], acquisition(scan, blurred)]
    assert find_sharpest(heights) == joined[1]
    slope = np.linspace(0.2, 1.8, blurred.shape[2])  # is no detail
    heights[0] = acquisition(scan, slope * taken[0].frames)
    assert find_sharpest(heights) == joined[1]
    heights[0] = acquisition(scan, np.full_like(blurred, np.nan))
    assert find_sharpest(heights) == joined[1]


def test_heights_are_laid_where_they_are(taken, joined):
    _, number, _, _, shifts = joined
    assert number in (1, 2, 3)  # the middle of the relief
    for step, found in zip(taken, shifts, strict=True):
        true = np.subtract(step.shift_px, taken[number].shift_px)
        assert found.z_nm == step.focus_nm
        assert np.hypot(*np.subtract(found.shift_px, true)) < 0.25
        assert found.scatter_px < 1


def test_the_mosaic_is_sharper_than_that_of_any_height(scan, taken, joined):
    _, number, _, plan, _ = joined
    whole = Box.from_shape(plan.shape)
    width = scan.scene.fwhm_px * scan.scene.oversampling / 2.355
    focused = ndimage.gaussian_filter(scan.scene.sharp, width)
    wanted = on_mosaic(scan, focused, plan, taken[number].shift_px)
    image, coverage, _ = plan.compute_block(whole)
    single = [misfit(one.compute_block(whole)[0], wanted) for one in plan.plans]
    assert misfit(image, wanted) < 0.9 * min(single)
    assert np.array_equal(coverage > 0, np.isfinite(image))


def test_heights_follow_the_relief(scan, taken, joined):
    _, number, _, plan, _ = joined
    _, _, height = plan.compute_block(Box.from_shape(plan.shape))
    wanted = on_mosaic(scan, scan.scene.surface.height_nm, plan, taken[number].shift_px)
    known = np.isfinite(height)
    assert known.mean() > 0.7
    assert np.corrcoef(height[known], wanted[known])[0, 1] > 0.6
    assert np.median(np.abs(height - wanted)[known]) < 90
    assert plan.z_nm[0] <= height[known].min()
    assert height[known].max() <= plan.z_nm[-1]


def test_a_block_is_the_same_however_the_mosaic_is_cut(joined):
    plan = joined[3]
    whole = plan.compute_block(Box.from_shape(plan.shape))
    box = Box(50, 110, 60, 130)
    for part, all_of_it in zip(plan.compute_block(box), whole, strict=True):
        np.testing.assert_allclose(part, all_of_it[box.slices], rtol=2e-4)


def test_a_height_of_another_place_is_left_out(scan, joined, rng):
    heights, number, solution, _, _ = joined
    foreign = [frame[::-1].T for frame in heights[number].frames]
    foreign = acquisition(scan, np.stack(foreign))
    near = heights[number - 1]
    three = [near, heights[number], foreign]
    plan, shifts = run(plan_focus(three, [0.0, 100.0, 200.0], 1, solution))
    assert shifts[2].shift_px is None
    assert plan.z_nm == (0.0, 100.0)
    assert plan.solved_index == 1
    with refused(RegistrationError, "heights-unrelated"):
        run(plan_focus(three[1:], [0.0, 100.0], 0, solution))
