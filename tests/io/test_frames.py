"""Frames folders: order, positions, and every bad input in one sentence."""

import json
import re
import sys
import unicodedata

import numpy as np
import pytest
import tifffile
from PIL import Image

import napari_semsr as semsr
from napari_semsr import core
from napari_semsr.io.frames import open_frames
from tests.refusals import refused


@pytest.fixture
def folder(tmp_path):
    """Four frames whose grey level is their number."""
    for index in (1, 2, 9, 10):
        write(tmp_path, f"frame{index}.tif", index)
    return tmp_path


def write(folder, name, level, shape=(12, 16), dtype=np.uint16):
    tifffile.imwrite(folder / name, np.full(shape, level, dtype))


def table(folder, rows, header="frame,y_px,x_px"):
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    (folder / "positions.csv").write_text("\n".join(lines))


def test_open_frames_takes_natural_order_and_reads_late(folder):
    scan = core.run(open_frames(folder))
    assert scan.names == ("frame1.tif", "frame2.tif", "frame9.tif", "frame10.tif")
    assert [int(scan.read(i)[0, 0]) for i in range(4)] == [1, 2, 9, 10]
    assert scan.shape == (4, 12, 16)
    assert scan.nominal_px is None
    assert scan.pixel_size_nm is None


def test_open_frames_takes_positions_and_scan(folder):
    table(
        folder, [(f"frame{i}.tif", 0, i * 50) for i in (1, 2, 9, 10)], "frame,y_nm,x_nm"
    )
    scan_json = {"pixel_size_nm": 5, "grid": [2, 2], "overlap": 0.3, "objective": "50x"}
    (folder / "scan.json").write_text(json.dumps(scan_json))
    scan = core.run(open_frames(folder))
    assert scan.nominal_nm[:, 1].tolist() == [50, 100, 450, 500]
    assert scan.nominal_px is None
    assert scan.pixel_size_nm == (5.0, 5.0)
    assert scan.grid is None  # positions say more
    assert scan.metadata["objective"] == "50x"


def test_open_frames_takes_positions_as_spreadsheets_write_them(folder):
    rows = [f"frame{i}.tif;0;{i},5" for i in (1, 2, 9)]
    text = "\n".join(["frame;y_px;x_px", *rows, "frame10.tif;;"])
    (folder / "positions.csv").write_text(text, "utf-8-sig")
    scan = core.run(open_frames(folder))
    assert scan.nominal_px.tolist() == [[0, 1.5], [0, 2.5], [0, 9.5]]
    assert [fault.frame for fault in scan.faults] == ["frame10.tif"]


@pytest.mark.parametrize("given", [{"order": "column"}, {"overlap": 0.2}], ids=str)
def test_open_frames_refuses_what_describes_a_grid_without_one(folder, given):
    with refused(core.OptionError, "grid-missing"):
        core.run(open_frames(folder, **given))
    (folder / "scan.json").write_text('{"grid": [2, 2]}')
    scan = core.run(open_frames(folder, **given))  # of the grid that is stated
    assert {name: getattr(scan, name) for name in given} == given
    table(folder, [(f"frame{i}.tif", 0, i) for i in (1, 2, 9, 10)])
    with refused(core.OptionError, "grid-missing"):  # positions say more
        core.run(open_frames(folder, **given))


def test_open_frames_lists_frames_that_cannot_be_used(folder):
    whole = (folder / "frame9.tif").read_bytes()
    (folder / "frame9.tif").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    scan = core.run(open_frames(folder))
    assert len(scan) == 3
    assert {fault.frame for fault in scan.faults} == {"frame9.tif", "empty.png"}
    assert all("\n" not in fault.reason for fault in scan.faults)


def test_open_frames_keeps_the_grid_around_a_gap(folder):
    (folder / "frame2.tif").write_bytes(b"II*\0")
    scan = core.run(open_frames(folder, grid=(2, 2), overlap=0.25))
    assert scan.grid == (2, 2)
    assert scan.cells.tolist() == [[0, 0], [1, 0], [1, 1]]
    assert scan.nominal_px is None
    assert (
        core.run(open_frames(folder, grid=(2, 2))).cells.tolist() == scan.cells.tolist()
    )


@pytest.mark.parametrize("bad", [0, 2])
def test_a_bad_page_of_a_stack_is_left_out_as_a_bad_file(tmp_path, rng, bad):
    path, data = tmp_path / "a.tif", rng.integers(0, 9, (4, 64, 64), dtype=np.uint8)
    tifffile.imwrite(path, data, compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[bad]
        offset, length = page.dataoffsets[0], page.databytecounts[0]
    stored = bytearray(path.read_bytes())
    stored[offset : offset + length] = b"x" * length
    path.write_bytes(stored)
    scan = core.run(open_frames(path, grid=(2, 2)))
    left = [page for page in range(4) if page != bad]
    assert scan.names == tuple(f"a-{page}" for page in left)
    assert [fault.frame for fault in scan.faults] == [f"a-{bad}"]
    assert scan.cells.tolist() == [[page // 2, page % 2] for page in left]
    assert np.array_equal(scan.read(1), data[left[1]])


def test_copies_and_blank_frames_need_no_place_in_a_grid(folder):
    for index in (1, 2, 9, 10):
        pixels = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16) + index
        tifffile.imwrite(folder / f"frame{index}.tif", pixels)
    tifffile.imwrite(folder / "frame11.tif", pixels, description="of another time")
    write(folder, "frame12.tif", 0)
    names = ("frame1.tif", "frame2.tif", "frame9.tif", "frame10.tif")
    for grid, blank in ((None, "frame12.tif"), ((1, 5), "frame12.tif"), ((2, 2), None)):
        scan = core.run(open_frames(folder, grid=grid))
        assert scan.names == (names if blank is None else (*names, blank))
        left_out = [fault.frame for fault in scan.faults]
        assert left_out == ["frame11.tif"] + ["frame12.tif"] * (blank is None)
    assert "the same as frame10.tif" in scan.faults[0].reason


def test_open_frames_lists_what_positions_and_folder_do_not_share(folder):
    names = ("frame1.tif", "frame2.tif", "gone.tif", ".")
    table(folder, [(name, 0, 9 * number) for number, name in enumerate(names)])
    scan = core.run(open_frames(folder))
    assert scan.names == ("frame1.tif", "frame2.tif")
    faults = {fault.frame: fault.reason for fault in scan.faults}
    assert "no such file" in faults["gone.tif"]
    assert "no position" in faults["frame10.tif"]


def sized(folder, name, size_nm):
    """Write a frame of 1 that states a pixel size."""
    image = core.Micrograph(np.ones((12, 16), np.uint16), (size_nm, size_nm))
    semsr.write(image, folder / name, overwrite=True)


def bad_sizes(folder):
    write(folder, "frame3.tif", 3, shape=(12, 17))


def bad_magnification(folder):
    sized(folder, "frame2.tif", 10)
    sized(folder, "frame9.tif", 10.005)
    sized(folder, "frame10.tif", 20)


def bad_names(folder):
    Image.fromarray(np.zeros((12, 16), np.uint8)).save(folder / "FRAME1.png")


def bad_single(folder):
    for index in (2, 9, 10):
        (folder / f"frame{index}.tif").unlink()


def rows(*lines, header="frame,y_px,x_px"):
    return "positions.csv", "\n".join([header, *lines])


@pytest.mark.parametrize(
    ("spoil", "code", "values"),
    [
        (bad_sizes, "frames-differ", "4 of 12x16 px of uint16 .* 1 of 12x17"),
        (bad_magnification, "pixel-size-contradicts", "10 nm .*frame10.tif .*20 nm"),
        (bad_names, "names-alike", None),
        (bad_single, "too-few-frames", None),
        (rows("../frame1.tif,0,0"), "outside-folder", None),
        (rows("frame1.tif,0,0", header="name,y,x"), "table-invalid", "frame,y_px,x_px"),
        (rows("frame1.tif,nan,0"), "table-invalid", "line 2 "),
        (rows("frame1.tif,0,0", "frame1.tif,0,9"), "table-invalid", "frame1.tif"),
        (rows("other.tif,0,0"), "frames-missing", None),
        (("scan.json", "{grid: 2x2}"), "content-invalid", None),
        (("scan.json", '{"grid": [2, "two"]}'), "content-invalid", "'two'"),
        (("scan.json", '{"grid": [-2, -3]}'), "content-invalid", None),
        (("scan.json", '{"grid": [2, 2], "order": "left"}'), "unknown-value", "'left'"),
        (("scan.json", '{"grid": [2, 2], "first": "left"}'), "unknown-value", "'left'"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_open_frames_refuses(folder, spoil, code, values):
    if callable(spoil):
        spoil(folder)
    else:
        name, text = spoil
        (folder / name).write_text(text)
    with refused(core.ReadError, code, match=values):
        core.run(open_frames(folder))


@pytest.mark.parametrize("pages", [False, True], ids=["files", "pages"])
def test_a_data_bar_that_no_header_tells_of_is_told(tmp_path, rng, pages):
    data = np.clip(rng.normal(120, 30, (4, 330, 320)), 0, 255).astype(np.uint8)
    data[:, 300:] = 0
    data[:, 310:318, 20:200:6] = 255
    if pages:
        tifffile.imwrite(tmp_path / "scan.tif", data, photometric="minisblack")
    else:
        data[3, 300:] = 100  # the others outvote it
        for index, frame in enumerate(data):
            Image.fromarray(frame).save(tmp_path / f"f{index}.png")
    with core.capture_warnings((heard := []).append):
        for rows in (None, 0, 30):  # of which the first is none that a user typed
            scan = core.run(open_frames(tmp_path, databar_rows=rows))
            height = 330 - (rows or 0)
            assert np.array_equal(scan.read(2), data[2, :height])
    assert re.search(r"30 rows .* look like a data bar.*`databar_rows=30`", *heard)


def test_frames_in_colour_are_taken_by_their_luminance(tmp_path, rng):
    data = rng.integers(0, 256, (4, 40, 48, 3), dtype=np.uint8)
    for index, frame in enumerate(data):
        Image.fromarray(frame).save(tmp_path / f"f{index}.png")
    with refused(core.ReadError, "frames-unusable", match="`colour=luminance`"):
        core.run(open_frames(tmp_path))
    scan = core.run(open_frames(tmp_path, colour="luminance"))
    assert scan.shape == (4, 40, 48)
    assert np.allclose(scan.read(2), data[2] @ (0.299, 0.587, 0.114), atol=1)
    how = {"photometric": "minisblack", "metadata": {"axes": "CYX"}}
    for index, frame in enumerate(data):
        (tmp_path / f"f{index}.png").unlink()
        tifffile.imwrite(tmp_path / f"f{index}.tif", np.moveaxis(frame, 2, 0), **how)
    scan = core.run(open_frames(tmp_path, channel=1))
    assert np.array_equal(scan.read(2), data[2, ..., 1])


def test_overexposed_frames_are_told(tmp_path, rng):
    data = rng.integers(0, 4000, (4, 40, 48), dtype=np.uint16)
    data[2] = np.minimum(2 * data[2], 4095)  # of a camera of 12 bits
    data[3, :1] = 4095
    few = rng.integers(0, 8, (2, 40, 48), dtype=np.uint8)  # each fills an eighth
    with core.capture_warnings((heard := []).append):
        for name, frames in (("camera", data), ("few", few)):
            (tmp_path / name).mkdir()
            for index, frame in enumerate(frames):
                tifffile.imwrite(tmp_path / name / f"f{index}.tif", frame)
            core.run(open_frames(tmp_path / name))
    said = r"1 of 4 frames .*4095, cover up to [45]\d % of a frame \(f2.tif\)"
    assert re.search(said, *heard)


@pytest.mark.parametrize(
    ("told", "given", "says"),
    [(20, None, "10 nm, but scan.json has 20 nm"), (10.005, None, ""), (20, 15, "")],
)
def test_a_scan_that_contradicts_its_frames_is_told(folder, told, given, says):
    sized(folder, "frame2.tif", 10)  # others do not say
    (folder / "scan.json").write_text(json.dumps({"pixel_size_nm": told}))
    with core.capture_warnings((heard := []).append):
        scan = core.run(open_frames(folder, pixel_size_nm=given))
    assert scan.pixel_size_nm == (given or told,) * 2
    assert len(heard) == bool(says)
    assert says in "".join(heard)


def test_frames_notice_that_a_file_or_an_array_changed(folder):
    scan = core.run(open_frames(folder))
    scan.read(1)[:] = 0
    assert (scan.read(1) == 2).all()  # which is kept, and not that array
    write(folder, "frame2.tif", 7)
    assert (scan.read(1) == 7).all()
    write(folder, "frame2.tif", 2, shape=(5, 5))
    with refused(core.ReadError, "content-changed"):
        scan.read(1)
    (folder / "frame2.tif").unlink()
    with refused(core.ReadError, "file-missing"):
        scan.read(1)


def test_what_frames_have_in_common_is_warned_of_once(tmp_path, rng):
    for index, frame in enumerate(rng.integers(0, 256, (4, 40, 48), dtype=np.uint8)):
        text = "ImageJ=1.54f\nunit=furlong\ncf=21\n"
        how = {"description": text, "resolution": (2 + index, 2 + index)}
        tifffile.imwrite(tmp_path / f"f{index}.tif", frame, metadata=None, **how)
    with core.capture_warnings((heard := []).append):
        core.run(open_frames(tmp_path)).read(0)
    codes = {core.get_error_code(one) for one in heard}
    assert codes == {"grey-calibration-ignored", "pixel-size-invalid"}
    assert len(heard) == 2
    assert all("(4 such frames" in one for one in heard)


@pytest.mark.skipif(sys.platform == "darwin", reason="one name there in either form")
@pytest.mark.parametrize("forms", [("NFD", "NFC"), ("NFC", "NFD")], ids=str)
def test_names_match_however_their_letters_are_composed(tmp_path, forms):
    stored, named = (unicodedata.normalize(form, "M\u00fcnchen.tif") for form in forms)
    write(tmp_path, stored, 1)
    write(tmp_path, "b.tif", 2)
    table(tmp_path, [(named, 0, 7), ("b.tif", 0, 1)])
    scan = core.run(open_frames(tmp_path))
    assert not scan.faults
    places = dict(zip(scan.names, scan.nominal_px[:, 1], strict=True))
    assert places == {stored: 7, "b.tif": 1}


def test_a_last_frame_of_which_rows_were_not_written_is_left_out(folder, rng):
    for index in (1, 2, 9, 10):
        pixels = rng.integers(1, 9, (12, 16)).astype(np.uint16)
        pixels[7 if index == 10 else 12 :] = 0
        tifffile.imwrite(folder / f"frame{index}.tif", pixels)
    scan = core.run(open_frames(folder, other_frames="leave-out"))
    assert [fault.frame for fault in scan.faults] == ["frame10.tif"]
    assert len(scan) == 3
    # where another frame ends in black, too, it belongs to the sample
    tifffile.imwrite(folder / "frame9.tif", pixels * 2)
    assert len(core.run(open_frames(folder, other_frames="leave-out"))) == 4
