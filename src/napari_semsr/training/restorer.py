"""Training of a restorer that is told: survey and local part, from whole scenes.

Haze is found from a scene and lifted before patches are cut; patches go in as they are.
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
    blur_known,
    dehaze,
    to_device,
)
from napari_semsr.training.learner import Learner, log_mse
from napari_semsr.training.patches import cut
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.scenes import BlockScenes, Scenes
from napari_semsr.training.validation import ValidationPair

_NAMING_WEIGHT = 0.1  # of the loss on what was found; chosen
_NOISE_WEIGHT = 0.25  # of the loss on the image without noise; chosen
_FINE_FLOOR = 2e-5  # of mean squares: 47 dB below the range, for images sharp already
_LEVEL_WEIGHT = 0.1  # of the loss on means over squares, grey levels of flat places
_LEVEL_PX, _LEVEL_FLOOR = 16, 1e-6  # their side; a quarter of a grey level of 255
_WIDTHS = slice(5, 7)  # of a blur, in `FAULTS`
_UNSURE = 0.02  # deviation of a width that is told, over the width; chosen
_TOO_WIDE = 4.0  # times the error of one as much too narrow; chosen
_VEILED = 16  # scenes of a batch from which haze is learnt, where a survey is alone
_LEAST_WINDOW = 8  # blocks of 16 px
_HAZE_WEIGHT = 0.3  # of the loss on haze itself; chosen
_LEAST_HAZE = 0.05  # haze that varies by less counts little
_HAZE_FLOOR = 0.02  # weight of a block without contrast


def haze_loss(haze: Haze, scenes: BlockScenes) -> Tensor:
    """Error that a wrongly found haze leaves, over that of the haze itself."""
    level = scenes.airlight[:, :, None, None]
    weight = scenes.contrast
    weight = weight + _HAZE_FLOOR * weight.mean((-1, -2), keepdim=True)
    weight = weight / weight.sum((-1, -2), keepdim=True).clamp_min(1e-9)

    def varying(log_gain: Tensor) -> Tensor:
        mean = (weight * log_gain).sum((-1, -2), keepdim=True)
        return log_gain - mean

    error = (weight * varying(haze.log_gain - scenes.log_gain).square()).sum((-1, -2))
    before = (weight * varying(scenes.log_gain).square()).sum((-1, -2))
    share: Tensor = error / (before + _LEAST_HAZE**2)
    # an airlight far beyond the image's own greys need be known less well
    away = ((haze.airlight - level).abs() / (1 + level.abs())).mean()
    return share.clamp(max=10).mean() + away


def naming_loss(estimates: Tensor, faults: Tensor) -> Tensor:
    """Error of the numbers (S, 9) that were found, in units of their usual spread."""
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
    """The local part is told true, found and locally found faults by turns."""

    network: InformedRestorer

    def __init__(
        self, network: nn.Module, recipe: Recipe, pairs: list[ValidationPair]
    ) -> None:
        if not isinstance(network, InformedRestorer):
            msg = "Kind restorer needs architecture informed."
            raise OptionError(msg, code="options-contradict")
        module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(module, recipe, pairs)
        self.sharpens = recipe.learns == "sharpener"
        if self.sharpens and network.sharpener is None:
            msg = (
                "learns: sharpener needs a network that has one; give the option "
                "sharpener of architecture informed, its widths."
            )
            raise OptionError(msg, code="options-contradict")
        network.survey.requires_grad_(recipe.learns in ("all", "survey"))
        for part in (network.local, network.embed, network.tell):
            part.requires_grad_(recipe.learns in ("all", "local"))
        local = network.local
        if network.sharpener is not None:
            network.sharpener.requires_grad_(self.sharpens)
            local = network.sharpener.local if self.sharpens else local
        # not a module, so that the names of weights stay as they are
        correct = local.correct
        self.correct = torch.compile(correct) if recipe.compiled else correct

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Leave the corners of patches on the CPU, which cuts by them."""
        moved_batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        if hasattr(moved_batch, "corners"):
            moved_batch = moved_batch._replace(corners=batch.corners)
        return moved_batch

    def training_step(self, batch: Any, _index: int) -> Tensor:
        """Return the loss of one batch of `Scenes`; of a survey, of `BlockScenes`."""
        survey, alone = self.network.survey, self.recipe.learns == "survey"
        with self.exact():
            block_scenes = (
                BlockScenes(*batch) if alone else BlockScenes.of(Scenes(*batch), survey)
            )
            # names cost next to nothing, and are learnt from many scenes at once
            hazy_scenes = (
                BlockScenes(*(p[:_VEILED] for p in block_scenes))
                if alone
                else block_scenes
            )
            haze = survey.haze(hazy_scenes.statistics)
            named_faults = survey.named(block_scenes.statistics)
            within = survey.named(_window(block_scenes.statistics))
        loss = torch.zeros((), device=named_faults.device)
        if self.recipe.learns in ("all", "survey"):
            both = naming_loss(named_faults, block_scenes.faults) + naming_loss(
                within, block_scenes.faults
            )
            loss = _NAMING_WEIGHT * both + _HAZE_WEIGHT * haze_loss(haze, hazy_scenes)
        if not alone:
            scenes = Scenes(*batch)
            clear = dehaze(scenes.low, haze.certain() if self.sharpens else haze)
            if self.sharpens:
                condition = blur_known(named_faults, scenes.faults).clone()
                # widths as nearly as a user may know them
                wide = (condition[:, _WIDTHS].exp() - NO_BLUR).clamp_min(0)
                away = 1 + _UNSURE * torch.randn(
                    len(condition), 1, device=condition.device
                )
                condition[:, _WIDTHS] = (wide * away.clamp_min(0.5) + NO_BLUR).log()
                planes, gate = self.network.sharpening_planes(clear, condition)
            else:
                # of each scene true, found or locally found numbers, by turns
                true, turns = scenes.faults, (len(scenes.faults), 1)
                turn = torch.randint(0, 3, turns, device=true.device)
                true_or_named = torch.where(torch.isfinite(true), true, named_faults)
                mixed_faults = torch.where(turn == 1, named_faults, within)
                condition = torch.where(turn == 0, true_or_named, mixed_faults)
                rings = survey.rings(block_scenes.statistics)
                planes, gate = self.network.planes(clear, condition, rings), None
            loss = loss + self._compare_output(scenes, planes, condition, gate)
        self.check_finite("loss is", loss)
        return loss

    def _compare_output(
        self, scenes: Scenes, planes: Tensor, condition: Tensor, gate: Gate | None
    ) -> Tensor:
        """Compare what the part that learns makes of patches with the clear ones."""
        side, many = self.recipe.data.patch_px, scenes.corners.shape[1]
        planes, high, noiseless = (
            cut(part, scenes.corners, side).flatten(0, 1)
            for part in (planes, scenes.high, scenes.noiseless)
        )
        image = planes[:, :1]
        numbers = self.network.told(condition, sharpen=self.sharpens)
        conditions = [t.repeat_interleave(many, 0) for t in numbers]
        corrections = self.correct(self.laid_out(planes), conditions)
        with self.exact():
            corrections = corrections.float()
            if gate is not None and self.network.sharpener is not None:
                gates = Gate(*(part.repeat_interleave(many, 0) for part in gate))
                corrections = self.network.sharpener.gated(corrections, planes, gates)
            noise, blur = corrections.chunk(2, dim=1)
            quiet = image + noise
            loss = log_mse(quiet + blur, high, _FINE_FLOOR)
            loss = loss + _NOISE_WEIGHT * log_mse(quiet, noiseless, _FINE_FLOOR)
            level = functional.avg_pool2d(quiet + blur - high, _LEVEL_PX)
            loss = loss + _LEVEL_WEIGHT * log_mse(
                level, torch.zeros_like(level), _LEVEL_FLOOR
            )
            if self.recipe.data_weight > 0:
                error = seen_error(quiet + blur - high, scenes.spread, many)
                term = log_mse(error, torch.zeros_like(error), _FINE_FLOOR)
                loss = loss + self.recipe.data_weight * term
            return loss


def seen_error(error: Tensor, spread: Tensor, many: int) -> Tensor:
    """Give what is left of an error once a microscope has blurred it.

    An output whose blurred image is that of the truth gives back what light has told of
    the sample, and nothing that light contradicts. Compared with the input itself it
    would have to explain what no grey-level map of electrons can: interference, the
    lost light of edges, a blur that changes with height.

    `error` (S many, 1, H, W), `spread` (S, K, K), of `many` patches in turn. Nothing is
    known beyond the patches.
    """
    sides = [n + spread.shape[-1] - 1 for n in error.shape[-2:]]
    transfer = torch.fft.rfft2(spread, s=sides).repeat_interleave(many, 0)[:, None]
    visible_error: Tensor = torch.fft.irfft2(
        torch.fft.rfft2(error, s=sides) * transfer, s=sides
    )
    half = spread.shape[-1] // 2
    rows, columns = (slice(half, half + n) for n in error.shape[-2:])
    return visible_error[..., rows, columns]


def _window(statistics: Tensor) -> Tensor:
    """Cut a window of blocks at random, the same of all scenes (S, 21, h, w)."""
    place: list[slice] = []
    for blocks in statistics.shape[-2:]:
        least = min(_LEAST_WINDOW, blocks)
        length = int(torch.randint(least, blocks + 1, ()))
        first = int(torch.randint(0, blocks - length + 1, ()))
        place.append(slice(first, first + length))
    rows, columns = place
    return statistics[..., rows, columns]
