"""Fusion: independent of how the mosaic is cut, honest where no frame reaches."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from napari_semsr.core import Box, RegistrationError
from napari_semsr.stitching import StitchOptions, plan_fusion
from tests.stitching import scans


def whole(plan):
    return plan.block(Box(0, plan.shape[0], 0, plan.shape[1]))


@pytest.fixture(scope="module")
def plan(square_scan, square_solution):
    return plan_fusion(square_scan.acquisition, square_solution)


@pytest.mark.parametrize("blend", ["feather", "seam"])
def test_block_does_not_depend_on_the_cut(square_scan, square_solution, blend):
    options = StitchOptions(blend=blend)
    plan = plan_fusion(square_scan.acquisition, square_solution, options)
    image, coverage = whole(plan)
    for box in (Box(0, 40, 0, 60), Box(77, 141, 100, 219), Box(250, 260, 3, 299)):
        part, count = plan.block(box)
        assert np.array_equal(part, image[box.slices], equal_nan=True)
        assert np.array_equal(count, coverage[box.slices])


def test_mosaic_is_the_scene_in_any_process(plan, square_scan, square_solution, scene):
    image, coverage = whole(plan)
    copy = pickle.loads(pickle.dumps(plan))  # noqa: S301 - our own bytes
    assert np.array_equal(whole(copy)[0], image, equal_nan=True)
    offset = (square_scan.truth - square_solution.positions_px).mean(axis=0)
    side = max(image.shape)
    true = scans.cut(np.pad(scene, ((0, 80), (0, 80))), offset, side)
    true = true[: image.shape[0], : image.shape[1]]
    inside = coverage > 0
    gain = (image[inside] * true[inside]).sum() / (true[inside] ** 2).sum()
    left = image[inside] / gain - true[inside]
    assert left.std() < 1.2 * 5 / 255 / 0.8
    assert np.array_equal(np.isnan(image), ~inside)
    assert coverage.max() >= 4
    assert not inside.all()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("hole", [None, np.nan, np.inf])
def test_a_constant_scene_stays_constant(square_scan, square_solution, hole, turned):
    flat = square_solution.flat
    gains, offsets = square_solution.gains, square_solution.offsets
    data = 1000 * gains[:, None, None] * flat.flat + flat.dark
    data += offsets[:, None, None]
    if hole is not None:
        data[:, 10::45, 15::31] = hole
        data[4] = hole
    acquisition = square_scan.acquisition.replace(frames=data)
    turns = np.full((9, 2), 0.01 if turned else 0)
    plan = plan_fusion(acquisition, replace(square_solution, turns=turns))
    image, coverage = whole(plan)
    assert np.allclose(image[coverage > 0], 1000, rtol=1e-4 if turned else 1e-5)
    assert np.array_equal(np.isnan(image), coverage == 0)
    assert coverage.max() >= 3


def test_frames_left_out_and_other_scans_are_not_fused(square_scan, square_solution):
    positions = square_solution.positions_px.copy()
    positions[8] = np.nan
    left = replace(square_solution, positions_px=positions)
    _, coverage = whole(plan_fusion(square_scan.acquisition, left))
    corner = np.round(square_solution.positions_px[8]).astype(int) + 100
    assert coverage[tuple(corner)] == 0
    fewer = replace(square_solution, positions_px=square_solution.positions_px[:4])
    with pytest.raises(RegistrationError, match="9 frames, but holds 4"):
        plan_fusion(square_scan.acquisition, fewer)
    nothing = replace(square_solution, positions_px=np.full((9, 2), np.nan))
    with pytest.raises(RegistrationError, match="at least one placed frame"):
        plan_fusion(square_scan.acquisition, nothing)


def test_seams_are_below_the_noise(plan, square_solution):
    image, coverage = whole(plan)
    across = np.diff(image, axis=1)
    edge = np.diff(coverage.astype(int), axis=1) != 0
    edge &= (coverage[:, 1:] > 0) & (coverage[:, :-1] > 0)
    inner = ~edge & (coverage[:, 1:] > 0) & (coverage[:, :-1] > 0)
    step = abs(np.nanmean(across[edge]) - np.nanmean(across[inner]))
    assert step < 0.25 * square_solution.noise
    assert np.nanstd(across[edge]) < 1.1 * np.nanstd(across[inner])
