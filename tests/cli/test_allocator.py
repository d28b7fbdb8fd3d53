import os

import pytest

from napari_semsr.core import configure_allocator
from tests.children import run_python

BEGIN = """
import ctypes, threading
from napari_semsr.core import configure_allocator
configure_allocator()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
def tell():
    file = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
    libc.malloc_info(0, file)
    libc.fclose(file)
"""


def malloc_info(code):
    """What glibc says of the memory of a new process."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    return run_python(BEGIN + code, env=own)  # dask leaves a variable behind


@pytest.mark.parametrize(
    ("name", "value"),
    [("MALLOC_ARENA_MAX", "2"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")],
)
def test_compact_memory_leaves_what_the_user_set(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert not configure_allocator()
