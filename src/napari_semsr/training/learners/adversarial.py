"""What both kinds with discriminators share: losses, two optimisers, a history.

Scores become losses by cross-entropy [1]_, least squares [2]_, or the relativistic
average [3]_ of ESRGAN.

.. [1] I. Goodfellow et al., NeurIPS 2014, arXiv:1406.2661.
.. [2] X. Mao et al., ICCV 2017, arXiv:1611.04076.
.. [3] A. Jolicoeur-Martineau, ICLR 2019, arXiv:1807.00734.

Gao: X. Gao et al., Sci. Rep. 14 (2024), doi:10.1038/s41598-024-57056-4. De Haan: K. de
Haan et al., Sci. Rep. 9, 12050 (2019), doi:10.1038/s41598-019-48444-2.
"""

from abc import ABC, abstractmethod
from typing import Any, cast

import numpy as np
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.training.data import Patches, flat
from napari_semsr.training.learners.base import Learner, check_finite
from napari_semsr.training.recipe import Adversarial, GanOptions, Recipe
from napari_semsr.training.validation import ValidationPair


def _entropy(score: Tensor, target: float) -> Tensor:
    """Cross-entropy of scores against one target."""
    return functional.binary_cross_entropy_with_logits(
        score, score.new_full((), target).expand_as(score)
    )


def generator_loss(
    kind: Adversarial, fake: Tensor, real: Tensor | None = None, *, factor: float = 1.0
) -> Tensor:
    """Loss of a generator: what it makes should be taken for true.

    `fake` and `real` are scores of generated and of true images; only the relativistic
    form needs the latter. Of Gao's equation 9 the least squares are the first term,
    with a `factor` of a half; it is 1 in de Haan's paper, whose equation 4 squares too.
    """
    if kind == "least-squares":
        return factor * (fake - 1).square().mean()
    if kind == "cross-entropy":
        return factor * _entropy(fake, 1.0)
    if real is None:
        msg = "the relativistic loss compares with scores of true images, got none"
        raise ValueError(msg)
    both = _entropy(fake - real.mean(), 1.0) + _entropy(real - fake.mean(), 0.0)
    return factor * both / 2


def discriminator_loss(
    kind: Adversarial, real: Tensor, fake: Tensor, *, factor: float = 0.5
) -> Tensor:
    """Loss of a discriminator: true images from generated ones.

    `real` and `fake` are scores, of any shapes; `factor` multiplies the sum of both
    parts. The least squares are Gao's equation 9 without the generator's term.
    """
    if kind == "least-squares":
        return factor * ((real - 1).square().mean() + fake.square().mean())
    if kind == "cross-entropy":
        return factor * (_entropy(real, 1.0) + _entropy(fake, 0.0))
    both = _entropy(real - fake.mean(), 1.0) + _entropy(fake - real.mean(), 0.0)
    return factor * both


def telling_apart(
    judge: nn.Module, real: Tensor, shown: Tensor, options: GanOptions
) -> Tensor:
    """Loss of a discriminator on images, in the recipe's form.

    `real`, `shown` (B, C, H, W); the loss is taken in full precision.
    """
    scores = judge(real), judge(shown)
    with torch.autocast(real.device.type, enabled=False):
        true, made = (score.float() for score in scores)
        return discriminator_loss(
            options.adversarial, true, made, factor=options.discriminator_factor
        )


class AdversarialLearner(Learner, ABC):
    """Generators and discriminators that learn in turn.

    A step of Lightning's count is one of the generators; the discriminators' optimiser
    is stepped without being counted. Learning rates follow from the step alone.
    """

    judged: Tensor

    def __init__(
        self, network: nn.Module, recipe: Recipe, pairs: list[ValidationPair]
    ) -> None:
        super().__init__(network, recipe, pairs)
        self.automatic_optimization = False
        self.register_buffer("judged", torch.zeros(()))
        self.gan = recipe.gan

    def generators(self) -> nn.Module:
        """Give what the first optimiser trains."""
        return self.network

    @abstractmethod
    def discriminators(self) -> nn.Module:
        """Give what the second optimiser trains."""

    def beside(self) -> nn.Module:
        """Give the discriminators."""
        return nn.ModuleDict({"judges": self.discriminators()})

    @abstractmethod
    def teach_generators(self, low: Tensor, high: Tensor, step: int) -> Tensor:
        """Return the loss of the generators.

        `low`, `high` (B, 1, H, W).
        """

    @abstractmethod
    def teach_discriminators(self, low: Tensor, high: Tensor, step: int) -> Tensor:
        """Return the loss of the discriminators, on what the generators just made.

        `low`, `high` (B, 1, H, W).
        """

    def training_step(self, batch: Patches, _index: int) -> dict[str, Tensor]:
        """Step the generators, and the discriminators when it is their turn."""
        low, high = flat(batch)
        step = self.global_step
        first, second = self._at_rates_of(step)
        loss = self.teach_generators(low, high, step)
        self._descend(first.optimizer, loss)
        first.step()
        self.update_average(step)
        late = step >= self.gan.content_only_steps
        if late and step % self.gan.discriminator_every == 0:
            judged = self.teach_discriminators(low, high, step)
            self._descend(second.optimizer, judged)
            second.optimizer.step()  # not counted as a step of the run
            self.judged.copy_(judged.detach())
        self.terms["discriminator"] = self.judged
        return {"loss": loss.detach()}

    def _descend(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        """Put the gradients of a loss in place."""
        check_finite("loss is", loss.detach(), self.global_step)
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        if self.recipe.clip_norm is not None:
            (trained,) = optimizer.param_groups
            nn.utils.clip_grad_norm_(trained["params"], self.recipe.clip_norm)

    def _at_rates_of(self, step: int) -> list[LightningOptimizer]:
        """Give both optimisers, with the learning rates of a step."""
        both = cast("list[LightningOptimizer]", self.optimizers())
        full = self.recipe.learning_rate * self.rate_factor(step)
        rates = (full, full * self.gan.discriminator_rate)
        for optimizer, rate in zip(both, rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate
        return both

    def configure_optimizers(self) -> Any:
        """Two Adams: for the generators and for the discriminators."""
        share = self.gan.discriminator_rate
        return [self.adam(self.generators()), self.adam(self.discriminators(), share)]


class History(nn.Module):
    """Remembers generated images, of which a discriminator is shown some.

    Old mistakes are not forgotten, and training swings less (Shrivastava et al. 2017,
    arXiv:1612.07828; 50 images in Zhu et al. 2017, arXiv:1703.10593). Its state is part
    of a checkpoint.

    `size` images are remembered, 0 for none; `shape` is channels, rows and columns.
    """

    images: Tensor
    count: Tensor

    def __init__(self, size: int, shape: tuple[int, int, int], seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.register_buffer("images", torch.zeros(size, *shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def exchange(self, fresh: Tensor, step: int) -> Tensor:
        """Show new images, or old ones in whose places the new ones are kept.

        Until the history is full, all are kept and shown; then each is, by chance of a
        half, exchanged for an old one.

        `fresh` (B, C, H, W); what the discriminator is to see has that shape, without
        gradients. The draw depends on the step alone.
        """
        fresh = fresh.detach()
        size = len(self.images)
        if not size:
            return fresh
        rng = np.random.default_rng([self.seed, step])
        shown = []
        for image in fresh:
            if int(self.count) < size:
                self.images[int(self.count)] = image
                self.count += 1
                shown.append(image)
                continue
            place = int(rng.integers(size))
            if rng.random() < 0.5:
                shown.append(self.images[place].to(image.dtype).clone())
                self.images[place] = image
            else:
                shown.append(image)
        return torch.stack(shown)
