"""By how much a network differs from itself over flips and turns."""

import numpy as np
import pytest

from napari_semsr.core import Micrograph, run
from napari_semsr.inference import (
    EnhanceOptions,
    enhance_array,
    enhance_lazy,
    spread_lazy,
)

OPTIONS = EnhanceOptions(tile=16, precision="fp32", device="cpu")


def turned(image, rows, columns, swapped):
    laid = image.T if swapped else image
    return laid[:: -1 if rows else 1, :: -1 if columns else 1]


def brought_back(image, rows, columns, swapped):
    upright = turned(image, rows, columns, False)
    return upright.T if swapped else upright


@pytest.mark.parametrize("kind", ["plain", "double"])
def test_spread_is_the_deviation_of_eight_runs(kind, make_loaded, rng):
    image = rng.random((48, 48)).astype(np.float32)
    loaded = make_loaded(kind)
    whole = EnhanceOptions(precision="fp32", device="cpu", dtype="float32")
    runs = []
    for bits in np.ndindex(2, 2, 2):
        given = Micrograph(np.ascontiguousarray(turned(image, *bits)))
        made = run(enhance_array(given, loaded, whole)).array()
        runs.append(brought_back(made, *bits))
    expected = np.std(runs, axis=0, ddof=1)
    found = spread_lazy(Micrograph(image), loaded, OPTIONS).compute()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_tiles_do_not_change_the_spread_and_it_has_names_of_its_own(make_loaded, rng):
    image = Micrograph(rng.random((60, 52)).astype(np.float32))
    loaded = make_loaded("plain")
    whole = spread_lazy(image, loaded, OPTIONS.replace(tile=64)).compute()
    tiled = spread_lazy(image, loaded, OPTIONS).compute()
    np.testing.assert_allclose(tiled, whole, atol=1e-6)
    assert tiled.max() > 0
    both = OPTIONS.replace(self_ensemble=True, dtype="float32")
    mean, spread = enhance_lazy(image, loaded, both), spread_lazy(image, loaded, both)
    tiles = [{k for k in one.dask if "semsr-tile" in str(k)} for one in (mean, spread)]
    assert not tiles[0] & tiles[1]
