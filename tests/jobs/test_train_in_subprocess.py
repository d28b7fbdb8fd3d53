"""Training in a process of its own: it is followed, stopped, killed, and resumed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_semsr.core.errors import CheckpointError, DeviceMemoryError, SemsrError
from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.progress import run
from napari_semsr.jobs import PAIRS, OverwritePolicy
from napari_semsr.jobs.train_process import list_resume_values, train_in_subprocess
from napari_semsr.pairing.options import PairOptions
from napari_semsr.simulation.canvas import draw_phantom
from tests.children import LIMIT_S
from tests.refusals import refused, warned
from tests.tiny_models import list_train_values, write_tiny_recipe

READS = "import json, sys, time; asked = json.loads(sys.stdin.readline())\n"


@pytest.fixture
def request_of(tmp_path: Path) -> dict[str, object]:
    """An endless run of a tiny network."""
    high = draw_phantom("particles", (96, 96), seed=0)
    images = [Micrograph(part, name="field") for part in (np.roll(high, 1, 1), high)]
    store = tmp_path / "pairs.zarr"
    run(PAIRS.job(*images, store, options=PairOptions(patch=24, min_correlation=0)))
    write_tiny_recipe(
        tmp_path / "tiny.yaml",
        data={"pairs": "pairs.zarr"},
        steps=100_000,
        warmup_steps=None,
        decay_steps=None,
        validate_every=5,
    )
    return list_train_values(tmp_path / "tiny.yaml", tmp_path / "run")


class Children(list):
    script: str | None = None  # What they run in place of the training


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Children:
    """Note the processes that are started, and change what they run."""
    made, kind = Children(), subprocess.Popen

    def start(line, **options):
        if made.script is not None:
            line = [sys.executable, "-c", READS + made.script]
        made.append(kind(line, **options))
        return made[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return made


@pytest.fixture
def played(children: Children):
    def play(script: str) -> None:
        children.script = script

    return play


def _saved(folder: Path) -> int:
    state = torch.load(folder / "last.ckpt", weights_only=True)
    return int(state["global_step"])


@pytest.mark.slow
def test_killed_run_loses_at_most_one_interval_and_resumes(request_of, children):
    folder = Path(request_of["output"])
    job = train_in_subprocess(request_of)
    reached = next(step.done for step in job if step.done >= 8)
    os.kill(children[0].pid, signal.SIGKILL)
    with refused(DeviceMemoryError, "memory"):
        run(job)
    assert _saved(folder) >= reached // 5 * 5 >= 5
    assert (folder / "tiny.safetensors").is_file()
    begun = _saved(folder)
    job = train_in_subprocess(
        list_resume_values(folder), OverwritePolicy(resume=True), patience_s=LIMIT_S
    )
    first = next(step.done for step in job if step.done)
    job.close()
    assert first > begun
    assert _saved(folder) >= first


@pytest.mark.slow
def test_state_is_kept_when_the_viewer_dies(request_of, children):
    job = train_in_subprocess(request_of)
    reached = next(step for step in job if step.loss is not None)
    process = children[0]
    process.stdin.close()  # as the system does for a process that is gone
    assert process.wait(timeout=LIMIT_S) == 0
    assert _saved(Path(request_of["output"])) >= reached.done
    with refused(SemsrError, "interrupted"):
        run(job)


def test_steps_and_result_are_told(played):
    played(
        "for n in (1, 2, 3):\n"
        "    print(json.dumps({'step': [n, 3, 'loss', n / 2]}), flush=True)\n"
        "print(json.dumps({'warned': ['odd', 'odd-rate']}))\n"
        "name = asked['values']['name']\n"
        "record = dict(steps=3, validation={}, model=name, run_dir='r')\n"
        "print(json.dumps({'result': record}))"
    )
    seen = []
    with warned("odd-rate"):
        found = run(
            train_in_subprocess(list_train_values("a.yaml", "r", name="n")), seen.append
        )
    assert (found.steps, found.model) == (3, "n")
    assert seen[0].total == 0


def test_error_keeps_its_kind_and_its_sentence(played):
    failed = ["CheckpointError", "No such weights.", "weights-missing"]
    played(f"print(json.dumps({{'failed': {failed}}}))")
    with refused(CheckpointError, "weights-missing") as error:
        run(train_in_subprocess(list_train_values("a.yaml", "r")))
    assert error.value.code == "weights-missing"


def test_death_is_told_with_its_last_words(played):
    played("sys.exit('segments at fault')")
    with refused(SemsrError, "process-died", match=r" 1.: segments at fault\."):
        run(train_in_subprocess(list_train_values("a.yaml", "r")))


def test_deaf_process_is_killed(played, children):
    played(
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(json.dumps({'step': [1, 9, 'deaf', None]}), flush=True)\n"
        "time.sleep(600)"
    )
    job = train_in_subprocess(list_train_values("a.yaml", "r"), patience_s=0.2)
    assert next(step for step in job if step.done).message == "deaf"
    assert next(job).message == "deaf"  # it goes on telling while nothing is heard
    job.close()
    assert children[0].returncode == -signal.SIGKILL
