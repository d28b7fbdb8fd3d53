"""Shading, gains and dark level from overlaps."""

import numpy as np
import pytest

from napari_semsr.core import RegistrationError
from napari_semsr.core.progress import run
from napari_semsr.stitching import StitchOptions, solve_mosaic
from napari_semsr.stitching.flat_field import (
    FlatField,
    SurfaceBasis,
    compute_radial_flat_field,
    compute_valid_mask,
    estimate_initial_flat,
    find_field_centre,
)
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.nominal import find_overlapping_pairs
from napari_semsr.stitching.shading import (
    choose_flat_field,
    compare_overlap_blocks,
    compute_gain_prior,
    refine_shading,
    sum_blocks,
)
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


def test_frames_of_two_exposures_are_made_alike(scene):
    exposures = np.where(np.arange(9) % 2, 0.5, 1.0)
    scan = scans.cut_scan(scene, seed=4)
    acquisition = scan.acquisition
    frames = np.stack([acquisition.read(n) for n in range(len(acquisition))])
    assert len(frames) == 9
    frames = (frames * exposures[:, None, None]).astype(frames.dtype)
    solution = run(solve_mosaic(acquisition.replace(frames=frames)))
    ratio = np.log(solution.gains / (scan.gains * exposures))
    assert np.std(ratio) < 0.02


def test_holes_and_empty_frames_leave_the_first_flat_field(square_scan):
    acquisition = square_scan.acquisition
    frames = np.stack([acquisition.read(n) for n in range(len(acquisition))])
    frames = frames.astype(np.float32)
    whole = estimate_initial_flat(acquisition.replace(frames=frames.copy())).flat
    frames[1, 20:40, 20:40] = np.nan
    frames[2] = np.nan
    holed = estimate_initial_flat(acquisition.replace(frames=frames)).flat
    assert np.abs(holed / whole - 1).max() < 0.1
    assert np.ptp(holed) > 0.1


@pytest.mark.broad
def test_tilted_light_is_found(scene):
    flat = scans.square_flat(128, tilt=0.3)
    scan = scans.cut_scan(scene, flat=flat, seed=5)
    solution = run(solve_mosaic(scan.acquisition))
    # a tilt looks like gains that change steadily: 0.09 of it was there
    assert shading_left(solution, scan) < 0.03
    assert scans.errors(solution.positions_px, scan.truth)[1] < 0.03


def test_refine_shading_keeps_a_flat_field_that_is_right(square_scan, square_solution):
    flat, gains = square_solution.flat, square_solution.gains
    prepared = CorrectedFrames(square_scan.acquisition, flat, gains)
    positions = square_solution.positions_px
    pairs = find_overlapping_pairs(positions, (128, 128))
    again = refine_shading(prepared, positions, pairs)
    change = again.flat.flat / flat.flat
    assert np.abs(change / change.mean() - 1).max() < 0.02


def test_overlap_blocks_of_equal_frames_are_equal(square_scan, square_solution):
    prepared = CorrectedFrames(square_scan.acquisition, square_solution.flat)
    positions = np.full((9, 2), np.nan)
    positions[[0, 1]] = 0.0
    found = compare_overlap_blocks(prepared, positions, [(0, 0)])
    assert len(found.pair) > 100
    assert np.ptp(found.values, axis=1).max() == 0
    ragged = np.ones((17, 24), np.float32)
    assert sum_blocks(ragged).tolist() == [[64] * 3] * 2


def test_surface_is_what_its_basis_says(rng):
    basis = SurfaceBasis((40, 56), 4)
    place = np.array([[0.0, 0.0], [13.0, 50.0], [39.0, 55.0]])
    coefficients = rng.normal(size=basis.evaluate(place).shape[1])
    surface = basis.evaluate_surface(coefficients)
    at = basis.evaluate(place) @ coefficients
    assert np.allclose(surface[[0, 13, 39], [0, 50, 55]], at)


@pytest.mark.parametrize("shape", [(40, 56), (56, 40)])
def test_tilts_are_slopes_of_one_per_half_frame(shape):
    basis = SurfaceBasis(shape, 5)
    for axis in range(2):
        surface = basis.evaluate_surface(basis.compute_tilts()[:, axis])
        steps = np.gradient(surface)
        assert np.allclose(steps[axis] * max(shape) / 2, 1)
        assert np.allclose(steps[1 - axis], 0)
        assert surface.mean() == pytest.approx(0, abs=1e-9)


def test_a_basis_without_knots_has_even_powers_of_the_distance():
    basis = SurfaceBasis((40, 60), 0)
    place = np.array([[19.5, 29.5], [19.5, 59.5], [4.5, 9.5]])
    squares = np.array([0, 1, (15**2 + 20**2) / 30**2])
    assert basis.evaluate(place) == pytest.approx(
        np.transpose([squares, squares**2, squares**3])
    )
    shapes = basis.evaluate_shapes(place)
    assert shapes[2] == pytest.approx([-0.5, -2 / 3, squares[2], squares[2] ** 2])
    moved = SurfaceBasis((40, 60), 0, centre=(4.5, 9.5))
    assert moved.evaluate(place[2:]) == pytest.approx(np.zeros((1, 3)))
    # a shape is read as itself, whatever its mean
    both = SurfaceBasis((40, 60), 4)
    grid = np.indices((40, 60))[:, ::5, ::5].reshape(2, -1).T
    reader = both.compute_shape_matrix(grid)
    assert reader @ both.compute_tilts() == pytest.approx(np.eye(4, 2), abs=1e-9)
    assert reader[:, :2] == pytest.approx(np.eye(4)[:, 2:], abs=1e-9)


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
    flat = FlatField(wrong / wrong.max(), 0.0, np.ones((128, 128), bool), "radial")
    found = choose_flat_field(
        CorrectedFrames(scan.acquisition, flat), scan.truth, [(0, 1)]
    )
    assert (found.flat == 1).all()


def test_a_flat_field_that_helps_is_kept(square_scan):
    taken = square_scan.acquisition
    prepared = CorrectedFrames(taken, estimate_initial_flat(taken))
    pairs = find_overlapping_pairs(square_scan.truth, (128, 128))
    assert choose_flat_field(prepared, square_scan.truth, pairs) is prepared.flat


def test_light_drifts_rather_than_flickers():
    hold, drift = compute_gain_prior(36, 0.03), np.linspace(-1, 1, 36)
    flicker = np.random.default_rng(0).permutation(drift)
    assert drift @ hold @ drift < 0.4 * flicker @ hold @ flicker
    assert np.linalg.eigvalsh(compute_gain_prior(1, 0.03)).min() > 0


def test_first_flat_finds_a_round_field_and_its_dark_level(round_scan, square_scan):
    assert estimate_initial_flat(square_scan.acquisition).dark == 0  # all is lit
    found = estimate_initial_flat(round_scan.acquisition)
    inside = found.valid
    ratio = found.flat[inside] / round_scan.flat[inside]
    assert ratio.std() / ratio.mean() < 0.06
    assert found.dark == pytest.approx(2000, rel=0.05)
    assert found.method == "radial"


def test_centres_and_radial_fields_are_found():
    flat = scans.round_flat(128, centre=(0.06, -0.05), radius=0.43)
    found, _ = find_field_centre(flat)
    assert found == pytest.approx((63.5 + 128 * 0.06, 63.5 - 128 * 0.05), abs=0.7)
    flat = scans.square_flat(128)
    inside = np.hypot(*(np.indices(flat.shape) - 63.5)) < 85
    assert np.abs(compute_radial_flat_field(flat) / flat / 1.0 - 1)[inside].max() < 0.02


def test_an_object_at_the_centre_of_all_frames_is_no_shading():
    y, x = np.mgrid[:160, :160] - 79.5
    distance = np.hypot(y, x)
    true = 1 - 0.25 * (distance / 80) ** 2
    typical = true * (1 + 0.08 * np.cos(distance / 7))  # no polynomial
    typical[distance < 5] *= 0.5
    ratio = compute_radial_flat_field(typical) / true
    assert (ratio / np.median(ratio))[distance < 5].min() > 0.88


def test_valid_mask_leaves_out_the_dark_and_its_edge():
    assert compute_valid_mask(np.full((9, 9), 0.5)).all()
    flat = np.ones((40, 40))
    flat[:, :10] = 0.1
    mask = compute_valid_mask(flat)
    assert not mask[:, :13].any()
    assert mask[20, 20]


def dust(side, count=20, seed=0):
    """Specks of 1 to 5 px radius that take a fifth to two thirds of the light."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((side, side))
    specks = np.ones((side, side))
    for row, column in rng.uniform(0, side, (count, 2)):
        inside = np.hypot(y - row, x - column) < rng.uniform(1, 5)
        specks = np.where(inside, specks * rng.uniform(0.35, 0.8), specks)
    return specks


@pytest.mark.parametrize("known", ["positions", "none"])
def test_dust_that_all_frames_show_is_divided_out(scene, known):
    flat = scans.square_flat(128) * dust(128)
    scan = scans.cut_scan(scene, grid=(4, 4), flat=flat, seed=5, known=known)
    solution = run(solve_mosaic(scan.acquisition))
    assert solution.is_placed.all()
    assert scans.errors(solution.positions_px, scan.truth)[1] < 0.05
    specks = flat / scans.square_flat(128)
    assert shading_left(solution, scan) < 0.6 * specks.std()


def test_a_sample_that_comes_back_in_every_frame_is_no_dust():
    scene = scans.lattice((520, 520), 12.0)
    scan = scans.cut_scan(scene, side=120, overlap=0.3, jitter=0.0, seed=6)  # 7 periods
    found = estimate_initial_flat(scan.acquisition)
    assert np.ptp(np.diff(found.flat[60])) < 0.02  # steps from pixel to pixel


def test_a_hole_that_all_frames_have_is_no_dust(scene):
    scan = scans.cut_scan(scene, grid=(3, 3), flat=scans.square_flat(128), seed=5)
    whole = estimate_initial_flat(scan.acquisition).flat
    data = scan.acquisition.frames.astype(np.float32)
    data[:, 100:120, 5:30] = np.nan
    with_hole = estimate_initial_flat(scan.acquisition.replace(frames=data)).flat
    assert np.abs(with_hole / whole - 1).max() < 0.1


def test_frames_that_agree_pixel_by_pixel_are_refused(scene):
    dirty = dust(128, 40)
    scan = scans.cut_scan(
        0.5 + 0.05 * (scene - scene.mean()), grid=(3, 2), flat=dirty, known="none"
    )
    with refused(RegistrationError, "fixed-pattern"):
        run(solve_mosaic(scan.acquisition))
