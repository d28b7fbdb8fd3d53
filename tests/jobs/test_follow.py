"""A scan is stitched while its frames are written; in the end as a whole."""

import errno
import shutil
import signal
import sys

import numpy as np
import pytest

import napari_semsr
from napari_semsr.core import OptionError, ReadError, WaitingProgress, WriteError, run
from napari_semsr.io import GrowingMosaic, is_live_mosaic, read
from napari_semsr.jobs import STITCH, StitchFolderOptions, follow
from tests import children
from tests.refusals import refused

SIDE = 96
FOLLOW = {"follow": True, "until": 6}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(follow, "_POLL_S", 0.001)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans") / "scan"
    napari_semsr.simulate(
        folder, phantom="particles", frames_grid=(2, 3), frame_px=SIDE, overlap=0.4,
        jitter_px=3, seed=1,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def offline(scan):
    return napari_semsr.stitch(scan, scan.parent / "offline.ome.zarr")


def job(folder, output, **options):
    how = {k: options.pop(k) for k in ("resume", "overwrite") if k in options}
    chosen = StitchFolderOptions.parse({**FOLLOW, **options})
    return STITCH.job(folder, output, options=chosen, **how)


def copy_frames(scan, folder, *numbers):
    folder.mkdir(exist_ok=True)
    for number in numbers:
        name = f"frame_{number:03d}.tif"
        shutil.copy(scan / name, folder / name)
    rows = (scan / "positions.csv").read_text().splitlines(keepends=True)
    there = [row for row in rows[1:] if (folder / row.partition(",")[0]).is_file()]
    (folder / "positions.csv").write_text("".join([rows[0], *there]))


def same_pixels(made, wanted):
    one, other = (read(result.output).array() for result in (made, wanted))
    return np.array_equal(one, other, equal_nan=True)


def until_taken(steps, count):
    assert any(f"{count} frames processed" in step.message for step in steps)


def test_a_followed_scan_ends_as_the_offline_command_does(scan, offline, tmp_path):
    folder, output = tmp_path / "scan", tmp_path / "m.ome.zarr"
    steps = job(folder, output)
    while not isinstance(step := next(steps), WaitingProgress):
        pass
    assert "waiting for" in step.message
    copy_frames(scan, folder, 0, 2)
    until_taken(steps, 2)
    assert is_live_mosaic(output)
    copy_frames(scan, folder, 1, 5, 3)
    until_taken(steps, 5)
    copy_frames(scan, folder, 4)
    made = run(steps)
    assert made.corners == offline.corners
    assert same_pixels(made, offline)
    assert not is_live_mosaic(output)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["m.ome.zarr", "scan"]


@pytest.mark.broad
@pytest.mark.parametrize(
    "how",
    [{"illumination_drift": 0.4}, {"bad_frames": 1, "frames_grid": (3, 3)}],
    ids=["brightness", "bad frames"],
)
def test_other_scans_end_as_the_offline_command_does(tmp_path, how):
    folder = tmp_path / "scan"
    common = {"phantom": "particles", "frames_grid": (2, 3), "frame_px": SIDE}
    napari_semsr.simulate(folder, overlap=0.4, jitter_px=3, seed=2, **{**common, **how})
    wanted = napari_semsr.stitch(folder, tmp_path / "offline.ome.zarr")
    count = len(list(folder.glob("frame_*.tif")))
    made = run(job(folder, tmp_path / "m.ome.zarr", until=count))
    assert made.corners == wanted.corners
    assert same_pixels(made, wanted)


def test_a_frame_of_another_size_is_left_out_and_named(scan, tmp_path):
    folder = tmp_path / "scan"
    copy_frames(scan, folder, 0, 1, 2, 3, 4)
    image = read(scan / "frame_005.tif")
    small = image.replace(data=image.array()[:64, :64])
    napari_semsr.write(small, folder / "frame_005.tif")
    shutil.copy(scan / "positions.csv", folder)
    (folder / "frame_003.tif.part").write_bytes(b"half")
    made = run(job(folder, tmp_path / "m.ome.zarr", until=5))
    assert [fault.frame for fault in made.left_out] == ["frame_005.tif"]
    assert any("frame_005.tif" in one and "64x64" in one for one in made.warnings)
    with refused(ReadError, "frames-differ"):
        napari_semsr.stitch(folder, tmp_path / "n.ome.zarr")


def test_nothing_new_for_long_is_the_end(scan, tmp_path):
    made = run(job(scan, tmp_path / "m.ome.zarr", until=None, idle="0.05s"))
    assert made.frames == 6


@pytest.mark.parametrize("text", ["", "8 days", "-3s", "nan"])
def test_other_times_are_refused(text):
    with refused(OptionError, "wrong-type", match="`idle`"):
        StitchFolderOptions.parse({"follow": True, "idle": text})


def test_too_few_frames_are_refused_and_nothing_is_left(scan, tmp_path):
    folder = tmp_path / "scan"
    copy_frames(scan, folder, 0)
    with refused(ReadError, "too-few-frames"):
        run(job(folder, tmp_path / "m.ome.zarr", idle="0.05s"))
    assert not (tmp_path / ".held.m.ome.zarr").exists()


@pytest.mark.broad
def test_a_scan_that_is_followed_twice_is_refused(scan, tmp_path):
    folder, output = tmp_path / "scan", tmp_path / "m.ome.zarr"
    copy_frames(scan, folder, 0, 1)
    steps = job(folder, output)
    until_taken(steps, 2)
    words = [sys.executable, "-m", "napari_semsr", "stitch", folder, "-o", output]
    done = children.run([*words, "--follow", "--idle", "1s", "--overwrite"])
    assert done.returncode == 2
    assert "Another process is writing" in done.stderr
    steps.close()


def test_a_killed_run_is_resumed_with_the_frames_that_are_there(
    scan, offline, tmp_path
):
    folder, output = tmp_path / "scan", tmp_path / "m.ome.zarr"
    copy_frames(scan, folder, 0, 1, 2)
    steps = job(folder, output)
    until_taken(steps, 3)
    steps.close()
    assert is_live_mosaic(output)
    copy_frames(scan, folder, *range(6))
    with refused(WriteError, "output-exists"):
        run(job(folder, output))
    assert same_pixels(run(job(folder, output, resume=True)), offline)


@pytest.mark.parametrize(
    ("step", "suffix"),
    [("6 frames processed", ".tif"), ("Fusing the mosaic", ".ome.zarr")],
)
def test_a_killed_run_is_resumed_without_following(
    scan, offline, tmp_path, step, suffix
):
    output = tmp_path / f"m{suffix}"
    steps = job(scan, output)
    assert any(step in one.message for one in steps)
    steps.close()
    assert same_pixels(run(STITCH.job(scan, output, resume=True)), offline)


def test_a_full_disk_is_waited_for(scan, tmp_path, monkeypatch):
    write, refusals = GrowingMosaic.write, [errno.ENOSPC] * 5

    def full(self, box, values):
        if refusals:
            raise OSError(refusals.pop(), "No space left on device")
        write(self, box, values)

    monkeypatch.setattr(GrowingMosaic, "write", full)
    steps = []
    assert run(job(scan, tmp_path / "m.ome.zarr"), steps.append).frames == 6
    full = [step for step in steps if "disk is full" in step.message]
    assert full
    assert all(isinstance(step, WaitingProgress) for step in full)


def test_a_stop_before_the_first_poll_stitches_the_frames_that_are_there(
    scan, offline, tmp_path
):
    steps = job(scan, tmp_path / "m.ome.zarr", until=None)
    while "waiting" not in next(steps).message:
        pass
    signal.raise_signal(signal.SIGINT)
    made = run(steps)
    assert made.corners == offline.corners
