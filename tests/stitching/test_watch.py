"""Troubles of a scan are named as they arise, and none where there is none."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core.acquisition import Acquisition
from napari_semsr.core.errors import get_error_code
from napari_semsr.core.progress import run
from napari_semsr.stitching.flat_field import create_uniform_flat_field
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.live import LivePlacement
from napari_semsr.stitching.watch import ScanMonitor
from tests.stitching import scans

FROM = 8  # frame from which something is wrong


@pytest.fixture(scope="module")
def scan():
    flat = scans.square_flat(112)
    scene = scans.texture((460, 460), seed=4)
    return scans.cut_scan(scene, grid=(3, 4), side=112, flat=flat, seed=11)


def named(scan, change=lambda number, frame: frame, *, unplaced=False):
    """Follow a scan whose frames are changed; give what is named, by frame."""
    acquisition, found = scan.acquisition, {}
    frames = [change(k, acquisition.read(k).astype(float)) for k in range(12)]
    frames = [np.clip(np.rint(frame), 0, 65535).astype(np.uint16) for frame in frames]
    live = LivePlacement(frames.__getitem__, acquisition.frame_shape, frames[0].dtype)
    watch = ScanMonitor(live)
    for number, frame in enumerate(frames):
        live.add_frame(acquisition.names[number], acquisition.nominal_px[number])
        doubts = watch.check_blank(number, frame)
        live.place_frame(number)
        live.retry_pending(2)
        doubts += watch.compare_frame(number) + (
            watch.report_unplaced() if unplaced else []
        )
        if doubts:
            found[number] = doubts
        if number == 5:
            run(live.solve_all_frames())
    return found


def lost(number, frame):
    """Blur a frame to about three times the width, with half of the contrast."""
    wide = ndimage.gaussian_filter(frame, 5.0, mode="nearest")
    noise = np.random.default_rng(number).normal(0, 800, frame.shape)
    return (wide + wide.mean()) / 2 + noise if number >= FROM else frame


def dimmer(share):
    return lambda number, frame: (
        2000 + (frame - 2000) * share if number >= FROM else frame
    )


def test_a_clean_scan_raises_nothing(scan):
    assert named(scan, unplaced=True) == {}


def test_a_frame_of_another_place_is_named_once(scan):
    other = scans.texture((112, 112), seed=5)

    def change(number, frame):
        return 2000 + 30000 * other if number == FROM else frame

    # the first of its row: one neighbour, and a corner, until the next one is placed
    found = named(scan, change, unplaced=True)
    assert list(found) == [FROM + 1]
    (doubt,) = found[FROM + 1]
    assert scan.acquisition.names[FROM] in doubt
    assert "is not placed" in doubt


def test_frames_whose_place_their_images_leave_open_are_not_named():
    scene = scans.texture((460, 460), seed=4)
    # the places of frames 8 and 11, at both ends of the last row
    scene[160:330, :130] = scans.lattice((170, 130), 11, seed=3, disorder=0.04)
    scene[160:330, 250:] = scene.mean()
    flat = scans.square_flat(112)
    scan = scans.cut_scan(scene, grid=(3, 4), side=112, flat=flat, seed=11)
    assert named(scan, unplaced=True) == {}


def test_lost_contact_is_named_once_and_at_once(scan):
    found = named(scan, lost)
    assert list(found) in ([FROM], [FROM + 1])
    (doubt,) = next(iter(found.values()))
    assert "contrast" in doubt


@pytest.mark.parametrize("share", [0.62, 0.74, 1.6])
def test_other_light_is_named_once_and_at_once(scan, share):
    found = named(scan, dimmer(share))
    assert list(found) in ([FROM], [FROM + 1])
    (doubt,) = next(iter(found.values()))
    assert "brightness" in doubt


def test_a_little_less_light_is_not_named(scan):
    assert named(scan, dimmer(0.85)) == {}


@pytest.mark.parametrize("level", [0, 2000])
def test_dead_frames_are_named_once_and_take_no_part(scan, level):
    def dead(number, frame):
        return np.full(frame.shape, level) if number in (8, 9) else frame

    found = named(scan, dead)
    assert list(found) == [8]
    assert scan.acquisition.names[8] in found[8][0]


def test_a_frame_without_light_is_named(scan):
    def dark(number, frame):
        noise = np.random.default_rng(number).normal(2000, 60, frame.shape)
        return noise if number == 7 else frame

    assert list(named(scan, dark)) == [7]


class Known:
    """A placement whose positions and flat field are known."""

    def __init__(self, frames, positions, flat, dark):
        names = tuple(str(number) for number in range(len(frames)))
        field = replace(create_uniform_flat_field(flat.shape, dark, "none"), flat=flat)
        self.frames = CorrectedFrames(Acquisition(frames, names), field)
        self.names, self.blank, self.solution = names, set(), None
        self.provisional = set()
        self.positions = positions

    def __len__(self):
        return len(self.names)


def details_named(scan, change):
    """Compare the details of a scan whose frames are changed; codes by frame."""
    acquisition, found = scan.acquisition, {}
    frames = [change(k, acquisition.read(k).astype(float)) for k in range(12)]
    frames = np.clip(np.rint(frames), 0, 65535).astype(np.uint16)
    known = Known(frames, np.full(scan.truth.shape, np.nan), scan.flat, 2000)
    watch = ScanMonitor(known)
    for number, corner in enumerate(scan.truth):
        known.positions[number] = corner
        if doubts := watch.compare_frame(number):
            found[number] = [get_error_code(doubt) for doubt in doubts]
    return found


@pytest.mark.parametrize("share", [0.8, 1.14, 1.25])
def test_contrast_that_changes_either_way_is_named_in_the_second_frame(scan, share):
    def changed(number, frame):
        level = ndimage.gaussian_filter(frame, 8, mode="nearest")
        return level + share * (frame - level) if number >= FROM else frame

    assert details_named(scan, changed) == {FROM + 1: ["detail-changed"]}


def test_contrast_that_stays_or_changes_in_one_frame_is_not_named(scan):
    def changed(number, frame):
        level = ndimage.gaussian_filter(frame, 8, mode="nearest")
        return level + 0.75 * (frame - level) if number == FROM else frame

    assert details_named(scan, lambda number, frame: frame) == {}
    assert details_named(scan, changed) == {}


def test_lost_contrast_is_named_in_its_first_frame_and_once(scan):
    assert details_named(scan, lost) == {FROM: ["detail-lost"]}


def test_frames_between_two_solutions_are_not_named_before_they_are_tried(scan):
    acquisition = scan.acquisition
    live = LivePlacement(acquisition.read, acquisition.frame_shape, acquisition.dtype)
    watch = ScanMonitor(live)
    for number in range(8):
        live.add_frame(acquisition.names[number], acquisition.nominal_px[number])
        live.place_frame(number)
        if number == 5:
            settling = live.solve_all_frames()
            next(settling)
    while live.solution is None:
        next(settling)
    # the solution of six frames is there, and the other two are not tried yet
    assert len(live.list_unplaced()) == 2
    assert watch.report_unplaced() == []
    run(settling)
    assert watch.report_unplaced() == []
