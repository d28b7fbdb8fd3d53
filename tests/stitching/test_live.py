"""Frames that are placed one after another, as a microscope takes them."""

import numpy as np

from napari_semsr.core.progress import run
from napari_semsr.stitching.live import LivePlacement
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


def test_frames_without_positions_are_placed_by_their_images(square_scan):
    live = placed_live(square_scan, range(9), stated=False, settle_at=(4, 6))
    assert live.is_placed.all()
    _, rms = scans.errors(live.positions, square_scan.truth)
    assert rms < 0.1


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


def test_a_stage_that_is_turned_is_followed():
    turn = np.deg2rad(6)
    stage = ((np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn)))
    scan = scans.cut_scan(scans.texture((640, 640)), grid=(3, 4), stage=stage, seed=6)
    live = placed_live(scan, range(12), settle_at=(8,))
    assert live.is_placed.all()
    _, rms = scans.errors(live.positions, scan.truth)
    assert rms < 0.1
