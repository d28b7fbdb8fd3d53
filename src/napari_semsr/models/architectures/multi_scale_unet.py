"""U-Net with multi-scale blocks and its discriminator (Gao et al. 2024).

==========  =======================================================  =============
part        layers                                                   resolution
==========  =======================================================  =============
encoder     seven 4x4 stride-2 convolutions to 64, 128, 256, 512,    1/2 ... 1/128
            512, 512, 512, each with norm and LeakyReLU, then a
            multi-scale block
bottom      eighth convolution, 3x3, stride 1; first transposed      1/128
            one, 3x3, stride 1; norm and LeakyReLU after both
decoder     a multi-scale block, the encoder's maps of that size     1/128 ... 1/2
            beside it, a 4x4 transposed stride-2 convolution to
            512, 512, 512, 256, 128, 64, norm, LeakyReLU
head        eighth transposed convolution, 4x4, stride 2, to 1       1
==========  =======================================================  =============

A multi-scale block has three branches side by side: a 1x1 convolution to a quarter of
the maps; a 1x1 to a quarter and a 3x3 to half; a 1x1 to an eighth and two 3x3 to a
quarter. Norm and LeakyReLU follow.

*Stated*: a U-Net with eight convolutions and eight transposed ones, stride 2 except for
the eighth and the first transposed one; instance norm and LeakyReLU after each; 14
multi-scale blocks of 1x1 and 3x3 kernels with stride 1; skips that join the scales.
*Chosen*, since the figure with the numbers is not in the text: the channels, the 4x4
kernels, the layers of a block, the positions of the 14 (seven in the encoder, seven in
the decoder), joining by concatenation, and a last layer without norm and activation.

The discriminator is *stated* to have five convolutions, the first three with stride 2,
instance norm and LeakyReLU after all but the last: a 70 x 70 PatchGAN. Its channels and
4x4 kernels are *chosen* as usual.
"""

import torch
from torch import Tensor, nn

from napari_semsr.models.architectures.blocks import (
    LeakyReLU,
    build_norm,
    build_stage,
    init_weights_normal,
)
from napari_semsr.models.architectures.discriminators import PatchGAN

_LEVELS = 7  # levels of the U-Net; stated in its paper
_WIDEST = 8  # widest layer, over `width`; chosen


class MultiScaleBlock(nn.Module):
    """Parallel branches: a 1x1 convolution followed by zero, one or two 3x3 ones."""

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        quarter, eighth = width // 4, width // 8
        self.point = nn.Conv2d(width, quarter, 1)
        self.near = nn.Sequential(
            nn.Conv2d(width, quarter, 1),
            LeakyReLU(),
            nn.Conv2d(quarter, 2 * quarter, 3, padding=1),
        )
        self.far = nn.Sequential(
            nn.Conv2d(width, eighth, 1),
            LeakyReLU(),
            nn.Conv2d(eighth, quarter, 3, padding=1),
            LeakyReLU(),
            nn.Conv2d(quarter, quarter, 3, padding=1),
        )
        self.after = nn.Sequential(build_norm(norm, width), LeakyReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Apply and combine all branches; `x` (B, C, H, W); returns (B, C, H, W)."""
        branches = (self.point(x), self.near(x), self.far(x))
        y: Tensor = self.after(torch.cat(branches, dim=1))
        return y


class MultiScaleUNet(nn.Module):
    """U-Net of total stride 128 with 14 multi-scale blocks.

    With fewer `levels` than the paper's seven, the deepest are omitted, which have most
    of the weights: with a width of 16, four levels have 0.6 million and all seven 3.5.
    """

    def __init__(
        self, width: int = 64, norm: str = "instance", levels: int = _LEVELS
    ) -> None:
        super().__init__()
        if not 1 <= levels <= _LEVELS:
            msg = f"levels must be 1 to {_LEVELS}, got {levels}"
            raise ValueError(msg)
        if width % 8:
            msg = f"width must be a multiple of 8, got {width}"
            raise ValueError(msg)
        self.scale, self.stride = 1, 2**levels
        widths = [width * min(2**level, _WIDEST) for level in range(levels)]
        self.encoder = nn.ModuleList(
            nn.Sequential(
                build_stage(nn.Conv2d(a, b, 4, stride=2, padding=1), norm, LeakyReLU()),
                MultiScaleBlock(b, norm),
            )
            for a, b in zip([1, *widths], widths, strict=False)
        )
        deep = widths[-1]
        self.bottom = nn.Sequential(
            build_stage(nn.Conv2d(deep, deep, 3, padding=1), norm, LeakyReLU()),
            build_stage(
                nn.ConvTranspose2d(deep, deep, 3, padding=1), norm, LeakyReLU()
            ),
        )
        self.blocks = nn.ModuleList(MultiScaleBlock(w, norm) for w in reversed(widths))
        self.decoder = nn.ModuleList(
            build_stage(nn.ConvTranspose2d(2 * b, a, 4, 2, 1), norm, LeakyReLU())
            for a, b in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.head = nn.ConvTranspose2d(2 * width, 1, 4, stride=2, padding=1)
        init_weights_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Translate a normalised image; `x` (B, 1, H, W); returns (B, 1, H, W)."""
        skips: list[Tensor] = []
        for down in self.encoder:
            x = down(x)
            skips.append(x)
        x = self.bottom(x)
        for block, up in zip(self.blocks, [*self.decoder, self.head], strict=True):
            x = up(torch.cat((block(x), skips.pop()), dim=1))
        return x


class MultiScaleDiscriminator(PatchGAN):
    """Discriminator of five convolutions, the first three with stride 2; no dropout."""

    def __init__(self, width: int = 64, norm: str = "instance") -> None:
        super().__init__(width, norm, dropout=0.0)
