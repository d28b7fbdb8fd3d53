"""What both kinds with discriminators share: two optimisers, and who steps when."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, cast

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from napari_semsr.training.guards import check_loss
from napari_semsr.training.learner import Learner
from napari_semsr.training.patches import Patches, flat
from napari_semsr.training.recipes import Recipe
from napari_semsr.training.schedule import learning_rate_factor
from napari_semsr.training.validation import ValidationPair

__all__ = ["AdversarialLearner"]


class AdversarialLearner(Learner, ABC):
    """Generators and discriminators that learn in turn.

    A step of Lightning's count is one of the generators; the discriminators' optimiser
    is stepped without being counted. Learning rates follow from the step alone.

    Parameters
    ----------
    network : torch.nn.Module
        The generator that is judged and saved.
    recipe : Recipe
        How.
    pairs : list of ValidationPair
        Fields that choose the checkpoint.
    """

    judged: Tensor

    def __init__(
        self, network: nn.Module, recipe: Recipe, pairs: list[ValidationPair]
    ) -> None:
        super().__init__(network, recipe, pairs)
        self.automatic_optimization = False
        self.register_buffer("judged", torch.zeros(()))
        self.gan = recipe.gan

    @abstractmethod
    def generators(self) -> nn.Module:
        """Give what the first optimiser trains.

        Returns
        -------
        torch.nn.Module
            Generators.
        """

    @abstractmethod
    def discriminators(self) -> nn.Module:
        """Give what the second optimiser trains.

        Returns
        -------
        torch.nn.Module
            Discriminators.
        """

    @abstractmethod
    def teach_generators(self, low: Tensor, high: Tensor, step: int) -> Tensor:
        """Return the loss of the generators.

        Parameters
        ----------
        low, high : (B, 1, H, W) torch.Tensor
            Degraded and clear patches.
        step : int
            Number of the step.

        Returns
        -------
        torch.Tensor
            The loss, with gradients.
        """

    @abstractmethod
    def teach_discriminators(self, low: Tensor, high: Tensor, step: int) -> Tensor:
        """Return the loss of the discriminators, on what the generators just made.

        Parameters
        ----------
        low, high : (B, 1, H, W) torch.Tensor
            Degraded and clear patches.
        step : int
            Number of the step.

        Returns
        -------
        torch.Tensor
            The loss, with gradients.
        """

    def training_step(self, batch: Patches, _index: int) -> dict[str, Tensor]:
        """Step the generators, and the discriminators when it is their turn.

        Parameters
        ----------
        batch : Patches
            Degraded and clear patches.
        _index : int
            Number of the batch; not used.

        Returns
        -------
        dict
            ``loss`` of the generators.

        Raises
        ------
        SemsrError
            If a loss is not finite.
        """
        low, high = flat(batch)
        step = self.global_step
        first, second = self._both()
        self._set_rates(step)
        loss = self.teach_generators(low, high, step)
        self._descend(first.optimizer, loss, self.generators())
        first.step()
        self.update_average(step)
        late = step >= self.gan.content_only_steps
        if late and step % self.gan.discriminator_every == 0:
            judged = self.teach_discriminators(low, high, step)
            self._descend(second.optimizer, judged, self.discriminators())
            second.optimizer.step()  # not counted as a step of the run
            self.judged.copy_(judged.detach())
        self.terms["discriminator"] = self.judged
        return {"loss": loss.detach()}

    def _descend(
        self, optimizer: torch.optim.Optimizer, loss: Tensor, trained: nn.Module
    ) -> None:
        """Put the gradients of a loss in place."""
        check_loss(loss.detach(), self.global_step)
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(trained.parameters(), self.recipe.clip_norm)

    def _both(self) -> list[LightningOptimizer]:
        """Give the optimisers of generators and discriminators."""
        return cast("list[LightningOptimizer]", self.optimizers())

    def _set_rates(self, step: int) -> None:
        factor = learning_rate_factor(self.reached(step), self.recipe)
        full = self.recipe.learning_rate * factor
        rates = (full, full * self.gan.discriminator_rate)
        for optimizer, rate in zip(self._both(), rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate

    def configure_optimizers(self) -> Any:
        """Two Adams: for the generators and for the discriminators.

        Returns
        -------
        list of torch.optim.Adam
            The optimisers.
        """
        rate = self.recipe.learning_rate
        return [
            self.adam(_trainable(self.generators()), rate),
            self.adam(
                _trainable(self.discriminators()), rate * self.gan.discriminator_rate
            ),
        ]


def _trainable(module: nn.Module) -> Iterable[nn.Parameter]:
    """Give the weights of a network that take gradients."""
    return (weight for weight in module.parameters() if weight.requires_grad)
