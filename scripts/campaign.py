"""Train for hours in the background: ``python scripts/campaign.py start``.

``scripts/campaign.yaml`` lists recipes and the processor hours that their steps should
take. Each has one thread at the lowest priority, by turns (``--jobs 2``: two at once),
from a copy of the commit that it began with. Where a step takes longer here, the
schedule shrinks to the steps that the hours left allow, so that the learning rate has
fallen when they are spent. ``status`` tells figures, ``pause`` and ``resume`` stand
around timings, ``start`` goes on after ``stop`` or a kill. All lies in
``runs/campaign``; where that is lost, it goes on from what ``keep NAME`` wrote to
``benchmarks/campaign``.
"""

import argparse
import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[1]
FOLDER, KEPT = ROOT / "runs" / "campaign", ROOT / "benchmarks" / "campaign"
TURN_S = 900.0  # of processor time, after which the training with least has its turn
MIN_STEPS = 200  # of a turn, that tell how long one takes, its start included; chosen


def read(path: Path) -> Any:
    """Read a table of YAML or JSON; an empty one if there is none."""
    return yaml.safe_load(path.read_text()) if path.exists() else {}


class Training:
    """One entry of the list, its folder, and its process when it has its turn."""

    def __init__(self, recipe: str, hours: float) -> None:
        self.recipe, self.hours = ROOT / "recipes" / recipe, hours
        self.name = self.recipe.stem
        self.folder, self.kept = FOLDER / self.name, KEPT / self.name
        self.run = self.folder / "run"
        begun = {
            "steps": 0,
            "seconds": 0.0,
            "state": "waiting",
            "commit": "",
            "step_s": None,  # processor time of a step in its last turn
        }
        began = self.folder / "record.json"
        self.record = begun | read(began if began.exists() else self.kept / "kept.json")
        self.best, self.last = read(self.run / "best.yaml"), {"step": "0"}
        if (curve := self.run / "curve.csv").exists():
            self.last = [*csv.DictReader(curve.read_text().splitlines())][-1]

    def share(self) -> float:
        """Hours over those that it should take."""
        return float(self.record["seconds"] / 3600 / self.hours)

    def write(self, **changes: Any) -> None:
        """Keep what changed, in one step."""
        self.record |= changes
        beside = self.folder / "record.partial"
        beside.write_text(json.dumps(self.record))
        beside.replace(self.folder / "record.json")

    def start(self) -> None:
        """Start its process, from the commit that it began with."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.record["commit"]:
            head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT)
            self.write(commit=head.decode().strip())
        commit, settled = self.record["commit"], self.folder / "recipe.yaml"
        tree = FOLDER / "trees" / commit[:12]
        python = tree / ".venv" / "bin" / "python"
        if not python.with_name("semsr").exists():
            call = ["git", "worktree", "add", "--force", "--detach", tree, commit]
            subprocess.run(call, cwd=ROOT, check=not tree.exists())
            build = ["scripts/build_environment.sh", ".venv"]
            subprocess.run(build, cwd=tree, check=True)
        if not settled.exists():
            settled.write_text(self.settled())
        how = "--resume" if (self.run / "last.ckpt").exists() else "--overwrite"
        self.begun_at = self.step() if how == "--resume" else 0
        planned = self.folder / "planned.yaml"
        planned.write_text(self.planned(read(settled)))
        call = [python, "-m", "napari_semsr", "train", planned, "-o", self.run, how]
        with (self.folder / "log").open("ab" if self.begun_at else "wb") as log:
            self.process = subprocess.Popen(call, stdout=log, stderr=log)
        self.since = self.record["seconds"]

    def step(self) -> int:
        """Tell the last step that its log tells of."""
        log = self.folder / "log"
        told = re.findall(r"(\d+)/\d+ loss", log.read_text()) if log.exists() else ()
        return int(told[-1]) if told else 0

    def planned(self, recipe: dict[str, Any]) -> str:
        """Shrink the schedule of a settled recipe to what the hours left allow."""
        if self.record["step_s"]:
            left = max(0.0, 3600 * self.hours - self.record["seconds"])
            more = max(MIN_STEPS, int(left / self.record["step_s"]))
            steps = self.begun_at + more
            if steps < recipe["steps"]:
                falling = round(recipe["decay_steps"] * steps / recipe["steps"])
                recipe |= {"steps": steps, "decay_steps": falling}
        return yaml.safe_dump(recipe)

    def goes_on(self, turn_s: float) -> bool:
        """Count its hours, and tell whether it goes on."""
        used_s, code = self.used_s(), self.process.poll()
        killed = code is None or code < 0  # what was killed begins again
        state = "waiting" if killed else f"failed ({code})" if code else "ended"
        self.write(seconds=self.since + used_s, state=state)
        made = self.step() - self.begun_at
        if made >= MIN_STEPS:  # else what it takes to begin is most of it
            self.write(step_s=used_s / made)
        return code is None and used_s < turn_s

    def used_s(self) -> float:
        """Add up the processor time of its process, and of those that draw for it."""
        process, used_s = psutil.Process(self.process.pid), 0.0
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                used_s += sum(one.cpu_times()[:4])  # those that have ended, too
        return used_s

    def stop(self) -> None:
        """Let it save its state, and end."""
        self.process.terminate()  # also where interrupts are not heard
        self.process.wait()

    def settled(self) -> str:
        """Write the recipe with absolute paths; it begins with what is kept."""
        from napari_semsr.training import load_recipe

        recipe, done = load_recipe(self.recipe), self.record["steps"]
        plain, left = recipe.model_dump(mode="json"), max(1, recipe.steps - done)
        plain["data"]["bank_folder"] = str(self.run / "banks")
        if done:
            plain["start_from"] = str(self.kept / "last.safetensors")
            plain["gan"]["content_only_steps"] = 0
            plain |= {"steps": left, "decay_steps": min(recipe.decay_steps, left)}
            plain["seed"] += done  # other scenes and batches than before
        return yaml.safe_dump(plain)

    def keep(self) -> None:
        """Write the best and the last networks in 16 bits, and how far they are."""
        import torch

        from napari_semsr.models import load_model
        from napari_semsr.training.run_folder import NETWORKS

        files = {*self.run.glob("*.safetensors")} - {self.run / NETWORKS}
        made = load_model(files.pop())  # by its card's name
        state = torch.load(self.run / "last.ckpt", weights_only=True)
        steps = self.record["steps"] + state["global_step"]
        told = self.record | {"steps": steps, "best": self.best, "last": self.last}
        write_kept(self.kept, made, state["state_dict"], told)

    def status(self) -> str:
        """Say how far it is."""
        spent, step = self.record["seconds"] / 3600, int(self.last["step"])
        told = f"{self.name}: {self.record['state']}, {spent:.2f} of {self.hours:g} h, "
        told += f"judged at step {self.record['steps'] + step}"
        if (planned := read(self.folder / "planned.yaml")) and self.record["step_s"]:
            told += f" of {self.record['steps'] + planned['steps']}"
        for name in {"gain_db", "expected_gain_db"} & {*self.best}:
            told += f", {name} best {self.best[name]:+.3f}"
            if last := self.last.get(name):
                told += f" last {float(last):+.3f}"
        return told


def write_kept(folder: Path, best: Any, held: dict[str, Any], record: Any) -> None:
    """Write a best `LoadedModel`, the networks of a learner's state, and a record."""
    from napari_semsr.models import save_model

    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder / "best.safetensors", best.module, best.card, half=True)
    beside = {k: v for k, v in held.items() if k.startswith(("back.", "judges."))}
    mean = "averaged." if "averaged." in " ".join(held) else "network."
    last = {k.removeprefix(mean): v for k, v in held.items() if k.startswith(mean)}
    best.module.load_state_dict(last)
    file = folder / "last.safetensors"
    save_model(file, best.module, best.card, beside=beside, half=True)
    told = json.dumps({**record, "commit": ""}, indent=1) + "\n"
    (folder / "kept.json").write_text(told)


def work(trainings: list[Training], jobs: int) -> None:
    """Train by turns until all have done their steps."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.nice(19)
    os.environ["OMP_NUM_THREADS"] = "1"
    running: list[Training] = []
    try:
        while left := [t for t in trainings if t.record["state"] == "waiting"]:
            waiting = [t for t in left if t not in running]
            for one in sorted(waiting, key=Training.share)[: jobs - len(running)]:
                one.start()
                running.append(one)
            time.sleep(5)
            turn = TURN_S if len(left) > len(running) else 1e9
            for one in [t for t in running if not t.goes_on(turn)]:
                one.stop()
                running.remove(one)
    finally:
        for one in running:
            one.stop()


def main() -> None:
    """Do what was asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = "start", "status", "pause", "resume", "stop", "keep", "work"
    parser.add_argument("verb", choices=verbs)
    parser.add_argument("names", nargs="*", help="of the trainings; start: or all")
    parser.add_argument("--jobs", default="1", help="how many at once")
    given, file = parser.parse_args(), FOLDER / "pid"
    number = int(read(file) or 0)
    found = psutil.Process(number) if number and psutil.pid_exists(number) else None
    found = found if found and "work" in found.cmdline() else None  # another's number
    every = [Training(**entry) for entry in read(ROOT / "scripts" / "campaign.yaml")]
    named = [one for one in every if one.name in given.names]
    if unknown := {*given.names} - {one.name for one in every}:
        parser.error(f"no training is named {', '.join(sorted(unknown))}")
    if given.verb == "status":
        state = found.status() if found else "not running"
        print(f"campaign: {state}", *map(Training.status, every), sep="\n")
    elif given.verb == "keep":
        for one in named:
            one.keep()
    elif given.verb == "work":
        work(named or every, int(given.jobs))
    elif given.verb == "start" and not found:
        FOLDER.mkdir(parents=True, exist_ok=True)
        call = [sys.executable, __file__, "work", *given.names]
        call += ["--jobs", given.jobs]
        with (FOLDER / "log").open("ab") as log:
            made = subprocess.Popen(call, stdout=log, stderr=log, process_group=0)
        file.write_text(str(made.pid))
    elif found:  # its trainings are of its group
        paused = given.verb == "pause"
        os.killpg(number, signal.SIGSTOP if paused else signal.SIGCONT)
        if given.verb == "stop":
            found.terminate()
            found.wait()


if __name__ == "__main__":
    main()
