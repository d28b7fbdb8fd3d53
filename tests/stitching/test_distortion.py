"""The field's radial distortion, found with the positions."""

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core import (
    Acquisition,
    Box,
    FieldDistortion,
    OptionError,
    distort,
    run,
)
from napari_semsr.core.acquisition import ArrayFrames
from napari_semsr.simulation.superlens.scan import ScanOptions, cut_scan
from napari_semsr.stitching import StitchOptions, plan_fusion, solve_mosaic
from napari_semsr.stitching.distortion import guess_distortion
from napari_semsr.stitching.flat_field import FlatField
from napari_semsr.stitching.frames import CorrectedFrames
from tests.stitching import scans

SIDE = 160


def take(amount, **more):
    """A scan of 3x3 square frames."""
    options = {
        "phantom": "particles",
        "frames_grid": (3, 3),
        "frame_px": SIDE,
        "overlap": 0.35,
        "field": "square",
        "seed": 5,
    }
    scan = cut_scan(None, ScanOptions(**{**options, **more}, distortion=amount))
    frames = ArrayFrames(scan.frames)
    return scan, Acquisition(frames, scan.names, nominal_px=scan.nominal_px)


def solved(acquisition, distortion="auto"):
    return run(solve_mosaic(acquisition, StitchOptions(distortion=distortion)))


def calibrated(acquisition, amount, *, sd=0.0003, side=SIDE, centre=(0.0, 0.0)):
    told = FieldDistortion(amount=amount, sd=sd, shape=(side, side), centre_px=centre)
    known = told.on((SIDE, SIDE))
    options = StitchOptions(distortion=known.amount)
    return run(solve_mosaic(acquisition, options, known=known))


def rms(solution, scan):
    return scans.errors(solution.positions_px, scan.true_px)[1]


@pytest.fixture(scope="module")
def still():
    """The scan without distortion, solved without looking for any."""
    scan, acquisition = take(0.0)
    return acquisition, solved(acquisition, "none"), rms(solved(acquisition), scan)


@pytest.fixture(scope="module")
def bent():
    """The scan with 3 % at the rim, and its solution."""
    scan, acquisition = take(0.03)
    return scan, acquisition, solved(acquisition)


def test_distortion_is_found_with_the_positions(still, bent):
    scan, _, solution = bent
    assert solution.placed.all()
    assert solution.distortion == pytest.approx(0.03, rel=0.05)
    assert abs(solution.distortion - 0.03) < 4 * solution.distortion_sd
    assert rms(solution, scan) < 2 * still[2]


def test_positions_are_told_to_be_less_sure(still, bent):
    assert np.median(bent[2].sigma_px) > 1.05 * np.median(still[1].sigma_px)


def test_a_barrel_is_found_as_well():
    scan, acquisition = take(-0.03, photons=700, jitter_px=10)
    solution = solved(acquisition)
    assert solution.distortion == pytest.approx(-0.03, rel=0.05)
    expected = np.sqrt((solution.sigma_px**2).sum(axis=1).mean())
    assert rms(solution, scan) < 2 * expected


def test_a_small_one_is_found_without_a_second_search():
    scan, acquisition = take(0.004)
    solution = solved(acquisition)
    assert abs(solution.distortion - 0.004) < 4 * solution.distortion_sd
    assert rms(solution, scan) < 0.5 * rms(solved(acquisition, "none"), scan)


def test_a_scan_without_distortion_stays_as_it_was(still):
    acquisition, plain, _ = still
    solution = solved(acquisition)
    assert solution.distortion == 0
    assert 0 < solution.distortion_sd < 0.002
    assert plain.distortion_sd is None
    assert np.array_equal(solution.positions_px, plain.positions_px)
    assert np.array_equal(solution.gains, plain.gains)
    assert np.array_equal(solution.flat.flat, plain.flat.flat)


def test_a_calibrated_distortion_brings_its_deviation(still, bent):
    scan, acquisition, _ = bent
    # at twice the radius the displacement is eight times as much
    solution = calibrated(acquisition, 0.12, sd=0.0012, side=2 * SIDE)
    assert solution.distortion == pytest.approx(0.03)
    assert solution.distortion_sd == pytest.approx(0.0003)
    assert rms(solution, scan) < 2 * still[2]
    assert np.median(solution.sigma_px) > np.median(still[1].sigma_px)
    assert not solution.warnings


def test_overlaps_that_contradict_a_calibration_are_told(bent):
    solution = calibrated(bent[1], 0.02)
    (said,) = solution.warnings
    assert "The overlaps tell a distortion of 0.0298 +- 0.0002" in said
    assert "the calibration 0.0200 +- 0.0003, which is taken" in said


def test_a_centre_off_the_middle_is_taken_back():
    centre = (9.0, -14.0)
    scene, places = scans.texture((420, 420), 3), []
    grid = distort(*np.indices((SIDE, SIDE), float), (SIDE, SIDE), 0.05, centre=centre)
    rng = np.random.default_rng(0)
    frames = []
    for cell in np.ndindex(3, 3):
        place = 30 + 100 * np.array(cell) + rng.uniform(-3, 3, 2)
        at = np.array(grid) + place[:, None, None]
        frames.append(ndimage.map_coordinates(scene, at, order=5).astype(np.float32))
        frames[-1] += rng.normal(scale=0.01, size=frames[-1].shape)
        places.append(place)
    acquisition = Acquisition(
        ArrayFrames(np.stack(frames)),
        tuple(f"{n}.tif" for n in range(9)),
        nominal_px=np.rint(places),
    )
    right = calibrated(acquisition, 0.05, centre=centre)
    wrong = calibrated(acquisition, 0.05)
    errors = [scans.errors(item.positions_px, np.array(places))[1]
              for item in (right, wrong)]  # fmt: skip
    assert errors[0] < 0.05
    assert errors[1] > 5 * errors[0]
    assert right.distortion_centre_px == centre
    # the mosaic is the scene, but for light and offset
    plan = plan_fusion(acquisition, right)
    image = plan.block(Box(60, 260, 60, 260))[0]
    at = np.indices((200, 200)) + 60.0 + np.min(places, axis=0)[:, None, None]
    true = ndimage.map_coordinates(scene, at, order=5)
    assert np.corrcoef(image.ravel(), true.ravel())[0, 1] > 0.99


def test_a_known_distortion_is_taken_back_as_it_is(still, bent):
    scan, acquisition, _ = bent
    solution = solved(acquisition, 0.03)
    assert solution.distortion == 0.03
    assert solution.distortion_sd is None
    assert rms(solution, scan) < 2 * still[2]


def test_the_mosaic_shows_the_sample_in_its_place(bent):
    scan, acquisition, solution = bent
    plan = plan_fusion(acquisition, solution)
    for corner in ((20, 20), (200, 120), (220, 230)):
        shown = plan.block(Box.of((100, 100), corner))[0]
        y, x = np.indices(shown.shape, float) + np.array(corner)[:, None, None]
        y, x = (
            place - solution.positions_px[:, axis].mean() + scan.true_px[:, axis].mean()
            for axis, place in enumerate((y, x))
        )
        sample = scan.scene.sample(scan.scene.coefficients(), y, x)
        assert np.corrcoef(shown.ravel(), sample.ravel())[0, 1] > 0.97


def frames_of(acquisition):
    ones = np.ones(acquisition.frame_shape, np.float32)
    return CorrectedFrames(acquisition, FlatField(ones, 0.0, ones > 0, "none"))


def neighbours(scan, count=9):
    """Whole-pixel shifts of frames beside each other."""
    pairs = [(i, j) for i in range(count) for j in (i + 1, i + 3) if j < count]
    shifts = {
        (i, j): tuple(np.rint(scan.nominal_px[j] - scan.nominal_px[i]).astype(int))
        for i, j in pairs
        if j != i + 1 or j % 3
    }
    return {pair: (int(y), int(x)) for pair, (y, x) in shifts.items()}


@pytest.mark.parametrize(("amount", "low", "high"), [(0.05, 0.03, 0.07), (0, 0, 0)])
def test_blocks_of_the_overlaps_give_a_first_guess(amount, low, high):
    scan, acquisition = take(amount, vignetting=1.0)
    guess = guess_distortion(frames_of(acquisition), neighbours(scan), 10)
    assert low <= guess <= high


def test_pixels_outside_the_field_stay_outside():
    _, acquisition = take(-0.1)
    prepared = frames_of(acquisition).changed(distortion=-0.1)
    image, weight = prepared.corrected(0)
    assert weight[0, 0] == weight[0, SIDE // 2] == 0
    assert weight[SIDE // 2, SIDE // 2] == 1
    assert np.isfinite(image).all()


@pytest.mark.parametrize("wrong", ["much", 0.3, "nan", True])
def test_another_word_or_number_is_refused(wrong):
    with pytest.raises(OptionError, match=r"must be auto, none or a number from -0\.2"):
        StitchOptions.parse({"distortion": wrong})
