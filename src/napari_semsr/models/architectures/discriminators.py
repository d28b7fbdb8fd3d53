"""PatchGAN and VGG-style discriminators.

PatchGAN scores overlapping patches of 70 x 70 px:

=====  ======  ======  ========  =============  ===========
layer  kernel  stride  channels  norm           activation
=====  ======  ======  ========  =============  ===========
1      4       2       64        instance       LeakyReLU
2      4       2       128       instance       LeakyReLU
3      4       2       256       instance       LeakyReLU
4      4       1       512       instance       LeakyReLU
5      4       1       1         none           none
=====  ======  ======  ========  =============  ===========

*Stated* by Sun et al. (SSUM): 70 x 70 patches; five convolutions; the first four with
4x4 kernels and 64 to 512 maps, each followed by instance norm and LeakyReLU. *Chosen*:
the strides. The text also says that all first four have stride 2, but such a network
sees 94 px; here the fourth has stride 1, so that it sees 70. *Chosen* too: padding 1,
the slope 0.2, dropout after the layers 2 to 4 (the text mentions dropout against
overfitting, but neither its position nor its rate).

The textbook form (Isola et al. 2017, arXiv:1611.07004) has no norm in the first layer
and no dropout: ``first_norm=False, dropout=0``. Given two images at once, as Pix2Pix
does, it takes ``channels=2``.

``keen=True`` adds a second input: the image minus its 3x3 mean, times four. A
discriminator has to learn such a filter before it detects blur, which takes thousands
of steps; this one has it from the start. This is not from a paper; the short forms of
recipes use it.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.models.architectures.blocks import (
    LeakyReLU,
    build_double_convolution,
    build_stage,
    init_weights_normal,
    needs_bias,
)

_KEEN = 4.0  # makes the detail of a clear SEM image about as strong as the image


class PatchGAN(nn.Module):
    """Discriminator of five 4x4 convolutions, three of them with stride 2."""

    def __init__(
        self,
        width: int = 64,
        norm: str = "instance",
        dropout: float = 0.2,
        *,
        first_norm: bool = True,
        channels: int = 1,
        keen: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.keen = 8, keen
        layers, inputs = [], 2 * channels if keen else channels
        for level in range(4):
            outputs = width * 2**level
            kind = norm if level or first_norm else "none"
            stride = 2 if level < 3 else 1
            layers.append(
                build_stage(
                    nn.Conv2d(inputs, outputs, 4, stride, 1, bias=needs_bias(kind)),
                    kind,
                    LeakyReLU(),
                    nn.Dropout2d(dropout) if dropout and level else None,
                )
            )
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.head = nn.Conv2d(inputs, 1, 4, padding=1)
        init_weights_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Score (B, channels, H, W) of 24 px or more as (B, 1, H/8 - 2, W/8 - 2)."""
        if self.keen:
            around = functional.pad(x, (1, 1, 1, 1), mode="reflect")
            detail = x - functional.avg_pool2d(around, 3, stride=1)
            x = torch.cat((x, _KEEN * detail), dim=1)
        score: Tensor = self.head(self.features(x))
        return score


# VGG-type discriminators: one score for a whole patch.
#
# De Haan et al. 2019:
#
# =========  =============================================================
# part       layers
# =========  =============================================================
# entry      3x3 convolution to 32, LeakyReLU
# blocks     five of two 3x3 convolutions, LeakyReLU after each; the
#            second has stride 2 and doubles the maps: 64 ... 1024
# head       mean over the patch, dense to 1024, LeakyReLU, dense to 1
# =========  =============================================================
#
# *Stated*: a modified VGG-type network; two convolutions in each block, each followed
# by a LeakyReLU, the second changing the channels. *Chosen*: all numbers, the stride,
# and the mean over the patch, so that patches of any size are scored.
#
# SRGAN (Ledig et al. 2017, arXiv:1609.04802):
#
# =========  =============================================================
# part       layers
# =========  =============================================================
# 1          3x3 convolution to 64, LeakyReLU
# 2 to 8     3x3 convolutions to 64, 128, 128, 256, 256, 512, 512, strides
#            2, 1, 2, 1, 2, 1, 2 in turn, batch norm, LeakyReLU
# head       dense to 1024, LeakyReLU, dense to 1
# =========  =============================================================
#
# *Stated*: all of it, with the slope 0.2, for patches of 96 px. The final sigmoid is
# part of the loss. *Chosen*: patches of another size are averaged to the 6 x 6
# positions that remain of 96 px.

_GRID = 6  # positions along an axis after pooling; as for 96 px


def _build_dense_head(side: int, inputs: int, width: int) -> nn.Sequential:
    """Build a head that pools maps to a given side, then applies dense layers."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(side),
        nn.Flatten(),
        nn.Linear(inputs * side**2, width),
        LeakyReLU(),
        nn.Linear(width, 1),
    )


class VGGDiscriminator(nn.Module):
    """De Haan's discriminator: double convolutions, average pooling, dense layers."""

    def __init__(self, width: int = 64, blocks: int = 5, *, channels: int = 1) -> None:
        super().__init__()
        self.stride = 2**blocks
        widths = [width // 2 * 2**i for i in range(blocks + 1)]
        self.entry = nn.Sequential(
            nn.Conv2d(channels, widths[0], 3, padding=1), LeakyReLU()
        )
        self.blocks = nn.Sequential(
            *(build_double_convolution(a, b, stride=2) for a, b in pairwise(widths))
        )
        self.head = _build_dense_head(1, widths[-1], widths[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Score patches; `x` (B, channels, H, W); returns (B, 1)."""
        score: Tensor = self.head(self.blocks(self.entry(x)))
        return score


class SRGANDiscriminator(nn.Module):
    """SRGAN discriminator with eight convolutions and two dense layers."""

    def __init__(self, width: int = 64, *, channels: int = 1) -> None:
        super().__init__()
        self.stride = 16
        layers, inputs = [], channels
        for index in range(8):
            outputs, norm = width * 2 ** (index // 2), "batch" if index else "none"
            stride = 1 + index % 2
            layers.append(
                build_stage(
                    nn.Conv2d(inputs, outputs, 3, stride, 1, bias=needs_bias(norm)),
                    norm,
                    LeakyReLU(),
                )
            )
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.head = _build_dense_head(_GRID, inputs, 16 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Score patches; `x` (B, channels, H, W); returns (B, 1)."""
        score: Tensor = self.head(self.features(x))
        return score
