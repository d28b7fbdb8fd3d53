"""Losses, optimisers and image history shared by both kinds of adversarial training.

Scores become losses by cross-entropy [1]_, least squares [2]_, or the relativistic
average [3]_ of ESRGAN.

.. [1] I. Goodfellow et al., NeurIPS 2014, arXiv:1406.2661.
.. [2] X. Mao et al., ICCV 2017, arXiv:1611.04076.
.. [3] A. Jolicoeur-Martineau, ICLR 2019, arXiv:1807.00734.

Gao: X. Gao et al., Sci. Rep. 14 (2024), doi:10.1038/s41598-024-57056-4. De Haan: K. de
Haan et al., Sci. Rep. 9, 12050 (2019), doi:10.1038/s41598-019-48444-2.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.models import build_discriminator, to_device, upsample_bicubic
from napari_semsr.training.learner import PIXEL_LOSSES, Learner, freeze_weights
from napari_semsr.training.patches import Patches, flatten_scenes
from napari_semsr.training.recipe import Adversarial, GanOptions, Recipe
from napari_semsr.training.validation import Pairs, align_ground_truth

if TYPE_CHECKING:
    from pytorch_lightning.core.optimizer import LightningOptimizer


def _compute_cross_entropy(score: Tensor, target: float) -> Tensor:
    return functional.binary_cross_entropy_with_logits(
        score, score.new_full((), target).expand_as(score)
    )


def generator_loss(
    kind: Adversarial, fake: Tensor, real: Tensor | None = None, *, factor: float = 1.0
) -> Tensor:
    """Return the generator loss; only the relativistic form uses `real`."""
    if kind == "least-squares":
        return factor * (fake - 1).square().mean()
    if kind == "cross-entropy" or real is None:
        return factor * _compute_cross_entropy(fake, 1.0)
    above = _compute_cross_entropy(fake - real.mean(), 1.0)
    return factor * (above + _compute_cross_entropy(real - fake.mean(), 0.0)) / 2


def discriminator_loss(
    kind: Adversarial, real: Tensor, fake: Tensor, *, factor: float = 0.5
) -> Tensor:
    """Return the discriminator loss, `factor` times the sum of real and fake terms."""
    if kind == "least-squares":
        return factor * ((real - 1).square().mean() + fake.square().mean())
    if kind == "cross-entropy":
        above, below = real, fake
    else:
        above, below = real - fake.mean(), fake - real.mean()
    both = _compute_cross_entropy(above, 1.0) + _compute_cross_entropy(below, 0.0)
    return factor * both


def compute_discriminator_step_loss(
    discriminator: nn.Module, real: Tensor, fake: Tensor, options: GanOptions
) -> Tensor:
    """Return the discriminator loss on images (B, C, H, W) in full precision."""
    scores = discriminator(real), discriminator(fake)
    with torch.autocast(real.device.type, enabled=False):
        real_scores, fake_scores = (score.float() for score in scores)
        scores, factor = (real_scores, fake_scores), options.discriminator_factor
        return discriminator_loss(options.adversarial, *scores, factor=factor)


class AdversarialLearner(Learner, ABC):
    """Learner that alternately trains generators and discriminators."""

    judged: Tensor

    def __init__(self, network: nn.Module, recipe: Recipe, pairs: Pairs) -> None:
        super().__init__(network, recipe, pairs)
        self.automatic_optimization = False
        self.register_buffer("judged", torch.zeros(()))
        self.gan = recipe.gan

    def generators(self) -> nn.Module:
        """Return the networks trained by the first optimiser."""
        return self.network

    @abstractmethod
    def discriminators(self) -> nn.Module:
        """Return the networks trained by the second optimiser."""

    def auxiliary_networks(self) -> nn.Module:
        """Return the discriminators."""
        return nn.ModuleDict({"judges": self.discriminators()})

    @abstractmethod
    def compute_generator_loss(self, low: Tensor, high: Tensor, step: int) -> Tensor:
        """Return the generator loss on images (B, 1, H, W)."""

    @abstractmethod
    def compute_discriminator_loss(
        self, low: Tensor, high: Tensor, step: int
    ) -> Tensor:
        """Return the discriminator loss on the last generator output."""

    def training_step(self, batch: Patches, _index: int) -> dict[str, Tensor]:
        """Train the generators and, if scheduled, the discriminators for one step."""
        low, high = flatten_scenes(batch)
        step = self.global_step
        first, second = cast("list[LightningOptimizer]", self.optimizers())
        full = self.recipe.learning_rate * self.rate_factor(step)
        for optimizer, share in ((first, 1.0), (second, self.gan.discriminator_rate)):
            for group in optimizer.param_groups:
                group["lr"] = full * share
        loss = self.compute_generator_loss(low, high, step)
        self._compute_gradients(first.optimizer, loss, low, high)
        first.step()
        self.update_average(step)
        late = step >= self.gan.content_only_steps
        if late and step % self.gan.discriminator_every == 0:
            losses = self.compute_discriminator_loss(low, high, step)
            self._compute_gradients(second.optimizer, losses, low, high)
            second.optimizer.step()  # not counted as a step of the run
            self.judged.copy_(losses.detach())
        self.terms["discriminator"] = self.judged
        return {"loss": loss.detach()}

    def _compute_gradients(
        self, optimizer: torch.optim.Optimizer, loss: Tensor, *image: Tensor
    ) -> None:
        """Compute the gradients of a loss and clip them as the recipe specifies."""
        self.check_finite("loss is", loss.detach(), *image)
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        if self.recipe.clip_norm is not None:
            (group,) = optimizer.param_groups
            nn.utils.clip_grad_norm_(group["params"], self.recipe.clip_norm)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return two Adam optimisers, one for generators, one for discriminators."""
        judges = self.create_adam(self.discriminators(), self.gan.discriminator_rate)
        return [self.create_adam(self.generators()), judges]


class ImageBuffer(nn.Module):
    """Buffer of generated images (Shrivastava et al. 2017, arXiv:1612.07828)."""

    images: Tensor
    count: Tensor

    def __init__(self, size: int, shape: tuple[int, int, int], seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.register_buffer("images", torch.zeros(size, *shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self._count: int | None = None  # a copy of `count`, which is on the GPU

    def _load_from_state_dict(self, *state: object) -> None:
        super()._load_from_state_dict(*state)
        self._count = None

    @torch.no_grad()
    def swap_images(self, fresh: Tensor, step: int) -> Tensor:
        """Return the new images, each replaced by a stored one with probability 1/2."""
        fresh = fresh.detach()
        size = len(self.images)
        if not size:
            return fresh
        rng = np.random.default_rng([self.seed, step])
        exchanged_images = list(fresh)
        stored_count = int(self.count) if self._count is None else self._count
        for number, image in enumerate(fresh):
            if stored_count < size:
                self.images[stored_count] = image
                self.count += 1
                stored_count += 1
                continue
            place = int(rng.integers(size))
            if rng.random() < 0.5:
                stored_image = self.images[place].to(image.dtype).clone()
                exchanged_images[number] = stored_image
                self.images[place] = image
        self._count = stored_count
        return torch.stack(exchanged_images)


_LEAST = 1e-8  # so that a term that is still zero gets a finite weight


class PairedGan(AdversarialLearner):
    """Learner of one generator with adversarial, content and optional TV losses.

    Total variation has a weight only if the recipe sets shares, as de Haan does.
    """

    term_sums: Tensor
    weights: Tensor
    recent: Tensor

    def __init__(self, network: nn.Module, recipe: Recipe, pairs: Pairs) -> None:
        module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(module, recipe, pairs)
        self.scale = int(getattr(network, "scale", 1))
        gan = self.gan
        discriminator = gan.discriminator, gan.discriminator_options
        self.judge_of_high = build_discriminator(*discriminator)
        self.judge_of_high.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        channels = 2 if gan.conditional else 1
        side = recipe.data.patch_px * self.scale
        self.history = ImageBuffer(gan.history, (channels, side, side), recipe.seed)
        weights = [gan.adversarial_weight, gan.content_weight, 0.0]
        self.register_buffer("weights", torch.tensor(weights))
        self.register_buffer("term_sums", torch.zeros(3))
        self.register_buffer("recent", torch.zeros(3))
        self._output: Tensor | None = None

    def discriminators(self) -> nn.Module:
        """Return the discriminator."""
        return self.judge_of_high

    def compute_generator_loss(self, low: Tensor, high: Tensor, step: int) -> Tensor:
        """Return the generator loss."""
        output = self.network(self.set_memory_layout(low))
        self._output = output.detach()
        with self.full_precision():
            truth = align_ground_truth(high, output.float(), self.recipe.shift_px)
            content = PIXEL_LOSSES[self.gan.content](output.float(), truth)
        self.terms = {"content": content.detach()}
        if step < self.gan.content_only_steps:
            return content
        kind, factor = self.gan.adversarial, self.gan.generator_factor
        with freeze_weights(self.judge_of_high):
            fake, real = self._compute_score(low, output), None
            if kind == "relativistic":
                real = self._compute_score(low, high)
        with self.full_precision():
            adversarial = generator_loss(kind, fake, real, factor=factor)
            shares, rough = self.gan.shares, content.new_zeros(())
            if shares is not None:  # otherwise it has no weight
                rough = total_variation(output.float())
        parts = torch.stack((adversarial, content, rough))
        gan_steps = step - self.gan.content_only_steps
        if shares is not None and gan_steps < self.gan.calibration_steps:  # then fixed
            self.term_sums += parts.detach()
            means = (self.term_sums / (gan_steps + 1)).clamp_min(_LEAST)
            plain = to_device(torch.tensor(shares), means.device) / means
            self.weights.copy_(plain / plain[0])  # the first is 1
        names = ("adversarial", "content", "tv")
        weighted_parts = self.weights * parts
        self.terms = dict(zip(names, weighted_parts.detach(), strict=True))
        if shares is not None:
            self.recent.lerp_(weighted_parts.detach(), 1 / self.gan.calibration_steps)
            named_shares = zip(names, self.recent / self.recent.sum(), strict=True)
            self.terms |= {f"share_{name}": share for name, share in named_shares}
        return weighted_parts.sum()

    def compute_discriminator_loss(
        self, low: Tensor, high: Tensor, step: int
    ) -> Tensor:
        """Return the discriminator loss."""
        output = high if self._output is None else self._output
        real = self._get_discriminator_input(low, high)
        fake = self._get_discriminator_input(low, output)
        fake = self.history.swap_images(fake.float(), step)
        return compute_discriminator_step_loss(self.judge_of_high, real, fake, self.gan)

    def _compute_score(self, low: Tensor, image: Tensor) -> Tensor:
        score: Tensor = self.judge_of_high(self._get_discriminator_input(low, image))
        return score.float()

    def _get_discriminator_input(self, low: Tensor, image: Tensor) -> Tensor:
        if not self.gan.conditional:
            return image
        return torch.cat(
            (upsample_bicubic(low, self.scale), image.to(low.dtype)), dim=1
        )


def total_variation(image: Tensor) -> Tensor:
    """Return the total variation averaged over a batch (de Haan's equation 3)."""
    down = (image[..., 1:, :] - image[..., :-1, :]).abs().sum()
    across = (image[..., 1:] - image[..., :-1]).abs().sum()
    return (down + across) / image.shape[0]
