"""Training of any network by one loss between the prediction and the clear image."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.models.blocks import bicubic
from napari_semsr.training.guards import check_loss
from napari_semsr.training.learner import Learner
from napari_semsr.training.patches import Patches, flat
from napari_semsr.training.recipes import Recipe
from napari_semsr.training.supervised import log_mse, relative_l1
from napari_semsr.training.validation import ValidationPair

__all__ = ["Supervised"]


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
