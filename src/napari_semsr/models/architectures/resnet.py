"""Residual generator of the textbook CycleGAN, for comparison.

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
output can therefore not leave [0, 1]; ``bounded=False`` leaves the tanh out.
"""

import torch
from torch import Tensor, nn

from napari_semsr.models.architectures.blocks import init_normal, norm_layer, sequence


def _reflected(inputs: int, outputs: int, kernel: int, *, bias: bool) -> nn.Conv2d:
    """Make a convolution that keeps the size by reflecting the edges."""
    return nn.Conv2d(
        inputs,
        outputs,
        kernel,
        padding=kernel // 2,
        padding_mode="reflect",
        bias=bias,
    )


class ReflectedBlock(nn.Module):
    """Two normalised 3x3 convolutions, added to the input."""

    def __init__(
        self, width: int, norm: str, activation: nn.Module, dropout: float = 0.0
    ) -> None:
        super().__init__()
        bias = norm != "batch"
        self.body = sequence(
            _reflected(width, width, 3, bias=bias),
            norm_layer(norm, width),
            activation,
            nn.Dropout(dropout) if dropout else None,
            _reflected(width, width, 3, bias=bias),
            norm_layer(norm, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's correction; `x` (B, C, H, W); gives (B, C, H, W)."""
        correction: Tensor = self.body(x)
        return x + correction


class ResNetGenerator(nn.Module):
    """Nine residual blocks at a quarter of the resolution."""

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
        bias = norm != "batch"
        relu = nn.ReLU(inplace=True)
        layers: list[nn.Module] = [
            _reflected(channels, width, 7, bias=bias),
            norm_layer(norm, width),
            relu,
        ]
        for wide in (2 * width, 4 * width):
            layers += [
                nn.Conv2d(wide // 2, wide, 3, stride=2, padding=1, bias=bias),
                norm_layer(norm, wide),
                relu,
            ]
        layers += [
            ReflectedBlock(4 * width, norm, relu, dropout) for _ in range(blocks)
        ]
        for wide in (4 * width, 2 * width):
            layers += [
                nn.ConvTranspose2d(
                    wide,
                    wide // 2,
                    3,
                    stride=2,
                    padding=1,
                    output_padding=1,
                    bias=bias,
                ),
                norm_layer(norm, wide // 2),
                relu,
            ]
        layers.append(_reflected(width, channels, 7, bias=True))
        self.body = nn.Sequential(*layers)
        init_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Translate a normalised image.

        `x` (B, channels, H, W); gives (B, channels, H, W).
        """
        y: Tensor = self.body(2 * x - 1)
        return (torch.tanh(y) if self.bounded else y) / 2 + 0.5
