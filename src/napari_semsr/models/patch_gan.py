"""PatchGAN: a discriminator that judges overlapping patches of 70 x 70 px.

=====  ======  ======  ========  =============  ===========
layer  kernel  stride  channels  norm           activation
=====  ======  ======  ========  =============  ===========
1      4       2       64        instance       LeakyReLU
2      4       2       128       instance       LeakyReLU
3      4       2       256       instance       LeakyReLU
4      4       1       512       instance       LeakyReLU
5      4       1       1         none           none
=====  ======  ======  ========  =============  ===========

*Stated* by Sun et al. (SSUM): 70 x 70 patches; five convolutions; the first four with
4x4 kernels and 64 to 512 maps, each followed by instance norm and LeakyReLU.
*Chosen*: the strides. The text also says that all first four have stride 2, but such a
network sees 94 px; the stride of the fourth gives way, so that 70 holds. *Chosen* too:
padding 1, the slope 0.2, dropout after the layers 2 to 4 (the text names dropout as the
guard against overfitting, and neither its place nor its rate).

The textbook form (Isola et al. 2017, arXiv:1611.07004) leaves out the norm of the first
layer and has no dropout: ``first_norm=False, dropout=0``. Given two images at once, as
Pix2Pix does, it takes ``channels=2``.

``keen=True`` shows it each image twice: as it is, and four times what a mean of 3x3
takes from it. A discriminator has to find such a filter before it sees a blur, which
takes thousands of steps; this one has it from the start. That is in no paper, and the
short forms of recipes use it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.models.blocks import LeakyReLU, init_normal, norm_layer, sequence

__all__ = ["PatchGAN"]

_KEEN = 4.0  # the detail of a clear SEM image is then about as strong as the image


class PatchGAN(nn.Module):
    """Five 4x4 convolutions, three of them with stride 2.

    Parameters
    ----------
    width : int
        Channels after the first layer; eight times as many after the fourth.
    norm : {"batch", "instance", "none"}
        Normalisation.
    dropout : float
        Share of whole maps that are dropped after each of the layers 2 to 4.
    first_norm : bool
        Whether the first layer is normalised too.
    channels : int
        Channels of what is judged.
    keen : bool
        Whether fine detail is shown beside the image.
    """

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
            # a bias is undone by a batch norm, which has one of its own
            convolution = nn.Conv2d(
                inputs,
                outputs,
                4,
                stride=2 if level < 3 else 1,
                padding=1,
                bias=kind != "batch",
            )
            layers.append(
                sequence(
                    convolution,
                    norm_layer(kind, outputs),
                    LeakyReLU(),
                    nn.Dropout2d(dropout) if dropout and level else None,
                )
            )
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.head = nn.Conv2d(inputs, 1, 4, padding=1)
        init_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Judge an image.

        Parameters
        ----------
        x : (B, channels, H, W) torch.Tensor
            Image, true or generated; at least 24 px along each side.

        Returns
        -------
        (B, 1, H / 8 - 2, W / 8 - 2) torch.Tensor
            A score for each patch, without bounds.
        """
        if self.keen:
            around = functional.pad(x, (1, 1, 1, 1), mode="reflect")
            detail = x - functional.avg_pool2d(around, 3, stride=1)
            x = torch.cat((x, _KEEN * detail), dim=1)
        score: Tensor = self.head(self.features(x))
        return score
