"""A store that one process fills is left alone by others, until it ends."""

import sys
from contextlib import contextmanager

import numpy as np
import pytest

from napari_semsr.core import Micrograph, ReadError, WriteError
from napari_semsr.io import create_store, finalise_store, read, write
from napari_semsr.io.files import get_partial_store_path
from tests import children
from tests.refusals import refused

HOW = {"shape": (8, 8), "dtype": "f4", "chunk": 4}

# Begins a store, writes a part of it, says so, and waits until it is told to end.
FILLING = """
import sys
from contextlib import contextmanager
from pathlib import Path
from napari_semsr.io import create_store
store = create_store(Path(sys.argv[1]), shape=(8, 8), dtype="f4", chunk=4)
store.level0[:4, :4] = 7
store.mark_done(0, 0)
print("begun", flush=True)
sys.stdin.readline()
"""


@contextmanager
def filled(path):
    """Let another process fill a store, which that process holds."""
    pipes = {"stdin": children.subprocess.PIPE, "stdout": children.subprocess.PIPE}
    with children.started([sys.executable, "-c", FILLING, path], **pipes) as process:
        assert process.stdout.readline().strip() == b"begun"
        yield process


@pytest.mark.broad
def test_finishing_a_store_leaves_the_hidden_one_that_another_process_fills(tmp_path):
    path = tmp_path / "a.ome.zarr"
    path.mkdir()
    hidden = get_partial_store_path(path)
    with filled(hidden):
        with finalise_store(path, path):
            pass
        assert hidden.is_dir()
    with finalise_store(path, path):
        pass
    assert not hidden.exists()


def test_a_store_that_is_being_written_is_refused(tmp_path):
    path = tmp_path / "a.ome.zarr"
    with filled(path) as process:
        before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
        for how in ({"resume": True}, {"overwrite": True}):
            with refused(WriteError, "output-locked"):
                create_store(path, **HOW, **how)
        assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before
        process.kill()
        process.wait(children.LIMIT_S)
        store = create_store(path, **HOW, resume=True)
        assert len(store.pending_units()) == 3


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
