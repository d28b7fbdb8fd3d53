"""Two generators without pairs: the systems of Sun and of Gao, and a blur for one.

The cycle runs from the degraded images and from the clear ones. With a kernel, the way
back to the degraded images is a convolution (Lim et al. 2020, arXiv:1908.09414). It is
learnt, or known; then the discriminator of the degraded images goes, since nothing
would learn from it.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from napari_semsr.core.errors import OptionError
from napari_semsr.models.losses import cycle_l1, cycle_ssim, edge_loss, identity_mse
from napari_semsr.models.registry import build, build_discriminator
from napari_semsr.training.adversarial import generator_loss, telling_apart
from napari_semsr.training.adversary import AdversarialLearner
from napari_semsr.training.guards import frozen
from napari_semsr.training.history import History
from napari_semsr.training.kernel import LearntBlur, blur_of
from napari_semsr.training.recipes import Recipe
from napari_semsr.training.validation import ValidationPair

__all__ = ["CycleGan"]

Way = tuple[Tensor, Tensor, Tensor | None]
"""What came back, what was sent, and what the generator made of what should stay."""

_FACTOR = 0.5  # of the adversarial loss of each generator, by Gao's equation 9


class CycleGan(AdversarialLearner):
    """Adversarial, cycle, identity and edge losses of two generators.

    Parameters
    ----------
    network : torch.nn.Module
        Generator from degraded to clear images.
    recipe : Recipe
        How.
    pairs : list of ValidationPair
        Fields that choose the checkpoint.

    Raises
    ------
    OptionError
        If the network enlarges: both images of a cycle are on one grid.
    """

    def __init__(
        self, network: nn.Module, recipe: Recipe, pairs: list[ValidationPair]
    ) -> None:
        super().__init__(network, recipe, pairs)
        scale = int(getattr(network, "scale", 1))
        if scale != 1:
            msg = f"Kind cycle-gan needs a network of scale 1, got scale {scale}."
            raise OptionError(msg)
        gan, side = self.gan, recipe.data.patch_px
        known = gan.kernel is not None and not gan.kernel.learnt
        names = ["high"] if known else ["high", "low"]
        self.back: nn.Module = (
            blur_of(gan.kernel, side)
            if gan.kernel
            else build(recipe.architecture, recipe.architecture_options)
        )
        chosen = gan.discriminator, gan.discriminator_options
        self.judges = nn.ModuleDict({n: build_discriminator(*chosen) for n in names})
        self.histories = nn.ModuleDict(
            {
                name: History(gan.history, (1, side, side), 2 * recipe.seed + stream)
                for stream, name in enumerate(names)
            }
        )
        self._together = not any(isinstance(m, _BatchNorm) for m in network.modules())
        self._made: dict[str, Tensor] = {}

    def generators(self) -> nn.Module:
        """Give both generators.

        Returns
        -------
        torch.nn.Module
            They.
        """
        return nn.ModuleList((self.network, self.back))

    def discriminators(self) -> nn.Module:
        """Give the discriminators.

        Returns
        -------
        torch.nn.Module
            They.
        """
        return self.judges

    def teach_generators(self, low: Tensor, high: Tensor, step: int) -> Tensor:
        """Return the loss of both generators.

        Parameters
        ----------
        low, high : (B, 1, H, W) torch.Tensor
            Degraded and clear patches, of different places.
        step : int
            Number of the step.

        Returns
        -------
        torch.Tensor
            The loss, with gradients.
        """
        clear, kept_high = self._translate(self.network, low, high)
        if self.gan.kernel is None:
            coarse, kept_low = self._translate(self.back, high, low)
        else:
            coarse, kept_low = self.back(high), None
        self._made = {"high": clear.detach(), "low": coarse.detach()}
        back_low, back_high = self.back(clear), self.network(coarse)
        adversarial = self._adversarial(clear, coarse)
        with self.exact():
            terms = self._terms(
                (back_low.float(), low, kept_low), (back_high.float(), high, kept_high)
            )
            if isinstance(self.back, LearntBlur):
                terms["spectrum"] = self.back.spectrum_loss(low, high)
        terms["adversarial"] = adversarial
        self.terms = {name: value.detach() for name, value in terms.items()}
        return torch.stack(list(terms.values())).sum()

    def teach_discriminators(self, low: Tensor, high: Tensor, step: int) -> Tensor:
        """Return the loss of the discriminators.

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
        true = {"high": high, "low": low}
        losses = []
        for name, judge in self.judges.items():
            history = cast("History", self.histories[name])
            shown = history.exchange(self._made[name].float(), step)
            losses.append(telling_apart(judge, true[name], shown, self.gan))
        return torch.stack(losses).sum()

    def _translate(
        self, generator: nn.Module, image: Tensor, other: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Translate images, and show the generator what should stay as it is.

        Where no statistics of the batch are taken, both go through it at once.
        """
        if not (self.gan.identity_weight or self.gan.edge_weight):
            return generator(image), None
        if self._together:
            made, kept = generator(torch.cat((image, other))).split(
                (len(image), len(other))
            )
            return made, kept
        return generator(image), generator(other)

    def _adversarial(self, clear: Tensor, coarse: Tensor) -> Tensor:
        """Ask the discriminators, which do not learn from it."""
        made = {"high": clear, "low": coarse}
        with frozen(self.judges):
            scores = [judge(made[name]).float() for name, judge in self.judges.items()]
        with self.exact():
            weight = _FACTOR * self.gan.adversarial_weight
            parts = [
                generator_loss(self.gan.adversarial, s, factor=weight) for s in scores
            ]
        return torch.stack(parts).sum()

    def _terms(self, *ways: Way) -> dict[str, Tensor]:
        """Weigh the terms of both ways round the cycle."""
        gan = self.gan
        kept = [(image, sent) for _, sent, image in ways if image is not None]
        edges = [(back, image) for back, _, image in ways if image is not None]
        same = functional.l1_loss if gan.identity == "l1" else identity_mse
        round_trip = cycle_l1 if gan.cycle == "l1" else cycle_ssim
        parts = {
            "cycle": (gan.cycle_weight, [round_trip(b, s) for b, s, _ in ways]),
            "identity": (gan.identity_weight, [same(k.float(), s) for k, s in kept]),
            "edge": (gan.edge_weight, [edge_loss(b, k.float()) for b, k in edges]),
        }
        return {
            name: weight * torch.stack(found).sum()
            for name, (weight, found) in parts.items()
            if weight and found
        }
