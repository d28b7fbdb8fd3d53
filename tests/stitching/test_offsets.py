"""Shifts of pairs: boxes, surfaces, candidates."""

from types import SimpleNamespace

import numpy as np
import pytest

from napari_semsr.stitching.pairwise import (
    compute_overlap_boxes,
    correlate_frames,
    find_highest_peaks,
)


def test_surface_needs_an_overlap():
    frames = plain(*np.ones((2, 40, 56)))
    assert correlate_frames(frames, (0, 1), (200, 0), (5, 5)) is None


def plain(*bands):
    """Frames of these band-passed images, equally sure of each pixel."""
    return SimpleNamespace(
        frame_shape=bands[0].shape,
        root=np.ones(bands[0].shape),
        band_pass=lambda index: np.asarray(bands[index], np.float32),
        grain=1.0,
    )


@pytest.mark.parametrize(
    ("nominal", "reach"), [((14, -3), (30, 2)), ((3, 40), (4, 6))], ids=str
)
def test_a_surface_is_that_of_sums_over_every_overlap(nominal, reach, rng):
    one, two = rng.normal(size=(2, 40, 56)).astype(np.float32)
    found = correlate_frames(plain(one, two), (0, 1), nominal, reach)
    assert found.origin == (nominal[0] - reach[0], nominal[1] - reach[1])
    assert found.cross.shape == (2 * reach[0] + 1, 2 * reach[1] + 1)
    for y, x in np.ndindex(*found.cross.shape):
        shift = found.origin[0] + y, found.origin[1] + x
        boxes = compute_overlap_boxes(one.shape, shift)
        if boxes is None:
            assert found.cross[y, x] == 0
            continue
        first, second = one[boxes[0].slices], two[boxes[1].slices]
        power = float((first**2 * second**2).sum())
        assert found.variance[y, x] == pytest.approx(power, abs=0.02)
        wide = min(first.shape) >= 8 and first.size >= 400
        product = float((first * second).sum()) * wide
        assert found.cross[y, x] == pytest.approx(product, abs=0.02)


def test_peaks_are_apart_and_the_next_period_of_a_lattice_is_listed():
    score = np.zeros((60, 60))
    places = [(5, 5), (5, 9), (20, 20), (20, 23), (40, 40), (50, 10)]
    for place, height in zip(places, (9, 8, 7, 6, 5, 4.4), strict=True):
        score[place] = height
    far = [(5, 5), (5, 9), (20, 20), (40, 40)]  # one is three pixels off
    assert find_highest_peaks(score, None)[:4] == far
    assert find_highest_peaks(score, 4.4) == far
    assert find_highest_peaks(-score, None) == []
    lattice = np.zeros((63, 63))
    lattice[::7, ::7] = 6.0 + np.arange(81).reshape(9, 9) / 81
    assert len(find_highest_peaks(lattice, None)) == 40
