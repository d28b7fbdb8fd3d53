"""VDSR: a deep stack of small layers that learns a residual (Kim et al. 2016).

=========  ======================================  ==========================
layer      kernel, channels                        activation
=========  ======================================  ==========================
1 to 19    3x3, 64                                 ReLU
20         3x3, 1                                  none, added to the input
=========  ======================================  ==========================

All of it is *stated* (arXiv:1511.04587), as are zeros beyond the edges, He
initialisation, and cubic upsampling of the image first, so that one network is for all
scales. The receptive field is 41 px: each layer adds one on each side.
"""

from itertools import pairwise

from torch import Tensor, nn

from napari_semsr.models.architectures.blocks import (
    check_scale,
    init_layer_he,
    upsample_bicubic,
)


class VDSR(nn.Module):
    """Twenty 3x3 convolutions, added to the upsampled image."""

    def __init__(self, width: int = 64, layers: int = 20, scale: int = 1) -> None:
        super().__init__()
        if layers < 2:
            msg = f"layers must be at least 2, got {layers}"
            raise ValueError(msg)
        self.scale, self.stride = check_scale(scale, (1, 2, 3, 4)), 1
        self.adds_input = True
        self.body = nn.Sequential()
        for inputs, outputs in pairwise([1, *(layers - 1) * [width], 1]):
            layer = nn.Conv2d(inputs, outputs, 3, padding=1)
            init_layer_he(layer)
            self.body.extend([layer, nn.ReLU(inplace=True)])
        self.body.pop(-1)

    def forward(self, x: Tensor) -> Tensor:
        """Sharpen normalised (B, 1, H, W) to (B, 1, H * scale, W * scale)."""
        base = upsample_bicubic(x, self.scale)
        output: Tensor = base + self.body(base)
        return output
