"""Residual generator of the standard CycleGAN, for comparison.

=========  ==============================================================  ==========
part       layers                                                          resolution
=========  ==============================================================  ==========
entry      7x7 convolution to 64, norm, ReLU                               1
down       3x3 stride-2 convolutions to 128 and 256, norm, ReLU            1/2, 1/4
residual   nine blocks: 3x3 convolution, norm, ReLU, 3x3 convolution,      1/4
           norm, added to the input; 256 channels
up         3x3 transposed stride-2 convolutions to 128 and 64, norm, ReLU  1/2, 1
head       7x7 convolution to 1, tanh                                      1
=========  ==============================================================  ==========

All of it is *stated* by Zhu et al. (2017, arXiv:1703.10593, appendix): nine blocks for
images of 256 px, instance norm, reflection padding, weights from N(0, 0.02). *Chosen*:
one grey channel instead of three (``channels=3`` gives the original), and the scale:
the network works on [-1, 1], and here the unit scale is mapped to that and back. Its
output is therefore limited to [0, 1]; ``bounded=False`` omits the tanh.
"""

from functools import partial

import torch
from torch import Tensor, nn

from napari_semsr.models.architectures.blocks import (
    ResidualBlock,
    build_stage,
    init_weights_normal,
    needs_bias,
)


class ResNetGenerator(nn.Module):
    """Generator with nine residual blocks at a quarter of the resolution."""

    def __init__(
        self,
        width: int = 64,
        blocks: int = 9,
        norm: str = "instance",
        dropout: float = 0.0,
        *,
        bounded: bool = True,
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.scale, self.stride, self.bounded = 1, 4, bounded
        bias = needs_bias(norm)
        relu = nn.ReLU(inplace=True)
        wide = partial(nn.Conv2d, kernel_size=7, padding=3, padding_mode="reflect")
        halve = partial(nn.Conv2d, kernel_size=3, stride=2, padding=1, bias=bias)
        double = partial(
            nn.ConvTranspose2d,
            kernel_size=3,
            stride=2,
            padding=1,
            output_padding=1,
            bias=bias,
        )
        self.body = nn.Sequential(
            *build_stage(wide(channels, width, bias=bias), norm, relu),
            *build_stage(halve(width, 2 * width), norm, relu),
            *build_stage(halve(2 * width, 4 * width), norm, relu),
            *(ResidualBlock(4 * width, norm, relu, dropout) for _ in range(blocks)),
            *build_stage(double(4 * width, 2 * width), norm, relu),
            *build_stage(double(2 * width, width), norm, relu),
            wide(width, channels),
        )
        init_weights_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Translate a normalised image (B, channels, H, W)."""
        y: Tensor = self.body(2 * x - 1)
        return (torch.tanh(y) if self.bounded else y) / 2 + 0.5
