"""The folder of a run: what may be in it, and how its state is put there.

It holds ``recipe.yaml`` (what was asked), ``inputs.yaml`` (digests of what is learnt
from), ``last.ckpt`` (the state to resume from), ``best.yaml`` (figures of the best
model), ``curve.csv`` (one row for each validation), ``preview.tif`` (a held-out patch,
as restored at the last one) and ``NAME.safetensors`` (the best model so far). Nothing
in it changes before the first step is done, so that a run that cannot start leaves an
earlier one as it was.
"""

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
import yaml
from safetensors import SafetensorError

from napari_semsr.core.errors import CheckpointError, WriteError
from napari_semsr.io.targets import replacing
from napari_semsr.training.preview import PREVIEW
from napari_semsr.training.recipes import Recipe
from napari_semsr.training.same_run import INPUTS, Digests, check_recipe

__all__ = [
    "STATE",
    "begin",
    "check_folder",
    "leaving_no_empty",
    "save_state",
    "saving",
    "steps_done",
]

STATE = "last.ckpt"
_PARTIAL = f"{STATE}.partial"
_RECIPE = "recipe.yaml"
_BEST = "best.yaml"
_RUN_FILES = ("curve.csv", STATE, _PARTIAL, _BEST, PREVIEW)


def check_folder(
    recipe: Recipe, run_dir: Path, *, resume: bool, overwrite: bool
) -> dict[str, float]:
    """See that a run can go into its folder, and make that if it is not there.

    Parameters
    ----------
    recipe : Recipe
        What is asked.
    run_dir : pathlib.Path
        New or empty folder; the run's own when resuming.
    resume : bool
        Whether a state must be there, of the same recipe.
    overwrite : bool
        Whether an earlier run may go.

    Returns
    -------
    dict
        What is known of the best model.

    Raises
    ------
    CheckpointError
        If there is nothing to resume, or it is the run of another recipe.
    WriteError
        If the folder is in use or cannot be made or written to.
    """
    state = run_dir / STATE
    if resume and not state.exists():
        msg = (
            f"There is no run to resume in {run_dir}; leave out --resume to start one."
        )
        raise CheckpointError(msg)
    if resume:
        _check_same(recipe, run_dir)
    held = {item.name for item in run_dir.iterdir()} if run_dir.is_dir() else set()
    if not (resume or overwrite) and held - {_RECIPE, INPUTS}:
        remedy = "--resume, --overwrite" if state.exists() else "--overwrite"
        msg = f"The run directory {run_dir} is not empty; give {remedy} or another one."
        raise WriteError(msg)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"The run directory {run_dir} cannot be made: {error.strerror}."
        raise WriteError(msg) from error
    if not os.access(run_dir, os.W_OK | os.X_OK):
        msg = f"The run directory {run_dir} must be one that you may write to."
        raise WriteError(msg)
    best = run_dir / _BEST
    if resume and best.exists():
        return dict(yaml.safe_load(best.read_text(encoding="utf-8")))
    return {}


def begin(recipe: Recipe, run_dir: Path, inputs: Digests, *, resume: bool) -> None:
    """Put a run into its folder, in place of an earlier one unless that goes on.

    Parameters
    ----------
    recipe : Recipe
        What is asked.
    run_dir : pathlib.Path
        As `check_folder` left it.
    inputs : dict
        Digests of what is learnt from.
    resume : bool
        Whether the run there goes on.

    Raises
    ------
    WriteError
        If the disk refuses.
    """
    with saving(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)  # another start may have left it
        if not resume:
            for name in (*_RUN_FILES, f"{recipe.name}.safetensors"):
                (run_dir / name).unlink(missing_ok=True)
        for name, plain in (
            (_RECIPE, recipe.model_dump(mode="json")),
            (INPUTS, inputs),
        ):
            _put(run_dir / name, plain)


@contextmanager
def leaving_no_empty(run_dir: Path) -> Iterator[None]:
    """Remove folders that were made for a run which put nothing into them.

    Parameters
    ----------
    run_dir : pathlib.Path
        Folder of the run; where it was there before, it stays.

    Yields
    ------
    None
        Nothing.
    """
    path = run_dir.absolute()
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield
    finally:
        for folder in new:
            with suppress(OSError):
                folder.rmdir()


def _check_same(recipe: Recipe, run_dir: Path) -> None:
    """See that a run goes on with its model and its recipe."""
    try:
        text = (run_dir / _RECIPE).read_text(encoding="utf-8")
        before = dict(yaml.safe_load(text))
        name = before["name"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return  # a run can go on without it
    if name != recipe.name:
        msg = (
            f"The run in {run_dir} makes the model {name}, got the name {recipe.name}: "
            f"resume with --name {name}."
        )
        raise CheckpointError(msg)
    check_recipe(recipe, before, run_dir)


@contextmanager
def saving(run_dir: Path) -> Iterator[None]:
    """Turn what a disk refuses into a sentence.

    Parameters
    ----------
    run_dir : pathlib.Path
        Folder of the run.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    WriteError
        If a file cannot be written; the last state is kept.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        first = str(error).splitlines()[0]
        msg = (
            f"The run cannot be saved in {run_dir}: {first}; the last state is kept, "
            "so make room and give --resume."
        )
        raise WriteError(msg) from error


def save_state(
    trainer: lightning.Trainer, run_dir: Path, best: dict[str, float]
) -> None:
    """Write the state beside the last one, then put it in its place.

    Parameters
    ----------
    trainer : pytorch_lightning.Trainer
        Whose state it is.
    run_dir : pathlib.Path
        Folder of the run.
    best : dict
        What is known of the best model.

    Raises
    ------
    WriteError
        If the disk refuses; the last state is kept.
    """
    partial = run_dir / _PARTIAL
    with saving(run_dir):
        try:
            trainer.save_checkpoint(partial)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            raise OSError(str(error)) from error
        if not trainer.is_global_zero:
            return  # of processes that learn together, the first one has written it
        partial.replace(run_dir / STATE)
        _put(run_dir / _BEST, dict(best))


def _put(path: Path, plain: Any) -> None:
    """Write a table in one step, so that no half of one is read by a resumed run."""
    with replacing(path) as beside:
        beside.write_text(yaml.safe_dump(plain), encoding="utf-8")


def steps_done(state: Path) -> int:
    """Read how far a saved state had come.

    Parameters
    ----------
    state : pathlib.Path
        ``last.ckpt`` of a run.

    Returns
    -------
    int
        Steps.

    Raises
    ------
    CheckpointError
        If the file is damaged.
    """
    try:
        held: dict[str, Any] = torch.load(state, weights_only=True, map_location="cpu")
        return int(held["global_step"])
    except (OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        msg = f"The saved state {state} is damaged; start anew with --overwrite."
        raise CheckpointError(msg) from error
