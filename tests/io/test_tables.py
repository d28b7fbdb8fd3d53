"""Tables of images, landmarks and heights, as we and as people write them."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from napari_semsr import core
from napari_semsr.io import read_heights, read_landmarks, select_frames, write_landmarks
from napari_semsr.io.layers import list_images
from napari_semsr.io.sheets import check_sheet_path, read_sheet, write_sheet
from tests.refusals import refused

CELLS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")))


@settings(max_examples=30)
@given(st.lists(st.tuples(CELLS, CELLS).filter(any), min_size=1))
def test_read_sheet_gives_what_write_sheet_wrote(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("sheet") / "table.csv"
    first, second = zip(*rows, strict=True)
    write_sheet(path, {"image": first, "note, with comma": second})
    sheet = read_sheet(path, "images")
    assert sheet.names == ("image", "note, with comma")
    assert [row for _, row in sheet.rows] == rows


@pytest.mark.parametrize(
    ("bytes_", "code"),
    [
        (b"\xff\xfe\x00image", "encoding-unknown"),
        ("image,probe\na.tif,grün\n".encode("latin-1"), "encoding-unknown"),
        (b'image\n"' + b"never" * 40_000, "table-invalid"),
    ],
    ids=["utf-16", "latin-1", "quote"],
)
def test_read_sheet_refuses_what_is_no_table(tmp_path, bytes_, code):
    path = tmp_path / "table.csv"
    path.write_bytes(bytes_)
    with refused(core.ReadError, code):
        read_sheet(path, "images")


def test_parquet_has_types_and_comes_back(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra [table]")
    path = tmp_path / "table.parquet"
    columns = {
        "image": ["a.tif", "b.tif"],
        "width_nm": [1, 2.5],
        "seen": [True, None],
        "error": [None, None],
    }
    write_sheet(path, columns)
    kinds = [str(field.type) for field in parquet.read_schema(path)]
    assert kinds == ["string", "double", "bool", "string"]
    assert parquet.read_table(path).to_pydict() == columns
    rows = [row for _, row in read_sheet(path, "images").rows]
    assert rows == [("a.tif", "1", "true", ""), ("b.tif", "2.5", "", "")]


def test_parquet_says_how_to_get_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "table.parquet"
    with refused(core.WriteError, "extra-missing"):
        check_sheet_path(path)
    path.write_bytes(b"PAR1")
    with refused(core.ReadError, "extra-missing"):
        read_sheet(path, "images")


def test_list_images_takes_images_and_stores_in_natural_order(tmp_path):
    for name in ("b10.tif", "b9.PNG", ".hidden.tif", "notes.txt", "table.csv"):
        (tmp_path / name).write_bytes(b"?")
    for name in ("a.ome.zarr", "folder", "odd.tif"):
        (tmp_path / name).mkdir()
    found = [path.name for path in list_images(tmp_path)]
    assert found == ["a.ome.zarr", "b9.PNG", "b10.tif"]


MOVING = core.Micrograph(
    np.zeros((50, 60)), core.parse_pixel_size((10, 20)), "optical", origin=(100, -50)
)
FIXED = core.Micrograph(np.zeros((90, 80)), core.parse_pixel_size(5), "SEM")
HEADER = "moving_y_nm,moving_x_nm,fixed_y_nm,fixed_x_nm"


def _read(tmp_path, text, moving=MOVING, fixed=FIXED):
    path = tmp_path / "landmarks.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_landmarks(path, moving, fixed)


def test_landmarks_come_back(tmp_path):
    rng = np.random.default_rng(0)
    ours, theirs = rng.uniform(-1e6, 1e6, (2, 5, 2))
    path = tmp_path / "landmarks.csv"
    write_landmarks(path, ours, theirs)
    assert path.read_text().splitlines()[0] == HEADER
    moving, fixed = read_landmarks(path, MOVING, FIXED)
    np.testing.assert_allclose(moving, ours, atol=1e-6)
    np.testing.assert_allclose(fixed, theirs, atol=1e-6)


def test_pixels_are_counted_from_the_centre_of_the_first(tmp_path):
    table = "moving_y_px,moving_x_px,fixed_y_nm,fixed_x_nm\n0,0,7,8\n2.5,3,1,2\n"
    moving, fixed = _read(tmp_path, table)
    np.testing.assert_allclose(moving, [[100, -50], [125, 10]])
    np.testing.assert_allclose(fixed, [[7, 8], [1, 2]])


def test_tables_of_spreadsheets_are_read(tmp_path):
    table = "\ufeff" + HEADER.replace(",", ";") + "\n1,5;2;3;4,25\n"
    moving, fixed = _read(tmp_path, table)
    np.testing.assert_allclose(np.hstack([moving, fixed]), [[1.5, 2, 3, 4.25]])


@pytest.mark.parametrize(
    ("text", "code", "values"),
    [
        ("index,axis-0,axis-1\n0,1,2\n", "table-invalid", "moving_y.* index,axis-0"),
        (HEADER.replace("x_nm", "x_px") + "\n1,2,3,4\n", "table-invalid", "x_px"),
        (HEADER + "\n1,2,3,4\n1,2,x,4\n", "table-invalid", "line 3 .*'x'"),
        (HEADER + "\n1,2,3\n", "table-invalid", "line 2 .*''"),
        (HEADER + "\n1,2,3,nan\n", "table-invalid", "'nan'"),
        (b"\xff\xfe\x00\x01", "encoding-unknown", None),
    ],
    ids=["napari", "units", "text", "short", "nan", "binary"],
)
def test_what_is_no_table_is_refused(tmp_path, text, code, values):
    with refused(core.ReadError, code, match=values):
        _read(tmp_path, text)


def test_nanometres_need_a_pixel_size(tmp_path):
    bare = core.Micrograph(np.zeros((5, 5)), name="bare")
    with refused(core.ReadError, "pixel-size-missing", match="bare"):
        _read(tmp_path, HEADER + "\n1,2,3,4\n", moving=bare)
    table = HEADER.replace("nm", "px") + "\n1,2,3,4\n"
    moving, _ = _read(tmp_path, table, moving=bare)
    np.testing.assert_allclose(moving, [[1, 2]])


@pytest.fixture
def folder(tmp_path):
    for name in ("z_000", "z_001", "z_002"):
        (tmp_path / name).mkdir()
    return tmp_path


def table(folder, text):
    (folder / "heights.csv").write_text(text)
    return folder


def test_heights_come_rising(folder):
    text = "folder;z_nm;note\nz_002;-50;low\nz_000;120,5\n\nz_001;0\n"
    found = [(path.name, z) for path, z in read_heights(table(folder, text))]
    assert found == [("z_002", -50.0), ("z_001", 0.0), ("z_000", 120.5)]


@pytest.mark.parametrize(
    ("text", "code", "values"),
    [
        (None, "file-missing", r"heights\.csv"),
        ("frame,z_nm\nz_000,1\n", "table-invalid", "got frame,z_nm"),
        ("folder,z_nm\nz_000,1\n", "too-few-heights", None),
        ("folder,z_nm\nz_000,1\nz_001,nan\n", "table-invalid", "line 3 .*'nan'"),
        ("folder,z_nm\nz_000,1\nz_003,2\n", "folder-missing", "line 3 .*'z_003'"),
        ("folder,z_nm\nz_000,1\nz_000,2\n", "table-invalid", "line 3 "),
        ("folder,z_nm\nz_000,1\nz_001,1\n", "table-invalid", "line 3 "),
        ("folder,z_nm\nz_000,1\n../x,2\n", "outside-folder", None),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(folder, text, code, values):
    if text is not None:
        table(folder, text)
    with refused(core.ReadError, code, match=values):
        read_heights(folder)


def test_chosen_frames_keep_their_places(rng):
    frames = rng.random((4, 10, 20))
    scan = core.Acquisition(frames, tuple("abcd"), grid=(2, 2), overlap=0.25)
    part = select_frames(scan, {"a", "c", "d", "x"})
    assert part.names == ("a", "c", "d")
    assert np.array_equal(part.read(1), scan.read(2))
    assert part.nominal_px.tolist() == [[0, 0], [7.5, 0], [7.5, 15]]
    assert select_frames(scan, set("abcd")) is scan
