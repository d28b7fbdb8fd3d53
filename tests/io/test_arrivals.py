"""Frames that arrive in a folder: taken when whole, and never half."""

import json

import numpy as np
import pytest

from napari_semsr.core import Micrograph
from napari_semsr.io import FrameFolder, write


def image(path, seed=0, shape=(20, 24), dtype=np.uint16):
    values = np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)
    write(Micrograph(values, (20, 20), path.stem), path)
    return values


def arrived(folder, looks=2):
    return [frame for _ in range(looks) for frame in folder.poll()]


def test_a_frame_is_taken_at_the_second_look_and_once(tmp_path):
    values = image(tmp_path / "a.tif")
    folder = FrameFolder(tmp_path)
    assert arrived(folder, 1) == []
    assert folder.is_busy
    (frame,) = arrived(folder, 1)
    assert not folder.is_busy
    assert (frame.name, frame.reason) == ("a.tif", "")
    assert np.array_equal(frame.pixels, values)
    assert frame.pixel_size_nm == (20, 20)
    assert np.array_equal(folder.read("a.tif"), values)
    assert arrived(folder, 5) == []


@pytest.mark.parametrize("share", [0.1, 0.97])
def test_a_frame_that_is_still_written_waits_for_its_last_byte(tmp_path, share):
    values = image(tmp_path / "a.tif")
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[: int(share * len(data))])
    folder = FrameFolder(tmp_path)
    assert arrived(folder, 6) == []
    (tmp_path / "a.tif").write_bytes(data)
    (frame,) = arrived(folder)
    assert np.array_equal(frame.pixels, values)


def test_what_is_not_a_frame_is_not_looked_at(tmp_path):
    for name in ("a.tif.part", "b.tif.tmp", ".c.tif", "d.txt"):
        (tmp_path / name).write_bytes(b"II*\0")
    assert arrived(FrameFolder(tmp_path), 20) == []


def test_a_file_that_stays_broken_is_named_once(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0 and no more")
    frames = arrived(FrameFolder(tmp_path), 40)
    assert [(frame.name, frame.pixels) for frame in frames] == [("a.tif", None)]
    assert str(tmp_path) not in frames[0].reason


@pytest.mark.parametrize(
    ("shape", "dtype"), [((20, 22), np.uint16), ((20, 24), np.uint8)], ids=str
)
def test_a_frame_of_another_kind_is_left_out_and_named(tmp_path, shape, dtype):
    image(tmp_path / "a.tif")
    folder = FrameFolder(tmp_path)
    assert arrived(folder)[0].reason == ""
    image(tmp_path / "b.tif", 1, shape, dtype)
    (other,) = arrived(folder)
    assert other.pixels is None
    assert f"{shape[0]}x{shape[1]}" in other.reason
    assert np.dtype(dtype).name in other.reason


def test_a_frame_that_is_written_again_comes_again(tmp_path):
    image(tmp_path / "a.tif")
    folder = FrameFolder(tmp_path)
    assert len(arrived(folder)) == 1
    values = image(tmp_path / "b.tif", 5)
    (tmp_path / "b.tif").replace(tmp_path / "a.tif")
    (frame,) = arrived(folder)
    assert np.array_equal(frame.pixels, values)


def test_a_row_that_is_being_written_waits(tmp_path):
    for name in ("a.tif", "b.tif"):
        image(tmp_path / name)
    table = tmp_path / "positions.csv"
    table.write_text("frame,y_nm,x_nm\na.tif,0,0\nb.tif,0,12")
    folder = FrameFolder(tmp_path)
    arrived(folder)
    assert folder.frame_corner("a.tif") == (0, 0)
    assert folder.frame_corner("b.tif") is None
    table.write_text("frame,y_nm,x_nm\na.tif,0,0\nb.tif,0,1234")
    arrived(folder, 30)
    assert folder.frame_corner("b.tif") == (0, 1234)  # the last row needs no end
    table = tmp_path / "TileConfiguration.txt"
    table.write_text("dim = 2\na.tif; ; (1, 2)\nb.tif; ; (3, 4)\n")
    folder = FrameFolder(tmp_path, table)
    arrived(folder, 1)
    assert folder.frame_corner("b.tif") == (4, 3)


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_in_names_are_places_in_a_grid(tmp_path, first):
    layout = {"grid": (2, 3), "overlap": 0.25, "order": "serpentine"}
    folder = FrameFolder(tmp_path, layout=layout if first else {})
    arrived(folder)
    (tmp_path / "scan.json").write_text(json.dumps(layout))
    arrived(folder)
    assert folder.changes == 1
    for number in (first, first + 4):
        image(tmp_path / f"scan7_{number:03d}.tif")
    arrived(folder)
    assert folder.frame_corner(f"scan7_{first:03d}.tif") == (0, 0)
    assert folder.frame_corner(f"scan7_{first + 3:03d}.tif") == (15, 36)
    assert folder.frame_corner(f"scan7_{first + 6:03d}.tif") is None


def test_a_table_that_is_written_again_is_read_again(tmp_path):
    folder, table = FrameFolder(tmp_path), tmp_path / "positions.csv"

    def places(text):
        table.write_text(text)
        arrived(folder, 1)
        return [folder.frame_corner(name) for name in ("a.tif", "b.tif", "c.tif")]

    text = "frame,y_px,x_px\na.tif,3,4\n"
    assert places(text) == [(3, 4), None, None]
    assert places(f"{text}c.tif,5,6\n") == [(3, 4), None, (5, 6)]
    assert places(f"{text}c.tif,5,6\na.tif,9,9\n")[0] == (3, 4)  # the first of two
    text = "frame,y_nm,x_nm\nb.tif,7,8\na.tif,1,2\n"
    assert places(text) == [(1, 2), (7, 8), None]
    assert folder.unit == "nm"
    text = 'frame,y_px,x_px,note\na.tif,3,4,"one\n'  # which is no end of a row
    places(text)
    assert places(f'{text}b.tif,9,9"\nc.tif,1,2,\n') == [(3, 4), None, (1, 2)]
