"""EDSR, a residual network without normalisation, for comparison (Lim et al. 2017).

=========  ==========================================================  ==========
part       layers                                                      resolution
=========  ==========================================================  ==========
entry      3x3 convolution to 64                                       1
residual   16 blocks: 3x3 convolution, ReLU, 3x3 convolution, times    1
           `res_scale`, added to the input
trunk      3x3 convolution, added to the entry                         1
up         one for each doubling: 3x3 convolution to 256, shuffle      2, 4
           by 2
head       3x3 convolution to 1                                        `scale`
=========  ==========================================================  ==========

*Stated* (arXiv:1707.02921): SRResNet without its norms, and without activations outside
the blocks; 16 blocks of 64 maps without a factor as the baseline, which is the default
here, and 32 blocks of 256 maps with the factor 0.1 as the large form: ``blocks=32,
width=256, res_scale=0.1``. The 3x3 kernels of entry and head are those of its code.
*Chosen*: one grey channel instead of three (``channels=3`` gives the original);
``scale=1``, which omits the upsampling; no mean is subtracted first, as grey values are
normalised. The paper's scale of 3 is not supported.
"""

from functools import partial

from torch import nn

from napari_semsr.models.architectures.blocks import (
    ResidualBlock,
    ResidualTrunk,
    SubPixelUpsampling,
    check_scale,
)


class EDSR(ResidualTrunk):
    """Residual network without normalisation that upsamples at the end."""

    def __init__(
        self,
        width: int = 64,
        blocks: int = 16,
        scale: int = 1,
        *,
        res_scale: float = 1.0,
        channels: int = 1,
    ) -> None:
        doublings = check_scale(scale, (1, 2, 4)).bit_length() - 1
        convolve = partial(nn.Conv2d, kernel_size=3, padding=1)
        super().__init__(
            convolve(channels, width),
            [
                ResidualBlock(width, "none", nn.ReLU(), edges="zeros", factor=res_scale)
                for _ in range(blocks)
            ],
            convolve(width, width),
            [SubPixelUpsampling(width) for _ in range(doublings)],
            convolve(width, channels),
        )
