"""VGG-type discriminators: one score for a whole patch.

De Haan et al. 2019:

=========  =============================================================
part       layers
=========  =============================================================
entry      3x3 convolution to 32, LeakyReLU
blocks     five of two 3x3 convolutions, LeakyReLU after each; the
           second has stride 2 and doubles the maps: 64 ... 1024
head       mean over the patch, dense to 1024, LeakyReLU, dense to 1
=========  =============================================================

*Stated*: a modified VGG-type network; two convolutions in each block, each followed by
a LeakyReLU, the second changing the channels. *Chosen*: all numbers, the stride, and
the mean over the patch, so that patches of any size are judged.

SRGAN (Ledig et al. 2017, arXiv:1609.04802):

=========  =============================================================
part       layers
=========  =============================================================
1          3x3 convolution to 64, LeakyReLU
2 to 8     3x3 convolutions to 64, 128, 128, 256, 256, 512, 512, strides
           2, 1, 2, 1, 2, 1, 2 in turn, batch norm, LeakyReLU
head       dense to 1024, LeakyReLU, dense to 1
=========  =============================================================

*Stated*: all of it, with the slope 0.2, for patches of 96 px. The sigmoid after it
belongs to the loss. *Chosen*: patches of another size are averaged to the 6 x 6 places
that 96 px leave.
"""

from itertools import pairwise

from torch import Tensor, nn

from napari_semsr.models.blocks import LeakyReLU, sequence
from napari_semsr.models.de_haan import double_convolution

__all__ = ["SRGANDiscriminator", "VGGDiscriminator"]

_GRID = 6


class VGGDiscriminator(nn.Module):
    """De Haan's: blocks of two convolutions, a mean, two dense layers.

    Parameters
    ----------
    width : int
        Channels after the first block.
    blocks : int
        Blocks, each halving the resolution.
    channels : int
        Channels of what is judged.
    """

    def __init__(self, width: int = 64, blocks: int = 5, *, channels: int = 1) -> None:
        super().__init__()
        self.stride = 2**blocks
        widths = [width // 2 * 2**i for i in range(blocks + 1)]
        self.entry = nn.Sequential(
            nn.Conv2d(channels, widths[0], 3, padding=1), LeakyReLU()
        )
        self.blocks = nn.Sequential(
            *(double_convolution(a, b, stride=2) for a, b in pairwise(widths))
        )
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(widths[-1], widths[-1]),
            LeakyReLU(),
            nn.Linear(widths[-1], 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Judge patches.

        Parameters
        ----------
        x : (B, channels, H, W) torch.Tensor
            Patches, true or generated.

        Returns
        -------
        (B, 1) torch.Tensor
            A score for each patch, without bounds.
        """
        score: Tensor = self.head(self.blocks(self.entry(x)))
        return score


class SRGANDiscriminator(nn.Module):
    """SRGAN's: eight convolutions and two dense layers.

    Parameters
    ----------
    width : int
        Channels after the first convolution; eight times as many after the last.
    channels : int
        Channels of what is judged.
    """

    def __init__(self, width: int = 64, *, channels: int = 1) -> None:
        super().__init__()
        self.stride = 16
        layers, inputs = [], channels
        for index in range(8):
            outputs = width * 2 ** (index // 2)
            layers.append(
                sequence(
                    nn.Conv2d(
                        inputs,
                        outputs,
                        3,
                        stride=1 + index % 2,
                        padding=1,
                        bias=index == 0,
                    ),
                    nn.BatchNorm2d(outputs) if index else None,
                    LeakyReLU(),
                )
            )
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(_GRID),
            nn.Flatten(),
            nn.Linear(inputs * _GRID**2, 16 * width),
            LeakyReLU(),
            nn.Linear(16 * width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Judge patches.

        Parameters
        ----------
        x : (B, channels, H, W) torch.Tensor
            Patches, true or generated.

        Returns
        -------
        (B, 1) torch.Tensor
            A score for each patch, without bounds.
        """
        score: Tensor = self.head(self.features(x))
        return score
