"""One scene in pixels of several sizes, drawn or resampled, has the same lengths."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr import analysis
from napari_semsr.core import Micrograph, run

COARSE_NM, SIDE = 4.0, 128  # pixel size and side of the coarsest image
FINE = 6  # pixels in which a scene is drawn, for one of these
WAYS = ["drawn", "splines"]


def draw(shape, factor: int, blur_px: float) -> np.ndarray:
    """Draw a shape behind a blur in coarse pixels, 30 to 130 grey levels."""
    y, x = (np.indices([SIDE * FINE] * 2) + 0.5) * COARSE_NM / FINE
    image = 30 + 100 * np.clip(shape(y, x) * FINE / COARSE_NM + 0.5, 0, 1)
    image = ndimage.gaussian_filter(image, blur_px * FINE, mode="nearest")
    return image.reshape(-1, FINE // factor, SIDE * factor, FINE // factor).mean((1, 3))


def particles(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return distances in nm within the outlines of 36 discs and ellipses."""
    depth = np.full(y.shape, -np.inf)
    for k, (row, column) in enumerate(np.ndindex(6, 6)):
        ratio = 1 + 0.1 * (k % 3)
        cy, cx = 50 + 82 * row, 54 + 82 * column - 6 * (row % 2)
        away = np.hypot((y - cy) * ratio, (x - cx) / ratio)
        depth = np.maximum(depth, 25 + 2 * (k % 4) - away)
    return depth


def lines(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return distances in nm within two vertical lines, 96 nm apart, 24 nm wide."""
    return 12 - np.minimum(np.abs(x - 208), np.abs(x - 304))


def render(shape, factor: int, blur_px: float, noise: float, way: str, rng):
    """Return the scene in coarse or in finer pixels, with noise."""
    if way == "drawn":
        data = draw(shape, factor, blur_px)
        data += rng.normal(0, noise, data.shape)
    else:
        data = draw(shape, 1, blur_px) + rng.normal(0, noise, (SIDE, SIDE))
        data = ndimage.zoom(data, factor, order=3, grid_mode=True, mode="nearest")
    return Micrograph(data, COARSE_NM / factor, "scene")


def overlap(*intervals) -> bool:
    lows, highs = zip(*intervals, strict=True)
    return max(lows) <= min(highs)


@pytest.mark.parametrize("noise", [0.5, 6.0])
@pytest.mark.parametrize("way", WAYS)
def test_gaps_have_the_same_nanometres_at_any_pixel_size(way, noise, rng):
    options = analysis.GapOptions(reach=0.8)
    images = (render(particles, n, 1.2, noise, way, rng) for n in (1, 2, 3))
    first, *others = (run(analysis.measure_gaps(i, options=options)) for i in images)
    assert (first.particles, first.gaps) == (36, first.pairs)
    for found in others:
        assert (found.particles, found.bright) == (36, 36)
        assert (found.pairs, found.gaps) == (first.pairs, first.pairs)
        assert overlap(found.mean_width_interval_nm, first.mean_width_interval_nm)
        assert overlap(found.mean_diameter_interval_nm, first.mean_diameter_interval_nm)


@pytest.mark.parametrize("blur_px", [2.0, 3.5, 5.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_soft_edges_are_neither_particles_nor_objects_in_gaps(blur_px, sign, rng):
    data = draw(particles, 3, blur_px / 3) + rng.normal(0, 1, (3 * SIDE, 3 * SIDE))
    options = analysis.GapOptions(dark=sign < 0)
    found = run(analysis.measure_gaps(Micrograph(sign * data), options=options))
    assert (found.particles, found.bright, found.gaps) == (36, 36, found.pairs)


@pytest.mark.parametrize("way", WAYS)
def test_profiles_have_the_same_nanometres_at_any_pixel_size(way):
    errors = []
    for n, seed in itertools.product((1, 2, 3), range(4)):
        at = np.array([0.5, 0.2, 0.5, 0.8]) * SIDE * n
        pair, step = (
            render(shape, n, 1.2, 2.0, way, np.random.default_rng(seed))
            for shape in (lines, lambda _, x: x - 256)
        )
        curves = (analysis.read_profile(i, at, width_px=5 * n) for i in (pair, step))
        pair, step = map(analysis.measure_profile, curves)
        found = pair.pairs[0].distance, pair.lines[0].fwhm, step.edge.width
        # of the blurred edge: 10 to 90 % are 2.563 sigma
        for one, true in zip(found, (96.0, 24.1, 2.563 * 4.8), strict=True):
            errors.append((one.value - true * n / COARSE_NM) / one.sd)
    assert np.std(errors) < 1.4
