"""A store that one process fills is left alone by others, until it ends."""

import gc
import sys

import numpy as np
import pytest

from napari_semsr.core import IncompleteError, Micrograph, ReadError, WriteError
from napari_semsr.io import create_store, read, write
from napari_semsr.io.files import check_target, get_partial_store_path
from napari_semsr.io.formats import finalise_store
from tests import children
from tests.refusals import refused

HOW = {"shape": (8, 8), "dtype": "f4", "chunk": 4}

# Begins a store, writes a part of it, says so, and waits until it is told to end.
FILLING = """
import sys
from pathlib import Path
from napari_semsr.io import create_store
store = create_store(Path(sys.argv[1]), shape=(8, 8), dtype="f4", chunk=4)
store.level0[:4, :4] = 7
store.mark_done(0, 0)
print("begun", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def filling(tmp_path):
    """A store that another process is filling, and that process."""
    path = tmp_path / "a.ome.zarr"
    pipes = {"stdin": children.subprocess.PIPE, "stdout": children.subprocess.PIPE}
    with children.started([sys.executable, "-c", FILLING, path], **pipes) as process:
        assert process.stdout.readline().strip() == b"begun"
        yield path, process


@pytest.mark.parametrize(
    "how",
    [pytest.param({"overwrite": True}, marks=pytest.mark.broad), {"resume": True}],
    ids=str,
)
def test_a_store_that_is_being_written_is_refused(filling, how):
    path, process = filling
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    with refused(WriteError, "output-locked"):
        create_store(path, **HOW, **how)
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before
    process.kill()
    process.wait(children.LIMIT_S)
    store = create_store(path, **HOW, **how)
    assert len(store.pending_units()) == (3 if "resume" in how else 4)


@pytest.mark.broad
def test_finishing_a_store_leaves_the_hidden_one_that_another_process_fills(tmp_path):
    path = tmp_path / "a.ome.zarr"
    path.mkdir()
    hidden = get_partial_store_path(path)
    pipes = {"stdin": children.subprocess.PIPE, "stdout": children.subprocess.PIPE}
    with children.started([sys.executable, "-c", FILLING, hidden], **pipes) as process:
        assert process.stdout.readline().strip() == b"begun"
        with finalise_store(path, path):
            pass
        assert hidden.is_dir()
    with finalise_store(path, path):
        pass
    assert not hidden.exists()


@pytest.mark.broad
def test_no_image_takes_the_place_of_a_store_that_is_being_written(filling):
    path, _ = filling
    image = Micrograph(np.ones((8, 8), np.float32))
    with refused(WriteError, "output-locked"):
        write(image, path, overwrite=True)
    assert (path / "0").is_dir()


@pytest.mark.broad
def test_a_finished_store_is_held_by_nobody(tmp_path):
    path = tmp_path / "a.ome.zarr"
    store = create_store(path, **HOW)
    for _ in store.fill([np.ones((4, 4), np.float32)] * 4, "filling"):
        pass
    for _ in store.finish():
        pass
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    again = FILLING.replace("chunk=4", "chunk=4, overwrite=True")
    children.run_python(again, path, stdin=children.subprocess.DEVNULL)
    with refused(IncompleteError, "incomplete"):
        read(path)


def test_what_another_process_began_meanwhile_is_left_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.ome.zarr"
    real = type(path).mkdir

    def late(self, *args, **options):
        if self == path:
            real(self)  # somebody else's
            (self / "theirs").touch()
        return real(self, *args, **options)

    monkeypatch.setattr(type(path), "mkdir", late)
    with refused(WriteError, "output-locked"):
        create_store(path, **HOW)
    assert (path / "theirs").exists()


@pytest.mark.parametrize("away", ["written anew", "moved"])
def test_what_was_opened_is_not_read_from_what_took_its_place(tmp_path, away):
    path = tmp_path / "a.ome.zarr"
    write(Micrograph(np.ones((8, 8), np.float32)), path)
    opened = read(path)
    if away == "moved":
        path.rename(tmp_path / "b.ome.zarr")
    else:
        create_store(path, **HOW, overwrite=True)
    with refused(ReadError, "content-changed"):
        opened.array()
    if away == "moved":
        assert read(tmp_path / "b.ome.zarr").array().all()


REFUSED = """
import sys
from pathlib import Path
from napari_semsr.core import WriteError
from napari_semsr.io import create_store
try:
    create_store(Path(sys.argv[1]), shape=(8, 8), dtype="f4", chunk=4, resume=True)
except WriteError as error:
    assert "Another process is writing" in str(error)
else:
    raise SystemExit("written by two")
"""


@pytest.mark.broad
def test_looking_at_its_own_store_does_not_let_it_go(tmp_path):
    path = tmp_path / "a.ome.zarr"
    store = create_store(path, **HOW)
    check_target(path, overwrite=True)
    children.run_python(REFUSED, path)
    with refused(WriteError, "other-run"):
        create_store(path, **(HOW | {"chunk": 2}), resume=True)
    children.run_python(REFUSED, path)
    again = create_store(path, **HOW, resume=True)
    del store
    children.run_python(REFUSED, path)
    assert again.pending_units()
    del again
    gc.collect()  # zarr's objects may be in a cycle
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
