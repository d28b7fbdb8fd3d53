"""A store that grows on every side."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
import zarr

from napari_semsr.core.errors import IncompleteError
from napari_semsr.core.grids import Box
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.io.formats import read
from napari_semsr.io.zarr.growing import GrowingMosaic, is_live_mosaic
from tests.children import LIMIT_S

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


def test_a_reader_does_not_wait_for_a_writer(tmp_path, monkeypatch):
    mosaic = GrowingMosaic.create(tmp_path / "m.ome.zarr", ABOUT, 16)
    box, ones = Box.from_shape((16, 16)), np.ones((16, 16), np.float32)
    mosaic.write(box, ones)
    is_writing, may_write, write = Event(), Event(), zarr.Array.__setitem__

    def slow(*item):
        is_writing.set()
        may_write.wait(LIMIT_S)
        write(*item)

    monkeypatch.setattr(zarr.Array, "__setitem__", slow)
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(mosaic.write, box, 2 * ones)
        assert is_writing.wait(LIMIT_S)
        try:
            assert np.array_equal(pool.submit(mosaic.read, box).result(LIMIT_S), ones)
        finally:
            may_write.set()
        writing.result(LIMIT_S)
    assert np.array_equal(mosaic.read(box), 2 * ones)


def test_pixels_stay_while_another_thread_reads(tmp_path):
    mosaic = GrowingMosaic.create(tmp_path / "m.ome.zarr", ABOUT, 16)
    first, ones = Box.from_shape((48, 48)), np.ones((48, 48), np.float32)
    mosaic.write(first, ones)
    with ThreadPoolExecutor(1) as pool:
        growth = pool.submit(
            lambda: [
                mosaic.write(Box.from_shape((8, 8), (-9 * k, -9 * k)), ones[:8, :8])
                for k in range(1, 20)
            ]
        )
        while not growth.done():
            assert np.array_equal(mosaic.read(first), ones)
        growth.result()


def test_it_is_incomplete_and_known_as_what_it_is(tmp_path):
    place = tmp_path / "m.ome.zarr"
    assert not is_live_mosaic(place)
    GrowingMosaic.create(place, ABOUT, 16)
    assert is_live_mosaic(place)
    with pytest.raises(IncompleteError):
        read(place)
