import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.simulation.gold import IslandPacking, draw_islands

_PIXEL_NM = 7.1
_PACKING = IslandPacking(
    pitch_nm=150.0, size_spread=0.5, gap_nm=30.0, gap_spread=0.0,
    touching=0.0, missing=0.0, corner_nm=1.0, crooked_nm=0.0,
)  # fmt: skip


def test_gaps_are_as_wide_as_stated(rng):
    depth = draw_islands(200, _PIXEL_NM, _PACKING, rng).depth_nm
    ridge = ndimage.minimum_filter(depth, 3) == depth
    shallow = depth[ridge & (depth < 0)]
    assert np.median(shallow) == pytest.approx(-15.0, abs=_PIXEL_NM)
