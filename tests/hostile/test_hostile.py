"""Damaged files and lines of every kind: refused in a sentence, or taken.

``make soak`` gives each kind thousands, in a process of its own whose memory is bounded
and which ends where an input takes too long (``python -m tests.hostile``).
"""

import os
import sys
import time
from pathlib import Path

import pytest

from tests import children
from tests.hostile.cases import CASES, is_verb, lacking, longest_of
from tests.hostile.play import play

ROOT = Path(__file__).resolve().parents[2]
FEW, MANY = 25, 5000  # of files; of the lines of each verb:
FEW_LINES, MANY_LINES = 2, 500
SLOW = {"hdf5": 10}  # a process for each file
SMOKE = ("png", "transform", "semsr-convert")  # one of each kind, in the quick tests


def count_of(name: str, files: int, lines: int) -> int:
    return lines if is_verb(name) else files // SLOW.get(name, 1)


def skip_unless_installed(name: str) -> None:
    why = lacking(name)
    if why is not None:
        pytest.skip(why)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in SMOKE else pytest.mark.broad)
        for name in CASES
    ],
)
def test_damage_is_refused_in_a_sentence_or_taken(name, tmp_path, monkeypatch):
    skip_unless_installed(name)
    monkeypatch.setenv("SEMSR_MODELS", str(tmp_path / "shelf"))
    outcome = play(
        CASES[name],
        tmp_path,
        count_of(name, FEW, FEW_LINES),
        longest_s=longest_of(name),
    )
    assert not outcome.findings, outcome.findings[0]


@pytest.mark.slow
@pytest.mark.timeout(children.SLOW_LIMIT_S)
@pytest.mark.parametrize("name", CASES)
def test_much_damage_is_refused_in_bounded_memory(name):
    skip_unless_installed(name)
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


class Idle:
    """Takes processor time for nothing."""

    name = "idle"

    def prepare(self, folder):
        pass

    def attempt(self, whole, folder, rng):
        begun = time.process_time()
        while time.process_time() < begun + 0.1:
            pass


@pytest.mark.broad
def test_an_input_that_takes_too_long_is_a_finding(tmp_path):
    slow = play(Idle(), tmp_path, 2, longest_s=0.02)
    assert [told.partition(" s ")[0] for told in slow.findings] == [
        "idle 0: took 0.1",
        "idle 1: took 0.1",
    ]
    assert not play(Idle(), tmp_path, 1, longest_s=None).findings
