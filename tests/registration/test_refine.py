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


@pytest.mark.parametrize(("model", "mirrored"), [("similarity", True), ("affine", 0)])
def test_fit_finds_map_and_edges_and_leaves_wrong_patches_out(rng, model, mirrored):
    flip = Affine(((1.0, 0.0), (0.0, -1.0 if mirrored else 1.0)))
    true = Affine.create_similarity(20.0, scale=1.1, shift=(300.0, -500.0))
    true = flip.compose(true)
    if model == "affine":
        true = Affine(((1.0, 0.08), (0.0, 0.9))).compose(true)
    patches = patches_of(true, rng)
    patches.places[:8] += rng.normal(0, 2000, (8, 2))
    found = fit_patches(patches, model, is_mirrored=mirrored)
    assert np.allclose(found.affine.linear, true.linear, atol=1e-4)
    assert np.abs(found.compute_residuals()[8:]).max() < 1
    assert found.weights[:8].max() < 0.02
    assert np.median(found.weights[8:]) > 0.8
    eroded = patches_of(true, rng, edge_nm=50.0)
    moved = fit_patches(eroded, model, is_mirrored=mirrored)
    assert 47.5 < moved.edge_nm < 50  # hardly smaller, by its ridge, and never larger


@pytest.mark.parametrize("off", [(0.0, 0.0), (-2.4, 3.1)])
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


@pytest.mark.parametrize("degrees", [30.0, 90.0])
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
