"""Error maps as files: placed, registered, in both units, and told in words."""

import numpy as np
import pytest
from scipy import ndimage

import napari_semsr as semsr
from napari_semsr.core import Micrograph
from tests.refusals import warned


@pytest.fixture
def images(rng) -> tuple[Micrograph, Micrograph]:
    """Draw a sharp image with an invented square, and what light shows of it."""
    sharp = 40 * ndimage.gaussian_filter(rng.normal(size=(240, 320)), 1.2)
    seen = 90 + 2 * ndimage.gaussian_filter(sharp, 2.2)
    seen += rng.normal(0, 0.05 * seen.std(), seen.shape)
    sharp[150:165, 100:120] += 3 * sharp.std()
    place = {"origin": (500.0, -100.0)}
    return (
        Micrograph(seen, (20.0, 20.0), "seen", **place),
        Micrograph(sharp, (20.0, 20.0), "sharp", **place),
    )


def test_map_lies_on_the_reference_and_shows_what_was_invented(images, tmp_path):
    target = tmp_path / "map.ome.zarr"
    found = semsr.error_map(*images, target)
    read = semsr.read(target)
    assert read.shape == images[0].shape
    assert read.pixel_size_nm == (20, 20)
    assert read.origin == images[0].origin
    assert read.provenance.job == "error-map"
    assert [item.role for item in read.provenance.inputs] == ["reference", "enhanced"]
    values = read.array()
    assert found.rse == pytest.approx(np.sqrt(np.mean(values.astype(float) ** 2)))
    y, x = np.unravel_index(np.argmax(values), values.shape)
    assert 145 < y < 170
    assert 95 < x < 125
    assert found.sigma_nm == pytest.approx(20 * found.sigma_px)
    assert found.map is None
    held = semsr.error_map(*images)
    np.testing.assert_array_equal(held.map.data, values)


def test_per_cent_is_of_the_range_of_the_reference(images):
    grey = semsr.error_map(*images)
    percent = semsr.error_map(*images, unit="percent")
    low, high = np.percentile(images[0].data, (0.1, 99.9))
    assert percent.range == pytest.approx((low, high), rel=1e-2)
    assert percent.rse == grey.rse
    span = percent.range[1] - percent.range[0]
    assert percent.rse_percent == pytest.approx(100 * grey.rse / span)
    np.testing.assert_allclose(percent.map.data, 100 / span * grey.map.data, rtol=1e-5)


@pytest.mark.parametrize("move", [(0.0, 0.0), (1.0, -2.0), (0.4, 0.6)])
def test_shift_is_found_and_taken_back(images, move):
    seen, sharp = images
    moved = sharp.replace(data=ndimage.shift(sharp.data, move, order=5, mode="nearest"))
    found = semsr.error_map(seen, moved)
    lying = semsr.error_map(seen, moved, align=False)
    assert found.shift_px == pytest.approx([-v for v in move], abs=0.05)
    assert lying.shift_px == (0, 0)
    if move == (0.0, 0.0):
        assert found.rse == lying.rse
    else:
        assert found.rse < lying.rse
        assert found.rse == pytest.approx(semsr.error_map(*images).rse, rel=0.1)


def test_what_does_not_belong_together_is_said(images, rng):
    seen, sharp = images
    with warned("contrast-inverted"):
        semsr.error_map(seen, sharp.replace(data=-sharp.data))
    other = sharp.replace(data=rng.normal(size=sharp.shape))
    with pytest.warns(UserWarning) as heard:  # noqa: PT030 - of several
        found = semsr.error_map(seen, other)
    assert any("compared without registration" in str(item.message) for item in heard)
    assert found.rsp < 0.5
    part = sharp.replace(data=sharp.data[:120])
    with warned("partly-covered", match=" 50 % .* seen"):
        semsr.error_map(seen, part)
