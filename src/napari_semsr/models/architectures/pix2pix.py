"""U-Net generator of Pix2Pix, for comparison (Isola et al. 2017, arXiv:1611.07004).

=======  =====================================================  ============
part     layers                                                 resolution
=======  =====================================================  ============
encoder  eight 4x4 stride-2 convolutions to 64, 128, 256, 512,  1/2 ... 1/256
         512, 512, 512, 512; batch norm but after the first
         and the last; LeakyReLU 0.2
decoder  seven 4x4 transposed stride-2 convolutions to 512,     1/128 ... 1/2
         512, 512, 512, 256, 128, 64; batch norm; dropout of
         a half after the first three; ReLU; each joined with
         the encoder's maps of that size
head     4x4 transposed stride-2 convolution to 1, tanh         1
=======  =====================================================  ============

All of it is *stated*, in the paper's appendix or, for the missing norm of the innermost
layer, in its code; weights from N(0, 0.02). *Chosen*: one grey channel instead of three
(``channels=3`` gives the original), and the scale: the network works on [-1, 1], and
here the unit scale is mapped to that and back. Its output is therefore limited to [0,
1]; ``bounded=False`` omits the tanh. The paper keeps dropout as noise in inference;
here inference has none, so that results are reproducible.

Its discriminator is the PatchGAN of `napari_semsr.models.architectures.discriminators`
on input and output together: ``channels=2, norm="batch", first_norm=False, dropout=0``.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.models.architectures.blocks import (
    MAX_LEVELS,
    build_stage,
    init_weights_normal,
    needs_bias,
)

_WIDEST = 8  # widest layer, over `width`; stated (arXiv:1611.07004)
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
        widths = [width * min(2**level, _WIDEST) for level in range(levels)]
        halve = partial(nn.Conv2d, kernel_size=4, stride=2, padding=1)
        double = partial(nn.ConvTranspose2d, kernel_size=4, stride=2, padding=1)
        self.encoder = nn.ModuleList()
        inputs = channels
        for level, outputs in enumerate(widths):
            kind = norm if 0 < level < levels - 1 else "none"
            self.encoder.append(
                build_stage(halve(inputs, outputs, bias=needs_bias(kind)), kind)
            )
            inputs = outputs
        self.decoder = nn.ModuleList()
        for step, outputs in enumerate(reversed(widths[:-1])):
            drops = dropout and step < _WITH_DROPOUT
            self.decoder.append(
                build_stage(
                    double(inputs, outputs, bias=needs_bias(norm)),
                    norm,
                    nn.Dropout(dropout) if drops else None,
                )
            )
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
