"""Train for hours in the background, beside other work.

``recipes/campaign.yaml`` lists recipes and processor hours. Each training takes one
thread at the lowest priority, by turns; each begins from a copy of the commit that was
there then, with an environment of its own, which later changes do not disturb::

    python scripts/campaign.py start [--jobs 2]  # goes on where it was stopped
    python scripts/campaign.py status            # hours, steps, figures
    python scripts/campaign.py pause             # around timings and tests, and
    python scripts/campaign.py resume
    python scripts/campaign.py stop
    python scripts/campaign.py keep NAME         # halfway and at the end

All is in ``runs/campaign``, which git ignores. ``keep`` writes the networks of a run to
``benchmarks/campaign``, in 16 bits, to be committed: where the folder is lost, a
training goes on from there, with the steps that are left.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "runs" / "campaign"
KEPT = ROOT / "benchmarks" / "campaign"
LIST = ROOT / "recipes" / "campaign.yaml"
TURN_S = 1200.0  # of processor time, after which another training has its turn
LOOK_S = 5.0


def read(path: Path) -> dict[str, Any]:
    """Read a record; an empty one if there is none."""
    with suppress(OSError, ValueError):
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return {}


class Training:
    """One recipe of the list and its folder."""

    def __init__(self, recipe: str, hours: float) -> None:
        self.recipe, self.budget_s = ROOT / "recipes" / recipe, 3600 * hours
        self.name = self.recipe.stem
        self.folder, self.kept = FOLDER / self.name, KEPT / self.name
        self.run = self.folder / "run"
        self.record = read(self.folder / "record.json") or {
            "commit": None,
            "ended": False,
        }
        self.before = read(self.kept / "kept.json") or {"steps": 0, "seconds": 0.0}
        self.record.setdefault("seconds", self.before["seconds"])

    @property
    def share(self) -> float:
        """Hours spent over those that it may take; 1 at the end of its steps."""
        spent = float(self.record["seconds"]) / self.budget_s
        return max(1.0, spent) if self.record["ended"] else spent

    def write(self, **changes: Any) -> None:
        """Keep what changed."""
        self.record |= changes
        beside = self.folder / "record.partial"
        beside.write_text(json.dumps(self.record), encoding="utf-8")
        beside.replace(self.folder / "record.json")

    def start(self) -> subprocess.Popen[bytes]:
        """Start its process, from the commit that it began with."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.record["commit"] is None:
            head = subprocess.check_output(
                ["git", "rev-parse", "HEAD"], cwd=ROOT, text=True
            )
            self.write(commit=head.strip())
        tree = frozen(self.record["commit"])
        python = [tree / ".venv" / "bin" / "python"]
        settled = self.folder / "recipe.yaml"
        surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        if not settled.exists():
            call = [*python, __file__, "settle", self.name]
            subprocess.run(call, env=surroundings, check=True)
        how = "--resume" if (self.run / "last.ckpt").exists() else "--overwrite"
        call = [*python, "-m", "napari_semsr", "train", settled, "-o", self.run, how]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                ["nice", "-n", "19", *map(str, call)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=surroundings,
                cwd=tree,
            )

    def settle(self) -> None:
        """Write the recipe with absolute paths; it begins with what is kept."""
        from napari_semsr.training import load_recipe

        recipe = load_recipe(self.recipe)
        recipe = recipe.replace(
            data=recipe.data.replace(bank_folder=str(FOLDER / "banks"))
        )
        if done := int(self.before["steps"]):
            left = max(1, recipe.steps - done)
            recipe = recipe.replace(
                start_from=str(self.kept / "last.safetensors"),
                gan=recipe.gan.replace(content_only_steps=0),
                steps=left,
                warmup_steps=min(recipe.warmup_steps, 100),
                decay_steps=min(recipe.decay_steps, left),
                seed=recipe.seed + done,  # other scenes and batches than before
            )
        text = yaml.safe_dump(recipe.model_dump(mode="json"))
        (self.folder / "recipe.yaml").write_text(text, encoding="utf-8")

    def rows(self) -> list[dict[str, str]]:
        """Read the curve."""
        with (
            suppress(OSError),
            (self.run / "curve.csv").open(encoding="utf-8") as stream,
        ):
            return list(csv.DictReader(stream))
        return []

    def keep(self) -> None:
        """Write the last and the best networks in 16 bits, and how far they are."""
        import torch
        from safetensors.torch import load_file

        from napari_semsr.models import load_model, save_model

        self.kept.mkdir(parents=True, exist_ok=True)
        best = load_model(self.run / f"{self.name}.safetensors")
        beside = self.run / "networks.safetensors"
        others = load_file(beside) if beside.exists() else None
        save_model(
            self.kept / "best.safetensors",
            best.module,
            best.card,
            beside=others,
            half=True,
        )
        state = torch.load(
            self.run / "last.ckpt", weights_only=True, map_location="cpu"
        )
        held, step = state["state_dict"], int(state["global_step"])
        parts = {
            name: within(held, name)
            for name in ("network.", "averaged.", "back.", "judges.")
        }
        best.module.load_state_dict(parts["averaged."] or parts["network."])
        others = {n + k: v for n in ("back.", "judges.") for k, v in parts[n].items()}
        card = best.card.model_copy(
            update={"training": {**best.card.training, "validation": {}}}
        )
        save_model(
            self.kept / "last.safetensors",
            best.module,
            card,
            beside=others or None,
            half=True,
        )
        done = {
            "steps": int(self.before["steps"]) + step,
            "seconds": self.record["seconds"],
        }
        done |= {"commit": self.record["commit"], "best": self.best()}
        (self.kept / "kept.json").write_text(
            json.dumps(done, indent=1) + "\n", encoding="utf-8"
        )

    def best(self) -> dict[str, float]:
        """Read the figures of the best model."""
        with suppress(OSError, yaml.YAMLError):
            return dict(
                yaml.safe_load((self.run / "best.yaml").read_text(encoding="utf-8"))
            )
        return {}

    def status(self) -> str:
        """Say how far it is."""
        rows, best = self.rows(), self.best()
        figure = next((n for n in ("gain_db", "expected_gain_db") if n in best), None)
        last = rows[-1] if rows else {}
        spent, most = self.record["seconds"] / 3600, self.budget_s / 3600
        told = f"{self.name}: {spent:.2f} of {most:g} h"
        told += f", {int(self.before['steps']) + int(last.get('step', 0))} steps judged"
        if figure:
            told += (
                f", {figure} best {best[figure]:+.3f}, last {float(last[figure]):+.3f}"
            )
        return told + (" (ended)" if self.record["ended"] else "")


def within(held: dict[str, Any], name: str) -> dict[str, Any]:
    """Give the weights of one part of a state, by their names there."""
    return {k.removeprefix(name): v for k, v in held.items() if k.startswith(name)}


def frozen(commit: str) -> Path:
    """Make a copy of a commit with an environment of its own, if there is none."""
    tree = FOLDER / "trees" / commit[:12]
    if not (tree / ".venv" / "bin" / "semsr").exists():
        subprocess.run(["git", "worktree", "prune"], cwd=ROOT, check=True)
        if not tree.exists():
            add = ["git", "worktree", "add", "--quiet", "--detach", str(tree), commit]
            subprocess.run(add, cwd=ROOT, check=True)
        subprocess.run(["scripts/build_environment.sh", ".venv"], cwd=tree, check=True)
    return tree


def trainings() -> list[Training]:
    """Read the list."""
    return [
        Training(**entry) for entry in yaml.safe_load(LIST.read_text(encoding="utf-8"))
    ]


class Running:
    """A training whose turn it is."""

    def __init__(self, training: Training) -> None:
        self.training, self.process = training, training.start()
        self.before_s = training.record["seconds"]
        self.used_s = 0.0

    def look(self) -> bool:
        """Count the hours; tell whether it goes on."""
        times = psutil.Process(self.process.pid).cpu_times()
        self.used_s = times.user + times.system
        code = self.process.poll()
        told = {} if code in (None, 0) else {"failed": code}
        self.training.write(
            seconds=self.before_s + self.used_s, ended=code is not None, **told
        )
        return code is None

    def stop(self) -> None:
        """Let it save its state, and end."""
        if self.look():
            self.process.send_signal(signal.SIGINT)
            self.process.wait()


def work(jobs: int) -> None:
    """Train by turns until all hours are spent."""
    running: dict[str, Running] = {}
    try:
        while True:
            every = trainings()
            waiting = [t for t in every if t.share < 1 and t.name not in running]
            for one in sorted(waiting, key=lambda t: t.share)[: jobs - len(running)]:
                running[one.name] = Running(one)
            if not running:
                return
            time.sleep(LOOK_S)
            for name, one in list(running.items()):
                if not one.look():
                    del running[name]
                elif one.training.share >= 1 or (waiting and one.used_s > TURN_S):
                    one.stop()
                    del running[name]
    finally:
        for one in running.values():
            one.stop()


def manager() -> psutil.Process | None:
    """Find the process that does the work."""
    with suppress(OSError, ValueError, psutil.Error):
        found = psutil.Process(int((FOLDER / "pid").read_text(encoding="utf-8")))
        return found if "campaign.py" in " ".join(found.cmdline()) else None
    return None


def begin(jobs: int) -> None:
    """Start the work in the background, in a group of processes of its own."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    call = [sys.executable, __file__, "work", "--jobs", str(jobs)]
    with (FOLDER / "log").open("ab") as log:
        made = subprocess.Popen(
            call,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (FOLDER / "pid").write_text(str(made.pid), encoding="utf-8")


def main() -> int:
    """Do what was asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = "start", "status", "pause", "resume", "stop", "keep", "settle", "work"
    parser.add_argument("verb", choices=verbs)
    parser.add_argument("names", nargs="*", help="of trainings, for keep")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once")
    given = parser.parse_args()
    named = [t for t in trainings() if t.name in given.names]
    at_work = manager()
    if given.verb == "start" and at_work is None:
        begin(given.jobs)
    elif given.verb == "status":
        state = "not running" if at_work is None else at_work.status()
        print(f"campaign: {state}", *(t.status() for t in trainings()), sep="\n")
    elif given.verb in ("pause", "resume", "stop") and at_work is not None:
        if given.verb != "pause":
            os.killpg(at_work.pid, signal.SIGCONT)
        if given.verb == "pause":
            os.killpg(at_work.pid, signal.SIGSTOP)
        if given.verb == "stop":
            at_work.terminate()
            at_work.wait()
    elif given.verb == "work":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        work(given.jobs)
    for one in named:
        {"keep": one.keep, "settle": one.settle}[given.verb]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
