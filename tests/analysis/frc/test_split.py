import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from napari_semsr.analysis.frc.blocks import correlate_blocks
from napari_semsr.analysis.frc.correlation import FrcOptions, measure_frc
from napari_semsr.core.micrograph import Micrograph


def single(image, **options):  # type: ignore[no-untyped-def]
    return measure_frc(Micrograph(image, **options))


def test_one_image_crosses_where_its_exposures_would_meet_the_threshold(make_pair):
    image, _ = make_pair((256, 256), 10.0, 50.0)
    found = correlate_blocks(image[None], None, estimator="plain")
    half = found.sums.correlation[0, 1 : found.frequency.size + 1]
    at = np.interp(found.crossing[0], found.frequency, half)
    assert 4 * at / (1 + 3 * at) == pytest.approx(found.threshold[0], rel=1e-6)
    ring = np.searchsorted(found.frequency, found.crossing[0])
    above, below = found.correlation[0, ring - 1 : ring + 1]
    assert above >= found.threshold[0] > below


@pytest.mark.parametrize(
    ("shape", "period", "within"), [((256, 256), 8.0, 0.12), ((201, 199), 9.0, 0.15)]
)
def test_one_image_reads_as_two_exposures_would(make_pair, shape, period, within):
    image, _ = make_pair(shape, period, 50.0, seed=3)
    found = single(image)
    assert found.resolution_px == pytest.approx(period, rel=within)
    assert found.method.startswith("single-image FRC")


@pytest.mark.parametrize("side", [256, 512])
def test_a_threshold_out_of_reach_near_zero_changes_nothing(rng, side):
    scene = gaussian_filter(rng.normal(size=(side, side)), 3)
    image = Micrograph(20 * scene / scene.std() + rng.normal(0, 10, scene.shape))
    found, usual = (
        measure_frc(image, options=FrcOptions(criterion=name))
        for name in ("3-sigma", "1/7")
    )
    assert found.resolution_px == pytest.approx(usual.resolution_px, rel=0.15)


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


def test_a_fine_line_beside_other_detail_takes_no_resolution_away(make_pair):
    image, _ = make_pair((256, 256), 12.0, 50.0)
    plain, lined = single(image), single(image + 0.1 * image.std() * wave(3, 0.5))
    assert lined.resolution_px == pytest.approx(plain.resolution_px, rel=0.02)


@pytest.mark.parametrize(
    "kind", ["smoothed", pytest.param("enlarged", marks=pytest.mark.broad)]
)
def test_coloured_noise_is_refused(make_pair, kind):
    image, _ = make_pair((256, 256), 12.0, 50.0)
    enlarged = zoom(image[:128, :128], 2, order=1)
    found = single(gaussian_filter(image, 0.7) if kind == "smoothed" else enlarged)
    assert found.resolution_px is None
    assert found.reason in {"correlated-noise", "beyond-nyquist"}


def test_noise_that_is_hardly_smoothed_is_told_from_white(make_pair) -> None:
    image, _ = make_pair((256, 256), 12.0, 50.0)
    assert single(image).reason is None
    assert single(gaussian_filter(image, 0.4)).reason == "correlated-noise"
