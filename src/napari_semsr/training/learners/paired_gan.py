"""Generator and discriminator on pairs: de Haan's system, Pix2Pix, SRGAN, ESRGAN.

De Haan: K. de Haan et al., Sci. Rep. 9, 12050 (2019), doi:10.1038/s41598-019-48444-2.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from napari_semsr.models import bicubic, build_discriminator
from napari_semsr.training.learners.adversarial import (
    AdversarialLearner,
    History,
    generator_loss,
    telling_apart,
)
from napari_semsr.training.learners.base import PIXEL_LOSSES, frozen
from napari_semsr.training.recipe import Recipe
from napari_semsr.training.residual_shift import moved_onto
from napari_semsr.training.validation import ValidationPair

_TV_WEIGHT = 0.0  # only de Haan's system has the term, and states its share
_LEAST = 1e-8  # a term that is nothing yet still gets a weight


class PairedGan(AdversarialLearner):
    """Adversarial, content and total-variation loss of one generator."""

    term_sums: Tensor
    weights: Tensor
    recent: Tensor

    def __init__(
        self, network: nn.Module, recipe: Recipe, pairs: list[ValidationPair]
    ) -> None:
        ordered = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(ordered, recipe, pairs)
        self.scale = int(getattr(network, "scale", 1))
        gan = self.gan
        chosen = gan.discriminator, gan.discriminator_options
        self.judge_of_high = build_discriminator(*chosen)
        self.judge_of_high.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        channels = 2 if gan.conditional else 1
        side = recipe.data.patch_px * self.scale
        self.history = History(gan.history, (channels, side, side), recipe.seed)
        given = [gan.adversarial_weight, gan.content_weight, _TV_WEIGHT]
        self.register_buffer("weights", torch.tensor(given))
        self.register_buffer("term_sums", torch.zeros(3))
        self.register_buffer("recent", torch.zeros(3))
        self._made: Tensor | None = None

    def discriminators(self) -> nn.Module:
        """Give the discriminator."""
        return self.judge_of_high

    def teach_generators(self, low: Tensor, high: Tensor, step: int) -> Tensor:
        """Return the loss of the generator.

        `low`, `high` (B, 1, H, W).
        """
        made = self.network(low.contiguous(memory_format=torch.channels_last))
        self._made = made.detach()
        with self.exact():
            truth = moved_onto(high, made.float(), self.recipe.shift_px)
            content = PIXEL_LOSSES[self.gan.content](made.float(), truth)
        self.terms = {"content": content.detach()}
        if step < self.gan.content_only_steps:
            return content
        adversarial = self._adversarial(low, high, made)
        with self.exact():
            roughness = total_variation(made.float())
        parts = torch.stack((adversarial, content, roughness))
        self._calibrate(parts.detach(), step)
        names = ("adversarial", "content", "tv")
        weighed = self.weights * parts
        self.terms = dict(zip(names, weighed.detach(), strict=True))
        if self.gan.shares is not None:
            self.recent.lerp_(weighed.detach(), 1 / self.gan.calibration_steps)
            shares = self.recent / self.recent.sum()
            found = zip(names, shares, strict=True)
            self.terms |= {f"share_{name}": share for name, share in found}
        return weighed.sum()

    def teach_discriminators(self, low: Tensor, high: Tensor, step: int) -> Tensor:
        """Return the loss of the discriminator.

        `low`, `high` (B, 1, H, W).
        """
        made = high if self._made is None else self._made
        real, fake = self._seen(low, high), self._seen(low, made)
        shown = self.history.exchange(fake.float(), step)
        return telling_apart(self.judge_of_high, real, shown, self.gan)

    def _adversarial(self, low: Tensor, high: Tensor, made: Tensor) -> Tensor:
        """Ask the discriminator, which does not learn from it."""
        kind = self.gan.adversarial
        with frozen(self.judge_of_high):
            fake = self.judge_of_high(self._seen(low, made)).float()
            real: Tensor | None = None
            if kind == "relativistic":
                real = self.judge_of_high(self._seen(low, high)).float()
        with self.exact():
            factor = self.gan.generator_factor
            return generator_loss(kind, fake, real, factor=factor)

    def _seen(self, low: Tensor, image: Tensor) -> Tensor:
        """Put what the discriminator sees together."""
        if not self.gan.conditional:
            return image
        return torch.cat((bicubic(low, self.scale), image.to(low.dtype)), dim=1)

    def _calibrate(self, parts: Tensor, step: int) -> None:
        """Find the weights that give the shares, and keep them after the first steps.

        Over the steps of calibration the sums grow, and the weights follow them.
        """
        shares, seen = self.gan.shares, step - self.gan.content_only_steps
        if shares is None or seen >= self.gan.calibration_steps:
            return
        self.term_sums += parts
        means = (self.term_sums / (seen + 1)).clamp_min(_LEAST).tolist()
        self.weights.copy_(torch.tensor(weights_for_shares(means, shares)))


def total_variation(image: Tensor) -> Tensor:
    """Anisotropic total variation of (B, C, H, W): absolute steps down and across.

    De Haan's equation 3, which is a sum over the image; over a batch the mean of
    the images is taken.
    """
    down = (image[..., 1:, :] - image[..., :-1, :]).abs().sum()
    across = (image[..., 1:] - image[..., :-1]).abs().sum()
    return (down + across) / image.shape[0]


def weights_for_shares(
    values: Sequence[float], shares: Sequence[float]
) -> tuple[float, ...]:
    """Find fixed weights with which terms of given means have given shares of a loss.

    De Haan et al. give shares (84, 14 and 2 %) where other papers give weights: their
    weights are such that the shares came out. Measure the terms during a first stretch
    of training, take the weights from here, and keep them. The first weight is 1;
    shares need not add up to one.
    """
    if len(values) != len(shares) or not values:
        msg = f"each term needs one share, got {len(values)} and {len(shares)}"
        raise ValueError(msg)
    if min(*values, *shares) <= 0:
        msg = f"terms and shares must be positive, got {values} and {shares}"
        raise ValueError(msg)
    plain = [share / value for share, value in zip(shares, values, strict=True)]
    return tuple(weight / plain[0] for weight in plain)
