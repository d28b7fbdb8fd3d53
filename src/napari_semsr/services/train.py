"""Train a model from a recipe, in a folder that keeps what is needed to go on."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_semsr.core.errors import OptionError, ReadError
from napari_semsr.core.progress import Job, Progress
from napari_semsr.services.results import Result, jsonable
from napari_semsr.services.targets import check_target_folder

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

    plan = recipes.load_recipe(path)
    found = yield from loop.train(plan, folder, resume=resume, overwrite=overwrite)
    return Trained(
        steps=found.steps,
        validation=jsonable(found.validation),
        model=str(found.model),
        run_dir=str(folder),
    )
