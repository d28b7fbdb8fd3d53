"""What unrelated frames reach by chance, and what is not claimed without a check."""

import numpy as np
import pytest
from scipy import ndimage

from napari_semsr.core import Acquisition, RegistrationError, run
from napari_semsr.stitching.flat_field import no_flat
from napari_semsr.stitching.frames import CorrectedFrames
from napari_semsr.stitching.pairwise import chance_score, search
from napari_semsr.stitching.solution import PairReport
from napari_semsr.stitching.solve import solve_mosaic
from napari_semsr.stitching.verify import in_loops
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


@pytest.mark.parametrize("side", [96, 200])
@pytest.mark.parametrize("kind", TEXTURES)
def test_unrelated_frames_stay_below_chance(kind, side):
    rng = np.random.default_rng(5)
    make, reach = TEXTURES[kind], (16, 16)
    below, overlap = 0, (0, round(0.7 * side))
    for _ in range(4):
        wide = make(rng.normal(size=(side, side)))
        frames = [wide, *(make(rng.normal(size=(side, side))) for _ in range(3))]
        frames = np.stack([100 + 20 * f / f.std() for f in frames])
        frames += rng.normal(0, 4, frames.shape)
        acquisition = Acquisition(frames.astype(np.float32), tuple("abcd"))
        flat = no_flat((side, side), 0.0, "none")
        prepared = CorrectedFrames(acquisition, flat)
        limit = chance_score(prepared, reach)
        pairs = [(0, 1), (2, 3), (0, 2), (1, 3), (0, 3), (1, 2)]
        best = [search(prepared, pair, overlap, reach).best for pair in pairs]
        below += sum(score < limit for score in best)
    assert below == 24


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


def test_joints_are_checked_in_loops_alone():
    ends = [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4)]
    pairs = [PairReport(*pair, (0, 0), 1, 9, used=True) for pair in ends]
    assert in_loops(pairs) == pairs[:3]
    unused = PairReport(2, 4, (0, 0), 0, 1, used=False)
    assert in_loops([*pairs[3:], unused]) == []


def test_median_and_worst_residual_are_those_of_the_joints(square_solution):
    residuals = [pair.residual_px for pair in in_loops(square_solution.pairs)]
    assert square_solution.residual_median_px == pytest.approx(np.median(residuals))
    assert square_solution.residual_worst_px == max(residuals)
