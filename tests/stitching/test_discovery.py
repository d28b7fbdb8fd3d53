"""Frames of which nothing is known."""

import numpy as np
import pytest

from napari_semsr.core import RegistrationError, run
from napari_semsr.stitching import StitchOptions, UnplacedFramesError, solve_mosaic
from tests.refusals import refused
from tests.stitching import scans


def test_a_scan_without_detail_that_occurs_once_is_refused():
    y, x = np.indices((400, 400)) / 9.0
    scene = 0.5 + 0.2 * np.sin(y) * np.sin(x)
    scan = scans.cut_scan(scene, side=96, known="nothing", overlap=0.3, sigma=2)
    with refused(RegistrationError, "ambiguous"):
        run(solve_mosaic(scan.acquisition))


ORDERS = [((3, 4), "serpentine", "bottom-right"), ((10, 2), "row", "bottom-left")]


@pytest.mark.parametrize(("grid", "order", "first"), ORDERS)
def test_a_refused_order_names_the_one_that_places_the_frames(grid, order, first):
    how = {"side": 96, "overlap": 0.25, "jitter": 2, "grid": grid, "known": "grid"}
    scene = scans.texture((840, 400), 4)
    scan = scans.cut_scan(scene, order=order, first=first, **how)
    stated = scan.acquisition.replace(order="row", first="top-left")
    with pytest.raises(UnplacedFramesError) as refused:
        run(solve_mosaic(stated))
    best = refused.value.grids[0]
    assert f"{grid[0]}x{grid[1]}, order {order}, first {first}" in str(refused.value)
    typed = StitchOptions(grid=best.grid, order=best.order, first=best.first)
    solution = run(solve_mosaic(stated, typed))
    assert scans.errors(solution.positions_px, scan.truth)[1] < 0.2
