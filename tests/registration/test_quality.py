"""What is said of a map's error holds, though patches share what they show."""

import numpy as np
import pytest

from napari_semsr.core import Affine, Bending, Elastic, Micrograph, parse_pixel_size
from napari_semsr.registration.quality import doubt, held_out, overlap_of
from napari_semsr.registration.refine import PatchShifts, fit

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


def gaussian(rng, shape):
    return rng.standard_normal(shape)


def few_far_off(rng, shape):
    return rng.standard_t(2.1, shape)


@pytest.mark.parametrize(
    "scatter", [few_far_off, pytest.param(gaussian, marks=pytest.mark.broad)]
)
def test_the_stated_error_is_that_of_many_trials(scatter):
    true, stated = [], []
    for seed in range(60):
        patches = patches_off(scatter, seed)
        found = fit(patches, "affine")
        off = found.affine(patches.places) - patches.places
        sure = doubt(found, "affine")(patches.places)
        true.append((off**2).sum(axis=1).mean())
        stated.append(np.trace(sure, axis1=1, axis2=2).mean())
    ratio = np.sqrt(np.divide(true, stated))
    assert 0.8 < np.sqrt((ratio**2).mean()) < 1.2
    assert (ratio < 1.45).mean() > 0.88


def test_patches_are_held_out_with_those_beside_them():
    patches = patches_off(gaussian, 1)
    corner = (patches.places < 2 * SIDE).all(axis=1)
    patches.places[corner, 0] += 1.0
    found = fit(patches, "affine", weights=np.ones(len(patches)))
    left, foretold = found.residuals(), held_out(found, "affine")
    assert foretold[corner, 0].mean() > 1.15 * left[corner, 0].mean()


IMAGE = Micrograph(np.zeros((100, 200), np.float32), parse_pixel_size(10))
STRAIGHT = Bending((-3000.0, -3000.0), (1000.0, 1000.0), np.zeros((2, 9, 9)))


@pytest.mark.parametrize(
    ("transform", "share"),
    [
        (Affine(), 1),
        (Affine(shift=(10, 0)), 0.99),
        (Affine(shift=(-500, 500)), 0.5 * 0.75),
        (Affine(((0.5, 0), (0, 0.5))), 1),
        (Affine(shift=(2000, 0)), 0),
        (Affine.similarity(40, scale=4, about=(495, 995)), 1),
    ],
    ids=["itself", "a pixel off", "moved", "smaller", "elsewhere", "turned"],
)
def test_overlap_is_what_both_show_of_the_smaller(transform, share):
    for kind in (transform, Elastic(transform, STRAIGHT)):
        assert overlap_of(kind, IMAGE, IMAGE) == pytest.approx(share, abs=0.006)
