import pytest

from napari_semsr.core import configure_allocator


@pytest.mark.parametrize(
    ("name", "value"),
    [("MALLOC_ARENA_MAX", "2"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")],
)
def test_compact_memory_leaves_what_the_user_set(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert not configure_allocator()
