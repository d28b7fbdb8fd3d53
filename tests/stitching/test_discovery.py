"""Frames of which nothing is known."""

import numpy as np
import pytest

from napari_semsr.core import RegistrationError, run
from napari_semsr.core.acquisition import Acquisition
from napari_semsr.stitching.discovery import (
    Agreement,
    UnplacedFramesError,
    find_likely_grids,
    grow_layout,
    match_frames,
)
from napari_semsr.stitching.flat_field import estimate_initial_flat
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.layout import Overlap
from napari_semsr.stitching.nominal import find_overlapping_pairs
from napari_semsr.stitching.solve import solve_mosaic
from napari_semsr.stitching.state import StitchOptions
from tests.refusals import refused
from tests.stitching import scans

TRUTH = np.array([[0.0, 0.0], [0.0, 70.0], [68.0, 3.0], [71.0, 74.0]])


def joint(first, second, weight, wrong=(0, 0)):
    shift = TRUTH[second] - TRUTH[first] + wrong
    return Overlap(first, second, tuple(shift.tolist()), weight)


def judge(index, place, positions):
    """Full marks at the true place only."""
    base = np.flatnonzero(np.isfinite(positions[:, 0]))[0]
    true = TRUTH[index] - TRUTH[base] + positions[base]
    return float(np.abs(true - place).max() < 3)


def test_grow_takes_what_agrees_with_all_frames_and_leaves_out_what_nothing_holds():
    joints = [joint(0, 1, 9.0), joint(0, 2, 7.0), joint(2, 3, 6.5)]
    found = grow_layout(4, [*joints, joint(1, 3, 12.0, wrong=(20, 5))], judge)
    assert np.allclose(found - found[0], TRUTH)
    found = grow_layout(4, [joint(0, 1, 9.0), joint(2, 3, 3.0)], judge)
    assert np.isfinite(found[:2]).all()
    assert np.isnan(found[2:]).all()
    assert np.isnan(grow_layout(4, [joint(0, 1, 3.0)], judge)).all()


def test_small_round_frames_are_placed_by_their_images_alone():
    how = {"side": 96, "overlap": 0.22, "jitter": 3, "flat": scans.round_flat(96)}
    scan = scans.cut_scan(scans.texture((480, 480), 2), known="nothing", **how)
    solution = run(solve_mosaic(scan.acquisition))
    assert solution.is_placed.all()
    assert scans.errors(solution.positions_px, scan.truth)[1] < 0.15


def test_a_scan_without_detail_that_occurs_once_is_refused():
    y, x = np.indices((400, 400)) / 9.0
    scene = 0.5 + 0.2 * np.sin(y) * np.sin(x)
    scan = scans.cut_scan(scene, side=96, known="nothing", overlap=0.3, sigma=2)
    with refused(RegistrationError, "ambiguous"):
        run(solve_mosaic(scan.acquisition))


ORDERS = [
    ((3, 4), "row", "top-left"),
    ((3, 4), "serpentine", "bottom-right"),
    ((3, 4), "column", "top-left"),
    ((5, 2), "column-serpentine", "top-right"),
    ((5, 2), "row", "bottom-left"),
]


@pytest.mark.parametrize(("grid", "order", "first"), ORDERS)
def test_the_grid_that_frames_were_taken_in_is_the_likeliest(grid, order, first):
    how = {"side": 96, "overlap": 0.15, "jitter": 3, "grid": grid}
    how |= {"order": order, "first": first}
    scan = scans.cut_scan(scans.texture((520, 520), 4), known="nothing", **how)
    prepared = CorrectedFrames(
        scan.acquisition, estimate_initial_flat(scan.acquisition)
    )
    best = find_likely_grids(scan.acquisition, match_frames(prepared))[0]
    assert (best.grid, best.order, best.first) == (grid, order, first)
    assert 3 <= best.neighbours <= best.of == 2 * grid[0] * grid[1] - sum(grid)


@pytest.mark.parametrize("known", ["grid", "grid-overlap"])
@pytest.mark.parametrize(("grid", "order", "first"), ORDERS[1:])
def test_a_refused_order_names_the_one_that_places_the_frames(
    grid, order, first, known
):
    how = {"side": 96, "overlap": 0.25, "jitter": 2, "grid": grid, "known": known}
    scene = scans.texture((520, 520), 4)
    scan = scans.cut_scan(scene, order=order, first=first, **how)
    stated = scan.acquisition.replace(order="row", first="top-left")
    with pytest.raises(UnplacedFramesError) as refused:
        run(solve_mosaic(stated))
    best = refused.value.grids[0]
    assert f"{grid[0]}x{grid[1]}, order {order}, first {first}" in str(refused.value)
    typed = StitchOptions(grid=best.grid, order=best.order, first=best.first)
    solution = run(solve_mosaic(stated, typed))
    assert scans.errors(solution.positions_px, scan.truth)[1] < 0.2


def test_foreign_frames_suggest_no_grid():
    rng = np.random.default_rng(3)
    frames = rng.integers(0, 65535, (12, 96, 96)).astype(np.uint16)
    acquisition = Acquisition(frames, tuple("abcdefghijkl"))
    prepared = CorrectedFrames(acquisition, estimate_initial_flat(acquisition))
    assert not find_likely_grids(acquisition, match_frames(prepared))


def agreement_of(acquisition, positions):
    prepared = CorrectedFrames(acquisition, estimate_initial_flat(acquisition))
    pairs = find_overlapping_pairs(positions, acquisition.frame_shape)
    return Agreement.measure(prepared, positions, pairs)


def test_misfits_are_foreign_or_misplaced_frames_alone(square_scan):
    data = square_scan.acquisition.frames.copy()
    other = scans.texture(data.shape[1:], 77) * square_scan.flat * scans.FULL
    data[4] = np.clip(2000 + other, 0, 65535)
    acquisition = square_scan.acquisition.replace(frames=data)
    positions = square_scan.truth.copy()
    positions[8] -= (9, 14)
    found = agreement_of(acquisition, positions)
    assert sorted(found.find_misfits(9)) == [4, 8]
    assert found.compute_fractions(9, without=[4, 8])[[0, 1, 2, 3, 5, 6, 7]].min() > 0.7


def test_share_says_nothing_where_there_is_no_detail():
    pairs = np.array([[0, 1], [1, 2]])
    flat = Agreement(pairs, np.zeros(2), np.full(2, 1000.0), np.full(2, 1000.0))
    # frames that differ by noise alone
    assert flat.noise == pytest.approx(1)
    assert np.isnan(flat.compute_fractions(3)).all()
    assert flat.find_misfits(3) == []
