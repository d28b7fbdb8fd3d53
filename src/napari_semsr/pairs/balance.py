"""Unpaired sets of equal pattern density.

Where two sets show different amounts of pattern, a network that is trained between them
learns to add or remove pattern. Density is the share of a patch's pixels whose gradient
is an edge's, by Otsu's threshold over the whole image; it does not mind which phase is
the bright one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import filters

from napari_semsr.core.micrograph import Micrograph
from napari_semsr.core.tiling import Box, read_box

__all__ = ["DensityMeter", "balance"]

_SIGMA_PX = 1.5
_SAMPLE = 1024
_BINS = 5


class DensityMeter:
    """Measures how much pattern patches of one image hold.

    Parameters
    ----------
    image : Micrograph
        The image; up to 1024 x 1024 px in its middle decide what an edge is.
    """

    def __init__(self, image: Micrograph) -> None:
        corners = [max(0, (n - _SAMPLE) // 2) for n in image.shape]
        ends = [min(n, c + _SAMPLE) for n, c in zip(image.shape, corners, strict=True)]
        sample = read_box(image.data, Box(corners[0], ends[0], corners[1], ends[1]))
        edges = _gradient(sample)
        flat = float(edges.max()) <= float(edges.min())
        self._threshold = np.inf if flat else float(filters.threshold_otsu(edges))

    def measure(self, patch: NDArray[Any]) -> float:
        """Measure a patch.

        Parameters
        ----------
        patch : (Y, X) numpy.ndarray
            Grey values.

        Returns
        -------
        float
            Share of edge pixels, in [0, 1].
        """
        return float((_gradient(patch) > self._threshold).mean())


def _gradient(values: NDArray[Any]) -> NDArray[np.float64]:
    """Gradient magnitude of smoothed grey values; NaN counts as 0."""
    known = np.nan_to_num(values.astype(float), posinf=0, neginf=0)
    made: NDArray[np.float64] = ndimage.gaussian_gradient_magnitude(known, _SIGMA_PX)
    return made


def balance(
    low: Sequence[float], high: Sequence[float], rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Choose equally many patches of equal density from two sets.

    Parameters
    ----------
    low, high : sequence of float
        Densities of the patches of both sets.
    rng : numpy.random.Generator
        Chooses among patches of one class of density.

    Returns
    -------
    low, high : list of int
        Indices of the chosen patches, of equal number, ordered by class of density:
        fifths of all densities together.
    """
    both = np.array([*low, *high])
    if not both.size:
        return [], []
    edges = np.quantile(both, np.linspace(0, 1, _BINS + 1)[1:-1])
    first, second = (np.searchsorted(edges, np.array(side)) for side in (low, high))
    chosen: tuple[list[int], list[int]] = ([], [])
    for number in range(_BINS):
        members = [np.flatnonzero(side == number) for side in (first, second)]
        count = min(len(members[0]), len(members[1]))
        for kept, found in zip(chosen, members, strict=True):
            kept += [int(i) for i in rng.permutation(found)[:count]]
    return chosen
