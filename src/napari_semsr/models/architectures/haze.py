"""The default restorer: a look at the whole field takes haze off, a network the rest.

`TransmissionNet` sees the field once, in blocks; `TwoScale` then sees the dehazed
image. The second part alone decides the halo of a tile, and the first costs next to
nothing.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.models.architectures.blocks import start_at_zero
from napari_semsr.models.architectures.two_scale import DilatedBlock, TwoScale

# A small network that finds smooth haze from the contrast of a whole field.
#
# Haze dims contrast about one grey level, the airlight (Gao et al. 2024):
# ``I = f t + A (1 - t)``, so that ``A + (I - A) g`` with ``g`` in proportion to ``1 /
# t`` brings the clear image back. Both are read from block statistics of the whole
# field: a tile is too small to tell a veiled region from a flat one. The statistics are
# those of blocks of 16 px, each by itself, so that they do not depend on how a field
# was cut.
#
# =======  ============================================================  ==========
# part     layers                                                        resolution
# =======  ============================================================  ==========
# input    mean and log energy in four bands of each block, and their    1/16
#          means over the field, 1x1 convolution to `width`
# down     two residual blocks each, then mean over 2x2                  1/16-1/128
# bottom   two residual blocks, plus two dense layers on their mean      1/128
# up       bilinear, added to what went down, one residual block each    1/64-1/16
# output   1x1 convolution to the log of g, and to the airlight, whose   1/16
#          mean is taken and added to the field's mean
# =======  ============================================================  ==========
#
# Every number here is chosen.

BLOCK = 16
_BANDS = 4
_LEVELS = 4
_LEAST_ENERGY = 1e-6  # about the rounding of 8 bits, on a scale where the range is 1
_LARGEST_LOG = 1.5  # haze seldom dims contrast by more than this factor e**1.5


class Haze(NamedTuple):
    """Haze found in fields.

    Attributes
    ----------
    log_gain : (B, 1, h, w) torch.Tensor
        Log of the gain that lifts it, for each block.
    airlight : (B, 1, 1, 1) torch.Tensor
        Grey level that haze draws every pixel to, on the scale of the input.
    """

    log_gain: Tensor
    airlight: Tensor


def block_statistics(field: Tensor) -> Tensor:
    """Take the mean and the energy in four bands of every block of 16 px.

    The bands are differences between means over 1, 2, 4, 8 and 16 px.

    Parameters
    ----------
    field : (B, 1, H, W) torch.Tensor
        Images whose sides are multiples of 16, on any linear scale.

    Returns
    -------
    (B, 5, H / 16, W / 16) torch.Tensor
        Means, then mean squared differences from fine to coarse.
    """
    energies = []
    for band in range(_BANDS):
        coarse = functional.avg_pool2d(field, 2)
        squares = functional.avg_pool2d(field.square(), 2) - coarse.square()
        side = BLOCK >> (band + 1)
        energies.append(functional.avg_pool2d(squares.clamp_min(0), side))
        field = coarse
    return torch.cat([field, *energies], dim=1)


def dehaze(field: Tensor, haze: Haze) -> Tensor:
    """Take haze off, with a gain that is bilinear between the centres of blocks.

    Parameters
    ----------
    field : (B, 1, H, W) torch.Tensor
        Images that the haze was found in, not larger than its blocks.
    haze : Haze
        From `TransmissionNet`.

    Returns
    -------
    (B, 1, H, W) torch.Tensor
        Images on the same grey scale.
    """
    gain = functional.interpolate(
        haze.log_gain.exp(), scale_factor=BLOCK, mode="bilinear"
    )[..., : field.shape[-2], : field.shape[-1]]
    return haze.airlight + (field - haze.airlight) * gain


class _ReplicatedBlock(DilatedBlock):
    """The block with replicated borders and a smooth rectifier."""

    rectifier = staticmethod(functional.gelu)

    def __init__(self, width: int) -> None:
        super().__init__(width, edges="replicate")


class BlockPyramid(nn.Module):
    """Find haze from features of a field's blocks, seen at four scales.

    `enter` makes (B, width, h, w) of what is seen of the blocks; `pooled` is how many
    summaries over the field `summed` gives of each channel.
    """

    def __init__(self, width: int, enter: nn.Module, pooled: int = 1) -> None:
        super().__init__()
        self.enter = enter
        self.down = nn.ModuleList(
            nn.Sequential(_ReplicatedBlock(width), _ReplicatedBlock(width))
            for _ in range(_LEVELS)
        )
        self.all = nn.Sequential(
            nn.Linear(pooled * width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.up = nn.ModuleList(_ReplicatedBlock(width) for _ in range(_LEVELS - 1))
        self.leave = start_at_zero(nn.Conv2d(width, 2, 1))

    def summed(self, x: Tensor) -> Tensor:
        """Sum a field up; `x` (B, C, h, w)."""
        return x.mean((-1, -2))

    def find(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Find log gain (B, 1, h, w) and airlight (B, 1, 1, 1) of the blocks `seen`.

        (B, 1 + bands, h, w), the mean first.
        """
        overall = seen.mean((-1, -2), keepdim=True)
        x = self.enter(torch.cat([seen - overall, overall.expand_as(seen)], dim=1))
        kept: list[Tensor] = []
        for level in self.down[:-1]:
            x = level(x)
            kept.append(x)
            x = functional.avg_pool2d(x, 2, ceil_mode=True)
        x = self.down[-1](x)
        x = x + self.all(self.summed(x))[..., None, None]
        for level, fine in zip(self.up, reversed(kept), strict=True):
            x = functional.interpolate(x, size=fine.shape[-2:], mode="bilinear")
            x = level(x + fine)
        found = self.leave(x)
        log_gain = _LARGEST_LOG * torch.tanh(found[:, :1] / _LARGEST_LOG)
        return log_gain, overall[:, :1] + found[:, 1:].mean((-1, -2), keepdim=True)


def log_energies(statistics: Tensor) -> Tensor:
    """Put energies of blocks on a scale of about 1; `statistics` (B, 1 + N, h, w)."""
    return 0.3 * (statistics[:, 1:] + _LEAST_ENERGY).log()


class TransmissionNet(BlockPyramid):
    """Find haze from the block statistics of a field."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(width, nn.Conv2d(2 * (_BANDS + 1), width, 1))

    def forward(self, statistics: Tensor) -> Haze:
        """Find the haze; `statistics` (B, 5, h, w)."""
        seen = torch.cat([statistics[:, :1], log_energies(statistics)], dim=1)
        return Haze(*self.find(seen))


class DehazingRestorer(nn.Module):
    """`TransmissionNet` followed by `TwoScale`.

    Parameters
    ----------
    width : int
        Channels of the local part at half resolution.
    fine_blocks : int
        As in `TwoScale`.
    dilations : sequence of int
        As in `TwoScale`.
    scale : int
        Output pixels per input pixel along each axis.
    veil_width : int
        Channels of `TransmissionNet`.

    Attributes
    ----------
    survey : TransmissionNet
        What looks at the whole field, once.
    local : TwoScale
        What runs on tiles of the dehazed field.
    """

    def __init__(
        self,
        width: int = 48,
        fine_blocks: int = 2,
        dilations: tuple[int, ...] = (1, 2, 1),
        scale: int = 1,
        veil_width: int = 32,
    ) -> None:
        super().__init__()
        self.survey = TransmissionNet(veil_width)
        self.local = TwoScale(width, fine_blocks, dilations, scale)
        self.scale = self.local.scale
        self.stride = BLOCK

    def find_haze(self, field: Tensor) -> Haze:
        """Find the haze of whole fields, in fp32.

        Parameters
        ----------
        field : (B, 1, H, W) torch.Tensor
            Images on a scale where their percentiles are 0 and 1; H and W are
            multiples of 16.

        Returns
        -------
        Haze
            For blocks of 16 px.
        """
        with torch.autocast(field.device.type, enabled=False):
            haze: Haze = self.survey(block_statistics(field.float()))
        return haze

    def forward(self, field: Tensor) -> Tensor:
        """Restore whole fields.

        Parameters
        ----------
        field : (B, 1, H, W) torch.Tensor
            Images on a scale where their percentiles are 0 and 1; H and W are
            multiples of 16.

        Returns
        -------
        (B, 1, H * scale, W * scale) torch.Tensor
            Restored images on the same scale.
        """
        restored: Tensor = self.local(dehaze(field, self.find_haze(field)))
        return restored
