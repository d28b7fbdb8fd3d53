import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_semsr.analysis.frc.correlation import measure_frc
from napari_semsr.core.micrograph import Micrograph


def single(image, **options):  # type: ignore[no-untyped-def]
    return measure_frc(Micrograph(image, **options))


def test_one_image_reads_as_two_exposures_would(make_pair):
    image, _ = make_pair((201, 199), 9.0, 50.0, seed=3)
    found = single(image)
    assert found.resolution_px == pytest.approx(9, rel=0.15)
    assert found.method.startswith("single-image FRC")


def test_fine_detail_is_beyond_what_halves_can_show(make_pair) -> None:
    image, _ = make_pair((256, 256), 3.0, 200.0)
    found = single(image)
    assert found.resolution_px is None
    assert found.reason == "beyond-nyquist"


def wave(period, angle):
    rows, columns = np.mgrid[:256, :256]
    turns = (columns * np.cos(angle) + rows * np.sin(angle)) / period
    return np.cos(2 * np.pi * turns)


@pytest.mark.parametrize(
    ("period", "angles", "height"),
    [
        (2**0.5, [np.pi / 4], 30),
        (3, [0.5], 0.5),
        (3.4, [0, np.pi / 3, 2 * np.pi / 3], 0.5),
    ],
    ids=["checkerboard", "grating", "lattice"],
)
def test_lines_finer_than_halves_show_are_periodic(rng, period, angles, height):
    image = height * sum(wave(period, angle) for angle in angles)
    found = single(image + rng.standard_normal(image.shape))
    assert (found.resolution_px, found.reason) == (None, "periodic")


def test_noise_that_is_hardly_smoothed_is_told_from_white(make_pair) -> None:
    image, _ = make_pair((256, 256), 12.0, 50.0)
    assert single(image).reason is None
    assert single(gaussian_filter(image, 0.4)).reason == "correlated-noise"
