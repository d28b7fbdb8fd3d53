"""U-Net that doubles the resolution of SEM images (de Haan et al. 2019).

=========  ==============================================================  ==========
part       layers                                                          resolution
=========  ==============================================================  ==========
enlarge    Lanczos by `scale`                                              1
entry      3x3 convolution to 16, LeakyReLU                                1
encoder    four blocks to 32, 64, 128, 256, a 2x2 mean after each          1 ... 1/8
bottom     one block to 512                                                1/16
decoder    four times: bilinear enlargement by 2, the encoder's maps of    1/8 ... 1
           that size beside it, a block to 256, 128, 64, 32
head       1x1 convolution to 1                                            1
=========  ==============================================================  ==========

Resolutions are relative to the enlarged image. A block is two 3x3 convolutions, each
followed by a LeakyReLU; the second changes the number of maps.

*Stated*: a U-Net; two convolutions in each block, each followed by a LeakyReLU, the
second changing the channels; images enlarged by 2 with a Lanczos filter before the
network. *Chosen*, since the figure with the numbers is not in the text: four levels,
the maps, 3x3 kernels, means for downsampling and bilinear upsampling, joining by
concatenation, the slope 0.2, Lanczos of three lobes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.models.architectures.blocks import (
    MAX_LEVELS,
    LanczosUpsampling,
    LeakyReLU,
    build_double_convolution,
    check_scale,
)


class DeHaanUNet(nn.Module):
    """U-Net without normalisation, applied to a previously upsampled image."""

    def __init__(self, width: int = 32, levels: int = 4, scale: int = 2) -> None:
        super().__init__()
        if not 1 <= levels <= MAX_LEVELS or width < 2:
            msg = (
                f"levels must be 1 to {MAX_LEVELS} and width at least 2, got {levels} "
                f"and {width}"
            )
            raise ValueError(msg)
        self.scale = check_scale(scale, (1, 2, 4))
        self.stride = max(1, 2**levels // scale)
        widths = [width * 2**level for level in range(levels + 1)]
        self.enlarge = LanczosUpsampling(scale)
        self.entry = nn.Sequential(nn.Conv2d(1, width // 2, 3, padding=1), LeakyReLU())
        self.encoder = nn.ModuleList(
            build_double_convolution(w // 2, w) for w in widths[:-1]
        )
        self.bottom = build_double_convolution(widths[-2], widths[-1])
        self.decoder = nn.ModuleList(
            build_double_convolution(3 * w, w) for w in reversed(widths[:-1])
        )
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Super-resolve normalised (B, 1, H, W) to (B, 1, H * scale, W * scale)."""
        x = self.entry(self.enlarge(x))
        skips: list[Tensor] = []
        for block in self.encoder:
            skips.append(block(x))
            x = functional.avg_pool2d(skips[-1], 2)
        x = self.bottom(x)
        for block in self.decoder:
            x = functional.interpolate(x, scale_factor=2.0, mode="bilinear")
            x = block(torch.cat((x, skips.pop()), dim=1))
        y: Tensor = self.head(x)
        return y
