"""Two-scale residual network: the default restorer, made for speed on a CPU.

=======  =========================================================  ==========
part     layers                                                     resolution
=======  =========================================================  ==========
stem     pixel-unshuffle 2, 3x3 convolution to `width`              1/2
encoder  `fine_blocks` residual blocks                              1/2
context  2x2 stride-2 convolution to twice the width, residual      1/4
         blocks with the dilations of `dilations`, 1x1, shuffle up
wide     mean over 4x4, `wide_blocks` residual blocks, bilinear     1/16
         enlargement, added before the context blocks
decoder  sum with the encoder, `fine_blocks` residual blocks        1/2
head     3x3 convolution to 4 x scale squared, pixel-shuffle        1
=======  =========================================================  ==========

The output is added to the input, and the head starts at zero, so that an untrained
network returns its input. There is no normalisation layer: every output pixel depends
on the receptive field alone, and tiles are exact. Every number here is chosen.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.models.architectures.blocks import Edges, start_at_zero


class DilatedBlock(nn.Module):
    """Two 3x3 convolutions with a rectifier between them, added to the input."""

    rectifier = staticmethod(torch.relu_)

    def __init__(self, width: int, dilation: int = 1, edges: Edges = "zeros") -> None:
        super().__init__()
        convolve = partial(
            nn.Conv2d,
            width,
            width,
            3,
            padding=dilation,
            dilation=dilation,
            padding_mode=edges,
        )
        self.first, self.second = convolve(), start_at_zero(convolve())

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's correction; `x` (B, C, H, W); gives (B, C, H, W)."""
        correction: Tensor = self.second(self.rectifier(self.first(x)))
        return x + correction


class TwoScale(nn.Module):
    """Norm-free residual network at half, quarter and a sixteenth of the resolution.

    `scale`: output pixels per input pixel along each axis.
    """

    def __init__(
        self,
        width: int = 48,
        fine_blocks: int = 2,
        dilations: tuple[int, ...] = (1, 2, 1),
        scale: int = 1,
        wide_blocks: int = 0,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.stride = 16 if wide_blocks else 4
        self.stem = nn.Conv2d(4, width, 3, padding=1)
        self.encoder = nn.Sequential(*(DilatedBlock(width) for _ in range(fine_blocks)))
        self.down = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.wide = nn.Sequential(
            *(DilatedBlock(2 * width) for _ in range(wide_blocks))
        )
        self.wide_out = (
            start_at_zero(nn.Conv2d(2 * width, 2 * width, 1)) if wide_blocks else None
        )
        self.context = nn.Sequential(*(DilatedBlock(2 * width, d) for d in dilations))
        self.up = nn.Conv2d(2 * width, 4 * width, 1)
        self.decoder = nn.Sequential(*(DilatedBlock(width) for _ in range(fine_blocks)))
        self.head = start_at_zero(nn.Conv2d(width, 4 * scale**2, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Restore a normalised image.

        `x` (B, 1, H, W); gives (B, 1, H * scale, W * scale).
        """
        fine = self.stem(functional.pixel_unshuffle(x, 2))
        for block in self.encoder:  # a call of the Sequential would hold its input
            fine = block(fine)
        coarse = self.down(fine)
        if self.wide_out is not None:
            coarse = coarse + self._seen_wide(coarse, self.wide_out)
        fine = fine + functional.pixel_shuffle(self.up(self.context(coarse)), 2)
        del coarse
        for block in self.decoder:
            fine = block(fine)
        correction = functional.pixel_shuffle(self.head(fine), 2 * self.scale)
        base = x if self.scale == 1 else _enlarged(x, self.scale)
        return base + correction

    def _seen_wide(self, coarse: Tensor, out: nn.Module) -> Tensor:
        """Look at a large surrounding at little cost."""
        pooled = out(self.wide(functional.avg_pool2d(coarse, 4)))
        return functional.interpolate(pooled, scale_factor=4.0, mode="bilinear")


def _enlarged(x: Tensor, scale: int) -> Tensor:
    """Repeat pixels: exact under tiling, and the head learns the rest."""
    return x.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
