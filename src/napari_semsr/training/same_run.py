"""What a run learns from and how, so that it goes on with the same or not at all.

A run keeps its recipe, and of each store, image or kernel a digest. What decides how
fast and how long it learns may change when it is resumed, and files may have moved;
the rest may not.
"""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

from napari_semsr.core.errors import CheckpointError
from napari_semsr.core.provenance import digest_path
from napari_semsr.pairs.store import open_pairs
from napari_semsr.training.recipes import Recipe

__all__ = ["INPUTS", "Digests", "check_inputs", "check_recipe", "inputs_of"]

INPUTS = "inputs.yaml"
Digests = dict[str, dict[str, str]]

_FREE = {
    "name",
    "description",
    "limits",
    "licence",
    "steps",
    "stop_after",
    "early_stop",
    "warmup_steps",
    "decay_steps",
    "schedule",
    "milestones",
    "milestone_factor",
    "learning_rate",
    "clip_norm",
    "batch",
    "validate_every",
    "precision",
    "compiled",
    "devices",
    "nodes",
    "workers",
    "data.root",
    "data.held_out",
    "data.bank",
    "data.bank_folder",
    "data.patch_px",
}
"""What may change: the schedule, the machine, and where things lie."""

_WHOLE = {"architecture_options", "data.sources", "gan.discriminator_options"}
_FILES = {"start_from", "local_from", "data.pairs", "gan.kernel.file"}
_MODEL = ".safetensors"
_MOST_TOLD = 3
_LONGEST = 30
_KINDS = {
    "pairs": "pairs",
    "train": "training image",
    "validation": "validation image",
    "kernel": "kernel",
}
_LISTS = ("train", "validation")
_ONE_LIST = "images"  # earlier versions kept the digests of both lists in one
_REMEDY = "Give what it was begun with, or start anew with --overwrite"


def check_recipe(recipe: Recipe, before: dict[str, Any], run_dir: Path) -> None:
    """Refuse to go on with a run by another recipe.

    Parameters
    ----------
    recipe : Recipe
        What is asked now.
    before : dict
        Recipe that the run keeps, as read; options that it lacks have their defaults.
    run_dir : pathlib.Path
        Folder of the run, for the message.

    Raises
    ------
    CheckpointError
        If they differ in what is learnt.
    """
    free = _FREE | ({"minutes"} if recipe.minutes and before.get("minutes") else set())
    kernel = recipe.gan.kernel
    if recipe.kind.endswith("-gan") and (
        recipe.gan.history or (kernel is not None and kernel.learnt)
    ):
        free = free - {"data.patch_px"}  # remembered images and spectra have this side
    now, then = (_flat(t) for t in (recipe.model_dump(mode="json"), _completed(before)))
    told = []
    for key in {**now, **then}:
        held, value = (_plain(key, table.get(key)) for table in (then, now))
        if key not in free and held != value:
            told.append(_difference(key, held, value))
    if told:
        more = f" and {len(told) - _MOST_TOLD} more" if len(told) > _MOST_TOLD else ""
        msg = (
            f"The run in {run_dir} was begun by another recipe: "
            f"{'; '.join(told[:_MOST_TOLD])}{more}. {_REMEDY}."
        )
        raise CheckpointError(msg)


def _completed(before: dict[str, Any]) -> dict[str, Any]:
    """Take options that are no more out of a kept recipe, and put defaults for new."""
    known = copy.deepcopy(before)
    try:
        Recipe.model_validate(known)
    except ValidationError as error:
        for fault in error.errors():
            if fault["type"] == "extra_forbidden":
                *above, name = fault["loc"]
                table: Any = known
                for part in above:
                    table = table[part]
                del table[name]
    try:
        return Recipe.model_validate(known).model_dump(mode="json")
    except ValidationError:
        return known


def _flat(table: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Name the options of all tables with dots."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{above}{key}"
        if isinstance(value, dict) and name not in _WHOLE:
            found |= _flat(value, f"{name}.")
        else:
            found[name] = value
    return found


def _plain(key: str, value: Any) -> Any:
    """Leave out where a file lies; of pairs their digest tells more than the name."""
    if key not in _FILES or value is None:
        return value
    return "some" if key == "data.pairs" else Path(value).name.removesuffix(_MODEL)


def _difference(key: str, before: Any, now: Any) -> str:
    """Say an option that differs, with its values where they are short."""
    shown = [json.dumps(value).strip('"') for value in (before, now)]
    if max(map(len, shown)) > _LONGEST:
        return f"{key} differs"
    return f"{key} was {shown[0]}, got {shown[1]}"


def inputs_of(recipe: Recipe) -> Digests:
    """Digest what a recipe learns from.

    Parameters
    ----------
    recipe : Recipe
        Names a store of pairs, or images, and perhaps a kernel.

    Returns
    -------
    dict
        By kind and name; what is learnt from and what chooses the model are kept
        apart. Of a store its record and a few patches are digested, of
        images all; files that are missing are left out.
    """
    found: Digests = {}
    data, kernel = recipe.data, recipe.gan.kernel
    if data.pairs is not None:
        path = Path(data.pairs)
        found["pairs"] = {path.name: _digest_of_pairs(path)}
    elif data.sources.get("images"):
        for kind in _LISTS:
            names = {entry.file for entry in getattr(data, kind)}
            found[kind] = _digests(Path(data.root), names)
    if kernel is not None and kernel.file is not None:
        file = Path(kernel.file)
        found["kernel"] = _digests(file.parent, {file.name})
    return found


def _digests(root: Path, names: set[str]) -> dict[str, str]:
    return {
        name: digest_path(root / name)
        for name in sorted(names)
        if (root / name).exists()
    }


def _digest_of_pairs(path: Path) -> str:
    """Digest what a store says of itself, and the first and last patch of each set."""
    store = open_pairs(path)
    told = {k: v for k, v in store.record.items() if k != "provenance"}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name, count in store.counts.items():
        for patches in store.arrays(name) if count else ():
            for number in sorted({0, count - 1}):
                digest.update(np.ascontiguousarray(patches[number]).tobytes())
    return digest.hexdigest()


def check_inputs(run_dir: Path, now: Digests) -> None:
    """Refuse to go on with a run from other pairs or images.

    Parameters
    ----------
    run_dir : pathlib.Path
        Folder of the run; one of an earlier version, that keeps no digests, passes.
    now : dict
        As `inputs_of` gives them.

    Raises
    ------
    CheckpointError
        If contents differ, or have changed places; names and folders may differ.
    """
    try:
        before = yaml.safe_load((run_dir / INPUTS).read_text(encoding="utf-8"))
        pairs = [(kind, _kept(before, kind), held) for kind, held in now.items()]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return
    for kind, then, held in pairs:
        known = set(then.values())
        changed = [
            name
            for name, digest in held.items()
            if then.get(name, digest) != digest or digest not in known
        ]
        if changed:
            new, old = changed[0], next(iter(then), changed[0])
            msg = (
                f"The contents of the {_KINDS[kind]} {new} have changed since the run "
                f"in {run_dir} was begun. {_REMEDY}."
                if new in then
                else f"The run in {run_dir} was begun with the {_KINDS[kind]} {old}, "
                f"got {new}, of other contents. {_REMEDY}."
            )
            raise CheckpointError(msg)


def _kept(before: dict[str, Any], kind: str) -> dict[str, str]:
    """Give the digests of a kind that a run keeps."""
    one = kind in _LISTS and kind not in before
    return dict(before[_ONE_LIST if one else kind])
