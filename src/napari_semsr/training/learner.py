"""Base class of all learners: averaged weights, clock, validation, optimiser.

Lightning's averaging of weights is not used: it includes discriminators and stored
images, does not shorten the average at the start, and saves the weights under other
names, so that earlier runs could not be resumed. Nor is its timer, which only ends a
run and starts after the scenes are made: here the learning rate follows the clock.
"""

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.core import CheckpointError, SemsrError
from napari_semsr.models import get_memory_layout
from napari_semsr.training.patches import Patches, flatten_scenes
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.validation import (
    ValidationPair,
    Validator,
    align_ground_truth,
)

if TYPE_CHECKING:
    from pytorch_lightning.utilities.types import OptimizerLRScheduler

PIXEL_LOSSES = {"l1": functional.l1_loss, "mse": functional.mse_loss}
"""Pixel losses, keyed by their names in recipes."""


@contextmanager
def freeze_weights(network: nn.Module) -> Iterator[None]:
    """Freeze the weights of a network while gradients still pass through it."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


_USUAL_RANGES = 5.0  # times the range of an image; grey values beyond are outliers
_CHECK_EVERY = 16  # steps on a GPU, which has to wait for a check


def check_finite(what: str, value: Tensor, step: int, *values: Tensor) -> None:
    """Raise a `SemsrError` if a value is NaN or infinite, and name the likely cause.

    The cause is the largest of `values`, patches in units of the range of their images,
    if it exceeds five ranges; otherwise the learning rate.
    """
    if not torch.isfinite(value).all():
        raise _create_divergence_error(what, step, _find_largest_grey_value(values))


def _find_largest_grey_value(values: Sequence[Tensor]) -> Tensor:
    """Return the largest absolute grey value, or 0 without patches."""
    if not values:
        return torch.zeros(())
    return torch.stack([part.detach().abs().amax().float() for part in values]).amax()


def _create_divergence_error(what: str, step: int, furthest: Tensor) -> SemsrError:
    far = float(furthest)
    if math.isfinite(far) and far <= _USUAL_RANGES:
        why = "lower learning_rate and resume"
    else:
        why = (
            f"a patch has a grey value {far:.3g} times the range of its image, "
            "probably a hot pixel or a fill value. Remove it from the image, and cut "
            "the pairs again (`pairs()`)"
        )
    return SemsrError(
        f"The {what} not finite at step {step}: {why}.", code="training-diverged"
    )


def compute_learning_rate_factor(step: int, recipe: Recipe) -> float:
    """Return the learning rate as a fraction of its maximum, with warm-up and decay."""
    rise = min(1.0, (step + 1) / max(1, recipe.warmup_steps))
    if recipe.schedule == "milestones":
        milestones_passed = sum(step >= milestone for milestone in recipe.milestones)
        return rise * recipe.milestone_factor**milestones_passed
    left = recipe.steps - step
    if left >= recipe.decay_steps:
        return rise
    share = max(0, left) / recipe.decay_steps
    if recipe.schedule == "linear":
        return rise * share
    return rise * 0.5 * (1 - math.cos(math.pi * share))


_STRIDE = 1_000_003  # between the torch seeds of two runs


class Learner(lightning.LightningModule):
    """Base Lightning module for training from a recipe.

    Random numbers within a step (dropout) depend only on the recipe's seed and the
    step, so that a resumed run equals an uninterrupted one.

    `terms` are the parts of the last loss, for the curve; `spent` is the time in
    seconds before the run was resumed, if the recipe limits its `minutes`.
    """

    spent: Tensor

    def __init__(
        self, network: nn.Module, recipe: Recipe, pairs: list[ValidationPair]
    ) -> None:
        super().__init__()
        self._construction_time = time.monotonic()
        self.network = network
        self.recipe = recipe
        self.validator = Validator(
            pairs, cross_frc=recipe.cross_frc, shift_px=recipe.shift_px
        )
        self.terms: dict[str, Tensor] = {}
        self._start_s: float | None = None
        # of losses on a GPU: whether all are finite, and the largest grey value
        self._pending_checks: dict[str, tuple[Tensor, Tensor]] = {}
        if recipe.minutes is not None:
            self.register_buffer("spent", torch.zeros(()))
        self.averaged: nn.Module | None = None
        if recipe.ema > 0:
            self.averaged = copy.deepcopy(network).requires_grad_(False).eval()

    @property
    def best_network(self) -> nn.Module:
        """Network that is evaluated and saved, with averaged weights if available."""
        return self.network if self.averaged is None else self.averaged

    def auxiliary_networks(self) -> nn.Module | None:
        """Return the networks trained together with the saved one, or None."""
        return None

    def load_auxiliary_networks(self, weights: Mapping[str, Tensor]) -> None:
        """Load weights from `load_training_networks` into the auxiliary networks."""
        others = self.auxiliary_networks()
        if others is None or not weights:
            return
        try:
            others.load_state_dict(dict(weights))
        except RuntimeError as error:
            first = str(error).strip().splitlines()[-1].strip()
            msg = (
                "The auxiliary networks of the model in start_from do not fit this "
                f"recipe: {first}"
            )
            raise CheckpointError(msg, code="weights-mismatch") from error

    def on_train_start(self) -> None:
        """Start the clock, and set the learning rate and the weight memory layout."""
        for config in (
            () if self._trainer is None else self.trainer.lr_scheduler_configs
        ):
            scheduler: Any = config.scheduler
            rate = self.recipe.learning_rate
            if all(base == rate for base in scheduler.base_lrs):
                continue
            scheduler.base_lrs = [rate] * len(scheduler.base_lrs)
            groups = scheduler.optimizer.param_groups
            for group, factor in zip(groups, scheduler.lr_lambdas, strict=True):
                group["initial_lr"] = rate
                group["lr"] = rate * factor(scheduler.last_epoch)
        is_mixed = self._trainer is not None and self.trainer.precision == "bf16-mixed"
        if is_mixed or self.device.type != "cpu":
            self.to(memory_format=get_memory_layout(self.device))
        if self.recipe.minutes is not None:
            self._start_s = self._construction_time - float(self.spent)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the elapsed time with the state."""
        if self._start_s is not None:
            seconds = time.monotonic() - self._start_s
            checkpoint["state_dict"]["spent"] = torch.full_like(self.spent, seconds)

    def schedule_step(self, step: int) -> int:
        """Return the schedule position of a step, by step count or elapsed time."""
        if self._start_s is None or self.recipe.minutes is None:
            return step
        share = (time.monotonic() - self._start_s) / (60 * self.recipe.minutes)
        return max(step, min(int(share * self.recipe.steps), self.recipe.steps))

    def rate_factor(self, step: int) -> float:
        """Return the learning rate relative to its maximum, by step or elapsed time."""
        return compute_learning_rate_factor(self.schedule_step(step), self.recipe)

    def on_train_batch_start(self, _batch: object, _index: int) -> None:
        """Seed the random number generator for the step."""
        torch.manual_seed(_STRIDE * (self.recipe.seed + 1) + self.global_step)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the optimiser step, then update the averaged weights."""
        super().optimizer_step(*args, **kwargs)
        self.update_average(self.global_step)

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """Update the averaged weights, averaging over fewer steps at the start."""
        if self.averaged is None:
            return
        decay = min(self.recipe.ema, (1 + step) / (10 + step))
        present = self.network.state_dict()
        for name, mean in self.averaged.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(present[name], 1 - decay)
            else:
                mean.copy_(present[name])

    def check_finite(self, what: str, value: Tensor, *values: Tensor) -> None:
        """Raise a `SemsrError` if a value is not finite, slightly delayed on a GPU.

        No wrong weights are saved meanwhile: `check_weights` is called before saving.
        """
        if value.device.type == "cpu":
            check_finite(what, value, self.global_step, *values)
            return
        fine, furthest = torch.isfinite(value).all(), _find_largest_grey_value(values)
        before, most = self._pending_checks.get(what, (fine, furthest))
        fine, furthest = fine & before, torch.maximum(furthest, most)
        self._pending_checks[what] = fine, furthest
        if self.global_step % _CHECK_EVERY:
            return
        del self._pending_checks[what]
        if not fine:
            raise _create_divergence_error(what, self.global_step, furthest)

    def set_memory_layout(self, images: Tensor) -> Tensor:
        """Convert images (B, C, H, W) to the preferred memory layout of the device."""
        return images.contiguous(memory_format=get_memory_layout(images.device))

    def check_weights(self) -> None:
        """Raise a `SemsrError` if weights are not finite, before they are saved."""
        for value in self.state_dict().values():
            if value.is_floating_point():
                check_finite("weights are", value, self.global_step)

    def validate_pairs(self) -> dict[str, float]:
        """Evaluate the network on the images with ground truth."""
        return self.validator.evaluate(self.best_network)

    def full_precision(self) -> AbstractContextManager[object]:
        """Disable mixed precision, for losses that need more than 16 bits."""
        return torch.autocast(self.device.type, enabled=False)

    def create_adam(self, network: nn.Module, share: float = 1.0) -> torch.optim.Adam:
        """Create an Adam optimiser for a network, at a fraction of the base rate."""
        rate = share * self.recipe.learning_rate
        return torch.optim.Adam(network.parameters(), lr=rate, betas=self.recipe.betas)

    def configure_optimizers(self) -> "OptimizerLRScheduler":
        """Return Adam with the recipe's schedule, updated at every step."""
        optimizer = self.create_adam(self.network)

        def factor(step: int) -> float:  # a bound method would be saved with the state
            return self.rate_factor(step)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


# added to the mean square, 40 dB below the range: a patch that needs no change must
# not outweigh all others
_SQUARE_FLOOR = 1e-4


def log_mse_loss(
    prediction: Tensor, high: Tensor, floor: float = _SQUARE_FLOOR
) -> Tensor:
    """Average the log of each patch's mean squared error, equivalent to negative PSNR.

    If the ground truth is uncertain, the squared error is least, and PSNR highest, at
    the mean of its possible values; L1 is least at their median. By the logarithm each
    patch (B, 1, H, W) counts by decibels, whatever its error: the loss falls by 0.23
    for each decibel gained.
    """
    square = functional.mse_loss(prediction, high, reduction="none").mean((1, 2, 3))
    return (square + floor).log().mean()


class SupervisedLearner(Learner):
    """Learner for supervised training of any network on pairs of patches."""

    def __init__(
        self, network: nn.Module, recipe: Recipe, pairs: list[ValidationPair]
    ) -> None:
        module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(module, recipe, pairs)
        # not a module, so that the names of weights do not change
        forward = network.forward
        self.run = torch.compile(forward) if recipe.compiled else forward

    def training_step(self, batch: Patches, _index: int) -> Tensor:
        """Return the loss of one batch of `Patches`."""
        low, high = flatten_scenes(Patches(*batch))
        prediction = self.run(self.set_memory_layout(low))
        compare = PIXEL_LOSSES.get(self.recipe.loss, log_mse_loss)
        with self.full_precision():
            output = prediction.float()
            loss = compare(
                output, align_ground_truth(high, output, self.recipe.shift_px)
            )
        self.check_finite("loss is", loss, low, high)
        return loss
