"""Slopes of images by Sobel's operators, differentiable."""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["sobel_magnitude"]

_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))
_FLAT = 1e-12


def sobel_magnitude(image: Tensor) -> Tensor:
    """Find how steep an image is: the root of two squared Sobel slopes.

    Gao's equations 14 and 15. Edges are repeated, so that they are no slope. The root
    is taken of 1e-12 more, since it has no derivative at nothing: a flat place reads
    1e-6.

    Parameters
    ----------
    image : (B, C, H, W) torch.Tensor
        Image.

    Returns
    -------
    (B, C, H, W) torch.Tensor
        Magnitude; 8 on a slope of one per pixel.
    """
    across = torch.tensor(_SOBEL, dtype=image.dtype, device=image.device)
    kernels = torch.stack((across, across.T))[:, None]
    padded = functional.pad(
        image.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate"
    )
    slopes = functional.conv2d(padded, kernels)
    steep = (slopes.square().sum(1) + _FLAT).sqrt()
    return steep.reshape(image.shape)
