"""Shifts of pairs: boxes, surfaces, candidates."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from napari_semsr.stitching.flat_field import first_flat
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.pairwise import overlap_boxes, search, surface

SHIFT = st.tuples(st.integers(-40, 40), st.integers(-40, 40))


@pytest.fixture(scope="module")
def prepared(round_scan):
    flat = first_flat(round_scan.acquisition)
    return CorrectedFrames(round_scan.acquisition, flat)


@given(shift=SHIFT, grow=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_overlap_boxes_show_the_same_place_within_both_frames(shift, grow):
    shape = (30, 36)
    boxes = overlap_boxes(shape, shift)
    if any(abs(move) >= side for move, side in zip(shift, shape, strict=True)):
        assert boxes is None
        return
    one, two = boxes
    assert one.shape == two.shape
    assert (one.y0 - two.y0, one.x0 - two.x0) == shift
    grown = overlap_boxes(shape, shift, grow)
    for small, large in zip(boxes, grown, strict=True):
        assert 0 <= large.y0 <= small.y0
        assert 0 <= large.x0 <= small.x0
        assert small.y1 <= large.y1 <= shape[0]
        assert small.x1 <= large.x1 <= shape[1]


@pytest.mark.parametrize("pair", [(0, 1), (1, 4)], ids=str)
def test_search_finds_the_shift_of_neighbours(prepared, round_scan, pair):
    nominal = round_scan.acquisition.nominal_px
    expected = np.round(nominal[pair[1]] - nominal[pair[0]]).astype(int)
    found = search(prepared, pair, tuple(expected.tolist()), (16, 16))
    true = round_scan.truth[pair[1]] - round_scan.truth[pair[0]]
    assert np.abs(found.shifts[0] - true).max() < 1
    assert found.best > 10
    assert (np.diff(found.score) <= 0).all()


def test_surface_is_the_correlation_at_every_shift(prepared):
    found = surface(prepared, (0, 1), (2, 80), (3, 4))
    for y, x in ((0, 0), (3, 4), (6, 8), (1, 7)):
        shift = (found.origin[0] + y, found.origin[1] + x)
        one, two = overlap_boxes(prepared.frame_shape, shift)
        product = prepared.band_pass(0)[one.slices] * prepared.band_pass(1)[two.slices]
        scale = np.sqrt((product.astype(float) ** 2).sum())
        assert abs(found.cross[y, x] - product.sum()) < 1e-3 * scale


def test_surface_needs_an_overlap(prepared):
    assert surface(prepared, (0, 1), (200, 0), (5, 5)) is None
    assert search(prepared, (0, 1), (200, 0), (5, 5)).best == 0
