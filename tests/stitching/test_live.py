"""Frames that are placed one after another, as a microscope takes them."""

import numpy as np
import pytest

from napari_semsr.core.progress import run
from napari_semsr.core.tiling import Box
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
        live.place(live.add(acquisition.names[number], corner))
        if count in settle_at:
            run(live.settle())
    return live


@pytest.mark.parametrize("order", ["as taken", "shuffled"])
def test_frames_after_a_solution_are_as_exact(square_scan, order):
    numbers = list(range(9))
    if order == "shuffled":
        numbers = np.random.default_rng(2).permutation(9).tolist()
    live = placed_live(square_scan, numbers, settle_at=(5,))
    assert live.placed.all()
    _, rms = scans.errors(live.positions, square_scan.truth[numbers])
    assert rms < 0.1  # 0.03 to 0.05 px on other seeds


def test_frames_without_positions_are_placed_by_their_images(square_scan):
    live = placed_live(square_scan, range(9), stated=False, settle_at=(4, 6))
    assert live.placed.all()
    _, rms = scans.errors(live.positions, square_scan.truth)
    assert rms < 0.1


def test_frames_lie_as_stated_until_the_first_solution(square_scan):
    live = placed_live(square_scan, range(3))
    assert not live.placed.any()
    assert live.provisional == {0, 1, 2}
    stated = square_scan.acquisition.nominal_px[:3]
    assert np.array_equal(live.positions - live.positions[0], stated - stated[0])


def test_only_what_came_or_moved_is_fused_again(square_scan):
    live = placed_live(square_scan, range(9), settle_at=(6,))
    live.replace(8)
    for index in live.changed():
        live.mark_fused(index)
    assert live.changed() == []
    live.replace(8)
    assert live.place(8)
    assert 8 in live.changed()
    assert len(live.changed()) < 4
    live.positions[2] += 0.5
    assert 2 in live.changed()


def test_a_frame_that_is_written_again_is_read_again(square_scan):
    frames = [square_scan.acquisition.read(k) for k in range(9)]
    live = LivePlacement(frames.__getitem__, (128, 128), frames[0].dtype)
    right, frames[4] = frames[4], np.roll(frames[4], 7, axis=1)
    for index, corner in enumerate(square_scan.acquisition.nominal_px):
        live.place(live.add(str(index), corner))
        if index in (3, 7):
            run(live.settle())
    frames[4] = right
    live.replace(4)
    assert live.place(4)
    _, rms = scans.errors(live.positions, square_scan.truth)
    assert rms < 0.1


def test_the_mosaic_so_far_shows_the_frames(square_scan):
    live = placed_live(square_scan, range(9), settle_at=(9,))
    corner = np.floor(np.nanmin(live.positions, axis=0)).astype(int)
    plan = live.plan((int(corner[0]), int(corner[1])), (300, 300))
    image, count = plan.block(Box.of((300, 300)))
    assert (count > 0).mean() > 0.8
    assert np.isfinite(image[count > 0]).all()


def test_a_stage_that_is_turned_is_followed():
    turn = np.deg2rad(6)
    stage = ((np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn)))
    scan = scans.cut_scan(scans.texture((640, 640)), grid=(3, 4), stage=stage, seed=6)
    live = placed_live(scan, range(12), settle_at=(8,))
    assert live.placed.all()
    _, rms = scans.errors(live.positions, scan.truth)
    assert rms < 0.1
