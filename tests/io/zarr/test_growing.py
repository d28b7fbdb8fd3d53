"""A store that grows on every side."""

import numpy as np
import pytest
import zarr

from napari_semsr.core import Box, IncompleteError, Micrograph
from napari_semsr.io import GrowingMosaic, is_live_mosaic, read

ABOUT = Micrograph(np.zeros((1, 1), np.float32), (20, 20), "scan")


def test_pixels_stay_where_they_are_however_it_grows(tmp_path):
    rng = np.random.default_rng(0)
    mosaic = GrowingMosaic.create(tmp_path / "m.ome.zarr", ABOUT, 16)
    whole = np.full((400, 400), np.nan, np.float32)
    for _ in range(20):
        y, x = (int(v) for v in rng.integers(-150, 120, 2))
        values = rng.random((30, 41), dtype=np.float32)
        mosaic.write(Box.from_shape(values.shape, (y, x)), values)
        whole[200 + y : 230 + y, 200 + x : 241 + x] = values
    (y, x), (rows, columns) = mosaic.origin, mosaic.shape
    part = whole[200 + y : 200 + y + rows, 200 + x : 200 + x + columns]
    group = zarr.open_group(tmp_path / "m.ome.zarr", mode="r")
    assert np.array_equal(group["0"][:], part, equal_nan=True)
    (dataset,) = group.attrs["ome"]["multiscales"][0]["datasets"]
    moved = dataset["coordinateTransformations"][1]["translation"]
    assert moved == [20 * y, 20 * x]


def test_chunks_that_are_no_longer_in_memory_are_read_from_the_store(tmp_path):
    mosaic = GrowingMosaic.create(tmp_path / "m.ome.zarr", ABOUT, 1024)
    boxes = [Box.from_shape((8, 8), (-1000 * k, 1000 * (k % 5) + 9)) for k in range(24)]
    for number, box in enumerate(boxes):
        mosaic.write(box, np.full((8, 8), number, np.float32))
    assert [mosaic.read(box).mean() for box in boxes] == list(range(24))


def test_it_is_incomplete_and_known_as_what_it_is(tmp_path):
    place = tmp_path / "m.ome.zarr"
    assert not is_live_mosaic(place)
    GrowingMosaic.create(place, ABOUT, 16)
    assert is_live_mosaic(place)
    with pytest.raises(IncompleteError):
        read(place)
