"""Halves of a scan: who is in which, and what they share."""

from dataclasses import replace

import numpy as np
import pytest

from napari_semsr.core import Box, RegistrationError, run
from napari_semsr.stitching import plan_fusion, solve_mosaic
from napari_semsr.stitching.fuse import plan_mosaic_halves, select_first_half_frames
from tests.refusals import refused
from tests.stitching import scans


@pytest.fixture(scope="module")
def scan(scene):
    flat = scans.square_flat(128)
    return scans.cut_scan(scene, flat=flat, overlap=0.55, flicker=0.05, seed=6)


@pytest.fixture(scope="module")
def solution(scan):
    return run(solve_mosaic(scan.acquisition))


@pytest.fixture(scope="module")
def whole(scan, solution):
    return plan_fusion(scan.acquisition, solution)


@pytest.fixture(scope="module")
def halves(scan, solution, whole):
    return run(plan_mosaic_halves(scan.acquisition, solution, whole))


def blocks(*plans):
    return [plan.compute_block(Box.from_shape(plan.shape)) for plan in plans]


def test_a_grid_is_split_as_a_checkerboard(whole, halves, solution):
    first = select_first_half_frames(whole).reshape(3, 3)
    assert np.array_equal(first, np.indices((3, 3)).sum(axis=0) % 2 == 0)
    assert sorted(halves[0].frames + halves[1].frames) == sorted(solution.names)
    assert [half.name for half in halves] == ["a", "b"]


def test_halves_share_the_grid_and_cover_together_what_all_cover(whole, halves):
    (image, count), (first, of_a), (second, of_b) = blocks(
        whole, *(half.plan for half in halves)
    )
    assert image.shape == first.shape == second.shape
    assert np.array_equal(np.isnan(first), of_a == 0)
    assert np.mean((of_a + of_b) == count) > 0.99
    both = (of_a > 0) & (of_b > 0)
    assert np.mean(both[count >= 2]) > 0.99
    # dark levels differ, which moves grey values; what one count means does not
    for part in (first, second):
        assert np.polyfit(image[both], part[both], 1)[0] == pytest.approx(1, abs=0.01)


def test_a_half_knows_nothing_of_the_other_frames(scan, solution, halves):
    taken = scan.acquisition
    frames = np.stack([taken.read(i) for i in range(len(taken))])
    rng = np.random.default_rng(0)
    others = [taken.names.index(name) for name in halves[1].frames]
    frames[others] = rng.permuted(frames[others], axis=1)
    changed = taken.replace(frames=frames)
    again = run(plan_mosaic_halves(changed, solution, plan_fusion(changed, solution)))
    (before, _), (after, _) = blocks(halves[0].plan, again[0].plan)
    assert np.array_equal(before, after, equal_nan=True)


def test_one_frame_has_no_halves(scan, solution, whole):
    positions = np.full_like(solution.positions_px, np.nan)
    positions[0] = 0
    alone = replace(solution, positions_px=positions)
    with refused(RegistrationError, "too-few-frames", match="got 1"):
        run(plan_mosaic_halves(scan.acquisition, alone, whole))


def test_scattered_frames_put_one_into_each_half(whole):
    positions = np.random.default_rng(0).uniform(0, 400, (24, 2))
    first = select_first_half_frames(
        replace(whole, positions=positions, shape=(560, 560))
    )
    counts = np.zeros((2, 560, 560), int)
    for number, (y, x) in zip(first.astype(int), np.rint(positions), strict=True):
        counts[number, int(y) : int(y) + 128, int(x) : int(x) + 128] += 1
    twice = counts.sum(axis=0) >= 2
    assert np.mean((counts > 0).all(axis=0)[twice]) > 0.9
