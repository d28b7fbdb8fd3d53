"""The recipes that come with the package, and what a recipe says of itself."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_semsr.core.errors import ReadError
from napari_semsr.services.results import Result

if TYPE_CHECKING:
    from napari_semsr.training.recipes import Recipe

__all__ = ["RECIPES", "RecipeFacts", "bundled_recipes", "find_recipe", "recipe_facts"]

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


def find_recipe(name_or_path: str | os.PathLike[str]) -> Path:
    """Find a recipe: a file, or one that comes with the package.

    Parameters
    ----------
    name_or_path : str or path
        A YAML file, or a name from `bundled_recipes`.

    Returns
    -------
    pathlib.Path
        An existing file.

    Raises
    ------
    ReadError
        If there is neither.
    """
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
    from napari_semsr.training.recipes import load_recipe

    path = find_recipe(name_or_path)
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
    from napari_semsr.models.cards import read_card, resolve
    from napari_semsr.training.recipes import SAME

    if recipe.architecture == SAME and recipe.start_from is not None:
        return read_card(resolve(recipe.start_from)).scale
    return int(recipe.architecture_options.get("scale", 1))
