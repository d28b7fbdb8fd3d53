"""Frames that are placed one after another, as a microscope takes them."""

import numpy as np
import pytest

from napari_semsr.core.grids import Box
from napari_semsr.core.progress import run
from napari_semsr.stitching import live as live_module
from napari_semsr.stitching.live import LivePlacement
from napari_semsr.stitching.refine import LinearisedShift
from tests.stitching import scans


def placed_live(scan, order, *, stated=True, settle_at=()):
    """Add frames in an order; the whole is solved after some of them."""
    acquisition = scan.acquisition
    live = LivePlacement(
        lambda index: acquisition.read(order[index]),
        acquisition.frame_shape,
        acquisition.dtype,
    )
    for count, number in enumerate(order, start=1):
        corner = acquisition.nominal_px[number] if stated else None
        live.place_frame(live.add_frame(acquisition.names[number], corner))
        if count in settle_at:
            run(live.solve_all_frames())
    return live


@pytest.mark.parametrize("order", ["as taken", "shuffled"])
def test_frames_after_a_solution_are_as_exact(square_scan, order):
    numbers = list(range(9))
    if order == "shuffled":
        numbers = np.random.default_rng(2).permutation(9).tolist()
    live = placed_live(square_scan, numbers, settle_at=(5,))
    assert live.is_placed.all()
    _, rms = scans.errors(live.positions, square_scan.truth[numbers])
    assert rms < 0.1  # 0.03 to 0.05 px on other seeds


def test_frames_without_positions_are_placed_by_their_images(square_scan):
    live = placed_live(square_scan, range(9), stated=False, settle_at=(4, 6))
    assert live.is_placed.all()
    _, rms = scans.errors(live.positions, square_scan.truth)
    assert rms < 0.1


def test_frames_lie_as_stated_until_the_first_solution(square_scan):
    live = placed_live(square_scan, range(3))
    assert not live.is_placed.any()
    assert live.provisional == {0, 1, 2}
    stated = square_scan.acquisition.nominal_px[:3]
    assert np.array_equal(live.positions - live.positions[0], stated - stated[0])


def test_only_what_came_or_moved_is_fused_again(square_scan):
    live = placed_live(square_scan, range(9), settle_at=(6,))
    live.reload_frame(8)
    for index in live.list_changed_frames():
        live.mark_fused(index)
    assert live.list_changed_frames() == []
    live.reload_frame(8)
    assert live.place_frame(8)
    assert 8 in live.list_changed_frames()
    assert len(live.list_changed_frames()) < 4
    live.positions[2] += 0.5
    assert 2 in live.list_changed_frames()


def test_a_frame_that_is_written_again_is_read_again(square_scan):
    frames = [square_scan.acquisition.read(k) for k in range(9)]
    live = LivePlacement(frames.__getitem__, (128, 128), frames[0].dtype)
    right, frames[4] = frames[4], np.roll(frames[4], 7, axis=1)
    for index, corner in enumerate(square_scan.acquisition.nominal_px):
        live.place_frame(live.add_frame(str(index), corner))
        if index in (3, 7):
            run(live.solve_all_frames())
    frames[4] = right
    live.reload_frame(4)
    assert live.place_frame(4)
    _, rms = scans.errors(live.positions, square_scan.truth)
    assert rms < 0.1


def test_frames_that_wait_are_placed_after_those_near_them(square_scan):
    # the last row first: it overlaps none of the frames that are placed
    live = placed_live(square_scan, [0, 1, 2, 3, 8, 7, 6, 5, 4], settle_at=(4,))
    while live.retry_pending():
        pass
    assert live.list_unplaced() == []
    _, rms = scans.errors(
        live.positions, square_scan.truth[[0, 1, 2, 3, 8, 7, 6, 5, 4]]
    )
    assert rms < 0.1


def test_a_solution_takes_some_of_many_frames_that_wait():
    scan = scans.cut_scan(scans.texture((420, 420)), grid=(6, 6), side=72, seed=5)
    live = placed_live(scan, range(36), settle_at=(36,))
    assert len(live.solution.positions_px) == 32
    assert live.list_unplaced() == []


def test_the_mosaic_so_far_shows_the_frames(square_scan):
    live = placed_live(square_scan, range(9), settle_at=(9,))
    corner = np.floor(np.nanmin(live.positions, axis=0)).astype(int)
    plan = live.plan_mosaic((int(corner[0]), int(corner[1])), (300, 300))
    image, count = plan.compute_block(Box.from_shape((300, 300)))
    assert (count > 0).mean() > 0.8
    assert np.isfinite(image[count > 0]).all()


def test_a_stage_that_is_turned_is_followed():
    turn = np.deg2rad(6)
    stage = ((np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn)))
    scan = scans.cut_scan(scans.texture((640, 640)), grid=(3, 4), stage=stage, seed=6)
    live = placed_live(scan, range(12), settle_at=(8,))
    assert live.is_placed.all()
    _, rms = scans.errors(live.positions, scan.truth)
    assert rms < 0.1


def a_row_of_frames(count, hops, monkeypatch):
    """Place frames of a row at their pairs' shifts; note how many are solved for."""
    monkeypatch.setattr(live_module, "_HOPS", hops)
    solve, sizes = live_module.solve_steps, []

    def noted(size, *how):
        sizes.append(size)
        return solve(size, *how)

    monkeypatch.setattr(live_module, "solve_steps", noted)
    live = LivePlacement(lambda _: None, (64, 64), np.dtype(np.uint16))
    for index in range(count):
        live.add_frame(f"{index}", None)
        live.positions[index] = 0, 40 * index
        live._references.set_position(index, live.positions[index])  # noqa: SLF001
        if index:
            link(live, index - 1, index, 0.0)
    return live, sizes


def link(live, first, second, x_px):
    """State that the second frame of a pair lies farther to the right."""
    step, information = np.array([0, x_px]), 100 * np.eye(2)
    live._links.store_shift(LinearisedShift(first, second, information, step, 1.0))  # noqa: SLF001


def test_frames_far_from_a_new_one_are_not_solved_for(monkeypatch):
    sizes = {}
    for count in (30, 60):
        live, seen = a_row_of_frames(count, 2, monkeypatch)
        link(live, count - 2, count - 1, 0.3)
        live._optimise_neighbourhood(count - 1)  # noqa: SLF001
        moved = live.positions[:, 1] - 40 * np.arange(count)
        sizes[count] = sum(seen)
        # as a whole, with no place fixed, the mean stays
        assert moved[-1] - moved[-2] == pytest.approx(0.3, abs=0.01)
        assert np.abs(np.diff(moved)[:-1]).max() < 0.01
    assert sizes[60] == sizes[30]


@pytest.mark.parametrize("hops", [1, 4])
def test_a_loop_that_closes_moves_all_that_it_holds(monkeypatch, hops):
    moved = []
    for reach in (hops, 60):
        live, _ = a_row_of_frames(24, reach, monkeypatch)
        link(live, 0, 23, -0.5)
        live._optimise_neighbourhood(23)  # noqa: SLF001
        place = live.positions[:, 1] - 40 * np.arange(24)
        moved.append(place - place.mean())
    assert np.ptp(moved[1]) > 0.4
    np.testing.assert_allclose(moved[0], moved[1], atol=0.02)
