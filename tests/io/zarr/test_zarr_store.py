"""The output store: streamed, resumable, complete or refused."""

import json
import pickle
import threading

import numpy as np
import pytest
import zarr

from napari_semsr.core.errors import IncompleteError, OptionError, WriteError
from napari_semsr.core.micrograph import Provenance
from napari_semsr.io import formats as registry
from napari_semsr.io.zarr.image import warn_about_missing_blocks
from napari_semsr.io.zarr.store import create_store, downsample_block
from tests.refusals import refused, warned

_SHAPE, _CHUNK = (70, 90), 32


@pytest.fixture
def options():
    return {
        "shape": _SHAPE,
        "dtype": "float32",
        "chunk": _CHUNK,
        "pixel_size_nm": (5.0, 6.0),
        "origin": (2.0, 3.0),
        "name": "field",
        "provenance": Provenance(job="enhance", options={"tile": 32}),
    }


@pytest.fixture
def image(rng):
    return rng.random(_SHAPE).astype(np.float32)


def _fill(store, image, places=None):
    """Write tiles and mark them."""
    for row, column in store.pending_units() if places is None else places:
        top, left = row * store.unit[0], column * store.unit[1]
        window = np.s_[top : top + store.unit[0], left : left + store.unit[1]]
        store.level0[window] = image[window]
        store.mark_done(row, column)


def _finish(store):
    return list(store.finish())


def test_store_filled_and_finished_reads_back(tmp_path, options, image):
    path = tmp_path / "a.ome.zarr"
    store = create_store(path, **options)
    assert store.done_marks.shape == (3, 3)
    assert not store.is_complete
    _fill(store, image)
    steps = _finish(store)
    assert steps[-1].done == steps[-1].total
    assert store.is_complete
    found = registry.read(path)
    assert np.array_equal(found.array(), image)
    assert found.pixel_size_nm == (5.0, 6.0)
    assert found.origin == (2.0, 3.0)
    assert found.name == "field"
    assert found.provenance == options["provenance"]


def test_levels_are_means_and_lie_where_they_belong(tmp_path, options, image):
    path = tmp_path / "a.ome.zarr"
    store = create_store(path, **options)
    _fill(store, image)
    _finish(store)
    assert registry.describe(path).levels == 3
    half = registry.read(path, level=1)
    assert np.array_equal(half.array(), downsample_block(image))
    assert half.pixel_size_nm == (10.0, 12.0)
    assert half.origin == (2.0 + 2.5, 3.0 + 3.0)
    quarter = registry.read(path, level=2)
    assert np.array_equal(quarter.array(), downsample_block(downsample_block(image)))


def test_unfinished_store_is_refused_by_name(tmp_path, options, image):
    path = tmp_path / "a.ome.zarr"
    store = create_store(path, **options)
    _fill(store, image, [(0, 0)])
    for verb in (registry.read, registry.describe):
        with refused(IncompleteError, "incomplete") as caught:
            verb(path)
        assert str(path) in str(caught.value)
    with refused(WriteError, "output-incomplete", match="8 of its 9 "):
        _finish(store)


def test_resume_goes_on_where_it_stopped(tmp_path, options, image):
    path = tmp_path / "a.ome.zarr"
    first = create_store(path, **options, resume=True)
    _fill(first, image, [(0, 0), (2, 1)])
    later = options["provenance"].model_copy(update={"created": "2000-01-01"})
    second = create_store(path, **{**options, "provenance": later}, resume=True)
    assert (0, 0) not in second.pending_units()
    assert len(second.pending_units()) == 7
    _fill(second, image)
    _finish(second)
    assert np.array_equal(registry.read(path).array(), image)
    again = create_store(path, **options, resume=True)
    assert again.is_complete
    assert again.pending_units() == []
    assert again.done_marks.all()
    assert not (path / "done").exists()


def _vanish(file):
    file.unlink()


def _cut_short(file):
    file.write_bytes(file.read_bytes()[:-9])


def _garble(file):
    file.write_bytes(bytes(reversed(file.read_bytes())))


def _as_before_checksums(path):
    """Give a store the map of marks that it had before there were checksums."""
    group = zarr.open_group(path, mode="r+")
    marks = np.asarray(group["done"][:]) != 0
    group.create_array("done", data=marks.astype("u1"), chunks=(1, 1), overwrite=True)


@pytest.mark.parametrize(
    ("damage", "torn", "checksums"),
    [
        (_garble, "0/c/1/1", True),
        (_cut_short, "done/c/1/1", True),
        (_vanish, "labels/frames/0/c/1/1", True),
        (_vanish, "done/c/1/1", False),
        (_cut_short, "0/c/1/1", False),
    ],
)
def test_resume_makes_damaged_units_again(
    tmp_path, options, image, damage, torn, checksums
):
    path = tmp_path / "a.ome.zarr"
    first = create_store(path, **options)
    label = first.add_label("frames")
    label[:] = 1
    _fill(first, image, [(0, 0), (1, 1), (2, 2)])
    if not checksums:
        _as_before_checksums(path)
    damage(path / torn)
    if torn.startswith("done") and damage is _vanish:  # which is as if never begun
        second = create_store(path, **options, resume=True)
    else:
        with warned("tiles-lost", match="1 of 3 .* a.ome.zarr "):
            second = create_store(path, **options, resume=True)
    assert len(second.pending_units()) == 7
    assert (1, 1) in second.pending_units()
    second.add_label("frames")[32:64, 32:64] = 1
    _fill(second, image)
    second.finish_label("frames", second.add_label("frames"))
    _finish(second)
    assert np.array_equal(registry.read(path).array(), image)
    assert registry.read(path / "labels" / "frames").array().all()


def test_a_unit_of_nothing_but_fill_value_is_whole(tmp_path, options, image):
    path = tmp_path / "a.ome.zarr"
    image[32:64, 32:64] = 0
    first = create_store(path, **options)
    _fill(first, image, [(0, 0), (1, 1)])
    assert not (path / "0" / "c" / "1" / "1").exists()
    assert len(create_store(path, **options, resume=True).pending_units()) == 7


@pytest.mark.parametrize(
    ("damage", "torn"), [(_vanish, "0/c/1/1"), (_cut_short, "1/c/0/0")]
)
def test_resume_mends_a_complete_store(tmp_path, options, image, damage, torn):
    path = tmp_path / "a.ome.zarr"
    first = create_store(path, **options)
    _fill(first, image)
    _finish(first)
    damage(path / torn)
    if torn.startswith("0"):
        with warned("tiles-lost", match="1 of 9 "):
            second = create_store(path, **options, resume=True)
        assert second.pending_units() == [(1, 1)]
    else:
        second = create_store(path, **options, resume=True)
        assert second.pending_units() == []
    assert not second.is_complete
    _fill(second, image)
    _finish(second)
    assert np.array_equal(registry.read(path).array(), image)
    assert np.array_equal(registry.read(path, level=1).array(), downsample_block(image))


def test_store_travels_to_workers(tmp_path, options, image):
    store = create_store(tmp_path / "a.ome.zarr", **options)
    copy = pickle.loads(pickle.dumps(store))  # noqa: S301
    _fill(copy, image, [(0, 0)])
    assert len(store.pending_units()) == 8


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (70, 91)},
        {"origin": (0.0, 0.0)},
        {"provenance": Provenance(job="enhance", options={"tile": 64})},
        {"provenance": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_resume_refuses_a_store_of_another_making(tmp_path, options, change):
    path = tmp_path / "a.ome.zarr"
    create_store(path, **options)
    with refused(WriteError, "other-run"):
        create_store(path, **{**options, **change}, resume=True)


def test_resume_reads_values_that_had_other_names(tmp_path, options):
    path = tmp_path / "a.ome.zarr"
    stored, now = ({"norm": norm} for norm in ("frozen", "sampled"))
    create_store(
        path, **options | {"provenance": Provenance(job="enhance", options=stored)}
    )
    again = options | {"provenance": Provenance(job="enhance", options=now)}
    assert len(create_store(path, **again, resume=True).pending_units()) == 9


def test_resume_refuses_what_is_no_store(tmp_path, options):
    path = tmp_path / "a.ome.zarr"
    zarr.create_group(path)
    with refused(WriteError, "not-resumable"):
        create_store(path, **options, resume=True)


def test_resume_sweeps_what_a_kill_left(tmp_path, options):
    path = tmp_path / "a.ome.zarr"
    create_store(path, **options)
    orphan = path / "0" / "c" / "0" / "0.abc.partial"
    orphan.parent.mkdir(parents=True, exist_ok=True)
    orphan.write_bytes(b"half")
    create_store(path, **options, resume=True)
    assert not orphan.exists()


def test_create_refuses_an_empty_chunk(tmp_path, options):
    with refused(OptionError, "out-of-range"):
        create_store(tmp_path / "a.zarr", **{**options, "chunk": 0})


def test_notes_are_kept_and_must_be_json(tmp_path, options):
    store = create_store(tmp_path / "a.ome.zarr", **options)
    store.write_note("report", {"seam_index": 1.02})
    store.write_note("report", {"seam_index": 1.01})
    assert store.read_notes()["report"] == {"seam_index": 1.01}
    for bad in (float("nan"), object()):
        with refused(WriteError, "wrong-type"):
            store.write_note("bad", bad)


def test_threads_lose_no_tile(tmp_path, options, rng):
    big = {**options, "shape": (192, 192), "chunk": 32}
    image = rng.random((192, 192)).astype(np.float32)
    store = create_store(tmp_path / "a.ome.zarr", **big)
    places = store.pending_units()
    workers = [
        threading.Thread(target=_fill, args=(store, image, places[n::4]))
        for n in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert store.pending_units() == []
    _finish(store)
    assert np.array_equal(registry.read(store.path).array(), image)


def test_shards_are_the_unit_of_writing(tmp_path, options, image):
    path = tmp_path / "a.ome.zarr"
    store = create_store(path, **{**options, "chunk": 16}, chunks_per_shard=2)
    assert store.unit == (32, 32)
    assert store.level0.shards == (32, 32)
    _fill(store, image)
    _finish(store)
    assert np.array_equal(registry.read(path).array(), image)
    assert len(list((path / "0").rglob("c/*/*"))) == 9


def test_blocks_of_zeros_have_no_file_and_are_not_missed(tmp_path, options, image):
    image[:_CHUNK, :_CHUNK] = 0
    store = create_store(tmp_path / "a.ome.zarr", **options)
    _fill(store, image)
    _finish(store)
    warn_about_missing_blocks(store.path)
    (store.path / "0" / "c" / "1" / "1").unlink()
    with warned("blocks-missing", match="^1 of 13 "):
        warn_about_missing_blocks(store.path)
    store.group.attrs["semsr"] = {**store.group.attrs["semsr"], "blocks": "many"}
    with warned("blocks-missing", match="^2 of 9 "):
        warn_about_missing_blocks(store.path)


def test_metadata_are_ome_zarr_0_5(tmp_path, options, image):
    from ome_zarr_models.v05 import Image

    path = tmp_path / "a.ome.zarr"
    store = create_store(path, **options)
    _fill(store, image)
    _finish(store)
    parsed = Image.from_zarr(zarr.open_group(path, mode="r"))
    axes = parsed.ome_attributes.multiscales[0].axes
    assert [(a.name, a.unit) for a in axes] == [("y", "nanometer"), ("x", "nanometer")]
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    assert attributes["ome"]["version"] == "0.5"


def test_uncalibrated_stores_have_no_unit(tmp_path, options, image):
    path = tmp_path / "a.ome.zarr"
    plain = {**options, "pixel_size_nm": None, "spacing_px": (16.0, 16.0)}
    store = create_store(path, **plain)
    _fill(store, image)
    _finish(store)
    ome = json.loads((path / "zarr.json").read_text())["attributes"]["ome"]
    assert all("unit" not in axis for axis in ome["multiscales"][0]["axes"])
    found = registry.read(path, level=1)
    assert found.pixel_size_nm is None
    assert found.spacing_px == (32.0, 32.0)
    assert found.origin == (2.0 + 8.0, 3.0 + 8.0)
