"""Runs in one folder: one at a time, and none that a kill leaves torn."""

import csv
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import napari_semsr as semsr
from tests import children
from tests.tiny_models import write_tiny_recipe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL"),
]
ROOT = Path(__file__).resolve().parents[2]
STEPS = 100_000  # that no machine comes to the end of


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Pairs, and a recipe that validates at each of its steps."""
    rng = np.random.default_rng(2)
    truth = rng.random((96, 96)).astype(np.float32)
    low = (truth + np.roll(truth, 1, 1)) / 2
    pairs = tmp_path / "pairs.zarr"
    semsr.pairs(low, truth, pairs, patch=24, min_correlation=0)
    data = {"pairs": str(pairs)}
    write_tiny_recipe(tmp_path / "tiny.yaml", steps=STEPS, data=data)
    return tmp_path


def line(place: Path, *more: str) -> tuple[list[object], dict[str, Any]]:
    """Words that train there, and their surroundings."""
    words = [sys.executable, "-m", "napari_semsr", "train", "tiny.yaml", "-o", "run"]
    path = os.pathsep.join([*sys.path[:1], os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}:{path}"}
    return [*words, *more], {"cwd": place, "env": env}


def steps_of(run: Path) -> list[int]:
    """Steps in the table of a run, none where there is no table yet."""
    curve = run / "curve.csv"
    if not curve.exists():
        return []
    rows = csv.DictReader(curve.read_text(encoding="utf-8").splitlines())
    return [int(row["step"]) for row in rows]


def wait_for(run: Path, count: int) -> None:
    """Wait until a run has written so many rows, and its state."""
    until = time.monotonic() + children.LIMIT_S
    while len(steps_of(run)) < count or not (run / "last.ckpt").exists():
        assert time.monotonic() < until, "nothing was written"
        time.sleep(0.01)


def test_a_second_run_is_refused_and_a_killed_one_goes_on(place: Path) -> None:
    run = place / "run"
    words, how = line(place)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with children.started(words, **how, **quiet) as first:
        wait_for(run, 2)
        for more in ("--overwrite", "--resume"):
            again, _ = line(place, more)
            done = children.run(again, **how)
            assert first.poll() is None, "the first run must still be there"
            assert done.returncode == 2, done.stderr
            assert "Another process is writing" in done.stderr
    assert steps_of(run) == list(range(1, len(steps_of(run)) + 1))
    rng = random.Random(5)  # noqa: S311
    for _ in range(2):  # at any moment
        again, _ = line(place, "--resume")
        with children.started(again, **how, **quiet):
            wait_for(run, len(steps_of(run)) + 1)
            time.sleep(rng.random() / 10)
        assert steps_of(run) == list(range(1, len(steps_of(run)) + 1))
    last = len(steps_of(run)) + 2
    done = children.run(line(place, "--resume", "--steps", str(last))[0], **how)
    assert done.returncode == 0, done.stderr
    assert steps_of(run) == list(range(1, last + 1))
    assert not list(place.glob(".held*"))
