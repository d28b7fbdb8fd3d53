"""Train a model from a recipe, in a folder that keeps what is needed to go on."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_semsr.core import Job, OptionError, Progress, ReadError, warn
from napari_semsr.jobs.images import (
    Result,
    check_not_input,
    check_target_folder,
    jsonable,
)
from napari_semsr.jobs.models import find_model

if TYPE_CHECKING:
    from napari_semsr.training import Recipe

# The recipes that come with the package, and what a recipe says of itself.

RECIPES = Path(__file__).parent.parent / "recipes"
"""Folder of the recipes that learn from a store of pairs."""


@dataclass(frozen=True, slots=True)
class RecipeFacts(Result):
    """What a recipe says of itself.

    Attributes
    ----------
    name : str
        Name that it gives its model.
    path : str
        The file.
    description, kind, architecture : str
        What it makes, by which training, with which network; ``same`` is that of
        `start_from`.
    steps, patch_px : int
        Optimiser steps, and side of the patches that it learns from.
    scale : int
        Clear pixels for each degraded one.
    start_from : str or None
        Bundled model or file whose weights it begins with.
    """

    name: str
    path: str
    description: str
    kind: str
    architecture: str
    steps: int
    patch_px: int
    scale: int
    start_from: str | None


def bundled_recipes() -> list[str]:
    """Name the recipes that come with the package.

    Returns
    -------
    list of str
        Sorted names; all learn from a store of pairs.
    """
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def _find_recipe(name_or_path: str | os.PathLike[str]) -> Path:
    """Find a recipe: a file, or one that comes with the package."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    if str(name_or_path) in bundled_recipes():
        return RECIPES / f"{name_or_path}.yaml"
    msg = (
        f"There is no recipe {path}; give a YAML file, or one of "
        f"{', '.join(bundled_recipes())}."
    )
    raise ReadError(msg)


def recipe_facts(name_or_path: str | os.PathLike[str]) -> RecipeFacts:
    """Read what a recipe says of itself; torch is not needed for that.

    Parameters
    ----------
    name_or_path : str or path
        A YAML file, or the name of a recipe that comes with the package.

    Returns
    -------
    RecipeFacts
        The facts.

    Raises
    ------
    ReadError, OptionError
        If it cannot be read, or is no recipe.
    CheckpointError
        If it takes over the network of a model that is not there.
    """
    from napari_semsr.training import load_recipe

    path = _find_recipe(name_or_path)
    recipe = load_recipe(path)
    return RecipeFacts(
        name=recipe.name,
        path=str(path),
        description=recipe.description,
        kind=recipe.kind,
        architecture=recipe.architecture,
        steps=recipe.steps,
        patch_px=recipe.data.patch_px,
        scale=_scale(recipe),
        start_from=recipe.start_from,
    )


def _scale(recipe: "Recipe") -> int:
    """Clear pixels for each degraded one."""
    from napari_semsr.models import read_card, resolve
    from napari_semsr.training import SAME

    if recipe.architecture == SAME and recipe.start_from is not None:
        return read_card(resolve(recipe.start_from)).scale
    return int(recipe.architecture_options.get("scale", 1))


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
    comparison : object
        On held-out pairs, which nothing learnt from: ``rows`` with ``psnr_db``,
        ``ssim`` and ``frc_per_px`` of ``input``, ``linear filter``, ``untouched`` and
        ``trained``; the ``set``, its number of ``pairs``, and ``begun_with``, the name
        of the untouched model. None where there are no pairs.
    kept : bool
        Whether the trained model is better there than the untouched one; if not, the
        file is the untouched one.
    """

    steps: int
    validation: Any
    model: str
    run_dir: str
    comparison: Any = None
    kept: bool = True


def train_job(
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
    path = _find_recipe(recipe)
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
    from napari_semsr.training import load_recipe

    changes = {"pairs": pairs, "start_from": start_from, "steps": steps, "name": name}
    plan = _changed(load_recipe(path), {**changes, "patch": patch}, anew=anew)
    if plan.data.pairs is not None:
        check_not_input(folder, [plan.data.pairs])
        _check_pairs(Path(plan.data.pairs))
    from napari_semsr.training import train as train_model

    found = yield from train_model(plan, folder, resume=resume, overwrite=overwrite)
    compared = found.comparison
    kept = compared is None or compared.kept
    if compared is not None and not kept:
        warn(
            f"Training made nothing better than {compared.begun_with} on "
            f"{compared.pairs} held-out pairs, which is kept as it is: cut more pairs, "
            "or see that they fit.",
        )
    return Trained(
        steps=found.steps,
        validation=jsonable(found.validation),
        model=str(found.model),
        run_dir=str(folder),
        comparison=jsonable(compared),
        kept=kept,
    )


def _changed(plan: "Recipe", changes: dict[str, Any], *, anew: bool) -> "Recipe":
    """Put what the user gave in place of what the recipe says."""
    given = {key: value for key, value in changes.items() if value is not None}
    if "steps" in given:
        if int(given["steps"]) < 1:
            msg = f"steps must be at least 1, got {given['steps']}."
            raise OptionError(msg)
        plan = plan.with_steps(int(given.pop("steps")))
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
    # the network is kept, and the weights that it would begin with are not
    return plan.settled().replace(start_from=None, local_from=None) if anew else plan


def _check_pairs(path: Path) -> None:
    """Refuse a store from which nothing can be learnt, before any work."""
    from napari_semsr.pairing import open_pairs

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
