"""A whole scan: placed to the noise limit, or honest about what is not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_semsr.core import OptionError, RegistrationError, ShapeError, run
from napari_semsr.core.acquisition import UnusedFrame
from napari_semsr.io.frames import open_frames
from napari_semsr.stitching import StitchOptions, solve_mosaic
from napari_semsr.stitching.frames import CorrectedFrames, estimate_initial_flat
from napari_semsr.stitching.layout import Layout, Overlap
from napari_semsr.stitching.pairwise import Candidates
from napari_semsr.stitching.refine import NOISE_RATIO, LinearisedShift, RefinedPositions
from napari_semsr.stitching.state import State
from napari_semsr.stitching.verify import finish_solution
from tests.refusals import refused
from tests.stitching import scans


def test_frames_lie_right_to_the_stated_error(square_scan, square_solution):
    found, truth = square_solution, square_scan.truth
    _, rms = scans.errors(found.positions_px, truth)
    assert rms < 0.02
    assert found.pairs_used == len(found.pairs) == 20
    assert not found.warnings
    assert np.allclose(found.positions_px.min(axis=0), 0)
    stated = np.sqrt((found.sigma_px**2).sum(axis=1).mean())
    assert 0.3 < rms / stated < 2
    assert found.noise == pytest.approx(square_scan.sigma, rel=0.3)
    for pair in found.pairs:
        true = truth[pair.second] - truth[pair.first]
        assert np.abs(true - pair.shift_px).max() < 6 * pair.sigma_px + 0.02


def test_solve_names_bad_frames_and_places_the_others(square_scan):
    """A blank frame, and one of another sample."""
    rng = np.random.default_rng(1)
    data = square_scan.acquisition.frames.copy()
    noise = rng.normal(0, square_scan.sigma, data.shape[1:])
    data[4] = np.clip(2000 + 0.5 * scans.FULL * square_scan.flat + noise, 0, 65535)
    other = scans.texture(data.shape[1:], 77) * square_scan.flat * scans.FULL
    data[6] = np.clip(2000 + other + noise, 0, 65535)
    lost = (UnusedFrame("lost", "truncated"),)
    spoilt = square_scan.acquisition.replace(frames=data, faults=lost)
    solution = run(solve_mosaic(spoilt))
    faults = {fault.frame: fault.reason for fault in solution.left_out}
    assert set(faults) == {"lost", "f004", "f006"}
    assert "too little texture" in faults["f004"]
    assert "foreign" in faults["f006"]
    assert np.isnan(solution.positions_px[[4, 6]]).all()
    assert scans.errors(solution.positions_px, square_scan.truth)[1] < 0.03
    assert any("be placed: f006" in said for said in solution.warnings)


def test_a_frame_stated_far_away_is_placed_by_the_images(square_scan):
    stated = square_scan.acquisition.nominal_px.copy()
    stated[4] += 900
    wrong = square_scan.acquisition.replace(nominal_px=stated)
    solution = run(solve_mosaic(wrong))
    assert solution.is_placed.all()
    assert scans.errors(solution.positions_px, square_scan.truth)[1] < 0.03
    (said,) = solution.warnings
    assert said.startswith("1 of 9 frames placed by the images alone")
    assert said.endswith("despite their stated positions: f004.")


def test_solve_reads_the_stage_and_joins_two_frames(scene):
    stage = ((1.03, 0.02), (-0.02, 0.98))
    scan = scans.cut_scan(scene, jitter=2, stage=stage, seed=8, pixel_size_nm=10)
    acquisition = scan.acquisition.replace(
        nominal_px=None, nominal_nm=scan.acquisition.nominal_px * 10
    )
    solution = run(solve_mosaic(acquisition))
    assert scans.errors(solution.positions_px, scan.truth)[1] < 0.02
    scale = np.hypot(*solution.stage.matrix)
    assert scale == pytest.approx((1.03, 0.98), abs=0.01)
    assert solution.estimated_pixel_size_nm == pytest.approx((9.7, 10.2), rel=0.01)
    assert solution.pixel_size_nm == (10.0, 10.0)
    assert any("calibration" in warning for warning in solution.warnings)
    two = scans.cut_scan(scene, grid=(1, 2), seed=9)
    solution = run(solve_mosaic(two.acquisition))
    assert scans.errors(solution.positions_px, two.truth)[1] < 0.05


def test_solve_takes_a_flat_field(square_scan):
    options = StitchOptions(flat_field="flat.tif")
    with refused(OptionError, "flat-field-missing"):
        run(solve_mosaic(square_scan.acquisition, options))
    with refused(ShapeError, "sizes-differ"):
        run(solve_mosaic(square_scan.acquisition, options, flat=np.ones((4, 4))))
    with refused(ShapeError, "sizes-differ"):
        run(solve_mosaic(square_scan.acquisition, dark=np.ones((4, 4))))
    with refused(OptionError, "out-of-range"):
        run(solve_mosaic(square_scan.acquisition, dark=70000))
    job = solve_mosaic(square_scan.acquisition, options, flat=square_scan.flat)
    solution = run(job)
    assert solution.flat.method == "file"
    assert scans.errors(solution.positions_px, square_scan.truth)[1] < 0.05


@pytest.mark.parametrize("entered", [100, "100", Path("100")], ids=repr)
def test_a_dark_level_is_a_number_however_it_is_entered(entered):
    assert StitchOptions(dark=entered).dark == 100


@pytest.mark.parametrize("dark", ["fitted", "level", "recorded", "frame"])
def test_a_given_flat_field_has_its_dark_level(round_scan, dark):
    """A flat field as the camera records it contains the dark level, too."""
    is_raw = dark in ("recorded", "frame")
    flat = round_scan.flat * 9000 + 2000 if is_raw else round_scan.flat
    dark = {"fitted": None, "frame": np.full((128, 128), 2000)}.get(dark, 2000.0)
    options = StitchOptions(flat_field="flat.tif")
    job = solve_mosaic(round_scan.acquisition, options, flat=flat, dark=dark)
    solution = run(job)
    assert np.median(solution.flat.dark) == pytest.approx(2000, rel=0.05)
    frames = CorrectedFrames(round_scan.acquisition, solution.flat, solution.gains)
    shown = np.mean([frames.correct(index)[0] for index in range(9)], axis=0)
    left = (shown / round_scan.clean.mean(axis=0))[solution.flat.valid]
    dim = 1 / round_scan.flat[solution.flat.valid]
    slope, level = np.polyfit(dim - dim.mean(), left, 1)
    assert abs(slope) * np.ptp(dim) < 0.01 * level
    assert solution.remaining_shading_percent < 0.5


def test_scans_without_overlap_or_anything_in_common_are_refused(square_scan, rng):
    scan = square_scan.acquisition
    one = scan.replace(frames=scan.frames[:1], names=("f",), nominal_px=None, grid=None)
    with refused(RegistrationError, "too-few-frames", match="got 1"):
        run(solve_mosaic(one))
    noise = rng.integers(0, 4000, (9, 96, 96)).astype(np.uint16)
    for other in (
        scan.replace(nominal_px=scan.nominal_px * 2),
        # of which rounding leaves the same in every frame
        scan.replace(frames=np.full(scan.shape, 7, np.uint8)),
        scan.replace(frames=noise, nominal_px=None),
    ):
        with refused(RegistrationError, "no-overlap"):
            run(solve_mosaic(other))


@pytest.mark.broad
def test_solve_two_tiles_of_a_czi(shared_data):
    pytest.importorskip("czifile", reason="needs czifile, the extra [czi]")
    scan = run(open_frames(shared_data / "stitch" / "mosaic_test.czi"))
    solution = run(solve_mosaic(scan))
    shift = solution.positions_px[1] - solution.positions_px[0]
    assert np.abs(shift - (-2, 825)).max() < 1
    assert solution.remaining_shading_percent > 9
    assert any("Shading remains" in warning for warning in solution.warnings)


def placed(scan, **known):
    """A scan whose frames have their true places, before the last checks."""
    prepared = CorrectedFrames(
        scan.acquisition, estimate_initial_flat(scan.acquisition)
    )
    state = State(scan.acquisition, StitchOptions(), prepared, scan.truth, True)
    return replace(state, positions=scan.truth.copy(), **known)


def test_loose_places_are_told_and_a_scan_without_any_joint_is_refused(square_scan):
    truth = square_scan.truth
    state = placed(square_scan, layout=Layout(truth, (), ()))
    with refused(RegistrationError, "nothing-placed", match=" 9 "):
        finish_solution(state)
    steps = [(i, i + 1, tuple(truth[i + 1] - truth[i])) for i in range(8)]
    overlaps = tuple(Overlap(i, j, shift, 9.0) for i, j, shift in steps)
    refined = RefinedPositions(truth, (), np.full((9, 2), 2.0))
    state = placed(square_scan, layout=Layout(truth, overlaps, ()), refinement=refined)
    prepared = state.frames.copy_with_changes(gains=square_scan.gains)
    (warning,) = finish_solution(replace(state, frames=prepared)).warnings
    assert warning.startswith("9 of 9 frames are uncertain")
    assert "up to 2.8 px" in warning


def hung(scan, pairs, own, **known):
    """Frames in their places; overlaps find themselves right, the one of 5 and 6 `own`.

    `own`: how far its best shift lies off when refined, in px; None where it was not.
    """
    overlaps, shifts, found = [], [], []
    for i, j in pairs:
        apart = scan.truth[j] - scan.truth[i]
        overlaps.append(Overlap(i, j, tuple(apart), 9.0))
        whole = np.rint(apart)[None].astype(int)
        found.append(Candidates(i, j, whole, np.full(1, 0.2), *np.full((2, 1), 9.0)))
        off = own if (i, j) == (5, 6) else 0.0
        if off is not None:
            step = np.array([0.0, off])
            shifts.append(LinearisedShift(i, j, 1e4 * np.eye(2), step, 1.0))
    spread = np.full((9, 2), 0.01)
    if own is None:
        spread[6:] = np.inf
    layout = Layout(scan.truth, tuple(overlaps), ())
    refined = RefinedPositions(scan.truth, tuple(shifts), spread)
    return finish_solution(
        placed(scan, layout=layout, refinement=refined, candidates=found, **known)
    )


@pytest.mark.parametrize("own", [15.0, None])
def test_frames_whose_one_joint_misses_itself_or_was_not_measured_are_told(
    square_scan, own
):
    chain = [(i, i + 1) for i in range(8)]
    solution = hung(square_scan, chain, own)
    assert solution.warnings[0].endswith(": f006, f007, f008.")
    assert solution.is_placed[:6].all()
    assert solution.is_placed[6:].any() == (own is None)
    # placed among all of its neighbours, one of them holds them as well
    rescued = hung(square_scan, chain, 15.0, rescued_frames={6})
    assert rescued.is_placed.all()


def test_each_overlap_is_reported_with_its_shift_and_doubt(square_scan):
    truth = square_scan.truth
    every = [(i, j) for j in range(9) for i in range(j)]
    solution = hung(square_scan, every, 2.5, ambiguous={(0, 1), (5, 6)})
    assert [(pair.first, pair.second) for pair in solution.pairs] == every
    for pair, (i, j) in zip(solution.pairs, every, strict=True):
        off = (0, 2.5) if (i, j) == (5, 6) else (0, 0)
        assert pair.used
        assert pair.ambiguous == ((i, j) in {(0, 1), (5, 6)})
        assert pair.shift_px == pytest.approx(truth[j] - truth[i] + off)
        assert pair.residual_px == off[1]
        assert pair.sigma_px == pytest.approx(np.sqrt(NOISE_RATIO / 1e4))
    # of 36 equally sure overlaps one misses by 2.5 px
    assert solution.residual_px == pytest.approx(2.5 / 6)
    far = hung(square_scan, every, 15.0)
    assert [(p.first, p.second) for p in far.pairs if not p.used] == [(5, 6)]


def test_too_few_frames_of_a_grid_ask_for_another_one(square_scan):
    bare = square_scan.acquisition.replace(nominal_px=None, grid=(3, 3))
    state = placed(replace(square_scan, acquisition=bare))
    state.positions[2:] = np.nan
    overlap = Overlap(0, 1, tuple(square_scan.truth[1] - square_scan.truth[0]), 9.0)
    state.layout, state.is_stated = Layout(state.positions, (overlap,), ()), False
    said = " ".join(finish_solution(state).warnings)
    assert "check the grid and order, or pass positions." in said
    assert "set grid" not in said
