"""Train a model from a recipe, in a folder that keeps what is needed to go on."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_semsr.core.errors import OptionError, ReadError
from napari_semsr.core.progress import Job, Progress
from napari_semsr.services.results import Result, jsonable
from napari_semsr.services.shelf import find_model
from napari_semsr.services.targets import check_target_folder

if TYPE_CHECKING:
    from napari_semsr.training.recipes import Recipe

__all__ = ["Trained", "train"]


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
) -> Job[Trained]:
    """Train a model.

    Parameters
    ----------
    recipe : path
        A YAML file that names architecture, data, losses and schedule.
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
        If the recipe cannot be used, or the folder holds another run.
    """
    path = Path(recipe)
    yield Progress(0, 0, f"reading {path.name}")
    if not path.is_file():
        msg = f"There is no recipe {path}; give a YAML file."
        raise ReadError(msg)
    if resume and overwrite:
        msg = "Give --resume to go on or --overwrite to start anew, not both."
        raise OptionError(msg)
    folder = check_target_folder(run_dir, overwrite=True)  # the loop looks inside
    from napari_semsr.training import loop, recipes

    changes = {"pairs": pairs, "start_from": start_from, "steps": steps, "name": name}
    plan = _changed(recipes.load_recipe(path), changes)
    found = yield from loop.train(plan, folder, resume=resume, overwrite=overwrite)
    return Trained(
        steps=found.steps,
        validation=jsonable(found.validation),
        model=str(found.model),
        run_dir=str(folder),
    )


def _changed(plan: "Recipe", changes: dict[str, Any]) -> "Recipe":
    """Put what the user gave in place of what the recipe says."""
    from napari_semsr.training.schedule import with_steps

    given = {key: value for key, value in changes.items() if value is not None}
    if "steps" in given:
        if int(given["steps"]) < 1:
            msg = f"steps must be at least 1, got {given['steps']}."
            raise OptionError(msg)
        plan = with_steps(plan, int(given.pop("steps")))
    if "pairs" in given:
        store = str(Path(given.pop("pairs")).resolve())
        given["data"] = plan.data.replace(pairs=store)
    if "start_from" in given:
        given["start_from"] = str(find_model(given["start_from"]).resolve())
    return plan.replace(**given) if given else plan
