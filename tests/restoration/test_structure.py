"""A blur is estimated from structure, and refused on background."""

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core import Micrograph, run
from napari_semsr.restoration import RestoreOptions, prepare_restoration
from napari_semsr.restoration.method import InsufficientDetailError
from napari_semsr.restoration.structure import has_structure
from tests.refusals import refused

SIZE = 192


def background(kind: str, seed: int) -> np.ndarray:
    """Draw noise of 10 grey levels, and what else is said."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 10, (SIZE, SIZE))
    y, across = np.mgrid[:SIZE, :SIZE]
    if kind == "correlated":
        x = 7 * ndimage.gaussian_filter(x, 2.0)
    elif kind == "counts under shading":
        light = 30 * (1.2 + np.cos((2 * y + across) / SIZE))
        x = rng.poisson(light) * 1.0
    elif kind == "lines":
        x += rng.normal(0, 10, (SIZE, 1))
    elif kind == "dust":
        for at in rng.integers(0, SIZE, (3, 2)):
            x += 120 * (np.hypot(y - at[0], across - at[1]) < 4)
    return np.rint(np.clip(x + 80, 0, 255)).astype(np.uint8)


KINDS = ["white", "correlated", "counts under shading", "lines", "dust"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_blur_is_estimated_from_background(kind):
    image = Micrograph(background(kind, 5), name="resin")
    with refused(InsufficientDetailError, "too-little-detail", match="resin") as found:
        run(prepare_restoration(image, RestoreOptions()))
    assert found.value.to_json() == {"code": "too-little-detail"}


@pytest.mark.parametrize("noise", [2, 25])
def test_a_blur_is_estimated_from_structure(noise):
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:SIZE, :SIZE]
    clear = np.zeros((SIZE, SIZE))
    for at in rng.integers(0, SIZE, (40, 2)):
        clear[np.hypot(y - at[0], x - at[1]) < 9] = rng.uniform(60, 140)
    image = ndimage.gaussian_filter(clear, 1.2) + rng.normal(50, noise, clear.shape)
    found = run(prepare_restoration(Micrograph(image), RestoreOptions()))
    assert found.psf.kind == "estimated"


def test_no_contrast_is_no_structure():
    assert not run(has_structure([np.full((96, 96), 7.0)]))
    steps = has_structure([background("white", 5)])
    assert len(list(steps)) > 16  # in between, it can be cancelled
