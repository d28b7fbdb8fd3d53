import dask
import numpy as np
import pytest
from dask.callbacks import Callback

import napari_semsr
from napari_semsr.core import Micrograph, OptionError
from napari_semsr.inference import EnhanceOptions, enhance_lazy
from napari_semsr.models.checkpoint import LoadedModel

OPTIONS = EnhanceOptions(tile=16, precision="fp32", device="cpu")


def test_a_slice_runs_only_the_tiles_that_it_needs(make_loaded, rng):
    ran = []
    image = Micrograph(rng.random((64, 64)))
    array = enhance_lazy(image, make_loaded("plain"), OPTIONS)[20:30, 36:40]
    unfused = dask.config.set({"optimization.fuse.active": False})
    with unfused, Callback(pretask=lambda key, *_: ran.append(key)):
        array.compute()
    tiles = [key[1:] for key in ran if key[0].startswith("semsr-tile-")]
    assert tiles == [(1, 2)]


def test_names_follow_field_options_and_model(make_loaded, rng):
    image, loaded = rng.random((20, 20)), make_loaded("plain")
    first = enhance_lazy(Micrograph(image), loaded, OPTIONS)
    assert enhance_lazy(Micrograph(image), loaded, OPTIONS).name == first.name
    retrained = LoadedModel(loaded.module, loaded.card, "sha256:other")
    others = [
        enhance_lazy(Micrograph(image), retrained, OPTIONS),
        enhance_lazy(Micrograph(image + 1), loaded, OPTIONS),
        enhance_lazy(Micrograph(image), loaded, OPTIONS.replace(dtype="uint8")),
    ]
    keys = [set(array.dask) for array in [first, *others]]
    for one in keys[1:]:
        tiles = {key for key in one if "semsr-tile" in str(key)}
        assert tiles
        assert not tiles & keys[0]


@pytest.mark.broad
def test_the_public_form_equals_enhance(rng):
    image = rng.random((70, 45)).astype(np.float32)
    how = {"model": "sem-restore", "tile": 32, "device": "cpu"}
    array = napari_semsr.lazy_enhance(image, **how)
    expected = napari_semsr.enhance(image, **how).data
    assert array.chunks == ((32, 32, 6), (32, 13))
    np.testing.assert_array_equal(array.compute(), expected)
    with pytest.raises(OptionError, match="tiles"):
        napari_semsr.lazy_enhance(image, tiles=32)
