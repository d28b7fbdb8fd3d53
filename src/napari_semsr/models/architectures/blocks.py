"""Parts that several architectures share."""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

_SLOPE = 0.2
_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": nn.InstanceNorm2d,
    "none": lambda _channels: nn.Identity(),
}


class LeakyReLU(nn.LeakyReLU):
    """Leaky rectifier in place, with the slope 0.2 that GANs commonly have."""

    def __init__(self, slope: float = _SLOPE) -> None:
        super().__init__(slope, inplace=True)


def norm_layer(kind: str, channels: int) -> nn.Module:
    """Make a normalisation layer."""
    if kind not in _NORMS:
        msg = f"norm must be one of {', '.join(_NORMS)}, got {kind!r}"
        raise ValueError(msg)
    return _NORMS[kind](channels)


def check_scale(scale: int, allowed: tuple[int, ...]) -> int:
    """Refuse a scale that an architecture cannot have.

    `scale`: output pixels per input pixel along each axis.
    """
    if scale not in allowed:
        known = ", ".join(map(str, allowed))
        msg = f"scale must be one of {known}, got {scale!r}"
        raise ValueError(msg)
    return scale


def draw_normal(weight: Tensor, std: float, mean: float = 0.0) -> None:
    """Draw first weights from a normal distribution."""
    if not weight.is_meta:
        nn.init.normal_(weight, mean, std)


def init_normal(module: nn.Module, std: float = 0.02) -> None:
    """Draw convolution weights as Pix2Pix and CycleGAN do."""
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):
            draw_normal(part.weight, std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            draw_normal(part.weight, std, mean=1.0)


class SubPixelUp(nn.Sequential):
    """Learned enlargement by 2: a 3x3 convolution to four maps each, then a shuffle."""

    def __init__(self, width: int, activation: nn.Module) -> None:
        super().__init__(
            nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), activation
        )


def double_convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Make de Haan's block of two convolutions, of which the second changes the maps.

    `stride` is that of the second convolution.
    """
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1),
        LeakyReLU(),
        nn.Conv2d(inputs, outputs, 3, padding=1, stride=stride),
        LeakyReLU(),
    )


def bicubic(x: Tensor, scale: int) -> Tensor:
    """Enlarge by cubic interpolation.

    Parameters
    ----------
    x : (B, C, H, W) torch.Tensor
        Image.
    scale : int
        Factor along each axis; 1 returns the image itself.

    Returns
    -------
    (B, C, H * scale, W * scale) torch.Tensor
        Enlarged image.
    """
    if scale == 1:
        return x
    return functional.interpolate(
        x, scale_factor=float(scale), mode="bicubic", align_corners=False
    )


def _lanczos_weights(scale: int, lobes: int) -> list[list[float]]:
    """Taps of each output phase at the input offsets ``-lobes .. lobes``."""
    phases = []
    for phase in range(scale):
        shift = (phase + 0.5) / scale - 0.5
        row = []
        for offset in range(-lobes, lobes + 1):
            t = math.pi * (offset - shift)
            inside = abs(t) < lobes * math.pi
            far = t / lobes
            value = 1.0 if t == 0 else math.sin(t) / t * math.sin(far) / far
            row.append(value if inside else 0.0)
        phases.append([value / math.fsum(row) for value in row])
    return phases


class Lanczos(nn.Module):
    """Enlarge by Lanczos's windowed sinc; edges are repeated.

    `lobes`: half width of the window in input pixels.
    """

    taps: Tensor

    def __init__(self, scale: int, lobes: int = 3) -> None:
        super().__init__()
        self.scale, self.lobes = scale, lobes
        taps = torch.tensor(_lanczos_weights(scale, lobes), device="cpu")
        self.register_buffer("taps", taps, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge one grey image.

        `x` (B, 1, H, W); gives (B, 1, H * scale, W * scale).
        """
        if self.scale == 1:
            return x
        n, side = self.lobes, 2 * self.lobes + 1
        kernel = self.taps[:, None, :, None] * self.taps[None, :, None, :]
        padded = functional.pad(x, (n, n, n, n), mode="replicate")
        phases = functional.conv2d(
            padded, kernel.reshape(-1, 1, side, side).to(x.dtype)
        )
        return functional.pixel_shuffle(phases, self.scale)


def sequence(*layers: nn.Module | None) -> nn.Sequential:
    """Chain layers, leaving out those that are None."""
    return nn.Sequential(*cast("Any", [layer for layer in layers if layer is not None]))
