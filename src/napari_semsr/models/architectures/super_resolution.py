"""Published super-resolution networks: SRCNN, ESPCN, VDSR, EDSR, SRResNet, RRDBNet."""

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.core import IntPair
from napari_semsr.models.architectures.blocks import (
    LeakyReLU,
    ResidualBlock,
    ResidualTrunk,
    SubPixelUpsampling,
    build_stage,
    check_scale,
    init_layer_he,
    init_layer_normal,
    init_layer_zero,
    upsample_bicubic,
)

# VDSR: a deep stack of small layers that learns a residual (Kim et al. 2016).
#
# =========  ======================================  ==========================
# layer      kernel, channels                        activation
# =========  ======================================  ==========================
# 1 to 19    3x3, 64                                 ReLU
# 20         3x3, 1                                  none, added to the input
# =========  ======================================  ==========================
#
# All of it is *stated* (arXiv:1511.04587), as are zeros beyond the edges, He
# initialisation, and cubic upsampling of the image first, so that one network is for
# all scales. The receptive field is 41 px: each layer adds one on each side.


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


# ESPCN: a small network that upsamples only in its last layer (Shi et al. 2016).
#
# =========  ==========================================================  ==========
# layer      kernel, channels, activation                                resolution
# =========  ==========================================================  ==========
# 1          5x5, 64, tanh                                               1
# 2          3x3, 32, tanh                                               1
# 3          3x3, one for each place that a pixel becomes; shuffle       `scale`
#            by `scale`
# =========  ==========================================================  ==========
#
# *Stated* (arXiv:1609.05158): all of it, except for `scale` 1, which has nothing to
# shuffle, and a last layer of one map. *Chosen*: edges are repeated, where the paper
# crops them; initial weights as in PyTorch.


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


# SRCNN, and SRCNN with attention (Z. Wang, microsphere nanoscopy).
#
# =========  ======================================  ==========================
# layer      kernel, channels                        activation
# =========  ======================================  ==========================
# 1          9x9, 64                                 ReLU, then attention
# 2          1x1, 32                                 ReLU, then attention
# 3          5x5, 1                                  none
# =========  ======================================  ==========================
#
# *Stated* by Dong et al. (ECCV 2014, arXiv:1501.00092), whom Wang cites for the
# network: kernels 9-1-5, maps 64 and 32, 8 032 weights, weights from N(0, 0.001), and
# cubic upsampling of the image first. Wang does not specify layers, and proposes
# attention for objects of 50 to 60 nm without details. The attention is *chosen*: each
# map is weighted by its local mean, and each pixel by its surroundings of 7x7, both
# between 0 and 2 and both 1 before training. The mean is over `window` pixels, not over
# the field, so that tiles equal the untiled result. Edges are repeated.


_FIRST_STD = 0.001  # of the initial weights; stated (arXiv:1501.00092)


def _build_convolution(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """Build a convolution with replicated borders and the paper's initial weights."""
    layer = nn.Conv2d(
        inputs, outputs, kernel, padding=kernel // 2, padding_mode="replicate"
    )
    init_layer_normal(layer, _FIRST_STD)
    return layer


class SRCNN(nn.Module):
    """Three convolutions after bicubic upsampling.

    With a `window` its features are weighted by local attention.
    """

    def __init__(
        self,
        widths: IntPair = (64, 32),
        scale: int = 1,
        *,
        residual: bool = False,
        window: int | None = None,
    ) -> None:
        super().__init__()
        self.scale, self.stride = check_scale(scale, (1, 2, 3, 4)), 1
        self.adds_input = residual
        first, second = widths
        self.patches = _build_convolution(1, first, 9)
        self.mapping = _build_convolution(first, second, 1)
        self.head = _build_convolution(second, 1, 5)
        self.first_attention, self.second_attention = (
            nn.Identity() if window is None else LocalAttention(width, window)
            for width in widths
        )

    def forward(self, x: Tensor) -> Tensor:
        """Sharpen normalised (B, 1, H, W) to (B, 1, H * scale, W * scale)."""
        base = upsample_bicubic(x, self.scale)
        features = self.first_attention(torch.relu(self.patches(base)))
        features = self.second_attention(torch.relu(self.mapping(features)))
        y: Tensor = self.head(features)
        return base + y if self.adds_input else y


class LocalAttention(nn.Module):
    """Channel attention from local means, followed by spatial attention."""

    def __init__(self, width: int, window: int, reduction: int = 8) -> None:
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
            padding = size[0] // 2, size[1] // 2
            x = functional.avg_pool2d(x, size, 1, padding, count_include_pad=False)
        return x


# EDSR, a residual network without normalisation, for comparison (Lim et al. 2017).
#
# =========  ==========================================================  ==========
# part       layers                                                      resolution
# =========  ==========================================================  ==========
# entry      3x3 convolution to 64                                       1
# residual   16 blocks: 3x3 convolution, ReLU, 3x3 convolution, times    1
#            `res_scale`, added to the input
# trunk      3x3 convolution, added to the entry                         1
# up         one for each doubling: 3x3 convolution to 256, shuffle      2, 4
#            by 2
# head       3x3 convolution to 1                                        `scale`
# =========  ==========================================================  ==========
#
# *Stated* (arXiv:1707.02921): SRResNet without its norms, and without activations
# outside the blocks; 16 blocks of 64 maps without a factor as the baseline, which is
# the default here, and 32 blocks of 256 maps with the factor 0.1 as the large form:
# ``blocks=32, width=256, res_scale=0.1``. The 3x3 kernels of entry and head are those
# of its code. *Chosen*: one grey channel instead of three (``channels=3`` gives the
# original); ``scale=1``, which omits the upsampling; no mean is subtracted first, as
# grey values are normalised. The paper's scale of 3 is not supported.


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


# SRResNet, the generator of SRGAN, for comparison (Ledig et al. 2017).
#
# =========  ==========================================================  ==========
# part       layers                                                      resolution
# =========  ==========================================================  ==========
# entry      9x9 convolution to 64, PReLU                                1
# residual   16 blocks: 3x3 convolution, batch norm, PReLU, 3x3          1
#            convolution, batch norm, added to the input
# trunk      3x3 convolution, batch norm, added to the entry             1
# up         one for each doubling: 3x3 convolution to 256, shuffle      2, 4
#            by 2, PReLU
# head       9x9 convolution to 1                                        `scale`
# =========  ==========================================================  ==========
#
# All of it is *stated* (arXiv:1609.04802), for ``scale=4``. *Chosen*: one grey channel
# instead of three (``channels=3`` gives the original), a linear output, and fewer
# upsampling layers for smaller scales. Sun et al. compare with it at ``scale=1``, as
# the optical and the SEM image are on one grid; so do we.


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


# RRDBNet, the generator of ESRGAN, for comparison (Wang et al. 2018).
#
# =========  ===========================================================  ==========
# part       layers                                                       resolution
# =========  ===========================================================  ==========
# unshuffle  by 4 / `scale`                                               scale / 4
# entry      3x3 convolution to 64                                        scale / 4
# trunk      23 residual-in-residual dense blocks, 3x3 convolution,       scale / 4
#            added to the entry
# up         twice: enlargement by repeating, 3x3 convolution, LeakyReLU  `scale`
# head       3x3 convolution, LeakyReLU, 3x3 convolution to 1             `scale`
# =========  ===========================================================  ==========
#
# A dense block has five 3x3 convolutions, the inputs of which are the block's input and
# all earlier outputs: four of 32 maps with LeakyReLU, one back to 64, times 0.2, added
# to the input. Three of them in a row, times 0.2, added to the input, form a
# residual-in-residual block. There is no norm.
#
# *Stated* (arXiv:1809.00219 and its code): all of it for ``scale=4``, three colours, 23
# blocks, growth 32, factor 0.2, slope 0.2, initial weights a tenth of the usual.
# Smaller scales by unshuffling are as in Real-ESRGAN (Wang et al. 2021,
# arXiv:2107.10833). *Chosen*: one grey channel; ``channels=3`` gives the original.


_RESIDUAL = 0.2  # factor of the residuals; stated (arXiv:1809.00219)
_FIRST = 0.1  # factor of the initial weights; stated (arXiv:1809.00219)


class _DenseBlock(nn.Module):
    """Five convolutions, each taking all previous outputs as input."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for index in range(5):
            outputs = growth if index < 4 else width
            layer = nn.Conv2d(width + index * growth, outputs, 3, padding=1)
            init_layer_he(layer, _FIRST)
            setattr(self, f"conv{index + 1}", layer)
        self.activation = LeakyReLU()

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for index in range(1, 5):
            layer = self.get_submodule(f"conv{index}")
            features.append(self.activation(layer(torch.cat(features, dim=1))))
        correction: Tensor = self.get_submodule("conv5")(torch.cat(features, dim=1))
        return x + _RESIDUAL * correction


class _ResidualDenseBlock(nn.Module):
    """Three dense blocks in a row, added to the input."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = _DenseBlock(width, growth)
        self.rdb2 = _DenseBlock(width, growth)
        self.rdb3 = _DenseBlock(width, growth)

    def forward(self, x: Tensor) -> Tensor:
        correction: Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return x + _RESIDUAL * correction


class RRDBNet(nn.Module):
    """Residual-in-residual dense network.

    The names of its layers are those of Real-ESRGAN.
    """

    def __init__(
        self,
        width: int = 64,
        blocks: int = 23,
        growth: int = 32,
        scale: int = 4,
        *,
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.scale = check_scale(scale, (1, 2, 4))
        self.stride = 4 // scale
        inputs = channels * self.stride**2
        self.conv_first = nn.Conv2d(inputs, width, 3, padding=1)
        self.body = nn.Sequential(
            *(_ResidualDenseBlock(width, growth) for _ in range(blocks))
        )
        self.conv_body = nn.Conv2d(width, width, 3, padding=1)
        self.conv_up1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_up2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_hr = nn.Conv2d(width, width, 3, padding=1)
        self.conv_last = nn.Conv2d(width, channels, 3, padding=1)
        self.activation = LeakyReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Super-resolve (B, channels, H, W) to (B, channels, H * scale, W * scale)."""
        if self.stride > 1:
            x = functional.pixel_unshuffle(x, self.stride)
        shallow = self.conv_first(x)
        features = shallow + self.conv_body(self.body(shallow))
        for layer in (self.conv_up1, self.conv_up2):
            larger = functional.interpolate(features, scale_factor=2.0)
            features = self.activation(layer(larger))
        y: Tensor = self.conv_last(self.activation(self.conv_hr(features)))
        return y
