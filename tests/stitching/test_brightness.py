"""Automatic brightness: a gain and an offset of each frame."""

from dataclasses import replace

import numpy as np
import pytest

from napari_semsr.core import Box, run
from napari_semsr.stitching import StitchOptions, plan_fusion, solve_mosaic
from napari_semsr.stitching.frames import CorrectedFrames, estimate_initial_flat
from napari_semsr.stitching.nominal import find_overlapping_pairs
from napari_semsr.stitching.shading import (
    COARSE_KNOTS,
    FINE_KNOTS,
    measure_remaining_shading,
)
from napari_semsr.stitching.solve import update_shading
from napari_semsr.stitching.state import State
from tests.stitching import scans

# Of nine frames, in no order; offsets are shares of the full scale.
GAINS = np.array([1.0, 0.7, 1.3, 0.9, 1.5, 0.8, 1.2, 0.6, 1.1])
OFFSETS = np.array([0.0, 0.16, 0.31, 0.08, 0.2, 0.03, 0.27, 0.12, 0.06])


def read_all(scan):
    """Frames of a scan as they are, (N, Y, X)."""
    taken = scan.acquisition
    return np.stack([taken.read(n) for n in range(len(taken))]).astype(np.float32)


def brightened(scan, gains=1.0, offsets=0.0):
    """A scan whose frames have other gains and offsets."""
    count = len(scan.truth)
    gains = np.broadcast_to(gains, count)[:, None, None]
    offsets = np.broadcast_to(offsets, count)[:, None, None]
    frames = (read_all(scan) * gains + offsets * scans.FULL).astype(np.float32)
    return replace(scan, acquisition=scan.acquisition.replace(frames=frames))


def lit(scan):
    """Correct frames that lie where they should."""
    begun = CorrectedFrames(scan.acquisition, estimate_initial_flat(scan.acquisition))
    state = State(scan.acquisition, StitchOptions(), begun, scan.truth, True)
    state.positions = scan.truth.copy()
    for knots in (COARSE_KNOTS, FINE_KNOTS):
        update_shading(state, knots)
    return state.frames


def left_over(prepared, scan):
    """Difference from the scene, in % of its mean, that no gain and offset explains."""
    shown, true = [], []
    for index, clean in enumerate(scan.clean):
        image, weight = prepared.correct(index)
        shown.append(image[weight > 0])
        true.append(clean[weight > 0])
    place = np.repeat(np.arange(len(shown)), [len(part) for part in shown])
    shown, true = np.concatenate(shown), np.concatenate(true)
    fitted = np.polyval(np.polyfit(shown, true, 1), shown)
    means = np.bincount(place, fitted - true) / np.bincount(place)
    return 100 * np.std(means) / true.mean()


@pytest.mark.parametrize(("gains", "flat"), [(1.0, None), (GAINS, 0.65)], ids=str)
def test_gains_and_offsets_are_taken_off(scene, gains, flat):
    field = flat and scans.square_flat(128, flat)
    scan = scans.cut_scan(scene, flat=field, seed=3, dark=0.0)
    scan = brightened(scan, gains, OFFSETS)
    prepared = lit(scan)
    assert left_over(prepared, scan) < 1
    pairs = find_overlapping_pairs(scan.truth, (128, 128))
    assert measure_remaining_shading(prepared, scan.truth, pairs) < 0.01
    # beside what all frames have in common, each has its own gain
    assert np.std(np.log(prepared.gains / gains)) < 0.02


def test_a_mosaic_of_automatic_brightness_is_the_scene(scene):
    scan = brightened(scans.cut_scan(scene, seed=3, dark=0.0), GAINS, OFFSETS)
    solution = run(solve_mosaic(scan.acquisition))
    assert scans.errors(solution.positions_px, scan.truth)[1] < 0.1
    assert solution.remaining_shading_percent < 0.5
    assert not solution.warnings
    plan = plan_fusion(scan.acquisition, solution)
    image, coverage = plan.compute_block(Box(0, plan.shape[0], 0, plan.shape[1]))
    at = np.round((scan.truth - solution.positions_px).mean(axis=0)).astype(int)
    true = scene[at[0] :, at[1] :][: image.shape[0], : image.shape[1]]
    inside = coverage > 0
    shown = np.polyval(np.polyfit(image[inside], true[inside], 1), image[inside])
    assert (shown - true[inside]).std() < 1.3 * 5 / 255 / 0.6
    assert image[inside].min() >= 0


def test_what_remains_is_measured_in_the_overlaps(scene):
    steps = 0.05 * (-1.0) ** np.arange(9)
    scan = scans.cut_scan(scene, seed=3, dark=0.0, sigma=15.0)
    scan = brightened(scan, 1.0, 0.1 + steps)
    options = StitchOptions(match_gain=False)
    solution = run(solve_mosaic(scan.acquisition, options))
    level = scan.clean.mean() / scans.FULL + 0.1
    # frames that share a side are 0.1 apart, those that share a corner are alike
    assert 8 < solution.remaining_shading_percent < 100 * 0.1 / level
    assert any("match the brightness" in text for text in solution.warnings)


def test_a_gradient_of_the_sample_stays(scene):
    slope = 1 + 0.5 * (np.arange(scene.shape[1]) / 400 - 0.5)
    flat = scans.square_flat(112)
    scan = scans.cut_scan(scene * slope, grid=(3, 4), side=112, flat=flat, seed=7)
    scan = brightened(scan, np.resize(GAINS, 12), np.resize(OFFSETS, 12))
    assert left_over(lit(scan), scan) < 1.5


def test_a_gradient_that_automatic_gains_leave_open_is_named(scene):
    flat = scans.square_flat(128, tilt=0.3)
    scan = brightened(scans.cut_scan(scene, flat=flat, seed=3), GAINS, OFFSETS)
    solution = run(solve_mosaic(scan.acquisition))
    (warning,) = solution.warnings
    assert "may be real or due to uneven illumination" in warning


def test_lost_grey_values_do_not_bend_gains(scene):
    scan = scans.cut_scan(scene, seed=9, dark=0.0)
    frames = read_all(scan) * GAINS[:, None, None]
    ends = np.quantile(frames, (0.05, 0.85))
    frames = np.clip(frames, *ends).astype(np.float32)
    clipped = replace(scan, acquisition=scan.acquisition.replace(frames=frames))
    prepared = lit(clipped)
    assert np.std(np.log(prepared.gains / GAINS)) < 0.02
    assert prepared.find_clipped(4).mean() > 0.1
    assert lit(scan).find_clipped(4).mean() < 0.01
