"""Folder of a training run: its files and the checks before resuming.

It contains ``recipe.yaml``, ``inputs.yaml`` (digests of the training data),
``last.ckpt`` (the state to resume from), ``best.yaml`` (figures of the best model),
``curve.csv`` (one row for each validation), ``preview.tif`` (a held-out patch, as
restored at the last validation) and ``NAME.safetensors`` (the best model so far).
Discriminators and a second generator are saved in ``networks.safetensors``. One process
at a time uses the folder. Nothing in it changes before the first step is done, so that
a run that cannot start does not damage an earlier one.

When a run is resumed, its schedule may change and files may have moved, but nothing
else. So it stores its recipe, and a digest of each store, image or kernel.
"""

import copy
import hashlib
import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
import yaml
from pydantic import ValidationError
from safetensors import SafetensorError

from napari_semsr import core, io
from napari_semsr.pairing import open_pairs
from napari_semsr.training.recipe import FILES, Recipe

PREVIEW = "preview.tif"
STATE = "last.ckpt"
NETWORKS = "networks.safetensors"
BANKS = "banks"
_PARTIAL = f"{STATE}.partial"
_RECIPE = "recipe.yaml"
_BEST = "best.yaml"
_RUN_FILES = ("curve.csv", STATE, _PARTIAL, _BEST, PREVIEW, NETWORKS)

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
"""Options that may change in a resumed run: schedule, machine and folders."""

_WHOLE = {
    "architecture_options",
    "data.sources",
    "gan.back_options",
    "gan.discriminator_options",
}
_MODEL = ".safetensors"
_MAX_LISTED = 3  # differences that a refusal to resume lists; chosen
_LONGEST = 30  # characters beyond which values are not repeated; chosen
_KINDS = {
    "pairs": "pairs",
    "train": "training image",
    "validation": "validation image",
    "kernel": "kernel",
}
_REMEDY = "Use the original one, or start again with `overwrite`"


class RunFolder:
    """Folder of a training run of a recipe."""

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self.recipe = path, recipe

    @property
    def state_file(self) -> Path:
        """Path of the saved state for resuming."""
        return self.path / STATE

    @property
    def model_file(self) -> Path:
        """Path of the best model so far."""
        return self.path / f"{self.recipe.name}.safetensors"

    def check(self, *, resume: bool, overwrite: bool) -> dict[str, float]:
        """Check that the run can use the folder; return the best model's metrics."""
        run_dir, state = self.path, self.state_file
        replaceable = (_RECIPE, INPUTS, self.model_file.name)  # even if links
        for name in (*_RUN_FILES, "board", *replaceable):
            path = run_dir / name
            is_link = name not in replaceable and path.is_symlink()
            if is_link or (path.exists() and not (path.is_file() or path.is_dir())):
                kind = "a link" if is_link else "a pipe or device"
                msg = f"{path} must be a file of the run, but is {kind}: remove it."
                raise core.WriteError(msg, code="unsafe-content")
        if resume and not state.exists():
            msg = f"There is no run to resume in {run_dir}; omit `resume` to start one."
            raise core.CheckpointError(msg, code="run-missing")
        before = self._read_table(_RECIPE) if resume else {}
        if before:
            name = before.get("name", self.recipe.name)
            if name != self.recipe.name:
                msg = (
                    f"The run in {run_dir} is training {name}, not {self.recipe.name}; "
                    f"to resume, pass `name={name}`."
                )
                raise core.CheckpointError(msg, code="other-run")
            check_same_recipe(self.recipe, before, run_dir)
        items = core.list_folder(run_dir) if run_dir.is_dir() else []
        names = {item.name for item in items}
        if not (resume or overwrite) and names - {_RECIPE, INPUTS, BANKS}:
            remedy = "`resume`, `overwrite`" if state.exists() else "`overwrite`"
            msg = (
                f"The run directory {run_dir} is not empty; pass {remedy} or choose "
                "another one."
            )
            raise core.WriteError(msg, code="output-exists")
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"Cannot create the run directory {run_dir}: {error.strerror}."
            raise core.WriteError(msg) from error
        if not os.access(run_dir, os.W_OK | os.X_OK):
            msg = f"No permission to write to the run directory {run_dir}."
            raise core.WriteError(msg, code="no-permission")
        return self._read_table(_BEST) if resume else {}

    def _read_table(self, name: str) -> dict[str, Any]:
        """Read a table of the run; empty if there is none: a run resumes without."""
        path = self.path / name
        if not path.exists():
            return {}
        try:
            return dict(yaml.safe_load(io.read_text(path)))
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            msg = (
                f"{path} is damaged, so it cannot be checked that the run is the same: "
                "remove it to resume without this check, or set `overwrite`."
            )
            raise core.CheckpointError(msg, code="file-damaged") from error

    def digest_inputs(self) -> Digests:
        """Compute digests of training files, and of a few patches of each store."""
        digests: Digests = {}
        data, kernel = self.recipe.data, self.recipe.gan.kernel
        if data.pairs is not None:
            path = Path(data.pairs)
            digests["pairs"] = {path.name: _digest_pairs(path)}
        elif data.sources.get("images"):
            for kind in ("train", "validation"):
                names = {entry.file for entry in getattr(data, kind)}
                digests[kind] = _compute_file_digests(Path(data.root), names)
        if kernel is not None and kernel.file is not None:
            file = Path(kernel.file)
            digests["kernel"] = _compute_file_digests(file.parent, {file.name})
        return digests

    def check_inputs(self, now: Digests) -> None:
        """Raise an error if data contents changed; names and folders may differ."""
        before = self._read_table(INPUTS)
        # earlier versions did not record all kinds
        pairs = ((k, dict(before[k]), now[k]) for k in now if before.get(k))
        for kind, then, current in pairs:
            digests_before = set(then.values())
            changed_names = [
                name
                for name, digest in current.items()
                if then.get(name, digest) != digest or digest not in digests_before
            ]
            if changed_names:
                new, old = changed_names[0], next(iter(then), changed_names[0])
                code = "content-changed" if new in then else "other-run"
                msg = (
                    f"The run in {self.path} was started with the {_KINDS[kind]} "
                    f"{old}, but {new} has different contents. {_REMEDY}."
                )
                if new in then:
                    msg = (
                        f"The contents of the {_KINDS[kind]} {new} have changed since "
                        f"the run in {self.path} was started. {_REMEDY}."
                    )
                raise core.CheckpointError(msg, code=code)

    def begin(self, inputs: Digests, *, resume: bool) -> None:
        """Write recipe and digests, removing files of earlier runs unless resuming."""
        with self.convert_save_errors():
            # another process may have removed the folder
            self.path.mkdir(parents=True, exist_ok=True)
            if not resume:
                for name in (*_RUN_FILES, self.model_file.name):
                    (self.path / name).unlink(missing_ok=True)
            io.remove_leftovers(self.path)
            # without options that a recipe must not set, so that it can be loaded
            left_out: dict[str, bool | set[str]] = dict.fromkeys(
                core.get_user_only_options(Recipe), True
            )
            left_out["data"] = {"bank_folder"}
            plain = self.recipe.model_dump(mode="json", exclude=left_out)
            _write_table(self.path / _RECIPE, plain)
            _write_table(self.path / INPUTS, inputs)

    @contextmanager
    def remove_empty_folders(self) -> Iterator[None]:
        """Remove folders that were created for a run that wrote nothing."""
        path = self.path.absolute()
        new = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            yield
        finally:
            for folder in new:
                with suppress(OSError):  # not empty, or never created
                    folder.rmdir()

    @contextmanager
    def convert_save_errors(self) -> Iterator[None]:
        """Convert save errors to `WriteError`; the last saved state remains."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            first = str(error).splitlines()[0]
            msg = (
                f"Cannot save the run in {self.path}: {first}. The last saved state is "
                "intact: free some disk space, then continue with `resume`."
            )
            raise core.WriteError(msg) from error

    def save_state(self, trainer: lightning.Trainer, best: dict[str, float]) -> None:
        """Save the state atomically, replacing the last one."""
        partial = self.path / _PARTIAL
        with self.convert_save_errors():
            first = trainer.is_global_zero
            try:  # of several processes, the first one writes it
                atomic = io.write_atomically(self.state_file, partial)
                with atomic if first else nullcontext():
                    trainer.save_checkpoint(partial)
                    if first:  # before the state, which is then never newer
                        _write_table(self.path / _BEST, dict(best))
            except RuntimeError as error:  # as torch raises if the disk is full
                raise OSError(str(error)) from error

    def read_step_count(self) -> int:
        """Read the number of completed steps from the saved state."""
        damage = OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError
        try:
            state: Any = torch.load(
                self.state_file, weights_only=True, map_location="cpu"
            )
            return int(state["global_step"])
        except damage as error:
            msg = (
                f"The saved state {self.state_file} is damaged; start again "
                "with `overwrite`."
            )
            raise core.CheckpointError(
                core.describe_access_error(self.state_file, error)
                or core.Message(msg, "file-damaged")
            ) from error


def _write_table(path: Path, plain: object) -> None:
    """Write a table atomically, so that a resumed run never reads an incomplete one."""
    with io.replace_atomically(path) as partial:
        partial.write_text(yaml.safe_dump(plain), encoding="utf-8")


def check_same_recipe(recipe: Recipe, before: dict[str, object], run_dir: Path) -> None:
    """Raise an error if a recipe differs from the recipe of the run to resume."""
    free = _FREE | ({"minutes"} if recipe.minutes and before.get("minutes") else set())
    kernel = recipe.gan.kernel
    has_spectra = kernel is not None and kernel.learnt
    if recipe.is_adversarial and (recipe.gan.history or has_spectra):
        free = free - {"data.patch_px"}  # stored images and spectra have this side
    now = _flatten_table(recipe.model_dump(mode="json"))
    then = _flatten_table(_update_recipe(before))

    def comparable_value(key: str, value: Any) -> object:
        if key not in FILES or value is None:
            return value  # files may be moved; pairs are compared by digest
        return "some" if key == "data.pairs" else Path(value).name.removesuffix(_MODEL)

    differences = []
    for key in {**now, **then}:
        values = [comparable_value(key, table.get(key)) for table in (then, now)]
        if key not in free and values[0] != values[1]:
            texts = [json.dumps(value).strip('"') for value in values]
            short = max(map(len, texts)) <= _LONGEST
            differs = f"was {texts[0]}, is now {texts[1]}" if short else "differs"
            differences.append(f"{key} {differs}")
    if differences:
        listed, more = "; ".join(differences[:_MAX_LISTED]), ""
        if len(differences) > _MAX_LISTED:
            more = f" and {len(differences) - _MAX_LISTED} more"
        msg = (
            f"The run in {run_dir} was started with another recipe: {listed}{more}. "
            f"{_REMEDY}."
        )
        raise core.CheckpointError(msg, code="other-run")


def _update_recipe(before: dict[str, object]) -> dict[str, object]:
    """Remove obsolete options from a saved recipe, and add defaults for new options."""
    complete_recipe = copy.deepcopy(before)
    try:
        Recipe.model_validate(complete_recipe)
    except ValidationError as error:
        for fault in error.errors():
            if fault["type"] == "extra_forbidden":
                *above, name = fault["loc"]
                table: Any = complete_recipe
                for part in above:
                    table = table[part]
                del table[name]
    try:
        return Recipe.model_validate(complete_recipe).model_dump(mode="json")
    except ValidationError:  # of a later version: compared as it is
        return complete_recipe


def _flatten_table(table: dict[str, object], above: str = "") -> dict[str, object]:
    """Flatten nested tables to a single table with dotted option names."""
    flat_values: dict[str, object] = {}
    for key, value in table.items():
        name = f"{above}{key}"
        if isinstance(value, dict) and name not in _WHOLE:
            flat_values |= _flatten_table(value, f"{name}.")
        else:
            flat_values[name] = value
    return flat_values


def _compute_file_digests(root: Path, names: set[str]) -> dict[str, str]:
    return {
        name: core.digest_path(root / name)
        for name in sorted(names)
        if (root / name).exists()
    }


def _digest_pairs(path: Path) -> str:
    """Digest a store's metadata and the first and last patch of each set."""
    store = open_pairs(path)
    record = {k: v for k, v in store.record.items() if k != "provenance"}
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name, count in store.counts.items():
        for patches in store.get_arrays(name) if count else ():
            for number in sorted({0, count - 1}):
                digest.update(np.ascontiguousarray(patches[number]).tobytes())
    return digest.hexdigest()
