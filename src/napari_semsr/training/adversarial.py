"""How the scores of a discriminator become losses.

Cross-entropy [1]_, least squares [2]_, or the relativistic average [3]_ of ESRGAN.

.. [1] I. Goodfellow et al., NeurIPS 2014, arXiv:1406.2661.
.. [2] X. Mao et al., ICCV 2017, arXiv:1611.04076.
.. [3] A. Jolicoeur-Martineau, ICLR 2019, arXiv:1807.00734.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.models.losses import lsgan_discriminator, lsgan_generator
from napari_semsr.training.objectives import Adversarial, GanOptions

__all__ = ["discriminator_loss", "generator_loss", "telling_apart"]


def _entropy(score: Tensor, target: float) -> Tensor:
    """Cross-entropy of scores against one target."""
    return functional.binary_cross_entropy_with_logits(
        score, score.new_full((), target).expand_as(score)
    )


def generator_loss(
    kind: Adversarial, fake: Tensor, real: Tensor | None = None, *, factor: float = 1.0
) -> Tensor:
    """Loss of a generator: what it makes should be taken for true.

    Parameters
    ----------
    kind : {"least-squares", "cross-entropy", "relativistic"}
        Form of the loss.
    fake, real : torch.Tensor
        Scores of generated images and, for the relativistic form, of true ones.
    factor : float
        Multiplies the loss.

    Returns
    -------
    torch.Tensor
        The loss.

    Raises
    ------
    ValueError
        If the relativistic form gets no true scores.
    """
    if kind == "least-squares":
        return lsgan_generator(fake, factor)
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

    Parameters
    ----------
    kind : {"least-squares", "cross-entropy", "relativistic"}
        Form of the loss.
    real, fake : torch.Tensor
        Scores of true and of generated images.
    factor : float
        Multiplies the sum of both parts.

    Returns
    -------
    torch.Tensor
        The loss.
    """
    if kind == "least-squares":
        return lsgan_discriminator(real, fake, factor)
    if kind == "cross-entropy":
        return factor * (_entropy(real, 1.0) + _entropy(fake, 0.0))
    both = _entropy(real - fake.mean(), 1.0) + _entropy(fake - real.mean(), 0.0)
    return factor * both


def telling_apart(
    judge: nn.Module, real: Tensor, shown: Tensor, options: GanOptions
) -> Tensor:
    """Loss of a discriminator on images, in the recipe's form.

    Parameters
    ----------
    judge : torch.nn.Module
        The discriminator.
    real, shown : (B, C, H, W) torch.Tensor
        True images, and generated ones.
    options : GanOptions
        Form and factor of the loss.

    Returns
    -------
    torch.Tensor
        The loss, taken in full precision.
    """
    scores = judge(real), judge(shown)
    with torch.autocast(real.device.type, enabled=False):
        true, made = (score.float() for score in scores)
        return discriminator_loss(
            options.adversarial, true, made, factor=options.discriminator_factor
        )
