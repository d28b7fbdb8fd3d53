"""The default restorer: haze lifted by a look at the whole field, then a local network.

`VeilNet` sees the field once, in blocks; `TwoScale` then sees the lifted image. The
second part alone decides the halo of a tile, and the first costs next to nothing.
"""

import torch
from torch import Tensor, nn

from napari_semsr.models.two_scale import TwoScale
from napari_semsr.models.veil import BLOCK, Veil, VeilNet, block_statistics, lift

__all__ = ["Unveiled"]


class Unveiled(nn.Module):
    """`VeilNet` followed by `TwoScale`.

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
        Channels of `VeilNet`.

    Attributes
    ----------
    survey : VeilNet
        What looks at the whole field, once.
    local : TwoScale
        What runs on tiles of the lifted field.
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
        self.survey = VeilNet(veil_width)
        self.local = TwoScale(width, fine_blocks, dilations, scale)
        self.scale = self.local.scale
        self.stride = BLOCK

    def veil_of(self, field: Tensor) -> Veil:
        """Find the haze of whole fields, in fp32.

        Parameters
        ----------
        field : (B, 1, H, W) torch.Tensor
            Images on a scale where their percentiles are 0 and 1; H and W are
            multiples of 16.

        Returns
        -------
        Veil
            For blocks of 16 px.
        """
        with torch.autocast(field.device.type, enabled=False):
            veil: Veil = self.survey(block_statistics(field.float()))
        return veil

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
        restored: Tensor = self.local(lift(field, self.veil_of(field)))
        return restored
