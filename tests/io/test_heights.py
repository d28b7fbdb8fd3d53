"""The table of heights beside the folders that it names."""

import numpy as np
import pytest

from napari_semsr.core import Acquisition, ReadError
from napari_semsr.io import read_heights, select_frames
from tests.refusals import refused


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
    with refused(ReadError, code, match=values):
        read_heights(folder)


def test_chosen_frames_keep_their_places(rng):
    frames = rng.random((4, 10, 20))
    scan = Acquisition(frames, tuple("abcd"), grid=(2, 2), overlap=0.25)
    part = select_frames(scan, {"a", "c", "d", "x"})
    assert part.names == ("a", "c", "d")
    assert np.array_equal(part.read(1), scan.read(2))
    assert part.nominal_px.tolist() == [[0, 0], [7.5, 0], [7.5, 15]]
    assert select_frames(scan, set("abcd")) is scan
