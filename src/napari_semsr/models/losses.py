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

from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.models.similarity import C1, C2, SIGMA, WINDOW, ssim
from napari_semsr.models.slopes import sobel_magnitude

__all__ = [
    "CycleL1",
    "CycleSSIM",
    "EdgeLoss",
    "IdentityMSE",
    "LSGANDiscriminator",
    "LSGANGenerator",
    "TotalVariation",
    "cycle_l1",
    "cycle_ssim",
    "edge_loss",
    "identity_mse",
    "lsgan_discriminator",
    "lsgan_generator",
    "total_variation",
    "weights_for_shares",
]


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
