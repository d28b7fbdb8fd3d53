"""Recipes: YAML files that say how a model is made, validated before any work."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from napari_semsr.core.errors import OptionError, ReadError
from napari_semsr.core.options import Options
from napari_semsr.simulate.random_degrade import DegradationRanges

__all__ = ["DataOptions", "ImageEntry", "Recipe", "load_recipe"]


class ImageEntry(Options):
    """One clear image.

    Attributes
    ----------
    file : str
        Path below the data root.
    crop_bottom : int
        Rows of data bar to leave out.
    """

    file: str
    crop_bottom: int = Field(default=0, ge=0)


class DataOptions(Options):
    """What a model is trained and judged on.

    Attributes
    ----------
    root : str
        Folder of the images, relative to the recipe; may be overridden when training.
    train, validation : tuple of ImageEntry
        Clear images; those for validation choose the checkpoint and train nothing.
    phantoms : float
        Share of scenes that are drawn instead of cut from an image.
    soft : float
        Share of clear images that are softened first, so that a network learns that
        an edge may be soft by nature; otherwise it sharpens what was never sharper.
    soft_sigma_px : float
        Largest Gaussian sigma of that softening.
    held_out : tuple of ImageEntry
        Images that neither train nor validate, named so that a benchmark may use them.
    scene_px : int
        Side of a scene, which is degraded as a whole; a multiple of 16. Haze is found
        from all of it.
    patch_px, patches_per_scene : int
        Side of the patches that the loss is taken on, and how many to a scene.
    """

    root: str = "."
    train: tuple[ImageEntry, ...] = ()
    validation: tuple[ImageEntry, ...] = ()
    held_out: tuple[ImageEntry, ...] = ()
    phantoms: float = Field(default=0.25, ge=0, le=1)
    soft: float = Field(default=0.3, ge=0, le=1)
    soft_sigma_px: float = Field(default=1.5, gt=0)
    scene_px: int = Field(default=256, ge=32, le=4096, multiple_of=16)
    patch_px: int = Field(default=128, ge=16, le=2048)
    patches_per_scene: int = Field(default=2, ge=1, le=64)


class Recipe(Options):
    """How a model is made.

    Attributes
    ----------
    kind : {"supervised-l1"}
        Which training it is.
    start_from : str or None
        Model file, relative to the recipe, whose weights are taken over where names
        and shapes agree.
    veil_weight : float
        Weight of the loss on the haze itself, for networks that look for it.
    stop_after : int or None
        Stop at this step, before the schedule ends.
    steps, warmup_steps, decay_steps : int
        Optimiser steps; the learning rate rises over the first, stays, and falls to
        zero over the last.
    validate_every : int
        Steps between validations; at most this much is lost by a killed run.
    """

    name: str = Field(min_length=1, pattern=r"^[\w.+-]+$")
    kind: Literal["supervised-l1"] = "supervised-l1"
    description: str = ""
    limits: str = ""
    licence: str = "BSD-3-Clause"
    architecture: str = "two-scale"
    architecture_options: dict[str, Any] = Field(default_factory=dict)
    data: DataOptions = DataOptions()
    degradations: DegradationRanges = DegradationRanges()
    seed: int = Field(default=0, ge=0)
    batch: int = Field(default=16, ge=1)
    start_from: str | None = None
    stop_after: int | None = Field(default=None, ge=1)
    steps: int = Field(default=20000, ge=1)
    warmup_steps: int = Field(default=200, ge=0)
    decay_steps: int = Field(default=6000, ge=0)
    learning_rate: float = Field(default=1e-3, gt=0)
    validate_every: int = Field(default=500, ge=1)
    veil_weight: float = Field(default=0.3, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    workers: int = Field(default=1, ge=0, le=64)


def load_recipe(path: Path) -> Recipe:
    """Read and validate a recipe.

    Parameters
    ----------
    path : pathlib.Path
        YAML file.

    Returns
    -------
    Recipe
        The recipe, its data root and starting model made absolute.

    Raises
    ------
    ReadError
        If the file is missing or is no YAML.
    OptionError
        If a key is unknown or a value out of range.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        msg = f"The recipe {path} cannot be read as YAML: {reason}."
        raise ReadError(msg) from error
    if not isinstance(values, dict):
        got = type(values).__name__
        msg = f"A recipe must be a YAML table of options, got {got} in {path}."
        raise OptionError(msg)
    recipe = Recipe.parse(values)
    root = (path.parent / recipe.data.root).resolve()
    changes: dict[str, Any] = {"data": recipe.data.replace(root=str(root))}
    if recipe.start_from is not None:
        changes["start_from"] = str((path.parent / recipe.start_from).resolve())
    return recipe.replace(**changes)
