"""SRResNet, the generator of SRGAN, for comparison (Ledig et al. 2017).

=========  ==========================================================  ==========
part       layers                                                      resolution
=========  ==========================================================  ==========
entry      9x9 convolution to 64, PReLU                                1
residual   16 blocks: 3x3 convolution, batch norm, PReLU, 3x3          1
           convolution, batch norm, added to the input
trunk      3x3 convolution, batch norm, added to the entry             1
up         one for each doubling: 3x3 convolution to 256, shuffle      2, 4
           by 2, PReLU
head       9x9 convolution to 1                                        `scale`
=========  ==========================================================  ==========

All of it is *stated* (arXiv:1609.04802), for ``scale=4``. *Chosen*: one grey channel
instead of three (``channels=3`` gives the original), a linear output, and fewer
upsampling layers for smaller scales. Sun et al. compare with it at ``scale=1``, as the
optical and the SEM image are on one grid; so do we.
"""

from torch import nn

from napari_semsr.models.architectures.blocks import (
    ResidualBlock,
    ResidualTrunk,
    SubPixelUpsampling,
    build_stage,
    check_scale,
)


class SRResNet(ResidualTrunk):
    """Residual network at input resolution that upsamples at the end."""

    def __init__(
        self, width: int = 64, blocks: int = 16, scale: int = 1, *, channels: int = 1
    ) -> None:
        doublings = check_scale(scale, (1, 2, 4)).bit_length() - 1
        super().__init__(
            nn.Sequential(nn.Conv2d(channels, width, 9, padding=4), nn.PReLU()),
            [
                ResidualBlock(width, "batch", nn.PReLU(), edges="zeros")
                for _ in range(blocks)
            ],
            build_stage(nn.Conv2d(width, width, 3, padding=1, bias=False), "batch"),
            [SubPixelUpsampling(width, nn.PReLU()) for _ in range(doublings)],
            nn.Conv2d(width, channels, 9, padding=4),
        )
