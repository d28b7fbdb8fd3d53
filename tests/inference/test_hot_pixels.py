"""What hot and dead pixels change of an enhanced image: nothing far away."""

import numpy as np
import pytest
from scipy import ndimage

import napari_semsr as semsr
from napari_semsr.core import Box
from napari_semsr.inference.network_input import Scaling, compute_block_statistics
from napari_semsr.models.architectures.two_scale import SurveyNet


def _enhanced(image: np.ndarray) -> np.ndarray:
    made = semsr.enhance(semsr.Micrograph(image, (5, 5)), model="sem-restore")
    return made.array().astype(float)


@pytest.mark.quick(1)
@pytest.mark.parametrize(
    ("place", "level", "most"),
    [("pixels", 65535, 8), ("pixels", 0, 8), ("column", 65535, 60)],
)
def test_an_enhanced_image_is_the_same_far_from_hot_and_dead_pixels(place, level, most):
    rng = np.random.default_rng(11)
    smooth = ndimage.gaussian_filter(rng.normal(size=(192, 192)), 1.5)
    sample = 1800 + 400 * smooth / smooth.std()
    noisy = np.clip(sample + rng.normal(0, 160, sample.shape), 0, 4095)
    image = noisy.astype(np.uint16)
    struck = image.copy()
    pixels = (rng.integers(0, 96, 8), rng.integers(0, 192, 8))
    struck[pixels if place == "pixels" else np.s_[:, 40]] = level
    changed = struck != image
    away = ndimage.distance_transform_edt(~changed)
    difference = np.abs(_enhanced(image) - _enhanced(struck))
    # a line touches many of the blocks that noise and detail are measured in
    assert difference[away > 40].max() <= most
    if most == 8 and level:  # no rings either: it was filled
        assert difference[~changed].max() < 200


@pytest.mark.parametrize(("corner", "shrink"), [((0, 96), 1), ((64, 32), 2)])
def test_statistics_of_a_part_are_of_that_part(rng, corner, shrink):
    data = rng.normal(100, 20, (192, 224)).astype(np.float32)
    part, scaling = Box.from_shape((96, 128), corner), Scaling(0.0, 200.0, 100.0)
    how = scaling, shrink, SurveyNet().compute_statistics
    cut = np.ascontiguousarray(data[part.slices])
    alone = compute_block_statistics(cut, Box.from_shape(cut.shape), *how)
    found = compute_block_statistics(data, part, *how)
    assert found.shape[1:] == (96 // 16 // shrink, 128 // 16 // shrink)
    np.testing.assert_array_equal(found, alone)
