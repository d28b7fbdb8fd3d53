"""Structural similarity of two images, differentiable."""

import torch
from torch import Tensor
from torch.nn import functional

from napari_semsr.core.errors import ShapeError

__all__ = ["C1", "C2", "SIGMA", "WINDOW", "ssim"]

C1, C2 = 1e-4, 4e-4
WINDOW, SIGMA = 11, 1.5


def _gaussian(window: int, sigma: float, like: Tensor) -> Tensor:
    """Taps of a Gaussian that add up to one."""
    distance = torch.arange(window, dtype=like.dtype, device=like.device)
    distance = distance - (window - 1) / 2
    taps = torch.exp(-distance.square() / (2 * sigma**2))
    return taps / taps.sum()


def ssim(
    first: Tensor,
    second: Tensor,
    *,
    c1: float = C1,
    c2: float = C2,
    window: int = WINDOW,
    sigma: float = SIGMA,
) -> Tensor:
    """Map the structural similarity of two images.

    The denominator is the product of the two sums (Wang et al. 2004). Gao et al. print
    a plus between them in their equation 6; with it, equal images would not score 1.

    Parameters
    ----------
    first, second : (B, C, H, W) torch.Tensor
        Images on the unit scale.
    c1, c2 : float
        Constants that keep flat places from dividing by nothing. Gao's 1e-4 and 4e-4
        are ``K1 = 0.01`` and ``K2 = 0.02``; the usual second one is 9e-4.
    window : int
        Side of the Gaussian window.
    sigma : float
        Its standard deviation in pixels.

    Returns
    -------
    (B, C, H - window + 1, W - window + 1) torch.Tensor
        Similarity at each place where the whole window fits, -1 to 1.

    Raises
    ------
    ShapeError
        If the shapes differ, or the window does not fit.
    """
    if first.shape != second.shape or min(first.shape[-2:]) < window:
        msg = (
            f"SSIM needs two images of one shape and at least {window} px, got "
            f"{tuple(first.shape)} and {tuple(second.shape)}."
        )
        raise ShapeError(msg)
    # variances are small differences of large numbers: 16 bits do not hold them
    a, b = (x if x.dtype == torch.float64 else x.float() for x in (first, second))
    taps = _gaussian(window, sigma, a)
    products = torch.stack((a, b, a * a, b * b, a * b))
    flat = products.reshape(-1, 1, *products.shape[-2:])
    blurred = functional.conv2d(flat, taps.reshape(1, 1, -1, 1))
    blurred = functional.conv2d(blurred, taps.reshape(1, 1, 1, -1))
    mean_a, mean_b, aa, bb, ab = blurred.reshape(
        *products.shape[:-2], *blurred.shape[-2:]
    )
    light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    spread = (aa - mean_a**2) + (bb - mean_b**2) + c2
    similarity: Tensor = light * (2 * (ab - mean_a * mean_b) + c2) / spread
    return similarity
