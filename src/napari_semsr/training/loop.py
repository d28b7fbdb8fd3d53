"""The training loop: a recipe in, a model file and a curve out, resumable.

A run directory holds ``recipe.yaml`` (what was asked), ``last.ckpt`` (the state to
resume from), ``curve.csv`` (one row for each validation) and ``NAME.safetensors`` (the
best model so far). Lightning runs in a thread of its own, so that the job stays a
generator that a panel or a command can drive and stop.
"""

import csv
import queue
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
import yaml
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader

from napari_semsr.core.errors import (
    CheckpointError,
    DeviceMemoryError,
    SemsrError,
    WriteError,
)
from napari_semsr.core.progress import Job, Progress
from napari_semsr.models.cards import ModelCard
from napari_semsr.models.checkpoint import load_model, save_model
from napari_semsr.models.receptive_field import measure
from napari_semsr.models.registry import build
from napari_semsr.models.unveiled import Unveiled
from napari_semsr.training.data import SceneDataset, validation_pairs
from napari_semsr.training.recipes import Recipe
from napari_semsr.training.supervised import PERCENTILES, SupervisedL1

__all__ = ["TrainResult", "train"]

_RECIPE = "recipe.yaml"
_RUN_FILES = ("curve.csv", "last.ckpt", "last.ckpt.partial", "best.yaml")


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training run gave.

    Attributes
    ----------
    steps : int
        Optimiser steps done in all.
    validation : dict
        Gains in dB of the best model on the validation fields, and its step.
    model : pathlib.Path
        The best model.
    seconds : float
        Time of this run.
    """

    steps: int
    validation: dict[str, float]
    model: Path
    seconds: float


class _Recorder(Callback):
    """Validates, keeps the best model, saves the state, and reports."""

    def __init__(self, run_dir: Path, recipe: Recipe, best: dict[str, float]) -> None:
        self.run_dir, self.recipe, self.best = run_dir, recipe, best
        self.reports: queue.Queue[Progress] = queue.Queue()
        self.stop = threading.Event()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, *_: Any
    ) -> None:
        step = trainer.global_step
        if self.stop.is_set():
            trainer.should_stop = True
        last = min(self.recipe.steps, self.recipe.stop_after or self.recipe.steps)
        if step % self.recipe.validate_every == 0 or step >= last:
            self._validate(trainer, module, float(outputs["loss"]))
        gain = self.best.get("gain_db", float("nan"))
        text = f"loss {float(outputs['loss']):.4f}, best gain {gain:+.2f} dB"
        self.reports.put(Progress(step, last, text))

    def _validate(
        self, trainer: lightning.Trainer, module: SupervisedL1, loss: float
    ) -> None:
        step = trainer.global_step
        found = module.validate_pairs()
        _append(self.run_dir / "curve.csv", {"step": step, "loss": loss, **found})
        if found["gain_db"] > self.best.get("gain_db", -torch.inf):
            self.best.clear()
            self.best.update(found, step=step)
            path = self.run_dir / f"{self.recipe.name}.safetensors"
            save_model(
                path, module.network, _card(self.recipe, module.network, self.best)
            )
        _save_state(trainer, self.run_dir, self.best)


def _append(path: Path, row: dict[str, float]) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, row.keys())
        if new:
            writer.writeheader()
        writer.writerow({k: f"{v:.6g}" for k, v in row.items()})


def _save_state(
    trainer: lightning.Trainer, run_dir: Path, best: dict[str, float]
) -> None:
    """Write the state beside the last one, then put it in its place."""
    partial = run_dir / "last.ckpt.partial"
    trainer.save_checkpoint(partial)
    partial.replace(run_dir / "last.ckpt")
    (run_dir / "best.yaml").write_text(yaml.safe_dump(dict(best)), encoding="utf-8")


def _without_paths(recipe: Recipe) -> dict[str, Any]:
    """Give the recipe as a card may carry it: no folder of this machine."""
    plain = recipe.model_dump(mode="json", exclude={"data": {"root"}})
    if recipe.start_from is not None:
        plain["start_from"] = Path(recipe.start_from).name
    return plain


def _card(
    recipe: Recipe, network: nn.Module, validation: dict[str, float]
) -> ModelCard:
    stride = int(getattr(network, "stride", 1))
    plain = build(recipe.architecture, recipe.architecture_options)
    return ModelCard(
        name=recipe.name,
        architecture=recipe.architecture,
        options=recipe.architecture_options,
        description=recipe.description,
        limits=recipe.limits,
        licence=recipe.licence,
        scale=int(getattr(network, "scale", 1)),
        stride=stride,
        receptive_field=measure(getattr(plain, "local", plain), stride=stride),
        input_percentiles=PERCENTILES,
        training={
            "recipe": _without_paths(recipe),
            "validation": {k: round(float(v), 4) for k, v in validation.items()},
        },
    )


def _prepare(
    recipe: Recipe, run_dir: Path, *, resume: bool, overwrite: bool
) -> dict[str, float]:
    """Check the run directory; return what is known of the best model."""
    state = run_dir / "last.ckpt"
    if resume and not state.exists():
        msg = (
            f"There is no run to resume in {run_dir}; leave out --resume to start one."
        )
        raise CheckpointError(msg)
    held = {item.name for item in run_dir.iterdir()} if run_dir.is_dir() else set()
    if not (resume or overwrite) and held - {_RECIPE}:
        remedy = "--resume, --overwrite" if state.exists() else "--overwrite"
        msg = f"The run directory {run_dir} is not empty; give {remedy} or another one."
        raise WriteError(msg)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"The run directory {run_dir} cannot be made: {error.strerror}."
        raise WriteError(msg) from error
    if not resume:
        for name in (*_RUN_FILES, f"{recipe.name}.safetensors"):
            (run_dir / name).unlink(missing_ok=True)
    best = run_dir / "best.yaml"
    if resume and best.exists():
        return dict(yaml.safe_load(best.read_text(encoding="utf-8")))
    return {}


def _trainer(recipe: Recipe, run_dir: Path, recorder: _Recorder) -> lightning.Trainer:
    bf16 = recipe.precision == "bf16" or (
        recipe.precision == "auto" and _has_fast_bf16()
    )
    return lightning.Trainer(
        max_steps=min(recipe.steps, recipe.stop_after or recipe.steps),
        precision="bf16-mixed" if bf16 else "32-true",
        default_root_dir=run_dir,
        callbacks=[recorder],
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _has_fast_bf16() -> bool:
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _scenes(recipe: Recipe, done: int) -> DataLoader[Any]:
    """Scenes from the first one that a run of `done` steps has not seen."""
    per_step = max(1, recipe.batch // recipe.data.patches_per_scene)
    dataset = SceneDataset(
        recipe, first=done * per_step, count=(recipe.steps - done) * per_step
    )
    return DataLoader(
        dataset,
        batch_size=per_step,
        num_workers=recipe.workers,
        prefetch_factor=4 if recipe.workers else None,
        persistent_workers=False,
    )


def _take_over(network: nn.Module, path: Path) -> None:
    """Copy the weights of another model where names and shapes agree.

    One that does not look for haze starts the local part of one that does.
    """
    module = load_model(path).module
    if isinstance(network, Unveiled) and not isinstance(module, Unveiled):
        network = network.local
    given = module.state_dict()
    own = network.state_dict()
    same = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
    if 2 * len(same) < len(given):
        msg = (
            f"Only {len(same)} of {len(given)} weights of {path.name} fit this "
            "architecture; drop start_from."
        )
        raise CheckpointError(msg)
    network.load_state_dict({**own, **same})


def _first_network(recipe: Recipe) -> nn.Module:
    """Build the network that training starts from."""
    torch.manual_seed(recipe.seed)
    network = build(recipe.architecture, recipe.architecture_options)
    if recipe.start_from is not None:
        _take_over(network, Path(recipe.start_from))
    return network


def _fit(
    network: nn.Module,
    recipe: Recipe,
    recorder: _Recorder,
    trainer: lightning.Trainer,
    *,
    resume: bool,
) -> None:
    module = SupervisedL1(network, recipe, validation_pairs(recipe))
    state = recorder.run_dir / "last.ckpt" if resume else None
    done = 0
    if state is not None:
        done = int(
            torch.load(state, weights_only=True, map_location="cpu")["global_step"]
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        trainer.fit(module, _scenes(recipe, done), ckpt_path=state, weights_only=True)


def train(
    recipe: Recipe, run_dir: Path, *, resume: bool = False, overwrite: bool = False
) -> Job[TrainResult]:
    """Train a model by its recipe.

    Parameters
    ----------
    recipe : Recipe
        What to train, on what.
    run_dir : pathlib.Path
        New or empty folder for the run's files; the run's own when resuming.
    resume : bool, default=False
        Continue from the last saved state.
    overwrite : bool, default=False
        Remove the files of an earlier run from the folder and start anew.

    Returns
    -------
    TrainResult
        The best model's file and figures.

    Yields
    ------
    Progress
        Steps done, with the loss and the best gain.

    Raises
    ------
    WriteError, CheckpointError
        If the run directory is in use, or there is nothing to resume.
    SemsrError
        If the loss is not finite.
    DeviceMemoryError
        If memory ran out.
    """
    start = time.monotonic()
    network = _first_network(recipe)
    best = _prepare(recipe, run_dir, resume=resume, overwrite=overwrite)
    plain = recipe.model_dump(mode="json")
    (run_dir / _RECIPE).write_text(yaml.safe_dump(plain), encoding="utf-8")
    recorder = _Recorder(run_dir, recipe, best)
    trainer = _trainer(recipe, run_dir, recorder)
    failures: list[Exception] = []

    def work() -> None:
        try:
            _fit(network, recipe, recorder, trainer, resume=resume)
        except Exception as error:  # noqa: BLE001 - carried to the caller's thread
            failures.append(error)

    thread = threading.Thread(target=work, name="semsr-train", daemon=True)
    yield Progress(0, recipe.steps, "Preparing images")
    thread.start()
    try:
        while thread.is_alive() or not recorder.reports.empty():
            try:
                yield recorder.reports.get(timeout=0.2)
            except queue.Empty:
                continue
    finally:
        recorder.stop.set()
        thread.join()
    if failures:
        raise _translated(failures[0]) from failures[0]
    return TrainResult(
        trainer.global_step,
        best,
        run_dir / f"{recipe.name}.safetensors",
        time.monotonic() - start,
    )


def _translated(error: Exception) -> Exception:
    if isinstance(error, SemsrError):
        return error
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        msg = "Memory ran out while training; lower batch or patch_px in the recipe."
        return DeviceMemoryError(msg)
    return error
