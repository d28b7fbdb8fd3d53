import sys

import pytest
from hypothesis import given, settings, strategies as st

from napari_semsr.core.errors import ReadError, WriteError
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
    with refused(ReadError, code):
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
    with refused(WriteError, "extra-missing"):
        check_sheet_path(path)
    path.write_bytes(b"PAR1")
    with refused(ReadError, "extra-missing"):
        read_sheet(path, "images")


def test_list_images_takes_images_and_stores_in_natural_order(tmp_path):
    for name in ("b10.tif", "b9.PNG", ".hidden.tif", "notes.txt", "table.csv"):
        (tmp_path / name).write_bytes(b"?")
    for name in ("a.ome.zarr", "folder", "odd.tif"):
        (tmp_path / name).mkdir()
    found = [path.name for path in list_images(tmp_path)]
    assert found == ["a.ome.zarr", "b9.PNG", "b10.tif"]
