"""Shading, gains and dark level from overlaps."""

import numpy as np
import pytest

from napari_semsr.core import RegistrationError, run
from napari_semsr.stitching import StitchOptions, frames, solve_mosaic
from napari_semsr.stitching.shading import choose_flat_field
from tests.refusals import refused
from tests.stitching import scans


def shading_left(solution, scan):
    """What the flat field leaves, RMS of the mean."""
    true = scan.flat / scan.flat.max()
    inside = solution.flat.valid & (true > 0.15)
    ratio = solution.flat.flat[inside] / true[inside]
    return ratio.std() / ratio.mean()


def test_shading_and_gains_are_those_of_the_frames(square_scan, square_solution):
    assert shading_left(square_solution, square_scan) < 0.01
    assert square_solution.flat.method.endswith("refined")
    # although no place is dark
    assert square_solution.flat.dark == pytest.approx(2000, rel=0.3)
    ratio = np.log(square_solution.gains / square_scan.gains)
    assert np.std(np.log(square_scan.gains)) > 0.03
    assert np.std(ratio) < 0.01


def test_a_tilted_field_in_steady_light_is_not_taken_for_gains(scene):
    scan = scans.cut_scan(scene, flat=scans.square_flat(128, tilt=0.3), seed=3)
    solution = run(solve_mosaic(scan.acquisition))
    assert shading_left(solution, scan) < 0.02
    assert solution.flat.is_refined


def test_shading_that_remains_is_told(square_scan, square_solution):
    # the field and the gains are as they are
    options = StitchOptions(flat_field="none", match_gain=False)
    solution = run(solve_mosaic(square_scan.acquisition, options))
    assert (solution.flat.flat == 1).all()
    assert (solution.gains == 1).all()
    assert (solution.offsets == 0).all()
    assert solution.remaining_shading_percent > 3
    (warning,) = solution.warnings
    assert f"{solution.remaining_shading_percent:.2g} %" in warning
    assert square_solution.remaining_shading_percent < 0.5
    assert not square_solution.warnings


def test_a_flat_field_that_holds_the_sample_is_given_up(scene):
    scan = scans.cut_scan(scene, grid=(1, 2), overlap=0.7, seed=9)
    wrong = (0.6 + scene[:128, :128]).astype(np.float32)
    flat = frames.FlatField(
        wrong / wrong.max(), 0.0, np.ones((128, 128), bool), "radial"
    )
    found = choose_flat_field(
        frames.CorrectedFrames(scan.acquisition, flat), scan.truth, [(0, 1)]
    )
    assert (found.flat == 1).all()


def test_first_flat_finds_a_round_field_and_its_dark_level(round_scan, square_scan):
    assert frames.estimate_initial_flat(square_scan.acquisition).dark == 0  # all is lit
    found = frames.estimate_initial_flat(round_scan.acquisition)
    inside = found.valid
    ratio = found.flat[inside] / round_scan.flat[inside]
    assert ratio.std() / ratio.mean() < 0.06
    assert found.dark == pytest.approx(2000, rel=0.05)
    assert found.method == "radial"


def dust(side, count=20, seed=0):
    """Specks of 1 to 5 px radius that take a fifth to two thirds of the light."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((side, side))
    specks = np.ones((side, side))
    for row, column in rng.uniform(0, side, (count, 2)):
        inside = np.hypot(y - row, x - column) < rng.uniform(1, 5)
        specks = np.where(inside, specks * rng.uniform(0.35, 0.8), specks)
    return specks


def test_dust_that_all_frames_show_is_divided_out(scene):
    flat = scans.square_flat(128) * dust(128)
    scan = scans.cut_scan(scene, grid=(4, 4), flat=flat, seed=5)
    solution = run(solve_mosaic(scan.acquisition))
    assert solution.is_placed.all()
    assert scans.errors(solution.positions_px, scan.truth)[1] < 0.05
    specks = flat / scans.square_flat(128)
    assert shading_left(solution, scan) < 0.6 * specks.std()


def test_frames_that_agree_pixel_by_pixel_are_refused(scene):
    dirty = dust(128, 40)
    scan = scans.cut_scan(
        0.5 + 0.05 * (scene - scene.mean()), grid=(3, 2), flat=dirty, known="none"
    )
    with refused(RegistrationError, "fixed-pattern"):
        run(solve_mosaic(scan.acquisition))


def test_the_centre_of_a_round_field_is_found():
    flat = scans.round_flat(128, centre=(0.06, -0.05), radius=0.43)
    found, _ = frames.find_field_centre(flat)
    assert found == pytest.approx((63.5 + 128 * 0.06, 63.5 - 128 * 0.05), abs=0.7)


def test_low_shapes_are_powers_of_half_frames():
    (found,) = frames.SurfaceBasis((40, 60), 4).evaluate_shapes(np.array([[4.5, 9.5]]))
    assert found == pytest.approx([-1 / 2, -2 / 3, 25 / 36, (25 / 36) ** 2])


def test_a_sample_that_comes_back_in_every_frame_is_no_dust():
    scene = scans.lattice((520, 520), 12.0)
    scan = scans.cut_scan(scene, side=120, overlap=0.3, jitter=0.0, seed=6)  # 7 periods
    found = frames.estimate_initial_flat(scan.acquisition)
    assert np.ptp(np.diff(found.flat[60])) < 0.02  # steps from pixel to pixel
