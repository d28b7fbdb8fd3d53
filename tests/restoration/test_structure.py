"""A blur is estimated from structure, and refused on background."""

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core import Micrograph
from napari_semsr.restoration import RestoreOptions, prepare_restoration
from napari_semsr.restoration.method import InsufficientDetailError
from napari_semsr.restoration.structure import has_structure
from tests.refusals import refused

SIZE = 192


def background(kind: str, seed: int) -> np.ndarray:
    """Draw noise of 10 grey levels, of a correlation in px, and what else is said."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((SIZE, SIZE))
    if kind.replace(".", "").isdigit() and float(kind):
        x = ndimage.gaussian_filter(x, float(kind))
    x *= 10 / x.std()
    if kind == "gradient":
        x = x * np.linspace(1, 2, SIZE) + np.linspace(0, 80, SIZE)[:, None]
    elif kind == "counts":
        x = rng.poisson(4, x.shape) * 10.0
    elif kind == "counts under shading":
        y, across = np.mgrid[:SIZE, :SIZE] / SIZE
        x = rng.poisson(30 * (1.2 + np.cos(2 * y + across))) * 1.0
    elif kind == "lines":
        x += rng.normal(0, 10, (SIZE, 1))
    elif kind == "correlated and white":
        x = 12 * ndimage.gaussian_filter(x, 2.0) + rng.normal(0, 2, x.shape)
    elif kind == "median":
        x = ndimage.median_filter(x, 5)
        x *= 10 / x.std()
    elif kind == "dust":
        y, across = np.mgrid[:SIZE, :SIZE]
        for at in rng.integers(0, SIZE, (3, 2)):
            x += 120 * (np.hypot(y - at[0], across - at[1]) < 4)
    return np.rint(np.clip(x + 80, 0, 255)).astype(np.uint8)


KINDS = ["0", "1", "2", "3", "4", "gradient", "counts", "counts under shading"]
KINDS += ["lines", "correlated and white", "dust", "median"]


@pytest.mark.parametrize(
    ("kind", "method"), [*((kind, "wiener") for kind in KINDS), ("dust", "blind")]
)
def test_no_blur_is_estimated_from_background(kind, method):
    image = Micrograph(background(kind, 5), name="resin")
    with refused(InsufficientDetailError, "too-little-detail", match="resin") as found:
        prepare_restoration(image, RestoreOptions(method=method))
    assert found.value.to_json() == {"code": "too-little-detail"}


@pytest.mark.parametrize("seed", range(3))
def test_noise_of_no_rounding_is_background(seed):
    x = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(192, 192)), 2)
    assert not has_structure([x])


@pytest.mark.parametrize("width", [0.8, 1.2])
def test_fine_texture_is_structure(width):
    grain = ndimage.gaussian_filter(
        np.random.default_rng(4).normal(size=(192, 192)), width
    )
    clear = 60 + 90.0 * (grain > 0.4 * grain.std())
    noise = np.random.default_rng(5).normal(0, 5, clear.shape)
    assert has_structure([ndimage.gaussian_filter(clear, 0.7) + noise])


def test_a_blur_that_is_given_needs_no_structure():
    image = Micrograph(background("0", 6))
    assert (
        prepare_restoration(image, RestoreOptions(psf="1.5px")).psf.kind == "gaussian"
    )


@pytest.mark.parametrize("noise", [2, 25])
@pytest.mark.parametrize("kind", ["particles", "lattice", "packed"])
def test_a_blur_is_estimated_from_structure(kind, noise):
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:SIZE, :SIZE]
    clear = np.zeros((SIZE, SIZE))
    if kind == "lattice":
        clear = 100.0 * (np.hypot(y % 24 - 12, x % 24 - 12) < 6)
    else:
        count, radius = (40, 9) if kind == "particles" else (900, 5)
        for at in rng.integers(0, SIZE, (count, 2)):
            clear[np.hypot(y - at[0], x - at[1]) < radius] = rng.uniform(60, 140)
    image = ndimage.gaussian_filter(clear, 1.2) + rng.normal(50, noise, clear.shape)
    assert (
        prepare_restoration(Micrograph(image), RestoreOptions()).psf.kind == "estimated"
    )


@pytest.mark.parametrize("kind", ["disc", "line"])
@pytest.mark.parametrize("noise", [2, 15])
def test_soft_objects_in_a_small_field_are_structure(kind, noise):
    rng = np.random.default_rng(8)
    y, x = np.mgrid[:128, :128]
    clear = np.zeros((128, 128))
    for row, column in rng.uniform(0, 128, (14, 2)):
        away = np.hypot(y - row, x - column) if kind == "disc" else np.abs(y - row)
        clear[(away < 7) & (np.abs(x - column) < 30)] = 120
    image = ndimage.gaussian_filter(clear, 2) + rng.normal(60, noise, clear.shape)
    assert has_structure([image])


def test_no_contrast_is_no_structure():
    assert not has_structure([np.full((96, 96), 7.0)])
