import os
import sys
from pathlib import Path

import pytest

from napari_semsr.core import configure_allocator
from tests.children import run_python

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
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
THREADS = """
stop = threading.Event()
def work():
    kept = [bytearray(2000) for _ in range(100)]
    stop.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads]
tell()
stop.set()
"""
LARGE = """
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
for _ in range(3):  # by default the limit rises to what was freed
    libc.free(libc.malloc(8 << 20))
kept = libc.malloc(8 << 20)
tell()
"""


def malloc_info(code):
    """What glibc says of the memory of a new process."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    return run_python(BEGIN + code, env=own)  # dask leaves a variable behind


@LINUX
def test_compact_memory_gives_all_threads_one_arena():
    assert malloc_info(THREADS).count("<heap nr=") == 1


@LINUX
def test_compact_memory_takes_large_blocks_from_the_system_where_pages_are_huge():
    if not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text():
        pytest.skip("this system has no huge pages")
    line = next(x for x in malloc_info(LARGE).splitlines() if 'type="mmap"' in x)
    assert int(line.split('size="')[1].split('"')[0]) >= 8 << 20


@pytest.mark.parametrize(
    ("name", "value"),
    [("MALLOC_ARENA_MAX", "2"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")],
)
def test_compact_memory_leaves_what_the_user_set(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert not configure_allocator()
