"""ESPCN: a small network that upsamples only in its last layer (Shi et al. 2016).

=========  ==========================================================  ==========
layer      kernel, channels, activation                                resolution
=========  ==========================================================  ==========
1          5x5, 64, tanh                                               1
2          3x3, 32, tanh                                               1
3          3x3, one for each place that a pixel becomes; shuffle       `scale`
           by `scale`
=========  ==========================================================  ==========

*Stated* (arXiv:1609.05158): all of it, except for `scale` 1, which has nothing to
shuffle, and a last layer of one map. *Chosen*: edges are repeated, where the paper
crops them; initial weights as in PyTorch.
"""

from functools import partial

from torch import Tensor, nn

from napari_semsr.core import IntPair
from napari_semsr.models.architectures.blocks import check_scale


class ESPCN(nn.Module):
    """Three convolutions at input resolution, followed by a pixel shuffle."""

    def __init__(self, widths: IntPair = (64, 32), scale: int = 1) -> None:
        super().__init__()
        self.scale, self.stride = check_scale(scale, (1, 2, 3, 4)), 1
        first, second = widths
        convolve = partial(nn.Conv2d, padding="same", padding_mode="replicate")
        self.body = nn.Sequential(
            convolve(1, first, 5),
            nn.Tanh(),
            convolve(first, second, 3),
            nn.Tanh(),
            convolve(second, scale**2, 3),
        )
        self.shuffle = nn.PixelShuffle(scale) if scale > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Super-resolve normalised (B, 1, H, W) to (B, 1, H * scale, W * scale)."""
        y: Tensor = self.shuffle(self.body(x))
        return y
