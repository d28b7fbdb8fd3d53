"""Train a model from a recipe, in a folder that keeps what is needed to go on."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_semsr.core.errors import OptionError
from napari_semsr.core.progress import Job, Progress
from napari_semsr.pairs.store import open_pairs
from napari_semsr.services.recipe_list import RECIPES, find_recipe
from napari_semsr.services.results import Result, jsonable
from napari_semsr.services.shelf import find_model
from napari_semsr.services.targets import check_not_input, check_target_folder

if TYPE_CHECKING:
    from napari_semsr.training.recipes import Recipe

__all__ = ["Trained", "train"]

_LEAST_PAIRS = 2


@dataclass(frozen=True, slots=True)
class Trained(Result):
    """What a training run came to.

    Attributes
    ----------
    steps : int
        Optimiser steps done, those before a resume included.
    validation : object
        Figures on images that were held out.
    model : str
        Path of the best model.
    run_dir : str
        Folder of the run.
    """

    steps: int
    validation: Any
    model: str
    run_dir: str


def train(
    recipe: str | os.PathLike[str],
    run_dir: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    pairs: str | os.PathLike[str] | None = None,
    start_from: str | os.PathLike[str] | None = None,
    steps: int | None = None,
    name: str | None = None,
    patch: int | None = None,
    anew: bool = False,
) -> Job[Trained]:
    """Train a model.

    Parameters
    ----------
    recipe : path or str
        A YAML file that names architecture, data, losses and schedule, or the name of
        a recipe that comes with the package.
    run_dir : path
        Folder for checkpoints, log and model.
    resume : bool, default=False
        Go on from the last checkpoint in the folder.
    overwrite : bool, default=False
        Start anew in a folder that holds something.
    pairs : path, optional
        Store of pairs to learn from, in place of the recipe's images.
    start_from : path or str, optional
        Model file, or name of a model on the shelf, in place of the recipe's.
    steps : int, optional
        Optimiser steps in place of the recipe's; its schedule is stretched.
    name : str, optional
        Name of the model in place of the recipe's.
    patch : int, optional
        Side in pixels of the patches to learn from, in place of the recipe's.
    anew : bool, default=False
        Begin with fresh weights although the recipe names a model; its network is
        kept.

    Returns
    -------
    Trained
        Steps, held-out figures, and the model's path.

    Yields
    ------
    Progress
        Steps of the optimiser.

    Raises
    ------
    ReadError, OptionError, WriteError
        If the recipe or its pairs cannot be used, or the folder holds another run.
    """
    path = find_recipe(recipe)
    yield Progress(0, 0, f"reading {path.name}")
    if resume and overwrite:
        msg = "Give --resume to go on or --overwrite to start anew, not both."
        raise OptionError(msg)
    if anew and start_from is not None:
        msg = "Give --start-from to begin with a model or --anew for none, not both."
        raise OptionError(msg)
    if pairs is None and path.parent == RECIPES:
        msg = f"The recipe {path.stem} of the package learns from pairs; give --pairs."
        raise OptionError(msg)
    # The loop looks inside.
    folder = check_target_folder(run_dir, overwrite=True, parents=True)
    from napari_semsr.training import recipes

    changes = {"pairs": pairs, "start_from": start_from, "steps": steps, "name": name}
    plan = _changed(recipes.load_recipe(path), {**changes, "patch": patch}, anew=anew)
    if plan.data.pairs is not None:
        check_not_input(folder, [plan.data.pairs])
        _check_pairs(Path(plan.data.pairs))
    from napari_semsr.training import loop

    found = yield from loop.train(plan, folder, resume=resume, overwrite=overwrite)
    return Trained(
        steps=found.steps,
        validation=jsonable(found.validation),
        model=str(found.model),
        run_dir=str(folder),
    )


def _changed(plan: "Recipe", changes: dict[str, Any], *, anew: bool) -> "Recipe":
    """Put what the user gave in place of what the recipe says."""
    from napari_semsr.training.schedule import with_steps

    given = {key: value for key, value in changes.items() if value is not None}
    if "steps" in given:
        if int(given["steps"]) < 1:
            msg = f"steps must be at least 1, got {given['steps']}."
            raise OptionError(msg)
        plan = with_steps(plan, int(given.pop("steps")))
    data = {}
    if "pairs" in given:
        data["pairs"] = str(Path(given.pop("pairs")).resolve())
    if "patch" in given:
        data["patch_px"] = given.pop("patch")
    if data:
        given["data"] = plan.data.replace(**data)
    if "start_from" in given:
        given["start_from"] = str(find_model(given["start_from"]).resolve())
    plan = plan.replace(**given) if given else plan
    return _begun_anew(plan) if anew else plan


def _begun_anew(plan: "Recipe") -> "Recipe":
    """Keep the network of a recipe, and leave out the weights that it begins with."""
    from napari_semsr.training.starting import settled

    return settled(plan).replace(start_from=None, local_from=None)


def _check_pairs(path: Path) -> None:
    """Refuse a store from which nothing can be learnt, before any work."""
    store = open_pairs(path)
    counts = store.counts
    if counts["train"] < _LEAST_PAIRS:
        msg = (
            f"Training needs at least {_LEAST_PAIRS} pairs to learn from, got "
            f"{counts['train']} in {path.name}; cut smaller patches (--patch), or let "
            "them overlap (--step)."
        )
        raise OptionError(msg)
    if store.paired and not counts["validation"]:
        msg = (
            "Training needs pairs for validation, which choose the model, got none in "
            f"{path.name}; cut them with --validation above 0."
        )
        raise OptionError(msg)
