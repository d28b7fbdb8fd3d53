"""Small residual network for one area, trained in minutes on a CPU.

=======  =========================================================  ==========
part     layers                                                     resolution
=======  =========================================================  ==========
stem     pixel-unshuffle 2, 3x3 convolution to `width`              1/2
body     residual blocks of two 3x3 convolutions, of which the      1/2
         first has the dilations of `dilations`
head     3x3 convolution to 4, pixel-shuffle                        1
=======  =========================================================  ==========

The output is added to the input, and the head starts at zero, so that an untrained
network returns its input. There is no normalisation layer: every output pixel depends
only on its receptive field, and tiles are exact. All numbers are our choice; by default
it has 0.13 million weights.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.models.architectures.blocks import init_layer_zero
from napari_semsr.models.architectures.two_scale import DilatedBlock


class PlaceNet(nn.Module):
    """Residual network without normalisation at half the resolution.

    Parameters
    ----------
    width : int, default=32
        Channels of the body.
    dilations : sequence of int, default=(1, 2, 4, 1, 8, 2, 1)
        Dilations of the first convolution of each block.
    """

    scale, stride = 1, 2

    def __init__(
        self, width: int = 32, dilations: Sequence[int] = (1, 2, 4, 1, 8, 2, 1)
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, width, 3, padding=1)
        blocks = (DilatedBlock(width, d, second_dilation=1) for d in dilations)
        self.body = nn.Sequential(*blocks)
        self.head = init_layer_zero(nn.Conv2d(width, 4, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Restore normalised (B, 1, H, W) with even sides to (B, 1, H, W)."""
        features = self.body(self.stem(functional.pixel_unshuffle(x, 2)))
        output: Tensor = x + functional.pixel_shuffle(self.head(features), 2)
        return output
