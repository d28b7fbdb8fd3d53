"""Frames that arrive in a folder: taken when whole, and never half."""

import os
from pathlib import Path

import numpy as np
import pytest

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.io import arrivals
from napari_semsr.io.arrivals import FrameFolder
from napari_semsr.io.formats import write


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
    assert (frame.name, frame.reason, frame.is_again) == ("a.tif", "", False)
    assert np.array_equal(frame.pixels, values)
    assert frame.pixel_size_nm == (20, 20)
    assert np.array_equal(folder.read("a.tif"), values)
    assert arrived(folder, 5) == []


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.97])
def test_a_frame_that_is_still_written_waits_for_its_last_byte(tmp_path, share):
    values = image(tmp_path / "a.tif")
    data = (tmp_path / "a.tif").read_bytes()
    with (tmp_path / "a.tif").open("wb") as stream:
        stream.write(data[: int(share * len(data))])
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
    assert not arrived(folder)[0].is_again
    values = image(tmp_path / "b.tif", 5)
    (tmp_path / "b.tif").replace(tmp_path / "a.tif")
    (frame,) = arrived(folder)
    assert frame.is_again
    assert np.array_equal(frame.pixels, values)


def test_clocks_of_other_machines_do_not_matter(tmp_path):
    folder = FrameFolder(tmp_path)
    for name, year in (("a.tif", 1971), ("b.tif", 2090)):
        image(tmp_path / name)
        seconds = (year - 1970) * 31_557_600
        os.utime(tmp_path / name, (seconds, seconds))
    assert sorted(frame.name for frame in arrived(folder)) == ["a.tif", "b.tif"]


def test_a_folder_that_comes_later_is_no_error(tmp_path):
    folder = FrameFolder(tmp_path / "later")
    assert not folder.exists
    assert arrived(folder) == []
    (tmp_path / "later").mkdir()
    image(tmp_path / "later" / "a.tif")
    assert folder.exists
    assert len(arrived(folder)) == 1


def test_a_row_that_is_being_written_waits(tmp_path):
    for name in ("a.tif", "b.tif"):
        image(tmp_path / name)
    table = tmp_path / "positions.csv"
    table.write_text("frame,y_nm,x_nm\na.tif,0,0\nb.tif,0,12")
    folder = FrameFolder(tmp_path)
    arrived(folder)
    assert (folder.frame_corner("a.tif"), folder.frame_corner("b.tif")) == (
        (0, 0),
        None,
    )
    assert folder.unit == "nm"
    table.write_text("frame,y_nm,x_nm\na.tif,0,0\nb.tif,0,1234\n")
    arrived(folder)
    assert folder.frame_corner("b.tif") == (0, 1234)


def test_a_last_row_without_an_end_is_taken_in_the_end(tmp_path):
    image(tmp_path / "a.tif")
    (tmp_path / "positions.csv").write_text("frame,y_px,x_px\na.tif,3,4")
    folder = FrameFolder(tmp_path)
    arrived(folder, 30)
    assert folder.frame_corner("a.tif") == (3, 4)


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_in_names_are_places_in_a_grid(tmp_path, first):
    layout = {"grid": (2, 3), "overlap": 0.25, "order": "serpentine"}
    folder = FrameFolder(tmp_path, layout=layout)
    for number in (first, first + 4):
        image(tmp_path / f"scan7_{number:03d}.tif")
    arrived(folder)
    assert folder.frame_corner(f"scan7_{first:03d}.tif") == (0, 0)
    assert folder.frame_corner(f"scan7_{first + 3:03d}.tif") == (15, 36)
    assert folder.frame_corner(f"scan7_{first + 6:03d}.tif") is None


def grown(folder, table, text):
    """Write a table, and look until all of it is taken."""
    table.write_text(text)
    arrived(folder, 1)
    return {name: folder.frame_corner(name) for name in ("a.tif", "b.tif", "c.tif")}


def test_of_a_table_that_grows_the_added_rows_are_read(tmp_path, monkeypatch):
    read, rows = arrivals.read_positions_table, []

    def counted(path, folder, text):
        rows.append(text.count("tif"))
        return read(path, folder, text)

    monkeypatch.setattr(arrivals, "read_positions_table", counted)
    folder, table = FrameFolder(tmp_path), tmp_path / "positions.csv"
    text = "frame,y_px,x_px\n"
    for number in range(8):
        text += f"{number}.tif,{number},0\n"
        table.write_text(text)
        arrived(folder, 1)
    assert rows == [1] * 8
    assert [folder.frame_corner(f"{n}.tif") for n in range(8)] == [
        (n, 0) for n in range(8)
    ]


@pytest.mark.parametrize(
    "again",
    [
        "frame,y_px,x_px\nb.tif,7,8\na.tif,1,2\n",  # in another order
        "frame,y_nm,x_nm\na.tif,1,2\nb.tif,7,8\n",  # in another unit
        'frame,y_px,x_px\n"a.tif",1,2\n"b.tif",7,8\n',  # with quotes
    ],
)
def test_a_table_that_is_written_again_is_read_again(tmp_path, again):
    folder, table = FrameFolder(tmp_path), tmp_path / "positions.csv"
    before = grown(folder, table, "frame,y_px,x_px\na.tif,3,4\nc.tif,5,6\n")
    assert before == {"a.tif": (3, 4), "b.tif": None, "c.tif": (5, 6)}
    found = grown(folder, table, again)
    assert found == {"a.tif": (1, 2), "b.tif": (7, 8), "c.tif": None}
    assert folder.unit == ("nm" if "nm" in again else "px")


def test_an_end_of_a_line_in_quotes_ends_no_row(tmp_path):
    folder, table = FrameFolder(tmp_path), tmp_path / "positions.csv"
    head = 'frame,y_px,x_px,note\na.tif,3,4,"one\n'
    grown(folder, table, head)
    found = grown(folder, table, f'{head}b.tif,9,9"\nc.tif,1,2,\n')
    assert found == {"a.tif": (3, 4), "b.tif": None, "c.tif": (1, 2)}


def test_a_frame_that_is_named_twice_keeps_its_first_place(tmp_path):
    folder, table = FrameFolder(tmp_path), tmp_path / "positions.csv"
    head = "frame,y_px,x_px\na.tif,3,4\n"
    grown(folder, table, head)
    assert grown(folder, table, f"{head}a.tif,5,6\n")["a.tif"] == (3, 4)


def test_frames_that_were_taken_are_looked_at_in_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(arrivals, "FILES_A_LOOK", 2)
    for number in range(8):
        image(tmp_path / f"{number}.tif", number)
    folder = FrameFolder(tmp_path)
    assert len(arrived(folder)) == 8
    looks = []
    stat = Path.stat
    monkeypatch.setattr(
        Path, "stat", lambda path, **how: looks.append(path.name) or stat(path, **how)
    )
    arrived(folder, 5)
    frames = [name for name in looks if name.endswith(".tif")]
    assert sorted(frames) == [f"{number}.tif" for number in range(8)]
    (tmp_path / "other").mkdir()
    values = image(tmp_path / "other" / "3.tif", 9)
    data = (tmp_path / "other" / "3.tif").read_bytes()
    (tmp_path / "3.tif").write_bytes(data)  # in place
    (frame,) = arrived(folder, 7)
    assert (frame.name, frame.is_again) == ("3.tif", True)
    assert np.array_equal(frame.pixels, values)
