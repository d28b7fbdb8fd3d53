"""What unrelated frames reach by chance, and what is not claimed without a check."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core import Acquisition, RegistrationError, run
from napari_semsr.stitching.flat_field import create_uniform_flat_field
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.layout import (
    Overlap,
    measure_chance_threshold,
    place_frame_by_neighbours,
)
from napari_semsr.stitching.pairwise import compute_correlation, search_shifts
from napari_semsr.stitching.solution import PairReport
from napari_semsr.stitching.solve import count_tried_shifts, solve_mosaic
from napari_semsr.stitching.state import State, StitchOptions
from napari_semsr.stitching.verify import find_loop_pairs, is_valid_overlap
from tests.stitching import scans


def pink(white):
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in white.shape)))
    frequency[0, 0] = 1
    return np.fft.ifft2(np.fft.fft2(white) / frequency).real


TEXTURES = {
    "white": lambda white: white,
    "smooth": lambda white: ndimage.gaussian_filter(white, 3),
    "pink": pink,
    "vignetted": lambda white: (
        ndimage.gaussian_filter(white, 2) * scans.square_flat(len(white), 0.3)
    ),
    "few grains": lambda white: ndimage.gaussian_filter((white > 3.3) * 1.0, 3),
}


def circuit(rng, shape):
    scene = np.zeros(shape)
    for _ in range(40 * shape[1] // shape[0]):
        y, x = rng.integers(0, shape)
        sides = int(rng.uniform(0.1, 0.5) * shape[0]), int(rng.choice([4, 6, 10]))
        rows, columns = sides[:: rng.choice([-1, 1])]
        scene[y : y + rows, x : x + columns] = 1
    return ndimage.gaussian_filter(scene, 1)


def grains(rng, shape, count):
    scene = np.zeros(shape)
    count = count * shape[1] // shape[0]
    scene[rng.integers(0, shape[0], count), rng.integers(0, shape[1], count)] = 1
    return 8 * np.pi * ndimage.gaussian_filter(scene, 2)


def prepared_frames(frames, noise=4, seed=0):
    frames = np.stack([100 + 20 * f / f.std() for f in frames])
    frames += np.random.default_rng(seed).normal(0, noise, frames.shape)
    acquisition = Acquisition(frames.astype(np.float32), tuple("abcd"[: len(frames)]))
    return CorrectedFrames(
        acquisition, create_uniform_flat_field(frames.shape[1:], 0.0, "none")
    )


@pytest.mark.parametrize("kind", [*TEXTURES, "circuit"])
def test_unrelated_frames_stay_below_chance(kind):
    rng = np.random.default_rng(5)
    shape, reach, overlap = (96, 96), (16, 16), (0, 67)
    make = TEXTURES.get(kind, lambda white: circuit(rng, white.shape))
    for _ in range(3):
        frames = prepared_frames([make(rng.normal(size=shape)) for _ in range(4)])
        limit, _ = measure_chance_threshold(frames, [overlap], reach, 4.0)
        pairs = [(0, 1), (2, 3), (0, 2), (1, 3), (0, 3), (1, 2)]
        best = [
            search_shifts(frames, pair, overlap, reach).best_score for pair in pairs
        ]
        assert max(best) < limit


def one_grain(place):
    frame = np.zeros((96, 96))
    frame[place] = 1
    return ndimage.gaussian_filter(frame, 2)


def test_one_grain_on_another_says_nothing_and_many_grains_do():
    frames = prepared_frames([one_grain((40, 80)), one_grain((50, 20))], noise=0.1)
    ncc, score, _ = compute_correlation(frames, (0, 1), (-10, 60))
    assert ncc > 0.95
    assert score < 1
    scene = grains(np.random.default_rng(1), (128, 230), 27)
    frames = prepared_frames([scene[:, :128], scene[:, 102:]])
    found = search_shifts(frames, (0, 1), (0, 102), (16, 16))
    limit, _ = measure_chance_threshold(frames, [(0, 102)], (16, 16), 4.0)
    assert found.best_score > limit
    assert np.abs(found.shifts[0] - (0, 102)).max() <= 1


@pytest.mark.parametrize("seed", [4])
def test_circuits_that_share_nothing_are_not_joined(seed):
    rng = np.random.default_rng(seed)
    frames = np.stack([100 + 60 * circuit(rng, (200, 200)) for _ in range(2)])
    frames += rng.normal(0, 10, frames.shape)
    nominal = np.array([(0.0, 0.0), (0.0, 120.0)])
    scan = Acquisition(frames.astype(np.float32), ("a", "b"), nominal_px=nominal)
    with pytest.raises(RegistrationError):
        run(solve_mosaic(scan, StitchOptions(distortion="none")))


def test_dust_of_the_camera_joins_no_frames():
    rng = np.random.default_rng(1)
    dust = 1 - 0.9 * grains(rng, (128, 128), 60).clip(0, 1)
    frames = np.stack([smooth(2 + k, (128, 128)) * dust for k in range(2)])
    frames += rng.normal(0, 2, frames.shape)
    nominal = np.array([(0.0, 0.0), (0.0, 20.0)])
    scan = Acquisition(frames.astype(np.float32), ("a", "b"), nominal_px=nominal)
    with pytest.raises(RegistrationError):
        run(solve_mosaic(scan))


def test_a_joint_of_a_frame_that_was_dropped_holds_nothing():
    state = SimpleNamespace(positions=np.array([(0.0, 0.0), (np.nan, np.nan)]))
    assert not is_valid_overlap(state, Overlap(0, 1, (0.0, 90.0), 9.0))


def two_frames(scene, step, known="grid-overlap"):
    frames = np.stack([scene[:, :300], scene[:, step : step + 300]])
    frames = frames + np.random.default_rng(9).normal(0, 25, frames.shape)
    how = {} if known == "nothing" else {"grid": (1, 2)}
    how |= {"overlap": 0.2} if known == "grid-overlap" else {}
    return Acquisition(frames.astype(np.float32), ("a", "b"), **how)


def smooth(seed, shape):
    scene = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return 110 + 25 * scene / scene.std()


@pytest.mark.parametrize("known", ["grid-overlap", "grid", "nothing"])
def test_frames_that_share_nothing_are_not_joined_and_two_that_do_are(known):
    for seed in range(3):
        with pytest.raises(RegistrationError):
            run(solve_mosaic(two_frames(smooth(seed, (300, 600)), 300, known)))
    solution = run(solve_mosaic(two_frames(smooth(40, (300, 560)), 240, known)))
    assert np.abs(solution.positions_px[1] - (0, 240)).max() < 0.5
    # one joint alone agrees with itself, which says nothing
    assert solution.residual_px is None
    assert solution.residual_median_px is None
    assert solution.residual_worst_px is None


@pytest.mark.parametrize("is_same", [True, False])
def test_a_weak_overlap_is_used_where_the_others_predict_it(is_same):
    scene, other = (smooth(seed, (216, 216)) for seed in (1, 2))
    level, faint = scene.mean(), np.s_[96:120, 110:]
    scene[faint] = level + 0.12 * (scene[faint] - level)
    corners = np.array([(0, 0), (0, 96), (96, 0), (96, 96)])
    frames = np.stack([scene[y : y + 120, x : x + 120] for y, x in corners])
    if not is_same:
        frames[3, :24, 14:] = level + 0.12 * (other[faint] - level)
    frames += np.random.default_rng(1).normal(0, 6, frames.shape)
    stated = corners + np.array([(0, 0), (2, -3), (-3, 1), (3, 2)])
    scan = Acquisition(frames.astype(np.float32), tuple("abcd"), nominal_px=stated)
    solution = run(solve_mosaic(scan, StitchOptions(distortion="none")))
    weak = next(p for p in solution.pairs if (p.first, p.second) == (1, 3))
    assert weak.score < solution.threshold
    assert weak.used == is_same
    if is_same:
        assert np.abs(weak.shift_px - np.array((96, 0))).max() < 2


def test_one_grain_places_no_frame_among_its_neighbours():
    grains_at = [(40, 80), (20, 82), (60, 20)]
    frames = prepared_frames([one_grain(place) for place in grains_at], noise=0.1)
    positions = np.array([(0.0, 0.0), (4.0, 0.0), (np.nan, np.nan)])
    expected, reach = np.array([0.0, 66.0]), (16, 16)
    found = place_frame_by_neighbours(frames, 2, expected, positions, reach, 3.0)
    assert found is None


def test_a_search_led_by_the_images_counts_all_shifts():
    frames = np.zeros((2, 100, 80), np.float32)
    scan = Acquisition(frames, ("a", "b"), grid=(1, 2))
    prepared = CorrectedFrames(scan, create_uniform_flat_field((100, 80), 0.0, "none"))
    state = State(scan, StitchOptions(), prepared, np.zeros((2, 2)), False)
    state.reach = (16, 16)
    assert count_tried_shifts(state) == 33**2
    state.matches = [Overlap(0, 1, (0.0, 60.0), 9.0)]
    assert count_tried_shifts(state) == 199 * 159


def test_joints_are_checked_in_loops_alone():
    ends = [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4)]
    pairs = [PairReport(*pair, (0, 0), 1, 9, used=True) for pair in ends]
    assert find_loop_pairs(pairs) == pairs[:3]
    assert find_loop_pairs(pairs[3:]) == []


def test_a_bridge_between_two_loops_is_not_checked():
    ends = [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4), (4, 5), (3, 6), (5, 6), (4, 6)]
    pairs = [PairReport(*pair, (0, 0), 1, 9, used=True) for pair in ends]
    assert find_loop_pairs(pairs) == [
        pair for pair in pairs if (pair.first, pair.second) != (2, 3)
    ]


def test_median_and_worst_residual_are_those_of_the_joints(square_solution):
    used = [pair for pair in square_solution.pairs if pair.used]
    residuals = [pair.residual_px for pair in find_loop_pairs(used)]
    assert square_solution.residual_median_px == pytest.approx(np.median(residuals))
    assert square_solution.residual_worst_px == max(residuals)
