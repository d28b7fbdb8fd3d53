"""What is trained for the tables: recipes, their short forms, and their minutes.

On a GPU the recipes of ``recipes/tables`` are run as they are. Without one, the files
of the same name in ``recipes/tables/narrow`` stand in their place: each includes the
full recipe and says which numbers are smaller. `NARROW_ONLY` are there in that form
alone. The minutes that all of them may take are shared out by `WEIGHTS`.
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
    *("gao-a", "gao-b", "gao-c", "kernel-a", "sun", "cycle-gan-ssum", "pix2pix-ssum"),
    *("srgan-ssum", "esrgan-ssum", "espcn-ssum", "vdsr-ssum", "edsr-ssum", "wang"),
    *("wang-attention", "de-haan-gold", "gold-real"),
)
GOLD_PAIRS = RUNS / "gold-real.zarr"
"""Where the recipe of `gold-real` has its pairs."""
NARROW_ONLY = ("blur-a", "blur-b", "blur-c")
"""Gao's sets learnt unpaired, a learnt blur in place of the second generator."""
EDGE_WEIGHTS = (0, 1, 5, 10, 20)
"""Weights of the edge loss that are compared on set A, as in Gao's figure 5."""
EDGE_OPERATORS = ("prewitt", "kirsch")
"""What finds edges in place of Sobel's operator, at `EDGE_WEIGHT`."""
EDGE_WEIGHT = 10  # the paper's, and one of the sweep: that run has Sobel's operator
WEIGHTS = {
    "gao-a": 3.0,
    "blur-a": 2.0,
    "blur-b": 1.5,
    "blur-c": 1.5,
    "sun": 2.0,
    "cycle-gan-ssum": 1.5,
    "de-haan-gold": 3.0,
}
"""Shares of the minutes, most runs have 1: more where more was learnt by it."""
ABLATION_WEIGHT = 0.25
BY_STEPS = ("wang", "wang-attention")
"""Compared at equal steps: these take the recipe's, and no minutes."""
_BASE = "gao-a"


@dataclass(frozen=True, slots=True)
class Planned:
    """One training."""

    name: str  # of the run and its model
    path: Path
    edge_weight: float | None  # in place of the recipe's
    weight: float  # share of the minutes of all
    narrow: bool  # whether it is the short form
    edge_operator: str | None = None  # in place of the recipe's

    def recipe(self) -> Recipe:
        """Read the recipe, and change what is to be compared."""
        recipe = load_recipe(self.path).replace(name=self.name)
        banks = recipe.data.bank_folder or str(BANKS)
        recipe = recipe.replace(data=recipe.data.replace(bank_folder=banks))
        if self.edge_weight is None:
            return recipe
        minutes, gan = recipe.minutes, recipe.gan
        return recipe.replace(
            gan=gan.replace(
                edge_weight=self.edge_weight,
                edge_operator=self.edge_operator or gan.edge_operator,
            ),
            minutes=None if minutes is None else minutes * self.weight,
        )


def plan(*, narrow: bool, only: tuple[str, ...] = ()) -> list[Planned]:
    """List the trainings."""
    folder = NARROW if narrow else FOLDER
    found = [
        Planned(name, folder / f"{name}.yaml", None, WEIGHTS.get(name, 1.0), narrow)
        for name in (*RECIPES, *(NARROW_ONLY if narrow else ()))
    ]
    weights = [(edge_run(w), float(w), None) for w in EDGE_WEIGHTS]
    operators = [(edge_run(o), float(EDGE_WEIGHT), o) for o in EDGE_OPERATORS]
    base = folder / f"{_BASE}.yaml"
    found += [
        Planned(name, base, weight, ABLATION_WEIGHT, narrow, operator)
        for name, weight, operator in (*weights, *operators)
    ]
    return [p for p in found if not only or p.name.startswith(only)]


def edge_run(changed: float | str) -> str:
    """Name the run of a weight of the edge loss, or of another operator."""
    return f"{_BASE}-edge-{changed}"


def before_adversary(record: dict[str, Any]) -> bool:
    """Say whether a run's best state is from before its discriminators had a say.

    Such a state tests nothing of what the run is to show, so it is not judged.
    """
    name = str(record.get("name", ""))
    if name.startswith(edge_run("")):
        name = _BASE
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


def key_of(
    planned: Planned, minutes: float | None, steps_before: int | None = None
) -> str:
    """Name what decides a training: two with one key need not be done twice."""
    plain: dict[str, Any] = planned.recipe().model_dump(
        mode="json", exclude={"workers": True, "data": {"root", "bank_folder"}}
    )
    if planned.name in BY_STEPS:
        minutes = None
    what: list[Any] = [plain, planned.weight, minutes]
    if steps_before is not None:
        what.append(steps_before)
    told = json.dumps(what, sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]
