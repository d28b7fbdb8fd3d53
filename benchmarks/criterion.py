"""How the figure that chooses a checkpoint without a truth ranks beside the true gain.

Run: ``PYTHONPATH=benchmarks python benchmarks/criterion.py`` (ten to fifteen
minutes of one core for its trainings, three for the figures; the weights of each
checkpoint are kept in ``runs/criterion``).

The system that learns a blur without pairs on set A
(``recipes/tables/narrow/blur-a``) is trained three times, with its discriminators at
three weights, of which the largest teaches it to draw texture. Every hundredth step is
judged twice: by the truth of the held-out fields, and by `UnpairedValidator`, which
sees the degraded images of one half of the fields and the clear ones of the other half,
and the other way round.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from _shared import read_options
from scipy.stats import spearmanr

from napari_semsr.core import run
from napari_semsr.models import build_network
from napari_semsr.training import Recipe, load_recipe, train
from napari_semsr.training.cycle_gan import (
    EXPECTED_GAIN,
    UnpairedValidator,
    create_unpaired_fields,
)
from napari_semsr.training.run_folder import STATE
from napari_semsr.training.validation import Validator, collect_validation_fields

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "tables" / "narrow" / "blur-a.yaml"
ADVERSARIAL_WEIGHTS = (0.003, 0.1, 1.0)
STEPS, EVERY = 1000, 100
GOAL = 0.8
SIGNS = {EXPECTED_GAIN: 1, "spectrum_db": -1, "patches": -1}


def recipe_of(weight: float) -> Recipe:
    """Give the recipe at a weight of its discriminators."""
    recipe = load_recipe(RECIPE)
    return recipe.replace(
        name=f"criterion-{weight:g}",
        gan=recipe.gan.replace(adversarial_weight=weight),
        steps=STEPS,
        decay_steps=3 * STEPS // 10,
        validate_every=EVERY,
        minutes=None,
        workers=0,
    )


def checkpoints(recipe: Recipe, folder: Path) -> list[Path]:
    """Train in slices, and keep the mean weights of each."""
    made = []
    for step in range(EVERY, STEPS + 1, EVERY):
        path = folder / f"{step:05d}.pt"
        made.append(path)
        if path.exists():
            continue
        place = folder / "run"
        resume = (place / STATE).exists()
        run(
            train(
                recipe.replace(stop_after=step),
                place,
                resume=resume,
                overwrite=not resume,
            )
        )
        state = torch.load(place / STATE, map_location="cpu", weights_only=True)
        held = state["state_dict"]
        mean = {k: v for k, v in held.items() if k.startswith("averaged.")}
        torch.save({k.split(".", 1)[1]: v for k, v in mean.items()}, path)
    return made


def main() -> int:
    """Print the rows and the rank correlations; 1 if the goal is missed."""
    asked = read_options(__doc__, runs=ROOT / "runs" / "criterion")
    rows: list[dict[str, float]] = []
    for weight in ADVERSARIAL_WEIGHTS:
        recipe = recipe_of(weight)
        pairs = collect_validation_fields(recipe, 1)
        truth = Validator(pairs)
        blind = [UnpairedValidator(*each) for each in create_unpaired_fields(pairs)]
        for path in checkpoints(recipe, asked.runs / recipe.name):
            network = build_network(
                recipe.architecture, recipe.architecture_options
            ).eval()
            network.load_state_dict(torch.load(path, weights_only=True))
            found = [one.evaluate(network) for one in blind]
            row = {name: float(np.mean([f[name] for f in found])) for name in SIGNS}
            row["gain_db"] = truth.evaluate(network)["gain_db"]
            rows.append(row)
            told = ", ".join(f"{name} {value:.3f}" for name, value in row.items())
            print(f"{recipe.name}, {path.stem}: {told}", flush=True)
    gains = [row["gain_db"] for row in rows]
    ranks = {
        name: sign * float(spearmanr(gains, [row[name] for row in rows])[0])
        for name, sign in SIGNS.items()
    }
    for name, rank in ranks.items():
        print(f"{name}: Spearman {rank:+.3f} over {len(rows)} checkpoints")
    print(f"goal {GOAL}")
    return int(ranks[EXPECTED_GAIN] < GOAL)


if __name__ == "__main__":
    sys.exit(main())
