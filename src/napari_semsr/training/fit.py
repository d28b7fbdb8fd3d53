"""Resumable training run of a recipe, writing a model file and a learning curve.

`train` is the whole run. Lightning's trainer runs in a separate thread, so that the job
is a generator that a panel or a command can drive and stop. The files of a run are
described in `napari_semsr.training.run_folder`.
"""

import copy
import logging
import os
import queue
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytorch_lightning as lightning
import torch
from torch import nn
from torch.nn import functional

from napari_semsr import core, models
from napari_semsr.io import StoreLock
from napari_semsr.pairing import PairStore, open_pairs
from napari_semsr.restoration import LinearFit, fit_linear_filter
from napari_semsr.training.adversarial import PairedGan
from napari_semsr.training.batches import TrainingData
from napari_semsr.training.callbacks import Recorder, create_model_card
from napari_semsr.training.cycle_gan import CycleGan
from napari_semsr.training.learner import (
    BlindSpotLearner,
    Learner,
    RestorerLearner,
    SupervisedLearner,
)
from napari_semsr.training.patches import open_pair_store, scale_to_unit_range
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.run_folder import BANKS, RunFolder
from napari_semsr.training.validation import (
    Validator,
    collect_validation_fields,
    read_stored_pairs,
)

_LEARNERS: dict[str, type[Learner]] = {
    "restorer": RestorerLearner,
    "supervised": SupervisedLearner,
    "paired-gan": PairedGan,
    "cycle-gan": CycleGan,
    "blind-spot": BlindSpotLearner,
}
_LARGEST_PX = 2048  # of the patches that a recipe may ask for
_BLOCK = 16  # channels
_WORKERS_END_S = 15.0  # chosen: torch's workers check every 5 s if their parent lives
_CPU = torch.device("cpu")
_COMPILERS = ("torch._dynamo", "torch._inductor", "triton")
_CHATTER = ("pytorch_lightning", "lightning_fabric")


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Result of a training run."""

    steps: int  # in total
    validation: dict[str, float]  # figures of the best model, and its step
    model: Path  # the best one
    comparison: "Comparison | None" = None  # with simpler methods, on held-out pairs


def train(
    recipe: Recipe,
    run_dir: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    bank_folder: str | None = None,
) -> core.Job[TrainResult]:
    """Train a model from a recipe; return the best model's file and metrics.

    `run_dir` must be new or empty, or that of the run to resume from its last saved
    state, on any device; `overwrite` removes the files of an earlier run. Scenes made
    in advance are stored in the bank folder, which may be anywhere; one that a recipe
    names must be in the folder of the run. Raises an `OptionError` or `ShapeError` if a
    device is missing or the network cannot take the recipe's patches; a `WriteError` or
    `CheckpointError` if the folder is in use, or there is nothing to resume; a
    `DeviceMemoryError` if memory runs out; a `SemsrError` if the loss is not finite.
    """
    place = choose_training_device(recipe, device)
    recipe = _set_bank_folder(recipe.reset_unused_options(), run_dir, bank_folder)
    network = build_initial_network(recipe)
    _check_patches(network, recipe)
    bf16 = should_use_bf16(recipe, network, place)
    initial_network = copy.deepcopy(network)
    first, best = is_main_process(recipe), {}
    folder = RunFolder(run_dir, recipe)
    with _restore_environment(), folder.remove_empty_folders(), ExitStack() as stack:
        if first:
            # when resuming, workers of a killed run may still have to exit
            patience_s = _WORKERS_END_S if resume else 0
            lock = StoreLock(run_dir.resolve(), patience_s=patience_s)
            stack.callback(lock.release)
            best = folder.check(resume=resume, overwrite=overwrite)
        recorder = Recorder(folder, best, writes=first)
        benchmarks = bool(torch.backends.cudnn.benchmark)  # Lightning does not reset it
        stack.callback(setattr, torch.backends.cudnn, "benchmark", benchmarks)
        trainer = _create_trainer(recipe, run_dir, recorder, place, bf16=bf16)

        def run_training() -> None:
            learner = make_learner(network, recipe)
            if first:
                inputs = folder.digest_inputs()
                if resume:
                    folder.check_inputs(inputs)
                recorder.begin = partial(folder.begin, inputs, resume=resume)
            state = folder.state_file if resume else None
            first_step = folder.read_step_count() if resume else 0
            data = TrainingData(
                recipe, _get_scale(network), first_step, recorder.report_scenes
            )
            if recorder.stop.is_set():
                raise core.Cancelled
            with _silence_lightning():
                # The recorder saves the state and the best model.
                trainer.fit(
                    learner, datamodule=data, ckpt_path=state, weights_only=True
                )

        yield from _run_in_thread(run_training, recorder)
        comparison = None
        if first and folder.model_file.is_file():
            yield core.Progress(
                recipe.steps, recipe.steps, "evaluating on held-out pairs"
            )
            comparison = compare_models(recipe, folder.model_file, initial_network)
            if comparison is not None and not comparison.kept:
                best = models.read_card(folder.model_file).training["validation"]
    return TrainResult(trainer.global_step, best, folder.model_file, comparison)


# Set-up of a run: the network, the checks before any work, and the learner.


def _set_bank_folder(recipe: Recipe, run_dir: Path, folder_name: str | None) -> Recipe:
    """Set the scene bank folder, by default inside the run folder."""
    if not recipe.data.bank or not recipe.has_simulated_scenes:
        return recipe
    inside = run_dir.resolve()
    place = Path(folder_name or recipe.data.bank_folder or inside / BANKS).resolve()
    if folder_name is None and not place.is_relative_to(inside):
        msg = (
            f"data.bank_folder must be inside the run folder {inside}, got {place}; "
            "remove it from the recipe, or pass `bank_folder`."
        )
        raise core.OptionError(msg, code="outside-folder")
    return recipe.replace(data=recipe.data.replace(bank_folder=str(place)))


def build_initial_network(recipe: Recipe) -> nn.Module:
    """Build the network of a training run with its initial weights."""
    torch.manual_seed(recipe.seed)
    network = models.build_network(recipe.architecture, recipe.architecture_options)
    if recipe.start_from is not None:
        _copy_weights(network, recipe.start_from)
    if recipe.local_from is not None:
        _copy_weights(getattr(network, "local", network), recipe.local_from)
    return network


def _copy_weights(network: nn.Module, name: str) -> None:
    """Copy the weights of another model if their names and shapes match."""
    module = models.load_model(name).module
    state = module.state_dict()
    own = network.state_dict()
    same = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    if 2 * len(same) < len(state):
        msg = (
            f"Only {len(same)} of {len(state)} weights of {Path(name).name} fit this "
            "architecture; remove start_from from the recipe."
        )
        raise core.CheckpointError(msg, code="weights-mismatch")
    network.load_state_dict({**own, **same})


def _get_scale(network: nn.Module) -> int:
    return int(getattr(network, "scale", 1))


def _check_patches(network: nn.Module, recipe: Recipe) -> None:
    """Raise an error if network, discriminator or store cannot use the patch size."""
    side, stride = recipe.data.patch_px, int(getattr(network, "stride", 1))
    if recipe.data.pairs is not None:
        open_pair_store(recipe, _get_scale(network))
    if side % stride:
        near = max(side // stride, 1) * stride
        msg = (
            f"patch_px must be a multiple of the network stride of {stride} px, got "
            f"{side}; use {near}."
        )
        raise core.OptionError(msg, code="patch-size-unsuitable")
    if not recipe.is_adversarial:
        return
    name, options = recipe.gan.discriminator, recipe.gan.discriminator_options
    with torch.device("meta"):  # shapes only; no random numbers are used
        judge = models.build_discriminator(name, options)
    whole = recipe.data.pairs is not None
    count = max(recipe.batch, 1 if whole else recipe.data.patches_per_scene)
    shape, scale = (count, int(options.get("channels", 1))), _get_scale(network)
    for larger in range(side, _LARGEST_PX + 1, stride):
        with suppress(RuntimeError, ValueError):  # a layer has no pixel left
            judge(torch.empty((*shape, *2 * (larger * scale,)), device="meta"))
            break
    else:
        return
    if larger > side:
        msg = (
            f"The discriminator {name} is too deep for patch_px = {side}: use at "
            f"least {larger}."
        )
        raise core.OptionError(msg, code="patch-size-unsuitable")


def choose_training_device(recipe: Recipe, name: str = "auto") -> torch.device:
    """Choose the training device from the name given by the user.

    ``auto`` takes a CUDA GPU or the CPU: other devices have not been validated for
    training. Warns if a GPU fails its test; raises an `OptionError` if a device is
    missing, or there are fewer than the recipe needs.
    """
    (kind, _, number), device = name.partition(":"), None
    if recipe.devices * recipe.nodes > 1:
        if number or kind not in ("auto", "cpu", "cuda"):
            msg = (
                f"Training on several devices needs cpu or cuda, got {name}; select "
                "GPUs with CUDA_VISIBLE_DEVICES."
            )
            raise core.OptionError(msg, code="device-unsuitable")
        # each process has one GPU, and tries no other
        has_gpus = models.device_count("cuda") and kind != "cpu"
        if has_gpus or kind != "cuda":
            device = torch.device("cuda" if has_gpus else "cpu")
    if device is None:
        found = models.find_training_device(name)
        if found.note is not None:
            core.warn(found.note)
        device = found.device
    there, what = os.cpu_count() or 1, "processors"
    if device.type != "cpu":
        there, what = models.device_count(device.type), "GPUs"
    if recipe.devices > there:
        msg = (
            f"devices must not exceed the number of {what} on this machine ({there}), "
            f"got {recipe.devices}."
        )
        raise core.OptionError(msg, code="device-missing")
    lacking = [n for n in ("MASTER_ADDR", "MASTER_PORT") if n not in os.environ]
    # by torchrun or SLURM
    by_launcher = any(name in os.environ for name in _WHOLE_RANKS)
    if recipe.nodes > 1 and lacking and not by_launcher:
        msg = (
            f"nodes: {recipe.nodes} requires {' and '.join(lacking)} in the "
            "environment of each machine (address and a port of the first machine), "
            "and NODE_RANK on the others."
        )
        raise core.OptionError(msg, code="missing-value")
    return device


# Variables that Lightning reads, or sets for the processes that it starts.
_WHOLE_RANKS = ("RANK", "SLURM_PROCID")
_PARTIAL_RANKS = ("NODE_RANK", "LOCAL_RANK")
_VARIABLES = (*_PARTIAL_RANKS, "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE")


def is_main_process(recipe: Recipe) -> bool:
    """Return whether this is the main process, which writes files."""
    if recipe.devices * recipe.nodes == 1:
        return True
    whole = [int(os.environ[name]) for name in _WHOLE_RANKS if name in os.environ]
    partial_ranks = [int(os.environ.get(name, "0")) for name in _PARTIAL_RANKS]
    return not (whole[0] if whole else any(partial_ranks))


@contextmanager
def _restore_environment() -> Iterator[None]:
    """Restore environment variables changed by Lightning so that later runs work."""
    names = (*_VARIABLES, "OMP_NUM_THREADS")
    before = {name: os.environ[name] for name in names if name in os.environ}
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


def should_use_bf16(
    recipe: Recipe, network: nn.Module, device: torch.device = _CPU
) -> bool:
    """Return whether to train in mixed precision, given the recipe and device."""
    if recipe.precision == "fp32":
        return False
    if device.type != "cpu":
        if recipe.precision == "bf16":
            models.check_bf16_support(device)
            return True
        return models.has_fast_bf16(device)
    # of dilated convolutions whose gradients are wrong in bf16 with channels last:
    # PyTorch 2.13 returns NaN or ends the process
    wrong_channels = next(
        (
            channels
            for module in network.modules()
            if isinstance(module, nn.Conv2d) and max(module.dilation) > 1
            for channels in (module.in_channels, module.out_channels)
            if channels % _BLOCK
        ),
        None,
    )
    if recipe.precision == "bf16":
        if wrong_channels is not None:
            msg = (
                "precision: bf16 fails on a CPU for dilated convolutions with a "
                f"channel count that is not a multiple of {_BLOCK}, got "
                f"{wrong_channels}; use fp32 or auto."
            )
            raise core.OptionError(msg, code="precision-unsupported")
        return True
    return wrong_channels is None and models.has_fast_bf16(device)


def make_learner(network: nn.Module, recipe: Recipe) -> Learner:
    """Create the learner of a recipe, with the images that select the best model."""
    # a survey only detects faults, so no restored field can evaluate it
    alone = recipe.learns == "survey"
    pairs = [] if alone else collect_validation_fields(recipe, _get_scale(network))
    learner = _LEARNERS[recipe.kind](network, recipe, pairs)
    if recipe.start_from is not None and recipe.is_adversarial:
        learner.load_auxiliary_networks(
            models.load_training_networks(recipe.start_from)
        )
    return learner


# Lightning in a separate thread.


def _create_trainer(
    recipe: Recipe,
    run_dir: Path,
    recorder: Recorder,
    device: torch.device,
    *,
    bf16: bool,
) -> lightning.Trainer:
    for name in _CHATTER:
        logging.getLogger(name).setLevel(logging.WARNING)
    manual = recipe.is_adversarial  # these learners clip their gradients themselves
    several = recipe.devices * recipe.nodes > 1
    with _silence_lightning():  # such as to use an idle GPU
        return lightning.Trainer(
            max_steps=min(recipe.steps, recipe.stop_after or recipe.steps),
            precision="bf16-mixed" if bf16 else "32-true",
            default_root_dir=run_dir,
            accelerator=device.type,
            devices=[device.index or 0]
            if device.type == "cuda" and not several
            else recipe.devices,
            num_nodes=recipe.nodes,
            # with discriminators, some weights have no gradients in a backward pass
            strategy=f"ddp_find_unused_parameters_{str(manual).lower()}"
            if several
            else "auto",
            callbacks=[recorder],
            benchmark=device.type == "cuda",  # all batches are of one shape
            gradient_clip_val=None if manual else recipe.clip_norm,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )


@contextmanager
def _silence_lightning() -> Iterator[None]:
    """Suppress Lightning's advice."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*available but not used.*")
        yield


def _run_in_thread(
    work: Callable[[], None], recorder: Recorder
) -> Generator[core.Progress, None, None]:
    """Run `work` in a thread and yield its reports; closing the generator stops it."""
    failures: list[Exception] = []

    def run_guarded() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - carried to the caller's thread
            failures.append(error)

    thread = threading.Thread(target=run_guarded, name="semsr-train", daemon=True)
    try:
        yield core.Progress(0, recorder.recipe.steps, "Preparing images")
        thread.start()
        while thread.is_alive() or not recorder.reports.empty():
            try:
                yield recorder.reports.get(timeout=0.2)
            except queue.Empty:
                continue
    finally:
        recorder.stop.set()
        if thread.ident is not None:  # otherwise it was never started
            thread.join()
        recorder.metrics.close()
    if failures:
        raise _translate_error(failures[0]) from failures[0]


def _translate_error(error: Exception) -> Exception:
    if isinstance(error, core.SemsrError):
        message = str(error)
        if "Original Traceback" not in message:
            return error
        # torch wraps the error of a worker process in its traceback
        last = message.rstrip().splitlines()[-1]
        sentence = last.partition(f"{type(error).__name__}: ")[2] or last
        return type(error)(sentence, code=error.code)
    if type(error).__module__.startswith(_COMPILERS):
        msg = (
            "compiled: true fails with this PyTorch and device: "
            f"{models.get_first_error_line(error)}. Set compiled: false in "
            "the recipe."
        )
        return core.OptionError(msg, code="compiler-unusable")
    if models.is_out_of_memory_error(error):
        msg = "Not enough memory for training; lower batch or patch_px in the recipe."
        return core.DeviceMemoryError(msg)
    if "loading state_dict" in str(error) or "optimizer state" in str(error):
        msg = (
            "The saved state belongs to another network or recipe; resume with the "
            "original recipe, or start again with `overwrite`."
        )
        return core.CheckpointError(msg, code="other-run")
    return error


# Evaluation of a trained model on held-out pairs.
#
# The input, the best linear filter, the model that training started from, and the
# trained model are evaluated on the test pairs, or if there are none on the validation
# pairs.

_TAPS = 21  # pixels of HIGH along each side; as in the benchmarks of restoration
_BORDER = 6  # least side of a patch over that of the filter; chosen: edges are mirrored
_PLACES = 1 << 18  # positions; chosen: 500 for each tap, in seconds
_FIGURES = ("psnr_db", "ssim", "frc_per_px")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Evaluation of a trained model compared with simpler methods."""

    set: str  # "test" or "validation"
    pairs: int
    begun_with: str | None  # the untouched model
    # "input", "linear filter", "untouched", "trained": psnr_db, ssim, frc_per_px
    rows: dict[str, dict[str, float]]
    kept: bool  # whether the trained model is better than the untouched one
    # Expected error of the registration of the pairs, also in pixels of LOW
    map_error_nm: float | None = None
    map_error_px: float | None = None


def compare_models(
    recipe: Recipe, model: Path, network: nn.Module
) -> Comparison | None:
    """Evaluate a trained model; save `network` instead if the model is worse."""
    # None without ground truth: no pairs, unpaired ones, or noisy images only
    path = recipe.data.pairs
    if (
        path is None
        or recipe.kind == "blind-spot"
        or not open_pairs(Path(path)).is_paired
    ):
        return None
    trained_model = models.load_model(str(model))
    before = trained_model.card.training.get("comparison")
    if before is not None:  # from a resumed run that brought no improvement
        return Comparison(**before)
    scale = _get_scale(network)
    store = open_pair_store(recipe, scale)
    name = "test" if store.counts["test"] else "validation"
    pairs = read_stored_pairs(store, name)
    linear = fit_linear_filter_to_pairs(store, scale)
    # beyond a patch nothing is known, and a mosaic has few borders
    margin = linear.kernels.shape[-1] // 2 * scale
    validator = Validator(
        pairs, cross_frc=True, margin=margin, shift_px=recipe.shift_px
    )
    networks: dict[str, nn.Module] = {
        "input": _BicubicUpsampling(scale),
        "linear filter": linear,
    }
    if recipe.start_from is not None:
        networks["untouched"] = network
    networks["trained"] = trained_model.module
    figures = {which: validator.evaluate(each) for which, each in networks.items()}
    is_better, measure = True, recipe.measure
    # with a discriminator the output should look like ground truth, not be close to it
    if recipe.start_from is not None and not recipe.is_adversarial:
        is_better = figures["trained"][measure] > figures["untouched"][measure]
    comparison = Comparison(
        name,
        len(pairs),
        None if recipe.start_from is None else Path(recipe.start_from).stem,
        {
            which: {figure: row[figure] for figure in _FIGURES if figure in row}
            for which, row in figures.items()
        },
        is_better,
        *(store.transform_error or (None, None)),
    )
    card = trained_model.card
    if not is_better:
        start = models.read_card(models.resolve_model_path(str(recipe.start_from)))
        initial_figures = make_learner(network, recipe).validate_pairs()
        card = create_model_card(recipe, network, {**initial_figures, "step": 0})
        learnt_from = start.training.get("learnt_from", [])
        card = card.model_copy(
            update={
                "pixel_size_nm": start.pixel_size_nm,
                "resample_factors": start.resample_factors,
                "training": {**card.training, "learnt_from": learnt_from},
            }
        )
    record = {**card.training, "comparison": asdict(comparison)}
    card = card.model_copy(update={"training": record})
    models.save_model(model, trained_model.module if is_better else network, card)
    return comparison


class _BicubicUpsampling(nn.Module):
    """Bicubic upsampling of the input to the ground-truth grid."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return models.upsample_bicubic(x, self.scale)


class LinearFilter(nn.Module):
    """Linear filters, one for each HIGH pixel within a LOW pixel, row by row."""

    def __init__(self, fits: Sequence[LinearFit]) -> None:
        super().__init__()
        self.scale = round(len(fits) ** 0.5)
        kernels = np.stack([fit.kernel for fit in fits])
        self.kernels = nn.Parameter(torch.from_numpy(kernels[:, None]))
        self.offsets = nn.Parameter(torch.tensor([fit.offset for fit in fits]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Filter images (B, 1, Y, X) with mirrored borders."""
        half = self.kernels.shape[-1] // 2
        wide = functional.pad(x, (half, half, half, half), mode="reflect")
        phases = functional.conv2d(wide, self.kernels, self.offsets)
        return functional.pixel_shuffle(phases, self.scale)


def fit_linear_filter_to_pairs(store: PairStore, scale: int) -> LinearFilter:
    """Fit the least-squares filter from LOW to HIGH on the training pairs."""
    low, high = store.get_arrays("train")
    taps = min(_TAPS // scale, int(low.shape[1]) // _BORDER) // 2 * 2 + 1
    count = max(1, min(low.shape[0], _PLACES // (int(low.shape[1]) - taps + 1) ** 2))
    numbers = np.linspace(0, low.shape[0] - 1, count).round().astype(int)
    pairs = [
        [
            scale_to_unit_range(np.asarray(part[number]), grey)
            for part, grey in zip(
                (low, high), store.get_ranges("train", number), strict=True
            )
        ]
        for number in numbers.tolist()
    ]
    phases = (
        [(a, b[y::scale, x::scale]) for a, b in pairs]
        for y, x in np.ndindex(scale, scale)
    )
    return LinearFilter([fit_linear_filter(phase, taps) for phase in phases])
