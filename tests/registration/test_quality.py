"""What is said of a map's error holds, though patches share what they show."""

import numpy as np
import pytest

from napari_semsr.registration.quality import (
    compare_candidates,
    compute_mutual_information,
    estimate_uncertainty,
)
from napari_semsr.registration.refine import PatchShifts, fit_patches

SIDE = 16  # of a patch, pixels of 1 nm; each overlaps the next by half


def patches_off(scatter, seed):
    """Patches of an identity; each lies off by the mean of what it shows of noise."""
    rng = np.random.default_rng(seed)
    noise = scatter(rng, (2, 128, 128))
    taper = np.outer(np.hanning(SIDE), np.hanning(SIDE))
    corners = np.mgrid[0 : 129 - SIDE : SIDE // 2, 0 : 129 - SIDE : SIDE // 2]
    corners = corners.reshape(2, -1).T
    shown = (noise[:, y : y + SIDE, x : x + SIDE] for y, x in corners)
    off = np.array([(part * taper).mean((1, 2)) for part in shown])
    places = corners + SIDE / 2
    return PatchShifts(
        moving_places=places - off,
        places=places,
        edges=rng.uniform(-0.5, 0.5, places.shape),
        edge_nm=0.0,
        surety=np.tile(np.eye(2), (len(places), 1, 1)),
        strength=np.full(len(places), 20.0),
        side_nm=float(SIDE),
    )


def few_far_off(rng, shape):
    return rng.standard_t(2.1, shape)


def test_the_stated_error_is_that_of_many_trials():
    true, stated = [], []
    for seed in range(60):
        patches = patches_off(few_far_off, seed)
        found = fit_patches(patches, "affine")
        off = found.affine(patches.places) - patches.places
        sure = estimate_uncertainty(found, "affine")(patches.places)
        true.append((off**2).sum(axis=1).mean())
        stated.append(np.trace(sure, axis1=1, axis2=2).mean())
    ratio = np.sqrt(np.divide(true, stated))
    assert 0.8 < np.sqrt((ratio**2).mean()) < 1.2
    assert (ratio < 1.45).mean() > 0.88


def test_another_place_is_compared_cell_by_cell(rng):
    fixed = np.exp(2j * np.pi * rng.random((40, 50)))
    loss = rng.uniform(0.1, 0.5, (5, 6))  # of cells of 8 px; two columns are left over
    apart = np.pad(np.kron(loss, np.ones((8, 8))), ((0, 0), (0, 2)), mode="edge")
    other = fixed * (1 - apart)
    ratio, sure = compare_candidates(fixed, fixed, other, 8)
    assert ratio == pytest.approx(1 - apart.mean())
    assert sure == pytest.approx(loss.mean() / loss.std(ddof=1) * np.sqrt(loss.size))
    # a cell that is nearly empty counts for the ratio alone
    few = fixed.copy()
    few[:7, :8] = 0
    ratio, sure = compare_candidates(few, fixed, other, 8)
    left = loss.ravel()[1:]
    assert ratio == pytest.approx(1 - apart[few != 0].mean())
    assert sure == pytest.approx(left.mean() / left.std(ddof=1) * np.sqrt(left.size))
    few[:7, 8:16] = few[9:, :] = few[:, 34:] = 0  # three cells: too few for an error
    assert compare_candidates(few, fixed, other, 8)[1] == 0
    assert compare_candidates(fixed, -fixed, other, 8) == (1, 0)


def test_mutual_information_is_that_of_32_grey_levels(rng):
    one, two = rng.random((2, 256, 256))
    levels = 5  # log2 of their number
    assert compute_mutual_information(one, one**3) == pytest.approx(levels)
    # of independent images that of chance: 31² / 2 N log(2)
    by_chance = 31**2 / (2 * one.size * np.log(2))
    assert compute_mutual_information(one, two) == pytest.approx(by_chance, rel=0.1)
    gaps = np.where(two < 0.9, np.nan, one)
    assert compute_mutual_information(gaps, one) == pytest.approx(levels, abs=0.01)
    assert compute_mutual_information(one, np.ones_like(one)) == 0
