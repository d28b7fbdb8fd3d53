"""Residual networks at two scales for a CPU, and a small one for one area.

TwoScaleNet is designed for speed on a CPU:

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
network returns its input. In addition it may have filtered versions of the input, its
blocks may be conditioned, and it may predict several corrections instead of one
(`informed`). There is no normalisation layer: every output pixel depends only on its
receptive field, and tiles are exact. All numbers are our choice.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.models.architectures.blocks import (
    Edges,
    init_layer_zero,
    run_in_full_precision,
)
from napari_semsr.models.architectures.wiener import FILTERS, STEP, filter_images


class DilatedBlock(nn.Module):
    """Two 3x3 convolutions with a rectifier between them, added to the input.

    Both have the same dilation unless `second_dilation` is set.
    """

    rectifier = staticmethod(torch.relu_)

    def __init__(
        self,
        width: int,
        dilation: int = 1,
        edges: Edges = "zeros",
        second_dilation: int | None = None,
    ) -> None:
        super().__init__()

        def build_convolution(step: int) -> nn.Conv2d:
            return nn.Conv2d(
                width, width, 3, padding=step, dilation=step, padding_mode=edges
            )

        self.first = build_convolution(dilation)
        self.second = init_layer_zero(build_convolution(second_dilation or dilation))

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's correction to `x` (B, C, H, W); returns (B, C, H, W)."""
        correction: Tensor = self.second(self.rectifier(self.first(x)))
        return x + correction


Conditions = Iterator[Tensor] | None
"""Scales (minus 1) and shifts of the blocks, (B, 2, C) each, in order."""


def get_level_blocks(level: nn.Module) -> list[DilatedBlock]:
    """Return the blocks of one level."""
    return [part for part in level.children() if isinstance(part, DilatedBlock)]


def run_block(block: DilatedBlock, x: Tensor, condition: Conditions) -> Tensor:
    """Run a residual block, with an optional scale and shift of its first layer."""
    if condition is None:
        output: Tensor = block(x)
        return output
    features = block.first(x)
    scale, shift = next(condition).to(features.dtype)[..., None, None].unbind(1)
    inner = torch.addcmul(features + shift, features, scale)
    correction: Tensor = block.second(functional.relu(inner))
    return x + correction


def create_zero_filters() -> Tensor:
    """Return zero placeholders for packed Wiener filters, (48, 16, 7, 7)."""
    size = STEP**2
    return torch.zeros(FILTERS * size, size, 7, 7)


class TwoScaleNet(nn.Module):
    """Residual network without normalisation at 1/2, 1/4 and 1/16 of the resolution.

    `scale`: output pixels per input pixel along each axis; `told`: Wiener-filtered
    fields are additional inputs; `corrections`: number of predicted corrections.
    """

    filters: Tensor  # packed Wiener filters of the field; only if `told`

    def __init__(
        self,
        width: int = 48,
        fine_blocks: int = 2,
        dilations: tuple[int, ...] = (1, 2, 1),
        scale: int = 1,
        wide_blocks: int = 0,
        *,
        told: bool = False,
        corrections: int = 1,
    ) -> None:
        super().__init__()
        self.scale, self.told, self.corrections = scale, told, corrections
        self.stride = 16 if wide_blocks else 4
        if told:
            self.register_buffer("filters", create_zero_filters(), persistent=False)
        planes = 1 + FILTERS if told else 1
        self.stem = nn.Conv2d(4 * planes, width, 3, padding=1)
        self.encoder = nn.Sequential(*(DilatedBlock(width) for _ in range(fine_blocks)))
        self.down = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.wide = nn.Sequential(
            *(DilatedBlock(2 * width) for _ in range(wide_blocks))
        )
        self.wide_out = (
            init_layer_zero(nn.Conv2d(2 * width, 2 * width, 1)) if wide_blocks else None
        )
        self.context = nn.Sequential(*(DilatedBlock(2 * width, d) for d in dilations))
        self.up = nn.Conv2d(2 * width, 4 * width, 1)
        self.decoder = nn.Sequential(*(DilatedBlock(width) for _ in range(fine_blocks)))
        self.head = init_layer_zero(
            nn.Conv2d(width, 4 * corrections * scale**2, 3, padding=1)
        )

    def list_blocks(self) -> list[DilatedBlock]:
        """Return all blocks that accept a condition, in execution order."""
        levels = (self.encoder, self.context, self.decoder)
        return [block for level in levels for block in get_level_blocks(level)]

    def fitted(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adapt weights from a network with fewer inputs and outputs.

        Additional inputs have no weight at first, and its output is the last
        correction, so that both networks give the same result.
        """
        if not self.told:
            return weights
        fitting = dict(weights)
        for name in ("stem.weight", "head.weight", "head.bias"):
            own, value = self.state_dict()[name], weights.get(name)
            if value is None or value.shape == own.shape:
                continue
            if any(n > m for n, m in zip(value.shape, own.shape, strict=True)):
                continue
            fitting[name] = torch.zeros_like(own)
            outputs, *inputs = value.shape
            place = (slice(own.shape[0] - outputs, None), *(slice(n) for n in inputs))
            fitting[name][place] = value
        return fitting

    def estimate_corrections(
        self, planes: Tensor, condition: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Estimate corrections for images.

        `planes` (B, C, H, W), images and their filtered versions; `condition` (B, 2, C)
        for each block; returns (B, corrections, H * scale, W * scale).
        """
        turn = None if condition is None else iter(condition)
        fine = run_in_full_precision(self.stem, functional.pixel_unshuffle(planes, 2))
        for block in get_level_blocks(self.encoder):  # a call would hold its input
            fine = run_block(block, fine, turn)
        coarse = self.down(fine).to(fine.dtype)
        if self.wide_out is not None:
            coarse = coarse + functional.interpolate(
                self.wide_out(self.wide(functional.avg_pool2d(coarse, 4))),
                scale_factor=4.0,
                mode="bilinear",
            )
        for block in get_level_blocks(self.context):
            coarse = run_block(block, coarse, turn)
        fine = fine + functional.pixel_shuffle(self.up(coarse), 2)
        del coarse
        for block in get_level_blocks(self.decoder):
            fine = run_block(block, fine, turn)
        output = run_in_full_precision(self.head, fine)
        corrections: Tensor = functional.pixel_shuffle(output, 2 * self.scale)
        return corrections

    def forward(self, x: Tensor) -> Tensor:
        """Restore normalised (B, 1, H, W) to (B, 1, H * scale, W * scale)."""
        if self.told:
            planes = torch.cat([x, filter_images(x, self.filters)], dim=1)
            return x + self.estimate_corrections(planes).sum(1, keepdim=True)
        base = x
        if self.scale > 1:  # exact when tiled; the head learns the rest
            base = x.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)
        return base + self.estimate_corrections(x)


# Small residual network for one area, trained in minutes on a CPU.
#
# =======  =========================================================  ==========
# part     layers                                                     resolution
# =======  =========================================================  ==========
# stem     pixel-unshuffle 2, 3x3 convolution to `width`              1/2
# body     residual blocks of two 3x3 convolutions, of which the      1/2
#          first has the dilations of `dilations`
# head     3x3 convolution to 4, pixel-shuffle                        1
# =======  =========================================================  ==========
#
# The output is added to the input, and the head starts at zero, so that an untrained
# network returns its input. There is no normalisation layer: every output pixel depends
# only on its receptive field, and tiles are exact. All numbers are our choice; by
# default it has 0.13 million weights.


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
