"""Small scans, made once."""

import pytest

from napari_semsr.core.progress import run
from napari_semsr.stitching.solve import solve_mosaic
from tests.stitching import scans


@pytest.fixture(scope="session")
def scene():
    return scans.texture((520, 520))


@pytest.fixture(scope="session")
def square_scan(scene):
    flat = scans.square_flat(128)
    return scans.cut_scan(scene, flat=flat, flicker=0.05, seed=3)


@pytest.fixture(scope="session")
def round_scan(scene):
    return scans.cut_scan(scene, flat=scans.round_flat(128), overlap=0.36, seed=4)


@pytest.fixture(scope="session")
def square_solution(square_scan):
    return run(solve_mosaic(square_scan.acquisition))
