"""The published networks: generators that a card may name, and discriminators."""

from collections.abc import Callable

import torch
from torch import nn

from napari_semsr.models.de_haan import DeHaanUNet
from napari_semsr.models.esrgan import RRDBNet
from napari_semsr.models.multi_residual import MultiResidual
from napari_semsr.models.multi_scale_unet import (
    MultiScaleDiscriminator,
    MultiScaleUNet,
)
from napari_semsr.models.patch_gan import PatchGAN
from napari_semsr.models.pix2pix import Pix2PixUNet
from napari_semsr.models.resnet import ResNetGenerator
from napari_semsr.models.srcnn import SRCNN, AttentionSRCNN
from napari_semsr.models.srgan import SRResNet
from napari_semsr.models.vgg_discriminator import SRGANDiscriminator, VGGDiscriminator

__all__ = ["DISCRIMINATORS", "PUBLISHED", "without_weights"]

PUBLISHED: dict[str, Callable[..., nn.Module]] = {
    "multi-residual": MultiResidual,
    "multi-scale-unet": MultiScaleUNet,
    "de-haan-unet": DeHaanUNet,
    "srcnn": SRCNN,
    "srcnn-attention": AttentionSRCNN,
    "resnet": ResNetGenerator,
    "pix2pix": Pix2PixUNet,
    "srgan": SRResNet,
    "esrgan": RRDBNet,
}
"""Networks that map an image to an image, by the names that cards and recipes use."""

DISCRIMINATORS: dict[str, Callable[..., nn.Module]] = {
    "patch-gan": PatchGAN,
    "multi-scale": MultiScaleDiscriminator,
    "vgg": VGGDiscriminator,
    "srgan": SRGANDiscriminator,
}
"""Networks that judge an image, by the names that recipes use."""


def without_weights(factory: Callable[..., nn.Module]) -> nn.Module:
    """Build a network whose weights take no memory and no time.

    Parameters
    ----------
    factory : callable
        A value of `PUBLISHED` or `DISCRIMINATORS`.

    Returns
    -------
    torch.nn.Module
        The network with default options, on the meta device.
    """
    with torch.device("meta"):
        return factory()
