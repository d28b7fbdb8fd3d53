"""Pictures of a scan."""

import numpy as np
import pytest

from napari_semsr.core.acquisition import Acquisition, ArrayFrames
from napari_semsr.reporting.figures import Joint, errors_png, joints_png, lay_frames

PNG = b"\x89PNG\r\n\x1a\n"


def test_lay_frames_puts_the_last_on_top_and_cuts_at_the_border():
    data = np.stack([np.full((10, 10), v, np.uint16) for v in (1, 2, 3)])
    frames = Acquisition(ArrayFrames(data), ("a", "b", "c"))
    lit = np.ones((10, 10), bool)
    lit[0] = False
    corners = np.array([[0.0, 0.0], [4.4, 6.0], [np.nan, np.nan]])
    found = lay_frames(frames, corners, lit, (12, 12))
    assert np.isnan(found[0]).all()
    assert found[1, 0] == 1
    assert found[4, 6] == 1  # the second frame's first row is dark
    assert found[5, 6] == found[11, 11] == 2
    assert 3 not in found


@pytest.mark.parametrize("pixel", [None, (20.0, 20.0)])
@pytest.mark.parametrize("used", [(), (True,), (True, False)])
def test_joints_png_of_any_joints(pixel, used):
    ends = np.array([[5.0, 5.0], [20.0, 30.0]])
    joints = [Joint(ends + 3 * i, 0.5, kept, i > 0) for i, kept in enumerate(used)]
    mosaic = np.full((40, 60), np.nan)
    mosaic[5:30, 5:50] = 1
    made = joints_png(mosaic, joints, pixel, limits=(0, 2), width_px=200)
    assert made.startswith(PNG)


def test_errors_png_leaves_unplaced_frames_away(rng):
    nominal = rng.normal(size=(6, 2))
    solved = nominal / 100
    solved[2] = nominal[2] = np.nan
    assert errors_png(nominal, solved, width_px=300).startswith(PNG)
