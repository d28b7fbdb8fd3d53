"""Orientations depend on the direction of edges, not on contrast, and end at gaps."""

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core import Micrograph
from napari_semsr.registration.refine import (
    compute_orientations,
    compute_outlines,
    create_grid,
    has_structure,
    resample_to_pitch,
)

WIDTH = 1.5


def bar(degrees, side=64):
    """A bright line through the middle, whose edges rise at this angle from x."""
    y, x = np.indices((side, side)) - (side - 1) / 2
    turn = np.radians(degrees)
    across = x * np.cos(turn) + y * np.sin(turn)
    return np.exp(-(across**2) / 18)


@pytest.mark.parametrize("degrees", [0, 30, 90, 135])
def test_orientations_have_the_double_angle_of_edges(degrees):
    image = 100 * bar(degrees)
    field = compute_orientations(image, WIDTH)
    strong = np.abs(field) > 0.9
    assert strong.sum() > 100
    expected = np.exp(2j * np.radians(degrees))
    assert np.abs(field[strong] / np.abs(field[strong]) - expected).max() < 0.05
    assert np.abs(field).max() < 1
    np.testing.assert_allclose(
        compute_orientations(7 - 3 * image, WIDTH), field, atol=1e-3
    )
    outline, rise = compute_outlines(image, WIDTH)
    other, falls = compute_outlines(7 - 3 * image, WIDTH)
    np.testing.assert_allclose(other, outline, atol=1e-3)
    np.testing.assert_allclose(falls[strong], -rise[strong], atol=1e-3)
    middle = np.abs(outline) > 0.8 * np.abs(outline).max()
    assert np.abs(outline[middle] / np.abs(outline[middle]) - expected).max() < 0.05
    y, x = np.indices(image.shape) - 31.5
    turn = np.radians(degrees)
    far = x * np.cos(turn) + y * np.sin(turn)
    edge = np.hypot(3, WIDTH)  # of the bar, after the filter
    assert np.median(np.abs(far[middle])) == pytest.approx(edge, abs=0.4)
    inner = middle & (np.hypot(y, x) < 20)
    towards = np.exp(1j * turn) * -np.sign(far[inner])  # to the brighter side
    assert np.abs(rise[inner] - towards).max() < 0.05


def test_noise_is_weaker_than_a_clear_edge_and_flat_images_have_none(rng):
    noise = np.abs(compute_orientations(rng.normal(0, 1, (128, 128)), WIDTH))
    assert np.median(noise[4:-4, 4:-4]) == pytest.approx(1 / 3, abs=0.03)
    for flat in (np.full((64, 64), 1e4), np.full((64, 64), np.nan)):
        assert not compute_orientations(flat, WIDTH).any()
        assert not compute_outlines(flat, WIDTH)[1].any()


def test_nothing_is_known_near_a_gap_or_the_border(rng):
    image = ndimage.gaussian_filter(rng.normal(size=(64, 64)), 1)
    image[20:24, 30:36] = np.nan
    near = 4  # 2.5 widths of the filter
    expected = np.zeros((64, 64), bool)
    expected[near:-near, near:-near] = True
    expected[20 - near : 24 + near, 30 - near : 36 + near] = False
    both = np.stack([image, image.T])
    outline, rise = compute_outlines(both, WIDTH)
    for field in (compute_orientations(both, WIDTH), outline, rise):
        assert np.array_equal(field[0] != 0, expected)
        assert np.array_equal(field[1] != 0, expected.T)
    trusted = np.zeros((64, 64), bool)
    trusted[:8, 10:20] = True
    kept, _ = compute_outlines(image, WIDTH, keep=trusted)
    assert np.array_equal(kept != 0, trusted)


def test_structure_is_more_than_white_noise(rng):
    noise = rng.normal(0, 10, (128, 128))
    assert not has_structure(noise)
    assert not has_structure(noise + np.linspace(0, 100, 128))  # shading
    assert not has_structure(np.full((128, 128), 1e6))
    assert not has_structure(np.full((128, 128), np.nan))
    seen = noise + 20 * bar(40, 128)
    assert has_structure(seen)
    seen[:30] = np.nan
    assert has_structure(seen)


def test_an_image_of_other_pixels_keeps_its_corner_and_its_greys(rng):
    data = ndimage.gaussian_filter(rng.random((60, 90)), 4)
    image = Micrograph(data.astype(np.float32), (10.0, 20.0), origin=(100.0, -40.0))
    coarse = resample_to_pitch(image, 40.0)
    assert coarse.shape == (15, 45)
    assert coarse.scale == (40, 40)
    assert coarse.origin == (100 - 5 + 20, -40 - 10 + 20)
    means = data.reshape(15, 4, 45, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(coarse.array(), means, atol=0.01)


@pytest.mark.parametrize(
    ("pitch", "shape"),
    [(10, (60, 180)), (7, (85, 257)), (600, (1, 3)), (601, (1, 2)), (4000, (1, 1))],
)
def test_a_grid_of_square_pixels_lies_within_the_image(pitch, shape):
    image = Micrograph(np.zeros((60, 90)), (10.0, 20.0), origin=(100.0, -40.0))
    grid = create_grid(image, pitch)
    assert grid.shape == shape
    assert grid.pitch == (pitch, pitch)
    assert grid.corner == (95, -50)


@pytest.mark.parametrize(("share", "expected"), [(0.6, False), (1.4, True)])
def test_structure_has_as_much_power_as_noise_in_its_band(share, expected, rng):
    noise, other = rng.normal(0, 10, (2, 256, 256))
    smooth = ndimage.gaussian_filter(other, 3)

    def power(image):
        band = ndimage.gaussian_filter(image, 1.5) - ndimage.gaussian_filter(image, 8)
        return band.var()

    weight = np.sqrt(share * power(noise) / power(smooth))
    assert has_structure(noise + weight * smooth) == expected
