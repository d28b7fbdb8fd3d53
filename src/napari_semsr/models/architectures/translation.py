"""Published networks that translate images of one kind into another."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.models.architectures.blocks import (
    MAX_LEVELS,
    LanczosUpsampling,
    LeakyReLU,
    ResidualBlock,
    SubPixelUpsampling,
    build_double_convolution,
    build_norm,
    build_stage,
    check_scale,
    init_weights_normal,
    needs_bias,
)

# U-Net generator of Pix2Pix, for comparison (Isola et al. 2017, arXiv:1611.07004).
#
# =======  =====================================================  ============
# part     layers                                                 resolution
# =======  =====================================================  ============
# encoder  eight 4x4 stride-2 convolutions to 64, 128, 256, 512,  1/2 ... 1/256
#          512, 512, 512, 512; batch norm but after the first
#          and the last; LeakyReLU 0.2
# decoder  seven 4x4 transposed stride-2 convolutions to 512,     1/128 ... 1/2
#          512, 512, 512, 256, 128, 64; batch norm; dropout of
#          a half after the first three; ReLU; each joined with
#          the encoder's maps of that size
# head     4x4 transposed stride-2 convolution to 1, tanh         1
# =======  =====================================================  ============
#
# All of it is *stated*, in the paper's appendix or, for the missing norm of the
# innermost layer, in its code; weights from N(0, 0.02). *Chosen*: one grey channel
# instead of three (``channels=3`` gives the original), and the scale: the network works
# on [-1, 1], and here the unit scale is mapped to that and back. Its output is
# therefore limited to [0, 1]; ``bounded=False`` omits the tanh. The paper keeps dropout
# as noise in inference; here inference has none, so that results are reproducible.
#
# Its discriminator is `PatchGAN` on input and output together:
# ``channels=2, norm="batch", first_norm=False, dropout=0``.


_WIDEST_UNET = 8  # widest layer, over `width`; stated (arXiv:1611.07004)
_WITH_DROPOUT = 3  # layers with dropout; stated (arXiv:1611.07004)
_SLOPE = 0.2  # of leaky ReLU; stated (arXiv:1611.07004)


class Pix2PixUNet(nn.Module):
    """U-Net whose levels each halve the resolution.

    `levels`: number of halvings of the resolution; with 8, 256 px become 1.
    """

    def __init__(
        self,
        width: int = 64,
        levels: int = 8,
        norm: str = "batch",
        dropout: float = 0.5,
        *,
        bounded: bool = True,
        channels: int = 1,
    ) -> None:
        super().__init__()
        if not 2 <= levels <= MAX_LEVELS:
            msg = f"levels must be 2 to {MAX_LEVELS}, got {levels}"
            raise ValueError(msg)
        self.scale, self.stride, self.bounded = 1, 2**levels, bounded
        widths = [width * min(2**level, _WIDEST_UNET) for level in range(levels)]
        halve = partial(nn.Conv2d, kernel_size=4, stride=2, padding=1)
        double = partial(nn.ConvTranspose2d, kernel_size=4, stride=2, padding=1)
        self.encoder = nn.ModuleList()
        inputs = channels
        for level, outputs in enumerate(widths):
            kind = norm if 0 < level < levels - 1 else "none"
            layer = halve(inputs, outputs, bias=needs_bias(kind))
            self.encoder.append(build_stage(layer, kind))
            inputs = outputs
        self.decoder = nn.ModuleList()
        for step, outputs in enumerate(reversed(widths[:-1])):
            drops = dropout and step < _WITH_DROPOUT
            noise = nn.Dropout(dropout) if drops else None
            wider = double(inputs, outputs, bias=needs_bias(norm))
            self.decoder.append(build_stage(wider, norm, noise))
            inputs = 2 * outputs
        self.head = double(inputs, channels)
        init_weights_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Translate a normalised image (B, channels, H, W)."""
        x = 2 * x - 1
        skips: list[Tensor] = []
        for level, down in enumerate(self.encoder):
            x = down(functional.leaky_relu(x, _SLOPE) if level else x)
            skips.append(x)
        skips.pop()
        for up in self.decoder:
            x = torch.cat((up(torch.relu(x)), skips.pop()), dim=1)
        y: Tensor = self.head(torch.relu(x))
        return (torch.tanh(y) if self.bounded else y) / 2 + 0.5


# Residual generator of the standard CycleGAN, for comparison.
#
# =========  ==============================================================  ==========
# part       layers                                                          resolution
# =========  ==============================================================  ==========
# entry      7x7 convolution to 64, norm, ReLU                               1
# down       3x3 stride-2 convolutions to 128 and 256, norm, ReLU            1/2, 1/4
# residual   nine blocks: 3x3 convolution, norm, ReLU, 3x3 convolution,      1/4
#            norm, added to the input; 256 channels
# up         3x3 transposed stride-2 convolutions to 128 and 64, norm, ReLU  1/2, 1
# head       7x7 convolution to 1, tanh                                      1
# =========  ==============================================================  ==========
#
# All of it is *stated* by Zhu et al. (2017, arXiv:1703.10593, appendix): nine blocks
# for images of 256 px, instance norm, reflection padding, weights from N(0, 0.02).
# *Chosen*: one grey channel instead of three (``channels=3`` gives the original), and
# the scale: the network works on [-1, 1], and here the unit scale is mapped to that and
# back. Its output is therefore limited to [0, 1]; ``bounded=False`` omits the tanh.


class ResNetGenerator(nn.Module):
    """Generator with nine residual blocks at a quarter of the resolution."""

    def __init__(
        self,
        width: int = 64,
        blocks: int = 9,
        norm: str = "instance",
        dropout: float = 0.0,
        *,
        bounded: bool = True,
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.scale, self.stride, self.bounded = 1, 4, bounded
        bias = needs_bias(norm)
        relu = nn.ReLU(inplace=True)
        wide = partial(nn.Conv2d, kernel_size=7, padding=3, padding_mode="reflect")
        halve = partial(nn.Conv2d, kernel_size=3, stride=2, padding=1, bias=bias)
        double: Callable[..., nn.ConvTranspose2d] = partial(
            nn.ConvTranspose2d, **halve.keywords, output_padding=1
        )
        self.body = nn.Sequential(
            *build_stage(wide(channels, width, bias=bias), norm, relu),
            *build_stage(halve(width, 2 * width), norm, relu),
            *build_stage(halve(2 * width, 4 * width), norm, relu),
            *(ResidualBlock(4 * width, norm, relu, dropout) for _ in range(blocks)),
            *build_stage(double(4 * width, 2 * width), norm, relu),
            *build_stage(double(2 * width, width), norm, relu),
            wide(width, channels),
        )
        init_weights_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Translate a normalised image (B, channels, H, W)."""
        y: Tensor = self.body(2 * x - 1)
        return (torch.tanh(y) if self.bounded else y) / 2 + 0.5


# U-Net that doubles the resolution of SEM images (de Haan et al. 2019).
#
# =========  ==============================================================  ==========
# part       layers                                                          resolution
# =========  ==============================================================  ==========
# enlarge    Lanczos by `scale`                                              1
# entry      3x3 convolution to 16, LeakyReLU                                1
# encoder    four blocks to 32, 64, 128, 256, a 2x2 mean after each          1 ... 1/8
# bottom     one block to 512                                                1/16
# decoder    four times: bilinear enlargement by 2, the encoder's maps of    1/8 ... 1
#            that size beside it, a block to 256, 128, 64, 32
# head       1x1 convolution to 1                                            1
# =========  ==============================================================  ==========
#
# Resolutions are relative to the enlarged image. A block is two 3x3 convolutions, each
# followed by a LeakyReLU; the second changes the number of maps.
#
# *Stated*: a U-Net; two convolutions in each block, each followed by a LeakyReLU, the
# second changing the channels; images enlarged by 2 with a Lanczos filter before the
# network. *Chosen*, since the figure with the numbers is not in the text: four levels,
# the maps, 3x3 kernels, means for downsampling and bilinear upsampling, joining by
# concatenation, the slope 0.2, Lanczos of three lobes.


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


# Multi-residual generator of the SSUM system (Sun et al.), for a CycleGAN.
#
# =========  ==========================================================  ==========
# part       layers                                                      resolution
# =========  ==========================================================  ==========
# entry      7x7 convolution to 64, norm, LeakyReLU                      1
# down       two 3x3 stride-2 convolutions, 64, norm, LeakyReLU          1/2, 1/4
# residual   nine blocks: 3x3 convolution, norm, LeakyReLU, dropout,     1/4
#            3x3 convolution, norm, added to the input; 64 channels
# up         two sub-pixel layers: 3x3 convolution to 256, shuffle by    1/2, 1
#            2, LeakyReLU
# head       7x7 convolution to 1                                        1
# =========  ==========================================================  ==========
#
# *Stated*: a down-sampling module, nine residual blocks for images of 256 px, two 3x3
# convolutions of 64 maps in each with batch norm and LeakyReLU, two learned sub-pixel
# layers after them; dropout against overfitting; shallow features extracted by a
# convolution. According to the paper the slope of the LeakyReLU is learnt, which is a
# PReLU: ``slope="learnt"``, one for each layer, starting at 0.2. *Chosen*, since the
# figure with the layers is not in the text: everything else, namely the 7x7 kernels, 64
# maps throughout, two stride-2 convolutions (as many as sub-pixel layers), the
# positions of the activations, the slope 0.2, the rate of dropout, reflected edges, a
# linear output.
#
# ``norm="instance"`` is the variant whose statistics come from the image, as in the
# textbook. With batch norm, the statistics stored in training are used, and a tile
# equals the same pixels of the whole field.


_SLOPES: dict[str, Callable[[], nn.Module]] = {
    "fixed": LeakyReLU,
    "learnt": partial(nn.PReLU, init=0.2),
}


class MultiResidualNet(nn.Module):
    """Residual network with nine blocks of 64 maps at a quarter of the resolution."""

    def __init__(
        self,
        width: int = 64,
        blocks: int = 9,
        norm: str = "batch",
        dropout: float = 0.2,
        slope: str = "fixed",
    ) -> None:
        super().__init__()
        self.scale, self.stride = 1, 4
        if slope not in _SLOPES:
            msg = f"slope must be one of {', '.join(_SLOPES)}, got {slope!r}"
            raise ValueError(msg)
        rectifier = _SLOPES[slope]
        bias = needs_bias(norm)
        wide = nn.Conv2d(1, width, 7, padding=3, padding_mode="reflect", bias=bias)
        self.entry = build_stage(wide, norm, rectifier())
        halve = partial(nn.Conv2d, width, width, 3, stride=2, padding=1, bias=bias)
        self.down = nn.Sequential(
            *(build_stage(halve(), norm, rectifier()) for _ in range(2))
        )
        self.residual = nn.Sequential(
            *(ResidualBlock(width, norm, rectifier(), dropout) for _ in range(blocks))
        )
        self.up = nn.Sequential(
            *(SubPixelUpsampling(width, rectifier()) for _ in range(2))
        )
        self.head = nn.Conv2d(width, 1, 7, padding=3, padding_mode="reflect")
        init_weights_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Translate a normalised image; `x` (B, 1, H, W); returns (B, 1, H, W)."""
        features = self.residual(self.down(self.entry(x)))
        y: Tensor = self.head(self.up(features))
        return y


# U-Net with multi-scale blocks and its discriminator (Gao et al. 2024).
#
# ==========  =======================================================  =============
# part        layers                                                   resolution
# ==========  =======================================================  =============
# encoder     seven 4x4 stride-2 convolutions to 64, 128, 256, 512,    1/2 ... 1/128
#             512, 512, 512, each with norm and LeakyReLU, then a
#             multi-scale block
# bottom      eighth convolution, 3x3, stride 1; first transposed      1/128
#             one, 3x3, stride 1; norm and LeakyReLU after both
# decoder     a multi-scale block, the encoder's maps of that size     1/128 ... 1/2
#             beside it, a 4x4 transposed stride-2 convolution to
#             512, 512, 512, 256, 128, 64, norm, LeakyReLU
# head        eighth transposed convolution, 4x4, stride 2, to 1       1
# ==========  =======================================================  =============
#
# A multi-scale block has three branches side by side: a 1x1 convolution to a quarter of
# the maps; a 1x1 to a quarter and a 3x3 to half; a 1x1 to an eighth and two 3x3 to a
# quarter. Norm and LeakyReLU follow.
#
# *Stated*: a U-Net with eight convolutions and eight transposed ones, stride 2 except
# for the eighth and the first transposed one; instance norm and LeakyReLU after each;
# 14 multi-scale blocks of 1x1 and 3x3 kernels with stride 1; skips that join the
# scales. *Chosen*, since the figure with the numbers is not in the text: the channels,
# the 4x4 kernels, the layers of a block, the positions of the 14 (seven in the encoder,
# seven in the decoder), joining by concatenation, and a last layer without norm and
# activation.
#
# The discriminator is *stated* to have five convolutions, the first three with stride
# 2, instance norm and LeakyReLU after all but the last: a 70 x 70 PatchGAN. Its
# channels and 4x4 kernels are *chosen* as usual.


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


# PatchGAN and VGG-style discriminators.
#
# PatchGAN scores overlapping patches of 70 x 70 px:
#
# =====  ======  ======  ========  =============  ===========
# layer  kernel  stride  channels  norm           activation
# =====  ======  ======  ========  =============  ===========
# 1      4       2       64        instance       LeakyReLU
# 2      4       2       128       instance       LeakyReLU
# 3      4       2       256       instance       LeakyReLU
# 4      4       1       512       instance       LeakyReLU
# 5      4       1       1         none           none
# =====  ======  ======  ========  =============  ===========
#
# *Stated* by Sun et al. (SSUM): 70 x 70 patches; five convolutions; the first four with
# 4x4 kernels and 64 to 512 maps, each with instance norm and LeakyReLU. *Chosen*: the
# strides. The text also says that all first four have stride 2, but such a network
# sees 94 px; here the fourth has stride 1, so that it sees 70. *Chosen* too: padding 1,
# the slope 0.2, dropout after the layers 2 to 4 (the text mentions dropout against
# overfitting, but neither its position nor its rate).
#
# The textbook form (Isola et al. 2017, arXiv:1611.07004) has no norm in the first layer
# and no dropout: ``first_norm=False, dropout=0``. Given two images at once, as Pix2Pix
# does, it takes ``channels=2``.
#
# ``keen=True`` adds a second input: the image minus its 3x3 mean, times four. A
# discriminator has to learn such a filter before it detects blur, which takes thousands
# of steps; this one has it from the start. This is not from a paper; the short forms of
# recipes use it.


_KEEN = 4.0  # makes the detail of a clear SEM image about as strong as the image


class PatchGAN(nn.Module):
    """Discriminator of five 4x4 convolutions, three of them with stride 2."""

    def __init__(
        self,
        width: int = 64,
        norm: str = "instance",
        dropout: float = 0.2,
        *,
        first_norm: bool = True,
        channels: int = 1,
        keen: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.keen = 8, keen
        layers, inputs = [], 2 * channels if keen else channels
        for level in range(4):
            outputs = width * 2**level
            kind = norm if level or first_norm else "none"
            stride = 2 if level < 3 else 1
            layer = nn.Conv2d(inputs, outputs, 4, stride, 1, bias=needs_bias(kind))
            noise = nn.Dropout2d(dropout) if dropout and level else None
            layers.append(build_stage(layer, kind, LeakyReLU(), noise))
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.head = nn.Conv2d(inputs, 1, 4, padding=1)
        init_weights_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Score (B, channels, H, W) of 24 px or more as (B, 1, H/8 - 2, W/8 - 2)."""
        if self.keen:
            around = functional.pad(x, (1, 1, 1, 1), mode="reflect")
            detail = x - functional.avg_pool2d(around, 3, stride=1)
            x = torch.cat((x, _KEEN * detail), dim=1)
        score: Tensor = self.head(self.features(x))
        return score


# VGG-type discriminators: one score for a whole patch.
#
# De Haan et al. 2019:
#
# =========  =============================================================
# part       layers
# =========  =============================================================
# entry      3x3 convolution to 32, LeakyReLU
# blocks     five of two 3x3 convolutions, LeakyReLU after each; the
#            second has stride 2 and doubles the maps: 64 ... 1024
# head       mean over the patch, dense to 1024, LeakyReLU, dense to 1
# =========  =============================================================
#
# *Stated*: a modified VGG-type network; two convolutions in each block, each followed
# by a LeakyReLU, the second changing the channels. *Chosen*: all numbers, the stride,
# and the mean over the patch, so that patches of any size are scored.
#
# SRGAN (Ledig et al. 2017, arXiv:1609.04802):
#
# =========  =============================================================
# part       layers
# =========  =============================================================
# 1          3x3 convolution to 64, LeakyReLU
# 2 to 8     3x3 convolutions to 64, 128, 128, 256, 256, 512, 512, strides
#            2, 1, 2, 1, 2, 1, 2 in turn, batch norm, LeakyReLU
# head       dense to 1024, LeakyReLU, dense to 1
# =========  =============================================================
#
# *Stated*: all of it, with the slope 0.2, for patches of 96 px. The final sigmoid is
# part of the loss. *Chosen*: patches of another size are averaged to the 6 x 6
# positions that remain of 96 px.

_GRID = 6  # positions along an axis after pooling; as for 96 px


def _build_dense_head(side: int, inputs: int, width: int) -> nn.Sequential:
    """Build a head that pools maps to a given side, then applies dense layers."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(side),
        nn.Flatten(),
        nn.Linear(inputs * side**2, width),
        LeakyReLU(),
        nn.Linear(width, 1),
    )


class VGGDiscriminator(nn.Module):
    """De Haan's discriminator: double convolutions, average pooling, dense layers."""

    def __init__(self, width: int = 64, blocks: int = 5, *, channels: int = 1) -> None:
        super().__init__()
        self.stride = 2**blocks
        widths = [width // 2 * 2**i for i in range(blocks + 1)]
        self.entry = nn.Sequential(
            nn.Conv2d(channels, widths[0], 3, padding=1), LeakyReLU()
        )
        self.blocks = nn.Sequential(
            *(build_double_convolution(a, b, stride=2) for a, b in pairwise(widths))
        )
        self.head = _build_dense_head(1, widths[-1], widths[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Score patches; `x` (B, channels, H, W); returns (B, 1)."""
        score: Tensor = self.head(self.blocks(self.entry(x)))
        return score


class SRGANDiscriminator(nn.Module):
    """SRGAN discriminator with eight convolutions and two dense layers."""

    def __init__(self, width: int = 64, *, channels: int = 1) -> None:
        super().__init__()
        self.stride = 16
        layers, inputs = [], channels
        for index in range(8):
            outputs, norm = width * 2 ** (index // 2), "batch" if index else "none"
            stride = 1 + index % 2
            bias = needs_bias(norm)
            layer = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)
            layers.append(build_stage(layer, norm, LeakyReLU()))
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.head = _build_dense_head(_GRID, inputs, 16 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Score patches; `x` (B, channels, H, W); returns (B, 1)."""
        score: Tensor = self.head(self.features(x))
        return score
