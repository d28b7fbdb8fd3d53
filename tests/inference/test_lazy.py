from itertools import product

import numpy as np
import pytest

import napari_semsr
from napari_semsr.core import Box, Micrograph, OptionError, read_box, run
from napari_semsr.inference import EnhanceOptions, create_enhanced_array
from napari_semsr.inference.network_input import prepare_field
from napari_semsr.inference.options import ResamplingPlan
from napari_semsr.io.formats import read, write
from napari_semsr.models.checkpoint import LoadedModel
from tests.refusals import refused

OPTIONS = EnhanceOptions(tile=16, precision="fp32", device="cpu")


def test_names_follow_field_options_and_model(make_loaded, rng):
    image, loaded = rng.random((20, 20)), make_loaded("plain")
    retrained = LoadedModel(loaded.module, loaded.card, "sha256:other")
    names = [
        create_enhanced_array(Micrograph(field), model, options).name
        for field, model, options in (
            (image, loaded, OPTIONS),
            (image, loaded, OPTIONS),
            (image, retrained, OPTIONS),
            (image + 1, loaded, OPTIONS),
            (image, loaded, OPTIONS.replace(dtype="uint8")),
        )
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 4


def test_a_mapped_file_is_named_by_the_file_and_the_part(make_loaded, rng, tmp_path):
    loaded, path = make_loaded("plain"), tmp_path / "a.npy"
    np.save(path, rng.random((40, 20)))

    def name(part=np.s_[:20], mode="r"):
        image = Micrograph(np.load(path, mmap_mode=mode)[part])
        return create_enhanced_array(image, loaded, OPTIONS).name

    first = name()
    assert name() == first
    assert len({first, name(np.s_[20:]), name(np.s_[::2]), name(np.s_[:20, :16])}) == 4
    by_pixels = name(mode="c")  # what is written into it is in memory alone
    assert by_pixels != first
    np.save(path, rng.random((40, 20)))
    assert name() != first
    assert name(mode="c") != by_pixels


@pytest.mark.broad
def test_the_public_form_equals_enhance(rng):
    image = rng.random((70, 45)).astype(np.float32)
    how = {"model": "sem-restore", "tile": 32, "device": "cpu"}
    array = napari_semsr.lazy_enhance(image, **how)
    expected = napari_semsr.enhance(image, **how).data
    assert array.chunks == ((32, 32, 6), (32, 13))
    np.testing.assert_array_equal(array.compute(), expected)
    with refused(OptionError, "unknown-option"):
        napari_semsr.lazy_enhance(image, tiles=32)


@pytest.mark.parametrize("suffix", ["a.tif", "a.ome.zarr"])
def test_windows_of_a_stored_image_are_its_pixels(suffix, rng, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_semsr.io.read_image.LAZY_BYTES", 0)
    values, path = rng.integers(0, 4000, (600, 530), np.uint16), tmp_path / suffix
    write(Micrograph(values), path)
    data = read(path).data
    assert data.numblocks[0] > 1  # flat, since neighbours of a row are read together
    field = run(prepare_field(Micrograph(data), ResamplingPlan(None, None))).input
    assert field is not data
    for corner in [*product(range(0, 600, 97), range(0, 530, 89))] * 2:
        box = Box.from_shape((150, 140), corner)
        np.testing.assert_array_equal(read_box(field, box), read_box(values, box))
