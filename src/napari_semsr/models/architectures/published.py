"""Registries of the networks available to model cards and recipes."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from napari_semsr.models.architectures import super_resolution, translation
from napari_semsr.models.architectures.blocks import init_layer_zero, upsample_bicubic
from napari_semsr.models.architectures.informed import InformedRestorer
from napari_semsr.models.architectures.two_scale import PlaceNet, TwoScaleNet

PUBLISHED_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "multi-residual": translation.MultiResidualNet,
    "multi-scale-unet": translation.MultiScaleUNet,
    "de-haan-unet": translation.DeHaanUNet,
    "srcnn": super_resolution.SRCNN,
    "srcnn-attention": partial(super_resolution.SRCNN, window=31),
    "espcn": super_resolution.ESPCN,
    "vdsr": super_resolution.VDSR,
    "edsr": super_resolution.EDSR,
    "resnet": translation.ResNetGenerator,
    "pix2pix": translation.Pix2PixUNet,
    "srgan": super_resolution.SRResNet,
    "esrgan": super_resolution.RRDBNet,
}
"""Image-to-image networks, keyed by name as in model cards and recipes."""

DISCRIMINATORS: dict[str, Callable[..., nn.Module]] = {
    "patch-gan": translation.PatchGAN,
    "multi-scale": partial(translation.PatchGAN, dropout=0.0),
    "vgg": translation.VGGDiscriminator,
    "srgan": translation.SRGANDiscriminator,
}
"""Discriminators, keyed by name as in recipes."""


# A published network as a correction to its input.
#
# Most published generators have to learn the whole image, and need thousands of steps
# until they reproduce their input. Here a network's output is added to its input,
# upsampled if the network upsamples, and its last convolution starts at zero: before
# training, the result is the input. This is not from any of the papers; the short
# recipes for the tables use it. A network that adds its input itself has the attribute
# `adds_input` and is refused: the result would be twice the input.


class ResidualWrapper(nn.Module):
    """Wrapper that adds a network's output to its input."""

    rest: Tensor

    def __init__(
        self, network: str = "srcnn", options: dict[str, object] | None = None
    ) -> None:
        super().__init__()
        if network not in PUBLISHED_NETWORKS:
            names = ", ".join(PUBLISHED_NETWORKS)
            msg = f"network must be one of {names}, got {network!r}"
            raise ValueError(msg)
        self.inner = PUBLISHED_NETWORKS[network](**(options or {}))
        if getattr(self.inner, "adds_input", False):
            msg = f"network must not already add its input, but {network!r} does"
            raise ValueError(msg)
        self.scale = int(getattr(self.inner, "scale", 1))
        self.stride = int(getattr(self.inner, "stride", 1))
        kinds = (nn.Conv2d, nn.ConvTranspose2d)
        init_layer_zero([m for m in self.inner.modules() if isinstance(m, kinds)][-1])
        self.register_buffer("rest", self._compute_baseline())

    @torch.no_grad()
    def _compute_baseline(self) -> Tensor:
        """Return the network's output level when its last layer is zero."""
        if next(self.inner.parameters()).is_meta:  # would import the compiler
            return torch.zeros(())
        learning = self.inner.training
        # instance norm needs more than one position in the coarsest maps
        side = max(2 * self.stride, 32 // self.stride * self.stride)
        output: Tensor = self.inner.eval()(torch.zeros(1, 1, side, side))
        self.inner.train(learning)
        return output.mean()

    def forward(self, x: Tensor) -> Tensor:
        """Correct normalised (B, 1, H, W) to (B, 1, H * scale, W * scale)."""
        output: Tensor = upsample_bicubic(x, self.scale) + (self.inner(x) - self.rest)
        return output


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "two-scale": TwoScaleNet,
    "informed": InformedRestorer,
    "place": PlaceNet,
    "correction": ResidualWrapper,
    **PUBLISHED_NETWORKS,
}
"""All trainable networks."""
