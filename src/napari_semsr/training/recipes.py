"""Recipes: YAML files that say how a model is made, validated before any work."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from napari_semsr.core.errors import OptionError, ReadError
from napari_semsr.core.options import Options
from napari_semsr.models.cards import bundled
from napari_semsr.simulate.random_degrade import DegradationRanges
from napari_semsr.training.data_options import DataOptions, ImageEntry
from napari_semsr.training.objectives import GanOptions

__all__ = ["SAME", "DataOptions", "ImageEntry", "Recipe", "load_recipe"]

SAME = "same"

Decay = Annotated[float, Field(ge=0, lt=1)]


class Recipe(Options):
    """How a model is made.

    Attributes
    ----------
    kind : {"supervised-l1", "supervised", "paired-gan", "cycle-gan"}
        Which training it is: a restorer that may look for haze; a plain loss; generator
        and discriminator on pairs; two generators without pairs.
    loss : {"l1", "mse", "log-mse", "relative-l1"}
        Loss of the kind `supervised`. `supervised-l1` takes ``relative-l1`` whatever
        stands here, but for ``log-mse``.
    gan : GanOptions
        What the kinds with discriminators minimise.
    architecture, architecture_options : str, dict
        Network and its arguments; ``same`` is that of `start_from`.
    start_from : str or None
        Bundled model, or model file relative to the recipe, whose weights are taken
        over where names and shapes agree.
    veil_weight : float
        Weight of the loss on the haze itself, for networks that look for it.
    ema : float
        Decay of the running mean of the weights, which is then what is judged and
        saved; 0 for none.
    local_from : str or None
        Model file whose weights the local part takes over after that, where the
        network looks at the whole field first.
    stop_after : int or None
        Stop at this step, before the schedule ends.
    early_stop : int or None
        Stop when this many validations brought nothing better.
    steps, warmup_steps, decay_steps : int
        Optimiser steps; the learning rate rises over the first, stays, and falls to
        zero over the last.
    minutes : float or None
        Time that the run may take; the schedule then follows the clock where that is
        further than the steps. Such a run depends on the machine.
    schedule : {"cosine", "linear", "milestones"}
        Form of the fall; the last multiplies by `milestone_factor` at each of the
        steps in `milestones`.
    betas, clip_norm : tuple of float, float or None
        Adam's decays; largest norm of a gradient.
    validate_every : int
        Steps between validations; at most this much is lost by a killed run.
    measure : {"gain_db", "ssim", "frc_per_px"}
        Held-out figure that chooses the checkpoint.
    cross_frc : bool
        Whether the Fourier ring correlation with the truth is among the figures.
    devices, nodes : int
        Processors and machines that learn together, each from a batch of its own: the
        gradients of all are averaged, as if the batch were that many times as large.
    compiled : bool
        Compile the local network, which takes a minute at the start and pays on a GPU.
    """

    name: str = Field(min_length=1, pattern=r"^[\w.+-]+$")
    kind: Literal["supervised-l1", "supervised", "paired-gan", "cycle-gan"] = (
        "supervised-l1"
    )
    description: str = ""
    limits: str = ""
    licence: str = "BSD-3-Clause"
    architecture: str = "two-scale"
    architecture_options: dict[str, Any] = Field(default_factory=dict)
    data: DataOptions = DataOptions()
    degradations: DegradationRanges = DegradationRanges()
    seed: int = Field(default=0, ge=0, lt=1 << 32)
    batch: int = Field(default=16, ge=1, le=4096)
    start_from: str | None = None
    local_from: str | None = None
    stop_after: int | None = Field(default=None, ge=1)
    early_stop: int | None = Field(default=None, ge=1)
    steps: int = Field(default=20000, ge=1)
    warmup_steps: int = Field(default=200, ge=0)
    decay_steps: int = Field(default=6000, ge=0)
    minutes: float | None = Field(default=None, gt=0)
    schedule: Literal["cosine", "linear", "milestones"] = "cosine"
    milestones: tuple[int, ...] = ()
    milestone_factor: float = Field(default=0.5, gt=0, le=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    clip_norm: float | None = Field(default=1.0, gt=0)
    ema: Decay = 0.0
    validate_every: int = Field(default=500, ge=1)
    measure: Literal["gain_db", "ssim", "frc_per_px"] = "gain_db"
    cross_frc: bool = False
    loss: Literal["l1", "mse", "log-mse", "relative-l1"] = "l1"
    gan: GanOptions = GanOptions()
    veil_weight: float = Field(default=0.3, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compiled: bool = False
    devices: int = Field(default=1, ge=1, le=1024)
    nodes: int = Field(default=1, ge=1, le=1024)
    workers: int = Field(default=1, ge=0, le=64)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """Refuse options that contradict each other."""
        if self.architecture == SAME and self.start_from is None:
            msg = "architecture: same needs start_from, a model that has one"
            raise ValueError(msg)
        if self.measure == "frc_per_px" and not self.cross_frc:
            msg = "the measure frc_per_px needs cross_frc: true"
            raise ValueError(msg)
        if self.kind == "supervised-l1" and self.data.pairs is not None:
            msg = (
                "kind supervised-l1 degrades images itself; for a store of pairs give "
                "kind: supervised and loss: relative-l1"
            )
            raise ValueError(msg)
        if self.kind == "supervised-l1" and set(self.data.sources) != {"images"}:
            msg = "kind supervised-l1 learns from images alone, not from other sources"
            raise ValueError(msg)
        if self.data.pairs is None and self.data.patch_px > self.data.scene_px:
            msg = (
                f"patch_px must not exceed scene_px, got {self.data.patch_px} and "
                f"{self.data.scene_px}"
            )
            raise ValueError(msg)
        return self


def load_recipe(path: Path) -> Recipe:
    """Read and validate a recipe.

    It may name another file under ``include``, whose options hold where it gives none
    of its own; those of ``data`` one by one.

    Parameters
    ----------
    path : pathlib.Path
        YAML file.

    Returns
    -------
    Recipe
        The recipe, the paths in it made absolute.

    Raises
    ------
    ReadError
        If the file is missing or is no YAML.
    OptionError
        If a key is unknown or a value out of range.
    """
    return _absolute(Recipe.parse(_values(path)), path.parent)


def _values(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a table of options, and what it includes, which it may override."""
    above = (*above, path.resolve())
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
    other = values.pop("include", None)
    if other is None:
        return values
    source = path.parent / str(other)
    if source.resolve() in above:
        msg = f"A recipe must not include itself, got {source} in {path}."
        raise OptionError(msg)
    shared = _values(source, above)
    tables = [table.get("data") or {} for table in (shared, values)]
    if not all(isinstance(table, dict) for table in tables):
        msg = f"Option data must be a table of options, in {path} and in {source}."
        raise OptionError(msg)
    return {**shared, **values, "data": {**tables[0], **tables[1]}}


def _absolute(recipe: Recipe, folder: Path) -> Recipe:
    """Make the paths of a recipe absolute, which are relative to its folder."""

    def resolved(name: str) -> str:
        return str((folder / name).resolve())

    data = recipe.data.replace(
        root=resolved(recipe.data.root), bank_folder=resolved(recipe.data.bank_folder)
    )
    if data.pairs is not None:
        data = data.replace(pairs=resolved(data.pairs))
    kernel = recipe.gan.kernel
    models = {
        name: resolved(value)
        for name in ("start_from", "local_from")
        if (value := getattr(recipe, name)) is not None and value not in bundled()
    }
    gan = recipe.gan
    if kernel is not None and kernel.file is not None:
        gan = gan.replace(kernel=kernel.replace(file=resolved(kernel.file)))
    return recipe.replace(data=data, gan=gan, **models)
