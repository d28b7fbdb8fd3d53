"""Supervised training: one loss between the prediction and the clear image."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.training.data import Patches, flat
from napari_semsr.training.learners.base import PIXEL_LOSSES, Learner, check_finite
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.residual_shift import moved_onto
from napari_semsr.training.validation import ValidationPair

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
        ordered = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(ordered, recipe, pairs)
        # not a module, so that the names of weights stay as they are
        forward = network.forward
        self.run = torch.compile(forward) if recipe.compiled else forward

    def training_step(self, batch: Any, _index: int) -> Tensor:
        """Return the loss of one batch of `Patches`."""
        low, high = flat(Patches(*batch))
        prediction = self.run(low.contiguous(memory_format=torch.channels_last))
        compare = PIXEL_LOSSES.get(self.recipe.loss, log_mse)
        with self.exact():
            made = prediction.float()
            loss = compare(made, moved_onto(high, made, self.recipe.shift_px))
        check_finite("loss is", loss, self.global_step)
        return loss
