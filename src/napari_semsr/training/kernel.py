"""A known blur as a network without weights: the physical half of a cycle."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from napari_semsr.core.errors import ReadError
from napari_semsr.io.registry import read
from napari_semsr.simulate.degrade import gaussian_kernel
from napari_semsr.training.objectives import KernelOptions

__all__ = ["Blur", "kernel_of"]

_LARGEST = 301


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
        rows, columns = (n // 2 for n in self.kernel.shape[-2:])
        padded = functional.pad(x, (columns, columns, rows, rows), mode="reflect")
        with torch.autocast(x.device.type, enabled=False):
            blurred: Tensor = functional.conv2d(padded.float(), self.kernel)
        if self.noise and self.training:
            blurred = blurred + self.noise * torch.randn_like(blurred)
        return blurred
