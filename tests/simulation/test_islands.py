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


def test_depth_is_a_distance_from_the_outline(rng):
    depth = _islands(rng).depth_nm
    inside = depth > 0
    measured = ndimage.distance_transform_edt(inside) * _PIXEL_NM
    core = inside & (depth < 25)
    assert core.sum() > 2000
    # a pixel lies up to half a pixel beyond the outline; corners round the rest
    assert np.median(np.abs(measured - _PIXEL_NM / 2 - depth)[core]) < _PIXEL_NM / 2


def test_islands_lie_as_densely_as_the_pitch_says(rng):
    _, count = ndimage.label(_islands(rng, size_spread=0.0).depth_nm > 0)
    # those that the border cuts count too
    assert count == pytest.approx((200 * _PIXEL_NM / 150) ** 2, rel=0.35)


def test_gaps_are_as_wide_as_stated(rng):
    depth = _islands(rng, gap_spread=0.0, corner_nm=1.0).depth_nm
    ridge = ndimage.minimum_filter(depth, 3) == depth
    shallow = depth[ridge & (depth < 0)]
    assert np.median(shallow) == pytest.approx(-15.0, abs=_PIXEL_NM)


def test_each_island_has_one_grain(rng):
    islands = _islands(rng)
    labels, count = ndimage.label(islands.depth_nm > 2 * _PIXEL_NM)
    numbers = np.arange(1, count + 1)
    least = ndimage.minimum(islands.grain, labels, numbers)
    most = ndimage.maximum(islands.grain, labels, numbers)
    np.testing.assert_array_equal(least, most)
    assert min(least) >= 0
    assert max(most) <= 1
    assert np.ptp(most) > 0.5


def test_missing_cells_lay_carbon_bare_and_sides_need_not_fill_blocks(rng):
    bare = _islands(rng, missing=0.5).depth_nm < -50
    assert 0.2 < bare.mean() < 0.6
    islands = draw_islands(45, _PIXEL_NM, _PACKING, rng)
    assert islands.depth_nm.shape == islands.grain.shape == (45, 45)
