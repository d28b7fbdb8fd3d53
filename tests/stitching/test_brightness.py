"""Automatic brightness: a gain and an offset of each frame."""

from dataclasses import replace

import numpy as np
import pytest

from napari_semsr.core import Box
from napari_semsr.core.progress import run
from napari_semsr.stitching import (
    StitchOptions,
    plan_fusion,
    plan_mosaic_halves,
    solve_mosaic,
)
from napari_semsr.stitching.flat_field import (
    create_uniform_flat_field,
    estimate_initial_flat,
)
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.nominal import find_overlapping_pairs
from napari_semsr.stitching.shading import (
    COARSE_KNOTS,
    FINE_KNOTS,
    compare_overlap_blocks,
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


def brightened(scan, gains=1.0, offsets=0.0, *, dtype=np.float32):
    """A scan whose frames have other gains and offsets."""
    count = len(scan.truth)
    gains = np.broadcast_to(gains, count)[:, None, None]
    offsets = np.broadcast_to(offsets, count)[:, None, None]
    frames = read_all(scan) * gains + offsets * scans.FULL
    if np.dtype(dtype).kind == "u":
        top = np.iinfo(dtype).max
        frames = np.clip(np.rint(frames / (2 * scans.FULL) * top), 0, top)
    return replace(
        scan, acquisition=scan.acquisition.replace(frames=frames.astype(dtype))
    )


def lit(scan, *, match_gain=True):
    """Correct frames that lie where they should."""
    options = StitchOptions(match_gain=match_gain)
    begun = CorrectedFrames(scan.acquisition, estimate_initial_flat(scan.acquisition))
    state = State(scan.acquisition, options, begun, scan.truth, True)
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


@pytest.mark.parametrize("kind", ["gains", "offsets", "both"])
@pytest.mark.parametrize("flat", ["even", "square"])
def test_gains_and_offsets_are_taken_off(scene, kind, flat):
    field = None if flat == "even" else scans.square_flat(128)
    scan = scans.cut_scan(scene, flat=field, seed=3, dark=0.0)
    scan = brightened(
        scan,
        1.0 if kind == "offsets" else GAINS,
        0.0 if kind == "gains" else OFFSETS,
    )
    prepared = lit(scan)
    assert left_over(prepared, scan) < 1
    pairs = find_overlapping_pairs(scan.truth, (128, 128))
    assert measure_remaining_shading(prepared, scan.truth, pairs) < 0.01
    # beside what all frames have in common, each has its own gain
    ratio = np.log(prepared.gains / (1.0 if kind == "offsets" else GAINS))
    assert np.std(ratio) < 0.02


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_offsets_are_taken_off_whole_numbers(scene, dtype):
    scan = brightened(
        scans.cut_scan(scene, seed=5, dark=0.0), 0.9, OFFSETS, dtype=dtype
    )
    assert left_over(lit(scan), scan) < 1


def test_offsets_are_taken_off_round_fields(scene):
    scan = scans.cut_scan(scene, flat=scans.round_flat(128), overlap=0.36, seed=4)
    scan = brightened(scan, 1.0, OFFSETS)
    flat = estimate_initial_flat(scan.acquisition)
    assert not flat.valid[:16, :16].any()  # no light reaches the corners
    assert flat.dark == pytest.approx(2000 + np.median(OFFSETS) * scans.FULL, rel=0.03)
    assert left_over(lit(scan), scan) < 1


@pytest.mark.parametrize("count", [2, 3])
def test_few_frames_are_matched(scene, count):
    scan = scans.cut_scan(scene, grid=(1, count), seed=6, dark=0.0)
    scan = brightened(scan, GAINS[1 : 1 + count], OFFSETS[1 : 1 + count])
    assert left_over(lit(scan), scan) < 0.4


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


@pytest.mark.parametrize("corner", [0.65, 0.9, 0.97])
def test_shading_that_bends_across_overlaps_is_measured(scene, corner):
    flat = scans.square_flat(128, corner)
    scan = scans.cut_scan(scene, flat=flat, seed=3)
    prepared = CorrectedFrames(
        scan.acquisition, create_uniform_flat_field((128, 128), 2000.0, "none")
    )
    pairs = find_overlapping_pairs(scan.truth, (128, 128))
    clean = (scan.clean * flat + 2000).astype(np.float32)
    noiseless = prepared.copy_with_changes(scan.acquisition.replace(frames=clean))
    blocks = compare_overlap_blocks(noiseless, scan.truth, pairs)
    true = np.sqrt(np.mean(np.diff(blocks.values) ** 2)) / blocks.values.mean()
    assert measure_remaining_shading(prepared, scan.truth, pairs) == pytest.approx(
        true, rel=0.25
    )


@pytest.mark.parametrize("kind", ["steady", "offsets", "both"])
@pytest.mark.parametrize("corner", [0.65, 1.0])
def test_a_gradient_of_the_sample_stays(scene, kind, corner):
    slope = 1 + 0.5 * (np.arange(scene.shape[1]) / 400 - 0.5)
    flat = scans.square_flat(112, corner)
    scan = scans.cut_scan(scene * slope, grid=(3, 4), side=112, flat=flat, seed=7)
    if kind != "steady":
        gains = np.resize(GAINS, 12) if kind == "both" else 0.6
        scan = brightened(scan, gains, np.resize(OFFSETS, 12))
    assert left_over(lit(scan), scan) < 1.5


@pytest.mark.parametrize("corner", [0.65, 1.0])
def test_light_from_one_side_is_evened_out(scene, corner):
    flat = scans.square_flat(112, corner, tilt=0.3)
    scan = scans.cut_scan(scene, grid=(3, 4), side=112, flat=flat, seed=7)
    scan = brightened(scan, 0.6, np.resize(OFFSETS, 12))
    assert left_over(lit(scan), scan) < 3


def test_a_gradient_that_automatic_gains_leave_open_is_named(scene):
    flat = scans.square_flat(128, tilt=0.3)
    scan = brightened(scans.cut_scan(scene, flat=flat, seed=3), GAINS, OFFSETS)
    solution = run(solve_mosaic(scan.acquisition))
    (warning,) = solution.warnings
    assert "may be real or due to uneven illumination" in warning


def test_field_gains_and_sample_trade_a_slope(scene):
    shape, slope = (128, 128), np.array([0.002, -0.003])
    y, x = np.indices(shape)
    places = np.array([[20.0, 30.0], [25.0, 110.0]])
    field = np.exp(y * slope[0] + x * slope[1])
    gains = np.exp(places @ slope)
    rows, columns = np.indices(scene.shape)
    other = scene * np.exp(-rows * slope[0] - columns * slope[1])
    for place, gain in zip(places.astype(int), gains, strict=True):
        own = (slice(place[0], place[0] + 128), slice(place[1], place[1] + 128))
        assert np.allclose(gain * field * other[own], scene[own])


def test_frames_of_hardly_any_contrast_keep_their_gains(scene):
    faint = 0.5 + 0.02 * (scene - scene.mean())
    scan = brightened(scans.cut_scan(faint, seed=8, dark=0.0), 1.0, OFFSETS)
    prepared = lit(scan)
    # a step is an offset or a gain: hardly anything tells, and gains are mostly steady
    assert np.abs(np.log(prepared.gains)).max() < 0.1
    pairs = find_overlapping_pairs(scan.truth, (128, 128))
    assert measure_remaining_shading(prepared, scan.truth, pairs) < 0.01


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


@pytest.mark.broad
def test_halves_are_as_even_as_the_whole(scene):
    scan = scans.cut_scan(scene, overlap=0.55, seed=3, dark=0.0, grid=(3, 3))
    scan = brightened(scan, GAINS, OFFSETS)
    solution = run(solve_mosaic(scan.acquisition))
    whole = plan_fusion(scan.acquisition, solution)
    halves = run(plan_mosaic_halves(scan.acquisition, solution, whole))
    box = Box(0, whole.shape[0], 0, whole.shape[1])
    image = whole.compute_block(box)[0]
    for half in halves:
        apart = half.plan.compute_block(box)[0] - image
        apart = apart[np.isfinite(apart)]
        blocks = np.array([part.mean() for part in np.array_split(apart, 12)])
        assert np.abs(blocks).max() < 0.01 * np.nanmean(image)
