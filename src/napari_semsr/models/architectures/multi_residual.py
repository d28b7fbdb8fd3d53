"""Multi-residual generator of the SSUM system (Sun et al.), for a CycleGAN.

=========  ==========================================================  ==========
part       layers                                                      resolution
=========  ==========================================================  ==========
entry      7x7 convolution to 64, norm, LeakyReLU                      1
down       two 3x3 stride-2 convolutions, 64, norm, LeakyReLU          1/2, 1/4
residual   nine blocks: 3x3 convolution, norm, LeakyReLU, dropout,     1/4
           3x3 convolution, norm, added to the input; 64 channels
up         two sub-pixel layers: 3x3 convolution to 256, shuffle by    1/2, 1
           2, LeakyReLU
head       7x7 convolution to 1                                        1
=========  ==========================================================  ==========

*Stated*: a down-sampling module, nine residual blocks for images of 256 px, two 3x3
convolutions of 64 maps in each with batch norm and LeakyReLU, two learned sub-pixel
layers after them; dropout against overfitting; shallow features extracted by a
convolution. According to the paper the slope of the LeakyReLU is learnt, which is a
PReLU: ``slope="learnt"``, one for each layer, starting at 0.2. *Chosen*, since the
figure with the layers is not in the text: everything else, namely the 7x7 kernels, 64
maps throughout, two stride-2 convolutions (as many as sub-pixel layers), the positions
of the activations, the slope 0.2, the rate of dropout, reflected edges, a linear
output.

``norm="instance"`` is the variant whose statistics come from the image, as in the
textbook. With batch norm, the statistics stored in training are used, and a tile equals
the same pixels of the whole field.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from napari_semsr.models.architectures.blocks import (
    LeakyReLU,
    ResidualBlock,
    SubPixelUpsampling,
    build_stage,
    init_weights_normal,
    needs_bias,
)

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
