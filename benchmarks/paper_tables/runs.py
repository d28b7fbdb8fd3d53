"""Train what is planned, several at a time, each in a process of its own, resumable.

A run's folder holds what ``semsr train`` leaves there, ``asked.json`` (what was asked)
and, once it is over, ``finished.json`` (how long it took, on what). A finished run of
the same recipe and the same minutes is not trained again; an interrupted one goes on
from its last validation.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_semsr.core import run
from napari_semsr.models import build_network, load_model
from napari_semsr.training import train
from napari_semsr.training.batches import SceneCache
from napari_semsr.training.run_folder import STATE
from paper_tables.plan import Planned, key_of, shared_out

Say = Callable[[str], None]
ASKED, FINISHED = "asked.json", "finished.json"
START_MINUTES = 0.25  # of a process, until its clock runs, and after its last step
MIN_MINUTES = 0.02
_SECOND = 60.0


def finished(folder: Path, key: str | None = None) -> dict[str, Any] | None:
    """Read how a run went; None if it is not over, or was another one's."""
    record = _read(folder / FINISHED)
    if record is None or (key is not None and record["key"] != key):
        return None
    return record


def _read(path: Path) -> dict[str, Any] | None:
    """Read a JSON file; None if it is not there."""
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else None


def train_one(planned: Planned, folder: Path) -> dict[str, Any]:
    """Train one recipe as its folder's ``asked.json`` says, or go on.

    Steps, seconds, device, threads, weights, and figures on validation fields.
    """
    import torch

    asked = _read(folder / ASKED) or {"key": key_of(planned, None)}
    recipe = planned.recipe()
    if asked.get("minutes") is not None:
        recipe = recipe.replace(minutes=asked["minutes"])
    resume = (folder / STATE).exists()
    began = time.monotonic()
    where = {"bank_folder": recipe.data.bank_folder}  # which all tables share
    result = run(train(recipe, folder, resume=resume, overwrite=not resume, **where))
    spent = (time.monotonic() - began) / _SECOND
    module = load_model(result.model).module
    gpu = torch.cuda.is_available()
    record = {
        "key": asked["key"],
        "name": planned.name,
        "narrow": planned.narrow,
        "steps": result.steps,
        "minutes": recipe.minutes or spent,
        "device": torch.cuda.get_device_name() if gpu else "CPU",
        "threads": None if gpu else torch.get_num_threads(),
        "weights": sum(p.numel() for p in module.parameters()),
        "architecture": recipe.architecture,
        "options": recipe.architecture_options,
        "batch": recipe.batch,
        "patch_px": recipe.data.patch_px,
        "scenes": recipe.data.bank,
        "validation": {k: round(v, 4) for k, v in result.validation.items()},
    }
    (folder / FINISHED).write_text(json.dumps(record, indent=1), encoding="utf-8")
    (folder / STATE).unlink(missing_ok=True)
    return record


def train_all(
    planned: list[Planned],
    runs: Path,
    *,
    minutes: float | None,
    jobs: int,
    say: Say,
) -> list[str]:
    """Train what is not yet trained."""
    keys = {p.name: key_of(p, minutes) for p in planned}
    left = [p for p in planned if finished(runs / p.name, keys[p.name]) is None]
    for p in planned:
        if p not in left:
            say(f"{p.name} is there already")
    began = time.monotonic()
    fresh = [p for p in left if not _begun(runs / p.name, keys[p.name])]
    for p in fresh:
        make_scenes(p, say)
    spent = (time.monotonic() - began) / _SECOND
    shares: dict[str, float] = {}
    if minutes is not None:
        shares = shared_out(fresh, max(minutes - spent, 0.0), jobs)
    for p in fresh:
        share = shares.get(p.name)
        if share is not None:
            share = max(share - START_MINUTES, MIN_MINUTES)
        _ask(runs / p.name, keys[p.name], share)
    order = sorted(left, key=lambda p: -p.weight)
    return in_processes(order, runs, keys, jobs, say)


def _begun(folder: Path, key: str) -> bool:
    """Tell whether a run of this key was interrupted after a validation."""
    asked = _read(folder / ASKED)
    return asked is not None and asked["key"] == key and (folder / STATE).exists()


def _ask(folder: Path, key: str, minutes: float | None) -> None:
    """Write down what is asked, and clear the folder of another run's state."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (STATE, FINISHED):
        (folder / name).unlink(missing_ok=True)
    asked = json.dumps({"key": key, "minutes": minutes})
    (folder / ASKED).write_text(asked, encoding="utf-8")


def make_scenes(planned: Planned, say: Say) -> None:
    """Make the scenes that a recipe learns from, if there are none."""
    recipe = planned.recipe()
    if not recipe.data.bank:
        return
    network = build_network(recipe.architecture, recipe.architecture_options)
    began = time.monotonic()
    SceneCache.open(
        recipe, int(getattr(network, "scale", 1)), lambda _done, _count: None
    )
    took = time.monotonic() - began
    if took > 1:
        say(f"made {recipe.data.bank} scenes for {planned.name} in {took:.0f} s")


def in_processes(
    planned: list[Planned],
    runs: Path,
    keys: dict[str, str],
    jobs: int,
    say: Say,
) -> list[str]:
    """Run trainings in processes, `jobs` at a time; give the names of failed ones."""
    waiting, running, failed = list(planned), dict[str, subprocess.Popen[bytes]](), []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                p = waiting.pop(0)
                running[p.name] = _start(p, runs)
            time.sleep(0.2)
            for name in [n for n, p in running.items() if p.poll() is not None]:
                code = running.pop(name).returncode
                record = finished(runs / name, keys[name])
                if code or record is None:
                    failed.append(name)
                    log = (runs / f"{name}.log").read_text(errors="replace")
                    say(f"{name} failed:\n{log[-1500:]}")
                else:
                    say(f"{name}: {record['steps']} steps, {record['validation']}")
    finally:
        for process in running.values():
            process.terminate()
    return failed


def _start(planned: Planned, runs: Path) -> subprocess.Popen[bytes]:
    """Start one training, with one thread for its arithmetic."""
    call = [sys.executable, "-m", "paper_tables", "one", planned.name]
    call += ["--runs", str(runs), "--narrow" if planned.narrow else "--full"]
    here = str(Path(__file__).parents[1])
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(
            part for part in (here, os.environ.get("PYTHONPATH")) if part
        ),
    }
    with (runs / f"{planned.name}.log").open("wb") as log:
        return subprocess.Popen(call, stdout=log, stderr=subprocess.STDOUT, env=env)
