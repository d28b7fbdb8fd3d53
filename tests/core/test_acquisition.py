"""Acquisition: what is known of a scan, checked once."""

import numpy as np
import pytest

from napari_semsr.core.acquisition import Acquisition, grid_cells
from napari_semsr.core.errors import OptionError, ShapeError
from tests.refusals import refused


def frames(count=4):
    return np.zeros((count, 8, 6), np.uint16)


def acquisition(count=4, **known):
    return Acquisition(frames(count), tuple(f"f{i}" for i in range(count)), **known)


def test_grid_cells_serpentine_turns_every_second_row():
    cells = grid_cells(6, (2, 3), "serpentine")
    assert cells.tolist() == [[0, 0], [0, 1], [0, 2], [1, 2], [1, 1], [1, 0]]


def test_grid_cells_run_by_columns_and_from_any_corner():
    cells = grid_cells(6, (2, 3), "column")
    assert cells.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1], [0, 2], [1, 2]]
    cells = grid_cells(6, (2, 3), "column-serpentine", "bottom-right")
    assert cells.tolist() == [[1, 2], [0, 2], [0, 1], [1, 1], [1, 0], [0, 0]]
    cells = grid_cells(6, (2, 3), "row", "top-right")
    assert cells.tolist() == [[0, 2], [0, 1], [0, 0], [1, 2], [1, 1], [1, 0]]


@pytest.mark.parametrize("grid", [(2, 2), (0, 6), (7, 1), (-2, -3)], ids=str)
def test_grid_cells_refuses_another_number(grid):
    with pytest.raises(OptionError, match="got 6"):
        grid_cells(6, grid)


def test_acquisition_describes_its_frames_and_parses_a_new_pixel_size():
    scan = acquisition(pixel_size_nm=(10.0, 10.0))
    assert (len(scan), scan.shape, scan.frame_shape) == (4, (4, 8, 6), (8, 6))
    assert scan.dtype == np.uint16
    assert scan.read(2).shape == (8, 6)
    assert acquisition().replace(pixel_size_nm=12).pixel_size_nm == (12.0, 12.0)


@pytest.mark.parametrize(
    ("known", "error", "says"),
    [
        ({"nominal_px": np.zeros((3, 2))}, ShapeError, r"\(4, 2\)"),
        ({"nominal_nm": np.zeros((4, 3))}, ShapeError, r"\(4, 2\)"),
        ({"grid": (3, 3)}, OptionError, "needs 9 frames"),
        ({"overlap": 0.0}, OptionError, "without overlap"),
        ({"overlap": 1.0}, OptionError, "between 0 and 1"),
    ],
    ids=["px", "nm", "grid", "no overlap", "all overlap"],
)
def test_acquisition_refuses_contradictions(known, error, says):
    with pytest.raises(error, match=says):
        acquisition(**known)


def test_names_must_differ():
    with refused(ShapeError, "names-alike"):
        Acquisition(frames(2), ("a", "a"))
