"""SRCNN, and SRCNN with attention (Z. Wang, microsphere nanoscopy).

=========  ======================================  ==========================
layer      kernel, channels                        activation
=========  ======================================  ==========================
1          9x9, 64                                 ReLU, then attention
2          1x1, 32                                 ReLU, then attention
3          5x5, 1                                  none
=========  ======================================  ==========================

*Stated* by Dong et al. (ECCV 2014, arXiv:1501.00092), whom Wang cites for the network:
kernels 9-1-5, maps 64 and 32, 8 032 weights, weights from N(0, 0.001), and cubic
upsampling of the image first. Wang does not specify layers, and proposes attention for
objects of 50 to 60 nm without details. The attention is *chosen*: each map is weighted
by its local mean, and each pixel by its surroundings of 7x7, both between 0 and 2 and
both 1 before training. The mean is over `window` pixels, not over the field, so that
tiles equal the untiled result. Edges are repeated.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.core import IntPair
from napari_semsr.models.architectures.blocks import (
    check_scale,
    init_layer_normal,
    init_layer_zero,
    upsample_bicubic,
)

_FIRST_STD = 0.001  # of the initial weights; stated (arXiv:1501.00092)


def _build_convolution(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """Build a convolution with replicated borders and the paper's initial weights."""
    layer = nn.Conv2d(
        inputs, outputs, kernel, padding=kernel // 2, padding_mode="replicate"
    )
    init_layer_normal(layer, _FIRST_STD)
    return layer


class SRCNN(nn.Module):
    """Three convolutions after bicubic upsampling."""

    def __init__(
        self, widths: IntPair = (64, 32), scale: int = 1, *, residual: bool = False
    ) -> None:
        super().__init__()
        self.scale, self.stride = check_scale(scale, (1, 2, 3, 4)), 1
        self.adds_input = residual
        first, second = widths
        self.patches = _build_convolution(1, first, 9)
        self.mapping = _build_convolution(first, second, 1)
        self.head = _build_convolution(second, 1, 5)
        self.first_attention: nn.Module = nn.Identity()
        self.second_attention: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Sharpen normalised (B, 1, H, W) to (B, 1, H * scale, W * scale)."""
        base = upsample_bicubic(x, self.scale)
        features = self.first_attention(torch.relu(self.patches(base)))
        features = self.second_attention(torch.relu(self.mapping(features)))
        y: Tensor = self.head(features)
        return base + y if self.adds_input else y


class LocalAttention(nn.Module):
    """Channel attention from local means, followed by spatial attention."""

    def __init__(self, width: int, window: int = 31, reduction: int = 8) -> None:
        super().__init__()
        if window % 2 == 0:
            msg = f"window must be odd, got {window}"
            raise ValueError(msg)
        self.window = window
        hidden_width = max(4, width // reduction)
        self.squeeze = nn.Conv2d(width, hidden_width, 1)
        self.maps = init_layer_zero(nn.Conv2d(hidden_width, width, 1))
        around = nn.Conv2d(2, 1, 7, padding=3, padding_mode="replicate")
        self.places = init_layer_zero(around)

    def forward(self, x: Tensor) -> Tensor:
        """Weight features; `x` (B, C, H, W); returns (B, C, H, W)."""
        # averaging commutes with the 1x1 convolution, and few maps are faster
        means = self.compute_local_mean(self.squeeze(x))
        x = x * 2 * torch.sigmoid(self.maps(torch.relu(means)))
        about = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1)
        return x * 2 * torch.sigmoid(self.places(about))

    def compute_local_mean(self, x: Tensor) -> Tensor:
        """Average over the window, one axis at a time."""
        for size in ((self.window, 1), (1, self.window)):
            x = functional.avg_pool2d(
                x,
                size,
                stride=1,
                padding=(size[0] // 2, size[1] // 2),
                count_include_pad=False,
            )
        return x


class AttentionSRCNN(SRCNN):
    """SRCNN whose features are weighted by local attention."""

    def __init__(
        self,
        widths: IntPair = (64, 32),
        scale: int = 1,
        *,
        residual: bool = False,
        window: int = 31,
    ) -> None:
        super().__init__(widths, scale, residual=residual)
        self.first_attention = LocalAttention(widths[0], window)
        self.second_attention = LocalAttention(widths[1], window)
