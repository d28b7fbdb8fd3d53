import numpy as np
import pytest

from napari_semsr.core.errors import OptionError
from napari_semsr.restoration.method import RestoreOptions
from napari_semsr.restoration.psf import PointSpreadFunction, parse_psf
from tests.refusals import refused


def test_widths_words_files_and_flat_kernels():
    for text, sigma, unit in ((".5px", 0.5, "px"), ("12 nm", 12, "nm")):
        found = parse_psf(text)
        assert (found.kind, found.sigma, found.unit) == ("gaussian", sigma, unit)
    assert parse_psf("estimate").kind == "estimate"
    assert parse_psf("kernels/point.tif").path == "kernels/point.tif"
    assert parse_psf("2px.tif").kind == parse_psf("flat.tif").kind == "file"
    found = parse_psf("flat 7px")
    assert (found.kind, found.side) == ("flat", 7)


def test_what_is_no_blur_is_refused_in_one_sentence():
    for text in ("flat8px", "flat1px", "flat131px"):
        with refused(OptionError, "out-of-range", match="3 to 129 px.*'flat"):
            parse_psf(text)
    for text in ("1.5", "0px", "  ", "-1px", "1,5px", "0.01 um", "2\u00b5m"):
        with refused(OptionError, "unknown-value"):
            parse_psf(text)
    with refused(OptionError, "unknown-value", match=r"`psf`.*'1\.5'") as no:
        RestoreOptions.parse({"psf": "1.5"})
    assert str(no.value).count("got") == 1
    with refused(OptionError, "out-of-range", match=" 16 px, got 30"):
        PointSpreadFunction.from_sigma((30.0, 30.0))


def test_recorded_kernel_is_normalised_and_odd_or_refused():
    made = PointSpreadFunction.from_image(np.ones((4, 5), np.uint8) * 9, "point.tif")
    assert made.kernel.shape == (5, 5)
    assert made.kernel.sum() == pytest.approx(1)
    for values in (
        np.zeros((3, 3)),
        np.full((3, 3), np.nan),
        -np.eye(3) + 0.1,
        np.ones((200, 3)),
    ):
        with refused(OptionError, "blur-invalid", match=r"point\.tif"):
            PointSpreadFunction.from_image(values, "point.tif")


def _point(sigma, *, side=41, at=(0.0, 0.0)):
    y, x = (np.arange(side) - side // 2 - place for place in at)
    return np.exp(-((y[:, None] / sigma) ** 2 + (x / sigma) ** 2) / 2)


@pytest.mark.parametrize(("step", "at"), [(0.5, (6.0, -4.0)), (5 / 3, (0.3, -0.5))])
def test_kernel_is_laid_on_larger_or_smaller_pixels_and_into_their_middle(step, at):
    made = PointSpreadFunction.from_image(
        _point(3.0, at=at), "point.tif"
    ).resample_centred((step, step))
    sigma = 3.0 / step
    assert made.sigma_px == pytest.approx((sigma, sigma), rel=2e-3)
    known = _point(sigma, side=129)
    middle = [slice(64 - n // 2, 65 + n // 2) for n in made.kernel.shape]
    known = (known / known.sum())[tuple(middle)]
    np.testing.assert_allclose(made.kernel, known, atol=1e-2 * known.max())
    assert made.kernel.sum() == pytest.approx(1)


def test_kernel_in_its_place_stays_and_one_too_wide_is_refused():
    made = PointSpreadFunction.from_image(_point(2.0), "point.tif")
    assert made.resample_centred() is made
    with refused(OptionError, "blur-invalid", match=" 129 .* 410"):
        made.resample_centred((0.1, 0.1))
    assert made.resample_centred((1e9, 1e9)).kernel.max() == pytest.approx(1)


def test_background_of_a_file_is_removed_and_its_origin_is_told():
    rng = np.random.default_rng(0)
    for level, noise, place in ((0.02, 0, 0), (0.25, 0, -0.5), (0.05, 0.01, 3)):
        values = _point(2.0, at=(place, 0)) + level + rng.normal(0, noise, (41, 41))
        made = PointSpreadFunction.from_image(values, "point.tif")
        assert made.background == pytest.approx(level, rel=0.1)
        assert made.sigma_px == pytest.approx((2, 2), rel=0.04)
        assert made.origin_px == pytest.approx((20 + place, 20), abs=0.05)
    # cut tails are no background, and neither is the border of a flat kernel
    y, x = np.mgrid[-4:5, -4:5]
    flat, cut, far = np.ones((9, 9)), np.exp(-(y**2 + x**2) / 98), 1 / (1 + y**2 + x**2)
    for values in (flat, cut, far, np.outer([1, 2, 1], [1, 2, 1])):
        made = PointSpreadFunction.from_image(values, "point.tif")
        np.testing.assert_allclose(made.kernel, values / values.sum())
    comet = np.zeros((9, 9))
    comet[4, 4:] = 5, 4, 3, 2, 1
    made = PointSpreadFunction.from_image(comet + 0.5, "point.tif")
    assert made.to_json()["origin_px"] == [4, 4]
    np.testing.assert_allclose(made.resample_centred().kernel, comet / 15, atol=1e-9)
