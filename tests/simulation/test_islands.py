import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.simulation.gold import IslandPacking, draw_islands

_PIXEL_NM = 7.1
_PACKING = IslandPacking(
    pitch_nm=150.0, size_spread=0.5, gap_nm=30.0, gap_spread=0.2,
    touching=0.0, missing=0.0, corner_nm=20.0, crooked_nm=0.0,
)  # fmt: skip


def _islands(rng, **changes):
    values = {name: getattr(_PACKING, name) for name in IslandPacking.__slots__}
    return draw_islands(200, _PIXEL_NM, IslandPacking(**(values | changes)), rng)


def test_gaps_are_as_wide_as_stated(rng):
    depth = _islands(rng, gap_spread=0.0, corner_nm=1.0).depth_nm
    ridge = ndimage.minimum_filter(depth, 3) == depth
    shallow = depth[ridge & (depth < 0)]
    assert np.median(shallow) == pytest.approx(-15.0, abs=_PIXEL_NM)
