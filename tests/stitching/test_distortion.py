"""The field's radial distortion, found with the positions."""

import re

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core import (
    Acquisition,
    Box,
    FieldDistortion,
    OptionError,
    distort_positions,
    run,
)
from napari_semsr.simulation.scan import ScanOptions, run_scan_simulation
from napari_semsr.stitching import StitchOptions, plan_fusion, solve_mosaic
from napari_semsr.stitching.flat_field import FlatField
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.pairwise import compute_rounded_shift
from napari_semsr.stitching.solve import estimate_distortion
from tests.refusals import refused
from tests.stitching import scans

SIDE = 128

OPTIONS = {"phantom": "particles", "frames_grid": (3, 3), "frame_px": SIDE}
OPTIONS |= {"overlap": 0.35, "field": "square", "seed": 5}


def take(amount, **more):
    """A scan of 3x3 square frames."""
    scan = run_scan_simulation(None, ScanOptions(**OPTIONS | more, distortion=amount))
    frames = scan.frames
    return scan, Acquisition(frames, scan.names, nominal_px=scan.nominal_px)


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


@pytest.mark.broad
def test_a_barrel_and_a_small_distortion_are_found_as_well():
    scan, acquisition = take(-0.03, photons=700, jitter_px=10)
    solution = solved(acquisition)
    assert solution.distortion == pytest.approx(-0.03, rel=0.05)
    expected = np.sqrt((solution.sigma_px**2).sum(axis=1).mean())
    assert rms(solution, scan) < 2 * expected
    scan, acquisition = take(0.004)
    solution = solved(acquisition)
    assert abs(solution.distortion - 0.004) < 4 * solution.distortion_sd
    assert rms(solution, scan) < 0.5 * rms(solved(acquisition, "none"), scan)


def test_a_scan_without_distortion_stays_as_it_was(still):
    plain, solution, _ = still
    assert solution.distortion == 0
    assert 0 < solution.distortion_sd < 0.002
    assert plain.distortion_sd is None
    assert np.array_equal(solution.positions_px, plain.positions_px)
    assert np.array_equal(solution.gains, plain.gains)
    assert np.array_equal(solution.flat.flat, plain.flat.flat)


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
    centre = (9.0, -14.0)
    scene, places = scans.texture((360, 360), 3), []
    grid = distort_positions(
        *np.indices((SIDE, SIDE), float), (SIDE, SIDE), 0.05, centre=centre
    )
    rng = np.random.default_rng(0)
    frames = []
    for cell in np.ndindex(3, 3):
        place = 30 + 80 * np.array(cell) + rng.uniform(-3, 3, 2)
        at = np.array(grid) + place[:, None, None]
        frames.append(ndimage.map_coordinates(scene, at, order=5).astype(np.float32))
        frames[-1] += rng.normal(scale=0.01, size=frames[-1].shape)
        places.append(place)
    names = tuple(f"{n}.tif" for n in range(9))
    frames = np.stack(frames)
    acquisition = Acquisition(frames, names, nominal_px=np.rint(places))
    right = calibrated(acquisition, 0.05, centre=centre)
    wrong = calibrated(acquisition, 0.05)
    _, error = scans.errors(right.positions_px, np.array(places))
    assert error < 0.05
    assert scans.errors(wrong.positions_px, np.array(places))[1] > 5 * error
    assert right.distortion_centre_px == centre


def test_the_mosaic_shows_the_sample_in_its_place(bent):
    scan, acquisition, solution = bent
    plan = plan_fusion(acquisition, solution)
    for corner in ((20, 20), (180, 170)):
        shown = plan.compute_block(Box.from_shape((100, 100), corner))[0]
        y, x = np.indices(shown.shape, float) + np.array(corner)[:, None, None]
        y, x = (
            place - solution.positions_px[:, axis].mean() + scan.true_px[:, axis].mean()
            for axis, place in enumerate((y, x))
        )
        sample = scan.scene.sample(scan.scene.compute_spline_coefficients(), y, x)
        assert np.corrcoef(shown.ravel(), sample.ravel())[0, 1] > 0.97


def frames_of(acquisition):
    ones = np.ones(acquisition.frame_shape, np.float32)
    return CorrectedFrames(acquisition, FlatField(ones, 0.0, ones > 0, "none"))


def test_blocks_of_the_overlaps_give_a_first_guess():
    scan, acquisition = take(0.05, vignetting=1.0)
    pairs = [*((i, i + 3) for i in range(6)), *((i, i + 1) for i in (0, 1, 3, 4, 6, 7))]
    shifts = {pair: compute_rounded_shift(scan.nominal_px, pair) for pair in pairs}
    assert 0.03 <= estimate_distortion(frames_of(acquisition), shifts, 10) <= 0.07


def test_pixels_outside_the_field_stay_outside():
    _, acquisition = take(-0.1)
    prepared = frames_of(acquisition).copy_with_changes(distortion=-0.1)
    image, weight = prepared.correct(0)
    assert weight[0, 0] == weight[0, SIDE // 2] == 0
    assert weight[SIDE // 2, SIDE // 2] == 1
    assert np.isfinite(image).all()


@pytest.mark.parametrize("wrong", ["much", 0.3, True])
def test_another_word_or_number_is_refused(wrong):
    with refused(OptionError, "out-of-range", match=r"auto, none .* -0\.2"):
        StitchOptions.parse({"distortion": wrong})
