"""Training callbacks: validate, save the best model and state, report progress.

Figures go to a CSV file, and to TensorBoard's log if that package is installed. We
write the CSV file ourselves, since Lightning's logger deletes it when a run is resumed.
Our early stop counts from the best model's step, and not in a state of its own as
Lightning's does, so that a run may be resumed with another patience.
"""

import copy
import csv
import functools
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import yaml
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from torch import nn

from napari_semsr import core, models
from napari_semsr.io import read_text, write, write_csv
from napari_semsr.pairing import open_pairs
from napari_semsr.training.cycle_gan import EXPECTED_GAIN
from napari_semsr.training.learner import Learner
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.run_folder import NETWORKS, PREVIEW, RunFolder
from napari_semsr.training.scenes import INSTRUMENTS
from napari_semsr.training.validation import PERCENTILES, create_preview

_READ_EVERY_S = 0.2  # chosen: as fast as a person can read


class MetricsLogger:
    """Writer of metrics to ``curve.csv`` and to the loggers.

    The table keeps its first columns and is written as a whole: a killed process leaves
    no incomplete row, and steps that a resumed run repeats replace the earlier rows.
    """

    def __init__(self, run_dir: Path, loggers: Sequence[Logger]) -> None:
        self.run_dir, self.loggers = run_dir, loggers

    def log(self, row: dict[str, float]) -> None:
        """Log the metrics of one step, keyed by name and including ``step``."""
        path, columns = self.run_dir / "curve.csv", list(row)
        before: list[list[str]] = []
        if path.exists():
            lines = csv.reader(read_text(path).splitlines())
            columns = next(lines, columns)
            whole = [one for one in lines if len(one) == len(columns)]
            before = [one for one in whole if _get_step(columns, one) < row["step"]]
        texts = {name: f"{value:.6g}" for name, value in row.items()}
        texts["step"] = f"{row['step']:.0f}"  # all digits: each step is one row
        now = [texts.get(name, "") for name in columns]
        write_csv(path, [columns, *before, now])
        figures = {name: value for name, value in row.items() if name != "step"}
        for logger in self.loggers:
            logger.log_metrics(figures, int(row["step"]))
            logger.experiment.flush()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close the files of the loggers."""
        for logger in self.loggers:
            logger.finalize("closed")


def _get_step(columns: Sequence[str], row: Sequence[str]) -> float:
    """Return the step of a row, or infinity if it has none."""
    try:
        return float(row[columns.index("step")])
    except ValueError:
        return math.inf


_NAMES = {
    "gain_db": f"gain {{:+.2f}} {core.DB}",
    EXPECTED_GAIN: f"expected gain {{:+.2f}} {core.DB}",
    "ssim": "SSIM {:.4f}",
    "frc_per_px": "FRC to {:.3f} per px",
    "hidden_db": f"{{:+.2f}} {core.DB} on masked pixels",
}


@dataclass(frozen=True, slots=True)
class StepReport(core.Progress):
    """Progress of a training run."""

    loss: float = field(kw_only=True)  # of the last step


class Recorder(Callback):
    """Callback that validates, saves the best model and state, and reports progress.

    Of several processes only the one with `writes` evaluates and writes. `reports`
    receives progress from the training thread; set `stop` to end the run after its
    current step; `begin` is called once, after the first step and before anything is
    written. `best` holds the figures of the best model so far. The state is saved at
    each validation, and every `save_every_s`, since a run may be killed.
    """

    def __init__(
        self,
        folder: RunFolder,
        best: dict[str, float],
        *,
        writes: bool = True,
        save_every_s: float = 300.0,
    ) -> None:
        self.folder, self.recipe, self.best = folder, folder.recipe, best
        self.writes, self.save_every_s = writes, save_every_s
        self._saved_s = time.monotonic()
        loggers: list[Logger] = []
        with suppress(ModuleNotFoundError):  # without TensorBoard
            loggers = [TensorBoardLogger(folder.path, name="", version="board")]
        self.metrics = MetricsLogger(folder.path, loggers)
        self.reports: queue.Queue[core.Progress] = queue.Queue()
        self.stop = threading.Event()
        self.begin: Callable[[], None] = lambda: None
        self._has_started = False
        self._loss, self._read_s = math.nan, -math.inf  # the last that was read
        self._start: tuple[nn.Module, dict[str, float]] | None = None

    def report_scenes(self, scene_count: int, count: int) -> None:
        """Report progress in simulating scenes; raise `Cancelled` if asked to stop."""
        if self.stop.is_set():
            raise core.Cancelled
        self.reports.put(core.Progress(scene_count, count, "simulating scenes"))

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Evaluate the initial model of a supervised run, as the baseline."""
        begins = self.recipe.start_from is not None and trainer.global_step == 0
        if self.recipe.is_adversarial or not (begins and self.writes):
            return
        figures = module.validate_pairs()
        if not math.isnan(figures.get(self.recipe.measure, math.nan)):
            self._start = copy.deepcopy(module.best_network), figures

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, *_: object
    ) -> None:
        """Report each step; validate and save at the specified intervals."""
        step = trainer.global_step
        last = min(self.recipe.steps, self.recipe.stop_after or self.recipe.steps)
        schedule_step = int(_broadcast_value(trainer, module.schedule_step(step)))
        is_evaluated = step % self.recipe.validate_every == 0 or schedule_step >= last
        now, loss = time.monotonic(), outputs["loss"]
        # on a GPU only a few times per second, since reading blocks
        is_due = loss.device.type == "cpu" or now - self._read_s >= _READ_EVERY_S
        if is_evaluated or is_due:
            self._loss, self._read_s = float(loss), now
        loss = self._loss
        is_stopped = bool(_broadcast_value(trainer, self.stop.is_set()))
        if is_stopped and not self._has_started:
            trainer.should_stop = True
            return
        # claim the folder, now that there is something to write
        if not self._has_started:
            self._has_started = True
            self.begin()
            if self._start is not None:
                (network, figures), self._start = self._start, None
                self._save_best_model(network, None, figures, 0)
        if is_evaluated:
            self._validate_model(trainer, module, loss)
        elif is_stopped or _broadcast_value(
            trainer, time.monotonic() - self._saved_s >= self.save_every_s
        ):
            module.check_weights()
            self._save_state(trainer)
        stale, patience = False, self.recipe.early_stop
        if patience is not None:
            since = step - self.best.get("step", step)
            stale = since >= patience * self.recipe.validate_every
        if is_stopped or schedule_step >= last or _broadcast_value(trainer, stale):
            trainer.should_stop = True
        measure = EXPECTED_GAIN if EXPECTED_GAIN in self.best else self.recipe.measure
        state = "no ground truth" if self.best else "not yet evaluated"
        if measure in self.best:
            state = "best " + _NAMES[measure].format(self.best[measure])
        sentence = f"loss {loss:.4f}, {state}"
        self.reports.put(StepReport(schedule_step, last, sentence, loss=loss))

    def _validate_model(
        self, trainer: lightning.Trainer, module: Learner, loss: float
    ) -> None:
        module.check_weights()
        if not self.writes:
            self._save_state(trainer)
            return
        step, figures = trainer.global_step, module.validate_pairs()
        measure = EXPECTED_GAIN if EXPECTED_GAIN in figures else self.recipe.measure
        terms = {name: float(value) for name, value in module.terms.items()}
        with self.folder.convert_save_errors():
            self.metrics.log({"step": step, "loss": loss, **figures, **terms})
        value = figures.get(measure, math.inf)  # without a measure the newest is kept
        if math.isnan(value):
            msg = (
                f"The {measure} of the held-out pairs is NaN at step {step}; check the "
                "validation pairs for NaN pixels."
            )
            raise core.SemsrError(msg, code="score-not-finite")
        better = value == math.inf or value > self.best.get(measure, -math.inf)
        # pixel errors are lowest before the discriminators contribute, so that the best
        # model would otherwise never be one trained with them
        is_first_adversarial = (
            self.recipe.is_adversarial
            and bool(self.best)
            and self.best["step"] <= self.recipe.gan.content_only_steps < step
        )
        if better or is_first_adversarial:
            self._save_best_model(
                module.best_network, module.auxiliary_networks(), figures, step
            )
        self._save_state(trainer)
        with self.folder.convert_save_errors():
            preview = create_preview(
                module.best_network, self.recipe, module.validator.pairs
            )
            if preview is not None:
                write(preview, self.folder.path / PREVIEW, overwrite=True)

    def _save_best_model(
        self,
        network: nn.Module,
        auxiliary: nn.Module | None,
        figures: dict[str, float],
        step: int,
    ) -> None:
        """Save the best network so far and its auxiliary networks."""
        self.best.clear()
        self.best.update(figures, step=step)
        with self.folder.convert_save_errors():
            card = create_model_card(self.recipe, network, self.best)
            models.save_model(self.folder.model_file, network, card)
            if auxiliary is not None:
                models.save_weights(self.folder.path / NETWORKS, auxiliary.state_dict())

    def _save_state(self, trainer: lightning.Trainer) -> None:
        self.folder.save_state(trainer, self.best)
        self._saved_s = time.monotonic()


def _broadcast_value(trainer: lightning.Trainer, value: float) -> float:
    """Broadcast a value from the first process if several processes train together."""
    if trainer.world_size == 1:
        return value
    return float(trainer.strategy.broadcast(value))


def create_model_card(
    recipe: Recipe, network: nn.Module, validation: dict[str, float]
) -> models.ModelCard:
    """Create the model card of a trained network, without local folder names."""
    stride = int(getattr(network, "stride", 1))
    options = yaml.safe_dump(recipe.architecture_options)
    probe_result = probe_architecture(recipe.architecture, options)
    return models.ModelCard(
        name=recipe.name,
        architecture=recipe.architecture,
        options=recipe.architecture_options,
        description=recipe.description,
        limits=recipe.limits,
        licence=recipe.licence,
        scale=int(getattr(network, "scale", 1)),
        stride=stride,
        receptive_field=probe_result.halo or 0,
        effective_field=models.measure_effective_fields(
            getattr(network, "local", network), stride=stride, halo=probe_result.halo
        ),
        norms=probe_result.norms > 0,
        input_percentiles=PERCENTILES,
        pixel_size_nm=_get_training_pixel_size(recipe),
        training={
            "recipe": recipe.to_card_record(),
            "validation": {k: round(float(v), 4) for k, v in validation.items()},
            "learnt_from": _list_training_data(recipe),
        },
    )


_digest = functools.lru_cache(maxsize=1024)(core.digest_path)
"""Cached file digest, computed once for all models that a run saves."""


def _list_training_data(recipe: Recipe) -> list[object]:
    """List the images and areas that a model and its starting model were trained on."""
    sources: list[Any] = []
    if recipe.start_from is not None:
        start = models.read_card(models.resolve_model_path(recipe.start_from))
        sources += start.training.get("learnt_from", [])
    if recipe.data.pairs is not None and recipe.kind != "blind-spot":
        pairs = open_pairs(Path(recipe.data.pairs)).list_training_images()
        sources += [entry for entry in pairs if entry not in sources]
    if recipe.has_simulated_scenes and recipe.data.sources.get("images"):
        data = recipe.data
        files = {Path(data.root) / e.file for e in (*data.train, *data.validation)}
        if data.scanned > 0:
            scans = Path(data.scans_root)
            files |= {scans / name for e in data.scans for name in (e.low, e.high)}
        keys = {(entry["name"], entry["digest"]) for entry in sources}
        for file in filter(Path.is_file, sorted(files)):
            roots = [r for r in (data.root, data.scans_root) if file.is_relative_to(r)]
            within = roots[0] if roots else file.parent
            name, digest = file.relative_to(within).as_posix(), _digest(file)
            if (name, digest) not in keys:  # no areas: patches are cut anywhere
                entry = {"name": name, "digest": digest, "unit": "px", "areas": None}
                sources.append(entry)
    return sources


def _get_training_pixel_size(recipe: Recipe) -> core.FloatPair | None:
    """Return the pixel size of the training data, or None if it is not unique."""
    if recipe.data.pairs is None:
        instruments = (INSTRUMENTS.get(name) for name in recipe.data.sources)
        pixels = {None if one is None else one.pixel_nm for one in instruments}
        pixel = pixels.pop() if len(pixels) == 1 else None
        return None if pixel is None else (pixel, pixel)
    # that of LOW, if the model it started from states a pixel size
    if recipe.start_from is None:
        return None
    start = models.read_card(models.resolve_model_path(recipe.start_from))
    record = open_pairs(Path(recipe.data.pairs)).record
    fine = record.get("pixel_size_nm")
    if start.pixel_size_nm is None or fine is None:
        return start.pixel_size_nm
    pixel = float(fine) * int(record["scale"])
    return pixel, pixel


@functools.lru_cache(maxsize=8)
def probe_architecture(architecture: str, options: str) -> models.ProbeResult:
    """Probe an architecture with an untrained network, since weights do not matter."""
    plain = models.build_network(architecture, yaml.safe_load(options))
    stride = int(getattr(plain, "stride", 1))
    return models.probe_network(getattr(plain, "local", plain), stride=stride)
