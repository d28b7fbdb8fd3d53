"""Troubles of a scan are named as they arise, and none where there is none."""

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core import get_error_code, run
from napari_semsr.stitching import LivePlacement, ScanMonitor
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


@pytest.mark.parametrize("share", [0.74, 1.6])
def test_other_light_is_named_once_and_at_once(scan, share):
    def dimmer(number, frame):
        return 2000 + (frame - 2000) * share if number >= FROM else frame

    found = named(scan, dimmer)
    assert list(found) in ([FROM], [FROM + 1])
    (doubt,) = next(iter(found.values()))
    assert "brightness" in doubt


def test_dead_frames_are_named_once_and_take_no_part(scan):
    def dead(number, frame):
        return np.full(frame.shape, 2000) if number in (8, 9) else frame

    found = named(scan, dead)
    assert list(found) == [8]
    assert scan.acquisition.names[8] in found[8][0]


def test_a_frame_without_light_is_named(scan):
    def dark(number, frame):
        noise = np.random.default_rng(number).normal(2000, 60, frame.shape)
        return noise if number == 7 else frame

    assert list(named(scan, dark)) == [7]


@pytest.mark.parametrize(("share", "last"), [(0.8, 12), (1.14, 12), (0.75, FROM + 1)])
def test_contrast_that_changes_for_more_than_one_frame_is_named(scan, share, last):
    def changed(number, frame):
        level = ndimage.gaussian_filter(frame, 8, mode="nearest")
        return level + share * (frame - level) if FROM <= number < last else frame

    found = named(scan, changed)
    assert [get_error_code(doubt) for doubts in found.values() for doubt in doubts] == [
        "detail-changed"
    ] * (last == 12)
