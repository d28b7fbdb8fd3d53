"""Tests of what measures memory, and in `make soak` the gates themselves."""

import sys
from pathlib import Path

import pytest
from memory import growth

from tests import children

pytestmark = pytest.mark.broad

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def ran(script, *words):
    """Run a benchmark in a process of its own; what it says stands in the log."""
    words = [sys.executable, BENCHMARKS / script, *words]
    said = {"stdout": None, "stderr": None}
    return children.run(words, timeout=children.SLOW_LIMIT_S, **said).returncode


@pytest.mark.slow
def test_semsr_enhance_keeps_below_its_gate():
    # A child's peak is no less than what its parent held when it was started, and the
    # tests before may have made this process large.
    assert ran("memory.py") == 0


@pytest.mark.slow
def test_memory_of_the_engine_is_flat_from_4096_to_32768():
    assert growth([4096, 32768]) == 0
