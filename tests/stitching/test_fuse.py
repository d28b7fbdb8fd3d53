"""Fusion: independent of how the mosaic is cut, honest where no frame reaches."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from napari_semsr.core import Acquisition, Box, RegistrationError
from napari_semsr.stitching import StitchOptions, StitchSolution, plan_fusion
from napari_semsr.stitching.frames import FlatField, create_uniform_flat_field
from tests.refusals import refused
from tests.stitching import scans


def whole(plan):
    return plan.compute_block(Box(0, plan.shape[0], 0, plan.shape[1]))


@pytest.fixture(scope="module")
def plan(square_scan, square_solution):
    return plan_fusion(square_scan.acquisition, square_solution)


@pytest.mark.parametrize("blend", ["feather", "seam"])
def test_block_does_not_depend_on_the_cut(square_scan, square_solution, blend):
    options = StitchOptions(blend=blend)
    plan = plan_fusion(square_scan.acquisition, square_solution, options)
    image, coverage = whole(plan)
    last = int(np.ceil(plan.positions[0, 1] + 128)) - 1  # column of the first frame
    for box in (Box(0, 40, 0, 60), Box(0, 40, last, 219), Box(250, 260, 3, 299)):
        part, count = plan.compute_block(box)
        assert np.array_equal(part, image[box.slices], equal_nan=True)
        assert np.array_equal(count, coverage[box.slices])


def test_mosaic_is_the_scene_in_any_process(plan, square_scan, square_solution, scene):
    image, coverage = whole(plan)
    copy = pickle.loads(pickle.dumps(plan))  # noqa: S301 - our own bytes
    assert np.array_equal(whole(copy)[0], image, equal_nan=True)
    offset = (square_scan.truth - square_solution.positions_px).mean(axis=0)
    true = scans.cut(np.pad(scene, ((0, 80), (0, 80))), offset, max(image.shape))
    true = true[: image.shape[0], : image.shape[1]]
    inside = coverage > 0
    gain = (image[inside] * true[inside]).sum() / (true[inside] ** 2).sum()
    assert (image[inside] / gain - true[inside]).std() < 1.2 * 5 / 255 / 0.8
    assert np.array_equal(np.isnan(image), ~inside)


@pytest.mark.parametrize(("hole", "turn"), [(None, 0), (np.nan, 0.01), (np.inf, 0)])
def test_a_constant_scene_stays_constant(square_scan, square_solution, hole, turn):
    flat = square_solution.flat
    gains, offsets = square_solution.gains, square_solution.offsets
    data = 1000 * gains[:, None, None] * flat.flat + flat.dark
    data += offsets[:, None, None]
    if hole is not None:
        data[:, 10::45, 15::31] = data[4] = hole
    acquisition = square_scan.acquisition.replace(frames=data)
    solution = replace(square_solution, turns=np.full((9, 2), turn))
    image, coverage = whole(plan_fusion(acquisition, solution))
    assert np.allclose(image[coverage > 0], 1000, rtol=1e-4 if turn else 1e-5)
    assert np.array_equal(np.isnan(image), coverage == 0)
    assert coverage.max() >= 3


def test_frames_left_out_and_other_scans_are_not_fused(square_scan, square_solution):
    positions = square_solution.positions_px.copy()
    positions[8] = np.nan
    left = replace(square_solution, positions_px=positions)
    _, coverage = whole(plan_fusion(square_scan.acquisition, left))
    corner = np.round(square_solution.positions_px[8]).astype(int) + 100
    assert coverage[tuple(corner)] == 0
    fewer = replace(square_solution, positions_px=square_solution.positions_px[:4])
    with refused(RegistrationError, "solution-of-other-scan", match=" 4 .* 9 "):
        plan_fusion(square_scan.acquisition, fewer)
    nothing = replace(square_solution, positions_px=np.full((9, 2), np.nan))
    with refused(RegistrationError, "nothing-placed"):
        plan_fusion(square_scan.acquisition, nothing)


# Two frames whose mosaic is known in advance.

SIDE, BEGIN, WIDTH = 96, 64, 8  # frame, column where the second begins, feather: px
LEVELS = np.array([1000.0, 2000.0])


def plan_of(frames, positions, *, flat=None, gains=None, blend="feather", pedestal=0.0):
    """Plan frames, (N, Y, X), at the places that are given, as of a solved scan."""
    count = len(frames)
    scan = Acquisition(frames.astype(np.float32), tuple("abc"[:count]))
    solved = StitchSolution(
        positions_px=np.array(positions, float), nominal_px=None, names=scan.names,
        left_out=(), pairs=(), residual_px=None, residual_median_px=None,
        residual_worst_px=None, sigma_px=np.zeros(2),
        flat=create_uniform_flat_field(frames.shape[1:], 0.0, (
            "none"
        )) if flat is None else flat,
        gains=np.ones(count) if gains is None else np.array(gains, float),
        offsets=np.zeros(count), turns=np.zeros((count, 2)),
        noise=1.0, threshold=0.0, state=None, pedestal=pedestal,
    )  # fmt: skip
    return plan_fusion(scan, solved, StitchOptions(blend=blend))


def side_by_side(levels=LEVELS, order=(0, 1), **how):
    """Give the middle row of two frames of one grey value each."""
    frames = np.ones((2, SIDE, SIDE)) * levels[:, None, None]
    places = np.array([(0, 0), (0, BEGIN)])
    plan = plan_of(frames[[*order]], places[[*order]], **how)
    return whole(plan)[0][SIDE // 2]


def smoothstep(distance):
    """Go from 0 to 1 over the feather, level at both ends."""
    unit = np.clip(distance / WIDTH, 0, 1)
    return 3 * unit**2 - 2 * unit**3


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_levels_pass_into_each_other_over_the_feather(order):
    row = side_by_side(order=order)
    columns = np.arange(BEGIN, SIDE)
    # pixels to the edge of each field, and the mean that these weights give
    first, second = smoothstep(SIDE - columns), smoothstep(columns - BEGIN + 1)
    share = second / (first + second)
    assert np.allclose(row[columns], LEVELS @ [1 - share, share], atol=0.5)
    assert np.allclose([row[BEGIN - 1], row[SIDE]], LEVELS)


@pytest.mark.parametrize("blend", ["feather", "seam"])
def test_better_lit_pixels_count_for_more(blend):
    # light falls along x from 1 to a half, and the weight of a pixel with its square
    light = np.linspace(1, 0.5, SIDE, dtype=np.float32) * np.ones((SIDE, 1), np.float32)
    flat = FlatField(light, 0.0, light > 0, "file")
    frames = light * LEVELS[:, None, None]
    plan = plan_of(frames, [(0, 0), (0, BEGIN)], flat=flat, blend=blend)
    inner = np.arange(BEGIN + WIDTH, SIDE - WIDTH)
    first, second = light[0, inner] ** 2, light[0, inner - BEGIN] ** 2
    share = second / (first + second) if blend == "feather" else np.ones(len(inner))
    row = whole(plan)[0][SIDE // 2, inner]
    assert np.allclose(row, LEVELS @ [1 - share, share], rtol=1e-5)


def test_pedestal_is_added_where_frames_are():
    frames = np.ones((2, SIDE, SIDE)) * LEVELS[:, None, None]
    places = [(0, 0), (10, BEGIN)]
    plain, high = (whole(plan_of(frames, places, pedestal=p))[0] for p in (0.0, 70.0))
    assert np.allclose(high, plain + 70, equal_nan=True)
    assert np.isnan(high[0, -1])


@pytest.mark.parametrize("blend", ["feather", "seam"])
def test_pixels_that_have_lost_their_grey_value_give_way(blend):
    grey = np.random.default_rng(1).normal(1000, 5, (2, SIDE, SIDE))
    grey[0, 30:60, 70:] = 4095  # saturated, in the middle of the overlap
    image, _ = whole(plan_of(grey, [(0, 0), (0, BEGIN)], blend=blend))
    assert np.abs(image[34:56, 76:86] - 1000).max() < 40


@pytest.mark.parametrize("part", [(0.25, 0.0), (-0.3, 0.2)])
def test_frames_are_placed_within_a_pixel(part):
    def wave(y, x):
        return 1000 + 200 * np.cos(2 * np.pi * (0.04 * y - 0.03 * x) + 0.3)

    y, x = np.indices((SIDE, SIDE), float)
    place = np.array([1, BEGIN]) + part
    frames = np.stack([wave(y, x), wave(y + place[0], x + place[1])])
    image, _ = whole(plan_of(frames, [(0, 0), place]))
    # where the second frame alone is, farther from its edge than a kernel reaches
    box = (slice(8, SIDE - 8), slice(SIDE, BEGIN + SIDE - 8))
    true = wave(*np.indices(image.shape, float))
    # at the nearest pixel a fifth of a pixel would be off by up to 10 grey values
    assert np.abs(image - true)[box].max() < 2
