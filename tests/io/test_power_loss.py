"""What says that a file is whole comes onto the disk after it."""

import os
from collections import deque

import numpy as np
import pytest

from napari_semsr.core import Micrograph
from napari_semsr.io import create_store, write

SIZE = (300, 400)


@pytest.fixture
def synced(monkeypatch, tmp_path):
    """Files of the folder that were waited for, and what stood there at that moment."""
    found: dict[int, set[str]] = {}

    def wait(opened: int) -> None:
        there = {p.name for p in tmp_path.iterdir() if not p.name.startswith(".")}
        mark = tmp_path / "a.ome.zarr" / "zarr.json"
        if mark.exists() and '"complete": true' in mark.read_text():
            there.add("complete")
        found[os.fstat(opened).st_ino] = there

    monkeypatch.setattr(os, "fsync", wait)
    monkeypatch.delenv("SEMSR_SYNC", raising=False)
    return found


def fill(folder):
    store = create_store(folder / "a.ome.zarr", shape=SIZE, dtype="u1", chunk=128)
    grey = np.random.default_rng(0).integers(1, 256, SIZE, dtype=np.uint8)
    blocks = (grey[box.slices] for box in store.pending_boxes())
    deque(store.fill(blocks, "filling"), maxlen=0)
    deque(store.finish(), maxlen=0)
    return [p for p in (folder / "a.ome.zarr").rglob("c/*/*") if p.is_file()]


def test_blocks_of_a_store_are_on_the_disk_before_its_mark(synced, tmp_path):
    blocks = fill(tmp_path)
    assert len(blocks) > 12  # of two levels
    for block in blocks:
        assert "complete" not in synced[block.stat().st_ino]


@pytest.mark.parametrize("name", ["b.tif", "b.png"])
def test_a_file_is_on_the_disk_before_its_name(name, synced, tmp_path):
    write(Micrograph(np.zeros((8, 9), np.uint8)), tmp_path / name)
    assert name not in synced[(tmp_path / name).stat().st_ino]


def test_the_wait_may_be_left_out(synced, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMSR_SYNC", "0")
    fill(tmp_path)
    assert not synced
