import os

import pytest

from napari_semsr import core
from napari_semsr.core import configure_allocator
from napari_semsr.inference import cluster
from tests import children


@pytest.mark.parametrize(
    ("name", "value"),
    [("MALLOC_ARENA_MAX", "2"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")],
)
def test_compact_memory_leaves_what_the_user_set(monkeypatch, name, value):
    monkeypatch.setattr(os, "environ", {name: value})
    assert not configure_allocator()
    assert os.environ == {name: value, "OMP_WAIT_POLICY": "PASSIVE"}


@pytest.mark.parametrize(("value", "is_changed"), [("65536", True), ("9", False)])
def test_a_dask_worker_keeps_its_memory_unless_a_user_set_it(
    monkeypatch, value, is_changed
):
    calls, name = [], "MALLOC_TRIM_THRESHOLD_"
    monkeypatch.setattr(core, "configure_allocator", lambda: calls.append(1))
    monkeypatch.setattr(cluster, "register_run", lambda *_: None)
    monkeypatch.setenv(name, value)
    cluster.RunPlugin("token", None).setup(None)
    assert (bool(calls), name in os.environ) == (is_changed, not is_changed)


def test_large_blocks_are_reused_only_while_tiles_are_computed():
    children.run_python(
        """
import ctypes, numpy as np
from napari_semsr import core
library = ctypes.CDLL(None)
if core.configure_allocator():
    class Counts(ctypes.Structure):
        _fields_ = [(str(n), ctypes.c_size_t) for n in range(10)]
    library.mallinfo2.restype = Counts
    def count_requested(megabytes):
        block = np.empty(megabytes << 20, 'u1')
        return getattr(library.mallinfo2(), '4') >> 20
    counts = [count_requested(8), count_requested(64)]
    reuse = core.MemoryReuse()
    counts.append(count_requested(64))
    reuse.close()
    counts.append(count_requested(64))
    assert counts == [0, 64, 0, 64], counts
"""
    )
