"""Damaged files and lines of every kind: refused in a sentence, or taken.

``make soak`` gives each kind thousands, in a process of its own whose memory is bounded
and which ends where an input takes too long (``python -m tests.hostile``).
"""

import os
import sys
from pathlib import Path

import pytest

from tests import children
from tests.hostile.cases import CASES
from tests.hostile.commands import Commands
from tests.hostile.play import play

ROOT = Path(__file__).resolve().parents[2]
FEW, MANY = 25, 5000  # of files; of the lines of each verb:
FEW_LINES, MANY_LINES = 2, 500
SLOW = {"hdf5": 10}  # a process for each file


def is_verb(name: str) -> bool:
    return isinstance(CASES[name], Commands)


def count_of(name: str, files: int, lines: int) -> int:
    return lines if is_verb(name) else files // SLOW.get(name, 1)


@pytest.mark.parametrize("name", CASES)
def test_damage_is_refused_in_a_sentence_or_taken(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMSR_MODELS", str(tmp_path / "shelf"))
    outcome = play(CASES[name], tmp_path, count_of(name, FEW, FEW_LINES))
    assert not outcome.findings, outcome.findings[0]


@pytest.mark.slow
@pytest.mark.timeout(children.SLOW_LIMIT_S)
@pytest.mark.parametrize("name", CASES)
def test_much_damage_is_refused_in_bounded_memory(name):
    count = count_of(name, MANY, MANY_LINES)
    words = [sys.executable, "-m", "tests.hostile", name, "--count", count]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = children.run(
        words,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        timeout=children.SLOW_LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-5000:]
