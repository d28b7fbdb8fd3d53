import numpy as np
import pytest

from napari_semsr.core.errors import OptionError
from napari_semsr.restoration.method import RestoreOptions
from napari_semsr.restoration.psf import PointSpread, parse_psf


def test_widths_words_files_and_flat_kernels():
    for text, sigma, unit in ((".5px", 0.5, "px"), ("12 nm", 12, "nm")):
        found = parse_psf(text)
        assert (found.kind, found.sigma, found.unit) == ("gaussian", sigma, unit)
    assert parse_psf("estimate").kind == "estimate"
    assert parse_psf("kernels/point.tif").path == "kernels/point.tif"
    assert parse_psf("-1px").kind == parse_psf("flat.tif").kind == "file"
    found = parse_psf("flat 7px")
    assert (found.kind, found.side) == ("flat", 7)


def test_what_is_no_blur_is_refused_in_one_sentence():
    for text in ("flat8px", "flat1px", "flat131px"):
        with pytest.raises(OptionError, match=r"odd side from 3 to 129 px.*got 'flat"):
            parse_psf(text)
    for text in ("1.5", "0px", "  "):
        with pytest.raises(OptionError, match="with its unit"):
            parse_psf(text)
    with pytest.raises(OptionError, match=r"Option psf: a blur is .* got '1.5'") as no:
        RestoreOptions.parse({"psf": "1.5"})
    assert str(no.value).count("got") == 1
    with pytest.raises(OptionError, match="up to 16 px"):
        PointSpread.gaussian((30.0, 30.0))


@pytest.mark.parametrize("sigma", [(0.01, 0.01), (0.8, 3.0)])
def test_gaussian_sums_to_one_and_has_its_width(sigma):
    made = PointSpread.gaussian(sigma)
    assert made.kernel.sum() == pytest.approx(1)
    again = PointSpread.recorded(made.kernel, "again")
    if min(sigma) > 0.5:
        assert again.sigma_px == pytest.approx(sigma, rel=5e-3)


def test_recorded_kernel_is_normalised_and_odd_or_refused():
    made = PointSpread.recorded(np.ones((4, 5), np.uint8) * 9, "point.tif")
    assert made.kernel.shape == (5, 5)
    assert made.kernel.sum() == pytest.approx(1)
    for values, needs in (
        (np.zeros((3, 3)), "weights above 0"),
        (np.full((3, 3), np.nan), "finite weights"),
        (-np.eye(3) + 0.1, "finite weights"),
        (np.ones((200, 3)), "at most 129"),
    ):
        with pytest.raises(OptionError, match=f"{needs}.*in point.tif"):
            PointSpread.recorded(values, "point.tif")
