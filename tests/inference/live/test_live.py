"""The live field, without Qt: order, drawing, done-map, and the same store as batch."""

import shutil

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from napari_semsr.core import Box, Micrograph, run
from napari_semsr.inference import LiveField, live as live_field, plan_output
from napari_semsr.inference.live import LevelStore, ResampledInput, TileQueue
from napari_semsr.inference.options import EnhanceOptions
from napari_semsr.io import read
from tests.enhancing import fill, store_for

FP32 = EnhanceOptions(tile=32, precision="fp32", device="cpu")


@pytest.fixture
def field(rng) -> Micrograph:
    return Micrograph((rng.random((150, 131)) * 255).astype(np.uint8), None, "chip")


def _live(field, loaded, **more):
    output = plan_output(field, loaded.card.model_dump(), FP32)
    return LiveField(output, [field.data], **more)


def _job(field, loaded, path, live=None, *, resume=False):
    store = store_for(path, field, loaded, FP32, resume=resume)
    return store, fill(field, loaded, store, FP32, live=live)


def _until(job, tiles):
    """Go on until so many tiles are done."""
    for step in job:
        if step.message.startswith("Enhancing") and step.done >= tiles:
            return
    pytest.fail("the job ended")


# -- the queue ---------------------------------------------------------------------


def test_what_is_in_view_comes_first_from_its_middle_and_follows_the_view():
    queue = TileQueue((8, 8), (10, 10))
    queue.replace_pending(np.ones((8, 8), bool))
    queue.set_view(Box(20, 49, 40, 69))
    first = [queue.take_tiles()[0] for _ in range(9)]
    assert set(first) == {(r, c) for r in (2, 3, 4) for c in (4, 5, 6)}
    assert first[0] == (3, 5)
    assert set(queue.take_tiles(4)) <= {(1, 5), (5, 5), (3, 3), (3, 7)}
    queue.set_view(Box(0, 10, 0, 10))
    assert queue.take_tiles() == [(0, 0)]


@given(arrays(bool, (6, 7)), st.integers(1, 5))
def test_every_tile_is_handed_out_once(pending, count):
    queue = TileQueue((6, 7), (4, 4))
    queue.replace_pending(pending.copy())
    queue.set_view(Box(3, 9, 5, 20))
    taken = []
    while len(queue):
        taken += queue.take_tiles(count)
    np.testing.assert_array_equal(sorted(taken), np.argwhere(pending).tolist())


# -- drawing -------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "scale"), [(1, 2), (2, 1), (8, 2)])
def test_the_backdrop_is_the_input_at_every_level(step, scale, rng):
    image = rng.integers(0, 255, (64, 48)).astype(np.uint8)
    shape = 64 * scale, 48 * scale
    backdrop = ResampledInput([image, image[::4, ::4]], shape, np.dtype(np.float32))
    every = slice(step // 2, None, step)
    wanted = image.repeat(scale, 0).repeat(scale, 1)[every, every]
    box = Box(1, shape[0] // step, 2, shape[1] // step)
    found = backdrop.read(box, step)
    assert found.dtype == np.float32
    if step < 8:
        np.testing.assert_array_equal(found, wanted[box.slices])
    assert found.shape == box.shape


def test_the_backdrop_follows_a_model_of_another_grey_scale(rng):
    image = rng.integers(50, 150, (20, 20)).astype(np.uint8)
    backdrop = ResampledInput([image], (20, 20), np.dtype(np.float32), (50.0, 150.0))
    found = backdrop.read(Box(0, 20, 0, 20), 1)
    np.testing.assert_allclose(found, (image - 50.0) / 100, rtol=1e-6)
    backdrop = ResampledInput([image], image.shape, image.dtype)
    assert not np.shares_memory(backdrop.read(Box(0, 20, 0, 20), 1), image)


def test_a_shelf_gives_back_what_was_put_in(rng):
    store = LevelStore((700, 900), np.dtype(np.float32))
    block = rng.random((300, 290)).astype(np.float32)
    store.write(Box(250, 550, 510, 800), block)
    np.testing.assert_array_equal(store.read(Box(250, 550, 510, 800)), block)
    inner = store.read(Box(255, 530, 513, 780))
    np.testing.assert_array_equal(inner, block[5:280, 3:270])
    assert not store.read(Box(0, 250, 0, 900)).any()


def test_a_level_is_indexed_like_an_array(field, make_loaded):
    level = _live(field, make_loaded("plain")).levels[0]
    whole = field.data.astype(np.float32)
    ranges = np.s_[3:40, 5:100], np.s_[::3, 100:4:-5], np.s_[10:10, :]
    for index in (*ranges, np.s_[7, :], np.s_[..., -1], np.s_[-3, 4]):
        np.testing.assert_array_equal(level[index], whole[index], err_msg=str(index))
    np.testing.assert_array_equal(np.asarray(level), whole)
    assert (level.ndim, level.size, len(level)) == (2, whole.size, len(whole))
    with pytest.raises(IndexError):
        level[150, 0]


@pytest.mark.parametrize("kind", ["plain", "double"])
def test_tiles_replace_the_input_where_they_land(kind, field, make_loaded, tmp_path):
    loaded = make_loaded(kind)
    live = _live(field, loaded)
    before = [np.asarray(level) for level in live.levels]
    live.queue.set_view(Box(0, 30, 0, 30))
    store, job = _job(field, loaded, tmp_path / "a.ome.zarr", live)
    _until(job, 3)
    job.close()
    done = np.asarray(store.done_marks[:]) != 0
    assert live.tiles_done == done.sum() == 3
    for k, (level, old) in enumerate(zip(live.levels, before, strict=True)):
        new = np.asarray(level)
        rows = np.arange(level.shape[0]) * 2**k // live.unit[0]
        columns = np.arange(level.shape[1]) * 2**k // live.unit[1]
        known = done[np.ix_(rows, columns)]
        assert (new[known] != old[known]).any()
        np.testing.assert_array_equal(new[~known], old[~known])


# -- the run -------------------------------------------------------------------------


def test_live_stores_what_it_shows_as_batch_does(field, make_loaded, tmp_path):
    loaded = make_loaded("strided")
    live = _live(field, loaded)
    live_store, job = _job(field, loaded, tmp_path / "a.ome.zarr", live)
    report = run(job)
    for name, level in zip(("0", "1"), live.levels, strict=False):
        np.testing.assert_array_equal(np.asarray(level), live_store.group[name][:])
    store, job = _job(field, loaded, tmp_path / "b.ome.zarr")
    expected = run(job)
    np.testing.assert_array_equal(live_store.level0[:], store.level0[:])
    live = _live(field, loaded)
    live.level0 = store.level0
    live.show_external_tile((1, 1))
    assert live.tiles_done == 1
    live.attach_store(store)
    assert live.take_tiles(25) == []  # which are shown, and not made again
    assert report.tile_mismatch == pytest.approx(expected.tile_mismatch, abs=1e-9)


def test_batch_and_live_continue_each_other(field, make_loaded, tmp_path):
    loaded, path = make_loaded("plain"), tmp_path / "a.ome.zarr"
    for live, goal in ((True, 4), (False, 7), (True, 30)):
        view = _live(field, loaded) if live else None
        store, job = _job(field, loaded, path, view, resume=path.exists())
        if goal < 25:
            _until(job, goal)
            job.close()
        else:
            assert run(job).resumed >= 7
            np.testing.assert_array_equal(np.asarray(view.levels[0]), store.level0[:])
    whole, job = _job(field, loaded, tmp_path / "b.ome.zarr")
    run(job)
    np.testing.assert_array_equal(store.level0[:], whole.level0[:])


def test_only_what_is_looked_at_is_enhanced(field, make_loaded, tmp_path):
    loaded = make_loaded("plain")
    live = _live(field, loaded, whole=False)
    live.queue.set_view(Box(0, 60, 0, 60))
    store, job = _job(field, loaded, tmp_path / "a.ome.zarr", live)
    for step in job:
        if "Waiting" in step.message:
            break
    assert live.tiles_done == 4
    assert np.asarray(store.done_marks[:])[:2, :2].all()
    live.queue.set_view(Box(100, 131, 100, 131))
    _until(job, 6)
    live.queue.whole = True
    run(job)
    assert store.is_complete


def test_what_was_written_is_read_where_it_was_moved_to(
    field, make_loaded, tmp_path, monkeypatch
):
    monkeypatch.setattr(live_field, "_CACHE_BYTES", 1)
    loaded = make_loaded("plain")
    live = _live(field, loaded)
    store, job = _job(field, loaded, tmp_path / "a.ome.zarr", live)
    run(job)
    whole = store.level0[:]
    live.level0 = None
    shutil.move(tmp_path / "a.ome.zarr", tmp_path / "b.ome.zarr")
    box = np.s_[:32, :32]
    np.testing.assert_array_equal(live.levels[0][box], field.data[box])
    live.level0 = read(tmp_path / "b.ome.zarr").data
    live.take_changed_box()
    np.testing.assert_array_equal(live.levels[0][box], whole[box])
