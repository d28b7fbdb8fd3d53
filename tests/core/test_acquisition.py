import copy

import numpy as np
import pytest

from napari_semsr.core import BoundedCache
from napari_semsr.core.acquisition import Acquisition, compute_grid_cells
from napari_semsr.core.errors import OptionError
from tests.refusals import refused


def frames(count=4):
    return np.zeros((count, 8, 6), np.uint16)


def acquisition(count=4, **known):
    return Acquisition(frames(count), tuple(f"f{i}" for i in range(count)), **known)


def test_grid_cells_run_by_columns_and_from_any_corner():
    cells = compute_grid_cells(6, (2, 3), "column")
    assert cells.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1], [0, 2], [1, 2]]
    cells = compute_grid_cells(6, (2, 3), "column-serpentine", "bottom-right")
    assert cells.tolist() == [[1, 2], [0, 2], [0, 1], [1, 1], [1, 0], [0, 0]]


def test_grid_cells_refuses_another_number():
    for grid in ((2, 2), (0, 6), (7, 1), (-2, -3)):
        with refused(OptionError, "grid-mismatch"):
            compute_grid_cells(6, grid)


PLACES = np.array([[0.0, 0.0], [0.0, 40.0], [60.0, 0.0], [60.0, 40.0]])
FITTED = PLACES / (10, 80 / 9)


@pytest.mark.parametrize(
    ("known", "corners"),
    [
        ({"nominal_px": PLACES, "grid": (2, 2), "overlap": 0.5}, PLACES),
        ({"nominal_nm": PLACES, "pixel_size_nm": (10.0, 20.0)}, PLACES / (10, 20)),
        ({"nominal_nm": PLACES, "grid": (2, 2), "overlap": 0.25}, FITTED),
        ({"cells": PLACES // 40, "grid": (2, 2), "overlap": 0.25}, FITTED),
    ],
)
def test_nominal_corners_are_in_pixels(known, corners):
    np.testing.assert_allclose(acquisition(**known).nominal_corners(), corners)


def test_corners_need_a_grid_and_its_overlap_or_positions():
    for known in ({}, {"grid": (2, 2)}, {"overlap": 0.1}, {"nominal_nm": PLACES}):
        assert acquisition(**known).nominal_corners() is None
    assert acquisition().grid_cells().tolist() == [[0, 0], [0, 1], [0, 2], [0, 3]]


def test_a_cache_keeps_what_was_used_last_up_to_its_size():
    cache = BoundedCache(100)

    def put(key, size):
        cache.put(key, (np.zeros(size // 2, np.uint8), np.zeros(size // 2, np.uint8)))

    def kept():
        return [key for key in "abcdef" if cache.get(key) is not None]

    put("a", 40), put("b", 40), cache.get("a"), put("c", 30)
    assert kept() == ["a", "c"]
    put("d", 30)  # a hundred bytes in all
    assert kept() == ["a", "c", "d"]
    cache.drop("a")
    cache.drop("a")
    put("e", 60)
    assert kept() == ["d", "e"]
    put("f", 102)  # alone, though too large
    assert kept() == ["f"]
    assert copy.copy(cache).limit_bytes == 100  # as another process gets it


def test_acquisition_refuses_contradictions():
    with refused(OptionError, "grid-mismatch"):
        acquisition().replace(grid=(3, 3))
    for overlap in (0.0, 1.0):
        with refused(OptionError, "out-of-range"):
            acquisition().replace(overlap=overlap)
