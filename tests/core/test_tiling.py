import numpy as np
from hypothesis import given, settings, strategies as st

from napari_semsr.core import Box, ShapeError, plan_blocks, plan_tiles
from tests.refusals import refused

plans = st.builds(
    lambda shape, core, halo, stride, constant: plan_tiles(
        shape, core=core * stride, halo=halo, stride=stride, constant=constant
    ),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.integers(1, 12),
    st.integers(0, 30),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
)

sides = st.integers(-20, 20)
boxes = st.builds(
    Box.from_shape,
    st.tuples(st.integers(0, 20), st.integers(0, 20)),
    st.tuples(sides, sides),
)


def pixels(box):
    return {(y, x) for y in range(box.y0, box.y1) for x in range(box.x0, box.x1)}


@given(boxes, boxes)
def test_intersection_and_union_hold_the_common_and_both(one, other):
    common, union = one.intersection(other), one.union(other)
    assert pixels(common) == pixels(one) & pixels(other)
    assert one.overlaps(other) == other.overlaps(one) == bool(pixels(common))
    assert union == other.union(one)
    assert one.intersection(union) == one
    assert (union.y0, union.x1) == (min(one.y0, other.y0), max(one.x1, other.x1))
    assert (union.x0, union.y1) == (min(one.x0, other.x0), max(one.y1, other.y1))


@settings(max_examples=80, deadline=None)
@given(plans)
def test_cores_partition_the_field(plan):
    seen = np.zeros(plan.shape, dtype=int)
    for tile in plan:
        seen[tile.core.slices] += 1
    assert (seen == 1).all()
    assert len(plan) == len(plan.tiles) == plan.grid[0] * plan.grid[1]


@settings(max_examples=80, deadline=None)
@given(plans)
def test_windows_lie_on_the_stride_and_hold_halo_or_border(plan):
    height, width = plan.padded_shape
    for tile in plan:
        w, c = tile.window, tile.core
        assert not any(v % plan.stride for v in (w.y0, w.y1, w.x0, w.x1))
        assert 0 <= w.y0 <= w.y1 <= height
        assert 0 <= w.x0 <= w.x1 <= width
        assert w.y0 == 0 or c.y0 - w.y0 >= plan.halo
        assert w.x0 == 0 or c.x0 - w.x0 >= plan.halo
        assert w.y1 == height or w.y1 - c.y1 >= plan.halo
        assert w.x1 == width or w.x1 - c.x1 >= plan.halo
    if plan.constant:
        assert len({tile.window.shape for tile in plan}) == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(8, 70), st.integers(8, 70), st.integers(1, 8), st.integers(1, 9))
def test_blocks_fit_and_one_more_would_not(height, width, block, step):
    plan = plan_blocks((height, width), block=block, step=step)
    corners = plan.corners
    assert corners.shape == (plan.grid[0] * plan.grid[1], 2)
    last = corners.max(axis=0)
    assert (last + block <= (height, width)).all()
    assert (last + step + block > (height, width)).all()
    assert plan.origin == ((block - 1) / 2,) * 2


def test_plans_refuse_what_cannot_be_cut():
    with refused(ShapeError, "image-too-small"):
        plan_blocks((30, 100), block=64, step=16)
