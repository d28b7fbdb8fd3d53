"""Acquisition: what is known of a scan, checked once."""

import copy

import numpy as np
import pytest

from napari_semsr.core import BoundedCache, check_grid_options
from napari_semsr.core.acquisition import Acquisition, compute_grid_cells
from napari_semsr.core.errors import OptionError, ShapeError
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
    cells = compute_grid_cells(6, (2, 3), "row", "top-right")
    assert cells.tolist() == [[0, 2], [0, 1], [0, 0], [1, 2], [1, 1], [1, 0]]


@pytest.mark.parametrize("grid", [(2, 2), (0, 6), (7, 1), (-2, -3)], ids=str)
def test_grid_cells_refuses_another_number(grid):
    with refused(OptionError, "grid-mismatch", match="got 6"):
        compute_grid_cells(6, grid)


def test_acquisition_describes_its_frames_and_parses_a_new_pixel_size():
    scan = acquisition(pixel_size_nm=(10.0, 10.0))
    assert (len(scan), scan.shape, scan.frame_shape) == (4, (4, 8, 6), (8, 6))
    assert scan.dtype == np.uint16
    assert scan.read(2).shape == (8, 6)
    assert acquisition().replace(pixel_size_nm=12).pixel_size_nm == (12.0, 12.0)


PLACES = np.array([[0.0, 0.0], [0.0, 40.0], [60.0, 0.0], [60.0, 40.0]])


@pytest.mark.parametrize(
    ("known", "corners"),
    [
        ({"nominal_px": PLACES, "grid": (2, 2), "overlap": 0.5}, PLACES),
        ({"nominal_nm": PLACES, "pixel_size_nm": (10.0, 20.0)}, PLACES / (10, 20)),
        (
            {"nominal_nm": PLACES, "grid": (2, 2), "overlap": 0.25},
            PLACES / (10, 80 / 9),
        ),
        (
            {"cells": PLACES // 40, "grid": (2, 2), "overlap": 0.25},
            PLACES / (10, 80 / 9),
        ),
    ],
    ids=["px", "nm", "nm of unknown pixels", "cells"],
)
def test_nominal_corners_are_in_pixels(known, corners):
    np.testing.assert_allclose(acquisition(**known).nominal_corners(), corners)


def test_corners_need_a_grid_and_its_overlap_or_positions():
    for known in ({}, {"grid": (2, 2)}, {"overlap": 0.1}, {"nominal_nm": PLACES}):
        assert acquisition(**known).nominal_corners() is None
    assert acquisition().grid_cells().tolist() == [[0, 0], [0, 1], [0, 2], [0, 3]]


@pytest.mark.parametrize(
    ("options", "positions", "names"),
    [
        ({"order": "row"}, False, "^Order "),
        ({"order": "row", "overlap": 0.1}, False, "^Order and overlap "),
        (
            {"overlap": 0.1, "first": "top-left", "order": "row"},
            True,
            "^Order, first and overlap .* order, first and overlap,",
        ),
    ],
)
def test_options_of_a_grid_need_one(options, positions, names):
    with refused(OptionError, "grid-missing", match=names):
        check_grid_options(None, options, has_positions=positions)
    check_grid_options((2, 2), options, has_positions=positions)
    check_grid_options(None, {"order": None, "size": 3}, has_positions=positions)


def test_a_cache_keeps_what_was_used_last_up_to_its_size():
    cache, made = BoundedCache(100), []

    def get(key, size):
        if cache.get(key) is None:
            made.append(key)
            parts = np.zeros(size // 2, np.uint8), np.zeros(size - size // 2, np.uint8)
            cache.put(key, parts if size > 1 else parts[1])

    def remade(*keys):
        made.clear()
        for key in keys:
            get(key, 1)
        return made

    get("a", 40), get("b", 40), get("a", 40), get("c", 30)
    assert remade("a", "c", "b") == ["b"]
    get("d", 29)  # a hundred bytes in all
    assert remade("a", "b", "c", "d") == []
    cache.drop("a")
    cache.drop("a")
    get("e", 40)
    assert remade("b", "c", "d", "e", "a") == ["a"]  # at one byte
    get("f", 101)  # alone, though too large
    assert remade("f") == []
    assert remade("e") == ["e"]
    assert copy.copy(cache).limit_bytes == 100  # as another process gets it


@pytest.mark.parametrize(
    ("known", "error", "code"),
    [
        ({"nominal_px": np.zeros((3, 2))}, ShapeError, "wrong-shape"),
        ({"nominal_nm": np.zeros((4, 3))}, ShapeError, "wrong-shape"),
        ({"grid": (3, 3)}, OptionError, "grid-mismatch"),
        ({"overlap": 0.0}, OptionError, "out-of-range"),
        ({"overlap": 1.0}, OptionError, "out-of-range"),
    ],
    ids=["px", "nm", "grid", "no overlap", "all overlap"],
)
def test_acquisition_refuses_contradictions(known, error, code):
    with refused(error, code):
        acquisition(**known)


def test_names_must_differ():
    with refused(ShapeError, "names-alike"):
        Acquisition(frames(2), ("a", "a"))
