"""Supervised training: one loss between the prediction and the clear image.

Of scenes, haze is found from the whole, by networks that look for it, and lifted before
patches are cut; patches go in as they are.
"""

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.models import (
    BLOCK,
    SPREAD,
    DehazingRestorer,
    Haze,
    InformedRestorer,
    Surveyed,
    bicubic,
    dehaze,
)
from napari_semsr.training.data import Patches, Scenes, cut, flat
from napari_semsr.training.learners.base import PIXEL_LOSSES, Learner, check_finite
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.validation import ValidationPair

_HAZE_WEIGHT = 0.3  # of the loss on haze itself; chosen, all bundled models have it
_LEAST_HAZE = 0.05  # haze that varies by less counts little
_HAZE_FLOOR = 0.02  # weight of a block without contrast
_FLOOR = 0.005  # a patch that needs no change must not outweigh all others
_SQUARE_FLOOR = 1e-4  # likewise, of the mean square: 40 dB below the range


def haze_loss(haze: Haze, scenes: Scenes) -> Tensor:
    """Error that a wrongly found haze leaves, over the error that the haze itself is.

    Blocks count by their contrast about the airlight, as they do in a PSNR; a gain
    common to the whole field is free. 1 for a network that finds nothing, 0 for a
    perfect one.
    """
    level = scenes.airlight[:, :, None, None]
    weight = functional.avg_pool2d((scenes.high - level).square(), BLOCK)
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


def relative_l1(prediction: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """L1 of each patch (B, 1, H, W) over the L1 that its degraded input has.

    A plain mean is ruled by the few patches under heavy haze or blur. Judged by
    decibels gained, a slight blur undone counts as much, and so it does here. 1 for a
    network that does nothing, 0 for a perfect one.
    """
    axes = (1, 2, 3)
    before = functional.l1_loss(low, high, reduction="none").mean(axes)
    after = functional.l1_loss(prediction, high, reduction="none").mean(axes)
    return (after / before.clamp_min(_FLOOR)).mean()


def log_mse(prediction: Tensor, high: Tensor, floor: float = _SQUARE_FLOOR) -> Tensor:
    """Logarithm of each patch's mean squared error, averaged: PSNR, but for its sign.

    Where the truth cannot be known, the best answer by a square is the mean of what it
    may be, and PSNR is highest there; L1 asks for the median. By the logarithm each
    patch (B, 1, H, W) counts by decibels, whatever its error was: the loss falls by
    0.23 for each decibel gained.
    """
    square = functional.mse_loss(prediction, high, reduction="none").mean((1, 2, 3))
    return (square + floor).log().mean()


_NAMING_WEIGHT = 0.1  # of the loss on what was found; chosen
_NOISE_WEIGHT = 0.25  # of the loss on the image without noise; chosen
_FINE_FLOOR = 2e-5  # of mean squares: 47 dB below the range, for images sharp already
_LEAST_WINDOW = 8  # blocks of 16 px


def naming_loss(found: Surveyed, scenes: Scenes) -> Tensor:
    """Error of the numbers that were found, in units of their usual spread.

    Where they are known; robust, since those of a faint fault cannot be found.
    """
    known = torch.isfinite(scenes.faults)
    true = torch.where(known, scenes.faults, found.condition.detach())
    spread = torch.tensor(SPREAD, device=true.device)
    error = functional.smooth_l1_loss(
        found.condition / spread, true / spread, reduction="none"
    )
    return (error * known).sum() / known.sum().clamp_min(1)


class Informed:
    """How an `InformedRestorer` learns from scenes.

    The local part is told what was done to a scene, what the survey found, or what it
    found in a window of the scene, by turns, so that it follows what it is told and
    forgives what is told wrongly.
    """

    def __init__(self, network: InformedRestorer, recipe: Recipe) -> None:
        self.network, self.side = network, recipe.data.patch_px
        self.data_weight = recipe.data_weight
        fine = partial(log_mse, floor=_FINE_FLOOR)
        self.compare = fine if recipe.loss == "log-mse" else rmse

    def loss(self, scenes: Scenes, exact: AbstractContextManager[Any]) -> Tensor:
        """Give the loss of a batch."""
        found = self.network.look(scenes.low)
        within = self.network.look(_window(scenes.low))
        named = naming_loss(found, scenes) + naming_loss(within, scenes)
        surveyed = _NAMING_WEIGHT * named + _HAZE_WEIGHT * haze_loss(found.haze, scenes)
        told = _told(found.condition, within.condition, scenes.faults)
        clear = dehaze(scenes.low, found.haze)
        planes = self.network.planes(clear, told, found.rings)
        planes, high, noiseless = (
            cut(part, scenes.corners, self.side).flatten(0, 1)
            for part in (planes, scenes.high, scenes.noiseless)
        )
        seen = planes[:, :1]
        many = scenes.corners.shape[1]
        conditions = [t.repeat_interleave(many, 0) for t in self.network.told(told)]
        ordered = planes.contiguous(memory_format=torch.channels_last)
        corrections = self.network.local.correct(ordered, conditions)
        with exact:
            noise, blur = corrections.float().chunk(2, dim=1)
            quiet = seen + noise
            loss = self.compare(quiet + blur, high)
            loss = loss + _NOISE_WEIGHT * self.compare(quiet, noiseless)
            if self.data_weight > 0:
                error = seen_error(quiet + blur - high, scenes.spread, many)
                term = self.compare(error, torch.zeros_like(error))
                loss = loss + self.data_weight * term
            return loss + surveyed


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
    seen: Tensor = torch.fft.irfft2(torch.fft.rfft2(error, s=sides) * transfer, s=sides)
    half = spread.shape[-1] // 2
    rows, columns = (slice(half, half + n) for n in error.shape[-2:])
    return seen[..., rows, columns]


def rmse(prediction: Tensor, high: Tensor) -> Tensor:
    """Root of each patch's mean squared error, averaged.

    The gradient of a patch (B, 1, H, W) is as long whatever its error: of the
    logarithm it is the longer the less is left to learn, and a network that is to leave
    sharp patches alone learns little else for long.
    """
    square = functional.mse_loss(prediction, high, reduction="none").mean((1, 2, 3))
    return (square + _FINE_FLOOR).sqrt().mean()


def _window(low: Tensor) -> Tensor:
    """Cut a window of blocks at random, the same of all scenes (S, 1, H, W)."""
    place: list[slice] = []
    for size in low.shape[-2:]:
        blocks = size // BLOCK
        least = min(_LEAST_WINDOW, blocks)
        length = int(torch.randint(least, blocks + 1, ()))
        first = int(torch.randint(0, blocks - length + 1, ()))
        place.append(slice(first * BLOCK, (first + length) * BLOCK))
    rows, columns = place
    return low[..., rows, columns]


def _told(found: Tensor, within: Tensor, true: Tensor) -> Tensor:
    """Draw for each scene which numbers (S, 9) its local part is told."""
    turn = torch.randint(0, 3, (len(true), 1), device=true.device)
    known = torch.where(torch.isfinite(true), true, found)
    return torch.where(turn == 0, known, torch.where(turn == 1, found, within))


class Supervised(Learner):
    """Training of any network on pairs of patches, or on scenes with their haze."""

    def __init__(
        self, network: nn.Module, recipe: Recipe, pairs: list[ValidationPair]
    ) -> None:
        ordered = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(ordered, recipe, pairs)
        self.loss = recipe.loss
        self.informed = None
        if recipe.whole_scenes and isinstance(network, InformedRestorer):
            self.informed = Informed(network, recipe)
        if recipe.whole_scenes:
            network = getattr(network, "local", network)
            self.loss = "log-mse" if recipe.loss == "log-mse" else "relative-l1"
        # not a module, so that the names of weights stay as they are
        forward = network.forward
        self.run = torch.compile(forward) if recipe.compiled else forward

    def training_step(self, batch: Any, _index: int) -> Tensor:
        """Return the loss of one batch of `Scenes` or `Patches`."""
        haze: Tensor | None = None
        if self.informed is not None:
            loss = self.informed.loss(Scenes(*batch), self.exact())
            check_finite("loss is", loss, self.global_step)
            return loss
        if self.recipe.whole_scenes:
            seen, low, high, haze = self._dehazed(Scenes(*batch))
        else:
            low, high = flat(Patches(*batch))
            seen = low
        prediction = self.run(seen.contiguous(memory_format=torch.channels_last))
        with self.exact():
            loss = self._compared(prediction.float(), low, high)
        if haze is not None:
            loss = haze + loss
        check_finite("loss is", loss, self.global_step)
        return loss

    def _dehazed(self, scenes: Scenes) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Give what the local part sees, degraded and clear patches, and haze loss."""
        seen, loss = scenes.low, None
        if isinstance(self.network, DehazingRestorer):
            found = self.network.find_haze(scenes.low)
            seen = dehaze(scenes.low, found)
            loss = _HAZE_WEIGHT * haze_loss(found, scenes)
        size = self.recipe.data.patch_px
        cut_seen, low, high = (
            cut(part, scenes.corners, size).flatten(0, 1)
            for part in (seen, scenes.low, scenes.high)
        )
        return cut_seen, low, high, loss

    def _compared(self, prediction: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Compare a prediction with the truth in the way that the recipe names."""
        if self.loss in PIXEL_LOSSES:
            return PIXEL_LOSSES[self.loss](prediction, high)
        if self.loss == "log-mse":
            return log_mse(prediction, high)
        if self.loss == "rmse":
            return rmse(prediction, high)
        scale = high.shape[-1] // low.shape[-1]
        return relative_l1(prediction, bicubic(low, scale), high)
