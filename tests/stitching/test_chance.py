"""What unrelated frames reach by chance, and what is not claimed without a check."""

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core import Acquisition, RegistrationError, run
from napari_semsr.stitching import PairReport, StitchOptions, solve_mosaic
from napari_semsr.stitching.frames import CorrectedFrames, create_uniform_flat_field
from napari_semsr.stitching.layout import count_shifts, measure_chance_level
from napari_semsr.stitching.pairwise import search_shifts
from napari_semsr.stitching.verify import find_loop_pairs
from tests.stitching import scans

TEXTURES = {
    "white": lambda white: white,
    "vignetted": lambda white: (
        ndimage.gaussian_filter(white, 2) * scans.square_flat(len(white), 0.3)
    ),
    "few grains": lambda white: ndimage.gaussian_filter((white > 3.3) * 1.0, 3),
}


def prepared_frames(frames, noise=4, seed=0):
    frames = np.stack([100 + 20 * f / f.std() for f in frames])
    frames += np.random.default_rng(seed).normal(0, noise, frames.shape)
    acquisition = Acquisition(frames.astype(np.float32), tuple("abcd"[: len(frames)]))
    return CorrectedFrames(
        acquisition, create_uniform_flat_field(frames.shape[1:], 0.0, "none")
    )


@pytest.mark.parametrize("kind", TEXTURES)
def test_unrelated_frames_stay_below_chance(kind):
    rng = np.random.default_rng(5)
    shape, reach, overlap = (96, 96), (16, 16), (0, 67)
    for _ in range(3):
        frames = prepared_frames(
            [TEXTURES[kind](rng.normal(size=shape)) for _ in range(4)]
        )
        chance = measure_chance_level(frames, [overlap])
        limit, _ = chance.compute_threshold(count_shifts(reach), 4.0)
        pairs = [(0, 1), (2, 3), (0, 2), (1, 3), (0, 3), (1, 2)]
        best = [
            search_shifts(frames, pair, overlap, reach).best_score for pair in pairs
        ]
        assert max(best) < limit


def two_frames(scene, step, known):
    frames = np.stack([scene[:, :300], scene[:, step : step + 300]])
    frames = frames + np.random.default_rng(9).normal(0, 25, frames.shape)
    how = {} if known == "nothing" else {"grid": (1, 2)}
    return Acquisition(frames.astype(np.float32), ("a", "b"), **how)


def smooth(seed, shape):
    scene = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return 110 + 25 * scene / scene.std()


@pytest.mark.parametrize("known", ["grid", "nothing"])
def test_frames_that_share_nothing_are_not_joined_and_two_that_do_are(known):
    with pytest.raises(RegistrationError):
        run(solve_mosaic(two_frames(smooth(0, (300, 600)), 300, known)))
    solution = run(solve_mosaic(two_frames(smooth(40, (300, 560)), 240, known)))
    assert np.abs(solution.positions_px[1] - (0, 240)).max() < 0.5
    # one overlap alone agrees with itself, which says nothing
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


def test_a_bridge_between_two_loops_is_not_checked():
    ends = [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4), (4, 5), (3, 6), (5, 6), (4, 6)]
    pairs = [PairReport(*pair, (0, 0), 1, 9, used=True) for pair in ends]
    assert find_loop_pairs(pairs) == [
        pair for pair in pairs if (pair.first, pair.second) != (2, 3)
    ]


def grains(rng, shape, count):
    scene = np.zeros(shape)
    count = count * shape[1] // shape[0]
    scene[rng.integers(0, shape[0], count), rng.integers(0, shape[1], count)] = 1
    return 8 * np.pi * ndimage.gaussian_filter(scene, 2)


def test_dust_of_the_camera_joins_no_frames():
    rng = np.random.default_rng(1)
    dust = 1 - 0.9 * grains(rng, (128, 128), 60).clip(0, 1)
    frames = np.stack([smooth(2 + k, (128, 128)) * dust for k in range(2)])
    frames += rng.normal(0, 2, frames.shape)
    nominal = np.array([(0.0, 0.0), (0.0, 20.0)])
    scan = Acquisition(frames.astype(np.float32), ("a", "b"), nominal_px=nominal)
    with pytest.raises(RegistrationError):
        run(solve_mosaic(scan))
