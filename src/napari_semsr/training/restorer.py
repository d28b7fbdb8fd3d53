"""Training of the survey and local parts of an `InformedRestorer` on whole scenes.

Haze is estimated from a scene and removed before patches are cut.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.core import NO_BLUR, OptionError
from napari_semsr.models import (
    SPREAD,
    Gate,
    Haze,
    InformedRestorer,
    dehaze,
    replace_blur,
    to_device,
)
from napari_semsr.training.learner import Learner, log_mse_loss
from napari_semsr.training.patches import crop_patches
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.scenes import SceneBatch, SurveyBatch
from napari_semsr.training.validation import ValidationPair

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


def haze_loss(haze: Haze, scenes: SurveyBatch) -> Tensor:
    """Return the error after haze correction relative to the error without it."""
    level = scenes.airlight[:, :, None, None]
    weight = scenes.contrast
    weight = weight + _HAZE_FLOOR * weight.mean((-1, -2), keepdim=True)
    weight = weight / weight.sum((-1, -2), keepdim=True).clamp_min(1e-9)

    def remove_mean(log_gain: Tensor) -> Tensor:
        mean = (weight * log_gain).sum((-1, -2), keepdim=True)
        return log_gain - mean

    error = (weight * remove_mean(haze.log_gain - scenes.log_gain).square()).sum(
        (-1, -2)
    )
    before = (weight * remove_mean(scenes.log_gain).square()).sum((-1, -2))
    share: Tensor = error / (before + _MIN_HAZE**2)
    # an airlight far outside the image's grey values may be less exact
    away = ((haze.airlight - level).abs() / (1 + level.abs())).mean()
    return share.clamp(max=10).mean() + away


def fault_loss(estimates: Tensor, faults: Tensor) -> Tensor:
    """Return the error of estimated faults (S, 9), in units of their usual spread."""
    is_known = torch.isfinite(faults)
    true = torch.where(is_known, faults, estimates.detach())
    spread = to_device(torch.tensor(SPREAD), true.device)
    error = functional.smooth_l1_loss(
        estimates / spread, true / spread, reduction="none"
    )
    wide = torch.zeros_like(error)
    wide[:, _WIDTHS] = (_TOO_WIDE - 1) * (estimates > true)[:, _WIDTHS].float()
    return (error * (1 + wide) * is_known).sum() / is_known.sum().clamp_min(1)


class RestorerLearner(Learner):
    """Learner that randomly conditions the local part on true or estimated faults."""

    network: InformedRestorer

    def __init__(
        self, network: nn.Module, recipe: Recipe, pairs: list[ValidationPair]
    ) -> None:
        if not isinstance(network, InformedRestorer):
            msg = "Training kind restorer requires the architecture informed."
            raise OptionError(msg, code="options-contradict")
        module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(module, recipe, pairs)
        self.sharpens = recipe.learns == "sharpener"
        if self.sharpens and network.sharpener is None:
            msg = (
                "learns: sharpener needs a network with a sharpener; set its widths in "
                "the option sharpener of architecture informed."
            )
            raise OptionError(msg, code="options-contradict")
        network.survey.requires_grad_(recipe.learns in ("all", "survey"))
        for part in (network.local, network.embed, network.tell):
            part.requires_grad_(recipe.learns in ("all", "local"))
        local = network.local
        if network.sharpener is not None:
            network.sharpener.requires_grad_(self.sharpens)
            local = network.sharpener.local if self.sharpens else local
        # not a module, so that the names of weights do not change
        correct = local.estimate_corrections
        self.correct = torch.compile(correct) if recipe.compiled else correct

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
            hazy_scenes = (
                SurveyBatch(*(p[:_HAZE_SCENES] for p in block_scenes))
                if alone
                else block_scenes
            )
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
        loss = torch.zeros((), device=estimated_faults.device)
        if self.recipe.learns in ("all", "survey"):
            both = fault_loss(estimated_faults, block_scenes.faults) + fault_loss(
                within, block_scenes.faults
            )
            loss = _FAULT_WEIGHT * both + _HAZE_WEIGHT * haze_loss(haze, hazy_scenes)
        if not alone:
            scenes = SceneBatch(*batch)
            clear = dehaze(scenes.low, haze.drop_uncertain() if self.sharpens else haze)
            if self.sharpens:
                condition = replace_blur(estimated_faults, scenes.faults).clone()
                # widths as exact as a user may know them
                wide = (condition[:, _WIDTHS].exp() - NO_BLUR).clamp_min(0)
                away = 1 + _WIDTH_ERROR * torch.randn(
                    len(condition), 1, device=condition.device
                )
                condition[:, _WIDTHS] = (wide * away.clamp_min(0.5) + NO_BLUR).log()
                planes, gate = self.network.stack_sharpening_planes(clear, condition)
            else:
                # of each scene true, estimated or locally estimated faults, at random
                true, turns = scenes.faults, (len(scenes.faults), 1)
                turn = torch.randint(0, 3, turns, device=true.device)
                best_faults = torch.where(torch.isfinite(true), true, estimated_faults)
                mixed_faults = torch.where(turn == 1, estimated_faults, within)
                condition = torch.where(turn == 0, best_faults, mixed_faults)
                rings = survey.average_rings(block_scenes.statistics)
                planes, gate = self.network.stack_planes(clear, condition, rings), None
            loss = loss + self._compute_patch_loss(scenes, planes, condition, gate)
        self.check_finite("loss is", loss)
        return loss

    def _compute_patch_loss(
        self, scenes: SceneBatch, planes: Tensor, condition: Tensor, gate: Gate | None
    ) -> Tensor:
        """Return the loss of the trained part on patches."""
        side, many = self.recipe.data.patch_px, scenes.corners.shape[1]
        planes, high, noiseless = (
            crop_patches(part, scenes.corners, side).flatten(0, 1)
            for part in (planes, scenes.high, scenes.noiseless)
        )
        image = planes[:, :1]
        numbers = self.network.compute_conditions(condition, sharpen=self.sharpens)
        conditions = [t.repeat_interleave(many, 0) for t in numbers]
        corrections = self.correct(self.set_memory_layout(planes), conditions)
        with self.full_precision():
            corrections = corrections.float()
            if gate is not None and self.network.sharpener is not None:
                gates = Gate(*(part.repeat_interleave(many, 0) for part in gate))
                corrections = self.network.sharpener.limit_corrections(
                    corrections, planes, gates
                )
            noise, blur = corrections.chunk(2, dim=1)
            quiet = image + noise
            loss = log_mse_loss(quiet + blur, high, _FINE_FLOOR)
            loss = loss + _NOISE_WEIGHT * log_mse_loss(quiet, noiseless, _FINE_FLOOR)
            level = functional.avg_pool2d(quiet + blur - high, _LEVEL_PX)
            loss = loss + _LEVEL_WEIGHT * log_mse_loss(
                level, torch.zeros_like(level), _LEVEL_FLOOR
            )
            if self.recipe.data_weight > 0:
                error = blur_error_image(quiet + blur - high, scenes.spread, many)
                term = log_mse_loss(error, torch.zeros_like(error), _FINE_FLOOR)
                loss = loss + self.recipe.data_weight * term
            return loss


def blur_error_image(error: Tensor, spread: Tensor, many: int) -> Tensor:
    """Blur an error image with the point-spread function of the microscope.

    If output and ground truth agree after the blur, the output agrees with the optical
    image. It is not compared with that image itself, which also shows what no SEM image
    can explain: interference, the light lost at edges, a blur that depends on height.

    `error` is (S many, 1, H, W), `spread` (S, K, K) for `many` patches each. Beyond the
    patches the error is taken as zero.
    """
    sides = [n + spread.shape[-1] - 1 for n in error.shape[-2:]]
    transfer = torch.fft.rfft2(spread, s=sides).repeat_interleave(many, 0)[:, None]
    visible_error: Tensor = torch.fft.irfft2(
        torch.fft.rfft2(error, s=sides) * transfer, s=sides
    )
    half = spread.shape[-1] // 2
    rows, columns = (slice(half, half + n) for n in error.shape[-2:])
    return visible_error[..., rows, columns]
