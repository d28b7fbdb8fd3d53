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
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytorch_lightning as lightning
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr import core, models
from napari_semsr.training import patches, validation
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.scenes import SceneBatch, SurveyBatch
from napari_semsr.training.validation import Pairs

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


def _create_divergence_error(what: str, step: int, furthest: Tensor) -> core.SemsrError:
    far = float(furthest)
    if math.isfinite(far) and far <= _USUAL_RANGES:
        why = "lower learning_rate and resume"
    else:
        why = (
            f"a patch has a grey value {far:.3g} times the range of its image, "
            "probably a hot pixel or a fill value. Remove it from the image, and cut "
            "the pairs again (`pairs()`)"
        )
    return core.SemsrError(
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

    def __init__(self, network: nn.Module, recipe: Recipe, pairs: Pairs) -> None:
        super().__init__()
        self._construction_time = time.monotonic()
        self.network = network
        self.recipe = recipe
        self.validator = validation.Validator(
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
            raise core.CheckpointError(msg, code="weights-mismatch") from error

    def on_train_start(self) -> None:
        """Start the clock, and set the learning rate and the weight memory layout."""
        has_trainer = self._trainer is not None
        for config in self.trainer.lr_scheduler_configs if has_trainer else ():
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
            self.to(memory_format=models.get_memory_layout(self.device))
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
        return images.contiguous(memory_format=models.get_memory_layout(images.device))

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
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            # a bound method would be saved with the state
            lambda step: self.rate_factor(step),
        )
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

    def __init__(self, network: nn.Module, recipe: Recipe, pairs: Pairs) -> None:
        module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(module, recipe, pairs)
        # not a module, so that the names of weights do not change
        forward = network.forward
        self.run = torch.compile(forward) if recipe.compiled else forward

    def training_step(self, batch: patches.Patches, _index: int) -> Tensor:
        """Return the loss of one batch of `Patches`."""
        low, high = patches.flatten_scenes(patches.Patches(*batch))
        prediction = self.run(self.set_memory_layout(low))
        compare = PIXEL_LOSSES.get(self.recipe.loss, log_mse_loss)
        with self.full_precision():
            output = prediction.float()
            shift_px = self.recipe.shift_px
            aligned = validation.align_ground_truth(high, output, shift_px)
            loss = compare(output, aligned)
        self.check_finite("loss is", loss, low, high)
        return loss


# Blind-spot training: a noisy image is its own target at masked pixels.
#
# A network predicts pixels that are masked in its input. It cannot predict their noise,
# which is independent of what it sees, so it learns the signal [1]_, [2]_. If the noise
# of neighbouring pixels on a scan line is correlated, those are masked, too [3]_, up to
# the distance measured in the image.
#
# .. [1] A. Krull et al., CVPR 2019, 2129 (Noise2Void).
# .. [2] J. Batson, L. Royer, ICML 2019, PMLR 97, 524 (Noise2Self).
# .. [3] C. Broaddus et al., ISBI 2020, 159 (structured Noise2Void).


_MARGIN = 2  # pixels on either side of a masked region, which replace its grey values
_BLOCK = 32  # px; chosen: noise of slow scans is correlated over a few
_FLAT = 0.25  # fraction of blocks, the flattest, in which noise is measured; chosen
_FLAT_SIGMA_PX = 2.0  # contrast of a block after this blur measures its structure
_FARTHEST = 8  # px; beyond, too few pixels would stay visible
_NOISE_CORRELATION = 0.1  # correlation; explains a hundredth of the variance
_DRAWS = 4  # masks for each held-out patch; chosen: four in nine pixels are evaluated


class MaskedImages(NamedTuple):
    """Images with masked pixels, all (B, 1, H, W)."""

    image: Tensor  # with other grey values at the masked pixels
    mask: Tensor  # bool: pixels to predict
    mean: Tensor  # of the visible pixels around each pixel


def mask_pixels(
    images: Tensor, every: int, reach: core.IntPair, rng: torch.Generator | None = None
) -> MaskedImages:
    """Mask a random pixel in each cell of images (B, 1, H, W)."""
    rows, columns = (every + 2 * px for px in reach)
    count, (height, width) = len(images), images.shape[-2:]
    corners = torch.rand(
        (2, count, -(-height // rows), -(-width // columns)),
        generator=rng,
        device=images.device,
    )
    at = torch.arange(count, device=images.device)[:, None, None]
    y = torch.arange(0, height, rows, device=images.device)[:, None]
    x = torch.arange(0, width, columns, device=images.device)
    y, x = y + (corners[0] * rows).long(), x + (corners[1] * columns).long()
    # a margin for cells that end outside: selecting those inside makes a GPU wait
    larger = (count, height + rows, width + columns)
    masked = torch.zeros(larger, dtype=torch.bool, device=images.device)
    masked[at, y, x] = True
    masked = masked[:, None, :height, :width].contiguous()
    size = [2 * px + 1 for px in reach]
    blind = functional.max_pool2d(masked.float(), size, 1, list(reach))
    window = [n + 2 * _MARGIN for n in size]
    margin = [n // 2 for n in window]
    left = functional.avg_pool2d(1 - blind, window, 1, margin).clamp_min(1e-6)

    def visible_mean(values: Tensor) -> Tensor:
        sums = functional.avg_pool2d(values * (1 - blind), window, 1, margin)
        return sums / left

    around = visible_mean(images)
    spread = (visible_mean(images.square()) - around.square()).clamp_min(0).sqrt()
    random_values = torch.randn(images.shape, generator=rng, device=images.device)
    visible = torch.where(blind > 0, around + spread * random_values, images)
    return MaskedImages(visible, masked, around)


def measure_correlation_range(fields: list[core.RealArray]) -> core.IntPair:
    """Measure the noise correlation range of a scan along rows and columns."""
    blocks = np.concatenate(
        [
            core.reshape_into_blocks(field.astype(float), _BLOCK)
            .swapaxes(1, 2)
            .reshape(-1, _BLOCK, _BLOCK)
            for field in fields
        ]
    )
    structure = ndimage.gaussian_filter(blocks, (0, *(_FLAT_SIGMA_PX,) * 2)).std((1, 2))
    order = np.argsort(structure)
    flat_ones = blocks[order[: max(1, int(len(order) * _FLAT))]]
    along = _compute_noise_correlation(flat_ones)
    across = _compute_noise_correlation(flat_ones.swapaxes(1, 2))
    beyond = across - along
    return _find_correlation_limit(beyond), _find_correlation_limit(-beyond)


def _compute_noise_correlation(blocks: core.FloatArray) -> core.FloatArray:
    """Return the median noise correlation along lines (N, Y, X) at each distance."""
    noise = blocks[:, 2:] - 2 * blocks[:, 1:-1] + blocks[:, :-2]
    power = np.maximum((noise**2).mean((1, 2)), 1e-12)
    products = (noise[..., :-px] * noise[..., px:] for px in range(1, _FARTHEST + 1))
    return np.array([np.median(one.mean((1, 2)) / power) for one in products])


def _find_correlation_limit(excess: core.FloatArray) -> int:
    """Return the largest distance before the noise becomes uncorrelated."""
    return int(np.argmin(np.append(excess >= _NOISE_CORRELATION, False)))


class BlindSpotLearner(SupervisedLearner):
    """Learner that trains a network to predict masked pixels of noisy patches."""

    def __init__(self, network: nn.Module, recipe: Recipe, pairs: Pairs) -> None:
        super().__init__(network, recipe, pairs)
        if recipe.hidden.reach is None and recipe.data.pairs is not None:
            pairs = validation.read_stored_pairs(
                patches.open_pair_store(recipe, 1), "train"
            )
        self.reach = recipe.hidden.reach or measure_correlation_range(
            [one.low for one in pairs]
        )

    def training_step(self, batch: patches.Patches, _index: int) -> Tensor:
        """Return the loss of one batch of `Patches`, using only `low`."""
        images = patches.flatten_scenes(patches.Patches(*batch)).low
        masked_images = mask_pixels(images, self.recipe.hidden.every_px, self.reach)
        prediction = self.run(self.set_memory_layout(masked_images.image))
        with self.full_precision():
            error = torch.where(masked_images.mask, prediction.float() - images, 0.0)
            loss: Tensor = error.square().sum() / masked_images.mask.sum()
        self.check_finite("loss is", loss, images)
        return loss

    @torch.inference_mode()
    def validate_pairs(self) -> dict[str, float]:
        """Compare predictions of masked pixels with the mean of their surroundings."""
        rng = torch.Generator().manual_seed(0)
        network, sums = self.best_network, np.zeros(2)
        learning, stride = network.training, int(getattr(network, "stride", 1))
        network.eval()
        for pair in self.validator.pairs:
            rows, columns = (n // stride * stride for n in pair.low.shape)
            low = pair.low[:rows, :columns] / validation.WHITE
            image = torch.from_numpy(low).float()
            images = image.expand(_DRAWS, 1, -1, -1)
            every_px = self.recipe.hidden.every_px
            masked_images = mask_pixels(images, every_px, self.reach, rng)
            output = network(masked_images.image.to(self.device)).float().cpu()
            for number, estimate in enumerate((output, masked_images.mean)):
                errors = (estimate - image)[masked_images.mask]
                sums[number] += float(errors.square().sum())
        network.train(learning)
        ours, plain = np.maximum(sums, 1e-12)
        return {
            "hidden_db": 10 * math.log10(plain / ours),
            "alike_rows_px": float(self.reach[0]),
            "alike_columns_px": float(self.reach[1]),
        }


# Training of the survey and local parts of an `InformedRestorer` on whole scenes.
#
# Haze is estimated from a scene and removed before patches are cut.


_FAULT_WEIGHT = 0.1  # of the loss on estimated faults; chosen
_NOISE_WEIGHT = 0.25  # of the loss on the image without noise; chosen
_FINE_FLOOR = 2e-5  # of mean squares: 47 dB below the range, for already sharp images
_LEVEL_WEIGHT = 0.1  # of the loss on means over squares, the grey levels of flat areas
_LEVEL_PX, _LEVEL_FLOOR = 16, 1e-6  # side of the squares; a quarter of a grey level
_WIDTHS = slice(5, 7)  # of a blur, in `FAULTS`
_WIDTH_ERROR = 0.02  # relative standard deviation of a user's blur width; chosen
_TOO_WIDE = 4.0  # weight of a width that is too large, over one too small; chosen
_HAZE_SCENES = 16  # of a batch, used for the haze loss if only the survey is trained
_MIN_WINDOW = 8  # blocks of 16 px
_HAZE_WEIGHT = 0.3  # of the loss on haze itself; chosen
_MIN_HAZE = 0.05  # haze that varies by less has little weight
_HAZE_FLOOR = 0.02  # weight of a block without contrast


def haze_loss(haze: models.Haze, scenes: SurveyBatch) -> Tensor:
    """Return the error after haze correction relative to the error without it."""
    level = scenes.airlight[:, :, None, None]
    weight = scenes.contrast
    weight = weight + _HAZE_FLOOR * weight.mean((-1, -2), keepdim=True)
    weight = weight / weight.sum((-1, -2), keepdim=True).clamp_min(1e-9)

    def remove_mean(log_gain: Tensor) -> Tensor:
        mean = (weight * log_gain).sum((-1, -2), keepdim=True)
        return log_gain - mean

    square = remove_mean(haze.log_gain - scenes.log_gain).square()
    error = (weight * square).sum((-1, -2))
    before = (weight * remove_mean(scenes.log_gain).square()).sum((-1, -2))
    share: Tensor = error / (before + _MIN_HAZE**2)
    # an airlight far outside the image's grey values may be less exact
    away = ((haze.airlight - level).abs() / (1 + level.abs())).mean()
    return share.clamp(max=10).mean() + away


def _vary_widths(log_widths: Tensor) -> Tensor:
    """Return blur widths as exact as a user may know them."""
    widths = (log_widths.exp() - core.NO_BLUR).clamp_min(0)
    error = _WIDTH_ERROR * torch.randn(len(widths), 1, device=widths.device)
    return (widths * (1 + error).clamp_min(0.5) + core.NO_BLUR).log()


def fault_loss(estimates: Tensor, faults: Tensor) -> Tensor:
    """Return the error of estimated faults (S, 9), in units of their usual spread."""
    is_known = torch.isfinite(faults)
    true = torch.where(is_known, faults, estimates.detach())
    spread = models.to_device(torch.tensor(models.SPREAD), true.device)
    error = functional.smooth_l1_loss(
        estimates / spread, true / spread, reduction="none"
    )
    wide = torch.zeros_like(error)
    wide[:, _WIDTHS] = (_TOO_WIDE - 1) * (estimates > true)[:, _WIDTHS].float()
    return (error * (1 + wide) * is_known).sum() / is_known.sum().clamp_min(1)


# A network cannot tell weak noise from the grain of a sample: trained on truths without
# grain it removes both, which costs a decibel on sharp, blurred and hazy images. So a
# target is the former output where there is little noise, and the truth where there is
# much. Over the range; chosen, between the grain of clear images and the noise that the
# former survey estimates in full.
_GRAIN = 8 / 255


def compute_truth_weight(faults: Tensor) -> Tensor:
    """Return the weight (S, 1) of the truth in a target, for faults (S, 9)."""
    noise = (faults[:, :1].exp() - core.NO_NOISE).clamp_min(0) / _GRAIN
    return noise**8 / (1 + noise**8)


def _blend_faults(faults: Tensor, former: Tensor | None = None) -> Tensor:
    """Return the target (S, 9) of the survey's estimate, for that of a former one."""
    if former is None:
        return faults
    blended = torch.lerp(former, faults, compute_truth_weight(faults))
    blended = torch.where(blended.isfinite(), blended, former)
    blended[:, _WIDTHS.start :] = math.nan  # the estimate of blur remains
    return blended


class RestorerLearner(Learner):
    """Learner that randomly conditions the local part on true or estimated faults."""

    network: models.InformedRestorer

    def __init__(self, network: nn.Module, recipe: Recipe, pairs: Pairs) -> None:
        if not isinstance(network, models.InformedRestorer):
            msg = "Training kind restorer requires the architecture informed."
            raise core.OptionError(msg, code="options-contradict")
        module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(module, recipe, pairs)
        self.sharpens = recipe.learns == "sharpener"
        if self.sharpens and network.sharpener is None:
            msg = (
                "learns: sharpener needs a network with a sharpener; set its widths in "
                "the option sharpener of architecture informed."
            )
            raise core.OptionError(msg, code="options-contradict")
        network.survey.requires_grad_(recipe.learns in ("all", "survey"))
        if recipe.learns == "noise":
            network.survey.name[-1].requires_grad_(True)
        for part in (network.local, network.embed, network.tell):
            part.requires_grad_(recipe.learns in ("all", "local", "noise"))
        self.former: tuple[models.InformedRestorer, ...] = ()  # no module of its own
        if recipe.learns == "noise":
            self.former = (copy.deepcopy(network).requires_grad_(False).eval(),)
        local = network.local
        if network.sharpener is not None:
            network.sharpener.requires_grad_(self.sharpens)
            local = network.sharpener.local if self.sharpens else local
        # not a module, so that the names of weights do not change
        correct = local.estimate_corrections
        self.correct = torch.compile(correct) if recipe.compiled else correct

    def on_train_start(self) -> None:
        """Move the former network to the device of this one."""
        super().on_train_start()
        for former in self.former:
            former.to(self.device)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> object:
        """Move a batch to a device, but keep the patch corners on the CPU."""
        moved_batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        if hasattr(moved_batch, "corners"):
            moved_batch = moved_batch._replace(corners=batch.corners)
        return moved_batch

    def training_step(self, batch: Any, _index: int) -> Tensor:
        """Return the loss of a batch of `SceneBatch`, or of `SurveyBatch`."""
        survey, alone = self.network.survey, self.recipe.learns == "survey"
        with self.full_precision():
            block_scenes = (
                SurveyBatch(*batch)
                if alone
                else SurveyBatch.from_scenes(SceneBatch(*batch), survey)
            )
            # the loss of faults is cheap, and uses all scenes
            some = _HAZE_SCENES if alone else None
            hazy_scenes = SurveyBatch(*(part[:some] for part in block_scenes))
            haze = survey.estimate_haze(hazy_scenes.statistics)
            estimated_faults = survey.estimate_faults(block_scenes.statistics)
            # a random window of blocks, the same for all scenes (S, 21, h, w)
            window: list[slice] = []
            for blocks in block_scenes.statistics.shape[-2:]:
                least = min(_MIN_WINDOW, blocks)
                length = int(torch.randint(least, blocks + 1, ()))
                first = int(torch.randint(0, blocks - length + 1, ()))
                window.append(slice(first, first + length))
            rows, columns = window
            within = survey.estimate_faults(block_scenes.statistics[..., rows, columns])
            former_faults = [
                former.survey.estimate_faults(block_scenes.statistics)
                for former in self.former
            ]
        loss = torch.zeros((), device=estimated_faults.device)
        if self.recipe.learns in ("all", "survey", "noise"):
            faults = _blend_faults(block_scenes.faults, *former_faults)
            both = fault_loss(estimated_faults, faults) + fault_loss(within, faults)
            loss = _FAULT_WEIGHT * both + _HAZE_WEIGHT * haze_loss(haze, hazy_scenes)
        if not alone:
            scenes = SceneBatch(*batch)
            clear = models.dehaze(
                scenes.low, haze.drop_uncertain() if self.sharpens else haze
            )
            if self.sharpens:
                condition = models.replace_blur(estimated_faults, scenes.faults).clone()
                condition[:, _WIDTHS] = _vary_widths(condition[:, _WIDTHS])
                planes, gate = self.network.stack_sharpening_planes(clear, condition)
            else:
                # of each scene true, estimated or locally estimated faults, at random
                true, turns = scenes.faults, (len(scenes.faults), 1)
                turn = torch.randint(0, 3, turns, device=true.device)
                best_faults = torch.where(torch.isfinite(true), true, estimated_faults)
                mixed_faults = torch.where(turn == 1, estimated_faults, within)
                condition = torch.where(turn == 0, best_faults, mixed_faults)
                condition = condition.detach() if self.former else condition
                rings = survey.average_rings(block_scenes.statistics)
                planes, gate = self.network.stack_planes(clear, condition, rings), None
            former_outputs = [
                self._apply_former(former, clear, rings, before, scenes)
                for former, before in zip(self.former, former_faults, strict=True)
            ]
            loss = loss + self._compute_patch_loss(
                scenes, planes, condition, gate, *former_outputs
            )
        self.check_finite("loss is", loss)
        return loss

    def _compute_patch_loss(
        self,
        scenes: SceneBatch,
        planes: Tensor,
        condition: Tensor,
        gate: models.Gate | None,
        former_output: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of the trained part on patches."""
        many = scenes.corners.shape[1]
        planes, high, noiseless = (
            self._crop_scenes(part, scenes)
            for part in (planes, scenes.high, scenes.noiseless)
        )
        image = planes[:, :1]
        numbers = self.network.compute_conditions(condition, sharpen=self.sharpens)
        conditions = [t.repeat_interleave(many, 0) for t in numbers]
        corrections = self.correct(self.set_memory_layout(planes), conditions)
        with self.full_precision():
            corrections = corrections.float()
            if gate is not None and self.network.sharpener is not None:
                gates = models.Gate(*(part.repeat_interleave(many, 0) for part in gate))
                corrections = self.network.sharpener.limit_corrections(
                    corrections, planes, gates
                )
            noise, blur = corrections.chunk(2, dim=1)
            quiet = image + noise
            if former_output is not None:
                weight = compute_truth_weight(condition)
                weight = weight.repeat_interleave(many, 0)[:, :, None, None]
                noiseless = torch.lerp(former_output[:, :1], noiseless, weight)
                high = torch.lerp(former_output[:, 1:], high, weight)
            loss = log_mse_loss(quiet + blur, high, _FINE_FLOOR)
            loss = loss + _NOISE_WEIGHT * log_mse_loss(quiet, noiseless, _FINE_FLOOR)
            level = functional.avg_pool2d(quiet + blur - high, _LEVEL_PX)
            loss = loss + _LEVEL_WEIGHT * log_mse_loss(
                level, torch.zeros_like(level), _LEVEL_FLOOR
            )
            return loss

    def _crop_scenes(self, images: Tensor, scenes: SceneBatch) -> Tensor:
        side = self.recipe.data.patch_px
        return patches.crop_patches(images, scenes.corners, side).flatten(0, 1)

    @torch.no_grad()
    def _apply_former(
        self,
        former: models.InformedRestorer,
        clear: Tensor,
        rings: Tensor,
        faults: Tensor,
        scenes: SceneBatch,
    ) -> Tensor:
        """Return patches (B, 2, H, W) as they were without noise, and restored."""
        planes = self._crop_scenes(former.stack_planes(clear, faults, rings), scenes)
        many = scenes.corners.shape[1]
        conditions = [
            t.repeat_interleave(many, 0) for t in former.compute_conditions(faults)
        ]
        planes = self.set_memory_layout(planes)
        corrections = former.local.estimate_corrections(planes, conditions).float()
        return planes[:, :1] + corrections.cumsum(1)
