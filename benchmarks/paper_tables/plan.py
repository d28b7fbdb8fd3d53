"""What is trained for the tables: recipes, their short forms, and their minutes.

On a GPU the recipes of ``recipes/tables`` are run as they are. Without one, the files
of the same name in ``recipes/tables/narrow`` stand in their place: each includes the
full recipe and says which numbers are smaller. The minutes that all of them may take
are shared out by `WEIGHTS`.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_semsr.training import Recipe, load_recipe

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "recipes" / "tables"
NARROW = FOLDER / "narrow"
RUNS = ROOT / "runs" / "tables"
BANKS = ROOT / "runs" / "banks"  # of scenes, which trainings share

RECIPES = (
    *("gao-a", "gao-b", "gao-c", "sun", "pix2pix-ssum", "srgan-ssum"),
    *("wang", "wang-attention", "de-haan-gold", "gold-real"),
)
GOLD_PAIRS = RUNS / "gold-real.zarr"
"""Where the recipe of `gold-real` has its pairs."""
WEIGHTS = {"gao-a": 3.0, "sun": 2.0, "de-haan-gold": 3.0}
"""Shares of the minutes, most runs have 1: more where more was learnt by it."""
BY_STEPS = ("wang", "wang-attention")
"""Compared at equal steps: these take the recipe's, and no minutes."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One training."""

    name: str  # of the run and its model
    path: Path
    weight: float  # share of the minutes of all
    narrow: bool  # whether it is the short form

    def recipe(self) -> Recipe:
        """Read the recipe; its scenes are those of all."""
        recipe = load_recipe(self.path).replace(name=self.name)
        banks = recipe.data.bank_folder or str(BANKS)
        return recipe.replace(data=recipe.data.replace(bank_folder=banks))


def plan(*, narrow: bool, only: tuple[str, ...] = ()) -> list[Planned]:
    """List the trainings."""
    folder = NARROW if narrow else FOLDER
    found = [
        Planned(name, folder / f"{name}.yaml", WEIGHTS.get(name, 1.0), narrow)
        for name in RECIPES
    ]
    return [p for p in found if not only or p.name.startswith(only)]


def before_adversary(record: dict[str, Any]) -> bool:
    """Say whether a run's best state is from before its discriminators had a say.

    Such a state tests nothing of what the run is to show, so it is not judged.
    """
    name = str(record.get("name", ""))
    path = (NARROW if record.get("narrow") else FOLDER) / f"{name}.yaml"
    step = record.get("validation", {}).get("step")
    if step is None or not path.exists():
        return False
    return bool(step <= load_recipe(path).gan.content_only_steps)


def shared_out(planned: list[Planned], minutes: float, jobs: int) -> dict[str, float]:
    """Share out the minutes of the clock among trainings, `jobs` of them at a time.

    Minutes of each by name, but of those that go by steps. The last to start may have
    to wait, so that the whole can take as long as the longest more.
    """
    whole = sum(p.weight for p in planned)
    at_once = min(jobs, len(planned))
    return {
        p.name: minutes * at_once * p.weight / whole
        for p in planned
        if p.name not in BY_STEPS
    }


def key_of(planned: Planned, minutes: float | None) -> str:
    """Name what decides a training: two with one key need not be done twice."""
    plain: dict[str, Any] = planned.recipe().model_dump(
        mode="json", exclude={"workers": True, "data": {"root", "bank_folder"}}
    )
    if planned.name in BY_STEPS:
        minutes = None
    told = json.dumps([plain, planned.weight, minutes], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]
