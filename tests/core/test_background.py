import ctypes
import os
import sys
import threading

import pytest

from napari_semsr.core import progress, release_free_memory, use_background_priority

LINUX = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="threads have no priority of their own"
)


def test_the_interpreter_is_handed_over_sooner_while_any_run_goes_on():
    usual = sys.getswitchinterval()
    first, second = use_background_priority(), use_background_priority()
    with first:
        second.__enter__()
        assert sys.getswitchinterval() < usual
    assert sys.getswitchinterval() < usual
    second.__exit__(None, None, None)
    assert sys.getswitchinterval() == usual
    with pytest.raises(ValueError, match="stop"), use_background_priority():
        raise ValueError("stop")
    assert sys.getswitchinterval() == usual


@LINUX
def test_only_the_thread_and_those_it_starts_are_lowered():
    found = []

    def note():
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    def start(work):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    def work():
        with use_background_priority():
            note()
        start(note)

    before = os.getpriority(os.PRIO_PROCESS, os.getpid())
    start(work)
    assert len(set(found)) == 1
    assert found[0] > before or before == 19
    with use_background_priority():  # the main thread keeps its priority
        assert os.getpriority(os.PRIO_PROCESS, os.getpid()) == before


def test_returning_memory_needs_no_glibc(monkeypatch):
    opened = []
    monkeypatch.setattr(ctypes, "CDLL", opened.append)
    monkeypatch.setattr(sys, "platform", "darwin")
    release_free_memory()
    assert not opened
    monkeypatch.setattr(sys, "platform", "linux")
    release_free_memory()  # a library without the call, as musl's is
    assert opened == [None]


@pytest.mark.parametrize(("told", "cores"), [(3, 3), (None, 1)])
def test_cores_are_those_of_the_machine_where_none_are_kept(monkeypatch, told, cores):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: told)
    assert progress.count_available_cores() == cores
