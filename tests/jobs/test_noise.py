"""Noise by grey level: right for drawn noise, whatever lies below it."""

import numpy as np
import pytest
from scipy import ndimage

import napari_semsr as semsr
from tests.refusals import refused


@pytest.fixture
def scene(rng):
    smooth = ndimage.gaussian_filter(rng.normal(size=(288, 304)), 9)
    smooth = 120 + 40 * smooth / smooth.std()
    smooth[100:200, 50:90] += 60  # an edge
    return smooth


@pytest.mark.parametrize("kind", [float, np.uint8])
def test_drawn_noise_is_found(scene, rng, kind):
    noisy = scene + rng.normal(0, 3, scene.shape)
    found = semsr.noise(np.clip(noisy, 0, 255).astype(kind))
    assert found.noise == pytest.approx(3, rel=0.03)
    assert found.snr == pytest.approx(scene.std() / 3, rel=0.05)


@pytest.mark.parametrize("axis", [0, 1])
def test_noise_that_neighbours_along_a_line_share_counts_in_full(scene, rng, axis):
    smeared = ndimage.gaussian_filter1d(rng.normal(size=scene.shape), 0.8, axis=axis)
    found = semsr.noise(scene + 3 * smeared / smeared.std())
    assert found.noise == pytest.approx(3, rel=0.1)
    assert found.noise / found.smeared < 2
    assert "along a line is correlated" in found.note


def test_gratings_are_no_noise(scene, rng):
    lines = 50 * np.sin(np.arange(len(scene)))[:, None]
    found = semsr.noise(scene + lines + rng.normal(0, 3, scene.shape))
    assert found.noise == pytest.approx(3, rel=0.05)
    assert (found.smeared, found.note) == (1, None)


@pytest.mark.parametrize(("period", "degrees"), [(8, 10), (6, 17), (7, 80)])
def test_oblique_gratings_are_no_noise(rng, period, degrees):
    y, x = np.indices((256, 256))
    angle = np.radians(degrees)
    lines = np.where(
        (x * np.cos(angle) + y * np.sin(angle)) % period < period / 2, 1, 0
    )
    field = 60 + 130 * ndimage.gaussian_filter(lines.astype(float), 1.5)
    found = semsr.noise(field + rng.normal(0, 2, field.shape))
    assert found.noise == pytest.approx(2, rel=0.05)
    assert (found.smeared, found.note) == (1, None)


def test_noise_of_counting_grows_with_the_root_of_the_grey_level(scene, rng):
    found = semsr.noise(rng.poisson(np.clip(scene, 5, None)).astype(float))
    ratio = np.array(found.noise_at) / np.sqrt(found.levels)
    assert len(ratio) > 10
    assert np.mean(ratio) == pytest.approx(1, rel=0.03)
    assert np.ptp(found.levels) > 100


def test_what_ends_at_black_or_white_shows_no_noise(scene, rng):
    noisy = 2.5 * (scene - 120) + 60 + rng.normal(0, 6, scene.shape)
    ended = np.clip(noisy, 0, 255)
    assert 0.2 < np.mean(ended == 0) < 0.4
    for image in (ended, np.rint(ended).astype(np.uint8)):
        found = semsr.noise(image)
        assert found.noise == pytest.approx(6, rel=0.05)
        assert found.clipped == pytest.approx(100 * np.mean(image == 0), rel=0.2)
        assert "black or white" in found.note
    everywhere = np.where(rng.random(scene.shape) < 0.5, 0, ended)
    assert "black or white" in semsr.noise(everywhere).note


@pytest.mark.parametrize("sigma", [0.5, 0.9])
def test_grey_values_say_the_same_in_any_type(scene, rng, sigma):
    grey = np.rint(scene + rng.normal(0, sigma, scene.shape)).astype(np.uint8)
    expected = semsr.noise(grey).noise
    assert expected == pytest.approx(np.hypot(sigma, 12**-0.5), rel=0.05)
    for image, unit in (
        (grey.astype(np.float32), 1),
        (grey.astype(np.uint16) * 257, 257),
        (np.float32(grey / 255), 1 / 255),
    ):
        assert semsr.noise(image).noise / unit == pytest.approx(expected, rel=0.01)


def test_gaps_are_left_out_and_a_flat_image_has_no_ratio(scene, rng):
    noisy = scene + rng.normal(0, 3, scene.shape)
    noisy[:120] = np.nan
    assert semsr.noise(noisy).noise == pytest.approx(3, rel=0.03)
    for kind in (float, np.uint8):
        flat = semsr.noise(np.full((64, 64), 7, kind))
        assert (flat.noise, flat.snr) == (0, None)


def test_an_image_that_misses_pixels_in_each_block_is_refused(scene):
    scene[::9, ::9] = np.inf
    with refused(semsr.SemsrError, "gaps-everywhere", match="16 px"):
        semsr.noise(scene)


def test_a_small_image_is_refused():
    with refused(semsr.SemsrError, "image-too-small", match="image .* 18 px"):
        semsr.noise(np.zeros((17, 100)))
