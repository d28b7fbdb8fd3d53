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
from napari_semsr.core import Micrograph, OptionError, ReadError, capture_warnings, run
from napari_semsr.io.frames import natural_sort_key, open_frames
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


def test_natural_key_counts():
    names = ["f10", "f9", "F1", "f1b"]
    assert sorted(names, key=natural_sort_key) == ["F1", "f1b", "f9", "f10"]


def test_open_frames_takes_natural_order_and_reads_late(folder):
    scan = run(open_frames(folder))
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
    scan = run(open_frames(folder))
    assert scan.nominal_nm[:, 1].tolist() == [50, 100, 450, 500]
    assert scan.nominal_px is None
    assert scan.pixel_size_nm == (5.0, 5.0)
    assert scan.grid is None  # positions say more
    assert scan.metadata["objective"] == "50x"


def test_open_frames_takes_positions_as_spreadsheets_write_them(folder):
    rows = [f"frame{i}.tif;0;{i},5" for i in (1, 2, 9)]
    text = "\n".join(["frame;y_px;x_px", *rows, "frame10.tif;;"])
    (folder / "positions.csv").write_text(text, "utf-8-sig")
    scan = run(open_frames(folder))
    assert scan.nominal_px.tolist() == [[0, 1.5], [0, 2.5], [0, 9.5]]
    assert [fault.frame for fault in scan.faults] == ["frame10.tif"]


def test_open_frames_prefers_a_given_grid(folder):
    table(folder, [(f"frame{i}.tif", 0, i) for i in (1, 2, 9, 10)])
    scan = run(open_frames(folder, grid=(1, 4), overlap=0.2, order="serpentine"))
    assert (scan.grid, scan.overlap, scan.order) == ((1, 4), 0.2, "serpentine")
    assert scan.nominal_px is None


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"order": "column"}, "Order "),
        ({"first": "top-right"}, "First "),
        ({"overlap": 0.2}, "Overlap "),
        ({"order": "row", "first": "top-left"}, "Order and first "),
    ],
)
def test_open_frames_refuses_what_describes_a_grid_without_one(folder, given, named):
    with refused(OptionError, "grid-missing", match=f"^{named}"):
        run(open_frames(folder, **given))
    table(folder, [(f"frame{i}.tif", 0, i) for i in (1, 2, 9, 10)])
    (folder / "scan.json").write_text('{"grid": [2, 2]}')  # positions say more
    with refused(OptionError, "grid-missing"):
        run(open_frames(folder, **given))
    (folder / "positions.csv").unlink()
    scan = run(open_frames(folder, **given))  # of the grid that is stated
    assert {name: getattr(scan, name) for name in given} == given


def test_open_frames_takes_pages_of_one_tiff(tmp_path):
    stack = np.arange(5, dtype=np.uint8)[:, None, None] * np.ones((5, 9, 7), np.uint8)
    tifffile.imwrite(tmp_path / "scan.tif", stack, photometric="minisblack")
    for path in (tmp_path, tmp_path / "scan.tif"):
        scan = run(open_frames(path))
        assert scan.shape == (5, 9, 7)
        assert int(scan.read(3)[0, 0]) == 3
        assert len(set(scan.names)) == 5


@pytest.mark.parametrize("named", [False, True], ids=["listed", "in a table"])
def test_frames_may_be_of_any_kind_that_can_be_read(tmp_path, named):
    h5py = pytest.importorskip("h5py", reason="needs h5py, the extra [hdf5]")
    names = ["f1.ome.zarr", "f2.h5", "f3.png", "f4.ome.tif"]
    for level, name in enumerate(names):
        pixels = np.full((12, 16), level, np.uint8)
        if name == "f2.h5":
            with h5py.File(tmp_path / name, "w") as file:
                file["image"] = pixels
        else:
            semsr.write(Micrograph(pixels), tmp_path / name)
    if named:
        table(tmp_path, [(name, 0, 9 * i) for i, name in enumerate(names)])
    else:  # stores beside files are what was made of them
        names = names[1:]
    scan = run(open_frames(tmp_path))
    assert scan.names == tuple(names)
    assert [scan.read(i)[0, 0] for i in range(len(names))][-1] == 3
    assert not scan.faults


def test_frames_may_be_stores(tmp_path):
    for level in (1, 2):
        pixels = np.full((12, 16), level, np.uint8)
        semsr.write(Micrograph(pixels), tmp_path / f"f{level}.ome.zarr")
    scan = run(open_frames(tmp_path))
    assert [int(scan.read(i)[0, 0]) for i in range(2)] == [1, 2]


def test_open_frames_lists_frames_that_cannot_be_used(folder):
    whole = (folder / "frame9.tif").read_bytes()
    (folder / "frame9.tif").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    scan = run(open_frames(folder))
    assert len(scan) == 3
    assert {fault.frame for fault in scan.faults} == {"frame9.tif", "empty.png"}
    assert all("\n" not in fault.reason for fault in scan.faults)


def test_open_frames_keeps_the_grid_around_a_gap(folder):
    (folder / "frame2.tif").write_bytes(b"II*\0")
    scan = run(open_frames(folder, grid=(2, 2), overlap=0.25))
    assert scan.grid == (2, 2)
    assert scan.cells.tolist() == [[0, 0], [1, 0], [1, 1]]
    assert scan.nominal_px is None
    assert run(open_frames(folder, grid=(2, 2))).cells.tolist() == scan.cells.tolist()


def test_copies_and_blank_frames_need_no_place_in_a_grid(folder):
    for index in (1, 2, 9, 10):
        pixels = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16) + index
        tifffile.imwrite(folder / f"frame{index}.tif", pixels)
    tifffile.imwrite(folder / "frame11.tif", pixels, description="of another time")
    write(folder, "frame12.tif", 0)
    scan = run(open_frames(folder))
    copy = ("frame11.tif", "pixel for pixel the same as frame10.tif")
    assert scan.names[-1] == "frame12.tif"
    assert [(fault.frame, fault.reason) for fault in scan.faults] == [copy]
    scan = run(open_frames(folder, grid=(2, 2)))
    assert scan.names == ("frame1.tif", "frame2.tif", "frame9.tif", "frame10.tif")
    blank = ("frame12.tif", "one grey value everywhere")
    assert [(fault.frame, fault.reason) for fault in scan.faults] == [copy, blank]
    scan = run(open_frames(folder, grid=(1, 5)))
    assert scan.names[-1] == "frame12.tif"


def test_open_frames_lists_what_positions_and_folder_do_not_share(folder):
    table(
        folder,
        [("frame1.tif", 0, 0), ("frame2.tif", 0, 9), ("gone.tif", 0, 18), (".", 0, 27)],
    )
    scan = run(open_frames(folder))
    assert scan.names == ("frame1.tif", "frame2.tif")
    faults = {fault.frame: fault.reason for fault in scan.faults}
    assert "no such file" in faults["gone.tif"]
    assert "no position" in faults["frame10.tif"]


def test_open_frames_leaves_out_frames_with_empty_cells(folder):
    rows = [("frame1.tif", 0, 0), ("frame2.tif", "", ""), ("frame9.tif", 0, 18)]
    table(folder, [*rows, ("frame10.tif", " ", "")])
    scan = run(open_frames(folder))
    assert scan.names == ("frame1.tif", "frame9.tif")
    reasons = {fault.frame: fault.reason for fault in scan.faults}
    assert set(reasons) == {"frame2.tif", "frame10.tif"}
    assert all("empty" in reason for reason in reasons.values())


def test_open_frames_leaves_out_pages_with_empty_cells(tmp_path):
    path = tmp_path / "scan.tif"
    data = np.arange(3, dtype=np.uint16)[:, None, None] * np.ones((3, 12, 16))
    tifffile.imwrite(path, data.astype(np.uint16), photometric="minisblack")
    listing = tmp_path / "at.csv"
    listing.write_text("frame,y_px,x_px\nscan-0,0,0\nscan-1,,\nscan-2,0,9\n")
    scan = run(open_frames(path, positions=listing))
    assert scan.names == ("scan-0", "scan-2")
    assert [int(scan.read(i)[0, 0]) for i in range(2)] == [0, 2]
    assert scan.shape == (2, 12, 16)
    assert [fault.frame for fault in scan.faults] == ["scan-1"]


def bad_sizes(folder):
    write(folder, "frame3.tif", 3, shape=(12, 17))


def sized(folder, name, size_nm):
    """Write a frame of 1 that states a pixel size."""
    image = Micrograph(np.ones((12, 16), np.uint16), (size_nm, size_nm))
    semsr.write(image, folder / name, overwrite=True)


def bad_magnification(folder):
    sized(folder, "frame2.tif", 10)
    sized(folder, "frame9.tif", 10.005)
    sized(folder, "frame10.tif", 20)


def bad_names(folder):
    Image.fromarray(np.zeros((12, 16), np.uint8)).save(folder / "FRAME1.png")


def bad_path(folder):
    table(folder, [("../frame1.tif", 0, 0), ("frame2.tif", 0, 9)])


def bad_header(folder):
    table(folder, [("frame1.tif", 0, 0)], header="name,y,x")


def bad_number(folder):
    table(folder, [("frame1.tif", "nan", 0)])


def bad_twice(folder):
    table(folder, [("frame1.tif", 0, 0), ("frame1.tif", 0, 9)])


def bad_others(folder):
    table(folder, [("other.tif", 0, 0)])


def bad_json(folder):
    (folder / "scan.json").write_text("{grid: 2x2}")


def bad_values(folder):
    (folder / "scan.json").write_text('{"grid": [2, "two"]}')


def bad_order(folder):
    (folder / "scan.json").write_text('{"grid": [2, 2], "order": "by columns"}')


def bad_first(folder):
    (folder / "scan.json").write_text('{"grid": [2, 2], "first": "left"}')


def bad_single(folder):
    for index in (2, 9, 10):
        (folder / f"frame{index}.tif").unlink()


@pytest.mark.parametrize(
    ("spoil", "code", "values"),
    [
        (bad_sizes, "frames-differ", "4 of 12x16 uint16 .* 1 of 12x17"),
        (
            bad_magnification,
            "pixel-size-contradicts",
            "frame2.tif .*10 nm .*frame10.tif .*20 nm",
        ),
        (bad_names, "names-alike", None),
        (bad_path, "outside-folder", None),
        (bad_header, "table-invalid", "frame,y_px,x_px"),
        (bad_number, "table-invalid", "line 2 "),
        (bad_twice, "table-invalid", "frame1.tif"),
        (bad_others, "frames-missing", None),
        (bad_json, "content-invalid", None),
        (bad_values, "content-invalid", r"\[2, 'two'\]"),
        (bad_first, "unknown-value", "top-left, .* or bottom-right, got 'left'"),
        (bad_order, "unknown-value", "or column-serpentine, got 'by columns'"),
        (bad_single, "too-few-frames", None),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_open_frames_refuses_in_one_sentence(folder, spoil, code, values):
    spoil(folder)
    with refused(ReadError, code, match=values) as caught:
        run(open_frames(folder))
    assert "\n" not in str(caught.value)


def test_an_order_that_is_given_is_taken_for_one_that_says_nothing(folder):
    bad_order(folder)
    assert run(open_frames(folder, order="serpentine")).order == "serpentine"


@pytest.mark.parametrize(
    ("rows", "height", "says"),
    [(None, 330, r"30 rows .* look like a data bar.*`databar_rows=30`"),
     (0, 330, ""), (30, 300, "")],
)  # fmt: skip
@pytest.mark.parametrize("pages", [False, True], ids=["files", "pages"])
def test_a_data_bar_that_no_header_tells_of_is_told(
    tmp_path, rng, pages, rows, height, says
):
    data = np.clip(rng.normal(120, 30, (4, 330, 320)), 0, 255).astype(np.uint8)
    data[:, 300:] = 0
    data[:, 310:318, 20:200:6] = 255
    if pages:
        tifffile.imwrite(tmp_path / "scan.tif", data, photometric="minisblack")
    else:
        data[3, 300:] = 100  # the others outvote it
        for index, frame in enumerate(data):
            Image.fromarray(frame).save(tmp_path / f"f{index}.png")
    with capture_warnings((heard := []).append):
        scan = run(open_frames(tmp_path, databar_rows=rows))
    assert scan.shape == (4, height, 320)
    assert np.array_equal(scan.read(2), data[2, :height])
    assert len(heard) == bool(says)
    assert re.search(says, "".join(heard))


@pytest.mark.parametrize(
    ("pages", "code"),
    [(False, "frames-unusable"), (True, "colour-image")],
    ids=["files", "pages"],
)
def test_frames_in_colour_are_taken_by_their_luminance(tmp_path, rng, pages, code):
    data = rng.integers(0, 256, (4, 40, 48, 3), dtype=np.uint8)
    if pages:
        tifffile.imwrite(tmp_path / "scan.tif", data, photometric="rgb")
    else:
        for index, frame in enumerate(data):
            Image.fromarray(frame).save(tmp_path / f"f{index}.png")
    with refused(ReadError, code, match="`colour=luminance`"):
        run(open_frames(tmp_path))
    scan = run(open_frames(tmp_path, colour="luminance"))
    assert scan.shape == (4, 40, 48)
    assert np.allclose(scan.read(2), data[2] @ (0.299, 0.587, 0.114), atol=1)


def test_overexposed_frames_are_told(tmp_path, rng):
    data = rng.integers(0, 4000, (4, 40, 48), dtype=np.uint16)
    data[2] = np.minimum(2 * data[2], 4095)  # of a camera of 12 bits
    data[3, :1] = 4095
    for index, frame in enumerate(data):
        tifffile.imwrite(tmp_path / f"f{index}.tif", frame)
    with capture_warnings((heard := []).append):
        run(open_frames(tmp_path))
    assert re.search(
        r"1 of 4 frames .*4095, cover up to [45]\d % of a frame \(f2.tif\)", *heard
    )


def test_frames_of_few_grey_levels_are_not_overexposed(tmp_path, rng):
    for index in range(3):
        frame = rng.integers(0, 8, (40, 48), dtype=np.uint8)  # each fills an eighth
        tifffile.imwrite(tmp_path / f"f{index}.tif", frame)
    with capture_warnings((heard := []).append):
        run(open_frames(tmp_path))
    assert not heard


@pytest.mark.parametrize(
    ("told", "given", "says"),
    [(20, None, "10 nm, but scan.json has 20 nm"),
     (10.005, None, ""), (20, 15, "")],
)  # fmt: skip
def test_a_scan_that_contradicts_its_frames_is_told(folder, told, given, says):
    sized(folder, "frame2.tif", 10)  # others do not say
    (folder / "scan.json").write_text(json.dumps({"pixel_size_nm": told}))
    with capture_warnings((heard := []).append):
        scan = run(open_frames(folder, pixel_size_nm=given))
    assert scan.pixel_size_nm == (given or told,) * 2
    assert len(heard) == bool(says)
    assert says in "".join(heard)


def test_open_frames_refuses_a_wrong_grid(folder):
    with refused(OptionError, "grid-mismatch", match=" 9 frames, got 4"):
        run(open_frames(folder, grid=(3, 3)))


def test_frames_notice_that_a_file_changed(folder):
    scan = run(open_frames(folder))
    write(folder, "frame2.tif", 2, shape=(5, 5))
    with refused(ReadError, "content-changed"):
        scan.read(1)


def test_open_frames_takes_tiles_of_a_czi(shared_data):
    pytest.importorskip("czifile", reason="needs czifile, the extra [czi]")
    scan = run(open_frames(shared_data / "stitch" / "mosaic_test.czi"))
    assert scan.shape == (2, 624, 924)
    assert scan.nominal_px.tolist() == [[0, 0], [0, 832]]
    assert scan.pixel_size_nm == pytest.approx((1083.33, 1083.33), rel=1e-4)
    assert scan.read(1).dtype == np.uint16


def test_open_frames_says_how_to_get_czifile(tmp_path, monkeypatch):
    (tmp_path / "scan.czi").write_bytes(b"ZISRAWFILE" + bytes(64))
    monkeypatch.setitem(sys.modules, "czifile", None)
    with refused(ReadError, "extra-missing"):
        run(open_frames(tmp_path))


@pytest.mark.parametrize("typed", [None, 5])
def test_what_frames_have_in_common_is_warned_of_once(tmp_path, rng, typed):
    for index, frame in enumerate(rng.integers(0, 256, (4, 40, 48), dtype=np.uint8)):
        text = (
            "ImageJ=1.54f\nunit=furlong\ncf=21\n" if index else "ImageJ=1.54f\ncf=21\n"
        )
        how = {"description": text, "resolution": (2 + index, 2 + index)}
        tifffile.imwrite(tmp_path / f"f{index}.tif", frame, metadata=None, **how)
    with capture_warnings((heard := []).append):
        scan = run(open_frames(tmp_path, pixel_size_nm=typed))
        scan.read(0)
    assert len(heard) == (2 if typed is None else 1)
    name = re.escape(tmp_path.name)
    assert re.match(rf"f0.tif: ImageJ.*\(4 such frames of {name} in all\)\.$", heard[0])
    if typed is None:
        end = rf"left unknown \(3 such frames of {name} in all\)\.$"
        assert re.match(rf"f1.tif: ImageJ.*{end}", heard[1])


def test_missing_pixels_of_many_frames_are_warned_of_once(tmp_path, rng):
    frames = rng.random((4, 40, 48), dtype=np.float32)
    frames[:, 0, 0] = -3.4e38
    folder = tmp_path / "apart"
    folder.mkdir()
    for index, frame in enumerate(frames):
        tifffile.imwrite(folder / f"f{index}.tif", frame)
    tifffile.imwrite(tmp_path / "pages.tif", frames, photometric="minisblack")
    for path, end in (
        (folder, r" \(4 such frames of apart in all\)"),
        ("pages.tif", ""),
    ):
        with capture_warnings((heard := []).append):
            scan = run(open_frames(tmp_path / path))
            assert np.isnan(scan.read(1)[0, 0])
        assert len(heard) == 1
        assert re.search(rf"grey values beyond 1e\+15.*missing{end}\.$", heard[0])


COMPOSED = "M\u00fcnchen-\u00e9.tif"
APART = unicodedata.normalize("NFD", COMPOSED)  # as macOS stores it
no_forms = pytest.mark.skipif(
    sys.platform == "darwin", reason="one name there in either form"
)


@no_forms
@pytest.mark.parametrize(
    ("stored", "named"), [(APART, COMPOSED), (COMPOSED, APART)], ids=["NFD", "NFC"]
)
def test_names_match_however_their_letters_are_composed(tmp_path, stored, named):
    write(tmp_path, stored, 1)
    write(tmp_path, "b.tif", 2)
    table(tmp_path, [(named, 0, 7), ("b.tif", 0, 1)])
    scan = run(open_frames(tmp_path))
    assert not scan.faults
    assert dict(zip(scan.names, scan.nominal_px[:, 1], strict=True)) == {
        stored: 7,
        "b.tif": 1,
    }


@no_forms
def test_of_two_forms_of_a_name_each_is_the_one_that_is_written_so(tmp_path):
    write(tmp_path, COMPOSED, 1)
    write(tmp_path, APART, 2)
    table(tmp_path, [(APART, 0, 2), (COMPOSED, 0, 1)])
    scan = run(open_frames(tmp_path))
    assert [scan.read(i)[0, 0] for i in range(2)] == scan.nominal_px[:, 1].tolist()


SYSTEM_FILES = (
    *("Thumbs.db", "ehthumbs.db", "desktop.ini", ".DS_Store", "._frame1.tif"),
    *(
        ".directory",
        "icon" if sys.platform == "win32" else "Icon\r",
        ".hidden.tif",
        "frame1.tif~",
        ".~lock.positions.csv#",
    ),
    *("~$positions.xlsx", "copy.tmp", "notes.md"),
)


def test_only_what_is_read_counts_as_a_file_of_a_scan(folder):
    (folder / "frame2.txt").write_text("$CM_FORMAT JEOL\n")
    table(folder, [(f"frame{i}.tif", 0, 9 * i) for i in (1, 2, 9, 10)])
    (folder / "scan.json").write_text("{}")
    before = run(open_frames(folder))
    names = {path.name for path in before.files}
    frames = {f"frame{i}.tif" for i in (1, 2, 9, 10)}
    assert names == {*frames, "frame2.txt", "positions.csv", "scan.json"}
    for name in SYSTEM_FILES:
        (folder / name).write_bytes(b"x")
    (folder / "@eaDir").mkdir()
    (folder / "@eaDir" / "frame1.tif").write_bytes(b"x")
    after = run(open_frames(folder))
    assert after.files == before.files
    assert (after.names, after.faults) == (before.names, ())
