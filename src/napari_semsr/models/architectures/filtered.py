"""A network behind Wiener filters of a blur that is known.

A linear filter undoes most of a known blur at once. How far it may go depends on noise
and detail, which differ from place to place: a small network mixes three filters, and
`TwoScale` corrects what they leave. The filters are those of `napari_semsr.restore`,
which weigh the misfit against a Laplacian.
"""

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.models.architectures.blocks import start_at_zero
from napari_semsr.models.architectures.two_scale import TwoScale

if TYPE_CHECKING:
    from napari_semsr.restoration import Taps

_MIXER_WIDTH = 32  # with 24, PyTorch 2.13 gives NaN gradients in bf16 on a CPU
_MIXER_DILATIONS = (1, 2, 4)


class Deblurred(nn.Module):
    """Wiener filters of a Gaussian blur, mixed, then `TwoScale`.

    Parameters
    ----------
    sigma_px : float
        Standard deviation of the blur.
    size_px : int
        Side of the window that the Gaussian is cut to; odd.
    balances : sequence of float
        Weights of the squared Laplacian, one for each filter. The first filter alone
        acts before training.
    width : int
        As in `TwoScale`.
    fine_blocks : int
        As in `TwoScale`.
    dilations : sequence of int
        As in `TwoScale`.

    Attributes
    ----------
    taps : (F, 1, N, N) torch.Tensor
        Filters, whose sums are 1.
    mixer : torch.nn.Sequential
        Gives, for every pixel, how much of the other filters' results is taken.
    corrector : TwoScale
        What corrects the mixture.

    Raises
    ------
    ValueError
        If the blur or a balance is not positive, or the window not odd.
    """

    taps: Tensor

    def __init__(
        self,
        sigma_px: float = 1.0,
        size_px: int = 7,
        balances: tuple[float, ...] = (2e-4, 2e-3, 2e-5),
        width: int = 48,
        fine_blocks: int = 2,
        dilations: tuple[int, ...] = (1, 2, 1),
    ) -> None:
        # Here, since scikit-image would take 50 MB of every process that loads a model
        from napari_semsr.restoration import smoothing_taps
        from napari_semsr.simulation import gaussian_kernel

        super().__init__()
        if not balances or min(sigma_px, *balances) <= 0:
            msg = (
                "sigma_px and balances must be positive, "
                f"got {sigma_px:g} and {list(balances)}"
            )
            raise ValueError(msg)
        if size_px % 2 == 0:
            msg = f"size_px must be odd, got {size_px}"
            raise ValueError(msg)
        self.corrector = TwoScale(width, fine_blocks, dilations)
        self.scale, self.stride = self.corrector.scale, self.corrector.stride
        kernel = gaussian_kernel(sigma_px, size_px)
        taps = [smoothing_taps(kernel, balance) for balance in balances]
        self.register_buffer("taps", _stacked(taps))
        self.mixer = _mixer(len(taps))

    def forward(self, x: Tensor) -> Tensor:
        """Restore a normalised image.

        Parameters
        ----------
        x : (B, 1, H, W) torch.Tensor
            Image on a scale where the field's percentiles are 0 and 1; H and W are
            multiples of 4.

        Returns
        -------
        (B, 1, H, W) torch.Tensor
            Restored image on the same scale.
        """
        # In bf16 the taps, of both signs and above 1, would lose 1 % of the range.
        with torch.autocast(x.device.type, enabled=False):
            margin = (self.taps.shape[-1] // 2,) * 4
            around = functional.pad(x.float(), margin, mode="replicate")
            filtered = functional.conv2d(around, self.taps)
        first = filtered[:, :1]
        seen = functional.pixel_unshuffle(filtered, 2)
        shares = functional.pixel_shuffle(self.mixer(seen), 2)
        others = (shares * (filtered[:, 1:] - first)).sum(1, keepdim=True)
        restored: Tensor = self.corrector(first + others)
        return restored


def _stacked(taps: "list[Taps]") -> Tensor:
    """Bring filters to one size."""
    radius = max(one.radius for one in taps)
    planes = []
    for one in taps:
        weights = torch.as_tensor(one.weights).float()
        planes.append(functional.pad(weights, (radius - one.radius,) * 4))
    return torch.stack(planes)[:, None]


def _mixer(filters: int) -> nn.Sequential:
    """Make what chooses among filters; it starts at the first one alone."""
    convolve = partial(nn.Conv2d, kernel_size=3)
    last = start_at_zero(convolve(_MIXER_WIDTH, 4 * (filters - 1), padding=1))
    layers: list[nn.Module] = [convolve(4 * filters, _MIXER_WIDTH, padding=1)]
    for reach in _MIXER_DILATIONS:
        wide = convolve(_MIXER_WIDTH, _MIXER_WIDTH, padding=reach, dilation=reach)
        layers += [nn.ReLU(), wide]
    return nn.Sequential(*layers, nn.ReLU(), last)
