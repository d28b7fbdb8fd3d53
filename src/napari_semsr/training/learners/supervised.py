"""Supervised training of a restorer: L1 between the prediction and the clear image."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.models import BLOCK, Unveiled, Veil, bicubic, lift
from napari_semsr.training.data import Patches, Scenes, flat
from napari_semsr.training.learners.base import Learner, check_loss
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.validation import ValidationPair

LEAST_VEIL = 0.05  # haze that varies by less counts little
VEIL_FLOOR = 0.02  # weight of a block without contrast
FLOOR = 0.005  # a patch that needs no change must not outweigh all others
SQUARE_FLOOR = 1e-4  # likewise, of the mean square: 40 dB below the range


def cut_patches(scenes: Tensor, corners: Tensor, size: int) -> Tensor:
    """Cut patches out of scenes.

    Parameters
    ----------
    scenes : (S, 1, H, W) torch.Tensor
        Images.
    corners : (S, P, 2) torch.Tensor of int64
        Row and column where each patch begins.
    size : int
        Side of a patch.

    Returns
    -------
    (S * P, 1, size, size) torch.Tensor
        The patches of one scene after those of the other.
    """
    return torch.stack(
        [
            scene[:, y : y + size, x : x + size]
            for scene, places in zip(scenes, corners.tolist(), strict=True)
            for y, x in places
        ]
    )


def veil_loss(veil: Veil, scenes: Scenes) -> Tensor:
    """Error that a wrongly found veil leaves, over the error that the veil itself is.

    Blocks count by their contrast about the airlight, as they do in a PSNR; a gain
    common to the whole field is free.

    Parameters
    ----------
    veil : Veil
        As found.
    scenes : Scenes
        The truth.

    Returns
    -------
    torch.Tensor
        1 for a network that finds nothing, 0 for a perfect one.
    """
    level = scenes.airlight[:, :, None, None]
    weight = functional.avg_pool2d((scenes.high - level).square(), BLOCK)
    weight = weight + VEIL_FLOOR * weight.mean((-1, -2), keepdim=True)
    weight = weight / weight.sum((-1, -2), keepdim=True).clamp_min(1e-9)

    def varying(log_gain: Tensor) -> Tensor:
        mean = (weight * log_gain).sum((-1, -2), keepdim=True)
        return log_gain - mean

    error = (weight * varying(veil.log_gain - scenes.log_gain).square()).sum((-1, -2))
    before = (weight * varying(scenes.log_gain).square()).sum((-1, -2))
    found: Tensor = error / (before + LEAST_VEIL**2)
    away = (veil.airlight - level).abs().mean()
    return found.clamp(max=10).mean() + away


def relative_l1(prediction: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """L1 of each patch over the L1 that its degraded input has.

    A plain mean is ruled by the few patches under heavy haze or blur. Judged by
    decibels gained, a slight blur undone counts as much, and so it does here.

    Parameters
    ----------
    prediction, low, high : (B, 1, H, W) torch.Tensor
        Restored, degraded and clear patches.

    Returns
    -------
    torch.Tensor
        1 for a network that does nothing, 0 for a perfect one.
    """
    axes = (1, 2, 3)
    before = functional.l1_loss(low, high, reduction="none").mean(axes)
    after = functional.l1_loss(prediction, high, reduction="none").mean(axes)
    return (after / before.clamp_min(FLOOR)).mean()


def log_mse(prediction: Tensor, high: Tensor) -> Tensor:
    """Logarithm of each patch's mean squared error, averaged: PSNR, but for its sign.

    Where the truth cannot be known, the best answer by a square is the mean of what it
    may be, and PSNR is highest there; L1 asks for the median. By the logarithm each
    patch counts by decibels, whatever its error was.

    Parameters
    ----------
    prediction, high : (B, 1, H, W) torch.Tensor
        Restored and clear patches.

    Returns
    -------
    torch.Tensor
        Falls by 0.23 for each decibel gained.
    """
    square = functional.mse_loss(prediction, high, reduction="none").mean((1, 2, 3))
    return (square + SQUARE_FLOOR).log().mean()


class SupervisedL1(Learner):
    """Training of a restorer on degraded scenes, with its look for haze if it has one.

    Parameters
    ----------
    network : torch.nn.Module
        What is trained.
    recipe : Recipe
        How.
    pairs : list of ValidationPair
        Fields that choose the checkpoint.
    """

    def __init__(
        self, network: nn.Module, recipe: Recipe, pairs: list[ValidationPair]
    ) -> None:
        ordered = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(ordered, recipe, pairs)
        self.run = self.quick(getattr(network, "local", network))

    def training_step(self, batch: Scenes, _index: int) -> Tensor:
        """Return the loss of one batch of scenes.

        Parameters
        ----------
        batch : Scenes
            Scenes with the corners of their patches.
        _index : int
            Number of the batch; not used.

        Returns
        -------
        torch.Tensor
            The loss.

        Raises
        ------
        SemsrError
            If the loss is not finite.
        """
        scenes = Scenes(*batch)
        size = self.recipe.data.patch_px
        seen = scenes.low
        loss = scenes.low.new_zeros(())
        if isinstance(self.network, Unveiled):
            veil = self.network.veil_of(scenes.low)
            seen = lift(scenes.low, veil)
            loss = self.recipe.veil_weight * veil_loss(veil, scenes)
        low, high, seen = (
            cut_patches(part, scenes.corners, size)
            for part in (scenes.low, scenes.high, seen)
        )
        prediction = self.run(seen.contiguous(memory_format=torch.channels_last))
        if self.recipe.loss == "log-mse":
            loss = loss + log_mse(prediction.float(), high)
        else:
            loss = loss + relative_l1(prediction.float(), low, high)
        check_loss(loss, self.global_step)
        return loss


# Training of any network by one loss between the prediction and the clear image.


class Supervised(Learner):
    """Training of any network by the loss that the recipe names.

    Parameters
    ----------
    network : torch.nn.Module
        What is trained.
    recipe : Recipe
        How.
    pairs : list of ValidationPair
        Fields that choose the checkpoint.
    """

    def __init__(
        self, network: nn.Module, recipe: Recipe, pairs: list[ValidationPair]
    ) -> None:
        ordered = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(ordered, recipe, pairs)
        self.run = self.quick(network)

    def training_step(self, batch: Patches, _index: int) -> Tensor:
        """Return the loss of one batch.

        Parameters
        ----------
        batch : Patches
            Degraded and clear patches.
        _index : int
            Number of the batch; not used.

        Returns
        -------
        torch.Tensor
            The loss.

        Raises
        ------
        SemsrError
            If the loss is not finite.
        """
        low, high = flat(batch)
        prediction = self.run(low.contiguous(memory_format=torch.channels_last))
        with self.exact():
            loss = self._loss(prediction.float(), low, high)
        check_loss(loss, self.global_step)
        return loss

    def _loss(self, prediction: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Compare a prediction with the truth in the way that the recipe names."""
        if self.recipe.loss == "mse":
            return functional.mse_loss(prediction, high)
        if self.recipe.loss == "l1":
            return functional.l1_loss(prediction, high)
        if self.recipe.loss == "log-mse":
            return log_mse(prediction, high)
        scale = high.shape[-1] // low.shape[-1]
        return relative_l1(prediction, bicubic(low, scale), high)
