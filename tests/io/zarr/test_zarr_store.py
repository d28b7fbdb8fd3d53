"""The output store: streamed, resumable, complete or refused; and its levels."""

import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
import zarr
from hypothesis import given

from napari_semsr.core.errors import IncompleteError, WriteError
from napari_semsr.core.micrograph import Provenance
from napari_semsr.core.progress import run
from napari_semsr.io import formats as registry, read
from napari_semsr.io.zarr_image import warn_about_missing_blocks
from napari_semsr.io.zarr_store import (
    compute_pyramid_shapes,
    create_store,
    downsample_block,
)
from tests.refusals import refused, warned
from tests.strategies import images, shapes

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
    for place in store.pending_units() if places is None else places:
        store.write_unit(*place, image[store.box(*place).slices])
        store.mark_done(*place)


def _finish(store):
    return list(store.finish())


def test_levels_are_means_and_lie_where_they_belong(tmp_path, options, image):
    from ome_zarr_models.v05 import Image

    path = tmp_path / "a.ome.zarr"
    _fill(create_store(path, **options), image)
    steps = _finish(store := create_store(path, **options, resume=True))
    assert steps[-1].done == steps[-1].total
    assert store.is_complete
    assert registry.describe(path).levels == 3
    found = registry.read(path)
    assert np.array_equal(found.array(), image)
    assert (found.pixel_size_nm, found.origin) == ((5.0, 6.0), (2.0, 3.0))
    assert (found.name, found.provenance) == ("field", options["provenance"])
    half = registry.read(path, level=1)
    assert np.array_equal(half.array(), downsample_block(image))
    assert half.pixel_size_nm == (10.0, 12.0)
    assert half.origin == (2.0 + 2.5, 3.0 + 3.0)
    quarter = registry.read(path, level=2)
    assert np.array_equal(quarter.array(), downsample_block(downsample_block(image)))
    parsed = Image.from_zarr(zarr.open_group(path, mode="r")).ome_attributes
    axes = [(axis.name, axis.unit) for axis in parsed.multiscales[0].axes]
    assert axes == [("y", "nanometer"), ("x", "nanometer")]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("dtype", ["?", "u1", ">u2", "<i4", "f2", ">f4", "f8"])
def test_other_programs_read_what_was_written_as_blocks(tmp_path, dtype, version, rng):
    values = (100 * rng.standard_normal(_SHAPE)).astype(dtype)
    values[:32, :32] = 0
    if values.dtype.kind == "f":
        values[40, :3] = -0.0, np.nan, np.inf
    path = tmp_path / "a.ome.zarr"
    store = create_store(path, shape=_SHAPE, dtype=dtype, chunk=32, version=version)
    blocks = (values[box.slices] for box in store.pending_boxes())
    run(store.fill(blocks, "writing"))
    _finish(store)
    found = zarr.open_array(path / "0", mode="r")[:]
    assert found.astype(values.dtype).tobytes() == values.tobytes()


def test_an_unfinished_store_is_refused_by_name_and_resumed(tmp_path, options, image):
    path = tmp_path / "a.ome.zarr"
    first = create_store(path, **options, resume=True)
    _fill(first, image, [(0, 0), (2, 1)])
    for verb in (registry.read, registry.describe):
        with refused(IncompleteError, "incomplete") as caught:
            verb(path)
        assert str(path) in str(caught.value)
    with refused(WriteError, "output-incomplete", match="7 of its 9 "):
        _finish(first)
    later = options["provenance"].model_copy(update={"created": "2000-01-01"})
    second = create_store(path, **{**options, "provenance": later}, resume=True)
    assert (0, 0) not in second.pending_units()
    assert len(second.pending_units()) == 7
    _fill(second, image)
    _finish(second)
    assert np.array_equal(registry.read(path).array(), image)
    again = create_store(path, **options, resume=True)
    assert (again.is_complete, again.pending_units()) == (True, [])
    assert not (path / "done").exists()


def _vanish(file):
    file.unlink()


def _cut_short(file):
    file.write_bytes(file.read_bytes()[:-9])


def _garble(file):
    file.write_bytes(bytes(reversed(file.read_bytes())))


@pytest.mark.parametrize(
    ("damage", "torn", "per_shard"),
    [
        (_garble, "0/c/1/1", 1),
        (_vanish, "0/c/1/1", 1),
        (_cut_short, "done/c/1/1", 1),
        (_vanish, "labels/frames/0/c/1/1", 1),
        (_cut_short, "0/c/2/2", 2),  # at the border
    ],
)
def test_resume_makes_damaged_units_again(
    tmp_path, options, image, damage, torn, per_shard
):
    path, place = tmp_path / "a.ome.zarr", (int(torn[-1]),) * 2
    options |= {"chunk": _CHUNK // per_shard, "chunks_per_shard": per_shard}
    first = create_store(path, **options)
    assert first.unit == (_CHUNK, _CHUNK)  # whole shards
    first.add_label("frames")[:] = 1
    _fill(first, image, [(0, 0), (0, 1)])
    box = first.box(*place).slices
    first.write_unit(*place, image[box])
    steps = [lambda: first.mark_done(*place), lambda: damage(path / torn)]
    for step in steps[::-1] if damage is _garble else steps:  # garbled before a mark
        step()
    (orphan := path / "0" / "c" / "0" / "0.abc.partial").write_bytes(b"half")
    with warned("tiles-lost", match="1 of 3 .* a.ome.zarr "):
        second = create_store(path, **options, resume=True)
    assert not orphan.exists()
    assert len(second.pending_units()) == 7
    assert place in second.pending_units()
    second.add_label("frames")[box] = 1
    _fill(second, image)
    second.finish_label("frames", second.add_label("frames"))
    _finish(second)
    assert np.array_equal(registry.read(path).array(), image)
    assert registry.read(path / "labels" / "frames").array().all()
    assert len(list((path / "0").rglob("c/*/*"))) == 9


@pytest.mark.parametrize(("torn", "pending"), [("0/c/1/1", [(1, 1)]), ("1/c/0/0", [])])
def test_resume_mends_a_complete_store(tmp_path, options, image, torn, pending):
    path = tmp_path / "a.ome.zarr"
    first = create_store(path, **options)
    _fill(first, image)
    _finish(first)
    _cut_short(path / torn)
    with warned("tiles-lost", match="1 of 9 ") if pending else nullcontext():
        second = create_store(path, **options, resume=True)
    assert second.pending_units() == pending
    assert not second.is_complete
    _fill(second, image)
    _finish(second)
    assert np.array_equal(registry.read(path).array(), image)
    assert np.array_equal(registry.read(path, level=1).array(), downsample_block(image))


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (70, 91)},
        {"origin": (0.0, 0.0)},
        {"provenance": Provenance(job="enhance", options={"tile": 64})},
    ],
    ids=lambda change: next(iter(change)),
)
def test_resume_refuses_a_store_of_another_making(tmp_path, options, change):
    path = tmp_path / "a.ome.zarr"
    create_store(path, **options)
    with refused(WriteError, "other-run"):
        create_store(path, **{**options, **change}, resume=True)


def test_notes_are_kept_and_must_be_json(tmp_path, options):
    store = create_store(tmp_path / "a.ome.zarr", **options)
    store.write_note("report", {"seam_index": 1.02})
    store.write_note("report", {"seam_index": 1.01})
    assert store.read_notes()["report"] == {"seam_index": 1.01}
    for bad in (float("nan"), object()):
        with refused(WriteError, "wrong-type"):
            store.write_note("bad", bad)


def test_threads_of_a_worker_lose_no_tile(tmp_path, options, image):
    store = create_store(tmp_path / "a.ome.zarr", **options)
    sent = pickle.loads(pickle.dumps(store))  # noqa: S301
    places = store.pending_units()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: _fill(sent, image, places[n::4]), range(4)))
    assert store.pending_units() == []
    _finish(store)
    assert np.array_equal(registry.read(store.path).array(), image)


def test_blocks_of_zeros_have_no_file_and_are_not_missed(tmp_path, options, image):
    image[:_CHUNK, :_CHUNK] = 0
    store = create_store(tmp_path / "a.ome.zarr", **options)
    _fill(store, image, [(0, 0), (1, 1)])
    store = create_store(store.path, **options, resume=True)
    assert len(store.pending_units()) == 7
    _fill(store, image)
    _finish(store)
    warn_about_missing_blocks(store.path)
    (store.path / "0" / "c" / "1" / "1").unlink()
    with warned("blocks-missing", match="^1 of 13 "):
        warn_about_missing_blocks(store.path)


@given(shapes(1, 5000))
def test_level_shapes_halve_until_small(shape):
    found = compute_pyramid_shapes(shape, smallest=256)
    assert found[0] == shape
    assert max(found[-1]) <= 256
    for (rows, columns), (fewer, narrower) in itertools.pairwise(found):
        assert fewer == -(-rows // 2)
        assert narrower == -(-columns // 2)


@given(images())
def test_halve_keeps_type_and_range(image):
    small = downsample_block(image)
    assert small.dtype == image.dtype
    assert small.shape == tuple(-(-n // 2) for n in image.shape)
    assert small.min() >= image.min() - 1e-3
    assert small.max() <= image.max() + 1e-3


@pytest.mark.parametrize(
    ("image", "half"),
    [
        (np.arange(16, dtype="f4").reshape(4, 4), [[2.5, 4.5], [10.5, 12.5]]),
        (np.array([[1, np.nan, np.nan], [3, 2, np.nan]], "f4"), [[2, np.nan]]),
        (np.array([[True, True, False, False], [True, False, False, True]]), [[1, 0]]),
        (np.full((2, 2), 2**31 - 1, np.int32), [[2**31 - 1]]),
    ],
    ids=["mean", "of what is known", "majority", "exact"],
)
def test_halve_averages_two_by_two(image, half):
    np.testing.assert_array_equal(downsample_block(image), half)


@pytest.mark.parametrize("chunk", [8, 9], ids=["halved", "split in a pixel"])
def test_coarse_levels_do_not_depend_on_when_blocks_are_written(tmp_path, chunk, rng):
    image, made = rng.random((45, 61)).astype("f4"), []
    for name, is_shuffled, resumes in (("a", 0, 0), ("b", 1, 0), ("c", 1, 1)):
        path = tmp_path / f"{name}.ome.zarr"
        how = {"shape": image.shape, "dtype": "f4", "chunk": chunk}
        store = create_store(path, **how)
        places = store.pending_units()
        places = rng.permutation(places).tolist() if is_shuffled else places
        store.write_unit(*places[0], np.zeros_like(image[store.box(*places[0]).slices]))
        for number, place in enumerate(places):
            if resumes and number == len(places) // 2:
                store.lock.release()
                store = create_store(path, resume=True, **how)
            _fill(store, image, [place])
        _finish(store)
        levels = [image]
        for level in range(1, registry.describe(path).levels):
            levels.append(downsample_block(levels[-1]))
            assert np.array_equal(read(path, level=level).array(), levels[-1])
        made.append(len(levels))
    assert made[0] == made[1] == made[2] > 2


def test_blocks_make_coarse_levels_that_begin_at_the_centre_of_means(tmp_path, rng):
    image, size = rng.random((64, 64)).astype("f4"), (5.0, 1.0)
    how = {"shape": (64, 64), "dtype": "f4", "chunk": 8, "origin": (7.0, 0.0)}
    store = create_store(tmp_path / "a.ome.zarr", **how, pixel_size_nm=size)
    blocks = (image[box.slices] for box in store.pending_boxes())
    list(store.fill(blocks, "filling"))
    assert list(store.finish()) == []  # nothing is read again to build them
    for level in range(4):
        found = read(store.path, level=level)
        assert np.array_equal(found.array(), image)
        assert found.origin[0] == (np.arange(2**level) * 5.0 + 7.0).mean()
        image = downsample_block(image)
