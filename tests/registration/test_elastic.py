"""A bending is followed where patches show it, and is zero where they show none."""

import numpy as np
import pytest

from napari_semsr.core import (
    Affine,
    BSplineDisplacement,
    Elastic,
    Grid,
    WarpedImage,
    run,
)
from napari_semsr.registration.elastic import fit_elastic
from napari_semsr.registration.refine import PyramidLevel
from tests.two_views import PIXEL_NM, draw_views

ORIGIN = (5000.0, -3000.0)


@pytest.fixture(scope="module")
def image():
    _, fixed, _ = draw_views(136, seed=6)
    return fixed.replace(data=np.asarray(fixed.data)[:, :118], origin=ORIGIN)


def bent_pair(image, size_px):
    """An image and what it shows through a bending of so many pixels."""
    spacing, first = 80 * PIXEL_NM, -100 * PIXEL_NM
    moves = np.random.default_rng(2).normal(0, size_px * PIXEL_NM, (2, 6, 6))
    begin = first + ORIGIN[0], first + ORIGIN[1]
    bending = BSplineDisplacement(begin, (spacing, spacing), moves)
    seen = WarpedImage(image, Grid.from_image(image), Elastic(Affine(), bending)).read()
    rng = np.random.default_rng(3)
    noisy = np.asarray(seen) + rng.normal(0, 5, seen.shape)
    return image.replace(data=noisy.astype(np.float32)), bending


@pytest.mark.quick(1)
def test_a_bending_is_followed_to_a_sixth_of_a_pixel(image):
    other, true = bent_pair(image, 4.0)
    found = run(fit_elastic(PyramidLevel(image, other, PIXEL_NM), Affine()))
    along = [np.linspace(0.15, 0.85, 12) * side * PIXEL_NM for side in image.shape]
    places = np.stack(np.meshgrid(*along, indexing="ij"), -1).reshape(-1, 2)
    places += ORIGIN
    made = found.transform.bending.displacement(places)
    off = (made - true.displacement(places)) / PIXEL_NM
    assert np.median(np.hypot(*off.T)) < 0.15
    assert np.hypot(*off.T).max() < 0.5
    stated = np.sqrt(found.compute_variance(places).mean()) / PIXEL_NM
    assert 0.2 < np.sqrt((off**2).sum(axis=1).mean()) / stated < 5
    assert abs(found.edge_nm) < 0.1 * PIXEL_NM
    # knots beyond the field: a displacement of the whole is one up to its border
    ends = np.multiply(image.shape, PIXEL_NM) - PIXEL_NM
    corners = ORIGIN + np.array([[0, 0], [0, 1], [1, 0], [1, 1]]) * ends
    assert found.knots.evaluate_basis(corners).sum(axis=1) == pytest.approx(np.ones(4))


def test_too_few_patches_bend_nothing(image):
    empty = image.replace(data=np.full(image.shape, np.nan, np.float32))
    assert run(fit_elastic(PyramidLevel(empty, image, PIXEL_NM), Affine())) is None
