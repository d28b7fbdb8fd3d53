"""Losses of the four papers. Weighing and adding the terms is the recipe's business.

Where a paper's formula is misprinted or leaves a choice, the docstring says what is
taken. Images are ``(B, C, H, W)`` on the unit scale; a result is a scalar.

Gao: X. Gao et al., Sci. Rep. 14 (2024), doi:10.1038/s41598-024-57056-4. De Haan: K. de
Haan et al., Sci. Rep. 9, 12050 (2019), doi:10.1038/s41598-019-48444-2. Least squares
for GANs: X. Mao et al., ICCV 2017, arXiv:1611.04076. SSIM: Z. Wang et al., IEEE Trans.
Image Process. 13, 600 (2004), doi:10.1109/TIP.2003.819861.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from napari_semsr.core import ShapeError

_C1 = 1e-4  # K1 = 0.01, Gao's and the usual one
_C2 = 4e-4  # K2 = 0.02, Gao's; the usual one is 9e-4
_WINDOW = 11  # px, Wang's and Gao's
_SIGMA = 1.5  # px, Wang's; Gao et al. give none
_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))
_FLAT = 1e-12  # the root has no derivative at nothing; a flat place reads 1e-6


def lsgan_generator(fake_score: Tensor, factor: float = 0.5) -> Tensor:
    """Least-squares loss of a generator: what it makes should score 1.

    ``factor * mean((D(G(a)) - 1)^2)``: the first term of Gao's equation 9; the
    others do not depend on the generator. `factor` is a half in Gao's paper and 1 in
    de Haan's, whose equation 4 squares too. Scores are of any shape.
    """
    return factor * (fake_score - 1).square().mean()


def lsgan_discriminator(
    real_score: Tensor, fake_score: Tensor, factor: float = 0.5
) -> Tensor:
    """Least-squares loss of a discriminator: true images score 1, generated ones 0.

    ``factor * (mean((D(b) - 1)^2) + mean(D(G(a))^2))``: Gao's equation 9 without
    the generator's term. Scores are of any shape, and their shapes may differ.
    """
    return factor * ((real_score - 1).square().mean() + fake_score.square().mean())


def cycle_ssim(returned: Tensor, image: Tensor) -> Tensor:
    """One less the structural similarity, 0 to 2: one half of Gao's equation 11.

    `returned` is ``F(G(a))`` and `image` is ``a``, both (B, C, H, W).
    """
    return 1 - ssim(returned, image).mean()


def edge_loss(returned: Tensor, kept: Tensor) -> Tensor:
    """Mean squared difference of Sobel magnitudes: one half of Gao's equation 13.

    The equation compares ``F(G(a))`` with ``F(a)``, and ``G(F(b))`` with ``G(b)``: both
    are outputs, and neither is the input. That is taken as it stands.
    """
    return functional.mse_loss(sobel_magnitude(returned), sobel_magnitude(kept))


def total_variation(image: Tensor) -> Tensor:
    """Anisotropic total variation of (B, C, H, W): absolute steps down and across.

    De Haan's equation 3, which is a sum over the image; over a batch the mean of
    the images is taken.
    """
    down = (image[..., 1:, :] - image[..., :-1, :]).abs().sum()
    across = (image[..., 1:] - image[..., :-1]).abs().sum()
    return (down + across) / image.shape[0]


def weights_for_shares(
    values: Sequence[float], shares: Sequence[float]
) -> tuple[float, ...]:
    """Find fixed weights with which terms of given means have given shares of a loss.

    De Haan et al. give shares (84, 14 and 2 %) where other papers give weights: their
    weights are such that the shares came out. Measure the terms during a first stretch
    of training, take the weights from here, and keep them. The first weight is 1;
    shares need not add up to one.
    """
    if len(values) != len(shares) or not values:
        msg = f"each term needs one share, got {len(values)} and {len(shares)}"
        raise ValueError(msg)
    if min(*values, *shares) <= 0:
        msg = f"terms and shares must be positive, got {values} and {shares}"
        raise ValueError(msg)
    plain = [share / value for share, value in zip(shares, values, strict=True)]
    return tuple(weight / plain[0] for weight in plain)


def ssim(first: Tensor, second: Tensor, *, c2: float = _C2) -> Tensor:
    """Map the structural similarity of two images (B, C, H, W), -1 to 1.

    The denominator is the product of the two sums (Wang et al. 2004). Gao et al. print
    a plus between them in their equation 6; with it, equal images would not score 1.
    The map is 10 px smaller on each axis: the places where the whole window fits.
    """
    if first.shape != second.shape or min(first.shape[-2:]) < _WINDOW:
        msg = (
            f"SSIM needs two images of one shape and at least {_WINDOW} px, got "
            f"{tuple(first.shape)} and {tuple(second.shape)}."
        )
        raise ShapeError(msg)
    # variances are small differences of large numbers: 16 bits do not hold them
    a, b = (x if x.dtype == torch.float64 else x.float() for x in (first, second))
    taps = _gaussian(a)
    products = torch.stack((a, b, a * a, b * b, a * b))
    flat = products.reshape(-1, 1, *products.shape[-2:])
    blurred = functional.conv2d(flat, taps.reshape(1, 1, -1, 1))
    blurred = functional.conv2d(blurred, taps.reshape(1, 1, 1, -1))
    mean_a, mean_b, aa, bb, ab = blurred.reshape(
        *products.shape[:-2], *blurred.shape[-2:]
    )
    light = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    spread = (aa - mean_a**2) + (bb - mean_b**2) + c2
    similarity: Tensor = light * (2 * (ab - mean_a * mean_b) + c2) / spread
    return similarity


def _gaussian(like: Tensor) -> Tensor:
    """Taps of the window, which add up to one."""
    distance = torch.arange(_WINDOW, dtype=like.dtype, device=like.device)
    distance = distance - (_WINDOW - 1) / 2
    taps = torch.exp(-distance.square() / (2 * _SIGMA**2))
    return taps / taps.sum()


def sobel_magnitude(image: Tensor) -> Tensor:
    """Find how steep (B, C, H, W) is: the root of two squared Sobel slopes.

    Gao's equations 14 and 15. Edges are repeated, so that they are no slope. A slope of
    one per pixel reads 8.
    """
    across = torch.tensor(_SOBEL, dtype=image.dtype, device=image.device)
    kernels = torch.stack((across, across.T))[:, None]
    padded = functional.pad(
        image.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate"
    )
    slopes = functional.conv2d(padded, kernels)
    steep = (slopes.square().sum(1) + _FLAT).sqrt()
    return steep.reshape(image.shape)
