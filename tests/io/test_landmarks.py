"""Landmarks are read as they were written, and as people write them."""

import numpy as np
import pytest

from napari_semsr.core import Micrograph, ReadError, parse_pixel_size
from napari_semsr.io import read_landmarks, write_landmarks
from tests.refusals import refused

MOVING = Micrograph(
    np.zeros((50, 60)), parse_pixel_size((10, 20)), "optical", origin=(100, -50)
)
FIXED = Micrograph(np.zeros((90, 80)), parse_pixel_size(5), "SEM")
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
        ("index,axis-0,axis-1\n0,1,2\n", "table-invalid", "moving_y.* index, axis-0"),
        (HEADER.replace("x_nm", "x_px") + "\n1,2,3,4\n", "table-invalid", "x_px"),
        (HEADER + "\n1,2,3,4\n1,2,x,4\n", "table-invalid", "line 3 .*'x'"),
        (HEADER + "\n1,2,3\n", "table-invalid", "line 2 .*''"),
        (HEADER + "\n1,2,3,nan\n", "table-invalid", "'nan'"),
        (b"\xff\xfe\x00\x01", "encoding-unknown", None),
    ],
    ids=["napari", "units", "text", "short", "nan", "binary"],
)
def test_what_is_no_table_is_refused(tmp_path, text, code, values):
    with refused(ReadError, code, match=values):
        _read(tmp_path, text)


def test_nanometres_need_a_pixel_size(tmp_path):
    bare = Micrograph(np.zeros((5, 5)), name="bare")
    with refused(ReadError, "pixel-size-missing", match="bare"):
        _read(tmp_path, HEADER + "\n1,2,3,4\n", moving=bare)
    table = HEADER.replace("nm", "px") + "\n1,2,3,4\n"
    moving, _ = _read(tmp_path, table, moving=bare)
    np.testing.assert_allclose(moving, [[1, 2]])
