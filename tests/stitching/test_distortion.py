"""The field's radial distortion, found with the positions."""

import re

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core import (
    Acquisition,
    FieldDistortion,
    OptionError,
    distort_positions,
    run,
)
from napari_semsr.simulation.scan import ScanOptions, run_scan_simulation
from napari_semsr.stitching import StitchOptions, solve_mosaic
from napari_semsr.stitching.frames import CorrectedFrames, create_uniform_flat_field
from napari_semsr.stitching.pairwise import compute_rounded_shift
from napari_semsr.stitching.refine import estimate_distortion
from tests.refusals import refused
from tests.stitching import scans

SIDE = 128

OPTIONS = {"phantom": "particles", "frames_grid": (3, 3), "frame_px": SIDE}
OPTIONS |= {"overlap": 0.35, "field": "square", "seed": 5}


def take(amount):
    """A scan of 3x3 square frames."""
    scan = run_scan_simulation(None, ScanOptions(**OPTIONS, distortion=amount))
    return scan, Acquisition(scan.frames, scan.names, nominal_px=scan.nominal_px)


def evenly_lit(acquisition):
    flat = create_uniform_flat_field((SIDE, SIDE), 0.0, "none")
    return CorrectedFrames(acquisition, flat)


def solved(acquisition, distortion="auto"):
    return run(solve_mosaic(acquisition, StitchOptions(distortion=distortion)))


def calibrated(acquisition, amount, *, centre=(0.0, 0.0)):
    shape = (SIDE, SIDE)
    known = FieldDistortion(amount=amount, sd=0.0003, shape=shape, centre_px=centre)
    options = StitchOptions(distortion=known.amount)
    return run(solve_mosaic(acquisition, options, field_distortion=known))


def rms(solution, scan):
    return scans.errors(solution.positions_px, scan.true_px)[1]


@pytest.fixture(scope="module")
def still():
    """The scan without distortion, solved without looking for any."""
    scan, acquisition = take(0.0)
    solution = solved(acquisition)
    return solved(acquisition, "none"), solution, rms(solution, scan)


@pytest.fixture(scope="module")
def bent():
    """The scan with 3 % at the rim, and its solution."""
    scan, acquisition = take(0.03)
    return scan, acquisition, solved(acquisition)


def test_distortion_is_found_with_the_positions(still, bent):
    scan, _, solution = bent
    assert solution.is_placed.all()
    assert solution.distortion == pytest.approx(0.03, rel=0.05)
    assert abs(solution.distortion - 0.03) < 4 * solution.distortion_sd
    assert rms(solution, scan) < 2 * still[2]
    # positions are less sure for it
    assert np.median(solution.sigma_px) > 1.05 * np.median(still[0].sigma_px)


def test_blocks_of_the_overlaps_give_a_first_guess():
    scan, acquisition = take(0.05)
    pairs = [*((i, i + 3) for i in range(6)), *((i, i + 1) for i in (0, 1, 3, 4, 6, 7))]
    shifts = {pair: compute_rounded_shift(scan.nominal_px, pair) for pair in pairs}
    assert 0.03 <= estimate_distortion(evenly_lit(acquisition), shifts, 10) <= 0.07


def test_a_scan_without_distortion_stays_as_it_was(still):
    plain, solution, _ = still
    assert solution.distortion == 0
    assert 0 < solution.distortion_sd < 0.002
    assert np.array_equal(solution.positions_px, plain.positions_px)


@pytest.mark.broad
def test_overlaps_that_contradict_a_calibration_are_told(bent):
    (message,) = calibrated(bent[1], 0.02).warnings
    told = r"The overlaps show a rim distortion of (\S+) \+- 0\.000"
    (found,) = re.findall(told, message)
    assert float(found) == pytest.approx(0.03, rel=0.05)
    assert "the calibration states 0.0200 +- 0.0003" in message
    assert not calibrated(bent[1], 0.03).warnings


@pytest.mark.broad
def test_a_centre_off_the_middle_is_taken_back():
    centre, shape, frames = (9.0, -14.0), (SIDE, SIDE), []
    scene, rng = scans.texture((360, 360), 3), np.random.default_rng(0)
    grid = distort_positions(*np.indices(shape, float), shape, 0.05, centre=centre)
    places = 30 + 80 * np.indices((3, 3)).reshape(2, 9).T + rng.uniform(-3, 3, (9, 2))
    for place in places:
        at = np.array(grid) + place[:, None, None]
        frames.append(ndimage.map_coordinates(scene, at, order=5))
    frames = (np.stack(frames) + rng.normal(0, 0.01, (9, *shape))).astype(np.float32)
    acquisition = Acquisition(frames, tuple("123456789"), nominal_px=np.rint(places))
    right = calibrated(acquisition, 0.05, centre=centre)
    wrong = calibrated(acquisition, 0.05)
    _, error = scans.errors(right.positions_px, places)
    assert error < 0.05
    assert scans.errors(wrong.positions_px, places)[1] > 5 * error


def test_pixels_outside_the_field_stay_outside():
    _, acquisition = take(-0.1)
    prepared = evenly_lit(acquisition).copy_with_changes(distortion=-0.1)
    image, weight = prepared.correct(0)
    assert weight[0, 0] == weight[0, SIDE // 2] == 0
    assert weight[SIDE // 2, SIDE // 2] == 1
    assert np.isfinite(image).all()


@pytest.mark.parametrize("wrong", ["much", 0.3])
def test_another_word_or_number_is_refused(wrong):
    with refused(OptionError, "out-of-range", match=r"auto, none .* -0\.2"):
        StitchOptions.parse({"distortion": wrong})
