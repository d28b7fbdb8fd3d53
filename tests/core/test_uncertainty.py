import dataclasses

import numpy as np
import pytest

from napari_semsr import core


def calibrated(size, error) -> core.Micrograph:
    image = core.Micrograph(np.zeros((4, 4)), core.parse_pixel_size(size))
    return image.with_size_error(error)


def test_basis_and_errors_of_lengths():
    assert core.get_size_basis(None, None) == "unknown"
    assert core.get_size_basis((5, 5), None) == "stated"
    assert core.get_size_basis((5, 5), (0.1, 0.1)) == "calibrated"
    image = calibrated((10, 20), (0.1, 0.4))
    assert core.compute_length_error(image, (1, 0)) == pytest.approx(0.01)
    assert core.compute_length_error(image, (0, 3)) == pytest.approx(0.02)
    assert core.compute_length_error(image, (1, -1)) == pytest.approx(0.015)
    assert core.compute_length_error(image) == pytest.approx(0.015)
    assert core.compute_length_error(calibrated((10, 20), None)) == 0
    assert core.compute_length_error(calibrated(None, None)) == 0


@pytest.mark.parametrize("share", [0.002, 0.01, 0.05])
@pytest.mark.parametrize("reading", [0.002, 0.02])
def test_interval_holds_a_length_95_times_of_100(share, reading):
    rng, draws, truth, size = np.random.default_rng(20), 4000, 40.0, 5.0
    pixels = truth / size * (1 + reading * rng.normal(size=draws))
    sizes = size * (1 + share * rng.normal(size=draws))
    held = 0
    for px, nm in zip(pixels.tolist(), sizes.tolist(), strict=True):
        reach = 1.959964 * reading * truth / size
        read = (px - reach) * nm, (px + reach) * nm
        low, high = core.widen_interval(px * nm, read, share * size / nm)
        held += low <= truth <= high
    # four standard errors of a share of 95 %
    assert held / draws == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / draws))


def test_a_pixel_size_is_written_with_its_error():
    assert core.format_pixel_size(None, (1.0, 1.0)) == "unknown"
    assert core.format_pixel_size((5.0, 5.0 + 1e-7), None) == "5 nm"
    assert "5 \N{MULTIPLICATION SIGN} 5.1 nm" in core.format_pixel_size(
        (5.0, 5.1), None
    )
    told = core.describe_pixel_size((5.0, 5.0), (0.0123, 0.0456))
    assert told == "5 nm ± 0.046 nm (calibrated)"


def test_a_calibration_is_shown_in_per_cent_and_from_the_centre():
    found = core.Calibration(
        *((5.0, 5.0), (0.1, 0.1), None, None, 0.02, 0.003, 0.0, "lines", 100.0, 12.34),
        *(0.5, (100, 200)),
    )
    assert found.distortion_percent == pytest.approx(2)
    assert found.distortion_sd_percent == pytest.approx(0.3)
    assert found.centre is None
    off = dataclasses.replace(found, centre_px=(4.0, -6.25), centre_sd_px=(0.5, 1.0))
    assert "y +4.0 ± 0.5, x -6.2 ± 1 px" in off.centre
