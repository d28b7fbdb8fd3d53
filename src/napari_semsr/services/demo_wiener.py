"""The classical restoration that the demonstration shows beside the network."""

import numpy as np
from numpy.typing import NDArray

from napari_semsr.core.micrograph import Micrograph

__all__ = ["estimate_wiener"]


def estimate_wiener(image: Micrograph, *, sigma_px: float = 1.0) -> Micrograph:
    """Restore an image by scikit-image's unsupervised Wiener filter.

    Parameters
    ----------
    image : Micrograph
        A blurred, noisy image.
    sigma_px : float, default=1.0
        Width of the Gaussian blur, which the filter must be told.

    Returns
    -------
    Micrograph
        In float32 and the grey scale of the input.

    Notes
    -----
    The strength of the regularisation is sampled, not given [1]_; its draws are seeded.

    References
    ----------
    .. [1] F. Orieux, J.-F. Giovannelli, T. Rodet, J. Opt. Soc. Am. A 27, 1593 (2010),
       doi:10.1364/JOSAA.27.001593.
    """
    from skimage.restoration import unsupervised_wiener

    data = np.asarray(image.array(), dtype=np.float64)
    low, high = float(data.min()), float(data.max())
    span = max(high - low, 1e-12)
    restored, _ = unsupervised_wiener(
        (data - low) / span, _gaussian(sigma_px), clip=False, rng=0
    )
    grey = (restored * span + low).astype(np.float32)
    return image.replace(data=grey, name="wiener", provenance=None)


def _gaussian(sigma_px: float) -> NDArray[np.float64]:
    """Point-spread function of the blur."""
    half = max(1, round(3 * sigma_px))
    line = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma_px) ** 2)
    kernel: NDArray[np.float64] = np.outer(line, line)
    kernel /= kernel.sum()
    return kernel
