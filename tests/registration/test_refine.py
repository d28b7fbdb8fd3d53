"""Patches find how far images lie off, and the map is that of most patches."""

import numpy as np
import pytest

from napari_semsr.core import Affine, Micrograph
from napari_semsr.registration import refine
from napari_semsr.registration.refine import (
    PatchShifts,
    PyramidLevel,
    RefinementPlan,
    fit_patches,
    measure_shifts,
)
from tests.two_views import PIXEL_NM, draw_views

PITCH_NM = 1.2 * PIXEL_NM
PLAN = RefinementPlan(size=48, reach=5)


@pytest.fixture(scope="module")
def views():
    return draw_views(160, degrees=4.0, shift_nm=(60.0, -40.0), seed=3)


@pytest.fixture(scope="module")
def level(views):
    return PyramidLevel(views[0], views[1], PITCH_NM)


def patches_of(affine, rng, edge_nm=0.0, count=40):
    """Patches of a map that is known: each is sure in another direction."""
    seen = rng.uniform(-4000, 9000, (count, 2))
    edges = rng.uniform(-1, 1, (count, 2))
    roots = rng.normal(0, 1, (count, 2, 2)) + 2 * np.eye(2)
    return PatchShifts(
        moving_places=seen,
        places=affine(seen) + edges * edge_nm,
        edges=edges,
        edge_nm=0.0,
        surety=roots @ roots.transpose(0, 2, 1), strength=np.ones(count), side_nm=900.0,
    )  # fmt: skip


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("model", ["similarity", "affine"])
def test_fit_finds_map_and_edges_and_leaves_wrong_patches_out(rng, model, mirrored):
    flip = Affine(((1.0, 0.0), (0.0, -1.0 if mirrored else 1.0)))
    true = flip.compose(
        Affine.create_similarity(20.0, scale=1.1, shift=(300.0, -500.0))
    )
    if model == "affine":
        true = Affine(((1.0, 0.08), (0.0, 0.9))).compose(true)
    patches = patches_of(true, rng)
    patches.places[:8] += rng.normal(0, 2000, (8, 2))
    found = fit_patches(patches, model, is_mirrored=mirrored)
    assert np.allclose(found.affine.linear, true.linear, atol=1e-4)
    assert np.abs(found.compute_residuals()[8:]).max() < 1
    assert found.weights[:8].max() < 0.02
    assert np.median(found.weights[8:]) > 0.8
    # weights that are given stay as they are, and those of 0 count for nothing
    weights = np.repeat([0.0, 1.0], [8, 32])
    again = fit_patches(patches, model, is_mirrored=mirrored, weights=weights)
    assert np.allclose(again.affine.matrix, true.matrix, atol=1e-6)
    moved = fit_patches(
        patches_of(true, rng, edge_nm=50.0), model, is_mirrored=mirrored
    )
    assert 47.5 < moved.edge_nm < 50  # hardly smaller, by its ridge, and never larger
    assert np.abs(moved.compute_residuals()).max() < 5


@pytest.mark.parametrize("off", [(0.0, 0.0), (1.3, -0.6), (-2.4, 3.1)])
def test_patches_find_a_shift_to_a_fifth_of_a_pixel(level, views, off):
    shift = np.array(off) * PITCH_NM
    begun = views[2].compose(Affine(shift=tuple(shift)))
    found = measure_shifts(level, begun, PLAN)
    left = (found.places - views[2](found.moving_places)) / PITCH_NM
    assert len(found) == 36
    assert np.abs(np.median(left, axis=0)).max() < 0.15
    assert np.median(found.strength) == pytest.approx(19, abs=2)  # 18.4 to 19.6
    off = fit_patches(found, "affine").affine(found.places) - views[2](found.places)
    assert np.sqrt(np.mean(off**2)) < 0.2 * PITCH_NM
    middle = found.places.mean(axis=0) / np.array(views[1].shape) / PIXEL_NM
    assert middle == pytest.approx((0.5, 0.5), abs=0.05)


def test_patches_of_a_large_field_are_those_of_a_small_one(level, views, monkeypatch):
    whole = measure_shifts(level, views[2], PLAN, edge_nm=10.0)
    monkeypatch.setattr(refine, "_WHOLE_PX", 1)
    parts = measure_shifts(level, views[2], PLAN, edge_nm=10.0)
    assert len(whole) == len(parts)
    for name in ("moving_places", "places"):
        off = getattr(whole, name) - getattr(parts, name)
        assert np.abs(off).max() < 0.1 * PITCH_NM
    assert np.abs(whole.edges - parts.edges).max() < 0.05
    assert np.allclose(whole.strength, parts.strength, rtol=0.05)


@pytest.mark.parametrize(
    ("widths", "rim"), [((), 6), ((2.5,), 9), ((1.0,), 4), ((1.5, 2.5), 9)]
)
def test_patches_are_read_with_three_widths_of_the_filter(widths, rim):
    assert RefinementPlan(48, 5, *widths).margin == rim


def test_edges_that_lie_off_are_put_back():
    moving, fixed, truth = draw_views(160, seed=4, eroded_px=2)
    pair = PyramidLevel(moving, fixed, PITCH_NM)
    off = fit_patches(measure_shifts(pair, truth, PLAN), "affine").edge_nm
    assert 0.5 * PITCH_NM < abs(off) < 3 * PITCH_NM
    far = refine.find_edge_shift(pair, truth, PLAN, off)
    assert far == pytest.approx(off, rel=0.6)
    before, after = (measure_shifts(pair, truth, PLAN, edge) for edge in (0.0, far))
    assert after.strength.sum() > 1.03 * before.strength.sum()
    assert (
        measure_shifts(pair, truth, PLAN, -far).strength.sum() < before.strength.sum()
    )
    assert (
        refine.find_edge_shift(pair, truth, PLAN, np.copysign(0.2 * PITCH_NM, off)) == 0
    )


@pytest.mark.parametrize(
    ("fitted", "best", "expected"),
    [(2.0, 0.5, 0.5), (-2.0, -1.5, -1.5), (2.0, 3.0, 2.0), (2.0, -1.0, 0.0)],
    ids=["nearer", "other sign", "farther", "none"],
)
def test_edges_are_shifted_to_the_best_agreement(
    level, rng, monkeypatch, fitted, best, expected
):
    """Of strengths that are a parabola of the shift, in pixels."""
    asked = []

    def parabola(_level, _transform, _plan, edge_nm):
        asked.append(edge_nm / PITCH_NM)
        patches = patches_of(Affine(), rng, count=8)
        patches.strength[:] = 100 + bend * (asked[-1] - best) ** 2
        return patches

    def shift(fitted_px):
        asked.clear()
        return (
            refine.find_edge_shift(level, Affine(), PLAN, fitted_px * PITCH_NM)
            / PITCH_NM
        )

    monkeypatch.setattr(refine, "measure_shifts", parabola)
    bend = -1
    assert shift(fitted) == pytest.approx(expected)
    assert asked == pytest.approx([0, fitted / 2, fitted])
    shift(5 * fitted)
    assert np.abs(asked) == pytest.approx([0, 1.5, 3])  # farther, lines are lost
    bend = 1  # no maximum in between: the better end
    assert shift(fitted) == (fitted if best in (0.5, -1.0) else 0)


@pytest.mark.parametrize("count", [5, 6])
def test_a_map_needs_six_patches(level, rng, monkeypatch, count):
    patches = patches_of(Affine(), rng, count=count)
    monkeypatch.setattr(refine, "measure_shifts", lambda *_: patches)
    found = refine.refine_transform(level, Affine(), [PLAN], "affine")
    assert (found is None) == (count == 5)


@pytest.mark.parametrize("degrees", [0.0, 30.0, 45.0, 90.0, 120.0])
def test_lines_are_sure_across_themselves_alone(degrees, rng):
    y, x = np.indices((160, 160))
    turn = np.radians(degrees)
    across = y * np.cos(turn) + x * np.sin(turn)
    row = 80 * np.tanh(2 * (np.sin(across / 3) + np.sin(across / 7.7)))
    data = (100 + row + rng.normal(0, 3, row.shape)).astype(np.float32)
    image = Micrograph(data, (PIXEL_NM, PIXEL_NM))
    found = measure_shifts(PyramidLevel(image, image, PIXEL_NM), Affine(), PLAN)
    axis = np.array([np.cos(turn), np.sin(turn)])
    sure = np.median(found.surety, axis=0)
    along = np.array([-axis[1], axis[0]])
    assert along @ sure @ along < 0.12 * (axis @ sure @ axis)
    shares = sure / np.trace(sure)
    assert shares == pytest.approx(np.outer(axis, axis), abs=0.11)
    off = (found.moving_places - found.places) @ axis
    assert np.median(np.abs(off)) < 0.1 * PIXEL_NM


def test_the_noise_of_patches_is_shared_as_far_as_their_windows_overlap(rng):
    patches = patches_of(Affine(), rng, count=6)
    patches.places[:] = [(0, 0), (0, 225), (450, 0), (450, 450), (0, 900), (1e4, 0)]
    window = np.hanning(9001)
    square = (window**2).sum()
    by_shift = {
        far: (window[: len(window) - 10 * far] * window[10 * far :]).sum() / square
        for far in (0, 225, 450, 900)
    }
    expected = [1, by_shift[225], by_shift[450], by_shift[450] ** 2, 0, 0]
    found = patches.compute_noise_correlation()
    assert found[0] == pytest.approx(expected, abs=1e-3)
    assert np.array_equal(found, found.T)


@pytest.mark.parametrize(
    ("shape", "most", "count"),
    [((96, 96), 400, 25), ((100, 144), 400, 35), ((96, 96), 4, 9), ((47, 96), 400, 0)],
)
def test_patches_overlap_by_half_unless_there_are_too_many(shape, most, count, rng):
    image = Micrograph(rng.normal(size=shape).astype(np.float32), (10.0, 10.0))
    found = measure_shifts(
        PyramidLevel(image, image, 10.0), Affine(), RefinementPlan(48, 5, most=most)
    )
    if not count:
        assert found is None
        return
    assert len(found) == count
    assert found.side_nm == 480
    corner = np.array(image.origin) - 5
    middle = (found.places - corner) / 10
    assert middle.mean(axis=0) == pytest.approx(np.divide(shape, 2), abs=4)
    assert (middle > 0).all()
    assert (middle < shape).all()


def test_patches_lie_where_their_structure_is():
    y, x = np.indices((96, 96))
    dot = 200 / (1 + np.exp(2 * np.hypot(y - 40.3, x - 52.6) - 2))
    image = Micrograph(dot.astype(np.float32), (10.0, 10.0), origin=(70.0, 5.0))
    found = measure_shifts(PyramidLevel(image, image, 10.0), Affine(), PLAN)
    off = (found.places - np.add(image.origin, (403, 526))) / 10
    assert np.abs(np.median(off, axis=0)).max() < 0.4
