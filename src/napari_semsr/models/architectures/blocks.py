"""Layers shared by several architectures."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

Edges = Literal["zeros", "reflect", "replicate"]
"""Padding mode of convolutions at the image border."""

MAX_LEVELS = 10
"""Maximum number of times a network halves the resolution (a stride of 1024)."""

_SLOPE = 0.2  # of leaky ReLU; as in most of the papers
_STD = 0.02  # of initial weights, as in both papers
_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": nn.InstanceNorm2d,
    "none": lambda _channels: nn.Identity(),
}


LeakyReLU = partial(nn.LeakyReLU, _SLOPE, inplace=True)
"""Leaky ReLU with the slope commonly used in GANs."""


def build_norm(kind: str, channels: int) -> nn.Module:
    """Build a normalisation layer."""
    if kind not in _NORMS:
        msg = f"norm must be one of {', '.join(_NORMS)}, got {kind!r}"
        raise ValueError(msg)
    return _NORMS[kind](channels)


def needs_bias(norm: str) -> bool:
    """Return whether a convolution needs a bias; batch norm would cancel it."""
    return norm != "batch"


def build_stage(
    convolution: nn.Conv2d | nn.ConvTranspose2d, norm: str, *after: nn.Module | None
) -> nn.Sequential:
    """Chain a convolution, a norm and further layers, omitting those that are None."""
    layers = convolution, build_norm(norm, convolution.out_channels), *after
    return nn.Sequential(*cast("Any", [layer for layer in layers if layer is not None]))


def disable_autocast(x: Tensor) -> torch.autocast:
    """Disable autocast on the tensor's device."""
    # "meta" tensors, used to estimate memory, do not support autocast
    device = "cpu" if x.is_meta else x.device.type
    return torch.autocast(device, enabled=False)


def run_in_full_precision(layer: nn.Module, x: Tensor) -> Tensor:
    """Run a layer in the dtype of its weights (fp32), even under autocast.

    `x` (B, C, H, W); returns the layer's output. The 8 bits of bf16 do not suffice
    where a network reads its image, where it outputs one, and where many corrections
    are added to one map. The other layers account for nearly all of the arithmetic.
    """
    with disable_autocast(x):
        output: Tensor = layer(x.to(layer.get_parameter("weight").dtype))
    return output


def check_scale(scale: int, scales: tuple[int, ...]) -> int:
    """Raise an error for a scale that an architecture does not support."""
    if scale not in scales:
        names = ", ".join(map(str, scales))
        msg = f"scale must be one of {names}, got {scale!r}"
        raise ValueError(msg)
    return scale


def init_layer_normal(
    layer: nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d,
    std: float,
    mean: float = 0.0,
) -> None:
    """Initialise weights from a normal distribution; biases are zero."""
    if not layer.weight.is_meta:
        nn.init.normal_(layer.weight, mean, std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def init_layer_he(layer: nn.Conv2d, factor: float = 1.0) -> None:
    """Initialise weights by He initialisation for rectifiers, times a factor."""
    init_layer_normal(layer, factor * math.sqrt(2 / layer.weight[0].numel()))


def init_weights_normal(module: nn.Module) -> None:
    """Initialise convolution weights as in Pix2Pix and CycleGAN."""
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):
            init_layer_normal(part, _STD)
        elif isinstance(part, nn.BatchNorm2d):
            init_layer_normal(part, _STD, mean=1.0)


def init_layer_zero(layer: nn.Module) -> nn.Module:
    """Initialise a layer with zeros, so that it initially contributes nothing."""
    for weights in layer.parameters():
        nn.init.zeros_(weights)
    return layer


class ResidualBlock(nn.Module):
    """Two normalised 3x3 convolutions, scaled by `factor` and added to the input."""

    def __init__(
        self,
        width: int,
        norm: str,
        activation: nn.Module,
        dropout: float = 0.0,
        edges: Edges = "reflect",
        factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.factor = factor
        convolve = partial(
            nn.Conv2d,
            width,
            width,
            3,
            padding=1,
            padding_mode=edges,
            bias=needs_bias(norm),
        )
        noise = nn.Dropout(dropout) if dropout else None
        self.body = nn.Sequential(
            *build_stage(convolve(), norm, activation, noise),
            *build_stage(convolve(), norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's correction to `x` (B, C, H, W); returns (B, C, H, W)."""
        correction: Tensor = self.body(x)
        # multiplying by 1 would cost a pass over the maps
        return x + (correction if self.factor == 1 else self.factor * correction)


class SubPixelUpsampling(nn.Sequential):
    """Learned 2x upsampling: 3x3 convolution to 4x the channels, then pixel shuffle."""

    def __init__(self, width: int, *after: nn.Module) -> None:
        super().__init__(
            nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), *after
        )


class ResidualTrunk(nn.Module):
    """Residual blocks between an input layer and a head, with optional upsampling.

    The output of the blocks and `trunk` is added to that of `entry`. Each layer of `up`
    doubles the resolution.
    """

    def __init__(
        self,
        entry: nn.Module,
        blocks: Sequence[nn.Module],
        trunk: nn.Module,
        up: Sequence[nn.Module],
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.entry = entry
        self.residual = nn.Sequential(*blocks)
        self.trunk = trunk
        self.up = nn.Sequential(*up)
        self.head = head
        self.scale, self.stride = 2 ** len(self.up), 1

    def forward(self, x: Tensor) -> Tensor:
        """Super-resolve (B, channels, H, W) to (B, channels, H * scale, W * scale)."""
        shallow = self.entry(x)
        features = shallow + self.trunk(self.residual(shallow))
        y: Tensor = self.head(self.up(features))
        return y


def build_double_convolution(
    inputs: int, outputs: int, stride: int = 1
) -> nn.Sequential:
    """Build de Haan's block, whose second convolution sets output maps and stride."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1),
        LeakyReLU(),
        nn.Conv2d(inputs, outputs, 3, padding=1, stride=stride),
        LeakyReLU(),
    )


def upsample_bicubic(x: Tensor, scale: int) -> Tensor:
    """Upsample (B, C, H, W) by bicubic interpolation, unless the scale is 1."""
    if scale == 1:
        return x
    return functional.interpolate(x, scale_factor=float(scale), mode="bicubic")


_LOBES = 3  # half width of Lanczos's window in input pixels


class LanczosUpsampling(nn.Module):
    """Lanczos upsampling (windowed sinc) with replicated borders."""

    taps: Tensor

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        # the filter taps (scale, 7) for each output phase
        shifts = (np.arange(scale) + 0.5) / scale - 0.5
        away = np.arange(-_LOBES, _LOBES + 1) - shifts[:, None]
        inside = np.abs(away) < _LOBES
        weights = np.where(inside, np.sinc(away) * np.sinc(away / _LOBES), 0)
        weights = np.asarray(weights / weights.sum(1, keepdims=True))
        taps = torch.tensor(weights, dtype=torch.float32, device="cpu")
        self.register_buffer("taps", taps, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Upsample (B, 1, H, W) to (B, 1, H * scale, W * scale)."""
        if self.scale == 1:
            return x
        kernel = self.taps[:, None, :, None] * self.taps[None, :, None, :]
        padded_image = functional.pad(x, (_LOBES,) * 4, mode="replicate")
        phases = functional.conv2d(
            padded_image, kernel.flatten(0, 1)[:, None].to(x.dtype)
        )
        return functional.pixel_shuffle(phases, self.scale)
