"""Several images in one store, each in its place, in the order they were given."""

import numpy as np
import pytest

from napari_semsr.core import DisplaySettings, Micrograph, run
from napari_semsr.io import layers, read, write_series
from napari_semsr.io.zarr_image import list_series

LOOK = DisplaySettings(limits=(0.0, 1.0), classes=((1, "#ff0000", "gold"),))


@pytest.fixture
def images(rng):
    grey = rng.integers(0, 99, (40, 50), dtype=np.uint8)
    classes = (grey > 50).astype(np.uint8)
    fine = rng.random((20, 30), dtype=np.float32)
    return [
        Micrograph(classes, (5.0, 6.0), "parts", look=LOOK),
        Micrograph(fine, None, 'fine & "small"'),
        Micrograph(grey, (5.0, 6.0), "grey"),
        Micrograph(classes, (5.0, 6.0), "parts", look=LOOK),
        Micrograph(classes[:9], (5.0, 6.0), "others", look=LOOK),
    ]


def test_images_are_numbered_and_classes_lie_with_those_of_their_grid(images, tmp_path):
    path = tmp_path / "a.ome.zarr"
    places = run(write_series(images, path))
    under = "1/labels/parts", "0", "1", "1/labels/parts-3", "2"
    assert places == [path / place for place in under]
    assert list_series(path) == places
    for image, place in zip(images, places, strict=True):
        found = read(place)
        np.testing.assert_array_equal(found.array(), image.data)
        assert (found.name, found.pixel_size_nm) == (image.name, image.pixel_size_nm)
    kinds = [(kind, about["name"]) for _, about, kind in layers.read_layers(str(path))]
    assert kinds == [
        (kind, image.name)
        for kind, image in zip(
            ("labels", "image", "image", "labels", "labels"), images, strict=True
        )
    ]
    assert list_series(places[1]) == list_series(tmp_path) == []
