"""The run of a recipe: a model file and a curve come out of it; it can be resumed.

`train` is the whole of it, from top to bottom. Lightning's trainer runs in a thread of
its own, so that the job stays a generator that a panel or a command can drive and stop.
What is left in the folder of a run is described in `napari_semsr.training.run_folder`.
"""

import copy
import logging
import os
import queue
import threading
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytorch_lightning as lightning
import torch
from torch import nn
from torch.nn import functional

from napari_semsr.core import (
    Cancelled,
    CheckpointError,
    DeviceMemoryError,
    Float32Array,
    IntPair,
    Job,
    OptionError,
    Progress,
    SemsrError,
    warn,
)
from napari_semsr.models import (
    ModelCard,
    bicubic,
    build,
    build_discriminator,
    check_bf16,
    device_count,
    find_training_device,
    first_line,
    has_fast_bf16,
    is_out_of_memory,
    load_beside,
    load_model,
    read_card,
    resolve,
    save_model,
)
from napari_semsr.pairing import PairStore, open_pairs
from napari_semsr.restoration import fit_linear_filter
from napari_semsr.training.adversarial import PairedGan
from napari_semsr.training.batches import TrainingData
from napari_semsr.training.blind_spot import BlindSpot
from napari_semsr.training.callbacks import Recorder, card_of
from napari_semsr.training.cycle_gan import CycleGan
from napari_semsr.training.learner import Learner, Supervised
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.restorer import RestorerLearner
from napari_semsr.training.run_folder import BANKS, RunFolder
from napari_semsr.training.stored_pairs import fitting_store, to_unit
from napari_semsr.training.validation import Validator, held_out_fields, stored_pairs

_LEARNERS: dict[str, type[Learner]] = {
    "restorer": RestorerLearner,
    "supervised": Supervised,
    "paired-gan": PairedGan,
    "cycle-gan": CycleGan,
    "blind-spot": BlindSpot,
}
_LARGEST_PX = 2048  # of the patches that a recipe may ask for
_BLOCK = 16  # channels
_CPU = torch.device("cpu")
_COMPILERS = ("torch._dynamo", "torch._inductor", "triton")
_CHATTER = ("pytorch_lightning", "lightning_fabric")


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training run gave."""

    steps: int  # done in all
    validation: dict[str, float]  # figures of the best model, and its step
    model: Path  # the best one
    comparison: "Comparison | None" = None  # with what it must beat, on held-out pairs


def train(
    recipe: Recipe,
    run_dir: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    bank_folder: str | None = None,
) -> Job[TrainResult]:
    """Train a model by its recipe; gives the best model's file and figures.

    The run's files go to a new or empty folder, or the run's own when resuming from the
    last saved state, which may be another device's; `overwrite` removes those of an
    earlier run. Scenes that were made ahead are kept in the bank folder, wherever that
    is; a recipe's own must lie in the run's folder. An `OptionError` or `ShapeError` if
    a device is not there, or fewer than the recipe wants, or the network cannot take
    its patches; a `WriteError` or `CheckpointError` if the folder is in use, or there
    is nothing to resume; a `DeviceMemoryError` if memory ran out; a `SemsrError` if the
    loss is not finite.
    """
    place = training_device(recipe, device)
    recipe = _with_bank(recipe.settle(), run_dir, bank_folder)
    network = first_network(recipe)
    _check_patches(network, recipe)
    bf16 = takes_bf16(recipe, network, place)
    initial_network = copy.deepcopy(network)
    first, best = is_first(recipe), {}
    folder = RunFolder(run_dir, recipe)
    with _environment_kept(), folder.leaving_no_empty(), ExitStack() as stack:
        if first:
            stack.enter_context(folder.ours(resume=resume))
            best = folder.check(resume=resume, overwrite=overwrite)
        recorder = Recorder(folder, best, writes=first)
        tries = bool(torch.backends.cudnn.benchmark)  # which Lightning sets for good
        stack.callback(setattr, torch.backends.cudnn, "benchmark", tries)
        trainer = _trainer(recipe, run_dir, recorder, place, bf16=bf16)

        def fit() -> None:
            learner = make_learner(network, recipe)
            if first:
                inputs = folder.digest_inputs()
                if resume:
                    folder.check_inputs(inputs)
                recorder.begin = partial(folder.begin, inputs, resume=resume)
            state = folder.state if resume else None
            first_step = folder.steps_done() if resume else 0
            scale = _scale_of(network)
            data = TrainingData(recipe, scale, first_step, recorder.making_scenes)
            if recorder.stop.is_set():
                raise Cancelled
            with _without_advice():
                # The recorder saves state and best model as it goes.
                trainer.fit(
                    learner, datamodule=data, ckpt_path=state, weights_only=True
                )

        yield from _in_thread(fit, recorder)
        comparison = None
        if first and folder.model.is_file():
            yield Progress(recipe.steps, recipe.steps, "comparing on held-out pairs")
            comparison = compare(recipe, folder.model, initial_network)
            if comparison is not None and not comparison.kept:
                best = read_card(folder.model).training["validation"]
    return TrainResult(trainer.global_step, best, folder.model, comparison)


# Set-up of a run: the network, the checks before any work, and what learns.


def _with_bank(recipe: Recipe, run_dir: Path, folder_name: str | None) -> Recipe:
    """Settle where scenes are kept: in the run's folder, unless a person says where."""
    if not recipe.data.bank or not recipe.draws:
        return recipe
    inside = run_dir.resolve()
    place = Path(folder_name or recipe.data.bank_folder or inside / BANKS).resolve()
    if folder_name is None and not place.is_relative_to(inside):
        msg = (
            f"data.bank_folder must lie in the folder of the run, {inside}, got "
            f"{place}; take it out of the recipe, or give `bank_folder`."
        )
        raise OptionError(msg, code="outside-folder")
    return recipe.replace(data=recipe.data.replace(bank_folder=str(place)))


def first_network(recipe: Recipe) -> nn.Module:
    """Build the network that training starts from, with weights that it takes over."""
    torch.manual_seed(recipe.seed)
    network = build(recipe.architecture, recipe.architecture_options)
    if recipe.start_from is not None:
        _take_over(network, recipe.start_from)
    if recipe.local_from is not None:
        _take_over(getattr(network, "local", network), recipe.local_from)
    return network


def _take_over(network: nn.Module, name: str) -> None:
    """Copy the weights of another model where names and shapes agree."""
    module = load_model(name).module
    state = module.state_dict()
    if hasattr(network, "fitted"):  # of a network that sees and finds less
        state = network.fitted(state)  # type: ignore[operator]
    own = network.state_dict()
    same = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    if 2 * len(same) < len(state):
        msg = (
            f"Only {len(same)} of {len(state)} weights of {Path(name).name} fit this "
            "architecture; drop start_from."
        )
        raise CheckpointError(msg, code="weights-mismatch")
    network.load_state_dict({**own, **same})


def _scale_of(network: nn.Module) -> int:
    return int(getattr(network, "scale", 1))


def _check_patches(network: nn.Module, recipe: Recipe) -> None:
    """Refuse patches that network, discriminator or store cannot give or take."""
    scale, side = _scale_of(network), recipe.data.patch_px
    if recipe.data.pairs is not None:
        fitting_store(recipe, scale)
    stride = int(getattr(network, "stride", 1))
    if side % stride:
        near = max(side // stride, 1) * stride
        msg = (
            f"Patches must be a multiple of the network's {stride} px, got patch_px = "
            f"{side}; {near} would do."
        )
        raise OptionError(msg, code="patch-size-unsuitable")
    check_discriminator_field(recipe, scale, stride)


def check_discriminator_field(recipe: Recipe, scale: int, stride: int) -> None:
    """Refuse patches that are too small for the discriminator, before any work."""
    if not recipe.adversarial:
        return
    name, options = recipe.gan.discriminator, recipe.gan.discriminator_options
    with torch.device("meta"):  # sizes alone; no random numbers are drawn
        judge = build_discriminator(name, options)
    side, whole = recipe.data.patch_px, recipe.data.pairs is not None
    count = max(recipe.batch, 1 if whole else recipe.data.patches_per_scene)
    shape = count, int(options.get("channels", 1))
    if _takes(judge, shape, side * scale):
        return
    for larger in range(side + stride, _LARGEST_PX + 1, stride):
        if _takes(judge, shape, larger * scale):
            msg = (
                f"The discriminator {name} is too deep for patch_px = {side}: it needs "
                f"at least {larger}."
            )
            raise OptionError(msg, code="patch-size-unsuitable")


def _takes(judge: nn.Module, shape: IntPair, side: int) -> bool:
    """Whether patches of a side pass through a network."""
    try:
        judge(torch.empty((*shape, side, side), device="meta"))
    except (RuntimeError, ValueError):
        return False
    return True


def training_device(recipe: Recipe, name: str = "auto") -> torch.device:
    """Choose where a recipe is trained, by the name that a user gave.

    ``auto`` takes a CUDA card, else the CPU: what others learn is compared with nothing
    before it is used. A warning if a card is there and fails; an `OptionError` if a
    device is not there, or fewer than the recipe wants.
    """
    device = _chosen_device(recipe, name)
    there, what = os.cpu_count() or 1, "processors"
    if device.type != "cpu":
        there, what = device_count(device.type), "GPUs"
    if recipe.devices > there:
        msg = (
            f"devices must not exceed the {there} {what} of this machine, got "
            f"{recipe.devices}."
        )
        raise OptionError(msg, code="device-missing")
    lacking = [n for n in ("MASTER_ADDR", "MASTER_PORT") if n not in os.environ]
    by_launcher = any(
        name in os.environ for name in _WHOLE_RANKS
    )  # by torchrun or SLURM
    if recipe.nodes > 1 and lacking and not by_launcher:
        msg = (
            f"nodes: {recipe.nodes} needs {' and '.join(lacking)} in the environment "
            "of each machine, a port of the first one, and NODE_RANK of the others."
        )
        raise OptionError(msg, code="missing-value")
    return device


# What Lightning reads, or writes for the processes that it starts.
_WHOLE_RANKS = ("RANK", "SLURM_PROCID")
_PARTIAL_RANKS = ("NODE_RANK", "LOCAL_RANK")
_VARIABLES = (*_PARTIAL_RANKS, "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE")


def is_first(recipe: Recipe) -> bool:
    """Whether this process, the only one or the first, is the one that writes."""
    if recipe.devices * recipe.nodes == 1:
        return True
    whole = [int(os.environ[name]) for name in _WHOLE_RANKS if name in os.environ]
    partial_ranks = [int(os.environ.get(name, "0")) for name in _PARTIAL_RANKS]
    return not (whole[0] if whole else any(partial_ranks))


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Let another run of this process start processes again, as Lightning would not."""
    before = {name: os.environ.get(name) for name in (*_VARIABLES, "OMP_NUM_THREADS")}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _chosen_device(recipe: Recipe, name: str) -> torch.device:
    kind, _, number = name.partition(":")
    if recipe.devices * recipe.nodes > 1:
        if number or kind not in ("auto", "cpu", "cuda"):
            msg = (
                f"Several devices together must be cpu or cuda, got {name}; hide cards "
                "by CUDA_VISIBLE_DEVICES."
            )
            raise OptionError(msg, code="device-unsuitable")
        # each process has its own card, and tries no other
        there = device_count("cuda") and kind != "cpu"
        if there or kind != "cuda":
            return torch.device("cuda" if there else "cpu")
    device = find_training_device(name)
    if device.note is not None:
        warn(device.note)
    return device.device


def takes_bf16(recipe: Recipe, network: nn.Module, device: torch.device = _CPU) -> bool:
    """Tell whether a network is trained in mixed precision: if it can, and is fast."""
    if recipe.precision == "fp32":
        return False
    if device.type != "cpu":
        if recipe.precision == "bf16":
            check_bf16(device)
            return True
        return has_fast_bf16(device)
    wrong = _wrong_on_cpu(network)
    if recipe.precision == "bf16":
        if wrong is not None:
            msg = (
                "precision: bf16 fails on a CPU where a dilated convolution has "
                f"{wrong} channels, not a multiple of {_BLOCK}; take fp32 or auto."
            )
            raise OptionError(msg, code="precision-unsupported")
        return True
    return wrong is None and has_fast_bf16(device)


def _wrong_on_cpu(network: nn.Module) -> int | None:
    """Channels of a convolution whose gradient would be wrong, if there is one."""
    # In bf16, with channels last, PyTorch 2.13 gives NaN for it or ends the process.
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and max(module.dilation) > 1:
            for channels in (module.in_channels, module.out_channels):
                if channels % _BLOCK:
                    return channels
    return None


def make_learner(network: nn.Module, recipe: Recipe) -> Learner:
    """Join a network, a recipe, and the fields that choose the checkpoint."""
    # what finds faults alone is not judged by what mends: its newest state is kept
    alone = recipe.learns == "survey"
    pairs = [] if alone else held_out_fields(recipe, _scale_of(network))
    learner = _LEARNERS[recipe.kind](network, recipe, pairs)
    if recipe.start_from is not None and recipe.adversarial:
        learner.take_over(load_beside(recipe.start_from))
    return learner


# Lightning in a thread of its own.


def _trainer(
    recipe: Recipe,
    run_dir: Path,
    recorder: Recorder,
    device: torch.device,
    *,
    bf16: bool,
) -> lightning.Trainer:
    for name in _CHATTER:
        logging.getLogger(name).setLevel(logging.WARNING)
    manual = recipe.adversarial  # these learners clip their gradients themselves
    several = recipe.devices * recipe.nodes > 1
    with _without_advice():  # such as to take a card that was left alone
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
def _without_advice() -> Iterator[None]:
    """Leave out what Lightning would have us do otherwise."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*available but not used.*")
        yield


def _in_thread(
    work: Callable[[], None], recorder: Recorder
) -> Generator[Progress, None, None]:
    """Work in a thread, and hand on what is reported; closing ends the work."""
    failures: list[Exception] = []

    def run_guarded() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - carried to the caller's thread
            failures.append(error)

    thread = threading.Thread(target=run_guarded, name="semsr-train", daemon=True)
    try:
        yield Progress(0, recorder.recipe.steps, "Preparing images")
        thread.start()
        while thread.is_alive() or not recorder.reports.empty():
            try:
                yield recorder.reports.get(timeout=0.2)
            except queue.Empty:
                continue
    finally:
        recorder.stop.set()
        if thread.ident is not None:  # else it was never started
            thread.join()
        recorder.metrics.close()
    if failures:
        raise _translate_error(failures[0]) from failures[0]


def _translate_error(error: Exception) -> Exception:
    if isinstance(error, SemsrError):
        message = str(error)
        if "Original Traceback" not in message:
            return error
        # torch puts a traceback around what a worker process raised
        last = message.rstrip().splitlines()[-1]
        sentence = last.partition(f"{type(error).__name__}: ")[2] or last
        return type(error)(sentence, code=error.code)
    if type(error).__module__.startswith(_COMPILERS):
        msg = (
            "compiled: true needs a compiler that works with this PyTorch and device, "
            f"got: {first_line(error).rstrip('.')}; take compiled: false."
        )
        return OptionError(msg, code="compiler-unusable")
    if is_out_of_memory(error):
        msg = "Memory ran out while training; lower batch or patch_px in the recipe."
        return DeviceMemoryError(msg)
    if "loading state_dict" in str(error) or "optimizer state" in str(error):
        msg = (
            "The saved state is of another network or recipe; resume with the recipe "
            "of the run, or start anew with `overwrite`."
        )
        return CheckpointError(msg, code="other-run")
    return error


# What training on pairs gained, on pairs that nothing learnt from.
#
# The low images as they are, the best linear filter, the model that training began
# with, and the trained one are judged alike, on the pairs for the test, or where there
# are none on those that chose the model.

_TAPS = 21  # pixels of HIGH along each side; as in the benchmarks of restoration
_BORDER = 6  # sides of a patch to that of the filter; chosen: borders are mirrored
_PLACES = 1 << 18  # chosen: 500 for each tap, in seconds
_FIGURES = ("psnr_db", "ssim", "frc_per_px")


@dataclass(frozen=True, slots=True)
class Comparison:
    """How good a trained model is, beside what it must beat."""

    set: str  # of the store; "test" or "validation"
    pairs: int
    begun_with: str | None  # the untouched model
    # "input", "linear filter", "untouched", "trained": psnr_db, ssim, frc_per_px
    rows: dict[str, dict[str, float]]
    kept: bool  # whether the trained model is better than the untouched one
    # Expected error of the map that the pairs were cut by, also in pixels of LOW
    map_error_nm: float | None = None
    map_error_px: float | None = None


def compare(recipe: Recipe, model: Path, network: nn.Module) -> Comparison | None:
    """Judge a trained model; put the untouched `network` in place of a worse one."""
    # None where nothing tells: no pairs, unpaired ones, or a noisy image alone
    if recipe.data.pairs is None or recipe.blind:
        return None
    if not open_pairs(Path(recipe.data.pairs)).is_paired:
        return None
    scale = int(getattr(network, "scale", 1))
    store = fitting_store(recipe, scale)
    name = "test" if store.counts["test"] else "validation"
    pairs = stored_pairs(store, name)
    linear = fit_linear(store, scale)
    # what lies beyond a patch is unknown to all, and a mosaic has few borders
    margin = linear.kernels.shape[-1] // 2 * scale
    validator = Validator(
        pairs, cross_frc=True, margin=margin, shift_px=recipe.shift_px
    )
    trained_model = load_model(str(model))
    before = trained_model.card.training.get("comparison")
    if before is not None:  # of a run that went on, and made nothing better
        return Comparison(**before)
    networks: dict[str, nn.Module] = {
        "input": _Enlarged(scale),
        "linear filter": linear,
    }
    if recipe.start_from is not None:
        networks["untouched"] = network
    networks["trained"] = trained_model.module
    figures = {which: validator.figures(each) for which, each in networks.items()}
    is_better, measure = True, recipe.measure
    # with a discriminator the output is to look like the truth, not to be near it
    if recipe.start_from is not None and not recipe.adversarial:
        is_better = figures["trained"][measure] > figures["untouched"][measure]
    rows = {
        which: {figure: row[figure] for figure in _FIGURES if figure in row}
        for which, row in figures.items()
    }
    start_name = None if recipe.start_from is None else Path(recipe.start_from).stem
    off_nm, off_px = store.map_error or (None, None)
    comparison = Comparison(
        name, len(pairs), start_name, rows, is_better, off_nm, off_px
    )
    card = trained_model.card if is_better else _untouched_card(recipe, network)
    training_record = {**card.training, "comparison": asdict(comparison)}
    card = card.model_copy(update={"training": training_record})
    save_model(model, trained_model.module if is_better else network, card)
    return comparison


def _untouched_card(recipe: Recipe, network: nn.Module) -> ModelCard:
    """Write the card of a model that training left as it was."""
    start = read_card(resolve(str(recipe.start_from)))
    figures = make_learner(network, recipe).validate_pairs()
    card = card_of(recipe, network, {**figures, "step": 0})
    learnt_from = start.training.get("learnt_from", [])
    return card.model_copy(
        update={
            "pixel_size_nm": start.pixel_size_nm,
            "resample_factors": start.resample_factors,
            "training": {**card.training, "learnt_from": learnt_from},
        }
    )


class _Enlarged(nn.Module):
    """The image itself, on the pixels of the truth."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return bicubic(x, self.scale)


class LinearFilter(nn.Module):
    """A linear filter for each pixel of HIGH within one of LOW; (scale², T, T)."""

    def __init__(self, kernels: Float32Array) -> None:
        super().__init__()
        self.scale = round(len(kernels) ** 0.5)
        self.kernels = nn.Parameter(torch.from_numpy(kernels[:, None]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Filter (B, 1, Y, X), mirrored at the border."""
        half = self.kernels.shape[-1] // 2
        wide = functional.pad(x, (half, half, half, half), mode="reflect")
        phases = functional.conv2d(wide, self.kernels)
        return functional.pixel_shuffle(phases, self.scale)


def fit_linear(store: PairStore, scale: int) -> LinearFilter:
    """Fit the filter that brings LOW nearest to HIGH over the pairs to train on."""
    low, high = store.arrays("train")
    taps = min(_TAPS // scale, int(low.shape[1]) // _BORDER) // 2 * 2 + 1
    each = (int(low.shape[1]) - taps + 1) ** 2
    place_count = int(np.clip(_PLACES // each, 1, low.shape[0]))
    numbers = np.unique(
        np.linspace(0, low.shape[0] - 1, place_count).round().astype(int)
    )

    def patches() -> Iterator[tuple[Float32Array, Float32Array]]:
        for number in numbers.tolist():
            image, truth = (
                to_unit(np.asarray(part[number]), grey)
                for part, grey in zip(
                    (low, high), store.ranges("train", number), strict=True
                )
            )
            yield image, truth

    return LinearFilter(fit_linear_filter(patches(), taps, scale))
