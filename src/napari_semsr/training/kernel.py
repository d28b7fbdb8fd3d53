"""A blur as a network of one convolution: the physical half of a cycle.

A known one has no weights. A learnt one is a positive kernel that adds up to 1, as the
point-spread function of incoherent light or of a beam is. Two sets of images of the
same kind of sample, one blurred, tell the modulus of its transfer function: the mean
power spectrum of the blurred set is that of the other times the modulus squared, and
the noise. What that leaves open, a discriminator may tell.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.core.errors import OptionError, ReadError
from napari_semsr.io.registry import read
from napari_semsr.simulate.degrade import gaussian_kernel
from napari_semsr.training.objectives import KernelOptions

__all__ = ["Blur", "LearntBlur", "blur_of", "kernel_of"]

_LARGEST = 301
_HASTE = 10.0  # of a kernel's weights beside those of networks
_FLOOR = 5e-5  # of the kernel that a learnt one begins with, over its peak
_MEMORY = 0.995  # of the mean spectra
_EMPTY = 1e-9  # power of no signal at all


def kernel_of(options: KernelOptions) -> NDArray[np.float32]:
    """Make or read a kernel.

    Parameters
    ----------
    options : KernelOptions
        Gaussian, or file of a measured one.

    Returns
    -------
    (N, M) numpy.ndarray of float32
        Odd sides; adds up to 1.

    Raises
    ------
    ReadError
        If a file holds no kernel.
    """
    if options.file is None:
        kernel = gaussian_kernel(options.sigma_px, options.size_px)
    else:
        kernel = _measured(Path(options.file))
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def _measured(path: Path) -> NDArray[np.float64]:
    """Read a point-spread function."""
    try:
        if path.suffix == ".npy":
            kernel = np.load(path, allow_pickle=False).astype(float)
        else:
            kernel = read(path).array().astype(float)
    except (OSError, ValueError) as error:
        msg = f"The kernel {path.name} cannot be read: {str(error).splitlines()[0]}."
        raise ReadError(msg) from error
    sides = kernel.shape
    odd = len(sides) == 2 and all(n % 2 for n in sides) and max(sides) <= _LARGEST
    if not odd or not np.isfinite(kernel).all() or kernel.sum() <= 0:
        msg = (
            f"A kernel must be a finite image with odd sides up to {_LARGEST} px and a "
            f"positive sum, got {' x '.join(map(str, sides))} px in {path.name}."
        )
        raise ReadError(msg)
    return np.asarray(kernel)


class Blur(nn.Module):
    """Convolution with a kernel, and noise; edges are reflected.

    Parameters
    ----------
    kernel : (N, M) numpy.ndarray
        Odd sides; adds up to 1.
    noise : float
        Standard deviation of the noise, while the network learns.
    """

    kernel: Tensor

    def __init__(self, kernel: NDArray[np.float32], noise: float = 0.0) -> None:
        super().__init__()
        self.noise = noise
        flipped = np.ascontiguousarray(kernel[::-1, ::-1])
        self.register_buffer("kernel", torch.from_numpy(flipped)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Blur images, in fp32.

        Parameters
        ----------
        x : (B, 1, H, W) torch.Tensor
            Images.

        Returns
        -------
        (B, 1, H, W) torch.Tensor
            Blurred images.
        """
        return _blurred(x, self.kernel, self.noise if self.training else 0.0)


class LearntBlur(nn.Module):
    """Convolution with a kernel that is learnt, and noise; edges are reflected.

    Parameters
    ----------
    start : (N, M) numpy.ndarray
        Kernel to begin with; odd sides.
    noise : float
        Standard deviation of the noise, while the network learns.
    side : int
        Side of the patches, whose spectra are compared.
    weight : float
        Of that comparison.
    """

    mean_low: Tensor
    mean_high: Tensor
    window: Tensor

    def __init__(
        self, start: NDArray[np.float32], noise: float, side: int, weight: float
    ) -> None:
        super().__init__()
        self.noise, self.weight, self.side = noise, weight, side
        known = np.maximum(start[::-1, ::-1], _FLOOR * start.max())
        self.raised = nn.Parameter(torch.from_numpy(np.log(known) / _HASTE))
        hann = torch.hann_window(side, periodic=False)
        window = hann[:, None] * hann
        self.register_buffer("window", window / window.square().mean().sqrt())
        for name in ("mean_low", "mean_high"):
            self.register_buffer(name, torch.zeros(side, side // 2 + 1))

    def kernel(self) -> Tensor:
        """Give the kernel as it stands.

        Returns
        -------
        (1, 1, N, M) torch.Tensor
            Positive, adds up to 1; flipped, as a convolution of torch wants it.
        """
        flat = torch.softmax(_HASTE * self.raised.flatten(), 0)
        return flat.reshape(self.raised.shape)[None, None]

    def forward(self, x: Tensor) -> Tensor:
        """Blur images, in fp32.

        Parameters
        ----------
        x : (B, 1, H, W) torch.Tensor
            Images.

        Returns
        -------
        (B, 1, H, W) torch.Tensor
            Blurred images.
        """
        return _blurred(x, self.kernel(), self.noise if self.training else 0.0)

    def spectrum_loss(self, low: Tensor, high: Tensor) -> Tensor:
        """Compare the spectrum of blurred images with that of clear ones blurred.

        The means over all batches so far are compared, as logarithms.

        Parameters
        ----------
        low, high : (B, 1, side, side) torch.Tensor
            Degraded and clear patches of different places.

        Returns
        -------
        torch.Tensor
            Mean square, times the weight.
        """
        self._remember(low, self.mean_low)
        self._remember(high, self.mean_high)
        transfer = torch.fft.rfft2(self.kernel()[0, 0], s=(self.side, self.side))
        expected = transfer.abs().square() * self.mean_high + self.noise**2
        known = self.mean_low + _EMPTY
        apart = (expected + _EMPTY).log() - known.log()
        loss: Tensor = self.weight * apart.square().mean()
        return loss

    @torch.no_grad()
    def _remember(self, images: Tensor, mean: Tensor) -> None:
        """Add a batch to a mean power spectrum, in place."""
        varying = images[:, 0].float()
        varying = (varying - varying.mean((-1, -2), keepdim=True)) * self.window
        power = torch.fft.rfft2(varying, norm="ortho").abs().square().mean(0)
        # No branch on a value: it would make a GPU wait at every step.
        mean.copy_(torch.where(mean.any(), torch.lerp(power, mean, _MEMORY), power))


def blur_of(options: KernelOptions, side: int) -> Blur | LearntBlur:
    """Make the blur that a recipe asks for.

    Parameters
    ----------
    options : KernelOptions
        Which.
    side : int
        Side of the patches.

    Returns
    -------
    Blur or LearntBlur
        With weights, if it is learnt.

    Raises
    ------
    ReadError
        If a file holds no kernel.
    OptionError
        If a learnt kernel is larger than the patches.
    """
    kernel = kernel_of(options)
    if not options.learnt:
        return Blur(kernel, options.noise)
    if max(kernel.shape) > side:
        msg = (
            f"A learnt kernel must not be larger than the patches of {side} px, got "
            f"{max(kernel.shape)} px."
        )
        raise OptionError(msg)
    return LearntBlur(kernel, options.noise, side, options.spectrum_weight)


def _blurred(x: Tensor, kernel: Tensor, noise: float) -> Tensor:
    """Convolve with reflected edges, in fp32, and add noise."""
    rows, columns = (n // 2 for n in kernel.shape[-2:])
    padded = functional.pad(x, (columns, columns, rows, rows), mode="reflect")
    with torch.autocast(x.device.type, enabled=False):
        blurred: Tensor = functional.conv2d(padded.float(), kernel)
    return blurred + noise * torch.randn_like(blurred) if noise else blurred
