"""What all kinds of training share: mean weights, clock, validation, optimiser.

The mean is ours: Lightning's averaging takes in discriminators and remembered images,
has no short mean at the start, and keeps the weights under other names, by which no
earlier run could go on. So is the clock, which the learning rate follows: Lightning's
timer only ends a run, and starts after the scenes are made.
"""

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.core import CheckpointError, SemsrError
from napari_semsr.models import memory_layout
from napari_semsr.training.patches import Patches, flat
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.validation import ValidationPair, Validator, moved_onto

PIXEL_LOSSES = {"l1": functional.l1_loss, "mse": functional.mse_loss}
"""Losses that recipes name and torch has."""


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Let no gradient reach the weights of a network; it still passes through them."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


_USUAL_RANGES = 5.0  # times the range of their images, beyond which greys are strays
_LOOK_EVERY = 16  # steps on a card, which finishes all that was launched for a look


def check_finite(what: str, value: Tensor, step: int, *values: Tensor) -> None:
    """Stop at a value that is NaN or infinite, and name its cause.

    Of patches that were `values`, on a scale where the range of their images is 1, the
    grey value that is furthest away, if it is beyond five ranges; else the steps.
    """
    if not torch.isfinite(value).all():
        raise _not_finite(what, step, _furthest(values))


def _furthest(values: Sequence[Tensor]) -> Tensor:
    """Find the largest magnitude of a grey value; 0 without patches."""
    if not values:
        return torch.zeros(())
    return torch.stack([part.detach().abs().amax().float() for part in values]).amax()


def _not_finite(what: str, step: int, furthest: Tensor) -> SemsrError:
    far = float(furthest)
    if math.isfinite(far) and far <= _USUAL_RANGES:
        why = "lower learning_rate and resume from the last checkpoint"
    else:
        why = (
            f"its patches hold a grey value {far:.3g} times the range of their image, "
            "as hot pixels and fill values are: take these out of the images, and cut "
            "the pairs again (`pairs()`)"
        )
    return SemsrError(
        f"The {what} not finite at step {step}: {why}.", code="training-diverged"
    )


def learning_rate_factor(step: int, recipe: Recipe) -> float:
    """Share of the full rate at a step: a rise, a plateau, and a fall or milestones."""
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
    """Lightning's view of a recipe.

    Chance within a step (dropout) depends on the recipe's seed and the step alone, so
    that a resumed run equals an uninterrupted one.

    `terms` are the parts of the last loss, for the curve; `spent` is seconds of the run
    before it was resumed, where the recipe gives it `minutes`.
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
        self._began: float | None = None
        # of losses on a card: whether all are finite, and the furthest grey value seen
        self._looked_at: dict[str, tuple[Tensor, Tensor]] = {}
        if recipe.minutes is not None:
            self.register_buffer("spent", torch.zeros(()))
        self.averaged: nn.Module | None = None
        if recipe.ema > 0:
            self.averaged = copy.deepcopy(network).requires_grad_(False).eval()

    @property
    def best_network(self) -> nn.Module:
        """The network that is judged and saved: the mean one where there is one."""
        return self.network if self.averaged is None else self.averaged

    def beside(self) -> nn.Module | None:
        """Give the networks that learn beside the kept one, if there are any."""
        return None

    def take_over(self, weights: Mapping[str, Tensor]) -> None:
        """Begin with weights of the networks beside, as `load_beside` gives them."""
        others = self.beside()
        if others is None or not weights:
            return
        try:
            others.load_state_dict(dict(weights))
        except RuntimeError as error:
            first = str(error).strip().splitlines()[-1].strip()
            msg = (
                "The networks that the model of start_from was trained with do not fit "
                f"this recipe: {first}"
            )
            raise CheckpointError(msg, code="weights-mismatch") from error

    def on_train_start(self) -> None:
        """Start the clock, take the recipe's rate, lay weights out for the device."""
        for config in (
            () if self._trainer is None else self.trainer.lr_scheduler_configs
        ):
            _set_rate(config.scheduler, self.recipe.learning_rate)
        is_mixed = self._trainer is not None and self.trainer.precision == "bf16-mixed"
        if is_mixed or self.device.type != "cpu":
            self.to(memory_format=memory_layout(self.device))
        if self.recipe.minutes is not None:
            self._began = self._construction_time - float(self.spent)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the time spent with the state."""
        if self._began is not None:
            seconds = time.monotonic() - self._began
            checkpoint["state_dict"]["spent"] = torch.full_like(self.spent, seconds)

    def schedule_step(self, step: int) -> int:
        """Tell where on the schedule a step is, in steps or by the clock."""
        if self._began is None or self.recipe.minutes is None:
            return step
        share = (time.monotonic() - self._began) / (60 * self.recipe.minutes)
        return max(step, min(int(share * self.recipe.steps), self.recipe.steps))

    def rate_factor(self, step: int) -> float:
        """Share of the full learning rate at a step, or by the clock."""
        return learning_rate_factor(self.schedule_step(step), self.recipe)

    def on_train_batch_start(self, _batch: Any, _index: int) -> None:
        """Seed what is drawn within the step."""
        torch.manual_seed(_STRIDE * (self.recipe.seed + 1) + self.global_step)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step as Lightning does, then update the mean weights."""
        super().optimizer_step(*args, **kwargs)
        self.update_average(self.global_step)

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """Move the mean weights; the mean is short at the start."""
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
        """Stop at a value that is NaN or infinite, on a card some steps later.

        Nothing of a run that has gone wrong is saved meanwhile: weights are looked at
        before (`check_weights`).
        """
        if value.device.type == "cpu":
            check_finite(what, value, self.global_step, *values)
            return
        fine, furthest = torch.isfinite(value).all(), _furthest(values)
        before, most = self._looked_at.get(what, (fine, furthest))
        fine, furthest = fine & before, torch.maximum(furthest, most)
        self._looked_at[what] = fine, furthest
        if self.global_step % _LOOK_EVERY:
            return
        del self._looked_at[what]
        if not fine:
            raise _not_finite(what, self.global_step, furthest)

    def laid_out(self, images: Tensor) -> Tensor:
        """Put images (B, C, H, W) into the order that the device computes in."""
        return images.contiguous(memory_format=memory_layout(images.device))

    def check_weights(self) -> None:
        """Stop when weights are NaN or infinite, before they replace good ones."""
        for value in self.state_dict().values():
            if value.is_floating_point():
                check_finite("weights are", value, self.global_step)

    def validate_pairs(self) -> dict[str, float]:
        """Judge the network on the fields whose truth is known."""
        return self.validator.figures(self.best_network)

    def exact(self) -> AbstractContextManager[Any]:
        """Leave mixed precision, for losses that 16 bits do not hold."""
        return torch.autocast(self.device.type, enabled=False)

    def adam(self, network: nn.Module, share: float = 1.0) -> torch.optim.Adam:
        """Make an optimiser of a network's weights, at a share of the recipe's rate."""
        rate = share * self.recipe.learning_rate
        return torch.optim.Adam(network.parameters(), lr=rate, betas=self.recipe.betas)

    def configure_optimizers(self) -> Any:
        """Adam with the recipe's schedule, stepped at every step."""
        optimizer = self.adam(self.network)

        def factor(step: int) -> float:  # the state would hold part of a bound method
            return self.rate_factor(step)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def _set_rate(scheduler: Any, rate: float) -> None:
    """Give a scheduler another full rate, and its optimiser the rate of now."""
    if all(base == rate for base in scheduler.base_lrs):
        return
    scheduler.base_lrs = [rate] * len(scheduler.base_lrs)
    groups = scheduler.optimizer.param_groups
    for group, factor in zip(groups, scheduler.lr_lambdas, strict=True):
        group["initial_lr"] = rate
        group["lr"] = rate * factor(scheduler.last_epoch)


# of the mean square, 40 dB below the range: a patch that needs no change must not
# outweigh all others
_SQUARE_FLOOR = 1e-4


def log_mse(prediction: Tensor, high: Tensor, floor: float = _SQUARE_FLOOR) -> Tensor:
    """Logarithm of each patch's mean squared error, averaged: PSNR, but for its sign.

    Where the truth cannot be known, the best answer by a square is the mean of what it
    may be, and PSNR is highest there; L1 asks for the median. By the logarithm each
    patch (B, 1, H, W) counts by decibels, whatever its error was: the loss falls by
    0.23 for each decibel gained.
    """
    square = functional.mse_loss(prediction, high, reduction="none").mean((1, 2, 3))
    return (square + floor).log().mean()


class Supervised(Learner):
    """Training of any network on pairs of patches."""

    def __init__(
        self, network: nn.Module, recipe: Recipe, pairs: list[ValidationPair]
    ) -> None:
        module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(module, recipe, pairs)
        # not a module, so that the names of weights stay as they are
        forward = network.forward
        self.run = torch.compile(forward) if recipe.compiled else forward

    def training_step(self, batch: Any, _index: int) -> Tensor:
        """Return the loss of one batch of `Patches`."""
        low, high = flat(Patches(*batch))
        prediction = self.run(self.laid_out(low))
        compare = PIXEL_LOSSES.get(self.recipe.loss, log_mse)
        with self.exact():
            output = prediction.float()
            loss = compare(output, moved_onto(high, output, self.recipe.shift_px))
        self.check_finite("loss is", loss, low, high)
        return loss
