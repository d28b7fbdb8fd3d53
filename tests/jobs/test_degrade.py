import numpy as np
import pytest

import napari_semsr
from napari_semsr.core.errors import OptionError
from tests.refusals import refused


@pytest.fixture
def grey(scene):
    return scene.truth.replace(data=np.rint(scene.truth.data * 255).astype(np.uint8))


def test_noise_alone_has_the_stated_variance(grey):
    flat = grey.replace(data=np.full((200, 200), 128, np.uint8))
    made = napari_semsr.degrade(flat, kind="none", photons=100, read_noise=3)
    assert made.dtype == np.uint8
    variance = 255**2 * (128 / 255) / 100 + 9 + 1 / 12
    assert made.array().astype(float).var() == pytest.approx(variance, rel=0.05)
    assert made.provenance.options["photons"] == 100


def test_noise_of_floats_does_not_depend_on_the_darkest_pixel(grey):
    values = np.full((200, 200), 0.4)
    values[:, 0] = 1
    made = []
    for least in (0, 0.2, 0.4):
        values[0, 1] = least
        image = grey.replace(data=values.copy())
        noisy = napari_semsr.degrade(image, kind="none", photons=50)
        made.append(noisy.array()[1:, 1:].var())
    assert made == pytest.approx([0.4 / 50] * 3, rel=0.05)


def test_effects_come_on_top_of_a_kind(grey):
    plain = napari_semsr.degrade(grey, kind="hybrid", seed=1).array().astype(float)
    quiet = napari_semsr.degrade(grey, kind="hybrid", seed=1, read_noise=0.01)
    assert np.abs(quiet.array() - plain).max() <= 1  # rounding, once
    moved = napari_semsr.degrade(grey, kind="hybrid", seed=1, drift_px=5)
    assert np.abs(moved.array() - plain).max() > 5


def test_missing_pixels_are_refused(grey):
    hole = grey.replace(data=np.diag([np.nan] * 9).astype(np.float32))
    for how in ({"kind": "none", "photons": 5}, {"kind": "fog"}):
        with refused(OptionError, "pixels-missing", match=f"{grey.name} .* 9 "):
            napari_semsr.degrade(hole, **how)


def test_none_and_nothing_returns_the_image(grey):
    made = napari_semsr.degrade(grey, kind="none")
    np.testing.assert_array_equal(made.array(), grey.array())
