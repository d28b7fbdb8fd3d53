"""Pipes and devices inside what is opened: refused in a sentence, waited for by nobody.

A pipe is read by none until somebody writes into it, and a device may never end.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from napari_semsr.core import Micrograph, ReadError, SemsrError, run
from napari_semsr.io import create_store, describe, open_project, read, write
from tests.children import LIMIT_S
from tests.hostile.__main__ import bound_memory
from tests.hostile.commands import PATIENCE, say
from tests.hostile.images import write_packed
from tests.hostile.watch import write_part
from tests.refusals import warned

pytestmark = [
    pytest.mark.broad,
    pytest.mark.skipif(
        not hasattr(os, "mkfifo") or not Path("/dev/zero").exists(),
        reason="needs pipes and devices",
    ),
]
HANGS_S = 120.0  # ends what waits for a pipe; what is refused comes nowhere near


@pytest.fixture
def place(place, monkeypatch):
    """Where what waits is interrupted, and what takes all memory is refused it."""
    import resource

    monkeypatch.setattr(PATIENCE, "seconds", HANGS_S)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    bound_memory(2)
    yield place
    resource.setrlimit(resource.RLIMIT_DATA, before)
    for path in place.rglob("*"):
        if path.is_fifo():  # lets go of what still waits for it, in a thread
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


@contextmanager
def ending() -> Iterator[None]:
    """Fail where what is done here waits for a pipe."""
    try:
        with PATIENCE.running():
            yield
    except KeyboardInterrupt:
        pytest.fail("it waited for what never comes")


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def link_to_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    pipe(path.absolute().with_name("aside"))
    path.symlink_to(path.absolute().with_name("aside"))


ENDLESS = pytest.mark.parametrize("put", [pipe, device, link_to_pipe])
NAMED = {
    "train tiny.yaml -o there/out": "tiny.yaml",
    "models info tiny.safetensors": "tiny.safetensors",
    "enhance first.tif -o there/o.tif --model tiny.safetensors": "tiny.safetensors",
    "models import a.onnx": "a.onnx",
    "models import a.zip": "a.zip",
    "info a.h5": "a.h5",
    "stitch a.czi -o there/out.ome.zarr": "a.czi",
    "info first.tif --calibration a.json": "a.json",
    "register first.tif truth.tif -o there/o.tif --transform a.json": "a.json",
    "register first.tif truth.tif -o there/o.tif --landmarks a.csv": "a.csv",
    "stitch scan -o there/out.ome.zarr --positions a.csv": "a.csv",
    "metrics a.csv": "a.csv",
    "metrics a.parquet": "a.parquet",
    "replay made.tif": "made.tif",
    "stitch scan -o there/out.ome.zarr": "scan/positions.csv",
    "stitch scan -o there/a.ome.zarr": "scan/scan.json",
    "stitch scan -o there/o.tif --focus max": "scan/heights.csv",
}
"""Lines, and the file of each that never ends."""


@pytest.mark.parametrize(
    ("put", "line"),
    [
        *((put, line) for line in NAMED for put in (pipe, device)),
        (link_to_pipe, next(iter(NAMED))),
    ],
)
def test_an_endless_file_is_refused_or_left_out(put, line, place):
    put(place / NAMED[line])
    code, said = say(*line.split())
    assert code in (0, 2), said
    assert code == 2 or NAMED[line].startswith("scan/"), said


@pytest.mark.parametrize("put", [pipe, device])  # links are followed alike, see pairs
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("inside", ["chunk", "array", "group", "attributes"])
def test_an_endless_file_in_a_store_is_refused(put, inside, version, place):
    names = {
        "chunk": ("0/0.0", "0/c/0/0"),
        "array": ("0/.zarray", "0/zarr.json"),
        "group": (".zgroup", "zarr.json"),
        "attributes": (".zattrs", "zarr.json"),
    }
    if version == 2:
        path = write_packed(place, "plain/2", None)
    else:
        path = place / "plain-3.ome.zarr"
        write(Micrograph(np.ones((64, 64), np.uint8), (5.0, 5.0), "a"), path)
    put(path / names[inside][version - 2])
    for verb, *more in (("metrics",), ("convert", "there/out.tif")):
        code, said = say(verb, path.name, *more)
        assert code == 2, said
    assert list((place / "there").iterdir()) == []


@ENDLESS
def test_an_endless_mark_or_chunk_is_made_again(put, place):
    grey = np.random.default_rng(1).random((64, 64)).astype(np.float32)
    path = place / "there" / "out.ome.zarr"
    how = {"shape": (64, 64), "dtype": "float32", "chunk": 32, "name": "a"}
    store = create_store(path, **how)
    for part in store.pending_boxes()[:2]:
        store.level0[part.slices] = grey[part.slices]
    store.mark_done(0, 0)
    store.mark_done(0, 1)
    store.lock.release()
    put(path / "0" / "c" / "0" / "0")
    with ending(), warned("tiles-lost", match="1 of 2 "):
        again = create_store(path, **how, resume=True)
    assert sorted(again.pending_units()) == [(0, 0), (1, 0), (1, 1)]
    again.lock.release()


@ENDLESS
@pytest.mark.parametrize("name", ["zarr.json", "low/c/0/0/0"])
def test_an_endless_file_in_pairs_is_refused(put, name, place):
    store = place / "pairs.zarr"
    found = store / name if (store / name).exists() else _first_chunk(store)
    put(found)
    code, said = say("train", "tiny.yaml", "-o", "there/out")
    assert code == 2, said


def _first_chunk(store: Path) -> Path:
    """Name a file of pixels that are learnt from."""
    return next(p for p in sorted(store.rglob("c/**/*")) if p.is_file())


@pytest.fixture(scope="module")
def run_folder(inputs, tmp_path_factory):
    """A training that was done."""
    place = tmp_path_factory.mktemp("run")
    folder = shutil.copytree(inputs, place / "inputs")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert say("train", "tiny.yaml", "-o", place / "run", "--steps", "2")[0] == 0
    finally:
        os.chdir(before)
    return place / "run"


@ENDLESS
@pytest.mark.parametrize(
    "name",
    [
        *("recipe.yaml", "inputs.yaml", "best.yaml", "curve.csv", "last.ckpt"),
        *("preview.tif", "tiny.safetensors", "board"),
    ],
)
def test_an_endless_file_in_a_run_is_refused(put, name, place, run_folder):
    shutil.copytree(run_folder, place / "run")
    put(place / "run" / name)
    code, said = say("train", "tiny.yaml", "-o", "run", "--steps", "4", "--resume")
    assert code == 2, said
    assert name in said


def test_a_lock_that_is_a_link_is_followed_by_nothing(place):
    """It would be opened for writing, and some versions of filelock empty it."""
    mine = place / "mine.txt"
    mine.write_text("mine")
    (place / "there" / ".held.out.ome.zarr").symlink_to(mine)
    (place / ".held.run").symlink_to(mine)
    restore = ("restore", "first.tif", "--psf", "1px", "--method", "wiener")
    for words in (
        (*restore, "-o", "there/out.ome.zarr"),
        ("train", "tiny.yaml", "-o", "run", "--steps", "1"),
    ):
        code, said = say(*words)
        assert code == 2, said
        assert "but is a link" in said
    assert mine.read_text() == "mine"


@ENDLESS
def test_an_endless_part_of_a_tiff_of_several_files_is_refused(put, place):
    write_part(place / "one.ome.tif", "two.ome.tif")
    put(place / "two.ome.tif")
    with ending(), suppress(SemsrError):
        read(place / "one.ome.tif", plane=1).array()


@ENDLESS
@pytest.mark.parametrize("how", ["virtual", "link"])
def test_hdf5_leads_to_no_other_file(put, how, place):
    h5py = pytest.importorskip("h5py")
    path = place / "a.h5"
    put(place / "other.h5")
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry["plain"] = np.ones((20, 30), np.uint8)
        if how == "virtual":
            layout = h5py.VirtualLayout((20, 30), "u1")
            layout[...] = h5py.VirtualSource("other.h5", "x", (20, 30))
            file.create_virtual_dataset("/virtual", layout)
        entry["out"] = h5py.ExternalLink("other.h5", "/")
    with ending():
        image = read(path, dataset="/entry/plain")
        assert image.shape == (20, 30)
        told = describe(path)
        assert told.shape == (20, 30)
        with pytest.raises(ReadError):
            read(path, dataset="/virtual")


def test_hdf5_that_gathers_its_own_datasets_is_read(place):
    h5py = pytest.importorskip("h5py")
    with h5py.File(place / "a.h5", "w") as file:
        file["parts/x"] = np.full((20, 30), 7, np.uint8)
        layout = h5py.VirtualLayout((20, 30), "u1")
        layout[...] = h5py.VirtualSource(".", "parts/x", (20, 30))
        file.create_virtual_dataset("/virtual", layout)
    assert read(place / "a.h5", dataset="/virtual").array().mean() == 7


@ENDLESS
def test_an_endless_file_of_a_project_is_refused(put, place):
    folder = place / "session.semsr"
    folder.mkdir()
    put(folder / "project.json")
    with ending(), pytest.raises(SemsrError):
        run(open_project(folder))


def test_the_refusals_end_a_process_with_bounded_memory(place):
    """A large file of nothing in place of a chunk is not read into memory."""
    path = place / "store.ome.zarr"
    write(Micrograph(np.ones((64, 64), np.uint8), (5.0, 5.0), "a"), path)
    chunk = path / "0" / "c" / "0" / "0"
    with chunk.open("wb") as stream:
        stream.truncate(1 << 42)
    code, said = say("metrics", "store.ome.zarr")
    assert code == 2, said
    assert LIMIT_S > HANGS_S
