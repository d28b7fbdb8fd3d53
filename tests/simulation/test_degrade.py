import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core.errors import OptionError
from napari_semsr.simulation import degrade as gao, draw_phantom
from tests.refusals import refused


@pytest.fixture(scope="module")
def clear() -> np.ndarray:
    return np.rint(draw_phantom("particles", (96, 120), seed=3) * 255).astype(np.uint8)


def test_kernels_keep_the_mean():
    for kernel in (
        gao.create_gaussian_kernel(1.0, 7),
        gao.create_disk_kernel(0.0),
        gao.create_motion_kernel(7.5, 30.0),
    ):
        assert kernel.sum() == pytest.approx(1)
        assert kernel.min() >= 0
        assert np.allclose(kernel, kernel[::-1, ::-1])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_degrade_keeps_shape_and_type(clear: np.ndarray, dtype: str) -> None:
    result = gao.degrade_plane(clear.astype(dtype), "hybrid")
    assert result.image.shape == clear.shape
    assert result.image.dtype == dtype


def test_degrade_is_repeatable_and_seeds_differ(clear):
    first, again, other = (
        gao.degrade_plane(clear, "fog", seed=s).image for s in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_blur_is_the_stated_gaussian_and_uniform_fog_an_affine_change_of_it(clear):
    values = clear.astype(np.float32)
    expected = ndimage.gaussian_filter(values, 1.0, radius=3, mode="mirror")
    inner = np.s_[4:-4, 4:-4]
    found = gao.degrade_plane(clear, "blur").image
    assert np.abs(found[inner] - expected[inner]).max() <= 0.51
    blurred = gao.degrade_plane(values, "blur").image
    fogged = gao.degrade_plane(values, "fog", uniform_fog=True).image
    assert np.corrcoef(blurred.ravel(), fogged.ravel())[0, 1] > 1 - 1e-9


@pytest.mark.parametrize("airlight", [3.0, 255.0])
def test_fog_is_stretched_to_the_blurred_image_or_follows_the_formula(clear, airlight):
    values = clear.astype(np.float32)
    low, span = 0, values.max()
    blurred = gao.degrade_plane(values, "blur").image
    fogged = gao.degrade_plane(values, "fog", airlight=airlight).image
    assert fogged.mean() == pytest.approx(blurred.mean(), rel=1e-4)
    assert fogged.std() == pytest.approx(blurred.std(), rel=1e-4)
    how = {"uniform_fog": True, "airlight": airlight, "stretch": False}
    made = gao.degrade_plane(values, "fog", **how)
    unit = (blurred - low) * (255 / span)
    expected = gao.apply_fog(unit.astype(float), 2.0, airlight)
    assert (made.image - low) * (255 / span) == pytest.approx(expected, abs=1e-3)


def test_constant_images_stay_and_what_cannot_be_degraded_is_refused(clear):
    image = np.full((32, 32), 77, np.uint8)
    assert np.array_equal(gao.degrade_plane(image, "hybrid").image, image)
    with refused(OptionError, "pixels-missing"):
        gao.degrade_plane(np.array([[0.0, np.nan]]), "blur")
    with refused(OptionError, "unknown-value", match="'mist'"):
        gao.degrade_plane(clear, "mist")
