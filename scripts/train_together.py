"""Train several recipes at once on one machine, within given minutes.

A GPU is seldom filled by one network. Scenes of all recipes are made ahead, one bank
after another, and each training starts, in a process of its own, as soon as its scenes
are there. All end at the same time::

    python scripts/train_together.py --minutes 20 recipes/sem-*.yaml -o runs

What is in each folder is what ``semsr train`` leaves there.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from napari_semsr.core.progress import run
from napari_semsr.models.checkpoint import build
from napari_semsr.training.data.scene_cache import SceneCache
from napari_semsr.training.fit import train
from napari_semsr.training.recipe import load_recipe

LAST_SECONDS = 15.0  # for the last validation


def child(recipe: Path, folder: Path, until: float) -> None:
    """Train one recipe until a time of the clock."""
    left = max(until - time.time() - LAST_SECONDS, 1.0)
    asked = load_recipe(recipe).replace(minutes=left / 60)
    result = run(train(asked, folder, overwrite=True))
    figures = {k: round(v, 4) for k, v in result.validation.items()}
    print(f"{asked.name}: {result.steps} steps, best {figures}", flush=True)


def make_bank(recipe: Path) -> None:
    """Make the scenes of a recipe, if there are none."""
    asked = load_recipe(recipe)
    if not asked.data.bank:
        return
    network = build(asked.architecture, asked.architecture_options)
    scale = int(getattr(network, "scale", 1))
    SceneCache.open(asked, scale, lambda _done, _count: None)


def newest(folder: Path) -> str:
    """Give the last row of a run's curve."""
    try:
        rows = (folder / "curve.csv").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "no validation yet"
    return " ".join(
        f"{name}={value}"
        for name, value in zip(rows[0].split(","), rows[-1].split(","), strict=False)
        if name in ("step", "loss", "gain_db", "ssim") or name.startswith("gain_db_")
    )


def start(recipe: Path, folder: Path, until: float) -> subprocess.Popen[bytes]:
    """Start a training in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    log = (folder.parent / f"{folder.name}.log").open("wb")
    call = [sys.executable, __file__, "--child", str(recipe), "-o", str(folder)]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*call, "--until", f"{until:.1f}"],
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, **threads},
    )


def main() -> int:
    """Make the banks, start the trainings, and say now and then how they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--report-every", type=float, default=60.0, metavar="S")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        child(given.child, given.output, given.until)
        return 0
    began, until = time.monotonic(), time.time() + 60 * given.minutes
    runs: dict[str, subprocess.Popen[bytes]] = {}
    for recipe in given.recipes:
        make_bank(recipe)
        spent = (time.monotonic() - began) / 60
        print(f"{spent:5.1f} min: scenes of {recipe.stem} are there", flush=True)
        folder = given.output / recipe.stem
        runs[recipe.stem] = start(recipe, folder, until)
    while any(process.poll() is None for process in runs.values()):
        time.sleep(given.report_every)
        print(f"{(time.monotonic() - began) / 60:5.1f} min", flush=True)
        for name in runs:
            print(f"  {name}: {newest(given.output / name)}", flush=True)
    failed = [name for name, process in runs.items() if process.returncode]
    for name in failed:
        log = (given.output / f"{name}.log").read_text(errors="replace")
        print(f"{name} failed:\n{log[-1500:]}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
