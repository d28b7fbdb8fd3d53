import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.analysis import ObjectCount, count_objects
from napari_semsr.core import ShapeError

SIDE, STEP, DIAMETER = 200, 25, 8
PLACES = [(y, x) for y in range(25, 176, STEP) for x in range(25, 176, STEP)]


def discs(places, levels=None, diameter=DIAMETER):
    """Discs of one diameter, of grey level 1 on 0, softened by half a pixel."""
    y, x = np.mgrid[:SIDE, :SIDE]
    image = np.zeros((SIDE, SIDE))
    for number, (row, column) in enumerate(places):
        level = 1.0 if levels is None else levels[number]
        image[np.hypot(y - row, x - column) <= diameter / 2] = level
    return ndimage.gaussian_filter(image, 0.7)


def noisy(image, sigma=0.05, seed=0):
    return image + np.random.default_rng(seed).normal(0, sigma, image.shape)


def test_missing_added_and_inverted_objects_are_counted():
    reference = noisy(discs(PLACES))
    added = [(y + 12, x + 12) for y, x in PLACES[:3]]
    levels = [1.0] * 39 + [-1.0] * 5 + [1.0] * 3
    image = noisy(discs([*PLACES[:44], *added], levels), seed=1)
    found = count_objects(image, reference)
    assert (found.objects, found.shown, found.missed) == (49, 39, 10)
    assert (found.inverted, found.drawn, found.invented) == (5, 47, 3 + 5)


def test_grey_levels_of_another_scale_change_no_count():
    reference = noisy(discs(PLACES))
    image = noisy(discs(PLACES[:40]), seed=1)
    assert count_objects(300 * image + 7, reference) == count_objects(image, reference)


def test_noise_and_straight_lines_are_no_objects():
    lines = np.zeros((SIDE, SIDE))
    lines[:, 20::30] = 1
    lines = noisy(ndimage.gaussian_filter(lines, 1.5), 0.02)
    assert count_objects(lines, lines, DIAMETER).objects == 0


def test_images_of_other_shapes_or_too_small_are_refused():
    with pytest.raises(ShapeError):
        count_objects(np.zeros((50, 50)), np.zeros((50, 51)))
    with pytest.raises(ShapeError):
        count_objects(np.zeros((20, 50)), np.zeros((20, 50)), 8.0)


def test_counts_of_two_images_are_added():
    counts = {"objects": 8, "shown": 6, "missed": 2, "inverted": 1}
    found = ObjectCount(diameter_px=4, drawn=10, invented=3, **counts)
    both = found + found
    assert (both.missed, both.drawn, both.diameter_px) == (4, 20, 4)
