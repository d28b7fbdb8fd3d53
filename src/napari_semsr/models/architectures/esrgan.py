"""RRDBNet, the generator of ESRGAN, for comparison (Wang et al. 2018).

=========  ===========================================================  ==========
part       layers                                                       resolution
=========  ===========================================================  ==========
unshuffle  by 4 / `scale`                                               scale / 4
entry      3x3 convolution to 64                                        scale / 4
trunk      23 residual-in-residual dense blocks, 3x3 convolution,       scale / 4
           added to the entry
up         twice: enlargement by repeating, 3x3 convolution, LeakyReLU  `scale`
head       3x3 convolution, LeakyReLU, 3x3 convolution to 1             `scale`
=========  ===========================================================  ==========

A dense block has five 3x3 convolutions, the inputs of which are the block's input and
all earlier outputs: four of 32 maps with LeakyReLU, one back to 64, times 0.2, added to
the input. Three of them in a row, times 0.2, added to the input, form a
residual-in-residual block. There is no norm.

*Stated* (arXiv:1809.00219 and its code): all of it for ``scale=4``, three colours, 23
blocks, growth 32, factor 0.2, slope 0.2, initial weights a tenth of the usual. Smaller
scales by unshuffling are as in Real-ESRGAN (Wang et al. 2021, arXiv:2107.10833).
*Chosen*: one grey channel; ``channels=3`` gives the original.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.models.architectures.blocks import (
    LeakyReLU,
    check_scale,
    init_layer_he,
)

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
