"""Losses of the four papers, each as a function and as a module of the same name.

Where a paper's formula is misprinted or leaves a choice, the docstring says what is
taken. Images are ``(B, C, H, W)`` on the unit scale; a result is a scalar. Weighing
and adding the terms is the recipe's business.

Gao: X. Gao et al., Sci. Rep. 14 (2024), doi:10.1038/s41598-024-57056-4. De Haan: K. de
Haan et al., Sci. Rep. 9, 12050 (2019), doi:10.1038/s41598-019-48444-2. The textbook
CycleGAN: J.-Y. Zhu et al., ICCV 2017, arXiv:1703.10593. Least squares for GANs: X. Mao
et al., ICCV 2017, arXiv:1611.04076. SSIM: Z. Wang et al., IEEE Trans. Image Process.
13, 600 (2004), doi:10.1109/TIP.2003.819861.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.core import ShapeError

# Structural similarity of two images, differentiable.

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


# Slopes of images by Sobel's operators, differentiable.

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


def lsgan_generator(fake_score: Tensor, factor: float = 0.5) -> Tensor:
    """Least-squares loss of a generator: what it makes should score 1.

    ``factor * mean((D(G(a)) - 1)^2)``: the first term of Gao's equation 9; the
    others do not depend on the generator.

    Parameters
    ----------
    fake_score : torch.Tensor
        The discriminator's scores of generated images, of any shape.
    factor : float
        A half in Gao's paper; 1 in de Haan's, whose equation 4 squares too.

    Returns
    -------
    torch.Tensor
        The loss.
    """
    return factor * (fake_score - 1).square().mean()


def lsgan_discriminator(
    real_score: Tensor, fake_score: Tensor, factor: float = 0.5
) -> Tensor:
    """Least-squares loss of a discriminator: true images score 1, generated ones 0.

    ``factor * (mean((D(b) - 1)^2) + mean(D(G(a))^2))``: Gao's equation 9 without
    the generator's term.

    Parameters
    ----------
    real_score, fake_score : torch.Tensor
        Scores of true and of generated images; their shapes may differ.
    factor : float
        A half in Gao's paper; 1 in de Haan's.

    Returns
    -------
    torch.Tensor
        The loss.
    """
    return factor * ((real_score - 1).square().mean() + fake_score.square().mean())


def cycle_l1(returned: Tensor, image: Tensor) -> Tensor:
    """Mean absolute difference of an image and what two generators made of it.

    The textbook's cycle loss, which Sun's system uses.

    Parameters
    ----------
    returned, image : (B, C, H, W) torch.Tensor
        ``F(G(a))`` and ``a``.

    Returns
    -------
    torch.Tensor
        The loss.
    """
    return functional.l1_loss(returned, image)


def cycle_ssim(
    returned: Tensor,
    image: Tensor,
    *,
    c1: float = C1,
    c2: float = C2,
    window: int = WINDOW,
    sigma: float = SIGMA,
) -> Tensor:
    """One less the structural similarity: one half of Gao's equation 11.

    Parameters
    ----------
    returned, image : (B, C, H, W) torch.Tensor
        ``F(G(a))`` and ``a``, on the unit scale.
    c1, c2 : float
        Constants; 1e-4 and 4e-4 in the paper.
    window : int
        Side of the Gaussian; 11 in the paper.
    sigma : float
        Its standard deviation in pixels. The paper gives none; 1.5 is usual.

    Returns
    -------
    torch.Tensor
        The loss, 0 to 2.
    """
    similarity = ssim(returned, image, c1=c1, c2=c2, window=window, sigma=sigma)
    return 1 - similarity.mean()


def identity_mse(output: Tensor, image: Tensor) -> Tensor:
    """Mean squared change of an image that is already as it should be.

    One half of Gao's equation 12.

    Parameters
    ----------
    output, image : (B, C, H, W) torch.Tensor
        ``G(b)`` and ``b``.

    Returns
    -------
    torch.Tensor
        The loss.
    """
    return functional.mse_loss(output, image)


def edge_loss(returned: Tensor, kept: Tensor) -> Tensor:
    """Mean squared difference of Sobel magnitudes: one half of Gao's equation 13.

    The equation compares ``F(G(a))`` with ``F(a)``, and ``G(F(b))`` with ``G(b)``: both
    are outputs, and neither is the input. That is taken as it stands.

    Parameters
    ----------
    returned, kept : (B, C, H, W) torch.Tensor
        ``F(G(a))`` and ``F(a)``.

    Returns
    -------
    torch.Tensor
        The loss.
    """
    return functional.mse_loss(sobel_magnitude(returned), sobel_magnitude(kept))


def total_variation(image: Tensor, *, mean: bool = False) -> Tensor:
    """Anisotropic total variation: absolute steps down and across.

    De Haan's equation 3, which is a sum over the image; over a batch the mean of
    the images is taken.

    Parameters
    ----------
    image : (B, C, H, W) torch.Tensor
        Generated image.
    mean : bool, default=False
        Divide by the pixels, so that the loss does not grow with the patch.

    Returns
    -------
    torch.Tensor
        The loss.
    """
    down = (image[..., 1:, :] - image[..., :-1, :]).abs().sum()
    across = (image[..., 1:] - image[..., :-1]).abs().sum()
    count = image.numel() if mean else image.shape[0]
    return (down + across) / count


def weights_for_shares(
    values: Sequence[float], shares: Sequence[float]
) -> tuple[float, ...]:
    """Find fixed weights with which terms make up given shares of a loss.

    De Haan et al. give shares (84, 14 and 2 %) where other papers give weights: their
    weights are such that the shares came out. Measure the terms during a first stretch
    of training, take the weights from here, and keep them.

    Parameters
    ----------
    values : sequence of float
        Mean of each term, unweighted; positive.
    shares : sequence of float
        Share of each; they need not add up to one.

    Returns
    -------
    tuple of float
        Weights, that of the first term being 1.

    Raises
    ------
    ValueError
        If the lengths differ or a number is not positive.
    """
    if len(values) != len(shares) or not values:
        msg = f"each term needs one share, got {len(values)} and {len(shares)}"
        raise ValueError(msg)
    if min(*values, *shares) <= 0:
        msg = f"terms and shares must be positive, got {values} and {shares}"
        raise ValueError(msg)
    plain = [share / value for share, value in zip(shares, values, strict=True)]
    return tuple(weight / plain[0] for weight in plain)


class LSGANGenerator(nn.Module):
    """Module of `lsgan_generator`.

    Parameters
    ----------
    factor : float
        A half in Gao's paper; 1 in de Haan's.
    """

    def __init__(self, factor: float = 0.5) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, fake_score: Tensor) -> Tensor:
        """Return the loss of `lsgan_generator`.

        Parameters
        ----------
        fake_score : torch.Tensor
            Scores of generated images.

        Returns
        -------
        torch.Tensor
            The loss.
        """
        return lsgan_generator(fake_score, self.factor)


class LSGANDiscriminator(nn.Module):
    """Module of `lsgan_discriminator`.

    Parameters
    ----------
    factor : float
        A half in Gao's paper; 1 in de Haan's.
    """

    def __init__(self, factor: float = 0.5) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, real_score: Tensor, fake_score: Tensor) -> Tensor:
        """Return the loss of `lsgan_discriminator`.

        Parameters
        ----------
        real_score, fake_score : torch.Tensor
            Scores of true and of generated images.

        Returns
        -------
        torch.Tensor
            The loss.
        """
        return lsgan_discriminator(real_score, fake_score, self.factor)


class CycleL1(nn.Module):
    """Module of `cycle_l1`."""

    def forward(self, returned: Tensor, image: Tensor) -> Tensor:
        """Return the loss of `cycle_l1`.

        Parameters
        ----------
        returned, image : (B, C, H, W) torch.Tensor
            What came back, and what was sent.

        Returns
        -------
        torch.Tensor
            The loss.
        """
        return cycle_l1(returned, image)


class CycleSSIM(nn.Module):
    """Module of `cycle_ssim`.

    Parameters
    ----------
    c1, c2 : float
        Constants.
    window : int
        Side of the Gaussian.
    sigma : float
        Its standard deviation in pixels.
    """

    def __init__(
        self,
        c1: float = C1,
        c2: float = C2,
        window: int = WINDOW,
        sigma: float = SIGMA,
    ) -> None:
        super().__init__()
        self.c1, self.c2, self.window, self.sigma = c1, c2, window, sigma

    def forward(self, returned: Tensor, image: Tensor) -> Tensor:
        """Return the loss of `cycle_ssim`.

        Parameters
        ----------
        returned, image : (B, C, H, W) torch.Tensor
            What came back, and what was sent.

        Returns
        -------
        torch.Tensor
            The loss.
        """
        return cycle_ssim(
            returned,
            image,
            c1=self.c1,
            c2=self.c2,
            window=self.window,
            sigma=self.sigma,
        )


class IdentityMSE(nn.Module):
    """Module of `identity_mse`."""

    def forward(self, output: Tensor, image: Tensor) -> Tensor:
        """Return the loss of `identity_mse`.

        Parameters
        ----------
        output, image : (B, C, H, W) torch.Tensor
            What a generator made of an image that is as it should be, and that image.

        Returns
        -------
        torch.Tensor
            The loss.
        """
        return identity_mse(output, image)


class EdgeLoss(nn.Module):
    """Module of `edge_loss`."""

    def forward(self, returned: Tensor, kept: Tensor) -> Tensor:
        """Return the loss of `edge_loss`.

        Parameters
        ----------
        returned, kept : (B, C, H, W) torch.Tensor
            ``F(G(a))`` and ``F(a)``.

        Returns
        -------
        torch.Tensor
            The loss.
        """
        return edge_loss(returned, kept)


class TotalVariation(nn.Module):
    """Module of `total_variation`.

    Parameters
    ----------
    mean : bool
        Divide by the pixels.
    """

    def __init__(self, *, mean: bool = False) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, image: Tensor) -> Tensor:
        """Return the loss of `total_variation`.

        Parameters
        ----------
        image : (B, C, H, W) torch.Tensor
            Generated image.

        Returns
        -------
        torch.Tensor
            The loss.
        """
        return total_variation(image, mean=self.mean)
