"""Supervised training of a restorer: L1 between the prediction and the clear image."""

import math
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.core.errors import SemsrError
from napari_semsr.models.unveiled import Unveiled
from napari_semsr.models.veil import BLOCK, Veil, lift
from napari_semsr.training.data import Scenes, ValidationPair
from napari_semsr.training.recipes import Recipe

__all__ = [
    "SupervisedL1",
    "affine_psnr_db",
    "cut_patches",
    "learning_rate_factor",
    "relative_l1",
    "restore_field",
    "veil_loss",
]

PERCENTILES = (0.1, 99.9)
LEAST_VEIL = 0.05  # haze that varies by less counts little
VEIL_FLOOR = 0.02  # weight of a block without contrast
FLOOR = 0.005  # a patch that needs no change must not outweigh all others


def learning_rate_factor(step: int, recipe: Recipe) -> float:
    """Share of the full learning rate: a linear rise, a plateau, a cosine fall.

    Parameters
    ----------
    step : int
        Optimiser steps done.
    recipe : Recipe
        Gives the lengths of the three parts.

    Returns
    -------
    float
        Factor in [0, 1].
    """
    rise = min(1.0, (step + 1) / max(1, recipe.warmup_steps))
    left = recipe.steps - step
    if left >= recipe.decay_steps:
        return rise
    return rise * 0.5 * (1 - math.cos(math.pi * max(0, left) / recipe.decay_steps))


def affine_psnr_db(image: NDArray[Any], truth: NDArray[Any]) -> float:
    """PSNR on the 0-255 scale after the best gain and offset.

    Parameters
    ----------
    image, truth : (Y, X) numpy.ndarray
        Image to judge, and the clear 8-bit one.

    Returns
    -------
    float
        Decibels.
    """
    x, y = image.astype(float).ravel(), truth.astype(float).ravel()
    x = x - x.mean()
    spread = float(x @ x)
    gain = float(x @ y) / spread if spread > 0 else 0.0
    error = y - y.mean() - gain * x
    return 10 * math.log10(255**2 / max(float(np.mean(error**2)), 1e-12))


@torch.inference_mode()
def restore_field(module: nn.Module, image: NDArray[Any]) -> NDArray[np.float32]:
    """Run a network on one small field, whole, in fp32.

    Parameters
    ----------
    module : torch.nn.Module
        Network whose `stride` attribute, if any, says which sides it takes.
    image : (Y, X) numpy.ndarray
        Grey values on any scale.

    Returns
    -------
    (Y, X) numpy.ndarray of float32
        Restored image on the same scale.
    """
    low, high = np.percentile(image, PERCENTILES)
    span = max(float(high - low), 1e-6)
    device = next(module.parameters()).device
    scaled = torch.from_numpy((image.astype(np.float32) - low) / span).to(device)
    rows, columns = scaled.shape
    stride = int(getattr(module, "stride", 1))
    pad = (0, -columns % stride, 0, -rows % stride)
    padded = functional.pad(scaled[None, None].float(), pad, mode="reflect")
    restored = module(padded)[0, 0, :rows, :columns]
    return np.asarray(restored.float().cpu().numpy() * span + low, dtype=np.float32)


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


class SupervisedL1(lightning.LightningModule):
    """Lightning's view of a supervised recipe.

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
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recipe = recipe
        self.pairs = pairs
        self.before = [affine_psnr_db(p.low, p.high) for p in pairs]

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
        local, seen = self.network, scenes.low
        loss = scenes.low.new_zeros(())
        if isinstance(self.network, Unveiled):
            local, veil = self.network.local, self.network.veil_of(scenes.low)
            seen = lift(scenes.low, veil)
            loss = self.recipe.veil_weight * veil_loss(veil, scenes)
        low, high, seen = (
            cut_patches(part, scenes.corners, size)
            for part in (scenes.low, scenes.high, seen)
        )
        prediction = local(seen.contiguous(memory_format=torch.channels_last))
        loss = loss + relative_l1(prediction.float(), low, high)
        if not torch.isfinite(loss):
            msg = (
                f"The loss is not finite at step {self.global_step}; lower "
                "learning_rate and resume from the last checkpoint."
            )
            raise SemsrError(msg)
        self.log("loss", loss)
        return loss

    def validate_pairs(self) -> dict[str, float]:
        """Gain over the degraded input in dB, for each kind and in the mean.

        Returns
        -------
        dict
            ``gain_db`` and one ``gain_db_KIND`` for each degradation.
        """
        self.network.eval()
        gains: dict[str, list[float]] = {}
        for pair, before in zip(self.pairs, self.before, strict=True):
            after = affine_psnr_db(restore_field(self.network, pair.low), pair.high)
            gains.setdefault(pair.kind, []).append(after - before)
        self.network.train()
        result = {f"gain_db_{k}": float(np.mean(v)) for k, v in gains.items()}
        everything = [g for values in gains.values() for g in values]
        return {"gain_db": float(np.mean(everything)), **result}

    def configure_optimizers(self) -> Any:
        """Adam with the recipe's schedule, stepped at every step.

        Returns
        -------
        dict
            Optimiser and scheduler, as Lightning wants them.
        """
        optimizer = torch.optim.Adam(
            self.network.parameters(), lr=self.recipe.learning_rate
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, self.recipe)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
