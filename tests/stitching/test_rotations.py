"""Turn and scale of single frames."""

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core.progress import run
from napari_semsr.stitching import StitchOptions, solve_mosaic
from tests.stitching import scans


@pytest.fixture(scope="module")
def turned():
    """A scan whose frames are turned by half a degree and scaled by half a percent."""
    rng = np.random.default_rng(2)
    scene = scans.texture((560, 560), 3, blur=2.0)
    scan = scans.cut_scan(scene, side=128, overlap=0.4, seed=2, sigma=3)
    turns = rng.normal(0, (0.009, 0.005), (9, 2))
    turns -= turns.mean(axis=0)
    data = []
    centre = np.array([63.5, 63.5])
    for place, (turn, scale) in zip(scan.truth, turns, strict=True):
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        matrix = np.linalg.inv((1 + scale) * matrix)
        offset = place + centre - matrix @ centre
        how = {"output_shape": (128, 128), "order": 5}
        frame = ndimage.affine_transform(scene, matrix, offset, **how)
        noise = rng.normal(0, scan.sigma, frame.shape)
        data.append(np.clip(frame * scans.FULL + noise, 0, 65535).astype(np.uint16))
    frames = np.stack(data)
    return scan.acquisition.replace(frames=frames), scan.truth, turns


def test_rotation_finds_turn_scale_and_place(turned):
    acquisition, truth, turns = turned
    solution = run(solve_mosaic(acquisition, StitchOptions(rotation=True)))
    found = solution.turns - solution.turns.mean(axis=0)
    assert np.abs(found - turns).max() < 1e-3
    assert scans.errors(solution.positions_px, truth)[1] < 0.1


@pytest.mark.broad
def test_rotation_finds_nothing_where_there_is_none(square_scan):
    solution = run(solve_mosaic(square_scan.acquisition, StitchOptions(rotation=True)))
    assert np.abs(solution.turns).max() < 1e-3
    assert scans.errors(solution.positions_px, square_scan.truth)[1] < 0.03
